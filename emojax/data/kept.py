"""Files that are made once, written atomically, and verified before they are used again."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from emojax import files
from emojax.data import hashes, sealed, unfinished
from emojax.errors import InputError, say


class Folder:
    """A folder of such files, each beside its record: <name>.<type> and <name>.json."""

    def __init__(self, path: pathlib.Path):
        """Args: the folder, which `open` creates."""
        self.path = path
        self._verified: set[pathlib.Path | None] = set()  # files whose hash was right
        self._swept = False

    def open(self) -> None:
        """Creates the folder and, the first time, removes leftovers of killed processes.

        Raises:
          InputError: the folder cannot be created.
        """
        try:
            (self.path / "paths").mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL
            found = f"a folder that cannot be made ({files.cause(error)})"
            raise InputError(self.path, found, "one that can be written (data.store)") from None
        if not self._swept:
            unfinished.sweep(self.path)
            self._swept = True

    def once(
        self,
        name: str,
        file: pathlib.Path | None,
        layout: Mapping[str, Any],
        make: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Returns the existing record of a file, or makes the file and its record.

        Args:
          name: hash that identifies the content.
          file: the file that the record describes, or None.
          layout: values that the record must have.
          make: function that makes the file and returns the other values of the record; for a file,
            its size as "bytes" and its hash as "content".
        """
        record, wanted = self.path / f"{name}.json", {"name": name, **layout}
        facts, fault = None, None
        try:
            facts = self._verified_record(record, file, wanted)
        except sealed.Damaged as error:
            fault = error
        if facts is None:
            facts = wanted | make()
            self.remember(record, facts, lasting=file is not None)
            self._verified.add(file)
        if fault:
            say(f"{fault}; it was made again")
        if file is not None:
            with contextlib.suppress(OSError):  # the folder may be read-only
                os.utime(file)  # records the use
        return facts

    def remember(self, record: pathlib.Path, facts: dict[str, Any], lasting: bool = False) -> None:
        """Writes a record if possible; without it, a later run does the work again.

        Args:
          record: path of the record.
          facts: content of the record.
          lasting: whether to wait until it is on disk.
        """
        with contextlib.suppress(InputError), self.writing(record):
            with self.partial(record) as partial:
                sealed.write(partial, facts)
                if lasting:
                    files.sync(partial)
            if lasting:
                files.sync(record.parent)

    @contextlib.contextmanager
    def partial(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
        """Yields a temporary name beside `path`, renamed to it at the end or removed on a failure.

        Raises:
          InputError: the file cannot be renamed.
        """
        partial = unfinished.beside(path)
        try:
            yield partial
            with self.writing(path):
                os.replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self, path: pathlib.Path) -> Iterator[None]:
        """Turns an OSError in the context, such as that of a full disk, into an InputError.

        Raises:
          InputError: writing failed.
        """
        try:
            yield
        except OSError as error:
            found = f"a folder in which {path.name} cannot be written ({files.cause(error)})"
            raise InputError(self.path, found, "one with room for it (data.store)") from None

    def reserve(self, size: int, path: pathlib.Path) -> None:
        """Refuses to begin if the disk has too little room.

        Args:
          size: number of bytes to write.
          path: the file that they are made from, for the message.

        Raises:
          InputError: fewer bytes are free.
        """
        free = shutil.disk_usage(self.path).free
        if size > free:
            expected = f"{size:,} for data made from {path} (data.store)"
            raise InputError(self.path, f"{free:,} bytes free on its disk", expected)

    def _verified_record(
        self, record: pathlib.Path, file: pathlib.Path | None, wanted: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Returns a record after verifying its file, or None without one.

        Raises:
          Damaged: the record or the file has changed since it was written.
        """
        facts = sealed.read(record)
        if facts is None:
            return None
        if not wanted.items() <= facts.items():
            raise sealed.Damaged(f"{record} is about something else")
        if file is None:
            return facts
        try:
            size = hashes.stamp(file)["size"]
            if size != facts.get("bytes"):
                raise sealed.Damaged(f"{file} has {size:,} bytes, which is not its length")
            if file not in self._verified and hashes.sha256(file) != facts["content"]:
                raise sealed.Damaged(f"{file} has other content than was written")
        except InputError as error:
            raise sealed.Damaged(str(error)) from None
        self._verified.add(file)
        return facts


def allocate(path: pathlib.Path) -> None:
    """Allocates the disk space of a file to be mapped, as a full disk would kill the process later.

    Raises:
      OSError: there is not enough space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # other errors: the file system does not support it
