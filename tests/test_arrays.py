"""Features in .npz files: a real study, selected rows and classes, refusals."""

import zipfile

import numpy as np
import pytest

from configs import common
from emojax import sources
from emojax.errors import InputError
from emojax.sources import arrays

ROWS = 12


def content(**changes):
    rng = np.random.default_rng(0)
    out = {
        "x": rng.normal(size=(ROWS, 5)).astype(np.float32),
        "y": np.arange(ROWS) % 3,
        "run": np.arange(ROWS) % 2 + 1,  # rows of both runs take turns
    }
    return {key: value for key, value in (out | changes).items() if value is not None}


def write(folder, subject="s1", **changes):
    np.savez(folder / f"{subject}.npz", **content(**changes))
    return folder


def test_loads_a_real_study(shared, tmp_path):
    root = shared("data/finger7t")
    config = common.get_config()
    config.data.update({"source": "arrays", "root": str(root), "store": str(tmp_path)})
    cohort = sources.load(config)
    assert cohort.subjects == tuple(f"sub-0{i}" for i in range(1, 8))
    assert cohort.classes == ("0", "1", "2", "3", "4")
    assert cohort.tr is None
    runs = 0
    for subject in cohort.subjects:
        with np.load(root / f"{subject}.npz") as file:
            x, y, run = file["x"], file["y"], file["run"]
        rows = np.flatnonzero(cohort.subject == subject)
        order = np.argsort(run.astype(str), kind="stable")
        np.testing.assert_array_equal(cohort.select(rows).labels, y[order])
        np.testing.assert_array_equal(cohort.run[rows], run[order].astype(str))
        own = [r for r in cohort.runs if r.subject == subject]
        np.testing.assert_array_equal(np.concatenate([r.read(slice(None)) for r in own]), x[order])
        runs += len(own)
    assert (len(cohort.labels), runs) == (265, 53)
    assert [sum(row[c] for row in cohort.counts()) for c in cohort.classes] == [53] * 5
    assert cohort.hashes.keys() == {str(root / f"sub-0{i}.npz") for i in range(1, 8)}
    with pytest.raises(InputError, match="one shape for all subjects"):
        _ = cohort.shape


def test_keeps_rows_in_order_within_runs(tmp_path):
    cohort = arrays.read(write(tmp_path))
    given = content()
    for run in (1, 2):
        rows = np.flatnonzero(cohort.run == str(run))
        np.testing.assert_array_equal(cohort.volumes[rows], given["x"][given["run"] == run])
        np.testing.assert_array_equal(cohort.labels[rows], given["y"][given["run"] == run])
        np.testing.assert_array_equal(cohort.frame[rows], np.arange(ROWS // 2))


def test_names_of_classes(tmp_path):
    words = np.array(["rest", "bad", "calm"])
    numbered = arrays.read(write(tmp_path, classes=words))
    assert numbered.classes == ("rest", "bad", "calm")
    spelled = arrays.read(write(tmp_path, y=words[content()["y"]]))
    assert spelled.classes == ("bad", "calm", "rest")
    np.testing.assert_array_equal(
        np.array(numbered.classes)[numbered.labels], np.array(spelled.classes)[spelled.labels]
    )
    chosen = arrays.read(tmp_path, label_map="feel=bad|calm;rest=rest")
    assert chosen.classes == ("feel", "rest")
    assert np.bincount(chosen.labels).tolist() == [8, 4]
    two = arrays.read(tmp_path, label_map="bad=bad;calm=calm")
    assert len(two.labels) == 8


def test_names_get_one_spelling_and_rows_of_no_class_are_left_out(tmp_path):
    words = np.array(["bad ", "Caf\u00e9", " bad", "n/a", "Cafe\u0301", ""])
    runs = np.repeat(["1 ", "1", "2"], 4)
    cohort = arrays.read(write(tmp_path, y=words[np.arange(ROWS) % 6], run=runs))
    assert cohort.classes == ("Caf\u00e9", "bad")
    assert cohort.labels.tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert [run.name for run in cohort.runs] == ["1", "2"]
    assert cohort.notes == ("values of no class: n/a (4)",)
    numbered = arrays.read(write(tmp_path, y=np.arange(ROWS) % 6, classes=words, run=runs))
    assert numbered.classes == ("bad", "Caf\u00e9")
    assert (1 - numbered.labels).tolist() == cohort.labels.tolist()


def test_values_of_no_class_are_counted(tmp_path):
    words = np.array(["calm", "Calm", "[b]cue", "bad"])
    cohort = arrays.read(write(tmp_path, y=words[np.arange(ROWS) % 4]), label_map="a=calm;b=bad")
    assert cohort.notes[0] == "values of no class: Calm (3), [b]cue (3)"
    assert cohort.notes[1].startswith("warning: 'calm' (3) and 'Calm' (3) differ only by case")
    assert len(cohort.notes) == 2


def test_a_class_may_be_absent_in_one_subject(tmp_path):
    write(tmp_path, x=-content()["x"], y=np.arange(ROWS) % 2)
    write(tmp_path, "s2")
    assert arrays.read(tmp_path).classes == ("0", "1", "2")


def test_filters(tmp_path):
    write(tmp_path)
    write(tmp_path, "s2", x=-content()["x"], run=np.repeat(["a", "b"], 6))
    assert arrays.read(tmp_path, subjects=("s2",)).subjects == ("s2",)
    assert {r.name for r in arrays.read(tmp_path, runs=("a", "1")).runs} == {"a", "1"}
    assert {r.name for r in arrays.read(tmp_path, runs=("run-01",)).runs} == {"1"}
    with pytest.raises(InputError, match="found no subject 's3'; expected one of s1, s2"):
        arrays.read(tmp_path, subjects=("s3",))
    with pytest.raises(InputError, match="found no run 'c'; expected one of 1, 2, a, b"):
        arrays.read(tmp_path, runs=("c",))


NAN = content()["x"].copy()
NAN[3, 2] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "found keys x, run; expected x, y and run"),
        ({"y": np.arange(ROWS - 1)}, r"found x of shape \(12, 5\), y \(11,\), run \(12,\)"),
        ({"x": np.zeros((ROWS, 0))}, r"found x of shape \(12, 0\)"),
        ({"x": np.zeros((ROWS, 2, 2, 2))}, r"expected x \[rows, voxels\]"),
        ({"x": NAN}, r"found 1 values of x like nan .first: at \[3, 2\]"),
        ({"x": np.zeros((ROWS, 5), complex)}, "found x of type complex128; expected real"),
        ({"run": np.arange(ROWS) / 2}, "found run of type float64; expected int or str"),
        ({"y": np.arange(ROWS) % 3 * 2}, "found y has 4; expected 0 to 2, the classes 0, 1, 2"),
        ({"y": np.arange(ROWS) % 3 - 1}, "found y has -1"),
        ({"y": np.zeros(ROWS, int)}, r"found classes \['0'\]; expected two or more"),
        ({"classes": np.array(["a", "b"])}, "found y has 2; expected 0 to 1, the classes a, b"),
        ({"classes": np.array(["a", "b", "a"])}, "expected names, each once"),
        ({"classes": np.arange(3)}, "found classes of type int64; expected str"),
        ({"y": np.array(list("abcabcabcabc")), "classes": np.array(["a", "b"])}, "y has 'c'"),
        ({"x": np.array([None] * ROWS)}, "x.npy of Python objects"),
        (
            {"x": content()["x"].astype(float) * 1e39},
            r"found \d+ values of x like .*; expected .* below 3.4e38",
        ),
        ({"classes": np.array([["a", "b", "c"]])}, r"classes of shape \(1, 3\)"),
        ({"classes": np.array(["a", "", "n/a"])}, r"classes \['a', '', ''\]; expected two or more"),
        ({"run": np.repeat(["a", " "], 6)}, "found a row without a run; expected a name or a num"),
        ({"run": np.repeat(["a\nb", "c"], 6)}, r"found the name 'a\\nb'"),
    ],
)
def test_refuses(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as error:
        arrays.read(write(tmp_path, **changes))
    assert "\n" not in str(error.value)
    assert str(tmp_path / "s1.npz") in str(error.value)


def test_refuses_files_that_disagree(tmp_path):
    write(tmp_path, classes=np.array(["a", "b", "c"]))
    write(tmp_path, "s2", classes=np.array(["a", "c", "b"]))
    with pytest.raises(InputError, match=r"s2.npz: found classes \['a', 'c', 'b'\]; expected .*s1"):
        arrays.read(tmp_path)
    write(tmp_path)
    write(tmp_path, "s2", y=np.array(list("abcabcabcabc")))
    with pytest.raises(InputError, match=r"s2.npz: found y of type <U1; expected int64 as in"):
        arrays.read(tmp_path)


def test_refuses_what_is_no_archive(tmp_path):
    with pytest.raises(InputError, match=r"found no .npz file"):
        arrays.read(tmp_path)
    path = write(tmp_path) / "s1.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="found no readable arrays"):
        arrays.read(tmp_path)
    path.write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="found no readable arrays"):
        arrays.read(tmp_path)


def test_refuses_a_map_that_fits_nothing(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=r"value '7' .* values of y: 0 \(4\), 1 \(4\), 2 \(4\)"):
        arrays.read(tmp_path, label_map="a=7;b=1")
    with pytest.raises(InputError, match="class 'a' without values; expected values of y"):
        arrays.read(tmp_path, label_map="a=;b=1")


def test_other_members_are_not_looked_at(tmp_path):
    path = write(tmp_path) / "s1.npz"
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("z.npy", b"no array")
        file.writestr("notes.txt", "hello")
    assert len(arrays.read(tmp_path).labels) == ROWS


def test_names_are_kept_as_they_are(tmp_path):
    words = np.array(["[/red]", "=1+1", "☃"])
    write(tmp_path, "[b]x[", classes=words, run=np.repeat(["[/b]", ":x:"], 6))
    cohort = arrays.read(tmp_path)
    assert cohort.classes == tuple(words) and cohort.subjects == ("[b]x[",)
    assert {run.name for run in cohort.runs} == {"[/b]", ":x:"}


def test_integers_stay_small(tmp_path):
    write(tmp_path, x=np.arange(ROWS * 5, dtype=np.int8).reshape(ROWS, 5))
    assert arrays.read(tmp_path).runs[0].frames.dtype == np.int8


def test_refuses_what_is_no_folder(tmp_path):
    for root in ("", "/nowhere", "a\0b", "/" + "x" * 5000):
        with pytest.raises(InputError, match="found no such folder"):
            arrays.read(root)
