"""Claims of a paper as HTML: how many have which verdict, and each with its numbers and its interval, to be filtered.

A claim is a mapping, as results.json has it: the fields of `experiments.core.claims.Claim`.
"""

from collections.abc import Mapping, Sequence

from experiments.core.claims import RULE, VERDICTS
from experiments.report.markup import escape, inline, points, slug

SIGNS = {"reproduced": "✓", "contradicted": "✗", "not run": "–"}  # others: UNSURE
UNSURE = "≈"


def tally(claims: Sequence[Mapping]) -> str:
    """A bar with a part for each verdict, and the counts in words."""
    counts = _counts(claims)
    parts = "".join(
        f'<span class="verdict-{slug(verdict)}" style="flex-grow:{count}"></span>' for verdict, count in counts.items()
    )
    items = "".join(
        f"<li>{badge(verdict)} <strong>{count}</strong> of {len(claims)}</li>" for verdict, count in counts.items()
    )
    return f'<div class="tally"><div class="bar" aria-hidden="true">{parts}</div><ul>{items}</ul></div>\n'


def badge(verdict: str) -> str:
    """A verdict with its sign; never by colour alone."""
    sign = SIGNS.get(verdict, UNSURE)
    return (
        f'<span class="badge verdict-{slug(verdict)}"><span aria-hidden="true">{sign}</span> {escape(verdict)}</span>'
    )


def section(claims: Sequence[Mapping], part: str) -> str:
    """The whole list under its filters. part: for ids."""
    counts = _counts(claims)
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-verdict="{escape(verdict)}">{badge(verdict)} {count}'
        "</button>\n"
        for verdict, count in counts.items()
    )
    listed = "".join(_item(claim, place) for place, claim in enumerate(claims))
    return (
        f'<div class="claims" id="{escape(part)}-claims-list">\n<form class="controls script" '
        f'aria-labelledby="{escape(part)}-claims-heading {escape(part)}-name">\n'
        f"<fieldset><legend>Verdict</legend>{buttons}</fieldset>\n"
        '<label>Text <input type="search" name="text" placeholder="Seq-KD, perplexity …" autocomplete="off"></label>\n'
        '<label>Order <select name="order"><option value="given">as in the study</option>'
        '<option value="verdict">by verdict</option><option value="about">by model</option></select></label>\n'
        f'<output aria-live="polite">{len(claims)} of {len(claims)} claims</output>\n</form>\n'
        f'<ol class="cards">\n{listed}</ol>\n</div>\n{points(RULE, "notes")}'
    )


def _counts(claims: Sequence[Mapping]) -> dict[str, int]:
    """In the order in which verdicts are told, then others that are there."""
    names = dict.fromkeys([*VERDICTS, *(claim["verdict"] for claim in claims)])
    counts = {name: sum(claim["verdict"] == name for claim in claims) for name in names}
    return {name: count for name, count in counts.items() if count}


def _item(claim: Mapping, place: int) -> str:
    order = [*_counts([claim]), claim["verdict"]][0]
    rank = VERDICTS.index(order) if order in VERDICTS else len(VERDICTS)
    facts = [("paper", claim["published"] or "–"), ("here", claim["measured"] or "–")]
    told = [f"{claim['seeds']} seed{'s' * (claim['seeds'] != 1)}"] if claim["seeds"] else []
    told += _chance(claim)
    if told:
        facts.append(("from", ", ".join(told)))
    rows = "".join(f"<div><dt>{name}</dt><dd>{inline(text)}</dd></div>" for name, text in facts)
    return (
        f'<li class="claim" data-verdict="{escape(claim["verdict"])}" data-about="{escape(claim["about"])}" '
        f'data-place="{place}" data-rank="{rank}">\n<div class="what">{badge(claim["verdict"])}'
        f'<p><span class="about">{escape(claim["about"])}</span> {inline(claim["text"])}</p></div>\n'
        f'<dl class="facts">{rows}</dl>\n{_strip(claim)}</li>\n'
    )


def _chance(claim: Mapping) -> list[str]:
    told = [
        f"{name} = {claim[key]:.3f}" for key, name in (("p", "p"), ("p_holm", "p (Holm)")) if claim.get(key) is not None
    ]
    inside = claim.get("published_inside")
    return [*told, f"the paper's effect in the interval: {inside}"] if inside else told


def _strip(claim: Mapping) -> str:
    """The interval as a line beside zero."""
    if claim["interval"] is None:
        return '<div class="strip none">no interval</div>'
    low, high = claim["interval"]
    effect = claim.get("effect")
    known = [low, high, 0.0, *([] if effect is None else [effect])]
    start, span = min(known), (max(known) - min(known)) or 1.0

    def at(value: float) -> float:
        return 8 + 184 * (value - start) / span

    digits = 2 if max(abs(low), abs(high)) >= 1 else 4
    words = f"95% interval {low:+.{digits}f} to {high:+.{digits}f}"
    dot = "" if effect is None else f'<circle cx="{at(effect):.1f}" cy="14" r="4.5"/>'
    return (
        f'<div class="strip verdict-{slug(claim["verdict"])}"><svg viewBox="0 0 200 28" role="img" '
        f'aria-label="{words}"><line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="2" y2="26"/>'
        f'<line class="reach" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="14" y2="14"/>{dot}</svg>'
        f'<span aria-hidden="true">{words.removeprefix("95% interval ")}</span></div>\n'
    )
