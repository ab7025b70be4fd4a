"""State of the machine that runs benchmarks/gpu.sh, and how each part ended.

    python -m benchmarks.gpu_check

Prints and stores the device, the driver, and the packages that parts need and do not find. Packages
of emojax are required; without a peer's packages the peer is left out.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess

from benchmarks.record import ONE_FILE, RESULTS, environment, keep, make_parser, read, write

# Modules that the parts import: emojax' requirements, and peers.
NEEDED = ("jax", "flax", "optax", "orbax", "numpy", "scipy", "sklearn", "jaxtyping", "nibabel")
NEEDED += ("ml_collections", "pandas", "matplotlib", "psutil", "joblib", "flatbuffers")
PEERS = ("torch",)


def missing(modules):
    """Returns the modules that cannot be imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def driver():
    """Returns the GPU's name, driver and memory by nvidia-smi, or None."""
    if not shutil.which("nvidia-smi"):
        return None
    command = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total",
        "--format=csv,noheader",
    ]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def ended(name: str, limit: str, seconds: str, code: str) -> None:
    """Stores how a part ended; copies the file to benchmarks/results if it is all a GPU's."""
    path = pathlib.Path(os.environ[ONE_FILE])
    found = read(path)
    facts = {"limit_s": int(limit), "seconds": int(seconds), "exit_code": int(code)}
    found["parts"] = found.get("parts", {}) | {name: facts}
    write(path, found)
    devices = {own["environment"]["device"] for own in found.values() if "environment" in own}
    if devices and not any(device.startswith("CPU") for device in devices):
        write(RESULTS / "gpu.json", found)


def main():
    parser = make_parser(__doc__)
    words = ("PART", "LIMIT", "SECONDS", "CODE")
    parser.add_argument("--ended", nargs=4, metavar=words, help="store how a part ended")
    args = parser.parse_args()
    if args.ended:
        return ended(*args.ended)
    found = {"driver": driver(), "missing": missing(NEEDED), "missing_peers": missing(PEERS)}
    print(json.dumps(environment() | found, indent=1))
    keep("gpu_check", "machine", found)
    if found["missing"]:
        raise SystemExit(f"not installed: {', '.join(found['missing'])}")


if __name__ == "__main__":
    main()
