"""Runs become decoders, and decoders give the runs' own predictions, file by file."""

import csv
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from test_launch import finished

from configs import expA
from emojax.decoder import commands
from emojax.errors import InputError
from emojax.experiments import export
from emojax.sources.write_bids import write_bids

COMMON = (
    "--config.data.progress=False",
    "--config.data.source=bids",
    "--config.data.label_map=rest=;neutral=neutral;negative=negative",
    "--config.null_floor=False",
    "--config.baselines=",
    "--config.train.epochs=2",
)
A = (
    *COMMON,
    "--config.voxels.keep=60",
    "--config.balance=20",
    "--config.protocols=nested",
    "--config.leaks=False",
    "--config.align.regimes=independent_runs",
)
B = (
    *COMMON,
    "--config.data.centre=False",
    "--config.model.depth=18",
    "--config.model.width=4",
    "--config.splits=by_run",
    "--config.fractions=(0.5,0.25,0.25)",
)
RUN = "sub-{0}/func/sub-{0}_task-emotion_run-{1}_bold.nii.gz"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    config = expA.get_config("demo")
    config.data.update({"progress": False, "store": str(folder / "made")})
    config.data.synthetic.update({"subjects": 4, "grid": (16, 16, 12), "volumes": 60})
    return write_bids(config.data, folder / "bids")


@pytest.fixture(scope="module")
def run_a(study, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("a") / "run", study, A, "expA.py:demo")


@pytest.fixture(scope="module")
def run_b(study, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("b") / "run", study, B, "expB.py:demo")


def trained(workdir, study, flags, config):
    flags = (*flags, f"--config.data.root={study}")
    code, _, err = finished(workdir, *flags, config=config)
    assert code == 0, err
    return workdir, flags


def exported(run, config, *flags, to=None):
    flags = (*run[1], "--mode=export", *flags, *([f"--bundle={to}"] if to else []))
    code, out, err = finished(run[0], *flags, config=config)
    assert code == 0, err
    assert out.strip() == str(to or run[0] / "decoder")
    return to or run[0] / "decoder"


def deployed(mode, bundle, path, workdir, *flags):
    code, out, err = finished(
        workdir, f"--mode={mode}", f"--bundle={bundle}", f"--input={path}", *flags, config=None
    )
    return code, out.strip(), err


def probabilities(path, **wanted):
    """Frame, or place -> probabilities of the rows of a predictions.csv."""
    with path.open() as file:
        rows = [r for r in csv.DictReader(file) if all(r[k] == v for k, v in wanted.items())]
    assert rows
    chosen = [k for k in rows[0] if k.split(":")[-1].startswith("p_")]
    place = "frame" if "frame" in rows[0] else "volume"
    return {int(r[place]): [float(r[k]) for k in chosen] for r in rows}


def same(got, want, atol):
    frames = sorted(want)
    assert len(frames) > 20
    np.testing.assert_allclose([got[f] for f in frames], [want[f] for f in frames], atol=atol)


@pytest.mark.parametrize("subject", ["01", pytest.param("03", marks=pytest.mark.slow)])
def test_replayed_run_has_the_predictions_of_the_report(run_a, study, tmp_path, subject):
    flags = (f"--subject={subject}", "--run=run-01")
    bundle = exported(run_a, "expA.py:demo", *flags, to=tmp_path / "decoder")
    path = study / RUN.format(subject, "01")
    code, out, err = deployed("decode", bundle, path, tmp_path / "new")
    assert code == 0, err
    assert out == str(tmp_path / "new" / "predictions.csv")
    want = probabilities(run_a[0] / "predictions.csv", subject=subject, run="run-01")
    same(probabilities(tmp_path / "new" / "predictions.csv"), want, 2e-4)


def test_calibration_by_command_is_the_fold_of_that_subject(run_a, study, tmp_path):
    """The decoder of one subject's fold, calibrated for that subject by the other run of it."""
    flags = ("--subject=02", "--run=run-01")  # another alignment
    bundle = exported(run_a, "expA.py:demo", *flags, to=tmp_path / "first")
    want = probabilities(run_a[0] / "predictions.csv", subject="02", run="run-02")
    code, out, err = deployed(
        "calibrate", bundle, study / RUN.format("02", "01"), tmp_path / "cal", "--subject=02"
    )
    assert code == 0, err
    code, _, err = deployed("decode", out, study / RUN.format("02", "02"), tmp_path / "new")
    assert code == 0, err
    same(probabilities(tmp_path / "new" / "predictions.csv"), want, 2e-4)


def test_volumes_of_experiment_b(run_b, study, tmp_path):
    bundle = exported(run_b, "expB.py:demo")
    rows = list(csv.DictReader((run_b[0] / "predictions.csv").open()))
    subject, run = rows[0]["subject"], rows[0]["run"]
    path = study / RUN.format(subject, run.removeprefix("run-"))
    code, _, err = deployed("decode", bundle, path, tmp_path / "new")
    assert code == 0, err
    want = probabilities(run_b[0] / "predictions.csv", subject=subject, run=run)
    same(probabilities(tmp_path / "new" / "predictions.csv"), want, 2e-4)


def test_another_decoder_is_not_replaced(run_a, tmp_path):
    first = exported(run_a, "expA.py:demo", "--subject=01", to=tmp_path / "decoder")
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    exported(run_a, "expA.py:demo", "--subject=01", to=first)  # the same one: nothing to refuse
    for flags, said in (
        (["--subject=02"], "found a decoder of subject 01"),
        (["--subject=01", "--run=run-01"], "found a decoder of subject 01"),
    ):
        flags = (*run_a[1], "--mode=export", *flags, f"--bundle={first}")
        code, _, err = finished(run_a[0], *flags, config="expA.py:demo")
        assert code == 2 and said in err and "--bundle=DIR writes elsewhere" in err
        assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before


def test_what_cannot_be_decoded_ends_in_one_line(run_a, study, tmp_path):
    bundle = exported(run_a, "expA.py:demo")
    good = study / RUN.format("01", "01")
    scan = nib.load(good)
    nib.save(scan.slicer[:-1], tmp_path / "small.nii.gz")
    values = np.asarray(scan.dataobj, np.float32)
    values[..., 7] = np.nan
    nib.save(nib.Nifti1Image(values, scan.affine), tmp_path / "nan.nii")
    (tmp_path / "half.nii.gz").write_bytes(good.read_bytes()[:5000])
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "weights.npz").write_bytes(b"something else")
    for given, path, said in (
        (bundle, tmp_path / "small.nii.gz", "(15, 16, 12); expected (16, 16, 12)"),
        (bundle, tmp_path / "nan.nii", "volume 7: found"),
        (bundle, tmp_path / "half.nii.gz", "no readable image"),
        (bundle, tmp_path / "none.nii", "no such file"),
        (broken, good, "weights.npz: found content that was changed"),
        (tmp_path, good, "manifest.json"),
    ):
        with pytest.raises(InputError, match=re.escape(said)) as error:
            commands.decode(given, path, tmp_path / "new")
        assert "\n" not in str(error.value)
    code, out, err = deployed("decode", bundle, tmp_path / "nan.nii", tmp_path / "new")
    assert (code, out, err.count("\n")) == (2, "", 1) and "volume 7: found" in err
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_exported_ends_in_one_line(run_a, tmp_path):
    config = expA.get_config("demo")
    with pytest.raises(InputError, match=r"empty: found no finished run"):
        export.export(config, str(tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()
    with pytest.raises(InputError, match=r"found a run with align.regimes='independent_runs'; exp"):
        export.export(config, str(run_a[0]))
    for flags, said in (
        ((*run_a[1], "--subject=99"), "subject: found '99'; expected one of 01, 02, 03, 04"),
        ((*run_a[1], "--run=run-09"), "run: found 'run-09'; expected one of run-01, run-02"),
        (("--mode=decode",), "expected --bundle, --input and --workdir"),
    ):
        code, out, err = finished(run_a[0], "--mode=export", *flags)
        assert (code, out, err.count("\n")) == (2, "", 1) and said in err, err
