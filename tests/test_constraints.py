"""The pinned versions: every requirement is there, and in its range."""

import importlib.util
import pathlib
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "constraints").glob("py*.txt"))


def load():
    spec = importlib.util.spec_from_file_location("pin", ROOT / "constraints" / "pin.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_one_for_each_python():
    assert [path.stem for path in FILES] == ["py311", "py312"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_in_its_range(path):
    pins = dict(line.split("==") for line in path.read_text().splitlines() if line[0] != "#")
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in pins) and len(pins) > 60
    pin = load()
    for part in pin.FILES:
        for each in pin.asked((ROOT / f"requirements{part}.txt").read_text()):
            version = pins[canonicalize_name(each.name)]
            assert each.specifier.contains(version, prereleases=True), each
    assert pins["xgboost"] == pins["xgboost-cpu"]


def test_a_closure_follows_the_requirements_of_requirements():
    found = load().closure([Requirement("scikit-learn"), Requirement("nosuch; python_version<'3'")])
    assert {"scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl"} <= found.keys()
    assert "pytest" not in found and "nosuch" not in found
