"""Files that an experiment reads beside its cohort belong to the identity of the run."""

import pytest
from small_studies import make_cohort, make_values

from emojax.data import identity
from emojax.errors import InputError
from emojax.experiments import experiment_a


def test_another_atlas_is_another_input(config, tmp_path):
    path = tmp_path / "atlas.nii.gz"
    path.write_bytes(b"one")
    cohort = make_cohort(*make_values(), tr=2.0)
    config.align.regimes, config.align.parcels = "none", str(path)
    assert experiment_a.files(config) == []  # nothing is aligned by parcels
    config.alignments = "none,piecewise:ridge"
    assert experiment_a.files(config) == [str(path)]
    before = identity.describe(cohort, experiment_a.files(config))
    identity.check_same(before, identity.describe(cohort, [str(path)]))
    path.write_bytes(b"two")
    with pytest.raises(InputError, match=r"atlas\.nii\.gz: found other content than the run"):
        identity.check_same(before, identity.describe(cohort, [str(path)]))
    config.align.parcels = "ward:5"
    assert experiment_a.files(config) == []
