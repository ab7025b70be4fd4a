"""Fixtures that every test file shares; 8 simulated CPU devices for the sharding tests."""

import os
import pathlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if worker and hasattr(os, "sched_setaffinity"):
    # One core for each worker: XLA's threads wait in a spin, and would take each other's time.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import jax
import numpy as np
import pytest

from configs import common

jax.config.update("jax_num_cpu_devices", 8)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else programs would go to the user's cache
    jax.config.update("jax_enable_compilation_cache", False)

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="module")
def own_programs():
    """Clears compiled programs around a module: those of other modules round differently."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def quick_compile(own_programs):
    """Compiles with fewer optimisations, in half the time, for tests of many small programs."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64():
    """Enables double precision inside one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Runs the test in single and in double precision."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def shared_path(relative: str) -> pathlib.Path:
    """Returns a reference file beside the checkout; if absent, the test skips, or fails in CI."""
    path = SHARED / relative
    if not path.exists():
        if os.environ.get("EMOJAX_REQUIRE_SHARED") == "1":
            pytest.fail(f"EMOJAX_REQUIRE_SHARED=1 but {path} is absent")
        pytest.skip(f"reference data {path} is absent")
    return path


@pytest.fixture
def shared():
    """Returns shared(relative) -> path of reference data, or skips."""
    return shared_path


@pytest.fixture
def config(tmp_path):
    """Returns every key with its default: quiet, its own store, no optional analyses."""
    config = common.get_config()
    config.update({"permutations": 0, "within_subject": False, "crossed": "", "design": False})
    config.maps = False
    config.data.store = str(tmp_path / "store")
    config.data.progress = False
    return config


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forgets compiled programs where they fill the kernel's table of mappings (65,530 entries)."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
