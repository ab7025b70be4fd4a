"""The command: a whole run, a killed run that resumes, refusals."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from configs import expA
from emojax.sources.write_bids import write_bids

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = (
    "--config.data.progress=False",
    "--config.data.synthetic.subjects=4",
    "--config.data.synthetic.grid=(16,16,12)",
    "--config.data.synthetic.volumes=80",
    "--config.voxels.keep=60",
    "--config.balance=20",
    "--config.baselines=LDA,logistic",
    "--config.permutations=2",
    "--config.noise.draws=2",
)


def launch(workdir, *flags, config="expA.py:demo", **options):
    command = [sys.executable, "launch.py", f"--workdir={workdir}"]
    command += [f"--config=configs/{config}"] if config else []
    quick = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # mostly compilation
    environment = os.environ | quick
    return subprocess.Popen(
        [*command, *flags],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def finished(workdir, *flags, **options):
    process = launch(workdir, *flags, **options)
    out, err = process.communicate()
    return process.returncode, out, err


def killed(workdir, checkpoints, *flags, **options):
    """Kills a run as soon as it has a checkpoint of that pattern, and before it has ended."""
    process = launch(workdir, *flags, **options)
    for _ in range(2400):
        if list((workdir / "training").glob(checkpoints)) or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workdir / "metrics.json").exists()


def same_numbers(folder, part):
    """Checks that `whole` and `killed` have the same part of metrics.json and the same curves."""
    a, b = (
        json.loads((folder / name / "metrics.json").read_text()) for name in ("whole", "killed")
    )
    assert a[part] == b[part]
    curves = [(folder / name / "curves.json").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs a small version of everything, once."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    code, out, err = finished(workdir, *SMALL, "--config.train.epochs=3")
    assert code == 0, err
    return workdir, out


def test_metrics_have_the_contract(whole):
    metrics = json.loads((whole[0] / "metrics.json").read_text())
    assert metrics["experiment"] == "A" and metrics["classes"] == ["rest", "neutral", "negative"]
    assert {"config", "command", "device", "versions", "seconds", "provenance"} <= metrics.keys()
    assert len(metrics["folds"]) == 4
    for fold in metrics["folds"]:
        assert {"nested", "last", "paper", "nested, none"} <= fold["protocols"].keys()
        nested = fold["protocols"]["nested"]
        assert {"accuracy", "balanced_accuracy", "auc_macro", "loss", "epoch"} <= nested.keys()
        assert np.sum(nested["confusion"]) == 160 and 1 <= nested["epoch"] <= 3
        assert fold["baselines"].keys() == {"LDA", "logistic", "nuisance only (logistic)"}
    found = metrics["summary"]["nested"]["accuracy"]
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1] and found["sd"] >= 0
    mean = np.mean([f["protocols"]["nested"]["accuracy"] for f in metrics["folds"]])
    assert found["mean"] == pytest.approx(mean, abs=1e-6)
    assert 0 < metrics["null_floor"]["balanced_accuracy"]["mean"] < 0.7
    closed = metrics["leaks"]
    assert closed[0]["protocol"] == "paper" and closed[-1]["protocol"] == "nested"
    total = sum(row["change"] for row in closed[1:])
    assert total == pytest.approx(closed[-1]["mean"] - closed[0]["mean"])


def test_every_scored_volume_is_one_row_of_predictions(whole):
    metrics = json.loads((whole[0] / "metrics.json").read_text())
    rows = list(csv.DictReader((whole[0] / "predictions.csv").open()))
    assert len(rows) == 640 == len({(r["subject"], r["run"], r["frame"]) for r in rows})
    for fold in metrics["folds"]:
        mine = [r for r in rows if r["fold"] == fold["test_subject"]]
        hits = np.mean([r["nested predicted"] == r["label"] for r in mine])
        assert hits == pytest.approx(fold["protocols"]["nested"]["accuracy"], abs=1e-6)
        total = sum(float(mine[0][f"nested p_{c}"]) for c in metrics["classes"])
        assert total == pytest.approx(1, abs=1e-4)


def test_report_figures_map_and_counts(whole):
    page = (whole[0] / "report.html").read_text()
    figures = {p.stem for p in (whole[0] / "figures").glob("*.png")}
    want = {"accuracy", "leaks", "confusion", "roc", "curves", "voxels", "correlation"}
    assert want <= figures and "reliability" in figures
    assert page.count("data:image/png;base64") == len(figures) and "http" not in page
    assert "Who saw what" in page and "LEAK" in page and "the number to quote" in page
    counts = np.asarray(nib.load(whole[0] / "chosen_voxels.nii.gz").dataobj)
    assert counts.sum() == 4 * 60 and counts.max() <= 4
    assert len(list(csv.DictReader((whole[0] / "counts.csv").open()))) == 8
    assert "plan: 24 trainings (nested, paper, leaky voxels and alignment," in whole[1]


def test_second_start_changes_nothing_and_says_the_same(whole):
    def files():
        paths = (p for p in whole[0].rglob("*") if p.is_file() and p.name != "config.json")
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}

    before = files()
    code, out, err = finished(whole[0], *SMALL, "--config.train.epochs=3")
    assert code == 0, err
    assert files() == before  # metrics.json with its times, too
    table = whole[1].split("analyses: ")[1].splitlines()[1:]
    assert out.splitlines()[:-1] == table[:-1] and "finished before" in out


def test_what_is_printed_and_stored_is_one_account(whole):
    metrics = json.loads((whole[0] / "metrics.json").read_text())
    config = json.loads((whole[0] / "config.json").read_text())
    assert metrics["schema"] == config["format"] == 2 and metrics["config"] == config["config"]
    names = [arm["name"] for arm in metrics["arms"]]
    assert names[:3] == ["bag", "logistic n-1", "nested"]
    assert set(metrics["summary"]) == set(names[2:]) - {"noise floor"}
    page = (whole[0] / "report.html").read_text()
    lines = [json.loads(line) for line in (whole[0] / "metrics.jsonl").open()]
    for arm in metrics["arms"]:
        assert any(line.startswith(arm["name"] + " ") for line in whole[1].splitlines())
        assert f">{arm['name']}<" in page
        epochs = [line for line in lines if line["training"] == arm["name"]]
        assert len(epochs) == (0 if arm["shares"] or arm["decoder"] else 4 * 3)
    assert {"loss", "accuracy", "rate", "fold", "epoch"} <= lines[0].keys()
    assert metrics["audit"]["measured"] and set(metrics["audit"]["arms"]["paper"]["moved"]) >= {
        "voxels",
        "alignment",
        "epoch choice",
    }
    assert metrics["arms"][0]["protocol"] == "calibrated"


def test_workdir_of_another_configuration_is_refused(whole):
    code, _, err = finished(whole[0], *SMALL, "--config.train.epochs=4")
    assert code == 2 and err.count("\n") == 1
    assert "found a run with" in err and "epochs" in err


def test_killed_run_goes_on_to_the_same_numbers(tmp_path):
    flags = (
        *SMALL,
        "--config.train.epochs=6",
        "--config.train.checkpoint_epochs=1",
        "--config.protocols=nested",
        "--config.align.regimes=none",
        "--config.null_floor=False",
        "--config.baselines=",
        f"--config.data.store={tmp_path / 'store'}",
    )
    code, _, err = finished(tmp_path / "whole", *flags)
    assert code == 0, err
    killed(tmp_path / "killed", "nested-1-0/[2-5]*", *flags)
    code, _, err = finished(tmp_path / "killed", *flags)
    assert code == 0, err
    same_numbers(tmp_path, "folds")


def test_simulated_study_on_disk_reaches_training_as_bids(tmp_path):
    config = expA.get_config("demo")
    config.data.update({"progress": False, "store": str(tmp_path / "store")})
    config.data.synthetic.update({"subjects": 4, "grid": (16, 16, 12), "volumes": 60})
    write_bids(config.data, tmp_path / "study")
    code, out, err = finished(
        tmp_path / "run",
        *(flag for flag in SMALL if "synthetic" not in flag),
        "--config.data.source=bids",
        f"--config.data.root={tmp_path / 'study'}",
        "--config.data.label_map=rest=;neutral=neutral;negative=negative",
        "--config.protocols=nested",
        "--config.align.regimes=independent_runs",
        "--config.null_floor=False",
        "--config.train.epochs=1",
    )
    assert code == 0, err
    assert "4 subjects  8 runs" in out and "TR 2 s" in out
    hashes = json.loads((tmp_path / "run" / "metrics.json").read_text())["data"]["hashes"]
    assert len(hashes) == 17  # scans, events, and the sidecar that they share


def test_damaged_scan_ends_in_one_line_and_leaves_a_store_that_works(tmp_path):
    config = expA.get_config("demo")
    config.data.update({"progress": False, "store": str(tmp_path / "made")})
    config.data.synthetic.update({"subjects": 4, "grid": (16, 16, 12), "volumes": 40})
    root = write_bids(config.data, tmp_path / "study")
    flags = ("--mode=data", "--config.data.source=bids", f"--config.data.root={root}")
    bad = next(root.glob("sub-03/func/*run-01_bold.nii.gz"))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-100])
    code, _, err = finished(tmp_path / "run", *flags)
    assert code == 2 and err.count("\n") == 1 and f"{bad}: found a truncated .nii.gz" in err
    assert not list((tmp_path / "store").glob("**/*.partial"))
    bad.write_bytes(whole)
    code, out, err = finished(tmp_path / "run", *flags)
    assert code == 0 and "4 subjects  8 runs" in out, err


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (("--config.data.sourc=bids",), 'Did you mean "data.source"'),
        (("--config.train.epochs=2.5",), "invalid literal"),
        (("--config.data.source=dicom",), "data.source: found 'dicom'; expected one of bids"),
        (("--config.voxels.keep=100000",), "voxels.keep: found 100000; expected at most"),
        (("--config.experiment=C",), "experiment: found 'C'"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path, flags, match):
    code, _, err = finished(tmp_path / "run", *SMALL, *flags)
    assert code == 2 and err.count("\n") == 1 and match in err
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_unknown_variant_and_missing_files(tmp_path):
    for config, match in (
        ("expA.py:dmo", "unknown variant 'dmo'"),
        ("none.py", "No such file"),
        ("haxby.py", "no such folder"),
    ):
        flags = ("--config.data.root=/nowhere",) if config == "haxby.py" else ()
        code, _, err = finished(tmp_path / "run", *flags, config=config)
        assert code == 2 and err.count("\n") == 1 and match in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    code, _, err = finished(tmp_path / "full", *SMALL)
    assert code == 2 and "files of something else" in err
