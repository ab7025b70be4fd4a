"""Cache of compiled programs on this machine, so that the next start need not compile again.

    ~/.cache/emojax/xla/<machine>/        jax's own cache of the programs that commands compile
    ~/.cache/emojax/programs/<machine>/   programs of decoders, see `decoder.native`

Programs are native code: anyone who can write them controls what this user's processes do. So they
stay in a folder that only this user can write, one for each kind of processor (machines may share a
home folder), and never travel in a bundle. If `JAX_COMPILATION_CACHE_DIR` is set, both caches are
in that folder. If it is empty, or `JAX_ENABLE_COMPILATION_CACHE` is 0, nothing is kept.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import platform
import stat
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

LARGEST = {"xla": 1 << 30, "programs": 1 << 28}  # bytes of a folder; least recently used go first
SHORTEST = 0.05  # s, minimum compile time of a program worth keeping
HEADER = 1 << 10  # maximum bytes of a file's first line
UNREADABLE = "Error (reading|writing) persistent compilation cache entry"
DAY = 86400  # s, age at which a partial file counts as left by a killed process
SUFFIXES = ("-cache", "-atime", ".program")
# Follows no links and reads no pipes, which might never end.
READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Entry(NamedTuple):
    """One file of the cache."""

    path: pathlib.Path
    bytes: int
    used: float  # s since 1970: last use, as far as the disk records it


def start() -> None:
    """Turns on jax's cache, unless the user has configured it, and limits its size."""
    import jax

    config: Any = jax.config  # whose values are not declared
    if config.jax_compilation_cache_dir is None:
        folder = home("xla")
        if not _made(folder):  # the home folder cannot be written: each start compiles
            return
        with contextlib.suppress(OSError):
            prune(folder, LARGEST["xla"])
        config.update("jax_compilation_cache_dir", str(folder))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    # jax warns of damaged or half-written entries, but compiles them again.
    warnings.filterwarnings("ignore", UNREADABLE)


def home(kind: str) -> pathlib.Path:
    """Returns the cache folder of this user and processor.

    Args:
      kind: "xla" or "programs".
    """
    return _root() / kind / machine()[:12]


def programs() -> pathlib.Path | None:
    """Returns the folder of the programs of decoders; None if the user wants nothing kept."""
    import jax

    config: Any = jax.config  # whose values are not declared
    chosen = config.jax_compilation_cache_dir
    if not config.jax_enable_compilation_cache or chosen == "":
        return None
    if chosen is None or pathlib.Path(chosen) == home("xla"):
        return home("programs")
    return None if "://" in chosen else pathlib.Path(chosen, "emojax", machine()[:12])


@functools.cache
def machine() -> str:
    """Returns a digest of what native code depends on: the processor and its features."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        kept = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU part")
        facts += [line for line in lines if line.partition(":")[0].strip() in kept]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def read(key: str) -> bytes | None:
    """Returns the program of a key; None without a complete one that this user has written.

    Args:
      key: digest of everything that the program depends on, in hexadecimal digits.
    """
    if (path := _path(key)) is None or not _made(path.parent):
        return None
    try:
        with os.fdopen(os.open(path, READ), "rb") as file:
            if not _is_own(os.fstat(file.fileno())):
                return None
            stated, content = file.readline(HEADER), file.read()
        os.utime(path)  # for `prune`
    except OSError:
        return None
    return content if stated == _header(key, content) else None


def write(key: str, content: bytes) -> None:
    """Keeps a program under a key, or does nothing if that is not possible.

    Args:
      key: see `read`.
      content: native code.
    """
    if (path := _path(key)) is None or len(content) > LARGEST["programs"]:
        return
    from emojax import files  # imports NumPy, which `emojax --help` does not need

    with contextlib.suppress(OSError):
        if not _made(path.parent):
            return
        with files.atomic_write(path) as partial:
            new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(partial, new, 0o600), "wb") as file:
                file.write(_header(key, content) + content)
        prune(path.parent, LARGEST["programs"])


def entries() -> list[Entry]:
    """Returns the files in emojax's own cache folders, including those of other processors."""
    roots = {_root() / kind for kind in LARGEST}
    if (folder := programs()) is not None:
        roots.add(folder.parent)  # includes the folders of other processors
    return sorted({entry for root in roots for entry in _files(root)})


def clear() -> int:
    """Removes all `entries` and returns their number."""
    found = entries()
    for entry in found:
        entry.path.unlink(missing_ok=True)
    return len(found)


def prune(folder: pathlib.Path, most: int) -> None:
    """Removes the least recently used files until at most `most` bytes are left."""
    found = sorted(_files(folder), key=lambda entry: entry.used)
    size = sum(entry.bytes for entry in found)
    for entry in found:
        if size <= most:
            return
        entry.path.unlink(missing_ok=True)
        size -= entry.bytes


def _files(folder: pathlib.Path) -> Iterator[Entry]:
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            found = path.lstat()
            left = path.suffix == ".partial" and found.st_mtime < time.time() - DAY
            if path.name.endswith(SUFFIXES) or left:
                yield Entry(path, found.st_size, max(found.st_atime, found.st_mtime))


def _path(key: str) -> pathlib.Path | None:
    folder = programs()
    return None if folder is None else folder / f"{key}.program"


def _made(folder: pathlib.Path) -> bool:
    """Makes a folder of programs; returns whether it and our folders above it are safe.

    Safe folders belong to this user and no one else can write them: renaming a folder would be
    enough to replace programs.
    """
    if not folder.is_absolute():  # the home folder is unknown
        return False
    ours = folder.parents[: 2 if folder.parent.name in LARGEST else 1]
    try:
        for level in (*reversed(ours), folder):
            level.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = level.lstat()
            if not stat.S_ISDIR(found.st_mode):
                return False
            if hasattr(os, "geteuid"):
                many = stat.S_IWOTH | (stat.S_IWGRP if level == folder else 0)
                if found.st_uid != os.geteuid() or found.st_mode & many:
                    return False  # others may have put programs there
                if found.st_mode & stat.S_IWGRP:  # made with another umask
                    level.chmod(stat.S_IMODE(found.st_mode) & ~stat.S_IWGRP)
    except OSError:
        return False
    return True


def _header(key: str, content: bytes) -> bytes:
    facts = {"key": key, "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(facts).encode() + b"\n"


def _is_own(found: os.stat_result) -> bool:
    """Returns whether a file is a regular one that only this user (or root) can write."""
    if not stat.S_ISREG(found.st_mode):
        return False
    return not hasattr(os, "geteuid") or (
        found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _root() -> pathlib.Path:
    return pathlib.Path(os.path.expanduser("~/.cache/emojax"))
