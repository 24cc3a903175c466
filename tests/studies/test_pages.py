"""Sections as Markdown and HTML; pages, the README's table and each table.md are what the committed results say."""

import re
import shutil

import pytest

from experiments.core import pages, report
from experiments.core.study import main
from experiments.core.tables import Column, Section, Table, of_arms
from experiments.kim_rush_2016.study import STUDY
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

SMOKE = pages.ROOT / pages.RESULTS / "kim_rush_2016" / "smoke"


@pytest.fixture
def root(tmp_path):
    """A tree with one result, nothing that was made of it, and a README with the marks."""
    directory = tmp_path / pages.RESULTS / "kim_rush_2016" / "smoke"
    directory.mkdir(parents=True)
    shutil.copy(SMOKE / "results.json", directory)
    (tmp_path / "README.md").write_text(f"above\n{pages.START}\nold\n{pages.END}\nbelow\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def only_one(monkeypatch):
    monkeypatch.setattr(pages, "STUDIES", ("kim_rush_2016",))


def test_what_is_generated_is_what_the_committed_results_say():
    for path, text in pages.written(pages.ROOT).items():
        assert (pages.ROOT / path).read_text(encoding="utf-8") == text, f"{path} is stale: run {pages.COMMAND}"


def test_the_verdicts_of_committed_results_are_todays():
    for name in pages.STUDIES:
        for run in pages.committed(pages.study_of(name), pages.ROOT):
            for told, claim in zip(run.results["claims"], run.claims, strict=True):
                numbers = ("effect", "interval", "p", "p_holm")
                today = claim._asdict() | {key: pytest.approx(getattr(claim, key)) for key in numbers}
                assert told == today, f"python -m experiments.{name} --render {run.path}"


def test_a_demonstration_is_not_counted(root, only_one):
    """In the README's table; its verdicts stand in that of the papers, labelled."""
    (root / "docs").mkdir()
    (root / "docs" / "papers.md").write_text(f"a\n{pages.CLAIMS.format('kim_rush_2016')}\n{pages.END}\nb\n")
    pages.update(pages.Options(), root)
    (row,) = [line for line in (root / "README.md").read_text().splitlines() if "Kim & Rush" in line]
    assert row.endswith("| demo | – | – | – |")
    head, _, *rows = (root / "docs" / "papers.md").read_text().splitlines()[2:-2]
    claims = pages.committed(STUDY, root)[0].claims
    assert "a demonstration" in head and [row.split(" | ")[0][2:] for row in rows] == [claim.text for claim in claims]
    assert all(row.endswith(f"| {claim.verdict} |") for row, claim in zip(rows, claims, strict=True))
    page = (root / pages.PAGES / "kim_rush_2016.md").read_text()
    assert "Claims of the paper, a demonstration" in page and page.count("in sight of the effect; its verdicts") >= 2


def test_stale_files_are_named_and_written_anew(root, only_one, capsys):
    assert pages.update(pages.Options(check=True), root) == 1
    told = capsys.readouterr().err
    assert "stale: docs/results/kim_rush_2016.md" in told and "stale: README.md" in told and "/table.md" in told
    assert not (root / pages.PAGES).exists()
    assert pages.update(pages.Options(), root) == 0 and pages.update(pages.Options(check=True), root) == 0
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("above\n") and readme.endswith("below\n") and "old" not in readme
    assert "Kim & Rush 2016" in readme and not set("†‡§") & set(readme)
    assert all(len(line) <= 120 for line in readme.splitlines())
    page = (root / pages.PAGES / "kim_rush_2016.md").read_text(encoding="utf-8")
    parts = ["What was found", "\n| model", "Claims of the paper", "## How", "## Deviations"]
    assert [page.index(part) for part in parts] == sorted(page.index(part) for part in parts)
    (root / "README.md").write_text(pages.START, encoding="utf-8")
    with pytest.raises(UserError, match="without <!-- end -->"):
        pages.written(root)


def test_a_report_is_written_anew_from_its_results_alone(root, capsys):
    directory = root / pages.RESULTS / "kim_rush_2016" / "smoke"
    before = files.read_json(directory / "results.json")
    before.pop("rendered", None)
    files.write_json(directory / "results.json", before | {"claims": ["of an earlier version"]})
    assert main(STUDY, ["--render", str(directory)]) == 0
    after = files.read_json(directory / "results.json")
    assert after.pop("rendered") and after == before
    assert (directory / "table.md").read_text(encoding="utf-8") == (SMOKE / "table.md").read_text(encoding="utf-8")
    drawn, committed = ({path.stem for path in (of / "plots").iterdir()} for of in (directory, SMOKE))
    assert drawn == committed
    assert "Quality against speed" in (directory / "report.html").read_text(encoding="utf-8")
    for wrong, told in (
        ({"study": "another", "arms": []}, "no results.json of kim_rush_2016"),
        (["no", "results"], "no results.json of kim_rush_2016"),
        (before | {"arms": [{"arm": "Seq-KD"}]}, "'Seq-KD' lacks against.*old form; make the results anew"),
        (before | {"scale": "nano"}, "no scale has results called 'nano'"),
    ):
        files.write_json(directory / "results.json", wrong)
        capsys.readouterr()
        assert main(STUDY, ["--render", str(directory)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(told, line), line


SECTION = Section(
    "A & B",
    text=["Stars * are plain, `a*b` is code, [here](there.md)."],
    points=["one"],
    table=Table(["arm", "Δ"], [["x|y", "+1.0**"], ["longer", "–"]], notes=["* p < 0.05"]),
    images=[("a plot", "plots/a.png")],
)


def test_a_section_as_markdown():
    assert report.to_markdown([SECTION], level=3) == (
        "### A & B\n\nStars \\* are plain, `a*b` is code, [here](there.md).\n\n- one\n\n"
        "| arm    |        Δ |\n| ------ | -------: |\n| x\\|y   | +1.0\\*\\* |\n| longer |        – |\n\n"
        "- \\* p < 0.05\n\n![a plot](plots/a.png)\n"
    )


def test_a_column_without_a_number_in_every_row_is_left_out():
    columns = [Column("a", lambda results, arm: arm["a"]), Column("b", lambda results, arm: arm.get("b"))]
    assert of_arms(columns, {}, [{"a": "1", "b": "2"}, {"a": "3"}])[:2] == (("a",), [("1",), ("3",)])
    assert of_arms(columns, {}, [{"a": "1", "b": "2"}])[:2] == (("a", "b"), [("1", "2")])
