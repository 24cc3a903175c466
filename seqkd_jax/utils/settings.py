"""What every dataclass of settings can do: check its values, tell its identity, be written as JSON and read back.

The range of a number stands in its annotation, `Annotated[int, Range(1, 256)]`, the choices of a name in its Literal:
`check` reads both. A rule across fields is in the `validate` of the dataclass.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from seqkd_jax.types import UserError
from seqkd_jax.utils import urls
from seqkd_jax.utils.untrusted import shown

Named = Callable[[str], str]  # from a field, such as optimiser.clip_norm, to what its user calls it
T = TypeVar("T")
CONFIG_FILE = "config.json"  # the settings of a run, beside its results


class Range(NamedTuple):
    """The numbers that a field may have. All are finite: NaN and infinity are outside of every range."""

    least: float
    most: float
    above: bool = False  # the least itself is outside
    below: bool = False  # the greatest itself is outside
    or_zero: bool = False  # 0 is inside too, wherever the range begins

    def __str__(self) -> str:
        first, last = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in self[:2])
        above, below = "above " * self.above, "below " * self.below
        return f"from {above}{first} to {below}{last}{', or 0' if self.or_zero else ''}"

    def holds(self, value: float) -> bool:
        """Whether a number is inside; NaN never is."""
        low = self.least < value if self.above else self.least <= value
        high = value < self.most if self.below else value <= self.most
        return (low and high) or (self.or_zero and value == 0)


class Formerly(NamedTuple):
    """An annotation: the default that a field had before. It still means what it meant, so identities leave it out."""

    default: Any


class Settings:
    """A dataclass of settings. UserError of `validate` names the field, its value, and what it may be."""

    def validate(self, named: Named = str) -> None:
        """Check every field, and what several fields must be together. named: what the user calls a field."""
        check(self, named)


class Field(NamedTuple):
    """A field of a dataclass of settings."""

    name: str
    shown: str  # as an option: the name, unless an annotation gives another; "" for settings without a prefix
    hint: Any  # its type, Annotated removed
    range: Range | None
    default: Any  # dataclasses.MISSING: it must be given
    omitted: Any  # the value that identities leave out: the default, or what that was when the field was added


@functools.cache
def fields(kind: type) -> tuple[Field, ...]:
    """The fields of a dataclass, their annotations read."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = []
    for field in dataclasses.fields(kind):
        hint, notes = _stripped(hints[field.name])
        shown = next((note.name for note in notes if isinstance(getattr(note, "name", None), str)), field.name)
        omitted = next((note.default for note in notes if isinstance(note, Formerly)), field.default)
        found.append(Field(field.name, shown, hint, _range(notes), field.default, omitted))
    return tuple(found)


def check(settings: Any, named: Named = str) -> None:
    """UserError for a field of another type, or outside of its range or choices; of the fields inside fields too."""
    for field in fields(type(settings)):
        _check(getattr(settings, field.name), field.hint, field.range, field.shown, named)


def _check(value: Any, hint: Any, limits: Range | None, name: str, named: Named) -> None:
    if get_origin(hint) is Annotated:
        hint, notes = _stripped(hint)
        limits = _range(notes) or limits
    if get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        if value is None and len(kinds) < len(get_args(hint)):
            return
        hint, notes = _stripped(kinds[0])
        limits = _range(notes) or limits
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, hint):
        inside = named if not name else lambda field: named(f"{name}.{field}")
        value.validate(inside) if isinstance(value, Settings) else check(value, inside)
    elif get_origin(hint) is tuple and isinstance(value, tuple):
        for item in value:
            _check(item, get_args(hint)[0], limits, name, named)
    elif not _fits(value, hint, limits):
        raise UserError(f"{named(name)} is {shown(value)}: it must be {_expected(hint, limits)}")


def _fits(value: Any, hint: Any, limits: Range | None) -> bool:
    if hint in (int, float):
        if limits is None:
            raise TypeError("a number among settings has no Range")
        return isinstance(value, (int, hint)) and not isinstance(value, bool) and limits.holds(value)
    if get_origin(hint) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if hint is Path:
        return isinstance(value, str | Path)
    kind = get_origin(hint) or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _expected(hint: Any, limits: Range | None) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if limits is not None and hint in (int, float):
        return f"a {'whole ' if hint is int else ''}number {limits}"
    kinds = {bool: "true or false", str: "text", Path: "a path", tuple: "a list"}
    return kinds.get(get_origin(hint) or hint, f"settings of {getattr(hint, '__name__', hint)}")


def _stripped(hint: Any) -> tuple[Any, tuple]:
    """A type without Annotated, and the annotations."""
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


def _range(notes: tuple) -> Range | None:
    return next((note for note in notes if isinstance(note, Range)), None)


def identity(value: Any) -> Any:
    """What settings mean, as JSON values to compare or to hash: names of types, and the fields not at their default.

    A field that is added with a default changes no identity, so what older code made is found again. The price: when
    the default of a field changes, or what a value means, equal identities would mean different things. If a default
    changes, annotate the field with the one before (`Formerly`); else raise (or add) the FORM of the dataclass, a
    ClassVar number, which is part of its identity. Mappings, lists and NamedTuples are taken apart in the same way.
    TypeError for a value that is no setting.
    """
    if hasattr(value, "_field_defaults"):  # a NamedTuple
        defaults = [(name, value._field_defaults.get(name, dataclasses.MISSING), False) for name in value._fields]
        return _named(value, defaults)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _named(value, [(field.name, field.omitted, field.hint is float) for field in fields(type(value))])
    if isinstance(value, Mapping):
        return {str(key): identity(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [identity(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"settings hold {value!r} of {type(value).__name__}; only plain values have an identity")


def _named(value: Any, defaults: list[tuple[str, Any, bool]]) -> dict:
    """The identity of what has fields: (name, value that is left out, whether it is a float), which 1 is too."""
    found = {"type": type(value).__name__}
    if hasattr(value, "FORM"):
        found["form"] = value.FORM
    for name, default, is_float in defaults:
        inner = getattr(value, name)
        if default is dataclasses.MISSING or inner != default or _always_counts(inner):
            found[name] = identity(float(inner) if is_float else inner)
    return found


def _always_counts(value: Any) -> bool:
    """Whether settings are in an identity although they are the default: these, or some inside, changed meaning."""
    if not dataclasses.is_dataclass(value):
        return False
    own = fields(type(value))
    changed = hasattr(value, "FORM") or any(field.omitted is not field.default for field in own)
    return changed or any(_always_counts(getattr(value, field.name)) for field in own)


def differences(before: Any, now: Any, inside: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two dataclasses of one type differ: (name, value before, value now)."""
    for field in fields(type(now)):
        old, new, name = getattr(before, field.name), getattr(now, field.name), f"{inside}{field.name}"
        if dataclasses.is_dataclass(new) and type(old) is type(new):
            yield from differences(old, new, f"{name}.")
        elif old != new:
            yield name, old, new


def to_json(value: Any) -> Any:
    """Settings as JSON values, every field spelled out, those in lists and mappings too; see `from_json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(type(value))}
    if isinstance(value, Mapping):
        return {name: to_json(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(inner) for inner in value]
    return urls.shown(value) if isinstance(value, Path) else value


def flat(value: Any, inside: str = "") -> dict[str, Any]:
    """Settings and those inside them as JSON values, by the names that their options have: optimiser.clip_norm."""
    found = {}
    for field in fields(type(value)):
        inner, name = getattr(value, field.name), f"{inside}{field.shown}"
        if dataclasses.is_dataclass(inner):
            found |= flat(inner, f"{name}." if field.shown else inside)
        else:
            found[name] = to_json(inner)
    return found


def from_json(kind: type[T], value: Any, named: Named = str, inside: str = "") -> T:
    """The settings that `to_json` wrote; a field added since then takes its default.

    UserError for an unknown field, one that is missing and has no default, or a value that it may not have. named: as
    in `Settings.validate`; inside: the fields around these, with a dot behind each.
    """
    known = {field.name: field for field in fields(kind)}
    if not isinstance(value, Mapping):
        raise UserError(f"{named(inside.removesuffix('.') or kind.__name__)} is {shown(value)}: it must hold settings")
    for name in value:
        if name not in known:
            raise UserError(
                f"{named(f'{inside}{name:.60}')}: there is no such setting; a newer version wrote it, or a slip"
            )
    read = {}
    for name, field in known.items():
        if name in value:
            read[name] = _from_json(field, value[name], named, inside)
        elif field.default is dataclasses.MISSING:
            raise UserError(f"{named(f'{inside}{name}')}: is missing, and has no default")
    made = kind(**read)
    if isinstance(made, Settings):
        made.validate(lambda name: named(f"{inside}{name}"))
    return made


def _from_json(field: Field, value: Any, named: Named, inside: str) -> Any:
    if isinstance(field.hint, type) and dataclasses.is_dataclass(field.hint):
        return from_json(field.hint, value, named, f"{inside}{field.name}.")
    hint = field.hint
    if get_origin(hint) in (typing.Union, types.UnionType):
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple and isinstance(value, list):
        kind = _stripped(get_args(hint)[0])[0]
        value = tuple(Path(item) if kind is Path and isinstance(item, str) else item for item in value)
    elif hint is Path and isinstance(value, str):
        value = Path(value)
    _check(value, field.hint, field.range, f"{inside}{field.name}", named)
    return value
