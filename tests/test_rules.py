"""Rules: numbers of an interval, choices, lists and tuples, and what they say."""

import math

import numpy as np
import pytest

from emojax import rules
from emojax.rules import each, flag, names, number, one_of, some_of, text, tuple_of, whole

NEVER = (math.nan, math.inf, -math.inf, None, "1", "", (), [], True, {}, 1j)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (number("[0, 1)"), (0, 0.0, 0.999, np.float32(0.5)), (-1e-9, 1, 1.0, 10**400)),
        (number("(0, 1]"), (1, 1e-300), (0, -0.0, 1.0001)),
        (number("(-inf, 1e20]"), (-1e308, 0, 1e20, -(10**400)), (1.1e20, 1e308)),
        (number("[0, inf)"), (0, 1e308, 10**400), (-1,)),
        (whole("[1, inf)"), (1, 10**400, np.int32(3)), (0, -1, 1.0, 2.5)),
        (whole("[-2, 1e6]"), (-2, 0, 10**6), (-3, 10**6 + 1)),
    ],
)
def test_numbers(rule, good, bad):
    assert all(map(rule.holds, good))
    assert not any(map(rule.holds, (*bad, *NEVER)))


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (flag, (True, False), (0, 1, "True", None)),
        (text, ("", "a\nb", "[/red]"), ("\0", "a\0b", 3, None, b"a")),
        (one_of("auto", "loop"), ("auto",), ("", "AUTO", None, 0, ("auto",))),
        (some_of("a", "b"), ("a", "b,a", " a , b,"), ("", ",,,", "a,a", "c", "a,c", 3, None)),
        (some_of("a", "b", least=0), ("", "a", "b,a"), ("a,a", "c", "a,c", 3, None)),
        (names, ("", "a", "a, b"), ("a,a", None, 3)),
        (each(whole("[1, 9]"), least=1, most=3), ((1,), [1, 2, 9]), ((), (1,) * 4, (0,), "123", 5)),
        (tuple_of(whole("[1, 9]"), flag), ((1, True), [9, False]), ((1,), (1, 1), (True, True), 1)),
    ],
)
def test_texts_and_tuples(rule, good, bad):
    assert all(map(rule.holds, good))
    assert not any(map(rule.holds, bad))


def test_they_say_what_they_expect():
    found = [
        number("[0, 1)").expected,
        whole("[1, inf)").expected,
        one_of("", "relu").expected,
        some_of("a", "b").expected,
        each(number("[0, 1)"), 2).expected,
        tuple_of(flag, flag).expected,
    ]
    assert found == [
        "a number in [0, 1)",
        "a whole number in [1, inf)",
        "one of '', 'relu'",
        "one or more of a, b, each once",
        "2 to 1000 values, each a number in [0, 1)",
        "2 values: True or False, True or False",
    ]
    with pytest.raises(ValueError, match=r"want rate: a number in \[0, 1\); got 7"):
        rules.check({"on": flag, "rate": number("[0, 1)")}, {"on": True, "rate": 7})
