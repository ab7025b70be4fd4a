"""Names of acquisitions: numbers count as numbers."""

import pytest

from emojax.data.acquisitions import canonical, natural, number


@pytest.mark.parametrize(
    ("one", "other"),
    [("run-1", "run-01"), ("ses-2_run-003", "ses-02_run-3"), ("1", "001"), ("ra7", "ra07")],
)
def test_zeros_in_front_do_not_count(one, other):
    assert canonical(one) == canonical(other)


def test_what_is_no_number_stays():
    assert canonical("ses-pre_acq-b0x") == "ses-pre_acq-b0x" and canonical("run-0") == "run-0"
    assert canonical("run-1") != canonical("run-10")
    assert canonical("1" * 5000) == "1" * 5000 and canonical("\u0661") == "\u0661"


@pytest.mark.parametrize(
    ("text", "want"), [("007", "7"), ("0", "0"), ("00", "0"), ("a01", "a01"), ("", ""), ("²", "²")]
)
def test_zeros_before_a_number(text, want):
    assert number(text) == want
    assert number("9" * 5000) == "9" * 5000 == canonical("9" * 5000)


def test_numbers_sort_as_numbers():
    names = ["run-10", "run-2", "ses-1_run-1", "run-01", "b", "10", "9"]
    assert sorted(names, key=natural) == [
        "9",
        "10",
        "b",
        "run-01",
        "run-2",
        "run-10",
        "ses-1_run-1",
    ]
