"""Facts of timing in sidecars: each is used for the windows of volumes, or refused."""

import pathlib

import numpy as np
import pytest

from emojax.errors import InputError
from emojax.sources import timing
from emojax.sources.inheritance import Facts

IMAGE = pathlib.Path("sub-01_task-emo_bold.nii.gz")
JSON = pathlib.Path("task-emo_bold.json")
SPARSE = [0.0, 10.0, 20.0, 35.0]


def read(header=None, tr=None, count=4, **facts):
    found = Facts(facts, dict.fromkeys(facts, JSON), [JSON])
    return timing.read(IMAGE, header, found, count, tr)


def test_a_tr_of_header_or_json_or_both():
    for got in (read(2.0), read(RepetitionTime=2), read(2.0005, RepetitionTime=2.0)):
        assert got.tr == pytest.approx(2.0, abs=1e-3) and got.starts is None
        np.testing.assert_allclose(got.windows.start, [0, 2, 4, 6], atol=2e-3)
        np.testing.assert_allclose(got.windows.stop, [2, 4, 6, 8], atol=2e-3)
    assert read(2.0, tr=1.5, RepetitionTime="?").tr == 1.5  # the user knows
    assert read(2000.0, tr=50.0).tr == 50.0


@pytest.mark.parametrize(
    ("facts", "tr", "start", "stop"),
    [
        ({"RepetitionTime": 10, "DelayTime": 8}, 10, [0, 10, 20, 30], [2, 12, 22, 32]),
        ({"RepetitionTime": 10, "DelayTime": 0}, 10, [0, 10, 20, 30], [10, 20, 30, 40]),
        ({"RepetitionTime": 10, "AcquisitionDuration": 2.5}, 10, [0, 10, 20, 30], 2.5),
        ({"RepetitionTime": 10, "AcquisitionDuration": 2, "DelayTime": 8}, 10, [0, 10, 20, 30], 2),
        ({"RepetitionTime": 2, "AcquisitionDuration": 2.0004}, 2, [0, 2, 4, 6], 2),
        ({"VolumeTiming": [0, 3, 6, 9]}, 3, [0, 3, 6, 9], 3),
        ({"VolumeTiming": [0, 3, 6, 9], "RepetitionTime": 3}, 3, [0, 3, 6, 9], 3),
        ({"VolumeTiming": [5, 8, 11, 14]}, 3, [5, 8, 11, 14], 3),
        ({"VolumeTiming": [0, 10, 20, 30], "AcquisitionDuration": 2}, 10, [0, 10, 20, 30], 2),
        ({"VolumeTiming": [0, 10, 20, 30], "DelayTime": 7}, 10, [0, 10, 20, 30], 3),
        (
            {"VolumeTiming": [0, 10, 20, 30], "SliceTiming": [0, 0.5, 1, 1.5]},
            10,
            [0, 10, 20, 30],
            2,
        ),
        ({"VolumeTiming": SPARSE, "AcquisitionDuration": 2}, None, SPARSE, 2),
        ({"VolumeTiming": SPARSE, "SliceTiming": [1.5, 0, 1, 0.5, 1.5, 0]}, None, SPARSE, 2),
        ({"RepetitionTime": 2, "SliceTiming": [0, 0.5]}, 2, [0, 2, 4, 6], 2),
        # fMRIPrep: the volumes show the middle of the TR, or another moment
        (
            {"RepetitionTime": 2, "SliceTimingCorrected": True, "StartTime": 0.95},
            2,
            [0, 2, 4, 6],
            2,
        ),
        ({"RepetitionTime": 2, "SliceTimingCorrected": True, "StartTime": 0}, 2, [-1, 1, 3, 5], 2),
        ({"RepetitionTime": 2, "SliceTimingCorrected": True, "StartTime": 2}, 2, [1, 3, 5, 7], 2),
        ({"RepetitionTime": 2, "SliceTimingCorrected": False, "StartTime": 0}, 2, [0, 2, 4, 6], 2),
        ({"RepetitionTime": 2, "StartTime": 0}, 2, [0, 2, 4, 6], 2),
        ({"RepetitionTime": 2, "StartTime": 2}, 2, [1, 3, 5, 7], 2),
        (
            {
                "RepetitionTime": 10,
                "DelayTime": 8,
                "SliceTimingCorrected": True,
                "StartTime": 0.967,
            },
            10,
            [0, 10, 20, 30],
            2,
        ),
        (
            {
                "RepetitionTime": 10,
                "DelayTime": 8,
                "SliceTimingCorrected": True,
                "StartTime": 0.0,
            },
            10,
            [-1, 9, 19, 29],
            2,
        ),
        (
            {
                "VolumeTiming": SPARSE,
                "AcquisitionDuration": 3.0,
                "SliceTimingCorrected": True,
                "StartTime": 3.0,
            },
            None,
            [1.5, 11.5, 21.5, 36.5],
            3,
        ),
    ],
)
def test_facts_are_used(facts, tr, start, stop):
    got = read(**facts)
    assert got.tr == tr and (got.starts is None) == (tr is not None)
    if tr is None:
        np.testing.assert_array_equal(got.starts, SPARSE)
    stop = np.add(start, stop) if np.ndim(stop) == 0 else stop
    np.testing.assert_allclose(got.windows.start, start, atol=1e-9)
    np.testing.assert_allclose(got.windows.stop, stop, atol=1e-9)


def test_data_tr_overrules_the_steps_but_not_the_pause():
    got = read(7.0, tr=10.0, RepetitionTime=3.0, VolumeTiming=[0, 1], DelayTime=8)
    assert got.tr == 10 and got.starts is None
    np.testing.assert_allclose(got.windows.stop - got.windows.start, 2)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, r"^sub-01.*: found no TR in header or JSON; expected .*\(or data.tr\).*--config.data"),
        (
            {"header": 2.0, "RepetitionTime": 2.5},
            "^sub-01.*TR 2 s in the header and 2.5 s in the J",
        ),
        ({"header": 2000.0}, "^sub-01.*found a TR of 2000 s; expected 0.1 to 30 s.*data.tr=2.0"),
        ({"header": 0.002}, "found a TR of 0.002 s; expected 0.1 to 30 s"),
        ({"RepetitionTime": 2000}, "^task-emo_bold.json: found a TR of 2000 s"),
        ({"RepetitionTime": 0}, "^task-emo_bold.json: found RepetitionTime 0"),
        ({"VolumeTiming": [0, 2000, 4000, 6000]}, "found a TR of 2000 s"),
        ({"VolumeTiming": [0, 2000, 4000, 7000]}, "found a step of VolumeTiming of 2000 s"),
        ({"VolumeTiming": [0, 2, 4]}, "VolumeTiming of 3 volumes; expected .* each of 4 volumes"),
        ({"VolumeTiming": [0, 2, 2, 4]}, "VolumeTiming 2, 2 of volumes 1 and 2; .* increasing"),
        ({"VolumeTiming": [0, 4, 2, 6]}, "VolumeTiming 4, 2 of volumes 1 and 2"),
        ({"VolumeTiming": [0, 2, "4", 6]}, "'4' in VolumeTiming"),
        ({"VolumeTiming": [-2, 0, 2, 4]}, "-2 in VolumeTiming"),
        ({"VolumeTiming": [0, float("inf"), 2, 4]}, "inf in VolumeTiming"),
        ({"VolumeTiming": 2.0}, "VolumeTiming 2.0; expected a list of seconds"),
        ({"VolumeTiming": []}, r"VolumeTiming \[\]"),
        ({"VolumeTiming": [0, 3, 6, 9], "RepetitionTime": 2}, "2 s in the JSON and 3 s in the Vol"),
        ({"VolumeTiming": SPARSE, "RepetitionTime": 10}, "several steps, and RepetitionTime"),
        ({"VolumeTiming": SPARSE}, "no AcquisitionDuration; expected AcquisitionDuration .*SliceT"),
        ({"VolumeTiming": SPARSE, "SliceTiming": [0, 0]}, "no AcquisitionDuration"),
        ({"VolumeTiming": SPARSE, "SliceTiming": [0, 500]}, "SliceTiming up to 500"),
        ({"VolumeTiming": SPARSE, "AcquisitionDuration": 11}, "AcquisitionDuration 11, and a vol"),
        ({"VolumeTiming": SPARSE, "DelayTime": 8}, "DelayTime, and VolumeTiming with several"),
        (
            {"RepetitionTime": 2, "AcquisitionDuration": 300},
            'AcquisitionDuration 300, and .*write "AcquisitionDuration": 2',
        ),
        ({"RepetitionTime": 2, "AcquisitionDuration": 0}, "AcquisitionDuration 0, and"),
        ({"RepetitionTime": 2, "DelayTime": 2}, "DelayTime 2, and a volume every 2 s"),
        (
            {"RepetitionTime": 10, "DelayTime": 8, "AcquisitionDuration": 3},
            "DelayTime 8 and AcquisitionDuration 3 of a TR of 10 s",
        ),
        (
            {"RepetitionTime": 2, "SliceTimingCorrected": True, "StartTime": 975},
            "StartTime 975, and a volume every 2 s",
        ),
        (
            {"RepetitionTime": 2, "SliceTimingCorrected": "yes", "StartTime": 1},
            "SliceTimingCorrected 'yes'; expected true or false",
        ),
    ],
)
def test_facts_are_refused(facts, said):
    with pytest.raises(InputError, match=said):
        read(**facts)


@pytest.mark.parametrize(
    ("facts", "length", "width"),
    [
        ({"RepetitionTime": 2}, 8.0, 2),
        ({"RepetitionTime": 2}, 7.3, 2),
        ({"RepetitionTime": 2, "DelayTime": 0.5}, 8.7, 1.5),
        ({"VolumeTiming": [0, 10, 20, 30]}, 40.0, 10),
        ({"VolumeTiming": SPARSE, "SliceTiming": [0, 0.5, 1, 1.5]}, 45.0, 2),
        ({"RepetitionTime": 3, "tr": 2.0}, 8.0, 2),
    ],
)
def test_a_duration_of_the_whole_run_says_nothing(facts, length, width):
    got = read(**facts, AcquisitionDuration=length)
    assert got.unused == JSON
    np.testing.assert_allclose(got.windows.stop - got.windows.start, width)
    assert read(**facts).unused is None
    with pytest.raises(InputError, match=r"AcquisitionDuration .*of one volume.*data.tr overrules"):
        read(**facts, AcquisitionDuration=1.3 * length)


@pytest.mark.parametrize("value", ["2", True, -1, [2], {}, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("key", ["RepetitionTime", "DelayTime", "AcquisitionDuration", "StartTime"])
def test_values_of_a_wrong_kind_name_the_key_and_the_file(key, value):
    with pytest.raises(InputError, match=rf"^task-emo_bold.json: found {key} ") as error:
        read(**{"RepetitionTime": 2.0, key: value})
    assert "\n" not in str(error.value)
