"""The failing inputs that were collected on 0.3.0, each with the right answer."""

import os
import pathlib

import pytest
from acceptance import cases

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT.parent / "shared" / "cases"
PATHS = sorted(FOLDER.glob("[0-9]*.py"))


def test_the_cases_are_there():
    if not PATHS and not os.environ.get("EMOJAX_REQUIRE_SHARED"):
        pytest.skip("no ../shared/cases")
    assert len(PATHS) >= 23


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_0_3_0_got_wrong_is_handled(path):
    code, said = cases.run(path, ROOT)
    assert code == 0, said[-2000:]
