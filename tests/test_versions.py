"""One version of each acquisition is read; ambiguity is refused, with the flag to type."""

import pathlib

import pytest

from emojax.errors import InputError
from emojax.sources import versions
from emojax.sources.bids_names import files, parse

ROOT = pathlib.Path("study")


def scans(*names):
    """Writes files of a study, named by the part between the task and the suffix."""
    out = []
    for name in names:
        sub, _, rest = name.partition(" ")
        middle = f"_{rest}" if rest else ""
        file = f"sub-{sub}_task-emo{middle}_bold.nii.gz"
        out.append(parse(ROOT / f"sub-{sub}" / "func" / file))
    return out


def choose(names, text="", **filters):
    """Names of the files that are chosen, and the notes."""
    keys = {"subjects": "sub", "sessions": "ses", "runs": "run", "task": "task", "space": "space"}
    wanted = [
        versions.Filter(f"data.{key}", keys[key], (value,) if isinstance(value, str) else value)
        for key, value in filters.items()
    ]
    found = versions.choose(ROOT, scans(*names), [*wanted, *versions.parse(text)])
    return [file.path.name.split("_task-emo")[1][1:-12] for file in found.files], found.notes


ECHOES = [f"{sub} run-1_echo-{echo}" for sub in ("01", "02") for echo in (1, 2, 3)]
SPACES = [
    f"01 run-1_space-{space}_desc-preproc" for space in ("T1w", "MNI_res-1", "MNI_res-2", "MNI")
]


@pytest.mark.parametrize(
    ("names", "text", "left"),
    [
        (["01 run-1", "01 run-2"], "", ["run-1", "run-2"]),
        (["01 acq-a", "01 acq-b", "01 dir-a"], "", ["acq-a", "acq-b", "dir-a"]),
        (ECHOES, "echo=2", ["run-1_echo-2"] * 2),
        (ECHOES, "echo=02", ["run-1_echo-2"] * 2),
        (ECHOES, " echo = echo-2 ", ["run-1_echo-2"] * 2),
        (["01 run-1", *ECHOES[:3]], "echo=none", ["run-1"]),
        (["01 rec-norm", "01 rec-raw"], "rec=norm", ["rec-norm"]),
        (["01 rec-norm", "02 rec-raw"], "rec=norm|raw", ["rec-norm", "rec-raw"]),
        (SPACES, "space=T1w", ["run-1_space-T1w_desc-preproc"]),
        (SPACES, "space=MNI,res=2", ["run-1_space-MNI_res-2_desc-preproc"]),
        (SPACES, "res=none,space=MNI", ["run-1_space-MNI_desc-preproc"]),
        (["01 run-1", "01 run-1_space-a"], "space=none", ["run-1"]),
        (["01 run-1"], "space=none,echo=none", ["run-1"]),
        (["01 part-mag", "01 part-phase"], "", ["part-mag"]),
        (["01 part-mag", "01 part-real", "01 part-imag", "02 "], "", ["part-mag", ""]),
        (["01 run-1", "01 run-1_part-phase"], "", ["run-1"]),
        (["01 desc-preproc", "01 desc-smooth", "01 "], "", ["desc-preproc"]),
        (["01 desc-preproc", "01 desc-smooth", "01 "], "desc=smooth", ["desc-smooth"]),
        (["01 desc-preproc", "01 desc-smooth", "01 "], "desc=none", [""]),
        (["01 run-01", "02 run-1"], "run=1", ["run-01", "run-1"]),
        (["01 foo-1", "01 foo-2"], "foo=2", ["foo-2"]),
        (["01 ce-a", "01 ce-b"], "ce=b", ["ce-b"]),
    ],
)
def test_one_version_of_each_acquisition(names, text, left):
    got, notes = choose(names, text)
    assert got == left
    assert not notes


@pytest.mark.parametrize(
    ("names", "text", "said"),
    [
        (
            ECHOES,
            "",
            "found 3 versions of sub-01 task-emo run-1: echo 1, 2, 3; expected one of them, such "
            "as --config.data.entities=echo=2",
        ),
        (
            ["01 rec-norm", "01 rec-raw"],
            "",
            "2 versions of sub-01 task-emo: rec norm, raw; expected one of them, such as "
            "--config.data.entities=rec=raw",
        ),
        (
            SPACES,
            "",
            "space MNI, T1w; res 1, 2, none; .* --config.data.entities=space=MNI,res=2",
        ),
        (
            SPACES,
            "space=MNI",
            "3 versions .*: res 1, 2, none; .* --config.data.entities=space=MNI,res=2",
        ),
        (["01 ", "01 part-mag"], "", "part mag, none; expected .*entities=part=mag"),
        (["01 run-1", "01 run-01"], "", r"run-0?1_bold.nii.gz: found the same scan as .*remove"),
        (["01 ses-a_run-1", "01 ses-a_run-001"], "run=1", "the same scan as"),
        (
            ["01 rec-norm", "02 rec-raw"],
            "",
            r"scans of different rec: norm, raw \(sub-01_.*sub-02_.*\); expected one, such as "
            r"--config.data.entities=rec=norm, or all by name: "
            r"'--config.data.entities=rec=norm.raw'",
        ),
        (["01 space-a", "02 space-b"], "", "different space: a, b"),
        (["01 space-a", "02 space-b_res-2"], "space=a|b", "res: 2, none .*=space=a.b,res=none, or"),
        (["01 echo-2", "02 "], "", "different echo: 2, none"),
        (["01 desc-preproc", "02 "], "", "different desc: preproc, none"),
        (["01 part-mag", "02 part-phase"], "", "only part-phase of sub-02 task-emo, .* not BOLD"),
        (["01 part-phase"], "", "sub-01_.*: found only part-phase .* magnitude"),
        (
            ["01 part-mag", "01 part-phase"],
            "part=phase",
            "no scan of part phase; expected part mag",
        ),
    ],
)
def test_what_is_ambiguous_is_refused_with_what_to_type(names, text, said):
    with pytest.raises(InputError, match=said) as error:
        choose(names, text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo", "data.entities: found 'echo'; expected .*--config.data.entities=echo=2,space=no"),
        ("echo=", "found 'echo='"),
        ("=2", "found '=2'"),
        ("echo=1,echo=2", "found 'echo=2'; expected each entity once"),
        ("ecoh=2", "data.entities: found an entity 'ecoh'; .* sub 01, 02; task emo; run 1; echo 1"),
        ("ecoh=none", "an entity 'ecoh'"),
        ("echo=4", r"no echo-4; expected one of 1, 2, 3 \(data.entities\)"),
        ("echo=1|4", "no echo-4"),
        ("rec=norm", "no rec-norm; expected one of none"),
        ("space=none,echo=9", "no echo-9"),
        ("sub=03", "no sub-03; expected one of 01, 02"),
        ("echo=\u00b2", "no echo-"),
    ],
)
def test_filters_that_name_what_does_not_exist(text, said):
    with pytest.raises(InputError, match=said):
        choose(ECHOES, text)


def test_labels_are_text_but_filters_are_lenient():
    names = ["01 ses-pre_run-01", "02 ses-pre_run-1", "ALFA ses-pre_run-1"]
    for subjects in ("01", "sub-01", "1", "sub-1", "001"):
        assert choose(names, subjects=subjects)[0] == ["ses-pre_run-01"]
    assert choose(names, sessions="ses-pre", runs=("run-1",), task="task-emo")[0] == [
        "ses-pre_run-01",
        "ses-pre_run-1",
        "ses-pre_run-1",
    ]
    both = ["1 run-1", "01 run-2", "007 run-3", "07 run-4"]
    assert choose(both, subjects="1")[0] == ["run-1"]
    assert choose(both, subjects="01")[0] == ["run-2"]
    with pytest.raises(InputError, match=r"sub-7, which may be several; .* 007, 07"):
        choose(both, subjects="7")
    with pytest.raises(InputError, match=r"no sub-alfa; expected one of .*ALFA"):
        choose(names, subjects="alfa")


def test_a_label_is_one_in_any_composition_of_its_letters():
    assert choose(["Zu\u0308rich run-1"], subjects="Z\u00fcrich")[0] == ["run-1"]


def test_filters_add_up():
    names = ["01 run-1_rec-a", "01 run-1_rec-b", "02 run-2_rec-a"]
    with pytest.raises(InputError, match=r"no scan of rec b among those of sub 02; .* rec a"):
        choose(names, "rec=b,sub=02")
    with pytest.raises(InputError, match=r"no scan of run 2 among .* expected run 1 \(data.runs"):
        choose(names, subjects="01", runs="2")


def test_what_a_filter_leaves_out_is_said():
    names = ["01 run-1_rec-a", "02 run-1_rec-b", "03 run-1_rec-a"]
    left, notes = choose(names, "rec=a")
    assert len(left) == 2
    assert notes == ["left out, since they have no scan with rec=a: sub-02 task-emo run-1"]
    assert choose(names, "rec=a,sub=01|03")[1] == []
    names = ["01 part-mag", "02 part-phase", "03 "]
    with pytest.raises(InputError, match=r"leave it out by '--config.data.entities=part=mag.none'"):
        choose(names)
    left, notes = choose(names, "part=mag|none")
    assert left == ["part-mag", ""]
    assert notes == ["left out, since they have no scan with part=mag|none: sub-02 task-emo"]


def test_several_tasks_are_refused():
    two = [*scans("01 run-1"), parse(ROOT / "sub-01/func/sub-01_task-rest_bold.nii.gz")]
    with pytest.raises(InputError, match=r"tasks emo, rest; .*data.task \(--config.data.task=emo"):
        versions.choose(ROOT, two, [])
    assert len(versions.choose(ROOT, two, versions.parse("task=rest")).files) == 1


def test_files_of_a_data_set_are_found_whatever_its_folder_is_called(tmp_path):
    root = tmp_path / "my.study [2] *"
    names = [
        "sub-01/func/sub-01_task-a_bold.nii.gz",
        "sub-Jörg/ses-1/func/sub-Jörg_ses-1_task-a_run-1_bold.nii",
    ]
    others = [
        "derivatives/x/sub-01/func/sub-01_task-a_bold.nii.gz",
        "sub-01/func/._sub-01_bold.nii",
    ]
    for name in (*names, *others, "sub-01/.hidden/sub-01_task-a_bold.nii.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert [file.path for file in files(root)] == [root / name for name in names]
