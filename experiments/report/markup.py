"""Text, lists and tables as HTML. All text of results goes through `escape` or `inline`; JSON through `data`."""

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.core.tables import Table

LONG = 40  # letters of a cell whose line breaks
escape = html.escape  # quotes too, so that it also serves attributes


def inline(text: str) -> str:
    """Plain text with `code` and [links](https://...), escaped; a link to anything else than the web is its text."""

    def link(match: re.Match) -> str:
        words, target = match.groups()
        return f'<a href="{target}">{words}</a>' if re.match("https?://", target) else words

    linked = re.sub(r"\[([^]]*)\]\(([^)\s]*)\)", link, escape(text))
    return re.sub("`([^`]*)`", r"<code>\1</code>", linked)


def data(name: str, value: Any) -> str:
    """JSON for the scripts. Nothing in it ends the element or starts a comment: no "<" is left."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def slug(text: str) -> str:
    """A text as a class or a part of an id."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def paragraphs(texts: Iterable[str]) -> str:
    """A paragraph each."""
    return "".join(f"<p>{inline(text)}</p>\n" for text in texts)


def points(texts: Sequence[str], kind: str = "") -> str:
    """A list; nothing for none."""
    if not texts:
        return ""
    given = f' class="{kind}"' if kind else ""
    return f"<ul{given}>\n{''.join(f'<li>{inline(text)}</li>{chr(10)}' for text in texts)}</ul>\n"


def table(given: Table, caption: str) -> str:
    """A table that can be sorted; wide ones scroll in their own frame, which keys can reach.

    The column "arm" names the row, or else the last column of words.
    """
    words = list(given.columns[: given.left])
    naming = words.index("arm") if "arm" in words else given.left - 1

    def cells(row: Sequence[str]) -> str:
        return "".join(_cell(text, place, given.left, naming) for place, text in enumerate(row))

    head = "".join(
        f'<th scope="col"{_words(place, given.left)}>{inline(text)}</th>' for place, text in enumerate(given.columns)
    )
    body = "\n".join(f"<tr>{cells(row)}</tr>" for row in given.rows)
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(caption)}">\n<table class="sortable">\n'
        f"<caption>{inline(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"</div>\n{points(given.notes, 'notes')}"
    )


def _cell(text: str, place: int, left: int, naming: int) -> str:
    if place == naming:
        return f'<th scope="row"{_words(place, left, text)}>{inline(text)}</th>'
    return f"<td{_words(place, left, text)}>{inline(text)}</td>"


def _words(place: int, left: int, text: str = "") -> str:
    kinds = ["words"] * (place < left) + ["long"] * (len(text) > LONG)
    return f' class="{" ".join(kinds)}"' if kinds else ""


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they stand for; the second of each pair is HTML."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{meaning}</dd></div>\n" for name, meaning in pairs)
    return f'<dl class="terms">\n{rows}</dl>\n'
