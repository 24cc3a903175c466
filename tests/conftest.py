"""For every test: four devices made of one CPU, strict shapes, and every annotation of the package checked."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()

import beartype  # noqa: E402  (jax comes after the environment)
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", "cpu")  # a plugin may have imported jax already
jax.config.update("jax_numpy_rank_promotion", "raise")  # [B] + [T,B] is a bug until proven otherwise

checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # an int is a float
jaxtyping.install_import_hook("seqkd_jax", "conftest.checked")  # before the first import of the package


@pytest.fixture(scope="module", autouse=True)
def programs_of_other_modules_are_dropped():
    """Every program holds some of the memory maps a process may have; some thousands together made XLA crash."""
    yield
    jax.clear_caches()
