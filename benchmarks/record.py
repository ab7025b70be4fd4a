"""Where the numbers go, and what they belong to: device, versions, commit.

A benchmark writes to a file of its own in benchmarks/results. Where the environment has
EMOJAX_BENCH_JSON, all of them write to that one file instead, as benchmarks/gpu.sh has it.
"""

import argparse
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "nibabel", "torch")
VERSIONS += ("fmralign", "hyperalignment", "monai", "keras", "tensorflow-cpu")
ONE_FILE = "EMOJAX_BENCH_JSON"  # path in the environment


def keep(file, part, results):
    """Stores one part of a benchmark in results/<file>.json; the other parts stay."""
    path, name = place(file, part)
    write(path, read(path) | {name: {"environment": environment(), "results": results}})


def place(file, part):
    """Returns the file that holds a part of a benchmark, and the part's name in it."""
    if one := os.environ.get(ONE_FILE):
        return pathlib.Path(one), f"{file}, {part}"
    return RESULTS / f"{file}.json", part


def kept(file, part):
    """Returns the results that `keep` has stored, or {}."""
    path, name = place(file, part)
    return read(path).get(name, {}).get("results", {})


def read(path):
    """Returns what a file of results holds, or {} where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path, stored):
    """Writes JSON in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(stored, indent=1) + "\n")
    temporary.rename(path)


def demo030_arguments(about):
    """Parses the flags of a benchmark on a finished run of configs/expA.py:demo030."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--workdir", default="runs/demo030", type=pathlib.Path)
    parser.add_argument(
        "--print", action="store_true", help="print what is stored, measure nothing"
    )
    return parser.parse_args()


@functools.cache
def accelerator():
    """(platform, kind) of the device that jax uses, asked in a child so that memory stays free."""
    code = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep=chr(10))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(done.stdout.strip().splitlines()[-2:])


@functools.cache
def convolutions():
    """What computes emojax's 3D convolutions on the device that jax uses, see `onednn.path`."""
    code = "from emojax.models import onednn; print(onednn.path())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip().splitlines()[-1] if not done.returncode else None


def environment():
    """Device, versions and commit that the numbers belong to."""
    import importlib.metadata

    def version(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    platform, kind = accelerator()
    cpu = next(
        line.split(":")[1].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    cpu = f"CPU: {cpu}, {len(os.sched_getaffinity(0))} cores"
    return {
        "device": cpu if platform == "cpu" else f"{kind}; {cpu}",
        "python": sys.version.split()[0],
        "malloc": os.environ.get("GLIBC_TUNABLES"),
        "convolutions": convolutions(),
        "versions": {name: version(name) for name in VERSIONS},
        "commit": _git("rev-parse", "HEAD")
        + ("+changes" if _git("status", "--porcelain", "-uno") else ""),
        "date": time.strftime("%Y-%m-%d"),
    }


def _git(*words):
    """Returns what git says of this checkout; nothing where either is absent."""
    if not shutil.which("git"):
        return ""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
