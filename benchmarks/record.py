"""Where the numbers go, and what they belong to: device, versions, commit."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "nibabel", "torch")
VERSIONS += ("fmralign", "hyperalignment", "monai", "keras")


def keep(file, part, results):
    """Stores one part of a benchmark in results/<file>.json; the other parts stay."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{file}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored[part] = {"environment": environment(), "results": results}
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


def accelerator():
    """(platform, kind) of the device that jax uses, asked in a child so that memory stays free."""
    code = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep=chr(10))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(done.stdout.strip().splitlines()[-2:])


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
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    cpu = f"CPU: {cpu}, {len(os.sched_getaffinity(0))} cores"
    return {
        "device": cpu if platform == "cpu" else f"{kind}; {cpu}",
        "python": sys.version.split()[0],
        "malloc": os.environ.get("GLIBC_TUNABLES"),
        "versions": {name: version(name) for name in VERSIONS},
        "commit": commit.strip() + ("+changes" if dirty.stdout.strip() else ""),
        "date": time.strftime("%Y-%m-%d"),
    }
