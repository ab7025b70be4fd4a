"""Runs become decoders, and decoders give the runs' own predictions, file by file."""

import csv
import json
import re
import shutil
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from test_launch import finished

from configs import expA
from emojax import decoder, experiments
from emojax.decoder import commands
from emojax.errors import InputError
from emojax.experiments.exports import command, rows
from emojax.experiments.exports.command import export
from emojax.sources.write_bids import write_bids

pytestmark = pytest.mark.slow

COMMON = (
    "--config.data.progress=False",
    "--config.data.source=bids",
    "--config.data.label_map=rest=;neutral=neutral;negative=negative",
    "--config.null_floor=False",
    *("--config.permutations=0", "--config.within_subject=False", "--config.audit=False"),
    *("--config.crossed=", "--config.design=False"),
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
NETWORK = (
    *A,
    "--config.headline=network",
    "--config.model.batch_norm=True",
    "--config.model.norm_layers=dense",
    "--config.model.norm_momentum=0.5",
)
B = (
    *COMMON,
    "--config.data.online=",
    "--config.model.depth=18",
    "--config.model.width=4",
    "--config.splits=by_run",
    "--config.folds=1",
    "--config.fractions=(0.5,0.25,0.25)",
)
RAW = {"decode": ("--correct=none",), "calibrate": ()}  # volumes as the report has read them
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
def run_network(study, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("n") / "run", study, NETWORK, "expA.py:demo")


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
        workdir,
        f"--mode={mode}",
        f"--bundle={bundle}",
        f"--input={path}",
        *flags,
        *RAW[mode],
        config=None,
    )
    return code, out.strip(), err


def probabilities(path, **wanted):
    """Returns {frame or place: probabilities} of the rows of a predictions.csv."""
    with path.open() as file:
        rows = [r for r in csv.DictReader(file) if all(r[k] == v for k, v in wanted.items())]
    assert rows
    chosen = [k for k in rows[0] if k.startswith("p_")]
    place = "frame" if "frame" in rows[0] else "volume"
    return {int(r[place]): [float(r[k]) for k in chosen] for r in rows}


def same(got, want, atol):
    frames = sorted(want)
    assert len(frames) > 20
    np.testing.assert_allclose([got[f] for f in frames], [want[f] for f in frames], atol=atol)


def replayed(run, study, tmp_path, subject, name="run-01"):
    """Decodes a run by command, and compares with the report; returns the manifest."""
    flags = (f"--subject={subject}", f"--run={name}")
    bundle = exported(run, "expA.py:demo", *flags, to=tmp_path / "decoder")
    path = study / RUN.format(subject, name.removeprefix("run-"))
    code, out, err = deployed("decode", bundle, path, tmp_path / "new")
    assert code == 0, err
    assert out == str(tmp_path / "new" / "predictions.csv")
    want = probabilities(run[0] / "predictions.csv", subject=subject, run=name)
    same(probabilities(tmp_path / "new" / "predictions.csv"), want, 1e-5)
    return json.loads((bundle / "manifest.json").read_text())


@pytest.mark.parametrize("subject", ["01", "03"])
def test_replayed_run_has_the_predictions_of_the_report(run_a, study, tmp_path, subject):
    """The headline is the bag: three members, each monitored on another subject."""
    manifest = replayed(run_a, study, tmp_path, subject)
    facts = manifest["facts"]
    assert (manifest["network"], facts["kind"]) == ("linear", "bag of 3 logistic decoders")
    assert facts["subject"] == facts["left_out"] == subject
    assert [name for name, *_ in facts["members"]] == sorted({"01", "02", "03", "04"} - {subject})
    assert all(0.05 <= t <= 20 and 1e-4 <= C <= 3e-2 for _, t, C in facts["members"])
    seen = {step: (values, labels) for step, values, labels in facts["provenance"]}
    assert seen["voxels"] == (360, 360)  # three other subjects with two runs of 60 volumes each
    assert seen["alignment"] == (420, 0)  # the other run of the test subject, too


def test_replayed_run_of_a_network_with_batch_norm(run_network, study, tmp_path):
    manifest = replayed(run_network, study, tmp_path, "01", "run-02")
    facts = manifest["facts"]
    assert (manifest["network"], facts["kind"], facts["members"]) == ("cnn1d", "CNN", [])
    fold = json.loads((run_network[0] / "metrics.json").read_text())["arms"][0]["folds"][0]
    assert facts["temperature"] == fold["network"]["uncalibrated"]["temperature"] != 1


def test_calibration_by_command_is_the_fold_of_that_subject(run_a, study, tmp_path):
    """The decoder of one subject's fold, calibrated on that subject's other run."""
    flags = ("--subject=02", "--run=run-01")  # another alignment
    bundle = exported(run_a, "expA.py:demo", *flags, to=tmp_path / "first")
    want = probabilities(run_a[0] / "predictions.csv", subject="02", run="run-02")
    code, out, err = deployed(
        "calibrate", bundle, study / RUN.format("02", "01"), tmp_path / "cal", "--subject=02"
    )
    assert code == 0, err
    code, _, err = deployed("decode", out, study / RUN.format("02", "02"), tmp_path / "new")
    assert code == 0, err
    same(probabilities(tmp_path / "new" / "predictions.csv"), want, 1e-5)


def test_volumes_of_experiment_b(run_b, study, tmp_path):
    bundle = exported(run_b, "expB.py:demo")
    rows = list(csv.DictReader((run_b[0] / "predictions.csv").open()))
    subject, run = rows[0]["subject"], rows[0]["run"]
    path = study / RUN.format(subject, run.removeprefix("run-"))
    code, _, err = deployed("decode", bundle, path, tmp_path / "new")
    assert code == 0, err
    want = probabilities(run_b[0] / "predictions.csv", subject=subject, run=run)
    same(probabilities(tmp_path / "new" / "predictions.csv"), want, 1e-5)


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
        export(config, str(tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()
    with pytest.raises(InputError, match=r"found a run with align.regimes='independent_runs'; exp"):
        export(config, str(run_a[0]))
    for flags, said in (
        ((*run_a[1], "--subject=99"), "subject: found '99'; expected one of 01, 02, 03, 04"),
        ((*run_a[1], "--run=run-09"), "run: found 'run-09'; expected one of run-01, run-02"),
        (("--mode=decode",), "expected --bundle and --input"),
    ):
        code, out, err = finished(run_a[0], "--mode=export", *flags)
        assert (code, out, err.count("\n")) == (2, "", 1) and said in err, err


def test_a_bag_without_alignment(study, tmp_path):
    """Without commands, voxels are centred by the other run, and there is no template."""
    config = expA.get_config("demo")
    config.update({"protocols": "nested", "null_floor": False, "baselines": "", "crossed": ""})
    config.update({"permutations": 0, "within_subject": False, "design": False, "audit": False})
    config.data.update({"progress": False, "source": "bids", "root": str(study)})
    config.data.label_map = "rest=;neutral=neutral;negative=negative"
    config.align.regimes, config.voxels.keep = "none", 50
    config.model.update({"filters": (2,), "window": 3, "dense": (2,)})
    config.train.epochs = 1
    experiments.run(config, tmp_path / "run")
    folder = export(config, tmp_path / "run", "04", "run-01", tmp_path / "decoder")
    found = decoder.decode_file(decoder.load(folder), study / RUN.format("04", "01"))
    want = probabilities(tmp_path / "run" / "predictions.csv", subject="04", run="run-01")
    same(dict(enumerate(found.tolist())), want, 1e-5)
    volumes = np.moveaxis(nib.load(study / RUN.format("04", "02")).get_fdata(), -1, 0)
    with pytest.raises(InputError, match="found no template"):
        decoder.calibrate(decoder.load(folder), volumes, "new", "run-01")


def arm_of(name, decoder="", **more):
    summary = {"network": None if decoder else {}, "baselines": {decoder: {}} if decoder else {}}
    arm = {"name": name, "decoder": decoder, "on_noise": False, "shares": "", "summary": summary}
    return arm | more


@pytest.mark.parametrize(("number", "name"), [(0, "bag"), (1, "nested")])
def test_the_decoder_that_each_fold_has_chosen(number, name):
    chosen = [{"chosen": {"chosen": c}} for c in ("bag", "network")]
    arms = [arm_of("auto", "auto", folds=chosen), arm_of("bag", "bag"), arm_of("nested")]
    assert rows.choose({"arms": arms}, "", number).arm["name"] == name


def test_a_network_that_was_not_kept(run_network, tmp_path):
    shutil.copytree(run_network[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "models")
    flags = (*run_network[1], "--mode=export", f"--config.data.store={run_network[0].parent}/store")
    code, _, err = finished(tmp_path / "run", *flags, config="expA.py:demo")
    assert code == 2 and "found no kept networks" in err and "keep_models=True" in err


@pytest.mark.parametrize(
    "dtype, off, refused",
    [
        ("float32", 5e-4, False),
        ("float32", 4e-3, True),
        ("bfloat16", 4e-3, False),
        ("bfloat16", 3e-2, True),
    ],
)
def test_a_decoder_is_compared_as_closely_as_its_run_computed(
    dtype, off, refused, monkeypatch, capsys
):
    """A decoder computes in float32 even if its run used bfloat16, which rounds at 2^-8."""
    names = np.array(["01", "01"])
    cohort = SimpleNamespace(subject=names, run=names, frame=np.arange(2))
    config = {"model": {"dtype": dtype, "width": 16}}
    made = SimpleNamespace(cohort=cohort, config=config)
    facts = SimpleNamespace(grid=(1, 1, 1))
    packed = SimpleNamespace(rows=np.arange(2), decoder=SimpleNamespace(facts=facts))
    reported = {"subject": names, "run": names, "frame": np.arange(2)}
    wanted = np.array([[0.3, 0.7], [0.6, 0.4]])
    monkeypatch.setattr(command, "_volume", lambda made, row: np.zeros(1, np.float32))
    monkeypatch.setattr(command.table, "probabilities", lambda reported, classes: wanted)
    monkeypatch.setattr(command.fusion, "fuse", lambda decoder: lambda volumes: wanted + off)
    if refused:
        with pytest.raises(InputError, match="decoder whose probabilities are up to"):
            command.check_replay(made, packed, reported, ("a", "b"), "runs/x")
    else:
        command.check_replay(made, packed, reported, ("a", "b"), "runs/x")
    said = capsys.readouterr().err
    assert ("the run computed in bfloat16" in said) == (dtype == "bfloat16")
