"""Realignment parameters of SPM, FSL and fMRIPrep, and refusals."""

import numpy as np
import pytest

from emojax.data import motion
from emojax.errors import InputError

VALUES = np.random.default_rng(0).normal(0, 0.1, (5, 6)).round(6)


def write_confounds(path, values=VALUES, columns=motion.COLUMNS):
    """Writes confounds as fMRIPrep does: no value in a first row, another column order."""
    header = ["framewise_displacement", *reversed(columns)]
    rows = [["n/a" if i == 0 else "0.1", *map(str, row[::-1])] for i, row in enumerate(values)]
    path.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")
    return path


def test_reads_spm(tmp_path):
    np.savetxt(tmp_path / "rp_a.txt", VALUES, fmt="%16.7e")
    got = motion.read(tmp_path / "rp_a.txt", 5)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, VALUES)


def test_reads_the_columns_of_fmriprep_by_name(tmp_path):
    got = motion.read(write_confounds(tmp_path / "confounds.tsv"), 5)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, VALUES)


def test_reads_real_parameters(shared):
    path = shared("data/pymvpa-haxby/bold_mc.par")
    np.testing.assert_array_equal(motion.read(path, 19), np.loadtxt(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3 4 5 6\n1 2 x 4 5 6\n", "found 'x' in line 2, column 3"),
        ("1 2 3 4 5 6\n1 2 3 4 5 nan\n", "found 'nan' in line 2, column 6; expected finite"),
        ("1 2 3 4 5 6\n\n1 2 3 4 5\n", "found 5 cells in line 3, 6 before"),
        ("1 2 3 4 5 6\n", "found 1 rows of 6 numbers; expected six for each of 2 volumes"),
        ("1 2 3\n1 2 3\n", "found 2 rows of 3 numbers"),
        ("", "found no numbers"),
    ],
)
def test_refuses_spm(tmp_path, text, message):
    (tmp_path / "rp_a.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        motion.read(tmp_path / "rp_a.txt", 2)


def test_refuses_what_is_no_text(tmp_path):
    (tmp_path / "rp_a.txt").write_bytes(b"\xff\xfe\x00\x01\n")
    with pytest.raises(InputError, match=r"rp_a.txt: found bytes that are not text"):
        motion.read(tmp_path / "rp_a.txt", 2)
    with pytest.raises(InputError, match=r"rp_b.txt: found no such file"):
        motion.read(tmp_path / "rp_b.txt", 2)


def test_refuses_fmriprep(tmp_path):
    path = write_confounds(tmp_path / "a.tsv", columns=("trans_x", "b", "c", "d", "e", "f"))
    with pytest.raises(InputError, match=r"expected a column 'trans_y'"):
        motion.read(path, 5)
    path.write_text(path.read_text().replace("\tb\t", "\ttrans_y\t"))
    bad = VALUES.astype(object)
    bad[2, 3] = "n/a"
    path = write_confounds(tmp_path / "b.tsv", bad)
    with pytest.raises(InputError, match="found 'n/a' in line 4, column 'rot_x'"):
        motion.read(path, 5)
    with pytest.raises(InputError, match="found 5 rows of 6 numbers; expected six for each of 4"):
        motion.read(write_confounds(tmp_path / "c.tsv"), 4)


def test_motion_that_nobody_asked_for_is_left_out_unless_it_is_whole(tmp_path):
    path = write_confounds(tmp_path / "a.tsv")
    np.testing.assert_array_equal(motion.read_if_needed(path, 5, False), VALUES)
    assert motion.read_if_needed(path, 4, False) is None
    assert motion.read_if_needed(None, 4, True) is None
    with pytest.raises(InputError, match="5 rows of 6 numbers"):
        motion.read_if_needed(path, 4, True)
    bad = VALUES.astype(object)
    bad[0, 3] = "n/a"
    assert motion.read_if_needed(write_confounds(path, bad), 5, False) is None
    path.write_text("global_signal\n" + "1.0\n" * 5)
    assert motion.read_if_needed(path, 5, False) is None
    path.unlink()
    path.symlink_to(".git/annex/objects/none.tsv")
    assert motion.read_if_needed(path, 5, False) is None


def test_a_sentence_about_parameters_that_are_not_whole(tmp_path):
    path = write_confounds(tmp_path / "a.tsv")
    assert motion.notes([None, None], [None, None]) == [] == motion.notes([path], [VALUES])
    (said,) = motion.notes([path, path, None], [VALUES, None, None])
    assert said.startswith("no six whole columns of realignment parameters for 2 of 3 runs")
