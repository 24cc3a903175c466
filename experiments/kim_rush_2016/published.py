"""Tables 1, 2 and 3 of Kim & Rush 2016 as data: what the measured numbers stand beside.

No PDF was at hand: numbers were checked against secondary texts that quote the paper, or are from memory. Those from
memory are named cell by cell and get a dagger wherever they are printed; treat them as unverified.
"""

from typing import NamedTuple

CELLS = ("bleu_beam1", "delta_beam1", "bleu_beam5", "delta_beam5", "perplexity", "mode_probability")
ALL = frozenset(CELLS)
NONE: frozenset[str] = frozenset()


class Row(NamedTuple):
    """One line of the table. BLEU of tokens (multi-bleu.perl); deltas as printed, against that size's baseline."""

    bleu_beam1: float
    delta_beam1: float | None
    bleu_beam5: float
    delta_beam5: float | None
    perplexity: float
    mode_probability: float  # percent
    from_memory: frozenset[str] = NONE  # names of cells


class Published(NamedTuple):
    """One size of model in one language pair; arms as in `arms.ARMS`."""

    label: str
    rows: dict[str, Row]


def _but(*verified: str) -> frozenset[str]:
    return ALL - set(verified)


EN_DE_TEACHER = Published(
    "En–De 4×1000",
    {
        "Teacher": Row(17.7, None, 19.5, None, 6.7, 1.3),
        "Teacher + Seq-Inter": Row(19.6, 1.9, 19.8, 0.3, 10.4, 8.2),
    },
)

EN_DE_500 = Published(
    "En–De 2×500",
    {
        "Baseline": Row(14.7, None, 17.6, None, 8.2, 0.9),
        "Word-KD": Row(15.4, 0.7, 17.7, 0.1, 8.0, 1.0),
        "Seq-KD": Row(18.9, 4.2, 19.0, 1.4, 22.7, 16.9),
        "Baseline + Seq-Inter": Row(18.5, 3.6, 18.7, 1.1, 11.3, 5.7, ALL),  # 18.5 - 14.7 is 3.8; 3.6 is what is printed
        "Word-KD + Seq-Inter": Row(18.3, 3.6, 18.5, 0.9, 11.8, 6.3, ALL),
        "Seq-KD + Seq-Inter": Row(18.9, 4.2, 19.3, 1.7, 15.8, 7.6),
        "Seq-KD + Word-KD": Row(18.7, 4.0, 18.9, 1.3, 10.9, 4.1, ALL),
        "All three": Row(18.8, 4.1, 19.2, 1.6, 14.8, 7.1, frozenset({"perplexity", "mode_probability"})),
    },
)

EN_DE_300 = Published(
    "En–De 2×300",
    {
        "Baseline": Row(14.1, None, 16.9, None, 10.3, 0.6),
        "Word-KD": Row(14.9, 0.8, 17.6, 0.7, 10.9, 0.7, _but("bleu_beam1")),
        "Seq-KD": Row(18.1, 4.0, 18.1, 1.2, 64.4, 14.8),
        "Baseline + Seq-Inter": Row(17.6, 3.5, 17.9, 1.0, 13.0, 10.0, ALL),
        "Word-KD + Seq-Inter": Row(17.8, 3.7, 18.0, 1.1, 14.5, 4.3, ALL),
        "Seq-KD + Seq-Inter": Row(18.2, 4.1, 18.5, 1.6, 40.8, 5.6, ALL),
        "Seq-KD + Word-KD": Row(17.9, 3.8, 18.8, 1.9, 44.1, 3.1, ALL),
        "All three": Row(18.5, 4.4, 18.9, 2.0, 97.1, 5.9, _but("bleu_beam1")),
    },
)

TH_EN_TEACHER = Published(
    "Th–En 2×500",
    {
        "Teacher": Row(14.3, None, 15.7, None, 22.9, 2.3),
        "Teacher + Seq-Inter": Row(15.6, 1.3, 16.0, 0.3, 55.1, 6.8, ALL),
    },
)

TH_EN_100 = Published(
    "Th–En 2×100",
    {
        "Baseline": Row(10.6, None, 12.7, None, 37.0, 1.4),
        "Word-KD": Row(11.8, 1.2, 13.6, 0.9, 35.3, 1.4, _but("bleu_beam1")),
        "Seq-KD": Row(12.8, 2.2, 13.4, 0.7, 125.4, 6.9, _but("bleu_beam1")),
        "Baseline + Seq-Inter": Row(12.9, 2.3, 13.1, 0.4, 52.8, 2.5, ALL),
        "Word-KD + Seq-Inter": Row(13.0, 2.4, 13.7, 1.0, 58.7, 3.2, ALL),
        "Seq-KD + Seq-Inter": Row(13.6, 3.0, 14.0, 1.3, 106.4, 3.9, ALL),
        "Seq-KD + Word-KD": Row(13.7, 3.1, 14.2, 1.5, 67.4, 3.1, ALL),
        "All three": Row(14.2, 3.6, 14.4, 1.7, 117.4, 3.2),
    },
)


class Speed(NamedTuple):
    """One line of Table 2: source words a second, from secondary texts. How many sentences at a time is not known."""

    model: str
    beam: int
    gpu: float  # GeForce GTX Titan X
    cpu: float
    android: float | None  # Samsung Galaxy 6


TABLE_2 = (
    Speed("4×1000", 1, 425.5, 15.0, None),
    Speed("2×500", 1, 1051.3, 63.6, 8.8),
    Speed("2×300", 1, 1267.8, 104.3, 15.8),
    Speed("4×1000", 5, 101.9, 7.9, None),
    Speed("2×500", 5, 181.9, 22.1, 1.9),
    Speed("2×300", 5, 189.1, 38.4, 3.4),
)


class Pruned(NamedTuple):
    """One line of Table 3, from secondary texts: the 2×500 student of En–De, its best one, pruned class-blind."""

    share: float
    parameters: float  # millions
    bleu_beam5: float


TABLE_3 = (
    Pruned(0.0, 84, 19.3),
    Pruned(0.5, 42, 19.3),
    Pruned(0.8, 17, 19.1),
    Pruned(0.85, 13, 18.8),
    Pruned(0.9, 8, 18.5),
)
SMALLER = 221 / TABLE_3[0].parameters  # times fewer parameters has the 2×500 student than its 4×1000 teacher
