"""For every test: four devices made of one CPU, strict shapes, and every annotation of the package checked."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # of one run, for all of its processes: the others inherit it
    programs = tempfile.TemporaryDirectory(prefix="seqkd-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
os.environ["SEQKD_COMPILED_PROGRAMS"] = "none"  # nothing is written into the cache of the user
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()

import beartype  # noqa: E402  (jax comes after the environment)
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", "cpu")  # a plugin may have imported jax already
jax.config.update("jax_numpy_rank_promotion", "raise")  # [B] + [T,B] is a bug until proven otherwise

checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # an int is a float
jaxtyping.install_import_hook("seqkd_jax", "conftest.checked")  # before the first import of the package


@pytest.fixture(scope="session", autouse=True)
def no_line_depends_on_the_clock():
    """What a test reads on standard error is the same on a slow machine: nothing is said because it lasts."""
    from seqkd_jax.utils import progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "_later", lambda seconds, message: lambda: None)
        yield


PROGRAMS = 200  # each holds up to 100 of the 65,530 memory maps that Linux gives a process, and megabytes


@pytest.fixture(scope="module", autouse=True)
def programs_are_dropped_when_there_are_many():
    yield
    if len(jax.devices()[0].client.live_executables()) > PROGRAMS:
        jax.clear_caches()
