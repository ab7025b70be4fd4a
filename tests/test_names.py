"""One spelling of a name."""

import pytest

from emojax.data.names import loose, tidy


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (" neutral\t", "neutral"),
        ("neutral\u00a0", "neutral"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("n/a", ""),
        (" n/a ", ""),
        ("", ""),
        ("N/A", "N/A"),
        ("look  neutral", "look  neutral"),
        ("[red]\u4e2d\u6027", "[red]\u4e2d\u6027"),
    ],
)
def test_tidy(written, name):
    assert tidy(written) == name and tidy(name) == name


def test_loose_forgets_case_and_blanks():
    same = ("Look Neutral", "look neutral", "LOOKNEUTRAL", "look\u00a0neutral", "look\u200bneutral")
    assert {loose(name) for name in same} == {"lookneutral"}
    assert loose("STRA\u00dfE") == loose("strasse") and loose("a") != loose("b")
