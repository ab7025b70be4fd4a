"""One command for a user's study: an fMRIPrep tree with everything in it ends in a trained report.

The tree has two echoes and two resolutions of every run, lies inside its raw data set, and comes
with a region of interest, confounds, groups of people and orders of events that all differ.
"""

import json
import pathlib
import re
import shlex

import nibabel as nib
import numpy as np
import pytest

from configs import study
from emojax import cli, experiments
from emojax.report.schema import Result

ROOT = pathlib.Path(study.__file__).parents[1]
SPACE = "MNI152NLin2009cAsym"
GRIDS = {1: (18, 16, 14), 2: (12, 11, 10)}  # of the two resolutions
VOLUMES, TR = 140, 2.0
KINDS = ("neutral", "fear", "sad")
TINY = {
    "data.progress": False,
    "voxels.keep": 60,
    "balance": 40,
    "null_floor": False,
    "permutations": 0,
    "design": False,
    "audit": False,
    "baselines": "logistic",
    "align.regimes": "group",
    "train.batch_size": 16,
    "train.epochs": 8,
    "train.checkpoint_epochs": 8,
}


def save(path, values, zoom, **json_beside):
    affine = np.diag([-zoom, zoom, zoom, 1.0])
    affine[:3, 3] = [zoom * 6, -zoom * 5, -zoom * 4]
    image = nib.Nifti1Image(values, affine)
    if values.ndim == 4:
        image.header.set_zooms((zoom, zoom, zoom, TR))
        image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    if json_beside:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(json_beside))


def describe(folder, kind):
    folder.mkdir(parents=True, exist_ok=True)
    name = {"Name": "faces", "BIDSVersion": "1.8.0", "DatasetType": kind}
    (folder / "dataset_description.json").write_text(json.dumps(name))


def write_confounds(stem, rng):
    """Writes realignment, its derivatives and powers, and cosines, as fMRIPrep does."""
    columns = {}
    for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"):
        moved = np.cumsum(rng.normal(0, 0.01, VOLUMES))
        change = np.append(np.nan, np.diff(moved))
        columns |= {name: moved, f"{name}_derivative1": change}
        columns |= {f"{name}_power2": moved**2, f"{name}_derivative1_power2": change**2}
    for k in range(2):
        columns[f"cosine0{k}"] = np.cos(np.pi * (k + 1) * (np.arange(VOLUMES) + 0.5) / VOLUMES)
    columns |= {name: rng.normal(size=VOLUMES) for name in ("csf", "white_matter")}
    rows = np.stack(list(columns.values()), 1)
    cells = [["n/a" if np.isnan(x) else f"{x:.6f}" for x in row] for row in rows]
    text = "\n".join("\t".join(row) for row in [list(columns), *cells]) + "\n"
    stem.with_name(stem.name + "_desc-confounds_timeseries.tsv").write_text(text)
    stem.with_name(stem.name + "_desc-confounds_timeseries.json").write_text("{}")


def write_tree(root, subjects=4, runs=2):
    """Writes the raw data set, and fMRIPrep's output in derivatives/fmriprep inside it."""
    rng = np.random.default_rng(0)
    derived = root / "derivatives" / "fmriprep"
    describe(root, "raw")
    describe(derived, "derivative")
    lines = ["participant_id\tdiagnosis"]
    patterns = {r: rng.normal(size=(2, *grid)).astype(np.float32) for r, grid in GRIDS.items()}
    for s in range(1, subjects + 1):
        lines.append(f"sub-{s:02}\t{('patient', 'control')[s % 2]}")
        for run in range(1, runs + 1):
            name = f"sub-{s:02}_task-faces_run-{run:02}"
            raw = root / f"sub-{s:02}" / "func"
            raw.mkdir(parents=True, exist_ok=True)
            order = rng.permutation([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
            onsets = 8.0 + 22 * np.arange(len(order))
            events = [f"{t}\t12\t{KINDS[k]}" for t, k in zip(onsets, order, strict=True)]
            table = ["onset\tduration\ttrial_type", *events]
            (raw / f"{name}_events.tsv").write_text("\n".join(table) + "\n")
            stem = derived / f"sub-{s:02}" / "func" / f"sub-{s:02}_task-faces_run-{run}"
            for res, grid in GRIDS.items():
                ends = f"space-{SPACE}_res-{res}"
                inside = np.pad(np.ones([n - 2 for n in grid], np.uint8), 1)
                for echo in (1, 2):
                    x = 500 + 200 * echo + 10 * rng.normal(size=(*grid, VOLUMES))
                    for t, k in zip(onsets, order, strict=True):
                        first = int((t + 5) // TR)
                        x[..., first : first + 6] += 12 * patterns[res][min(k, 1)][..., None]
                    whole = f"{stem.name}_echo-{echo}_{ends}"
                    bold = stem.with_name(f"{whole}_desc-preproc_bold.nii.gz")
                    values = (x * inside[..., None]).astype(np.float32)
                    save(bold, values, 6.0 / res, RepetitionTime=TR)
                save(
                    stem.with_name(f"{stem.name}_{ends}_desc-brain_mask.nii.gz"), inside, 6.0 / res
                )
            write_confounds(stem, rng)
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    roi = np.zeros(GRIDS[2], np.uint8)
    roi[2:9, 2:9, 2:8] = 1
    save(root / "ROI.nii.gz", roi, 3.0)
    return root


def launch(workdir, *flags):
    """Returns the exit code of the command line."""
    config = f"--config={ROOT / 'configs' / 'study.py'}"
    return cli.launch(["launch.py", config, f"--workdir={workdir}", *flags])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("study") / "faces")


def printed_commands():
    """Returns the commands of docs/data.md for a user's own study, as words."""
    page = (ROOT / "docs" / "data.md").read_text()
    block = re.search(r"## Your study.*?```sh\n(.*?)```", page, re.DOTALL)[1]
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.slow
def test_the_printed_commands_reach_a_trained_report(tree, tmp_path, quick_compile, capsys):
    """The commands run as printed, except for paths and a training of seconds."""
    counting, training = printed_commands()
    assert counting[:3] == ["python", "launch.py", "--mode=data"]
    given = [word for word in training if word.startswith("--config.")]
    given = [word.replace("ROI.nii.gz", str(tree / "ROI.nii.gz")) for word in given]
    given = [word.replace("=DIR", f"={tree}") for word in given]
    assert launch(tmp_path / "work", "--mode=data", *given) == 0, capsys.readouterr().err
    flags = [f"--config.{key}={value}" for key, value in TINY.items() if key != "voxels.keep"]
    code = launch(tmp_path / "work", *given, *flags)
    captured = capsys.readouterr()
    said = captured.out
    assert code == 0, captured.err
    result = Result.load(tmp_path / "work")
    head = arm(result, "nested")
    trained = [fold["monitored"]["train_accuracy"] for fold in head["folds"]]
    assert min(trained) > 0.65 and head["learned_nothing"] is None and len(trained) == 4
    assert head["summary"]["network"]["balanced_accuracy"]["mean"] > 0.6
    assert head["protocol"] == "transductive"  # cleaning saw all values
    counts = result.metrics["data"]["counts"]
    assert len(counts) == 8 and {row["neutral"] for row in counts} == {row_count()}
    assert {row["negative"] for row in counts} == {row_count()}
    assert list(result.metrics["groups"]) == ["control", "patient"]
    page = (tmp_path / "work" / "report.html").read_text()
    assert "learned nothing" not in page + said and "By group: bag" in page
    links = re.findall(r'<a href="([^"]*)">', page)
    assert {"counts.csv", "events.csv", "predictions.csv", "figures/voxels.png"} <= set(links)
    assert all((tmp_path / "work" / name).exists() for name in links)
    inside = nib.load(tmp_path / "work" / "chosen_voxels.nii.gz").get_fdata() > 0
    region = np.asarray(nib.load(tree / "ROI.nii.gz").dataobj) > 0
    assert inside.any() and not inside[~region].any()


def arm(result, name):
    return next(arm for arm in result.metrics["arms"] if arm["name"] == name)


def row_count():
    """Counts volumes of a class in a run: six events of 12 s, seven volumes half inside each."""
    return 6 * 7


@pytest.mark.slow
def test_a_penalty_that_empties_the_network_makes_the_headline(tree, tmp_path, quick_compile):
    config = study.get_config()
    tiny = TINY | {"train.lr": 4.5e-3, "train.penalty_factor": 5.0, "protocols": "last"}
    tiny |= {"train.epochs": 3, "train.checkpoint_epochs": 3}
    with config.unlocked():
        for key, value in tiny.items():
            *path, name = key.split(".")
            node = config
            for part in path:
                node = node[part]
            node[name] = value
    config.baselines = ""
    config.data.update({"root": str(tree / "derivatives" / "fmriprep"), "space": SPACE})
    config.data.entities = "echo=2,res=2"
    result = experiments.run(config, tmp_path / "work")
    why = arm(result, "last")["learned_nothing"]
    assert why.startswith("constant output")
    assert "the network learned nothing" in (tmp_path / "work" / "report.html").read_text()


@pytest.mark.parametrize("entities", ["", "echo=2", "res=2"])
def test_what_is_stored_more_than_once_is_listed_with_what_to_type(
    tree, tmp_path, capsys, entities
):
    flags = [
        f"--config.data.root={tree / 'derivatives' / 'fmriprep'}",
        f"--config.data.space={SPACE}",
        f"--config.data.entities={entities}",
        "--mode=data",
    ]
    assert launch(tmp_path / "work", *flags) == 2
    said = capsys.readouterr().err
    assert "data.entities" in said and len(said.strip().splitlines()) == 1


@pytest.mark.slow
def test_experiment_b_trains_on_the_same_tree(tree, tmp_path, quick_compile):
    config = study.get_config("B")
    config.data.update({"root": str(tree / "derivatives" / "fmriprep"), "space": SPACE})
    config.data.update({"entities": "echo=2,res=2", "centre": True, "progress": False})
    config.data.label_map = "neutral=neutral;fear=fear"
    config.update({"splits": "by_run", "fractions": (0.5, 0.25, 0.25), "null_floor": False})
    config.update({"baselines": "", "floor_baselines": "", "audit": False, "pad": 12})
    config.model.width = 8
    config.train.update({"epochs": 12, "checkpoint_epochs": 12})
    arm = experiments.run(config, tmp_path / "work").metrics["arms"][0]
    assert arm["folds"][0]["monitored"]["train_accuracy"] > 0.7
    assert arm["learned_nothing"] is None


def test_the_commands_of_readme_and_docs_have_keys_that_exist():
    """Every --config of a command with configs/study.py is a key, with a value in range."""
    found = 0
    for page in ("README.md", "docs/data.md"):
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if not any(word.startswith("--config=configs/study.py") for word in words):
                    continue
                found += 1
                variant = next(w for w in words if w.startswith("--config=")).partition(".py")[2]
                keys = flat_keys(study.get_config(variant.lstrip(":")))
                for word in words:
                    if word.startswith("--config."):
                        assert word[9:].partition("=")[0] in keys, word
    assert found >= 3


def flat_keys(config, at=""):
    out = set()
    for key, value in config.to_dict().items() if not at else config.items():
        out |= flat_keys(value, f"{at}{key}.") if isinstance(value, dict) else {at + key}
    return out
