"""The headline of every config and variant in configs/ becomes a decoder that replays it."""

import json

import numpy as np
import pytest
from shipped import ALL, get_config, tiny

from emojax import decoder, experiments, online, sources
from emojax.errors import InputError
from emojax.experiments.exports import rows
from emojax.experiments.exports.command import export
from emojax.report import predictions

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_the_headline_is_replayed(name, variant, tmp_path, shared, quick_compile):
    """One run, replayed volume by volume as scanned, has the probabilities of predictions.csv."""
    config = get_config(name, variant)
    tiny(config, tmp_path, shared)
    if config.null:
        with pytest.raises(InputError, match=r"found a run on noise \(null=True\)"):
            export(config, tmp_path / "run")
        return
    experiments.run(config, tmp_path / "run")
    if config.get("sweep", ()):
        with pytest.raises(InputError, match=r"expected a run with only this penalty \(--config"):
            export(config, tmp_path / "run")
        return
    made = decoder.load(export(config, tmp_path / "run"))
    found, wanted = both(made, config, tmp_path / "run")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def both(made, config, folder):
    """Returns the probabilities of the run that a decoder is for: its own, and the report's."""
    metrics = json.loads((folder / "metrics.json").read_text())
    table = predictions.read(folder / "predictions.csv", metrics["classes"])
    reported = rows.reported(metrics, table, rows.choose(metrics, "", 0))
    if made.facts.subject:
        reported = reported[reported["subject"] == made.facts.subject]
    where = ["subject", "run", "fold"]
    last = reported.iloc[-1][where]
    reported = reported[(reported[where] == last).all(axis=1)]
    run = next(
        one
        for one in sources.load(config.data).runs
        if (one.subject, one.name) == (last["subject"], last["run"])
    )
    volumes = (run.uncleaned or run).read(slice(None))
    records = online.replay(made, volumes, run.affine, correct="none")
    found = np.stack([record.probabilities for record in records])
    return found[reported["frame"]], rows.probabilities(reported, metrics["classes"])
