"""What is measured, the most important first."""

import importlib
from typing import Any, NamedTuple

COMPUTE = "float32", "bfloat16"
SUBJECTS = "lstm-4x1000", "transformer-base"
DECODERS = {
    "engine": "seqkd_jax engine",
    "simple": "seqkd_jax simple",
    "ctranslate2": "CTranslate2 float32, all cores on a batch",
    "hugging-face": "Hugging Face generate",
}

PACKAGES = {"ctranslate2": ("ctranslate2",), "hugging-face": ("torch", "transformers")}


class Part(NamedTuple):
    """One part. Its function is looked up late: who only plans computes nothing."""

    name: str
    function: str  # MODULE.FUNCTION of this package: (*arguments, Job) -> dict
    arguments: tuple[str, ...] = ()
    seconds: float = 45.0  # at most
    least: float = 15.0  # with fewer seconds left it is not begun
    final: bool = True  # once measured it is not measured again; otherwise more time gives more
    after: str = ""  # a part without which this one says nothing
    packages: tuple[str, ...] = ()  # of a peer: without them it is not begun

    def run(self, job: Any) -> dict:
        """Measure it, in this process."""
        module, _, function = self.function.partition(".")
        return getattr(importlib.import_module(f"{__package__}.{module}"), function)(*self.arguments, job)


def _updates(function: str, suffix: str, packages: tuple[str, ...] = ()) -> list[Part]:
    cases = [(f"train-{subject}-{compute}", (subject, compute)) for compute in COMPUTE for subject in SUBJECTS]
    return [
        Part(f"{name}{suffix}", function, case, after=name if suffix else "", packages=packages) for name, case in cases
    ]


MACHINE = Part("machine", "speed.machine", final=False)
PARTS = (
    *_updates("speed.training", ""),
    *_updates("speed.training_in_pytorch", "-pytorch", ("torch",)),
    *(
        Part(f"decode-{name}", "speed.decoding", (system,), seconds=50.0, packages=PACKAGES.get(name, ()))
        for name, system in DECODERS.items()
    ),
    Part("replicas", "speed.replicas", seconds=60.0),
    Part("seeds", "seeds.main_comparison", seconds=float("inf"), least=60.0, final=False),
)
EVERY = {part.name: part for part in (MACHINE, *PARTS)}
