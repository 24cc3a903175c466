"""The second study's numbers against a second count in PyTorch, which shares no code with them but reading weights."""

import csv
import dataclasses

import pytest
from test_abnar_2020 import EMBEDDED, tiny

from experiments.abnar_2020 import __main__ as study_command
from experiments.abnar_2020 import agreement, recount, scales
from seqkd_jax.utils import files

pytestmark = pytest.mark.peers
COLUMNS = [
    "sentence",
    "subj_idx",
    "verb_idx",
    "verb_pos",
    "verb",
    "inflected_verb",
    "distance",
    "n_intervening",
    "n_attractors",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The embedded sentences as files."""
    directory = tmp_path_factory.mktemp("data")
    for split, found in agreement.load(None, 0, EMBEDDED).items():
        with open(directory / f"{split}.tsv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
            writer.writerow(COLUMNS)
            tags = ["VBP" if plural else "VBZ" for plural in found.plural]
            places = found.subject, found.verb, tags, *zip(*found.forms, strict=True)
            counts = found.distance, found.intervening, found.attractors
            writer.writerows(zip(map(" ".join, found.words), *places, *counts, strict=True))
        (directory / "linzen_strata").mkdir(exist_ok=True)
        prefixes = [" ".join(words[:verb]) for words, verb in zip(found.words, found.verb, strict=True)]
        lines = [f"{tag}\t{prefix}\n" for tag, prefix in zip(tags, prefixes, strict=True)]
        for stratum in range(1, 5):  # whatever their attractors: of the test split, which is written last
            path = directory / "linzen_strata" / f"attractors_{stratum}.tsv"
            path.write_text("".join(lines[stratum::7]), encoding="utf-8")
    return directory


@pytest.mark.parametrize("setup", ["lm", "classification"])
def test_numbers_are_counted_again(setup, data, tmp_path, monkeypatch, capsys):
    scale = dataclasses.replace(tiny(setup), name="small", embedded=None, teaching="end")
    if setup == "classification":  # a shared layer, too
        shared = dataclasses.replace(scales.SCALES[setup, "smoke"].models["UTransformer-seq"], layers=3)
        scale = dataclasses.replace(scale, models={**scale.models, "LSTM": shared})
    monkeypatch.setitem(scales.SCALES, (setup, "small"), scale)
    run = ["--setup", setup, "--scale", "small", "--data", str(data), "--out", str(tmp_path)]
    assert study_command.main(run) == 0
    capsys.readouterr()
    again = ["--out", str(tmp_path), "--data", str(data)]
    assert recount.main(again) == 0
    printed = capsys.readouterr().out
    assert printed.count(" → ") == 2 and "the same" in printed, "two seeds of the taught arm"

    for metric in recount.METRICS:
        told = files.read_json(tmp_path / "results.json")
        told["arms"][1]["metrics"][metric]["values"][1] += 0.05
        files.write_json(tmp_path / "results.json", told)
        assert recount.main(again) == 1, f"a wrong {metric} was not seen"
        assert "DIFFERENT" in capsys.readouterr().out
        told["arms"][1]["metrics"][metric]["values"][1] -= 0.05
        files.write_json(tmp_path / "results.json", told)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "no results.json of abnar_2020"),
        ({"study": "kim_rush_2016"}, "no results.json of abnar_2020"),
        ({"study": "abnar_2020", "setup": "images", "arms": []}, "not a study of sentences"),
    ],
)
def test_results_of_another_study_are_refused(tmp_path, capsys, found, message):
    files.write_json(tmp_path / "results.json", found)
    assert recount.main(["--out", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
