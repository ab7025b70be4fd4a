"""Script that prints pinned versions of emojax's dependencies, for `pip install -c`.

    python constraints/pin.py > constraints/py312.txt    # with the Python and packages of the tests

The packages are the dependencies of emojax and its extras, directly or indirectly. `dev` is left
out, because no result depends on it.
"""

import importlib.metadata
import pathlib
import re
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = ("", "-realtime", "-signing", "-slurm", "-tracking")  # suffixes of requirements*.txt
TWINS = {"xgboost-cpu": "xgboost"}  # the same release under its name on macOS


def asked(text: str) -> list[Requirement]:
    """Returns the requirements of a file."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def closure(wanted: list[Requirement]) -> dict[str, str]:
    """Returns name -> version of all direct and indirect dependencies in this environment."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while wanted:
        each = wanted.pop()
        name = canonicalize_name(each.name)
        for extra in ("", *each.extras):
            if (name, extra) in seen or (each.marker and not each.marker.evaluate({"extra": ""})):
                continue
            seen.add((name, extra))
            package = importlib.metadata.distribution(name)
            found[name] = package.version
            for line in package.requires or ():
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    inner.marker = None
                    wanted.append(inner)
    return found


def main() -> None:
    """Prints the pins."""
    wanted = [r for part in FILES for r in asked((ROOT / f"requirements{part}.txt").read_text())]
    pins = closure(wanted)
    pins |= {twin: pins[name] for name, twin in TWINS.items() if name in pins}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(f"# Versions that the tests ran on: Python {version}, Linux x86_64, CPU.")
    print("# pip install . -c constraints/py" + version.replace(".", "") + ".txt")
    for name in sorted(pins):
        print(f"{name}=={pins[name]}")


if __name__ == "__main__":
    main()
