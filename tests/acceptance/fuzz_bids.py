"""BIDS data sets that cannot be: events, sidecars, choices, label maps, derivatives."""

import numpy as np
from fuzz_cases import MAY, MUST, Case, data_argv, image, nothing, put, rows
from fuzz_files import SOURCES
from fuzz_inputs import LABEL_MAP, STEM, nifti

EVENTS = f"{STEM}_events.tsv"
HEAD = "onset\tduration\ttrial_type\n"
MOTION = "trans_x\ttrans_y\ttrans_z\trot_x\trot_y\trot_z\n"


def cases():
    """Yields the cases of BIDS beyond damaged files."""
    yield from _events()
    yield from _sidecars()
    yield from _choices()
    yield from _label_maps()
    yield from _derivatives()


def _events():
    # Only this run is read, so that its values are the study's.
    argv = data_argv("bids", LABEL_MAP, "--config.data.subjects=01", "--config.data.runs=01")
    texts = (
        ("header only", HEAD),
        ("no header", "4\t10\tneutral\n"),
        ("commas", "onset,duration,trial_type\n4,10,neutral\n"),
        ("onset text", HEAD + "x\t10\tneutral\n"),
        ("onset nan", HEAD + "nan\t10\tneutral\n"),
        ("onset n/a", HEAD + "n/a\t10\tneutral\n"),
        ("onset inf", HEAD + "inf\t10\tneutral\n"),
        ("onset -1e308", HEAD + "-1e308\t10\tneutral\n4\t8\tnegative\n", MAY),
        ("onset in ms", HEAD + "4000\t10000\tneutral\n"),
        ("duration negative", HEAD + "4\t-10\tneutral\n"),
        ("duration 1e308", HEAD + "4\t1e308\tneutral\n", MAY),
        ("duration inf", HEAD + "4\tinf\tneutral\n"),
        ("duration 0", HEAD + "4\t0\tneutral\n"),
        ("ragged", HEAD + "4\t10\n"),
        ("too many cells", HEAD + "4\t10\tneutral\tx\n"),
        ("two columns of one name", "onset\t" + HEAD + "4\t9\t10\tneutral\n"),
        ("quote left open", HEAD + '4\t10\t"neutral\n'),
        ("nul bytes", HEAD + "4\t10\tneu\0tral\n"),
        ("utf-16", (HEAD + "4\t10\tneutral\n").encode("utf-16")),
        ("cell of 1 MB", HEAD + "4\t10\t" + "x" * (1 << 20) + "\n"),
        ("overlapping classes", HEAD + "4\t20\tneutral\n4\t20\tnegative\n"),
        ("markup in a value", HEAD + "4\t10\t[/red]\n"),
        ("newline in a value", HEAD + '4\t10\t"a\r\nb"\n'),
        ("escape codes in a value", HEAD + "4\t10\t\x1b[2J\x1b[31m\n"),
        ("line separators in a value", HEAD + "4\t10\ta\u2028b\n"),
    )
    table = [(name, put(EVENTS, text), *rule) for name, text, *rule in texts]
    yield from rows("bids:events", argv, table)
    step = put(EVENTS, HEAD + "4\t10\t[/red]\n30\t10\tb\n")
    yield Case("bids:events", "markup as a class", step, data_argv("bids"), MAY)


def _sidecars():
    texts = (
        ("list", "[1, 2]"),
        ("text", '"x"'),
        ("null", "null"),
        ("nan", "NaN"),
        ("tr text", '{"RepetitionTime": "2"}'),
        ("tr nan", '{"RepetitionTime": NaN}'),
        ("tr negative", '{"RepetitionTime": -2}'),
        ("tr 0", '{"RepetitionTime": 0}'),
        ("tr list", '{"RepetitionTime": [2]}'),
        ("tr true", '{"RepetitionTime": true}'),
        ("tr huge", '{"RepetitionTime": 1e400}'),
        ("tr other", '{"RepetitionTime": 2.5}'),
        ("tr huge int", '{"RepetitionTime": 1' + "0" * 400 + "}"),
        ("deep", "[" * 100000),
        ("not utf-8", b'{"RepetitionTime": 2, "a": "\xff"}'),
        ("trailing comma", '{"RepetitionTime": 2,}'),
        ("int of 5000 digits", '{"RepetitionTime": 2, "a": ' + "1" * 5000 + "}", MAY),
        ("another value that is nan", '{"RepetitionTime": 2, "a": NaN}'),
        ("a key twice", '{"RepetitionTime": 2, "RepetitionTime": 2.5}'),
        ("deep object", '{"a":' * 100000),
        ("utf-16", '{"RepetitionTime": 2.0}'.encode("utf-16")),
        ("half", '{"RepetitionTime": 2.0'),
    )
    table = [(name, put("task-emo_bold.json", text), *rule) for name, text, *rule in texts]
    yield from rows("bids:json", SOURCES["bids"][0], table)
    step = put(f"{STEM}_bold.json", "not JSON")
    yield Case("bids:json", "beside one run", step, SOURCES["bids"][0])


def _choices():
    ones = np.ones((16, 16, 12, 40), "i2")
    for name, step, rule, *flags in (
        ("only .nii beside .nii.gz", image(f"{STEM}_bold.nii", lambda: nifti(ones)), MUST),
        ("task twice", put("sub-01/func/sub-01_task-b_run-01_bold.nii.gz", b""), MUST),
        ("superscript as subject", nothing, MUST, "subjects=\u00b2"),
        ("arabic digits as run", nothing, MAY, "runs=\u0661"),
        ("5000 digits as run", nothing, MUST, "runs=" + "1" * 5000),
        ("subject with markup", nothing, MUST, "subjects=[/b]"),
        ("unknown subject", nothing, MUST, "subjects=99"),
        ("unknown session", nothing, MUST, "sessions=1"),
        ("unknown task", nothing, MUST, "task=x"),
        ("unknown space", nothing, MUST, "space=x"),
        ("unknown column", nothing, MUST, "label_column=x"),
        ("events elsewhere", nothing, MUST, "events_root=/nowhere"),
        ("root is a file", nothing, MUST, "root=/etc/hostname"),
        ("root is nowhere", nothing, MUST, "root=/nowhere"),
        ("root is empty text", nothing, MUST, "root="),
        ("root with nul", nothing, MUST, "root=a\0b"),
        ("root of 5000 letters", nothing, MUST, "root=/" + "x" * 5000),
        ("events of 5000 letters", nothing, MUST, "events_root=/" + "x" * 5000),
        ("events with nul", nothing, MUST, "events_root=a\0b"),
        ("store is a file", nothing, MUST, "store=/etc/hostname"),
        ("store in /proc", nothing, MUST, "store=/proc/x"),
        ("store with nul", nothing, MUST, "store=a\0b"),
        ("store of 5000 letters", nothing, MUST, "store=/" + "x" * 5000),
        ("a folder with a scan's name", _folder, MUST),
    ):
        argv = data_argv("bids", LABEL_MAP, *(f"--config.data.{flag}" for flag in flags))
        yield Case("bids:choice", name, step, argv, rule)


def _folder(folder):
    (folder / "sub-01/func/sub-01_task-emo_run-03_bold.nii.gz").mkdir()


def _label_maps():
    perhaps = ("a=b=c", "a|b=neutral", "a=neutral;[/x]=negative", "\x00=neutral;b=negative")
    for text in (
        "a",
        "=",
        "a=neutral;a=negative",
        "a=neutral;b=neutral",
        "a=;b=",
        "a=neutral",
        ";;;",
        "=neutral;b=negative",
        "a=nowhere;b=neutral",
        *perhaps,
    ):
        argv = data_argv("bids", f"--config.data.label_map={text}")
        yield Case("bids:label_map", repr(text), nothing, argv, MAY if text in perhaps else MUST)


def _derivatives():
    argv = SOURCES["bids"][0]
    moved = data_argv("bids", LABEL_MAP, "--config.data.motion=True")  # unread without
    zeros = "\t".join("0" * 6) + "\n"
    for name, text in (
        ("short", MOTION + zeros),
        ("empty", ""),
        ("no columns", "a\n1\n"),
        ("text", MOTION + ("x" + zeros[1:]) * 40),
        ("nan", MOTION + ("nan" + zeros[1:]) * 40),
    ):
        step = put(f"{STEM}_desc-confounds_timeseries.tsv", text)
        yield Case("bids:derivatives", f"confounds {name}", step, moved)
    mask = f"{STEM}_desc-brain_mask.nii.gz"
    for name, x in (
        ("of another grid", np.ones((8, 8, 6), "u1")),
        ("empty", np.zeros((16, 16, 12), "u1")),
        ("4-D", np.ones((16, 16, 12, 2), "u1")),
        ("of NaN", np.full((16, 16, 12), np.nan, "f4")),
        ("complex", np.ones((16, 16, 12), "c8")),
    ):
        step = image(mask, lambda x=x: nifti(x))
        yield Case("bids:derivatives", f"mask {name}", step, argv, MAY if name == "empty" else MUST)
    yield Case("bids:derivatives", "mask of text", put(mask, b"x"), argv)
