"""BIDS data sets written from a cohort, and read back by `bids`."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest

from configs import common
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.sources import bids, synthetic
from emojax.sources.write_bids import write_bids


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns the config of a small simulated cohort, in a store that all tests share."""
    config = common.get_config()
    config.data.store = str(tmp_path_factory.mktemp("store"))
    config.data.progress = False
    config.data.synthetic.update({"subjects": 2, "volumes": 60, "grid": (20, 20, 14)})
    return config.data


@pytest.fixture
def make(data):
    return lambda: synthetic.load(data)


def test_written_bids_is_read_back(data, make, tmp_path):
    root = write_bids(data, tmp_path / "study")
    assert json.loads((root / "task-emotion_bold.json").read_text())["RepetitionTime"] == 2
    image = nib.load(root / "sub-01/func/sub-01_task-emotion_run-01_bold.nii.gz")
    assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units() == ("mm", "sec")
    assert image.header.get_zooms()[3] == 2
    again = bids.read(
        root, Store(tmp_path / "store"), label_map="rest=;neutral=neutral;negative=negative"
    )
    cohort = make()
    np.testing.assert_array_equal(again.labels, cohort.labels)
    np.testing.assert_array_equal(again.volumes[:], cohort.volumes[:])
    assert [run.name for run in again.runs] == [run.name for run in cohort.runs]
    np.testing.assert_allclose(again.affine("01"), cohort.affine("01"), atol=1e-5)
    assert list(tmp_path.glob(".study*")) == []


def test_written_bids_keeps_scaling_and_sessions(make, tmp_path):
    cohort = make()
    runs = tuple(
        dataclasses.replace(run, name=f"ses-1_{run.name}", slope=0.5, intercept=3.0)
        for run in cohort.runs
    )
    cohort = dataclasses.replace(cohort, runs=runs)
    root = write_bids(cohort, tmp_path / "study", events=lambda *_: [(15, 20, "a"), (55, 20, "b")])
    again = bids.read(root, Store(tmp_path / "store"), label_map="a=a;b=b")
    assert again.runs[0].name == "ses-1_run-01"
    np.testing.assert_array_equal(again.runs[0].read([0, 5]), runs[0].read([0, 5]))


def test_writing_refuses_a_folder_with_content_and_leaves_nothing_on_failure(make, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="study: found something there already"):
        write_bids(make(), tmp_path / "study", events=lambda *_: [])
    with pytest.raises(ValueError, match="want events"):
        write_bids(make(), tmp_path / "new")

    def fails(subject, run):
        raise RuntimeError(run)

    with pytest.raises(RuntimeError, match="run-01"):
        write_bids(make(), tmp_path / "new", events=fails)
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_writing_names_the_run_that_does_not_fit(make, tmp_path):
    cohort = make()
    for changed, words in (({"name": "first"}, "names such as"), ({"tr": None}, "TR None")):
        runs = (dataclasses.replace(cohort.runs[0], **changed), *cohort.runs[1:])
        with pytest.raises(InputError, match=words):
            write_bids(dataclasses.replace(cohort, runs=runs), tmp_path / "x", events=lambda *_: [])
