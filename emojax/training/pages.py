"""Memory settings that keep freed memory in the process between training steps."""

import ctypes
import os
import sys
from collections.abc import Mapping

# Options of mallopt (malloc.h): memory is never returned, large blocks come from the heap, and all
# threads share it. XLA allocates in its own thread, whose heap could not hold a block of 64 MB.
OPTIONS = {-1: -1, -4: 0, -8: 1}  # M_TRIM_THRESHOLD (-1: never), M_MMAP_MAX, M_ARENA_MAX
LIMITS = ("trim_threshold", "mmap_max", "mmap_threshold", "arena_max")


def keep() -> bool:
    """Keeps freed memory for the next step, if the C library is glibc; call before jax starts.

    glibc returns blocks of 32 MB and more to the system as soon as they are free, and the next step
    waits for new pages, one fault and 4 kB of zeros at a time: a third of a step of the 1D CNN, and
    a fifth of one of ResNet-50. With this setting, the process holds the most memory that it ever
    needed. Running threads keep their own heaps, so a call after jax's start does not help steps.

    Returns:
      Whether the setting was made: False on other systems, or if the environment configures malloc.
    """
    if not sys.platform.startswith("linux") or _is_decided(os.environ):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all([libc.mallopt(option, value) for option, value in OPTIONS.items()])


def _is_decided(environment: Mapping[str, str]) -> bool:
    tunables = environment.get("GLIBC_TUNABLES", "")
    spelt = [f"MALLOC_{name.upper()}" for name in LIMITS]  # most have a trailing _
    return any(f"glibc.malloc.{name}=" in tunables for name in LIMITS) or any(
        name.rstrip("_") in spelt for name in environment
    )
