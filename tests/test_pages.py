"""Memory that a process keeps: page faults of a step, in a child whose jax has not started yet."""

import os
import subprocess
import sys

import pytest

from emojax.training import pages

# Minor page faults of ten steps with 80 MB in between, after as many.
SCRIPT = """
import resource, sys
from emojax.training import pages
kept = pages.keep() if sys.argv[1] == "keep" else False
import jax, jax.numpy as jnp
x, counts = jnp.ones((4500, 1)), []
step = jax.jit(lambda x: (x @ x.T) @ x)
for _ in range(20):
    x = step(x).block_until_ready()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(kept, counts[19] - counts[9])
"""


def faults(mode, **environment):
    """Returns whether memory is kept, and the page faults of three products."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", SCRIPT, mode]
    done = subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(not hasattr(os, "confstr_names"), reason="no C library to ask")
def test_freed_memory_is_used_again():
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        pytest.skip("the C library is not glibc")
    (never, fresh), (kept, few) = faults("leave"), faults("keep")
    assert not never and kept
    assert few < fresh / 2


@pytest.mark.parametrize(
    ("environment", "decided"),
    [
        ({}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=9"}, True),
        ({"MALLOC_ARENA_MAX": "2"}, True),
        ({"MALLOC_TRIM_THRESHOLD_": "100000"}, True),
        ({"MALLOC_CHECK_": "3"}, False),
    ],
)
def test_what_a_user_has_set_stays(environment, decided, monkeypatch):
    for name in [n for n in os.environ if n.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pages.ctypes, "CDLL", lambda name: Libc())
    assert pages.keep() is not decided


class Libc:
    """A glibc that takes every option."""

    gnu_get_libc_version = None

    def mallopt(self, option, value):
        return 1


def test_nothing_happens_elsewhere(monkeypatch):
    monkeypatch.setattr(pages.sys, "platform", "darwin")
    assert pages.keep() is False
    monkeypatch.setattr(pages.sys, "platform", "linux")
    monkeypatch.setattr(pages.ctypes, "CDLL", lambda name: object())  # musl
    assert pages.keep() is False
