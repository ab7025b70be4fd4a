"""`emojax simulate`: its flags, its end by Ctrl-C, refusals."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from simulated import AFFINE, COUNT, SHAPE, VALUES, WHOLE, sizes, write, write_run

from emojax.cli.simulate import SIMULATE
from emojax.errors import InputError
from emojax.online.simulate import faults, simulate, writers


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run.nii.gz")


def emojax(*words, **settings):
    call = [sys.executable, "-m", "emojax", "simulate", *map(str, words)]
    return subprocess.Popen(call, stdout=-1, stderr=-1, text=True, **settings)


def test_the_command(run, tmp_path):
    words = ["--speed", "100", "--as", "slices", "--faults", "late@6,lost@7, half", "--seed=2"]
    words += ["--first=5", "--pattern", "i{n}-{k}", "--log", tmp_path / "log", "--atomic"]
    process = emojax(run, tmp_path / "out", "--tr", "1", *words)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"writing {COUNT} volumes" in said and "behind schedule" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"i{n}-{k}" for n in (5, 6, 8, 9, 10) for k in range(1, SHAPE[2] + 1)}
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["volume"] for line in lines] == [5, 7, 8, 9, 6, 10]


def test_the_help_names_faults_and_forms():
    assert all(name in SIMULATE.flags["faults"] for name in faults.FAULTS)
    assert all(form in SIMULATE.flags["as"] for form in writers.NAMES)


def test_a_signal_ends_it(run, tmp_path):
    process = emojax(run, tmp_path / "out", "--speed=4", "--faults=slow:1", "--repeat=9")
    while not (tmp_path / "out" / "vol_00003.nii").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)  # Ctrl-C may be ignored where tests run
    _, errors = process.communicate()
    assert process.returncode == 143 and errors == "interrupted\n"
    assert {"vol_00001.nii"} <= set(sizes(tmp_path / "out"))
    assert set(sizes(tmp_path / "out").values()) == {WHOLE}


def test_needs_no_jax():
    code = (
        "import sys, emojax.cli.simulate, emojax.online.simulate as s; print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"


SHEARED = AFFINE @ [[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tr": 0.0}, "tr: found 0.0; expected a number above 0, e.g. --tr=2"),
        ({"tr": float("nan")}, "tr: found nan"),
        ({"speed": -1.0}, "speed: found -1.0"),
        ({"speed": float("inf")}, "speed: found inf"),
        ({"form": "dicom"}, "as: found 'dicom'; expected one of nifti, "),
        ({"faults": ["lots"]}, "faults: found 'lots'; expected one of late, "),
        ({"first": -1}, "first: found -1"),
        ({"first": 0, "form": "mosaic"}, "first: found 0; expected a number from 1"),
        ({"first": 999_999}, "first: found 999999; expected a number from 0 to 999994"),
        ({"keep": 0}, "keep: found 0"),
        ({"repeat": 0}, "repeat: found 0"),
        ({"name": "vol.nii"}, "pattern: found vol.nii"),
        ({"name": "{n}.dcm"}, "pattern: found 1.dcm; expected names that end in .nii"),
        ({"name": "{n.nii"}, "pattern: found ValueError"),
        ({"name": "{m}.nii"}, "pattern: found KeyError"),
        ({"name": "a/{n}.nii"}, "pattern: found a/1.nii"),
        ({"name": "{n}.dcm", "form": "slices"}, "pattern: found 1.dcm"),
    ],
)
def test_refuses_settings(settings, message, run, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)):
        simulate(run, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_refuses_runs(run, tmp_path):
    def refuses(path, message, **settings):
        with pytest.raises(InputError, match=message):
            simulate(path, tmp_path / "out", **settings)
        assert not (tmp_path / "out").exists()

    refuses(tmp_path / "none.nii", "none.nii: found no such file")
    nib.save(nib.Nifti1Image(VALUES[0], AFFINE), tmp_path / "3d.nii")
    refuses(tmp_path / "3d.nii", "expected one run, a 4-D NIfTI image")
    (tmp_path / "cut.nii.gz").write_bytes(run.read_bytes()[:-500])
    refuses(tmp_path / "cut.nii.gz", "no readable image")
    nib.save(nib.Nifti1Image(np.moveaxis(VALUES, 0, -1), AFFINE), tmp_path / "tr.nii")
    refuses(tmp_path / "tr.nii", "tr: found none in the run; expected a number above 0")
    write_run(tmp_path / "sheared.nii", affine=SHEARED)
    refuses(tmp_path / "sheared.nii", "axes at right angles in mosaic", form="mosaic")


def test_refuses_folders(run, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "none" / "out"):
        with pytest.raises(InputError, match="expected a folder"):
            simulate(run, folder)
    write(run, tmp_path / "out")
    with pytest.raises(InputError, match="6 files that would be written again, such as vol_00001"):
        simulate(run, tmp_path / "out")
    write(run, tmp_path / "out", first=1 + COUNT)
    if os.getuid():  # root may write anywhere
        (tmp_path / "out").chmod(0o500)
        with pytest.raises(InputError, match="no permission to write"):
            simulate(run, tmp_path / "out", first=100)
