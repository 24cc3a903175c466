"""Translations of a test set under several systems, side by side: the controls as HTML, the texts as JSON.

The script shows a page of sentences of that JSON. A sentence's equal outputs stand in it once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.core.outputs import Outputs
from experiments.report.markup import data, escape

SEARCHES = {"beam1": "greedy"}  # how a search is told; "beam5" is "beam 5"
NOT_SHOWN = "The texts of these outputs are not in this page; results.json names their files and hashes."


class System(NamedTuple):
    """One list of outputs."""

    name: str  # of the arm
    search: str
    output: str  # as `Outputs` names it


def systems(results: Mapping) -> list[System]:
    """Every search of every arm that has outputs."""
    arms = results["arms"]
    found = []
    for arm in arms:
        several = sum(other["arm"] == arm["arm"] for other in arms) > 1
        name = f"{arm['arm']} ({arm['model']})" if several else arm["arm"]
        for search, output in arm.get("outputs", {}).items():
            found.append(System(name, SEARCHES.get(search, search.replace("beam", "beam ")), output))
    return found


def section(part: str, results: Mapping, outputs: Outputs, shown: tuple[str, str], most: int) -> str:
    """The browser. shown: the arms that are compared first, by name. most: so many sentences at most; 0: all."""
    known = systems(results)
    places = _spread(len(outputs.sources), most)
    content = _content(known, outputs, places)
    first, second = (_first(known, name, default) for name, default in zip(shown, (0, -1), strict=True))
    right = all("right" in outputs.measures[system.output] for system in known)
    left_out = len(outputs.sources) - len(places)
    count = f"{len(places):,} sentences" + (f", evenly drawn of {len(outputs.sources):,}" if left_out else "")
    return (
        f'<div class="browser" id="{escape(part)}-browser" data-source="{escape(part)}-texts">\n'
        f"<p>{count} of the test set under {len(known)} systems. Score: sentence chrF against the reference, 0 to 100. "
        "A dotted line marks words that are not in the reference, in its order.</p>\n"
        '<noscript><p class="card">The translations need JavaScript.</p></noscript>\n'
        f"{_controls(escape(part), known, first, second, right)}"
        '<p class="status"><output aria-live="polite"></output></p>\n<ol class="sentences"></ol>\n'
        '<nav class="pager script" aria-label="Pages of sentences"><button type="button" data-step="-1">← Previous'
        '</button><span></span><button type="button" data-step="1">Next →</button></nav>\n'
        f"{data(f'{part}-texts', content)}</div>\n"
    )


def _controls(part: str, known: Sequence[System], first: int, second: int, right: bool) -> str:
    """What is compared, in which order, and which sentences are shown."""

    def choice(label: str, name: str, chosen: int) -> str:
        options = "".join(
            f'<option value="{place}"{" selected" * (place == chosen)}>{escape(", ".join(system[:2]))}</option>'
            for place, system in enumerate(known)
        )
        return f'<label class="whole">{label} <select name="{name}">{options}</select></label>\n'

    orders = {
        "gain": "largest gain first",
        "loss": "largest loss first",
        "low": "lowest score of B first",
        "length": "longest source first",
        "given": "as in the test set",
    }
    filters = {"all": "all", "differ": "A and B differ", "gain": "B is better", "loss": "B is worse"}
    if right:
        filters |= {"mended": "wrong in A, right in B", "broken": "right in A, wrong in B"}

    def options(named: Mapping[str, str]) -> str:
        return "".join(f'<option value="{value}">{text}</option>' for value, text in named.items())

    return (
        f'<form class="controls script" aria-labelledby="{part}-translations-heading {part}-name">\n'
        f"{choice('A', 'first', first)}{choice('B', 'second', second)}"
        f'<label>Order <select name="order">{options(orders)}</select></label>\n'
        f'<label>Show <select name="filter">{options(filters)}</select></label>\n'
        '<label>Text <input type="search" name="text" placeholder="a word in any line" autocomplete="off"></label>\n'
        "</form>\n"
    )


def _first(known: Sequence[System], name: str, default: int) -> int:
    return next((place for place, system in enumerate(known) if system.name.startswith(name)), default % len(known))


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the places, at even distances."""
    if not most or count <= most:
        return list(range(count))
    return [round(number * (count - 1) / max(most - 1, 1)) for number in range(most)]


def _content(known: Sequence[System], outputs: Outputs, places: Sequence[int]) -> dict[str, Any]:
    """What the script reads: systems, and of each sentence [place, source, reference, outputs, of each system which].

    An output is [text, chrF] or, where that is known, [text, chrF, right].
    """
    measures = ("chrf", "right")
    sentences = []
    for place in places:
        distinct: dict[str, list] = {}
        chosen = []
        for system in known:
            text, told = outputs.texts[system.output][place], outputs.measures[system.output]
            if text not in distinct:
                distinct[text] = [len(distinct), [text, *(told[name][place] for name in measures if name in told)]]
            chosen.append(distinct[text][0])
        found = [output for _, output in distinct.values()]
        sentences.append([place + 1, outputs.sources[place], outputs.references[place], found, chosen])
    return {"systems": [[system.name, system.search] for system in known], "sentences": sentences}
