"""SPM folders that cannot be: tables, condition files, names."""

import numpy as np
from fuzz_cases import Case, both, cell, data_argv, mat, move, nothing, put, rows
from fuzz_files import SOURCES
from fuzz_inputs import conditions

HEAD = "subject,run,volume,label\n"
ONSETS = "subject,run,name,onset,duration\n"


def cases():
    """Yields the cases of SPM beyond damaged files."""
    yield from _tables()
    for labels in (
        "",
        "nowhere.csv",
        "../../etc/passwd",
        "/etc/passwd",
        "volumes.txt",
        "{run}.mat",
        "{0}.mat",
        ".",
        "a\0b.csv",
        "a\0b.mat",
        "x" * 5000 + ".csv",
        "x" * 5000 + ".mat",
    ):
        argv = data_argv("spm", f"--config.data.labels={labels}")
        yield Case("spm:labels", repr(labels)[:40], nothing, argv)
    yield Case("spm:labels", "superscript folder", move("s1", "\u00b2"), SOURCES["spm"][0])
    argv = data_argv("spm", "--config.data.labels=onsets.csv", "--config.data.onset_unit=ms")
    yield Case("spm:labels", "onset_unit", nothing, argv)
    yield from _conditions()


def _tables():
    def of_one(name):
        return data_argv("spm", f"--config.data.labels={name}", "--config.data.subjects=s1")

    texts = (
        ("volume text", "s1,run1,x,a\n"),
        ("volume negative", "s1,run1,-1,a\n"),
        ("volume 1.5", "s1,run1,1.5,a\n"),
        ("volume nan", "s1,run1,nan,a\n"),
        ("volume huge", "s1,run1,1e30,a\n"),
        ("volume of 5000 digits", "s1,run1," + "1" * 5000 + ",a\n"),
        ("volume twice", "s1,run1,1,a\ns1,run1,1,b\n"),
        ("volume behind the end", "s1,run1,40,a\ns1,run1,1,b\n"),
        ("one class", "s1,run1,1,a\ns1,run1,2,a\n"),
        ("no rows", ""),
        ("superscript volume", "s1,run1,\u00b2,a\ns1,run1,1,b\n"),
        ("volume 2**63", "s1,run1,9223372036854775808,a\ns1,run1,1,b\n"),
    )
    table = [(name, put("volumes.csv", HEAD + text)) for name, text in texts]
    table.append(("no label", put("volumes.csv", "subject,run,volume\ns1,run1,1\n")))
    yield from rows("spm:volumes", of_one("volumes.csv"), table)
    lines = "".join(f"s1,run1,{v},{'ab'[v % 2]}\ns2,run1,{v},{'ab'[v % 2]}\n" for v in range(9))
    for name, line in (
        ("a subject without images", "s3,run1,1,a\n"),
        ("a run without images", "s1,run2,1,a\n"),
    ):
        yield Case("spm:volumes", name, put("volumes.csv", HEAD + lines + line), SOURCES["spm"][0])
    good = "s1,run1,neutral,4,10\ns1,run1,negative,22,10\n"
    texts = (
        ("onset text", "s1,run1,neutral,x,10\n"),
        ("onset nan", "s1,run1,neutral,nan,10\n"),
        ("duration negative", "s1,run1,neutral,4,-1\n"),
        ("duration inf", "s1,run1,neutral,4,inf\n"),
        ("one class", ""),
    )
    table = [(name, put("onsets.csv", ONSETS + good * bool(text) + text)) for name, text in texts]
    yield from rows("spm:onsets", of_one("onsets.csv"), table)


def _conditions():
    for name, part in (
        ("names numbers", {"names": np.arange(2.0)}),
        ("fewer onsets", {"onsets": cell([4.0])}),
        ("onsets text", {"onsets": cell("a", "b")}),
        ("onsets nan", {"onsets": cell([np.nan], [40.0])}),
        ("onsets complex", {"onsets": cell([4.0 + 1j], [40.0])}),
        ("durations of another length", {"durations": cell([10.0, 1.0, 2.0], [10.0])}),
        ("durations negative", {"durations": cell([-10.0], [10.0])}),
        ("names empty", {"names": cell()}),
        ("names nested", {"names": cell(cell("a"), "b")}),
        ("no onsets", {"onsets": cell([], [])}),
        ("names empty text", {"names": cell("", "b")}),
        ("onsets nested", {"onsets": cell(cell([4.0]), [40.0])}),
        ("onsets a struct", {"onsets": cell({"a": 1.0}, [40.0])}),
        ("names twice the same", {"names": cell("a", "a")}),
    ):
        content = conditions(onsets=cell([4.0], [40.0])) | part
        steps = (mat(f"{s}/run1/cond.mat", **content) for s in ("s1", "s2"))
        yield Case("spm:mat", name, both(*steps), SOURCES["spm:mat"][0])
