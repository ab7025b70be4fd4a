"""The command `emojax seal`, which allocates subjects to feedback and seals the allocation."""

import pathlib
from collections.abc import Sequence

from emojax.cli.flags import Usage, parse
from emojax.errors import InputError
from emojax.files import split_list

SEAL = Usage(
    "seal",
    {
        "out": "the allocation file, which must not exist yet",
        "subjects": "names, separated by commas; each is allocated at random",
        "kinds": "kinds of feedback, separated by commas, in groups as equal as possible: real, "
        "sham, sham:JOURNAL (values distributed as in that session), list:FILE, yoked:JOURNAL; "
        "real,sham by default",
        "table": "instead of random allocation: a .tsv with columns subject and feedback",
    },
    needs=("out",),
    positional=("out",),
    example="emojax seal allocation.json --subjects=01,02,03,04 --kinds=real,sham:pilot.jsonl",
)


def seal(argv: Sequence[str]) -> None:
    """Writes an allocation file, and prints its sha256."""
    text = parse(argv, SEAL).text
    if bool(text["subjects"]) == bool(text["table"]) or (text["table"] and text["kinds"]):
        raise InputError("flags", "no way to allocate, or two", "--subjects=..., or --table=FILE")
    from emojax.online import allocation

    if text["table"]:
        allocations = _read(pathlib.Path(text["table"]))
    else:
        kinds = split_list(text["kinds"]) or (allocation.REAL, allocation.SHAM)
        allocations = allocation.draw(split_list(text["subjects"]), kinds)
    print(f"sha256 {allocation.seal(text['out'], allocations)}")


def _read(path: pathlib.Path) -> dict[str, str]:
    from emojax.data.events import read_table

    rows = read_table(path, "\t", ("subject", "feedback"))
    found = {row["subject"]: row["feedback"] for row in rows}
    if len(found) < len(rows):
        raise InputError(path, "a subject in two rows", "one row for each subject")
    return found
