"""The entry point of all data: registered sources, a user's function, refusals."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from emojax import sources
from emojax.data import cleaning
from emojax.data.cleaning_settings import Settings
from emojax.data.cohort import Cohort, Prior
from emojax.errors import InputError

MODULE = """
    import numpy as np
    from emojax.data.cohort import build
    from emojax.data.run import Run

    NUMBER = 3

    def load(data):
        rng = np.random.default_rng(data.synthetic.seed)
        runs = [Run(s, "run-1", rng.normal(size=(8, 5)).astype("f4"), tr=2.0) for s in ("a", "b")]
        return build(runs, ("x", "y"), [np.arange(8) % 2] * 2)

    def nothing(data):
        return None

    class Tools:
        load = staticmethod(load)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Returns the name of an importable module with sources."""
    (tmp_path / "own_sources.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "own_broken.py").write_text("import no_such_package\n")
    (tmp_path / "own_typo.py").write_text("def load(data:\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_sources", "own_broken", "own_typo"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "own_sources"


def test_a_function_of_somebody_else(module, config):
    config.data.source = f"{module}:load"
    cohort = sources.load(config)
    assert isinstance(cohort, Cohort) and cohort.subjects == ("a", "b")
    np.testing.assert_array_equal(sources.load(config.data).volumes[:], cohort.volumes[:])
    config.data.synthetic.seed = 1
    assert (sources.load(config).volumes[:] != cohort.volumes[:]).all()
    config.data.source = f"{module}:Tools.load"
    assert sources.load(config).classes == ("x", "y")


def test_its_runs_are_cleaned_as_those_of_any_source(module, config):
    config.data.source, config.data.zscore = f"{module}:load", True
    cohort = sources.load(config)
    assert cohort.prior == (Prior("cleaning"),)
    np.testing.assert_allclose(cohort.runs[0].frames.mean(0), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (
            "nifti",
            "found 'nifti'; expected one of bids, spm, lab, arrays, maps, synthetic, or 'package",
        ),
        ("", "found ''; expected one of bids"),
        ("own_nowhere:load", "found 'own_nowhere:load' .*; expected an importable 'package.module"),
        ("own_sources:lode", "found 'own_sources:lode' .*; expected an importable"),
        ("own_sources:", "found 'own_sources:' .*; expected an importable"),
        (":load", "found ':load' .*; expected an importable"),
        ("own_broken:load", "found 'own_broken:load' .*no_such_package"),
        ("own_typo:load", "found 'own_typo:load' .*own_typo.py"),
        ("own_sources:NUMBER", "found 'own_sources:NUMBER'; expected the name of a function"),
        (
            "own_sources:nothing",
            "found 'own_sources:nothing', which returned NoneType; expected a function that return",
        ),
    ],
)
def test_refuses_in_one_line(module, config, source, match):
    config.data.source = source
    with pytest.raises(InputError, match=f"^data.source: {match}") as error:
        sources.load(config)
    assert "\n" not in str(error.value)


def test_takes_a_config_or_its_data(config, shared):
    config.data.update({"source": "arrays", "root": str(shared("data/finger7t"))})
    whole, part = sources.load(config), sources.load(config.data)
    np.testing.assert_array_equal(whole.labels, part.labels)
    assert whole.hashes == part.hashes and len(whole.subjects) == 7


def test_a_source_without_groups_refuses_a_column_of_them(module, config):
    config.data.source, config.data.group = f"{module}:load", "diagnosis"
    said = rf"^data.group: found 'diagnosis', and data.source={module}:load, which has no groups"
    with pytest.raises(InputError, match=rf"{said}; expected bids or maps \(or --config.data.gr"):
        sources.load(config)


def test_keys_of_cleaning_are_its_settings(config):
    assert {*sources.CLEANING} == {"smooth_mm", *Settings._fields}
    assert all(not config.data[key] for key in sources.CLEANING)  # off by default
    assert Settings is cleaning.Settings
    assert Settings(zscore=True, detrend=2).in_use == "data.detrend=2, data.zscore=True"


def test_sources_load_without_jax():
    """Counting a study does not import the training dependencies."""
    code = "import sys, emojax.sources; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
