"""Settings: ranges, identities that an added field does not change, JSON there and back."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, get_args

import pytest

from seqkd_jax import config
from seqkd_jax.config import BatchConfig, CNNConfig, LSTMConfig, OptimiserConfig, SearchConfig, TrainConfig
from seqkd_jax.decoding import Decoding
from seqkd_jax.types import UserError
from seqkd_jax.utils import settings
from seqkd_jax.utils.settings import Range, Settings

CONFIGS = [
    kind
    for kind in vars(config).values()
    if isinstance(kind, type) and issubclass(kind, Settings) and dataclasses.is_dataclass(kind)
] + [Decoding]  # its identity is that of n-best shards


def extended(kind):
    """The same dataclass in a newer version: one more field, which has a default; its name stays."""
    made = dataclasses.make_dataclass(
        kind.__name__, [("added", Annotated[int, Range(0, 9)], 3)], bases=(kind,), frozen=True
    )
    made.__module__ = kind.__module__
    return made


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_field_that_is_added_changes_no_identity(kind):
    newer = extended(kind)
    assert settings.identity(newer()) == settings.identity(kind())
    assert settings.identity(newer(added=4)) != settings.identity(kind())
    assert settings.from_json(newer, settings.to_json(kind())) == newer(), "nor what is read back"


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_each_field_that_differs_changes_the_identity(kind):
    for field in settings.fields(kind):
        value, choices = field.default, get_args(field.hint)
        if dataclasses.is_dataclass(value):
            continue
        if isinstance(value, str):
            other = next((choice for choice in choices if choice != value), f"{value}x")
        else:
            other = not value if isinstance(value, bool) else (value or 0) * 2 or 1
        changed = settings.identity(dataclasses.replace(kind(), **{field.name: other}))
        assert changed[field.name] in (other, list(other) if isinstance(other, tuple) else other), field.name
        assert json.dumps(changed)


def test_an_identity_tells_types_forms_and_nested_settings():
    changed = TrainConfig(optimiser=OptimiserConfig(learning_rate=2), seed=7)
    optimiser = {"type": "OptimiserConfig", "learning_rate": 2.0, "warmup_steps": None}
    expected = {"optimiser": optimiser, "batch": {"type": "BatchConfig", "buckets": None}, "seed": 7}
    assert settings.identity(changed) == {"type": "TrainConfig", **expected}
    assert settings.identity(CNNConfig()) == {"type": "CNNConfig", "form": 2}
    assert settings.identity([LSTMConfig(), (1, 2.5, None, True, "x")]) == [
        {"type": "LSTMConfig"},
        [1, 2.5, None, True, "x"],
    ]

    class Pair(NamedTuple):
        left: int
        right: int = 2

    assert settings.identity(Pair(1)) == {"type": "Pair", "left": 1}

    @dataclasses.dataclass(frozen=True)
    class Around:
        network: CNNConfig = CNNConfig()

    assert settings.identity(Around())["network"]["form"] == 2, "a form that is raised inside of a default counts"
    with pytest.raises(TypeError, match="identity"):
        settings.identity({"function": len})


def test_a_default_that_changes_leaves_earlier_identities_as_they_were():
    """400 meant 400 updates of warm-up, as a default and given; None, the default now, is something else."""
    before, shapes = {"type": "OptimiserConfig"}, {"type": "BatchConfig"}
    assert settings.identity(OptimiserConfig(warmup_steps=400)) == before
    assert settings.identity(OptimiserConfig()) == {**before, "warmup_steps": None}
    assert settings.identity(TrainConfig())["optimiser"] == {**before, "warmup_steps": None}
    of_before = TrainConfig(batch=BatchConfig(buckets=3), optimiser=OptimiserConfig(warmup_steps=400))
    assert settings.identity(of_before) == {"type": "TrainConfig", "optimiser": before, "batch": shapes}


def test_what_differs_is_named():
    changed = TrainConfig(optimiser=OptimiserConfig(b1=0.5), seed=3)
    found = list(settings.differences(TrainConfig(), changed))
    assert found == [("optimiser.b1", 0.9, 0.5), ("seed", 0, 3)]
    assert not list(settings.differences(changed, changed))


@dataclasses.dataclass(frozen=True)
class Example(Settings):
    FORM: ClassVar[int] = 3
    count: Annotated[int, Range(1, 9)] = 1
    rate: Annotated[float, Range(0, 1, below=True)] = 0.0
    ratio: Annotated[float, Range(1, 5, or_zero=True)] = 0.0
    share: Annotated[float, Range(0, 1, above=True)] = 1.0
    kind: Literal["a", "b"] = "a"
    on: bool = False
    name: str = "x"
    sizes: tuple[Annotated[int, Range(1, 9)], ...] = (1,)
    place: Path | None = None
    some: Annotated[int, Range(1, 9)] | None = None
    batch: BatchConfig = BatchConfig()


RIGHT = {
    "count": (1, 9),
    "rate": (0, 0.999),
    "ratio": (0, 1, 5.0),
    "share": (1e-9, 1),
    "kind": ("b",),
    "sizes": ((1, 9), ()),
    "place": (Path("x"), None),
    "some": (None, 3),
}
WRONG = {
    "count": (0, 10, 10**30, 1.0, True, "1", None),
    "rate": (1, -0.1, math.nan, math.inf, -math.inf, "0", True),
    "ratio": (0.5, 5.1, -1, math.nan),
    "share": (0, 1.1),
    "kind": ("c", 1),
    "on": (1, "yes"),
    "name": (1, None),
    "sizes": ((0,), (1, 10), 3, (1.5,)),
    "place": (3,),
    "some": (0, 10**30),
    "batch": (3,),
}


def given(name, value):
    """An Example that has a value, whatever its type."""
    made = Example()
    object.__setattr__(made, name, value)
    return made


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_values_in_their_range_pass_and_come_back_from_json(name, value):
    made = given(name, value)
    made.validate()
    assert settings.from_json(Example, json.loads(json.dumps(settings.to_json(made)))) == made


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_values_outside_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"^--{name} is .*: it must be "):
        given(name, value).validate("--{}".format)
    if not (isinstance(value, float) and not math.isfinite(value)):
        with pytest.raises(UserError, match=f"^f: {name} is "):
            settings.from_json(Example, {name: settings.to_json(value)}, "f: {}".format)


def test_fields_inside_are_named_with_those_around():
    with pytest.raises(UserError, match=r"^batch\.tokens is -1: it must be a whole number from 0 to 16,777,216$"):
        Example(batch=BatchConfig(tokens=-1)).validate()
    with pytest.raises(UserError, match=r"^f: batch\.tokens is 5 and f: batch\.sentences is 1: exactly one"):
        settings.from_json(Example, {"batch": {"tokens": 5, "sentences": 1}}, "f: {}".format)
    with pytest.raises(UserError, match=r"^f: batch\.token: there is no such setting"):
        settings.from_json(Example, {"batch": {"token": 5}}, "f: {}".format)


def test_every_range_says_what_it_holds():
    assert str(Range(1, 9)) == "from 1 to 9"
    assert str(Range(0, 1, above=True, below=True)) == "from above 0 to below 1"
    assert str(Range(1.0, 1e9, or_zero=True)) == "from 1 to 1e+09, or 0"
    assert not Range(-math.inf, math.inf).holds(math.nan)


def test_a_search_leaves_room_for_a_translation():
    with pytest.raises(UserError, match="min_length_a"):
        SearchConfig(max_length_a=0.1, min_length_a=1.0).validate()
    SearchConfig(max_length_a=0.0, max_length_b=-5.0, min_length_b=-9.0).validate()
