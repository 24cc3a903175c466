"""The architecture, read off the import statements: one direction, and each outside package behind one door."""

import ast
import re
import tomllib
from pathlib import Path

import jaxtyping
import pytest

import seqkd_jax
from seqkd_jax.utils import progress

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "seqkd_jax"

# What each room may import of the package: those above it in this table, and only these. A room is a folder or a module
# at the top. Every test of directions reads this table; place a new room in it and in docs/concepts.md.
BOTTOM = {"types", "config", "utils"}
MODEL = BOTTOM | {"data", "models", "losses"}
ALLOWED = {
    "__init__": {"api"},
    "types": set(),
    "config": {"types", "utils"},
    "utils": {"types"},
    "distributed": {"types", "utils"},
    "data": BOTTOM,
    "models": {"types", "config"},
    "losses": {"types", "config"},
    "checkpoint": BOTTOM | {"distributed", "data", "models"},
    "decoding": BOTTOM | {"data"},
    "evaluation": MODEL | {"distributed", "decoding"},
    "pruning": BOTTOM | {"checkpoint"},
    "training": MODEL | {"distributed", "checkpoint", "decoding", "evaluation"},
    "distillation": BOTTOM | {"distributed", "data", "checkpoint", "decoding", "evaluation"},
    "marian": BOTTOM | {"data", "models", "checkpoint"},
    "verification": MODEL | {"checkpoint", "decoding", "training", "distillation"},
    "api": MODEL
    | {*("distributed", "checkpoint", "decoding", "evaluation", "training", "distillation", "verification")}
    | {"pruning"},
    "__main__": {"cli"},
    "cli": {
        *(MODEL | {"distributed", "checkpoint", "decoding", "evaluation", "training", "distillation", "marian"}),
        *("verification", "pruning", "api", "__init__"),
    },
}

# Outside package or attribute -> the only files and folders that may name it.
DOORS = {
    "flax": {"models"},
    "jax.pmap": {"training/train_step.py"},
    "jax.distributed": {"distributed"},
    "orbax": {"checkpoint/arrays.py"},
    "datasets": {"data/readers.py"},
    "pyarrow": {"data/text.py"},
    # tokenizers: a word vocabulary may name one of sacrebleu's, and applies that one
    "sacrebleu": {"evaluation/metrics.py", "data/tokenizers.py"},
    "sentencepiece": {"data/tokenizers.py"},
    "tyro": {"cli/options.py", "cli/main.py"},
    "rich": {"utils/progress.py"},
    "fsspec": {"utils/remote.py"},
    "jax._src": {"utils/program_cache.py", "distributed"},
    "tensorboardX": {"training/records.py"},
    "wandb": {"training/records.py"},
    "sklearn": {"evaluation/representations.py"},
    "scipy": set(),
    "matplotlib": set(),
    "safetensors": {"checkpoint/tensor_files.py"},
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
    """seqkd_jax.losses.LOSSES -> losses; a name that __init__ holds -> __init__; others, and the version, None."""
    parts = name.split(".")
    if parts[0] != "seqkd_jax" or name == "seqkd_jax.__version__":
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
        f"place seqkd_jax/{module} in the table of tests/test_architecture.py and in the picture of docs/concepts.md"
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


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_outside_package_has_one_door(path):
    place = path.relative_to(PACKAGE).as_posix()
    for name in [*imports(path), *attributes(path)]:
        for door, allowed in DOORS.items():
            if is_under(name, door):
                assert {place, place.split("/")[0]} & allowed, (
                    f"seqkd_jax/{place} uses {name}: only {' and '.join(sorted(allowed)) or 'nobody'} may"
                )


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda path: path.stem)
def test_experiments_use_the_library(path):
    """They go through the package: no flax, orbax, datasets or pmap of their own."""
    for name in [*imports(path), *attributes(path)]:
        for door in ("flax", "orbax", "datasets", "jax.pmap", "pickle"):
            assert not is_under(name, door), f"{path.relative_to(ROOT)} uses {name}: that is the library's to do"


LIGHT = (
    "__init__",
    "types",
    "config",
    "utils/files",
    "utils/progress",
    "utils/programs",
    "utils/program_cache",
    "distributed/*",
    "data/vocabulary",
    "data/tokenizers",
    "cli/*",
)


@pytest.mark.parametrize("path", [path for name in LIGHT for path in sorted(PACKAGE.glob(f"{name}.py"))], ids=str)
def test_light_modules_import_nothing_heavy_at_the_top(path):
    """`seqkd --help` must answer at once, and text work needs no accelerator."""
    top = ast.Module(body=ast.parse(path.read_text(encoding="utf-8")).body, type_ignores=[])
    names = {alias.name for node in top.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top.body if isinstance(node, ast.ImportFrom)}
    heavy = {name for name in names if name.split(".")[0] in {"jax", "flax", "orbax", "datasets", "optax", "rich"}}
    assert not heavy, f"{path.relative_to(ROOT)} imports {heavy} at the top: import inside the function"


def test_requirements_agree_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["studies"] + extras["dev"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == wanted


def test_annotations_are_checked_while_tests_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        progress.duration("long")


def test_the_reading_order_names_every_module():
    order = seqkd_jax.__doc__.split()
    missing = [name for name in modules() if name not in ("__init__", "__main__", *order)]
    assert not missing, f"add {missing} to the reading order in seqkd_jax/__init__.py"


# What writes, renames or removes a file, and the only files that may: `utils/files` holds what is guaranteed of it.
WRITES = re.compile(
    r"""\bopen\(.*, "[wax]|(?<!files)(?<!decoding)\.write_(text|bytes)\(|\.(unlink|savefig|mkstemp|symlink_to)\(|"""
    r"""\b(os|shutil)\.(rename|replace|remove|rmdir|rmtree|move|copy\w*|link|symlink|truncate)\("""
)
WRITERS = {
    "seqkd_jax/utils/files.py",
    "seqkd_jax/utils/temporary.py",
    "seqkd_jax/utils/sums.py",
    "seqkd_jax/utils/leases.py",  # a lock, which is no result
    "seqkd_jax/utils/program_cache.py",  # a cache, which is no result
    "seqkd_jax/utils/remote.py",  # what is fetched, which is complete, gets its name
    "seqkd_jax/data/readers.py",  # links of its own in a temporary directory, whose names are no patterns
    "seqkd_jax/cli/outputs.py",  # standard output
    "seqkd_jax/training/records.py",  # what another package wrote is removed
    "seqkd_jax/distillation/earlier_results.py",  # complete lists get their name
    "experiments/core/stages.py",  # a complete stage gets its name
    "experiments/chaos/lives.py",  # a life that went wrong is kept
    "experiments/core/plots.py",  # a plot that is out of date goes, and one is drawn in memory
    "experiments/benchmarks/workers.py",  # a counter of the kernel
}


@pytest.mark.parametrize("folder", ["seqkd_jax", "experiments"])
def test_files_are_written_through_one_door(folder):
    paths = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / folder).rglob("*.py"))}
    found = {name for name, path in paths.items() if WRITES.search(path.read_text(encoding="utf-8"))}
    assert found == {name for name in WRITERS if name.startswith(folder)}, "write through seqkd_jax.utils.files"
