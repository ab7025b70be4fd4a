"""Inherited files: the nearest wins; sidecars are JSON, strictly."""

import json
import pathlib

import pytest

from emojax.errors import InputError
from emojax.sources import inheritance
from emojax.sources.bids_names import parse
from emojax.sources.inheritance import Inherited, Sidecars

RUN = pathlib.Path("sub-01/func/sub-01_task-emo_run-01_bold.nii.gz")


def write(root, **files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def events(root, run=RUN):
    """Returns the event tables of a run relative to the root, from the root to the nearest."""
    levels = Inherited(root, "events", ".tsv", of_acquisition=True).of(
        parse(root / run), run.parent
    )
    return [[str(path.relative_to(root)) for path in level] for level in levels]


def test_files_come_from_the_root_to_the_nearest(tmp_path):
    names = ["task-emo_events.tsv", "sub-01/sub-01_task-emo_events.tsv"]
    names.append(str(RUN).replace("bold.nii.gz", "events.tsv"))
    others = ["task-x_events.tsv", "sub-01/sub-02_task-emo_events.tsv", "run-02_events.tsv"]
    hidden = ["._task-emo_events.tsv", "task-emo_xevents.tsv"]
    write(tmp_path, **dict.fromkeys((*names, *others, *hidden), ""))
    assert events(tmp_path) == [[name] for name in names]


def test_numbers_are_compared_as_numbers(tmp_path):
    write(tmp_path, **{str(RUN).replace("run-01_bold.nii.gz", "run-1_events.tsv"): "a"})
    for run in ("run-01", "run-1", "run-001"):
        assert events(tmp_path, pathlib.Path(str(RUN).replace("run-01", run)))
    assert not events(tmp_path, pathlib.Path(str(RUN).replace("run-01", "run-10")))
    assert not events(tmp_path, pathlib.Path(str(RUN).replace("sub-01_", "sub-1_")))


def test_events_belong_to_all_versions_of_an_acquisition(tmp_path):
    stem = str(RUN).removesuffix("_bold.nii.gz")
    write(tmp_path, **{f"{stem}_{v}_events.tsv": "same" for v in ("echo-1", "echo-3", "part-mag")})
    scan = pathlib.Path(f"{stem}_echo-2_space-T1w_desc-preproc_bold.nii.gz")
    assert len(events(tmp_path, scan)[0]) == 3
    write(tmp_path, **{f"{stem}_echo-3_events.tsv": "other"})
    with pytest.raises(InputError, match=r"other content than .*, which is of the same run"):
        events(tmp_path, scan)
    write(tmp_path, **{f"{stem}_echo-2_events.tsv": "its own"})
    (tmp_path / f"{stem}_echo-3_events.tsv").unlink()
    assert events(tmp_path, scan)[0][-1] == f"{stem}_echo-2_events.tsv"


def test_two_files_of_one_run_are_refused(tmp_path):
    stem = str(RUN).removesuffix("_run-01_bold.nii.gz")
    write(tmp_path, **{f"{stem}_run-1_events.tsv": "a", f"{stem}_run-01_events.tsv": "a"})
    assert events(tmp_path)
    write(tmp_path, **{f"{stem}_run-1_events.tsv": "b"})
    with pytest.raises(InputError, match=r"run-1_events.tsv: found other content than .*run-01_ev"):
        events(tmp_path)


def test_sidecars_are_merged_and_the_nearest_wins(tmp_path):
    near = str(RUN).replace("run-01_bold.nii.gz", "run-1_bold.json")
    both = {"RepetitionTime": 3, "TaskName": "emo"}
    write(tmp_path, **{"task-emo_bold.json": json.dumps(both), "bold.json": '{"EchoTime": 1}'})
    write(tmp_path, **{near: '{"RepetitionTime": 2, "TaskName": null}'})
    write(tmp_path, **{"task-emo_space-T1w_bold.json": "no JSON, of another file"})
    facts = Sidecars(tmp_path).of(parse(tmp_path / RUN))
    assert facts.values == {"RepetitionTime": 2, "TaskName": "emo", "EchoTime": 1}
    assert facts.origin["RepetitionTime"] == tmp_path / near
    assert str(facts.refuse("TaskName", "a", "b")).startswith(f"{tmp_path}/task-emo_bold.json: ")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no JSON"),
        (b'{"RepetitionTime": 2.5,}', "no JSON"),
        (b'{"a": NaN}', "NaN, which JSON does not allow"),
        (b'{"a": -Infinity}', "-Infinity, which JSON"),
        (b'{"a": 1, "a": 2}', "two values of 'a'"),
        (b"[1]", r"JSON of another kind \(list\)"),
        (b"null", r"JSON of another kind \(NoneType\)"),
        (b"\xff\xfe{\x00}\x00", "no JSON .*utf-8"),
        (b'{"a": "\xff"}', "no JSON .*utf-8"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "no JSON"),
    ],
)
def test_refuses_what_is_no_json(tmp_path, content, match):
    path = tmp_path / "task-emo_bold.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=match) as error:
        Sidecars(tmp_path).of(parse(tmp_path / RUN))
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 400


def test_reads_unicode_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('{"Ort": "Zürich 中", "a": 1, "a": 1}'.encode("utf-8-sig"))
    assert inheritance.read_json(path) == {"Ort": "Zürich 中", "a": 1}
    with pytest.raises(InputError, match="found something that is not a file"):
        inheritance.read_json(tmp_path)


def pauses(root, scan):
    return Sidecars(root / "out", root / "raw").of(parse(root / "out" / scan))


def test_pauses_of_a_derivative_are_those_of_its_raw_data(tmp_path):
    stem = str(RUN).removesuffix("_bold.nii.gz")
    write(tmp_path, **{"out/bold.json": '{"RepetitionTime": 3, "DelayTime": null}'})
    raw = {f"raw/{stem}_echo-{echo}_bold.json": {"EchoTime": echo} for echo in (1, 2, 3)}
    for i, told in enumerate(raw.values()):
        told |= {"DelayTime": 1.2 + i * 1e-4, "RepetitionTime": 9, "VolumeTiming": None}
    raw |= {"raw/task-emo_bold.json": {"DelayTime": 5}}  # farther away
    raw |= {f"raw/{stem.replace('run-01', 'run-02')}_bold.json": {"AcquisitionDuration": 1}}
    write(tmp_path, **{name: json.dumps(said) for name, said in raw.items()})
    combined = pathlib.Path(f"{stem.replace('run-01', 'run-1')}_space-T1w_desc-preproc_bold.nii.gz")
    facts = pauses(tmp_path, combined)
    assert facts.values == {"RepetitionTime": 3, "DelayTime": pytest.approx(1.2, abs=1e-3)}
    assert facts.files == [tmp_path / "out/bold.json", facts.origin["DelayTime"]]
    raw[f"raw/{stem}_echo-3_bold.json"]["DelayTime"] = 1.5
    write(tmp_path, **{name: json.dumps(said) for name, said in raw.items()})
    with pytest.raises(
        InputError, match=r"echo-3_bold.json: found another DelayTime than .*echo-2"
    ):
        pauses(tmp_path, combined)
    own = pathlib.Path(f"{stem}_echo-3_desc-preproc_bold.nii.gz")  # its own echo says it
    assert pauses(tmp_path, own).values["DelayTime"] == 1.5
    write(tmp_path, **{"out/bold.json": '{"RepetitionTime": 3, "DelayTime": 1}'})
    assert pauses(tmp_path, combined).values == {"RepetitionTime": 3, "DelayTime": 1}


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ([0, 2, 5], [0, 2.0004, 5], False),
        ([0, 2, 5], [0, 2.1, 5], True),
        ([0, 2, 5], [0, 2], True),
        ("a", "a", False),
        ("a", 2, True),
        ({}, {}, False),
        ([[1], 2], [[1], 2], False),
        (10**400, 1, True),
    ],
)
def test_facts_differ_by_more_than_rounding(one, other, differ):
    assert inheritance._differ(one, other) is differ
