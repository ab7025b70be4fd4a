"""The command `emojax clean`, which shows and removes kept scans or compiled programs."""

import json
import pathlib
import sys
import time
from collections.abc import Sequence

from emojax import compiled
from emojax.cli.flags import Usage, parse
from emojax.errors import InputError

CLEAN = Usage(
    "clean",
    {
        "workdir": "workdir of a run whose store is shown; by default `store` beside the workdir",
        "store": "a store, instead of a workdir",
    },
    needs=(),
    positional=("workdir",),
    switches={
        "programs": "show this user's compiled programs, instead of a store",
        "yes": "remove without asking; without this flag and a terminal, nothing is removed",
    },
    example="emojax clean runs/demo",
)
SHOWN = ("scan", "array", "unfinished")  # the other entries are small records about these


def clean(argv: Sequence[str]) -> None:
    """Shows a store or the compiled programs, and removes the files if the user agrees."""
    given = parse(argv, CLEAN)
    workdir, folder = given.text["workdir"], given.text["store"]
    chosen = [given.switches["programs"], bool(workdir), bool(folder)]
    if sum(chosen) != 1:
        found = "none" if not any(chosen) else "both" if sum(chosen) == 2 else "all"
        raise InputError("flags", found, "either a workdir or --store, or --programs")
    if given.switches["programs"]:
        _clean_programs(given.switches["yes"])
        return
    folder = pathlib.Path(folder or store_of(workdir))
    from emojax.data import store

    found = store.entries(folder)
    for entry in found:
        if entry.kind in SHOWN:
            used = time.strftime("%Y-%m-%d", time.localtime(entry.used))
            print(f"{in_words(entry.bytes):>10}  {used}  {entry.kind:10}  {entry.source}".rstrip())
    print(f"{in_words(sum(entry.bytes for entry in found)):>10}  in {len(found)} files of {folder}")
    if found and _agreed(given.switches["yes"], "decodes its scans"):
        print(f"{store.clear(folder)} files were removed")


def _clean_programs(yes: bool) -> None:
    """Shows the folders of compiled programs, and removes the files if the user agrees."""
    sizes: dict[pathlib.Path, list[int]] = {}
    for entry in compiled.entries():
        sizes.setdefault(entry.path.parent, []).append(entry.bytes)
    for folder, found in sizes.items():
        print(f"{in_words(sum(found)):>10}  in {len(found)} files of {folder}")
    if not sizes:
        print("no compiled programs are kept")
    elif _agreed(yes, "compiles its programs"):
        print(f"{compiled.clear()} files were removed")


def _agreed(yes: bool, what: str) -> bool:
    """Returns whether files may be removed; asks in a terminal, otherwise prints a hint."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("nothing was removed; --yes removes these files")
        return False
    if input(f"Remove them? The next run {what} again. [y/N] ").lower() == "y":
        return True
    print("nothing was removed")
    return False


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
