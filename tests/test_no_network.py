"""Runs without a network: the bag and classical classifiers alone, from the arms to the page."""

import pytest
from small_studies import make_cohort, make_values

from emojax import experiments
from emojax.errors import InputError
from emojax.experiments import experiment_a
from emojax.scoring.baselines import NUISANCE


@pytest.fixture
def small(config):
    """Returns settings for small vectors, without a network."""
    config.voxels.keep, config.balance, config.network = 20, 6, False
    config.update({"protocols": "nested", "baselines": "LDA,logistic", "null_floor": False})
    config.update({"permutations": 0, "design": False, "crossed": "", "within_subject": False})
    config.align.regimes = "none,group"
    return config


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(*make_values(), tr=2.0)


def test_classical_classifiers_stand_with_the_bag(small, cohort):
    arms = experiment_a.arms(small, cohort)
    assert [(arm.name, arm.decoder, arm.shares) for arm in arms] == [
        ("bag", "bag", ""),
        ("logistic n-1", "logistic", "bag"),
        ("LDA", "LDA", "bag"),
        (NUISANCE, NUISANCE, "bag"),
    ]
    assert arms[0].baselines == ("bag", "logistic", "LDA", NUISANCE)


@pytest.mark.slow
def test_a_run_ends_with_a_report_and_no_network(small, cohort, tmp_path):
    result = experiments.run(small, tmp_path, cohort)
    arms = result.metrics["arms"]
    assert [arm["name"] for arm in arms] == ["bag", "logistic n-1", "LDA", NUISANCE]
    assert not any(arm["summary"]["network"] for arm in arms)
    assert result.metrics["audit"]["measured"]
    page = (tmp_path / "report.html").read_text()
    assert "LDA" in page and not list((tmp_path / "figures").glob("*curves*"))
    again = experiments.run(small, tmp_path, cohort)
    assert again.metrics == result.metrics


@pytest.mark.parametrize(
    "changes", [{"headline": "network"}, {"headline": "auto"}, {"protocols": "nested,paper"}]
)
def test_what_needs_a_network_is_refused(small, changes):
    small.update(changes)
    with pytest.raises(InputError, match=r"network: found False; .*--config.headline=bag"):
        experiment_a.check(small)
