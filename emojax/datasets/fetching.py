"""Download of a public data set with verified files; a complete one needs no network."""

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

NOTE = ".emojax-fetch.json"  # file that states which data set a folder holds
RETRIES = 2  # retries per file
ROOM = 50_000_000  # bytes to leave free on the disk


class Fetched(NamedTuple):
    """The outcome of a fetch."""

    folder: pathlib.Path
    files: int  # number of files of the data set, or of its chosen subjects
    downloaded: int  # number of files downloaded
    renewed: int  # number of downloaded files that replace ones with another hash


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
    """Downloads missing files of a data set, and verifies existing ones.

    A file gets its name only when it is complete and has the registered hash. If nothing is
    missing, the network is not used.

    Args:
      dataset: the data set.
      folder: target folder; "" is the data set's folder in `cache()`.
      subjects: labels; () for all.
      mirror: address that serves <accession>/<path> instead of OpenNeuro's bucket; "" is none.
      tick: called with the number of bytes present.

    Returns:
      The folder, and the number of files downloaded.

    Raises:
      InputError: no such subject, a folder with other files, a full disk, no network, or a file on
        the server with another hash.
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
    """Returns "download" (missing), "update" (another hash or size) or "fetch" (as registered)."""
    from pooch.core import download_action

    path = pathlib.Path(pup.abspath, file.path)
    if path.is_file() and path.stat().st_size != file.size:
        return "update"
    return download_action(path, file.digest)[0]


def _check_owner(dataset: Dataset, target: pathlib.Path) -> None:
    """Rejects a folder that holds other files, which would be mixed with the data set.

    Raises:
      InputError: it holds other files, or is a file.
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
            return  # a copy of the data set that was downloaded by other means
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
    """A progress bar for pooch, which reports the bytes of one file."""

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
      InputError: it is not available, or has another hash.
    """
    import pooch
    import requests

    url = pup.get_url(file.path)
    more = "finished files are kept, and the same command resumes"
    try:
        meter: Any = _Meter(tick)  # pooch's annotation is bool; it takes such objects, too
        path = pup.fetch(file.path, downloader=pooch.HTTPDownloader(progressbar=meter))
    except requests.HTTPError as error:
        found = f"HTTP {'error' if error.response is None else error.response.status_code}"
        raise InputError(url, found, f"the file (is it on the mirror? {more})") from None
    except requests.RequestException as error:
        expected = f"a network, or a copy in it (--mirror=URL); {more}"
        raise InputError(url, f"no answer ({_reason(error)})", expected) from None
    except ValueError:  # raised by pooch for another hash
        expected = f"the file that was registered ({file.digest}); {more}"
        raise InputError(url, "another file, or a damaged one", expected) from None
    os.chmod(path, 0o666 & ~_umask())  # pooch's temporary files are readable only by their owner


def _reason(error: Exception) -> str:
    """Returns the innermost reason of a failure, in a few words."""
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
