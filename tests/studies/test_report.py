"""The page to look at: whole, safe and readable; in a real browser it sorts, filters, and fits a narrow screen."""

import base64
import hashlib
import json
import re
import subprocess

import chromium
import pytest

from experiments.core import outputs as outputs_of
from experiments.core import pages
from experiments.core.charts import Axis, Chart, Mark, Series
from experiments.core.outputs import Outputs
from experiments.core.plots import pyplot, svg
from experiments.core.tables import Section, Table
from experiments.report import axes, browser, claims, drawing, markup, page, parts
from experiments.report.__main__ import main, part
from seqkd_jax.evaluation import metrics
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

SMOKE = pages.ROOT / pages.RESULTS / "kim_rush_2016" / "smoke"
EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u2028&amp;'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The committed run of the toy language, with outputs of our own: 40 sentences, of which some try to be HTML."""
    directory = tmp_path_factory.mktemp("run")
    results = files.read_json(SMOKE / "results.json")
    references = [f"das ist Satz {number} der Reihe" for number in range(40)]
    texts, measures = {}, {}
    for place, arm in enumerate(results["arms"]):
        arm["outputs"] = {}
        for search in ("beam1", "beam5"):
            name = arm["outputs"][search] = f"arm{place}.{search}"
            texts[name] = [
                f"das war Satz {n} {EVIL}" if n % 7 == place % 7 else line for n, line in enumerate(references)
            ]
            same = [text == line for text, line in zip(texts[name], references, strict=True)]
            measures[name] = {"chrf": [100.0 if one else 40.0 for one in same], "right": [int(one) for one in same]}
    stage = directory / "stage"
    sources = [f"this is sentence {n} of the row" for n in range(40)]
    outputs_of.write(stage, Outputs(sources, references, texts, measures))
    results["outputs"] = outputs_of.copy(stage, directory)
    files.write_json(directory / "results.json", results)
    return directory


# Safe and whole


def test_text_of_results_stays_text(run):
    """Names, claims, tables, labels of charts and translations."""
    found = part(run)
    results = json.loads(json.dumps(found.results).replace("Seq-KD + Word-KD", json.dumps(EVIL)[1:-1]))
    claim = dict(found.claims[0], text=EVIL, verdict=EVIL, about=EVIL)
    chart = Chart(EVIL, EVIL, Axis(EVIL), [EVIL], [Series(EVIL, [Mark(1.0, EVIL, EVIL)])] * 2)
    evil = found._replace(
        title=EVIL, name=EVIL, findings=[EVIL], results=results, claims=[claim], charts=[chart], headline=EVIL,
        sections=[Section(EVIL, [EVIL], [EVIL], Table([EVIL], [[EVIL]]))],
    )  # fmt: skip
    told = page.page([evil, evil])
    assert "alert(1)" in told and "<img src=x" not in told and "<script>alert" not in told
    assert told.count("<script") == told.count("</script>") == 4, "two scripts, and the texts of two runs"
    (texts, _) = re.findall(r'<script type="application/json" id="[^"]*">(.*?)</script>', told)
    assert json.loads(texts)["sentences"][0][3][0][0].endswith(f"Satz 0 {files.one_line(EVIL)}")


def test_a_link_leads_to_the_web_or_is_plain():
    told = markup.inline("[a](https://a.org/?b=1&c) [b](javascript:alert) [c](data:text/html,x) `*<b>`")
    assert told == '<a href="https://a.org/?b=1&amp;c">a</a> b c <code>*&lt;b&gt;</code>'


def test_the_page_needs_no_other_file_and_runs_its_own_scripts_alone(run):
    told = page.page([part(run)])
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:|https://arxiv\.org)""", told) and "@import" not in told
    scripts = re.findall(r"<script>(.*?)</script>", told, flags=re.DOTALL)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', told)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts}
    assert policy and "default-src &#x27;none&#x27;" in policy[1]
    assert set(re.findall("'sha256-[^']*'", policy[1].replace("&#x27;", "'"))) == hashes and len(hashes) == 2
    assert told == page.page([part(run)]), "the same results give the same page"


def test_every_id_is_there_once_and_every_link_inside_leads_to_one(run):
    told = page.page([part(run), part(run)])
    ids = re.findall(r' id="([^"]*)"', told)
    assert len(ids) == len(set(ids))
    named = [one for match in re.findall(r'aria-labelledby="([^"]*)"', told) for one in match.split()]
    assert set(re.findall(r'href="#([^"]*)"', told)) | set(named) <= set(ids)


# Its parts


def test_a_table_names_its_rows_and_keeps_its_notes():
    told = markup.table(Table(["model", "arm", "Δ"], [["2×32", "a<b", "+1.0**"]], 2, ["* p < 0.05"]), "Arms")
    for wanted in (
        "<caption>Arms</caption>",
        '<th scope="col" class="words">arm</th><th scope="col">Δ</th>',
        '<td class="words">2×32</td><th scope="row" class="words">a&lt;b</th><td>+1.0**</td>',
        "<li>* p &lt; 0.05</li>",
    ):
        assert wanted in told


@pytest.mark.parametrize(
    "low, high, count, ticks",
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (-0.9, 1.2, 4, [-0.5, 0, 0.5, 1]),
        (38.02, 38.04, 4, [38.02, 38.025, 38.03, 38.035, 38.04]),
    ],
)
def test_ticks_are_round_and_inside(low, high, count, ticks):
    assert axes.linear_ticks(low, high, count) == pytest.approx(ticks)


def test_logarithmic_ticks_are_neither_too_many_nor_too_few():
    assert axes.log_ticks(1.5, 60, 8) == pytest.approx([2, 5, 10, 20, 50])
    assert axes.log_ticks(1e-6, 1e3, 5) == pytest.approx([1e-6, 1e-4, 1e-2, 1e0, 1e2])
    assert axes.log_ticks(4.5, 5.4, 5) == pytest.approx([4.6, 4.8, 5.0, 5.2, 5.4])


@pytest.mark.parametrize("log", [False, True])
def test_marks_stand_between_the_axes_in_order(log):
    """Also a zero on a logarithmic axis, and one value alone."""
    values = [0.0, 1.0, 5.0, 50.0] if log else [-3.0, 0.0, 5.0]
    for given in (values, values[-1:]):
        scale = axes.scale(given, 10, 110, log=log, zero=False, ticks=5)
        places = [scale.place(value) for value in given]
        assert places == sorted(places) and 10 <= places[0] <= places[-1] <= 110 and scale.ticks


def test_an_axis_on_which_all_is_zero_has_a_range():
    scale = axes.scale([0.0, 0.0], 10, 110, log=False, zero=True, ticks=5)
    assert scale.place(0.0) == pytest.approx(60) and 0.0 in scale.ticks


def test_a_chart_has_the_same_marks_for_both_widths_and_in_its_table():
    marks = [Mark(1.0, "a", "a: 1", (0.5, 1.5)), Mark(2.0, "b", "b: 2", hollow=True)]
    told = drawing.figure(Chart("T", "A.", Axis("x"), ["a", "b"], [Series("s", marks), Series("t", marks[:1])]), "t")
    assert told.count('aria-label="a: 1"') == 4 and told.count('class="mark hollow"') == 2
    assert told.count('class="interval"') == 4 and "0.5 to 1.5" in told
    lines = [Series("l", [Mark(1.0, 3.0, "p"), Mark(2.0, 4.0, "q")], joined=True, look=3)]
    told = drawing.figure(Chart("T", "A.", Axis("x"), Axis("y"), lines), "t")
    assert told.count("<polyline") == 2 and "legend" not in told and 'class="series s3"' in told


def test_verdicts_that_are_new_here_are_told_as_they_are():
    claim = {"about": "m", "text": "t", "published": "", "measured": "", "seeds": 2, "interval": None, "verdict": "odd"}
    more = claim | {"interval": (-1.0, 2.0), "verdict": "reproduced", "effect": 0.5, "p": 0.25, "p_holm": 0.5}
    told = claims.section([claim, more], "r")
    assert "verdict-odd" in told and "no interval" in told and "2 of 2 claims" in told
    assert 'aria-label="95% interval -1.00 to +2.00"' in told and "p = 0.250, p (Holm) = 0.500" in told


def test_a_matplotlib_figure_as_an_element_is_the_same_twice():
    def draw(results):
        figure, axis = pyplot.subplots()
        axis.plot(results)
        return figure

    first, second = svg(draw, [1, 2]), svg(draw, [1, 2])
    assert first == second and first.startswith("<svg") and 'id="figure' not in first and "<metadata" not in first
    assert svg(lambda results: None, []) is None


def test_as_many_sentences_as_are_asked_for_evenly_drawn():
    assert browser._spread(10, 0) == list(range(10)) and browser._spread(9, 3) == [0, 4, 8]
    assert browser._spread(5, 1) == [0]


# Outputs


def test_outputs_can_be_scored_again_and_are_what_is_named(run):
    results, directory = files.read_json(run / "results.json"), run / outputs_of.DIRECTORY
    subprocess.run(["sha256sum", "--quiet", "-c", files.SUMS], cwd=directory, check=True)
    read = outputs_of.read(run, results)
    assert all(len(lines) == 40 for lines in (read.sources, read.references, *read.texts.values()))
    assert outputs_of.read(run, {}) is None and outputs_of.read(run / "elsewhere", results) is None
    changed = results | {"outputs": results["outputs"] | {"references.txt": "0" * 64}}
    with pytest.raises(UserError, match="references.txt: is not what results.json names"):
        outputs_of.read(run, changed)


def test_committed_outputs_have_the_committed_scores():
    """Of the first seed of one arm: as sacrebleu scores the files."""
    results = files.read_json(SMOKE / "results.json")
    read = outputs_of.read(SMOKE, results)
    arm = next(one for one in results["arms"] if one["arm"] == "Seq-KD")
    for search, name in arm["outputs"].items():
        scores = metrics.score(read.texts[name], read.references, "none")
        told = {measure: arm["by_seed"][f"{measure}_{search}"][0] for measure in ("bleu", "chrf", "right_share")}
        assert (scores.bleu, scores.chrf) == (told["bleu"], told["chrf"])
        assert sum(read.measures[name]["right"]) / len(read.sources) == pytest.approx(told["right_share"])
    chrf = metrics.sentence_chrf(read.texts[name][:3], read.references[0], "")[0]
    assert read.measures[name]["chrf"][0] == round(chrf, 1)


# The command


def test_the_command_names_the_page_and_what_is_wrong(run, tmp_path, capsys):
    assert main([str(run)]) == 0 and capsys.readouterr().out.strip() == str(run / "report.html")
    training = pages.ROOT / pages.RESULTS / "benchmarks" / "training"
    both = tmp_path / "both.html"
    assert main([str(run), str(training), "--out", str(both), "--sentences", "5"]) == 0
    told = both.read_text(encoding="utf-8")
    assert "5 sentences, evenly drawn of 40" in told and "Training speed" in told and "report of 2 runs" in told
    files.write_json(tmp_path / "results.json", {"study": "another"})
    for arguments, said in (
        ([], "RUN: name a directory"),
        ([str(run), str(run)], "--out: name a file"),
        ([str(tmp_path)], "is of no study or benchmark"),
        ([str(tmp_path / "nowhere")], "results.json"),
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


def test_a_run_without_its_outputs_says_so():
    results = files.read_json(SMOKE / "results.json") | {"outputs": {"references.txt": "0" * 64}}
    told = page.page([parts.of_study(pages.study_of("kim_rush_2016"), results, SMOKE / "nowhere")])
    assert browser.NOT_SHOWN in told and "0" * 64 in told


# In a browser


@pytest.fixture(scope="module")
def tab():
    if chromium.PROGRAM is None:
        pytest.skip("no Chromium here; on Debian and Ubuntu: apt install chromium")
    with chromium.opened() as found:
        yield found


def test_in_a_browser_the_page_sorts_filters_and_fits(run, tab, tmp_path):
    picture = ("Static", '<svg viewBox="0 0 9 9" width="900"></svg>')
    path = tmp_path / "report.html"
    found = part(run)._replace(figures=[picture])
    files.write_text(
        path, page.page([found._replace(claims=[found.claims[0] | {"verdict": "reproduced"}, *found.claims[1:]])])
    )
    for theme in ("light", "dark"):
        tab.prefer(theme)
        for width in (360, 1280):
            tab.resize(width)
            tab.open(path)
            assert tab.run("document.documentElement.scrollWidth") == width
            assert not tab.wrong()
    tab.prefer("dark", media="print")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "paper is white"
    tab.prefer("light")
    _tables_sort(tab)
    _claims_filter(tab)
    _translations_filter(tab)
    _keys_and_themes(tab)
    assert not tab.wrong()


def _tables_sort(tab):
    column = "[...document.querySelectorAll('table.sortable tbody')[0].rows].map((row) => row.cells[2].textContent)"
    head = "document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells[2]"
    given, number = tab.run(column), lambda cell: float(cell.split()[0])
    orders = ("descending", sorted(given, key=number, reverse=True)), ("ascending", sorted(given, key=number))
    for order, wanted in (*orders, ("none", given)):
        tab.run(f"{head}.querySelector('button').click()")
        assert tab.run(f"{head}.getAttribute('aria-sort')") == order and tab.run(column) == wanted


def _claims_filter(tab):
    shown = "document.querySelectorAll('.claim:not([hidden])').length"
    every = tab.run(shown)
    tab.run("document.querySelector('.claims [data-verdict]').click()")
    assert 0 < tab.run(shown) < every
    assert tab.run("document.querySelector('.claims output').textContent") == f"{tab.run(shown)} of {every} claims"
    tab.run("document.querySelector('.claims [data-verdict]').click()")
    _type(tab, ".claims [name=text]", "helps the teacher itself")
    assert tab.run(shown) == 1
    _type(tab, ".claims [name=text]", "")
    assert tab.run(shown) == every


def _translations_filter(tab):
    """A is the baseline, which has 6 bad sentences; B is Seq-KD, which has 5."""
    first = "document.querySelector('.sentence').textContent"
    assert "▲ +60.0" in tab.run(first) and "alert(1)" in tab.run(first)
    _type(tab, ".browser [name=order]", "loss")
    assert "▼ −60.0" in tab.run(first)
    _type(tab, ".browser [name=filter]", "broken")
    told = tab.run("document.querySelector('.browser output').textContent")
    assert re.match(r"\d sentences: B is better in 0, worse in \d; mean difference −60\.0", told)
    _type(tab, ".browser [name=filter]", "all")
    _type(tab, ".browser [name=text]", "satz 39 ")
    assert tab.run("document.querySelectorAll('.sentence').length") == 1
    tab.run("document.querySelector('.sentence summary').click()")
    tab.run("new Promise((done) => setTimeout(done, 50))")
    assert tab.run("document.querySelectorAll('.sentence .all > div').length") == 2, "equal outputs stand together"
    _type(tab, ".browser [name=text]", "")
    tab.run("document.querySelector('.pager [data-step=\"1\"]').click()")
    assert tab.run("document.querySelector('.pager span').textContent") == "page 2 of 4"


def _keys_and_themes(tab):
    tab.run("document.activeElement.blur(); document.body.focus()")
    tab.run("document.querySelector('.canvas svg [tabindex=\"0\"]').focus()")
    before = tab.run("document.activeElement.getAttribute('aria-label')")
    tab.press("ArrowRight")
    after = tab.run("document.activeElement.getAttribute('aria-label')")
    assert after != before and tab.run("document.querySelector('.tooltip').textContent") == after
    tab.run("document.querySelector('.legend button').click()")
    assert tab.run("document.querySelectorAll('.series.off').length") == 2
    colour = "getComputedStyle(document.body).backgroundColor"
    seen = {tab.run(colour)}
    for _ in range(2):
        tab.run("document.querySelector('button.theme').click()")
        seen.add(tab.run(colour))
    assert len(seen) == 2


def _type(tab, field, value):
    tab.run(
        f"document.querySelector('{field}').value = {json.dumps(value)};"
        f"document.querySelector('{field}').dispatchEvent(new Event('input', {{ bubbles: true }}))"
    )
