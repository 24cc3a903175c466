"""Whatever happens to a file that is read back, it is named in one line: accidents, harm, and writers that go on."""

import gc
import itertools
import json
import resource
import shutil
import threading
import time

import jax
import numpy as np
import pytest
from damage import KINDS, as_before, damage, edit, reseal
from updates import CONFIG, MODEL, VOCABULARIES, V, save

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import arrays, run_config
from seqkd_jax.data import vocabulary
from seqkd_jax.training import run_state
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, progress, temporary

INPUTS = {"training corpus": "a" * 64}
PARAMS = jax.tree.map(
    lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), jax.eval_shape(lambda: MODEL.init(jax.random.key(0)))
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run directory as training leaves it, without training: it is not finished; and a vocabulary."""
    root = tmp_path_factory.mktemp("original")
    run = run_state.RunState((run_state.Replica(CONFIG.seed, 1.5, 2, history=({"step": 2, "loss": 1.5},)),), 2)
    about = run_state.metadata(CONFIG, INPUTS, run)
    (root / "run").mkdir()
    for step in (1, 2):
        files.append(root / "run" / "metrics.jsonl", files.json_line({"step": step, "loss": 1.5}))
    save(root / "run" / "best", PARAMS, metadata=about)
    about["metrics"] = run_state.metrics_mark(root / "run")
    save(root / "run" / "last", PARAMS, metadata=about, state=PARAMS)
    run_config.write(root / "run" / "config.json", run_config.describe("train", {"seed": 3}, {"start": "a" * 64}))
    vocabulary.write(VOCABULARIES, root / "vocabulary")
    return root


@pytest.fixture
def copied(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copied")


def resume(run):
    """As `fit` begins: everything is verified; what would be restored after that is left out."""
    found = run_state.resume(run, CONFIG, INPUTS)
    checkpoint.read_record(run / "last", ("state/*",))
    return found


def read(root, path):
    """Read the file as those do who need it, without parsing more than that takes."""
    top, name = path.relative_to(root).parts[:2]
    if top == "vocabulary":
        return checkpoint.load_vocabularies(root / top)
    if name == "config.json":
        return run_config.read(path, "train", type(CONFIG))
    if name == "metrics.jsonl" or path.name == "checkpoint.json":
        return resume(root / top)
    return checkpoint.read_record(root / top / name, ("params/*", "vocabulary/*", "state/*"))


def all_files(root):
    return [path for path in sorted(root.rglob("*")) if path.is_file()]


def test_no_damage_passes_in_silence(original, copied, monkeypatch):
    """Of every file, at random places: refused or named, in one line, with the file's name."""
    folders = {path.parent.name for path in all_files(original)}
    assert folders >= {"run", "best", "last", "params", "state", "vocabulary"} and resume(original / "run").step == 2
    draw, said = np.random.default_rng(0), []
    monkeypatch.setattr(progress, "log", said.append)
    for number, path in enumerate(all_files(copied)):
        before = path.read_bytes()
        for kind in ("flip", KINDS[1 + number % 4]):
            said.clear()
            damage(path, kind, draw)
            try:
                read(copied, path)
            except UserError as error:
                said.append(str(error))
            assert said and "\n" not in said[0], f"{kind} of {path}"
            assert path.name in said[0], f"{kind} of {path} is told so: {said[0]}"
            path.write_bytes(before)


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_is_verified_before_it_is_parsed(copied, name, monkeypatch):
    """Its readers need no orbax to see that a file was changed, is missing, or was added."""
    monkeypatch.setattr(arrays, "restore", lambda *_: pytest.fail("a damaged file was parsed"))
    monkeypatch.setattr(checkpoint.vocabulary, "load", lambda *_: pytest.fail("a damaged file was parsed"))
    directory = copied / "run" / name
    readers = {"params": [checkpoint.load, lambda path: checkpoint.load_params(path, PARAMS)]}
    readers |= {"vocabulary": [checkpoint.load, checkpoint.load_vocabularies]}
    readers |= {"state": [lambda path: checkpoint.load_state(path, PARAMS)]} if name == "last" else {}
    for part, functions in readers.items():
        for path in all_files(directory / part):
            before = path.read_bytes()
            path.write_bytes(before + b"x")
            for function in functions:
                with pytest.raises(UserError, match=f"{path.name}: damaged, it does not have the hash"):
                    function(directory)
            path.write_bytes(before)
        (directory / part / "more").write_text("x")
        with pytest.raises(UserError, match=f"{part}/more: damaged, SHA256SUMS does not list it"):
            functions[-1](directory)
        (directory / part / "more").unlink()


def test_a_run_state_without_hashes_is_not_resumed(copied):
    """One of version 0.2.0: its weights load, by the hash in its record."""
    for name in ("best", "last"):
        as_before(copied / "run" / name)
        checkpoint.load(copied / "run" / name)
    with pytest.raises(UserError, match=r"no hashes.*before 0.3.0.* with --start [^ ]*last to begin with its weights"):
        checkpoint.load_state(copied / "run" / "last", PARAMS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b"1.5", b"1.4", 1), "first .* bytes are not those"),
        (lambda data: data[:-3], "first .* bytes are not those"),
        (lambda data: data + b'{"step": 3, "loss": 1.0}\n', "25 bytes are cut: their updates, after 2, are made again"),
        (lambda data: None, "is gone; the run goes on without"),
    ],
)
def test_metrics_have_a_hash(copied, change, said, monkeypatch):
    """They are cut back to what they were when last/ was saved; a finished run has nothing after that."""
    told, path = [], copied / "run" / "metrics.jsonl"
    before = path.read_bytes()
    changed = change(before)
    monkeypatch.setattr(progress, "log", told.append)
    for finished in (False, True):
        for name in ("last", "best") if finished else ():
            edit(copied / "run" / name, lambda record: record["metadata"]["run"].update(finished=True))
        path.unlink(missing_ok=True) if changed is None else path.write_bytes(changed)
        if "not those" in said or (finished and changed is not None):
            with pytest.raises(UserError, match=f"metrics.jsonl: damaged, .*({said}|came after the end of the run)"):
                resume(copied / "run")
            assert path.read_bytes() == changed, "nobody's data are cut"
        else:
            resume(copied / "run")
            assert len(told) == 1 + finished and f"{path}: " in told[-1]
            assert changed is None or path.read_bytes() == before


# Directories that are replaced while they are read


def replaced_by_turns(directory, contents, stop, holds, pause):
    """Put new directories there, `pause` seconds apart and ever slower; `contents` fill them by turns."""
    for fill in itertools.cycle(contents):
        with files.new_directory(directory, (holds, "*")) as temporary:
            fill(temporary)
        if stop.wait(pause):
            return
        pause *= 1.05  # a long read comes to its end on a busy machine too


@pytest.fixture
def replacing():
    """Starts a writer, which ends with the test."""
    stop, threads = threading.Event(), []

    def start(directory, contents, holds, pause=0.0):
        threads.append(threading.Thread(target=replaced_by_turns, args=(directory, contents, stop, holds, pause)))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def test_a_directory_that_is_replaced_is_read_whole(tmp_path, replacing):
    """500 reads, more on a busy machine: none fails, none is a mixture, and more than one version is seen."""

    def filled(number):
        def fill(path):
            for name in ("a.json", "b/c.json"):
                files.write_json(path / name, number)

        return fill

    def values(path):
        return [files.read_json(path / name) for name in ("a.json", "b/c.json")]

    with files.new_directory(tmp_path / "best", ("a.json", "*")) as path:
        filled(0)(path)
    replacing(tmp_path / "best", (filled(1), filled(2)), "a.json")
    found, reads = set(), 0
    while reads < 500 or (not found >= {(1, 1), (2, 2)} and reads < 100_000):
        found.add(tuple(integrity.whole(tmp_path / "best", values)))
        reads += 1
    assert found <= {(0, 0), (1, 1), (2, 2)} and found >= {(1, 1), (2, 2)}


def test_a_checkpoint_that_is_replaced_is_read_whole(tmp_path, replacing):
    """Also its fingerprint and its vocabularies: what is loaded is one of the two that were written."""
    made = []
    for number in range(2):
        params = jax.tree.map(lambda leaf, number=number: leaf + np.float32(number), PARAMS)
        made.append(save(tmp_path / str(number), params, metadata={"step": number}))
    prints = [checkpoint.fingerprint(path) for path in made]
    shutil.copytree(made[0], tmp_path / "best")
    contents = [lambda path, one=one: shutil.copytree(one, path, dirs_exist_ok=True) for one in made]
    replacing(tmp_path / "best", contents, "checkpoint.json", pause=0.001)
    steps, reads = set(), 0
    while reads < 4 or (len(steps) < 2 and reads < 100):
        reads += 1
        found = checkpoint.load(tmp_path / "best")
        step = found.metadata["step"]
        assert found.fingerprint == prints[step]
        assert {float(leaf.ravel()[0]) for leaf in jax.tree.leaves(found.params)} == {0.5 + step}
        assert checkpoint.fingerprint(tmp_path / "best") in prints
        assert checkpoint.load_vocabularies(tmp_path / "best").target.size == V
        steps.add(step)
    assert steps == {0, 1}


def test_a_directory_that_steps_aside_while_it_is_read_is_read_again(tmp_path):
    """The one that stepped aside is the same directory, but no longer where it was read."""
    with files.new_directory(tmp_path / "best", ("a.json",)) as path:
        files.write_json(path / "a.json", 1)
    asides = []

    def read(path):
        if not asides:
            asides.append(temporary.step_aside(tmp_path / "best"))
        return files.read_json(path / "a.json")

    assert integrity.whole(tmp_path / "best", read) == 1


def test_what_is_gone_is_said_at_once(tmp_path, monkeypatch):
    """And a reader does not go on for ever."""
    start = time.monotonic()
    with pytest.raises(UserError, match="nowhere: no such checkpoint"):
        checkpoint.load(tmp_path / "nowhere")
    assert time.monotonic() - start < 1

    def replace_it(path):
        (tmp_path / "a").rename(tmp_path / f"old-{len(list(tmp_path.iterdir()))}")
        (tmp_path / "a").mkdir()

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(integrity, "PATIENCE", 0.05)
    with pytest.raises(UserError, match="a: another process replaced it each time"):
        integrity.whole(tmp_path / "a", replace_it)


# The door to orbax


def many(seed=0):
    draw = np.random.default_rng(seed)
    return {f"leaf-{index}": draw.normal(size=(100, 200)).astype(np.float32) for index in range(8)}


def nothing_was_printed(capfd):
    gc.collect()
    time.sleep(0.1)  # tensorstore's threads go on for a moment
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("harm", ["cut", "remove", "nothing", "metadata", "directory"])
def test_what_orbax_raises_is_one_line(tmp_path, capfd, harm):
    """Without a SHA256SUMS; and nothing is printed besides, of its threads, loops and log."""
    arrays.write(tmp_path / "a", many())
    largest = max(all_files(tmp_path / "a"), key=lambda path: path.stat().st_size)
    if harm == "metadata":
        (tmp_path / "a" / "_METADATA").write_text('{"tree_metadata": [')
    elif harm in ("nothing", "directory"):
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a").mkdir() if harm == "directory" else None
    else:
        damage(largest, harm, np.random.default_rng(1))
    with pytest.raises(UserError, match=rf"^{tmp_path / 'a'}: damaged, cannot be restored .*train again$") as caught:
        arrays.restore(tmp_path / "a", many())
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value) and caught.value.__cause__ is None
    nothing_was_printed(capfd)


def test_a_save_that_fails_leaves_what_was_there(tmp_path, capfd):
    """A limit of a file's size is met in tensorstore's threads."""
    before = files.sha256_tree(save(tmp_path / "best", PARAMS, metadata={"step": 1}))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises((OSError, UserError), match="best.*|File too large") as caught:
            save(tmp_path / "best", PARAMS, metadata={"step": 2}, state=many())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    told = files.describe_error(caught.value) if isinstance(caught.value, OSError) else str(caught.value)
    assert "best" in told and "File too large" in told and "\n" not in told
    assert files.sha256_tree(tmp_path / "best") == before and [path.name for path in tmp_path.iterdir()] == ["best"]
    nothing_was_printed(capfd)


def test_a_mistake_of_ours_stays_visible(tmp_path):
    for tree in ({"a": "text"}, {"a": object()}, {"a": np.array([None])}):
        with pytest.raises(TypeError, match="only arrays"):
            arrays.write(tmp_path / "a", tree)


# Harm


HOSTILE = [None, True, -1, 10**12, 2**64 - 1, 1.5, "", "../../x", "\0", "a" * 5000, [], [["x"]], {}, {"a": {"b": 1}}]


def places(value, inside=()):
    """The paths of all values in JSON, of lists the first."""
    yield inside
    for key in value if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ():
        yield from places(value[key], (*inside, key))


@pytest.mark.parametrize("name", ["run/last/checkpoint.json", "run/config.json", "vocabulary/vocabulary.json"])
def test_a_changed_description_with_fitting_hashes_is_read_or_refused(copied, name):
    """Any value in the place of any other: wrong types, sizes that no memory has, paths. One short line, or none."""
    path, draw, refused = copied / name, np.random.default_rng(0), 0
    original = json.loads(path.read_text())
    original.pop("sha256", None)
    for place in draw.permutation(np.array([*places(original)], object))[:40]:
        value = json.loads(json.dumps(original))
        *parents, last = ("", *place)
        holder = {"": value}
        for key in parents:
            holder = holder[key]
        holder[last] = HOSTILE[draw.integers(len(HOSTILE))]
        path.write_text(json.dumps(value if place else holder[""]))
        if name != "run/config.json":
            reseal(path.parent)
        try:
            read(copied, path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 700, place
    assert refused > 5


@pytest.mark.parametrize("name", ["../../../victim.txt", "/tmp/victim.txt", "", ".", "a\0b", "a\\b", "x" * 5000])
def test_a_checkpoint_writes_nothing_beside_itself(copied, tmp_path, name):
    """Its vocabulary is read and copied by these; a path in it is refused, though every hash fits."""
    best, victim = copied / "run" / "best", copied / "victim.txt"
    victim.write_bytes((best / "vocabulary" / "source.txt").read_bytes())
    edit(best / "vocabulary", lambda value: value.update(source=name), "vocabulary.json")
    (best / "vocabulary" / files.SUMS).unlink()
    reseal(best)
    before = files.sha256_tree(copied)
    readers = [checkpoint.load, checkpoint.load_vocabularies, lambda path: checkpoint.average([path])]
    for reader in (*readers, lambda path: checkpoint.select(path, 0, copied / "mine")):
        with pytest.raises(UserError, match=r"vocabulary.json: .* is not the bare name of a file"):
            reader(best)
    assert files.sha256_tree(copied) == before


def test_sizes_that_no_memory_has_are_refused(copied):
    for key, size in (("source_size", 10**12), ("target_size", -1)):
        edit(copied / "run" / "best", lambda record, key=key, size=size: record.update({key: size}))
        with pytest.raises(UserError, match=f"damaged, {key} is {size}, but its vocabulary has {V} entries"):
            checkpoint.load(copied / "run" / "best")
        edit(copied / "run" / "best", lambda record, key=key: record.update({key: V}))
    edit(copied / "run" / "best", lambda record: record["model"].update(size=10**12))
    with pytest.raises(UserError, match="lstm.size is 1000000000000"):
        checkpoint.load(copied / "run" / "best")


def test_weights_that_are_not_finite_are_named(tmp_path, monkeypatch):
    """They translate to nothing, and silently."""
    told = []
    monkeypatch.setattr(progress, "log", told.append)
    leaves, structure = jax.tree.flatten(PARAMS)
    save(tmp_path / "a", jax.tree.unflatten(structure, [*leaves[:-1], leaves[-1] * np.nan]), metadata={})
    name = list(arrays.named_leaves(PARAMS))[-1]
    checkpoint.load(tmp_path / "a")
    assert told == [f"{tmp_path / 'a'}: {name} has values that are not finite: its training diverged; train again"]
