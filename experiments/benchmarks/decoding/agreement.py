"""Whether systems did the same work: their outputs compared token by token, before anything is said of speed."""

from collections.abc import Mapping, Sequence

Outputs = Sequence[Sequence[int]]


def compare(outputs: Mapping[str, Outputs], reference: str) -> dict[str, dict]:
    """{system: its agreement with the reference}, the reference left out."""
    return {name: _agreement(found, outputs[reference]) for name, found in outputs.items() if name != reference}


def _agreement(found: Outputs, reference: Outputs) -> dict:
    """JSON: how many sentences differ, the first of them (from 1), and the share of identical tokens.

    A token is identical that stands at the same place; the share is of the longer of the two.
    """
    differ = [place for place, (a, b) in enumerate(zip(found, reference, strict=True), 1) if list(a) != list(b)]
    same = sum(x == y for a, b in zip(found, reference, strict=True) for x, y in zip(a, b, strict=False))
    longest = sum(max(len(a), len(b)) for a, b in zip(found, reference, strict=True))
    return {
        "sentences": len(reference),
        "sentences_that_differ": len(differ),
        "first_that_differs": differ[0] if differ else None,
        "identical_tokens": same / longest if longest else 1.0,
        "tokens": sum(map(len, found)),
        "reference_tokens": sum(map(len, reference)),
    }
