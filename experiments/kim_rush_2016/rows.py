"""A training run: an arm under one model and one seed; its name in tables, in files and on the command line."""

from collections.abc import Iterable
from typing import NamedTuple

from experiments.kim_rush_2016.arms import ARMS, Arm, pruned_arms, slug
from seqkd_jax.config import ModelConfig


class Row(NamedTuple):
    """One training run: an arm under one model and one seed."""

    arm: Arm
    model: ModelConfig
    place: int = 0  # added to the seed of the arm's training
    teacher: int = 0  # the place of the teacher that it learns from

    @property
    def label(self) -> str:
        """In tables."""
        teacher = f", teacher +{self.teacher}" if self.teacher else ""
        return f"{self.arm.name}, {label(self.model)}{teacher}" + (f", seed +{self.place}" if self.place else "")

    @property
    def key(self) -> str:
        """In names of files and in logs."""
        teacher = f"-teacher{self.teacher}" if self.teacher else ""
        seed = f"-seed{self.place}" if self.place else ""
        return f"{slug(self.arm.name)}-{label(self.model).replace('×', 'x').replace(' ', '')}{teacher}{seed}"

    @property
    def names(self) -> tuple[str, ...]:
        """On the command line."""
        return slug(self.arm.name), self.arm.name, self.key


def by_arm(rows: Iterable[Row]) -> dict[Row, list[Row]]:
    """The lines of the table, each the first of its seeds, with all of them."""
    lines: dict[tuple, list[Row]] = {}
    for row in rows:
        lines.setdefault((row.arm, row.model, row.teacher), []).append(row)
    return {seeds[0]: seeds for seeds in lines.values()}


def start_of(row: Row) -> Row | None:
    """The row that this one is fine-tuned from, of the same seed."""
    if row.arm.start is None:
        return None
    arms = (*ARMS, *(pruned_arms(row.arm.pruning) if row.arm.pruning else ()))
    return row._replace(arm=next(arm for arm in arms if arm.name == row.arm.start))


def label(config: ModelConfig) -> str:
    """How a model is called in tables."""
    if hasattr(config, "layers"):
        return f"{config.layers}×{config.size}"
    return f"Transformer {config.encoder_layers}+{config.decoder_layers}×{config.width}"
