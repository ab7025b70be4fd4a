"""The wheel and the source archive: their content, and a new user's first commands."""

import email
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile

import pytest
from shipped import NAMES

import emojax

ROOT = pathlib.Path(__file__).resolve().parents[1]
TREE = (".ci", "benchmarks", "configs", "constraints", "docs", "emojax", "examples", "tests")
FILES = ("*.toml", "*.in", "*.py", "*.txt", "*.md", "Dockerfile", "LICENSE")
pytestmark = pytest.mark.slow

SHORT = (  # of the demo: a run of seconds
    *("data.synthetic.grid=(16,16,12)", "data.synthetic.volumes=40", "data.synthetic.subjects=4"),
    *("data.progress=False", "protocols=nested", "leaks=False", "baselines=", "null_floor=False"),
    *(
        "permutations=0",
        "audit=False",
        "crossed=",
        "design=False",
        "within_subject=False",
        "maps=False",
    ),
    *("floor_baselines=", "align.regimes=independent_runs", "voxels.keep=30", "balance=8"),
    *("model.filters=(2,)", "model.window=3", "model.dense=(4,)", "train.epochs=1", "members=3"),
)
SHORT = [f"--config.{setting}" for setting in SHORT]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds the archive of the sources, and from its content the wheel; returns both files."""
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"
    tree.mkdir()
    for name in TREE:
        leave = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, tree / name, ignore=leave)
    for pattern in FILES:
        for path in ROOT.glob(pattern):
            shutil.copy(path, tree)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder / "dist", tree],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (wheel,) = (folder / "dist").glob("*.whl")
    (sources,) = (folder / "dist").glob("*.tar.gz")
    return wheel, sources


def test_the_wheel_holds_emojax_and_nothing_beside_it(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()
        meta = next(name for name in names if name.endswith("METADATA"))
        about = email.message_from_bytes(archive.read(meta))
        scripts = archive.read(meta.replace("METADATA", "entry_points.txt")).decode()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"emojax"}
    held = {name for name in names if name.startswith("emojax/")}
    files = [path for path in (ROOT / "emojax").rglob("*.*") if path.suffix != ".pyc"]
    ours = {path.relative_to(ROOT).as_posix() for path in files}
    ours |= {f"emojax/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("configs/*.py")}
    assert held == ours - {"emojax/configs.py"}
    assert scripts.split() == ["[console_scripts]", "emojax", "=", "emojax.cli:main"]
    assert (about["Author"], about["License-Expression"]) == ("emojax developers", "Apache-2.0")
    assert "Typing :: Typed" in about.get_all("Classifier")
    extras = {"dev", "realtime", "signing", "slurm", "tracking"}
    assert extras <= {*about.get_all("Provides-Extra")}


@pytest.fixture(scope="module")
def alone(built, tmp_path_factory):
    """Returns start(*words), of a process in an empty folder that finds the wheel's content."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(site)

    def start(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "emojax", *map(str, words)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(site)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    start.folder = folder
    return start


def output(process, seconds=300):
    text, _ = process.communicate(timeout=seconds)
    return process.returncode, text


def test_its_configs_and_keys(alone):
    code, text = output(alone("configs"))
    assert code == 0
    assert sorted(line.split()[0] for line in text.splitlines()[:-2] if line[0] > " ") == NAMES
    code, text = output(alone("keys", "train.epochs", "--config=expA:demo"))
    assert code == 0 and text.startswith("train.epochs = 2 (default 5000)")
    assert output(alone("--version")) == (0, f"emojax {emojax.__version__}\n")


def test_from_nothing_to_a_report_a_decoder_and_the_live_page(alone):
    code, text = output(alone("run", "expA:demo", "--workdir=runs/demo", *SHORT))
    assert code == 0 and "report: " in text and "balanced accuracy" in text, text
    code, text = output(alone("compare", "runs/demo"))
    assert code == 0 and "expA:demo" in text, text
    code, text = output(alone("export", "expA:demo", "--workdir=runs/demo", *SHORT))
    assert code == 0 and text.strip().endswith("decoder"), text
    (alone.folder / "incoming").mkdir()
    port = 8765
    watch = alone("watch", "runs/demo/decoder", "incoming", "--out=session", f"--http={port}")
    try:
        page, until = "", time.monotonic() + 240
        while not page and watch.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    page = answer.read().decode()
            except OSError:
                time.sleep(0.2)
        assert "<html" in page, watch.poll()
    finally:
        watch.terminate()
        watch.communicate(timeout=60)


def test_the_sources_hold_tests_that_run(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    for name in ("launch.py", "README.md", "CHANGELOG.md", "requirements.txt", *TREE):
        assert (tree / name).exists()
    files = ["test_compare.py", "test_constraints.py", "test_readme_settings.py"]
    quiet = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, *(f"tests/{file}" for file in files)],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


USER = """
import jax.numpy as jnp
import numpy as np

import emojax
from emojax import anova, experiments
from emojax.configs import expA

scores = emojax.anova.f_scores(np.ones((8, 3), np.float32), np.arange(8) % 2, num_classes=2)
total: float = float(scores.sum())
config = expA.get_config("demo")
epochs: int = config.train.epochs
"""
MISTAKES = {
    "scores = emojax.anova.f_scores('volumes', np.arange(8), num_classes=2)": "arg-type",
    "scores = emojax.anova.f_score(np.ones((8, 3)), np.arange(8), num_classes=2)": "attr-defined",
    "emojax.nothing": "attr-defined",
    "name: str = emojax.anova.f_scores(np.ones((8, 3)), np.arange(8), num_classes=2)": "assignment",
    "experiments.run(config, workdir=3.5)": "arg-type",
}


def test_a_type_checker_sees_the_types(built, tmp_path):
    """mypy accepts correct code and finds each planted mistake, and nothing else."""
    pytest.importorskip("mypy")
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(tmp_path / "site")
    names = "\n".join(f"emojax.{name}" for name in emojax.__all__)
    lines = [USER, names, *MISTAKES]
    quiet = ["--no-error-summary", "--hide-error-context", "--follow-imports=silent"]
    (tmp_path / "user.py").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *quiet, "--cache-dir", tmp_path / "cache", "user.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": "", "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    first = "\n".join(lines[:2]).count("\n") + 2
    found = {
        (int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]"))
        for line in done.stdout.splitlines()
        if ": error: " in line
    }
    assert found == {(first + i, code) for i, code in enumerate(MISTAKES.values())}, done.stdout
