"""Table 2 from a record of the decoding benchmark."""

import math

import pytest

from experiments.kim_rush_2016 import table_2
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

ARMS = [{"parameters": 900, "model": "2×500"}, {"parameters": 100, "model": "2×100"}]


def record(directory, *models, **others):
    """Models (parameters, {(beam, rows): words/s})."""
    found = [
        {
            "parameters": parameters,
            "base": "engine",
            "beams": [
                {
                    "beam": beam,
                    "cases": [
                        {"rows": rows, "systems": {"engine": {"source_words_per_second": interval(rate)}}}
                        for (at, rows), rate in rates.items()
                        if at == beam
                    ],
                }
                for beam in sorted({beam for beam, _ in rates})
            ],
        }
        for parameters, rates in models
    ]
    told = {"study": "decoding_speed", "command": "it", "commit": "c", "host_cpu": "a CPU", "devices": ["cpu"]}
    files.write_json(directory / "results.json", told | {"settings": {"rules": "x"}, "models": found} | others)
    return directory


def interval(rate):
    return {"median": rate, "low": rate - 1, "high": rate + 1}


def test_models_are_those_of_the_study_beside_the_papers(tmp_path):
    teacher = 900, {(1, 1): 20.0, (1, 32): 200.0, (5, 1): 10.0, (5, 32): 50.0}
    student = 100, {(1, 1): 40.0, (1, 32): 800.0, (5, 1): 30.0, (5, 32): 100.0}
    found = table_2.entries(record(tmp_path, teacher, student, (7, {(1, 1): 5.0})), ARMS)
    assert {line["model"] for line in found["lines"]} == {"2×500", "2×100"}, "another model is left out"
    (section,) = table_2.sections({"speed": found})
    ours = {(row[0], row[1]): row[5:] for row in section.table.rows if row[0].startswith("here")}
    assert ours["here, 2×100", "1"] == ["16.0", "40.0 [39.0, 41.0]", "800 [799, 801]", "32"]
    assert ours["here, 2×500", "5"][0] == "1.0"
    assert section.table.rows[0][:4] == ["paper, 4×1000", "1", "425.5", "15.0"]
    assert table_2.sections({}) == []


@pytest.mark.parametrize(("rate", "verdict"), [(800.0, "reproduced"), (502.0, "inconclusive"), (300.0, "contradicted")])
def test_ten_times_as_fast_is_a_threshold_with_an_interval(tmp_path, rate, verdict):
    """Of rounds of 50 ± 1 words a second of the teacher, so 500 ± 10 of a student are about ten times."""
    teacher = 900, {(1, 32): 200.0, (5, 32): 50.0}
    student = 100, {(1, 32): rate, (5, 32): 100.0}
    (claim,) = table_2.claims({"speed": table_2.entries(record(tmp_path, teacher, student), ARMS)})
    assert (claim.about, claim.verdict) == ("2×100", verdict)
    assert claim.effect == pytest.approx(math.log(rate / 50.0 / 10))
    assert claim.interval[0] < math.log((rate - 1) / 51 / 10) + 0.01, "both rates are uncertain"
    assert claim.published == "10.3 times on a GPU, 8.1 on a CPU, with 2.6 times fewer parameters"
    assert claim.measured.endswith("with 9.0 times fewer parameters")


def test_too_few_rounds_decide_nothing(tmp_path):
    """Their rates have no interval; tables show the medians."""
    found = table_2.entries(record(tmp_path, (900, {(5, 32): 50.0}), (100, {(1, 32): 800.0})), ARMS)
    for line in found["lines"]:
        line["words"] |= {"low": None, "high": None}
    (claim,) = table_2.claims({"speed": found})
    assert (claim.verdict, claim.interval, claim.effect) == ("inconclusive", None, pytest.approx(math.log(1.6)))
    assert "800" in str(table_2.sections({"speed": found})[0].table.rows)


def test_without_the_teacher_s_beam_nothing_is_claimed(tmp_path):
    found = table_2.entries(record(tmp_path, (900, {(1, 32): 200.0}), (100, {(1, 32): 800.0})), ARMS)
    assert table_2.claims({"speed": found}) == table_2.claims({}) == []


def test_another_record_and_other_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="--speed .*no record of the decoding benchmark"):
        table_2.read(record(tmp_path, study="training"))
    with pytest.raises(UserError, match="its models have 7 parameters, which no arm"):
        table_2.entries(record(tmp_path, (7, {(1, 1): 5.0})), ARMS)
    with pytest.raises(UserError, match=r"results\.json: damaged, models is 7: it must be a list; measure it anew"):
        table_2.read(record(tmp_path, models=7))
    with pytest.raises(UserError, match="nothing"):
        table_2.read(tmp_path / "nothing")
