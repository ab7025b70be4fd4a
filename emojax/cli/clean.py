"""`emojax clean`: shows the decoded scans that runs keep on disk, and removes them."""

import json
import pathlib
import sys
import time
from collections.abc import Sequence

from emojax.cli.flags import Usage, parse
from emojax.errors import InputError

CLEAN = Usage(
    "clean",
    {
        "workdir": "workdir of a run, whose store is meant: by default `store` beside the workdir",
        "store": "a store, instead of a workdir",
    },
    needs=(),
    positional=("workdir",),
    switches={
        "yes": "remove without asking; without it and without a terminal, nothing is removed"
    },
    example="emojax clean runs/demo",
)
SHOWN = ("scan", "array", "unfinished")  # the other entries are small records of these


def clean(argv: Sequence[str]) -> None:
    """Shows a store, and removes its files if the user agrees."""
    given = parse(argv, CLEAN)
    workdir, folder = given.text["workdir"], given.text["store"]
    if bool(workdir) == bool(folder):
        raise InputError("flags", "both" if folder else "none", "either a workdir or --store")
    folder = pathlib.Path(folder or store_of(workdir))
    from emojax.data import store

    found = store.entries(folder)
    size = sum(entry.bytes for entry in found)
    for entry in found:
        if entry.kind in SHOWN:
            used = time.strftime("%Y-%m-%d", time.localtime(entry.used))
            print(f"{in_words(entry.bytes):>10}  {used}  {entry.kind:10}  {entry.source}".rstrip())
    print(f"{in_words(size):>10}  in {len(found)} files of {folder}")
    if not found:
        return
    if not given.switches["yes"]:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            print("nothing was removed; --yes removes these files")
            return
        if input("Remove them? The next run decodes its scans again. [y/N] ").lower() != "y":
            print("nothing was removed")
            return
    print(f"{store.clear(folder)} files were removed")


def store_of(workdir: str) -> pathlib.Path:
    """Returns the store of a run: `data.store` of its config, or `store` beside the workdir.

    Raises:
      InputError: the folder is not a workdir.
    """
    folder = pathlib.Path(workdir).absolute()
    try:
        stored = json.loads((folder / "config.json").read_text())
        data = stored.get("config", stored)["data"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(folder, "no config.json of a run", "a workdir, or --store=DIR") from None
    return pathlib.Path(data.get("store") or folder.parent / "store")


def in_words(size: int) -> str:
    """Returns a number of bytes with its unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
