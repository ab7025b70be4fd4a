"""Storage of measurements, with the device, versions and commit that they belong to.

Each benchmark writes to a file of its own in benchmarks/results. If the environment has
EMOJAX_BENCH_JSON, all of them write to that one file instead, as in benchmarks/gpu.sh.
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
from collections.abc import Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn", "nibabel", "torch")
VERSIONS += ("fmralign", "hyperalignment", "monai", "keras", "tensorflow-cpu")
ONE_FILE = "EMOJAX_BENCH_JSON"  # path in the environment


def keep(file: str, part: str, results: Any, where: Mapping[str, Any] | None = None) -> None:
    """Stores one part of a benchmark in results/<file>.json; the other parts stay.

    Args:
      file: name of the file, without its ending.
      part: name of the part.
      results: content, as JSON has it.
      where: device, versions and date; default: those of this process.
    """
    path, name = place(file, part)
    write(path, read(path) | {name: {"environment": where or environment(), "results": results}})


def place(file: str, part: str) -> tuple[pathlib.Path, str]:
    """Returns the file that holds a part of a benchmark, and the part's name in it."""
    if one := os.environ.get(ONE_FILE):
        return pathlib.Path(one), f"{file}, {part}"
    return RESULTS / f"{file}.json", part


def kept(file: str, part: str) -> Any:
    """Returns the results that `keep` has stored, or {}."""
    path, name = place(file, part)
    return read(path).get(name, {}).get("results", {})


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a file of results, or {} if there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: pathlib.Path, stored: Mapping[str, Any]) -> None:
    """Writes JSON; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(stored, indent=1) + "\n")
    temporary.rename(path)


def make_parser(about: str | None) -> argparse.ArgumentParser:
    """Returns a parser of flags, with the first line of a docstring as its description."""
    return argparse.ArgumentParser(description=(about or "").partition("\n")[0])


def demo030_arguments(about: str | None) -> argparse.Namespace:
    """Parses the flags of a benchmark on a finished run of configs/expA.py:demo030."""
    parser = make_parser(about)
    parser.add_argument("--workdir", default="runs/demo030", type=pathlib.Path)
    parser.add_argument(
        "--print", action="store_true", help="print the stored results, measure nothing"
    )
    return parser.parse_args()


@functools.cache
def accelerator() -> tuple[str, str]:
    """Returns platform and kind of jax's device, found by a child so that memory stays free."""
    code = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep=chr(10))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    platform, kind = done.stdout.strip().splitlines()[-2:]
    return platform, kind


@functools.cache
def convolutions() -> str | None:
    """Returns what computes emojax's 3D convolutions on jax's device, see `onednn.path`."""
    code = "from emojax.models import onednn; print(onednn.path())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip().splitlines()[-1] if not done.returncode else None


def environment() -> dict[str, Any]:
    """Returns device, versions, commit and date, to which measurements belong."""
    import importlib.metadata

    def version(name: str) -> str | None:
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


def _git(*words: str) -> str:
    """Returns git's answer about this checkout, or "" without git or a repository."""
    if not shutil.which("git"):
        return ""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
