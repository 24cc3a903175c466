"""Reports written anew from results.json alone."""

import pytest
import test_abnar_2020_report

from experiments.abnar_2020 import claims as abnar_claims
from experiments.abnar_2020 import tables as abnar_tables
from experiments.core import render
from seqkd_jax.utils import files


def abnar():
    found = test_abnar_2020_report.made_up("lm")
    return found, abnar_claims.claims(found), abnar_tables.table(found)


@pytest.mark.parametrize("made_up", [abnar])
def test_a_report_is_written_anew_from_its_results_alone(made_up, tmp_path, capsys):
    found, claims, table = made_up()
    files.write_json(tmp_path / "results.json", found | {"claims": ["of an earlier version"]})
    (tmp_path / "table.md").write_text("old", encoding="utf-8")
    assert render.main(["--out", str(tmp_path)]) == 0
    told = files.read_json(tmp_path / "results.json")
    assert told["claims"] == [claim._asdict() | {"interval": as_json(claim.interval)} for claim in claims]
    assert told.keys() - found.keys() <= {"rendered", "claims"}
    assert {key: told[key] for key in found if key != "claims"} == {key: found[key] for key in found if key != "claims"}
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == table
    assert list((tmp_path / "plots").glob("*.png"))
    files.write_json(tmp_path / "results.json", found | {"arms": [{"arm": "LSTM"}]})
    assert render.main(["--out", str(tmp_path)]) == 2
    assert "of an old form; make it anew" in capsys.readouterr().err


def test_results_of_another_study_are_refused(tmp_path, capsys):
    for found in ({"study": "replicas"}, ["no", "results"]):
        files.write_json(tmp_path / "results.json", found)
        assert render.main(["--out", str(tmp_path)]) == 2
        assert "no results.json of abnar_2020" in capsys.readouterr().err


def as_json(interval):
    """An interval as it is read."""
    return interval and list(interval)
