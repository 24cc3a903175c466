"""Parts -> one HTML page. The same parts give the same bytes.

The page may run its own two scripts, whose hashes it names, and load nothing: so says its content security policy.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

from experiments.core.tables import Section, Table
from experiments.report import browser, claims, drawing, ran
from experiments.report.markup import escape, inline, paragraphs, points, slug, table
from experiments.report.parts import Part

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("tables.js", "claims.js", "charts.js", "browser.js", "print.js")
INSIDE = ("format", "sha256sums")  # of a card: how it is written
SENTENCES = 1000  # of a test set, in the page


def page(parts: Sequence[Part], sentences: int = SENTENCES) -> str:
    """The whole page. sentences: at most so many of a test set with their translations; 0: all."""
    first, script = _asset("theme.js"), "\n".join(map(_asset, SCRIPTS))
    names = _anchors(parts)
    several = len(parts) > 1
    told = [(part, anchor, dict(_blocks(part, anchor, sentences))) for part, anchor in zip(parts, names, strict=True)]
    title = f"{len(parts)} runs of seqkd_jax" if several else f"{parts[0].title}: {parts[0].name}"
    return Template(_asset("page.html")).substitute(
        title=escape(title),
        policy=escape(
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {_hashes(first, script)}"
        ),
        style=_asset("style.css") + _asset("charts.css"),
        first=first,
        script=script,
        navigation="".join(_navigation(part, anchor, blocks, several) for part, anchor, blocks in told),
        heading=f"seqkd_jax: report of {f'{len(parts)} runs' if several else 'a run'}",
        overview=_overview(parts, names) if several else "",
        body="".join(_article(part, anchor, blocks, several) for part, anchor, blocks in told),
    )


def _blocks(part: Part, anchor: str, sentences: int) -> Iterator[tuple[str, str]]:
    """Heading -> HTML of each block that the run has something for."""
    if part.findings or part.claims:
        tally = claims.tally(part.claims) if part.claims else ""
        yield "Findings", f'<div class="card">{tally}{points(part.findings, "findings")}</div>\n'
    if part.sections:
        yield "Tables", "".join(_tables(part.sections, part))
    if part.charts or part.figures:
        drawn = [drawing.figure(chart, drawing.anchor(anchor, chart)) for chart in part.charts]
        yield "Plots", "".join([*drawn, *(_figure(anchor, name, picture) for name, picture in part.figures)])
    if part.claims:
        yield "Claims", claims.section(part.claims, anchor)
    if part.outputs is not None:
        yield "Translations", browser.section(anchor, part.results, part.outputs, part.compared, sentences)
    elif part.results.get("outputs"):
        yield "Translations", f"<p>{browser.NOT_SHOWN}</p>\n"
    cards = {name: card for name, card in (part.results.get("distilled") or {}).items() if card}
    if cards:
        yield "Distilled corpora", _cards(cards)
    differs = part.results.get("deviations") or part.results.get("notes") or ()
    if differs:
        yield "Not as in the paper", points(differs)
    yield "What ran", ran.section(part.results)


def _tables(sections: Sequence[Section], part: Part) -> Iterator[str]:
    """A table's caption is its section's title; without one it says what its first column holds."""
    last = part.title
    for section in sections:
        if section.title and not section.table:
            yield f"<h4>{inline(section.title)}</h4>\n"
        last = section.title or last
        yield paragraphs(section.text) + points(section.points, "notes")
        if section.table:
            yield table(section.table, section.title or part.caption or f"{last}: {section.table.columns[0]}")


def _figure(anchor: str, name: str, picture: str) -> str:
    """A picture that was drawn before; on narrow pages it scrolls. Its ids, and what leads to them, become its own."""
    picture = re.sub(r'( id="|="#|url\(#)', rf"\g<1>{anchor}-{slug(name)}-", picture)
    return (
        f'<figure class="static"><figcaption><h4>{escape(name)}</h4></figcaption>\n'
        f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(name)}">{picture}</div></figure>\n'
    )


def _cards(cards: dict[str, dict]) -> str:
    """The numbers of the distilled corpora's cards, a column for each."""
    names = dict.fromkeys(key for card in cards.values() for key in card if key not in INSIDE)
    rows = [[key.replace("_", " "), *(_value(card.get(key)) for card in cards.values())] for key in names]
    return table(Table(["number", *cards], rows), "The cards of the distilled corpora")


def _value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else f"`{value}`"


# Around the blocks


def _article(part: Part, anchor: str, blocks: dict[str, str], several: bool) -> str:
    """A run; of several each has links to its sections."""
    label = escape(f"Sections of {part.title}, {part.name}")
    inside = f'<nav class="inside" aria-label="{label}"><ul>{_links(anchor, blocks)}</ul></nav>\n' if several else ""
    main = f'<p class="headline"><small>Main effect [95% interval]</small> {inline(part.headline)}</p>\n'
    headline = main if part.headline not in ("", "–") else ""
    about = f'<p class="about-study">{inline(part.about)}</p>\n' if part.about else ""
    sections = "".join(
        f'<section id="{_id(anchor, name)}" aria-labelledby="{_id(anchor, name)}-heading {anchor}-name">\n'
        f'<h3 id="{_id(anchor, name)}-heading">{name}</h3>\n{content}</section>\n'
        for name, content in blocks.items()
    )
    return (
        f'<article id="{anchor}">\n<header class="hero"><h2>{escape(part.title)}</h2>\n'
        f'<p class="setting" id="{anchor}-name">{escape(part.name)}</p>\n'
        f"{headline}{about}{inside}"
        f"</header>\n{sections}</article>\n"
    )


def _navigation(part: Part, anchor: str, blocks: dict[str, str], several: bool) -> str:
    """In the bar at the top: the sections of the only run, or the runs."""
    return f'<li><a href="#{anchor}">{escape(_short(part))}</a></li>' if several else _links(anchor, blocks)


def _links(anchor: str, blocks: dict[str, str]) -> str:
    return "".join(f'<li><a href="#{_id(anchor, name)}">{name}</a></li>' for name in blocks)


def _overview(parts: Sequence[Part], names: Sequence[str]) -> str:
    """A card for each run."""
    cards = "".join(
        f'<li class="card"><p class="run"><a href="#{anchor}">{escape(part.title)}</a></p><p>{escape(part.name)}</p>'
        f"<p><strong>{inline(part.headline)}</strong></p>{claims.tally(part.claims) if part.claims else ''}</li>\n"
        for part, anchor in zip(parts, names, strict=True)
    )
    return f'<ul class="overview">\n{cards}</ul>\n'


def _short(part: Part) -> str:
    return f"{part.title}: {part.name.partition(':')[0]}"


def _anchors(parts: Sequence[Part]) -> list[str]:
    """An id for each run."""
    return [f"run{number}-{slug(part.title)}" for number, part in enumerate(parts, start=1)]


def _id(anchor: str, name: str) -> str:
    return f"{anchor}-{slug(name)}"


def _hashes(*scripts: str) -> str:
    digests = (hashlib.sha256(f"\n{script}".encode()).digest() for script in scripts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


@functools.cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
