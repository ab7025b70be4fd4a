"""Slices that come one by one, in any order, become whole volumes."""

import dicom_files as files
import numpy as np
import pytest
from dicom_kinds import GE, PHILIPS, SHAPE, each, part_of, read

from emojax.errors import InputError
from emojax.online.dicom import slices


@pytest.mark.parametrize("about", [files.About(), GE, PHILIPS], ids=["XA", "GE", "Philips"])
def test_slices_come_in_any_order(about, tmp_path):
    volumes, affine = files.volumes(3), files.oblique()
    made = each(files.slices, about)(volumes, affine)
    order = np.random.default_rng(0).permutation(len(made))
    found, state = read(made, tmp_path, 0, order)
    for number, want in enumerate(volumes, 1):
        np.testing.assert_array_equal(found["magnitude", number].values, want)
        np.testing.assert_allclose(found["magnitude", number].affine, affine, atol=1e-5)
    assert slices.waiting(state) == []


def test_series_do_not_mix(tmp_path):
    volumes, affine = files.volumes(2), files.oblique()
    abouts = GE, GE._replace(number=6), GE._replace(echo=45.0)
    made = [files.slices(volumes[i % 2], affine, 1, about) for i, about in enumerate(abouts)]
    state, found = slices.init(), []
    for k in range(SHAPE[2]):
        for data in made:
            state, ready = slices.add(state, part_of(data[k], tmp_path, f"{k}.dcm"))
            found += [v.values for v in ready]
    for got, want in zip(found, volumes[[0, 1, 0]], strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_series_goes_on_under_another_uid(tmp_path):
    made = files.slices(files.volumes()[0], files.oblique(), 1, GE)
    made[4].SeriesInstanceUID += ".7"
    assert ("magnitude", 1) in read(made, tmp_path)[0]


def test_missing_late_and_repeated_slices(tmp_path):
    volumes, affine = files.volumes(2), files.oblique()
    made = files.slices(volumes[0], affine, 1, GE)
    parts = [part_of(data, tmp_path) for data in made]
    state = slices.init()
    for part in parts[:4] + parts[5:]:
        state, found = slices.add(state, part)
        assert found == []
    (lacking,) = slices.waiting(state)
    assert (lacking.number, lacking.have, lacking.want) == (1, 9, 10)
    assert slices.status(state, parts[0]) == "repeated"
    assert slices.status(state, parts[0]._replace(values=parts[0].values + 1)) == "conflict"
    assert slices.add(state, parts[0]) == (state, [])
    assert slices.status(state, parts[4]) == "new"
    given_up = slices.drop(state, lacking.series, lacking.number)
    assert slices.waiting(given_up) == []
    assert slices.status(given_up, parts[4]) == "late" and slices.add(given_up, parts[4])[1] == []
    state, (whole,) = slices.add(state, parts[4])
    np.testing.assert_array_equal(whole.values, volumes[0])
    assert slices.status(state, parts[4]) == "late"


def test_learns_how_many_slices_there_are(tmp_path):
    volumes = files.volumes(3)
    parts = [
        part_of(d, tmp_path) for d in each(files.slices, stated=False)(volumes, files.oblique())
    ]
    state, came = slices.init(), []
    for i, part in enumerate(parts):
        state, found = slices.add(state, part)
        came += [(i, v.number) for v in found]
    assert came == [(10, 1), (19, 2), (29, 3)]


def test_what_does_not_fit_is_refused(tmp_path):
    volume, affine = files.volumes()[0], files.oblique()
    parts = [part_of(d, tmp_path) for d in files.slices(volume, affine, 1, GE)]
    state = slices.add(slices.init(), parts[0])[0]
    with pytest.raises(InputError, match="slices of"):
        slices.add(state, parts[1]._replace(values=parts[1].values[:, 1:]))
    with pytest.raises(InputError, match="two orientations"):
        slices.add(state, parts[1]._replace(axes=parts[1].axes[:, [1, 0, 2]]))
    far = parts[9]._replace(positions=parts[9].positions + parts[9].axes[:, 2])
    with pytest.raises(
        InputError, match=r"bold, volume 1: found slices that are not evenly spaced"
    ):
        slices.assemble([*parts[:9], far], 1)
    made = files.slices(volume, affine, 2, GE, stated=False)[3]
    assert part_of(made, tmp_path).slices == 10  # by its images in the acquisition
    del made.ImagesInAcquisition
    bare = part_of(made, tmp_path)
    with pytest.raises(InputError, match="no number of slices"):
        slices.add(slices.init(), bare)
    assert [w.number for w in slices.waiting(slices.add(slices.init(10), bare)[0])] == [2]
    with pytest.raises(InputError, match="slices"):
        slices.init(-1)


def test_memory_is_bounded(tmp_path):
    part = part_of(files.slices(files.volumes()[0], files.oblique(), 1, PHILIPS)[0], tmp_path)
    state = slices.init()
    for number in range(1, 1000):
        state, _ = slices.add(state, part._replace(number=number))
    assert len(state.open) == slices.MOST_OPEN
    assert [len(done) for done in state.done.values()] == [slices.REMEMBERED]


@pytest.mark.parametrize(
    "number, acquisition, series", [(7001, 1, 7), (7999, 999, 7), (8000, 1000, 7), (11001, 40, 11)]
)
def test_series_of_split_images(number, acquisition, series, tmp_path):
    made = files.slices(files.volumes()[0], files.oblique())[0]
    made.SeriesNumber, made.AcquisitionNumber = number, acquisition
    part = part_of(made, tmp_path)
    assert (part.series.number, part.number) == (series, acquisition)
