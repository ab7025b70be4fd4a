"""Rules for settings: the allowed range as a test and in words."""

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from emojax.files import split_list


class Rule(NamedTuple):
    """The allowed range of a setting."""

    expected: str  # the range in words, for messages
    holds: Callable[[Any], bool]


def number(interval: str) -> Rule:
    """Returns a rule for numbers in an interval such as "[0, 1)"."""
    inside = _inside(interval)
    return Rule(f"a number in {interval}", lambda value: _is(value, Real) and inside(value))


def whole(interval: str) -> Rule:
    """Returns a rule for whole numbers in an interval such as "[1, inf)"."""
    inside = _inside(interval)
    words = f"a whole number in {interval}"
    return Rule(words, lambda value: _is(value, Integral) and inside(value))


def one_of(*known: Any) -> Rule:
    """Returns a rule for a choice among known values."""
    return Rule(f"one of {', '.join(map(repr, known))}", lambda value: value in known)


def some_of(*known: str, least: int = 1) -> Rule:
    """Returns a rule for a comma-separated list of at least `least` known names, each once."""

    def holds(value):
        found = split_list(value) if names.holds(value) else ()
        return (
            (len(found) >= least and {*found} <= {*known}) if found else value == "" and not least
        )

    return Rule(f"{'one' if least else 'none'} or more of {', '.join(known)}, each once", holds)


def each(rule: Rule, least: int = 0, most: int = 1000) -> Rule:
    """Returns a rule for a tuple of `least` to `most` values that all satisfy `rule`."""

    def holds(value):
        return _is_tuple(value) and least <= len(value) <= most and all(map(rule.holds, value))

    return Rule(f"{least} to {most} values, each {rule.expected}", holds)


def tuple_of(*rules: Rule) -> Rule:
    """Returns a rule for a tuple with one rule for each value."""

    def holds(value):
        return (
            _is_tuple(value)
            and len(value) == len(rules)
            and all(rule.holds(one) for rule, one in zip(rules, value, strict=True))
        )

    return Rule(f"{len(rules)} values: {', '.join(rule.expected for rule in rules)}", holds)


def check(rules: Mapping[str, Rule], values: Mapping[str, Any]) -> None:
    """Checks arguments against their rules.

    Raises:
      ValueError: an argument is out of range; the message names the first one.
    """
    for name, rule in rules.items():
        if not rule.holds(values[name]):
            raise ValueError(f"want {name}: {rule.expected}; got {values[name]!r}")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_tuple(value: Any) -> bool:
    return isinstance(value, tuple | list)


def _inside(interval: str) -> Callable[[Any], bool]:
    """Returns a test for an interval; NaN is in no interval."""
    low, high = map(float, interval[1:-1].split(","))
    ends = [
        end for end, closed in ((low, interval[0] == "["), (high, interval[-1] == "]")) if closed
    ]
    return lambda value: low < value < high or value in ends


def _has_no_repeats(value: Any) -> bool:
    found = split_list(value) if text.holds(value) else ()
    return text.holds(value) and len(set(found)) == len(found)


flag = Rule("True or False", lambda value: isinstance(value, bool))
text = Rule("text without NUL", lambda value: isinstance(value, str) and "\0" not in value)
names = Rule("names separated by commas, each once", _has_no_repeats)
