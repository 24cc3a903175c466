"""The architecture, read off the import statements: one direction, and each outside package behind one door."""

import ast
import tomllib
from pathlib import Path

import jaxtyping
import pytest

import seqkd_jax
from seqkd_jax import progress

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "seqkd_jax"

# What each module may import of the package. Directions go down this table; a module not in it is a failure: place it.
BOTTOM = {"base", "config"}
DATA = BOTTOM | {"files", "progress"}
MIDDLE = DATA | {"vocab", "corpus", "batches", "models", "losses", "search", "checkpoint", "schedule", "performance"}
MIDDLE |= {"shortlist"}
ALLOWED = {
    "__init__": set(),
    "base": set(),
    "config": {"base"},
    "files": {"base"},
    "progress": {"base"},
    "language": BOTTOM,
    "vocab": DATA,
    "corpus": DATA | {"vocab", "language"},
    "batches": DATA | {"vocab", "corpus"},
    "models": BOTTOM | {"models"},
    "losses": BOTTOM,
    "schedule": BOTTOM,
    "performance": DATA,
    "search": BOTTOM,
    "shortlist": DATA | {"vocab"},
    "checkpoint": DATA | {"vocab", "models"},
    "exchange": DATA | {"vocab", "models", "checkpoint"},
    "translate": MIDDLE,
    "likelihood": MIDDLE | {"blocks"},
    "evaluate": MIDDLE | {"likelihood", "translate"},
    "mbr": MIDDLE | {"translate", "evaluate"},
    "blocks": set(),
    "train": MIDDLE | {"blocks"},
    "run_record": MIDDLE | {"train"},
    "stopping": set(),
    "fit": MIDDLE | {"train", "run_record", "stopping"},
    "recorded": MIDDLE | {"train"},
    "train_model": MIDDLE | {"likelihood", "train", "fit", "recorded"},
    "train_translator": MIDDLE | {"translate", "evaluate", "train", "fit", "train_model"},
    "calibration": BOTTOM,
    "representations": BOTTOM,
    "distill": MIDDLE | {"translate", "evaluate"},
    "arguments": BOTTOM,
    "checks": MIDDLE | {"distill", "arguments"},
    "inputs": MIDDLE | {"arguments"},
    "commands": MIDDLE
    | {"translate", "evaluate", "train", "fit", "recorded", "train_translator", "distill", "mbr", "exchange"}
    | {"arguments", "checks", "inputs"},
    "cli": DATA | {"search", "arguments", "commands", "__init__"},
}

# Outside package or attribute -> the only modules that may name it.
DOORS = {
    "flax": {"models"},
    "jax.pmap": {"train"},
    "orbax": {"checkpoint"},
    "datasets": {"corpus"},
    "sacrebleu": {"evaluate", "vocab"},  # vocab: a word vocabulary may name one of its tokenizers, and applies that one
    "sentencepiece": {"vocab"},
    "tyro": {"arguments", "cli"},
    "rich": {"progress"},
    "sklearn": {"representations"},
    "scipy": set(),
    "safetensors": {"exchange"},
    "pickle": set(),
    "torch": set(),
    "transformers": set(),
    "ctranslate2": set(),
    "experiments": set(),
}


def files_of(module):
    """The files of a module; a folder counts as one module."""
    path = PACKAGE / module
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def modules():
    found = {path.stem for path in PACKAGE.glob("*.py")}
    return sorted(found | {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.rglob("*.py"))})


def imports(path):
    """Dotted names that a file imports, those inside functions too."""
    package = (path.parent.relative_to(ROOT)).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            origin = ".".join(part for part in (above, node.module) if part)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def of_the_package(name):
    """seqkd_jax.losses.LOSSES -> losses; a name that __init__ holds -> __init__; others None."""
    parts = name.split(".")
    if parts[0] != "seqkd_jax":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in modules() else "__init__"


def attributes(path):
    """Dotted names read in a file, such as jax.pmap."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name):
            yield ".".join([node.id, *reversed(parts)])


def is_under(name, door):
    return name == door or name.startswith(f"{door}.")


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module):
    assert module in ALLOWED, (
        f"place seqkd_jax/{module} in the table of tests/test_imports.py and in the README's picture"
    )
    for path in files_of(module):
        for name in imports(path):
            used = of_the_package(name)
            assert used is None or used in ALLOWED[module] or used == module, (
                f"{path.relative_to(ROOT)} imports {name}: {module} stands below {used}; move what is shared down"
            )


def test_the_table_has_no_cycle():
    order = list(ALLOWED)
    for module, allowed in ALLOWED.items():
        reach, todo = set(), set(allowed - {module})
        while todo:
            reach |= todo
            todo = {further for one in todo for further in ALLOWED[one] if further != one} - reach
        assert module not in reach, f"{module} reaches itself"
    assert set(order) >= set(modules())


@pytest.mark.parametrize("module", modules())
def test_each_outside_package_has_one_door(module):
    for path in files_of(module):
        for name in [*imports(path), *attributes(path)]:
            for door, allowed in DOORS.items():
                if is_under(name, door):
                    assert module in allowed, (
                        f"{path.relative_to(ROOT)} uses {name}: only {' and '.join(sorted(allowed)) or 'nobody'} may"
                    )


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda path: path.stem)
def test_experiments_use_the_library(path):
    """They go through the package: no flax, orbax, datasets or pmap of their own."""
    for name in [*imports(path), *attributes(path)]:
        for door in ("flax", "orbax", "datasets", "jax.pmap", "pickle"):
            assert not is_under(name, door), f"{path.relative_to(ROOT)} uses {name}: that is the library's to do"


@pytest.mark.parametrize(
    "module", ["__init__", "base", "config", "files", "progress", "arguments", "checks", "commands", "cli", "vocab"]
)
def test_light_modules_import_nothing_heavy_at_the_top(module):
    """`seqkd --help` must answer at once, and text work needs no accelerator."""
    for path in files_of(module):
        top = ast.Module(body=ast.parse(path.read_text(encoding="utf-8")).body, type_ignores=[])
        names = {alias.name for node in top.body if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top.body if isinstance(node, ast.ImportFrom)}
        heavy = {name for name in names if name.split(".")[0] in {"jax", "flax", "orbax", "datasets", "optax", "rich"}}
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy} at the top: import inside the function"


def test_requirements_agree_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == wanted


def test_annotations_are_checked_while_tests_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        progress.duration("long")


def test_the_reading_order_names_every_module():
    order = seqkd_jax.__doc__.split()
    missing = [name for name in modules() if name != "__init__" and name not in order]
    assert not missing, f"add {missing} to the reading order in seqkd_jax/__init__.py"
