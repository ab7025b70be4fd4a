"""What runs inherit: the nearest wins; sidecars are JSON, strictly."""

import json
import pathlib

import pytest

from emojax.errors import InputError
from emojax.sources import inheritance
from emojax.sources.inheritance import Inherited, Sidecars

RUN = pathlib.Path("sub-01/func/sub-01_task-emo_run-01_bold.nii.gz")


def write(root, **files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_files_come_from_the_root_to_the_nearest(tmp_path):
    names = ["task-emo_events.tsv", "sub-01/sub-01_task-emo_events.tsv"]
    names.append(str(RUN).replace("bold.nii.gz", "events.tsv"))
    others = ["task-x_events.tsv", "sub-01/sub-02_task-emo_events.tsv", "run-02_events.tsv"]
    write(tmp_path, **dict.fromkeys((*names, *others), ""))
    events = Inherited(tmp_path, "*events.tsv", inheritance.ABOUT_THE_IMAGE)
    assert events.of(tmp_path / RUN, RUN.parent) == [tmp_path / name for name in names]


def test_sidecars_are_merged_and_the_nearest_wins(tmp_path):
    near = str(RUN).replace(".nii.gz", ".json")
    both = {"RepetitionTime": 3, "TaskName": "emo"}
    write(tmp_path, **{"task-emo_bold.json": json.dumps(both), near: '{"RepetitionTime": 2}'})
    write(tmp_path, **{"task-emo_space-T1w_bold.json": "no JSON, of another file"})
    assert Sidecars(tmp_path).of(tmp_path / RUN) == {"RepetitionTime": 2, "TaskName": "emo"}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no JSON"),
        (b'{"RepetitionTime": 2.5,}', "no JSON"),
        (b'{"a": NaN}', "NaN, which JSON does not know"),
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
        Sidecars(tmp_path).of(tmp_path / RUN)
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 400


def test_reads_unicode_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('{"Ort": "Zürich 中", "a": 1, "a": 1}'.encode("utf-8-sig"))
    assert inheritance.read_json(path) == {"Ort": "Zürich 中", "a": 1}
    with pytest.raises(InputError, match="found something that is no file"):
        inheritance.read_json(tmp_path)
