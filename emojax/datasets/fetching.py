"""Download of a public data set: verified file by file, and without a network once it is there."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from emojax.datasets import Dataset, File
from emojax.errors import InputError
from emojax.files import atomic_write

NOTE = ".emojax-fetch.json"  # says which data set a folder holds
RETRIES = 2  # of a file
ROOM = 50_000_000  # bytes that stay free


class Fetched(NamedTuple):
    """The outcome of a fetch."""

    folder: pathlib.Path
    files: int  # of the data set, or of its chosen subjects
    downloaded: int
    renewed: int  # of these: they were there, and were not what is registered


def cache() -> pathlib.Path:
    """Returns the folder of all data sets: EMOJAX_DATA, or ~/.cache/emojax/data."""
    return pathlib.Path(os.environ.get("EMOJAX_DATA") or "~/.cache/emojax/data").expanduser()


def fetch(
    dataset: Dataset,
    folder: str | os.PathLike = "",
    *,
    subjects: Sequence[str] = (),
    mirror: str = "",
    tick: Callable[[int], Any] = lambda done: None,
) -> Fetched:
    """Downloads what is missing of a data set, and verifies what is there.

    A file has its name once it is whole and has the registered hash. Without anything to download,
    no network is used.

    Args:
      dataset: the data set.
      folder: where it goes; "" is `cache()` and its name.
      subjects: labels; () for all.
      mirror: address that serves <accession>/<path> instead of OpenNeuro's bucket; "" is none.
      tick: called with the number of bytes that are there.

    Returns:
      The folder, and what was downloaded.

    Raises:
      InputError: no such subject, a folder of something else, a full disk, no network, or a server
        that has another file.
    """
    target = pathlib.Path(folder) if str(folder) else cache() / dataset.name
    if mirror and not mirror.startswith(("http://", "https://")):
        raise InputError("mirror", repr(mirror), "an address that begins with http:// or https://")
    chosen = dataset.select(tuple(subjects))
    pup = _pooch(dataset, target, chosen, mirror)
    _check_owner(dataset, target)
    state = {file: _state(pup, file) for file in chosen}
    missing = [file for file in chosen if state[file] != "fetch"]
    if not missing:
        return Fetched(target, len(chosen), 0, 0)
    _check_room(target, sum(file.size for file in missing))
    _claim(dataset, target)
    done = sum(file.size for file in chosen if file not in missing)
    tick(done)
    for file in missing:
        _download(pup, file, lambda part, before=done: tick(before + part))
        done += file.size
        tick(done)
    renewed = sum(state[file] == "update" for file in missing)
    return Fetched(target, len(chosen), len(missing), renewed)


def _pooch(dataset: Dataset, target: pathlib.Path, chosen: Sequence[File], mirror: str):
    try:
        import pooch
    except ImportError:
        raise InputError("fetch", "no package pooch", "pip install pooch") from None
    pooch.get_logger().setLevel("ERROR")
    return pooch.create(
        path=os.path.abspath(target),
        base_url="",
        registry={file.path: file.digest for file in chosen},
        urls={file.path: file.url(dataset.accession, mirror) for file in chosen},
        retry_if_failed=RETRIES,
    )


def _state(pup: Any, file: File) -> str:
    """Returns "download", "update" (it is there, but not as registered), or "fetch": as it is."""
    from pooch.core import download_action

    path = pathlib.Path(pup.abspath, file.path)
    if path.is_file() and path.stat().st_size != file.size:
        return "update"
    return download_action(path, file.digest)[0]


def _check_owner(dataset: Dataset, target: pathlib.Path) -> None:
    """Refuses a folder that holds something else: its files would be mixed with those.

    Raises:
      InputError: it does, or is a file.
    """
    expected = f"a new folder, or one with an earlier download of {dataset.name}"
    if os.path.lexists(target) and not target.is_dir():
        raise InputError(target, "a file", expected)
    if not target.is_dir() or not any(target.iterdir()):
        return
    from pooch import file_hash

    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads((target / NOTE).read_text()).get("dataset") == dataset.name:
            return
    description = next(f for f in dataset.files if f.path == "dataset_description.json")
    kind, _, digest = description.digest.partition(":")
    with contextlib.suppress(OSError):
        if file_hash(str(target / description.path), kind) == digest:
            return  # a copy that was made in another way
    raise InputError(target, "files of something else", expected)


def _check_room(target: pathlib.Path, size: int) -> None:
    there = next(path for path in (target, *target.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < size + ROOM:
        found = f"{free / 1e9:.1f} GB free"
        raise InputError(there, found, f"{(size + ROOM) / 1e9:.1f} GB (--to=DIR, --subjects=...)")


def _claim(dataset: Dataset, target: pathlib.Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    stated = {"dataset": dataset.name, "accession": dataset.accession, "commit": dataset.commit}
    stated |= {"licence": dataset.licence, "citation": dataset.citation}
    with atomic_write(target / NOTE) as partial:
        partial.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")


class _Meter:
    """What pooch tells of one file's progress."""

    def __init__(self, tick: Callable[[int], Any]):
        self.total, self._done, self._tick = 0, 0, tick

    def update(self, size: int) -> None:
        self._done = min(self._done + size, self.total)
        self._tick(self._done)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _download(pup: Any, file: File, tick: Callable[[int], Any]) -> None:
    """Downloads one file.

    Raises:
      InputError: it cannot be had, or is another file.
    """
    import pooch
    import requests

    url = pup.get_url(file.path)
    more = "what has arrived stays, and the same command goes on"
    try:
        path = pup.fetch(file.path, downloader=pooch.HTTPDownloader(progressbar=_Meter(tick)))
    except requests.HTTPError as error:
        found = f"HTTP {error.response.status_code}"
        raise InputError(url, found, f"the file (is it on the mirror? {more})") from None
    except requests.RequestException as error:
        expected = f"a network, or a copy in it (--mirror=URL); {more}"
        raise InputError(url, f"no answer ({_reason(error)})", expected) from None
    except ValueError:  # pooch's: another hash
        expected = f"the file that was registered ({file.digest}); {more}"
        raise InputError(url, "another file, or a damaged one", expected) from None
    os.chmod(path, 0o666 & ~_umask())  # pooch's temporary files are for their owner alone


def _reason(error: Exception) -> str:
    """Returns the innermost reason of a failure in a few words."""
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None) or inner
    text = str(reason).rpartition(": ")[2] or type(error).__name__
    return text.strip("'\"")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
