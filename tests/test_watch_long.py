"""A long session: nothing is lost, and neither memory nor open files grow."""

import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import psutil
import pytest
from tiny_decoder import AFFINE, made

from emojax.decoder import bundle
from emojax.online.watching import journal

VOLUMES, RATE = 1000, 50  # Hz


@pytest.mark.slow
def test_a_thousand_volumes(tmp_path):
    decoder, later, _ = made()
    bundle.save(decoder, tmp_path / "decoder")
    run = np.moveaxis(later[:20].round().astype(np.int16), 0, -1)
    nib.save(nib.Nifti1Image(run, AFFINE), tmp_path / "run.nii")
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    command = [sys.executable, "-m", "emojax"]
    words = [
        tmp_path / "decoder",
        scans,
        f"--out={out}",
        f"--volumes={VOLUMES}",
        "--quiet",
        "--tr=2",
    ]
    watch = subprocess.Popen(
        [*command, "watch", *map(str, words), "--quiet", "--tcp=0", "--http=0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    with watch:
        assert any(line.startswith("ready") for line in watch.stderr)
        words = [tmp_path / "run.nii", scans, f"--tr={1 / RATE}", f"--repeat={VOLUMES // 20}"]
        simulator = subprocess.Popen([*command, "simulate", *map(str, words), "--keep=50"])
        used, process = [], psutil.Process(watch.pid)
        while simulator.poll() is None:
            used.append((process.memory_info().rss, process.num_fds()))
            time.sleep(0.25)
        assert simulator.returncode == 0
        said = watch.stderr.read()
    assert watch.returncode == 0, said
    found = [own for own in journal.verify(out / journal.NAME).lines if own["kind"] == "volume"]
    assert [own["volume"] for own in found] == list(range(1, VOLUMES + 1))
    assert {own["status"] for own in found} == {"ok"}
    early, late = used[len(used) // 4], used[-1]  # behind the start of the simulator
    assert late[0] - early[0] < 20e6 and late[1] <= early[1] + 2
