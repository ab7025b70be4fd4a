"""Label maps: order, separators in names, existing names, refusals."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.data import events
from emojax.data.label_map import escape, labelling, parse_label_map
from emojax.data.names import tidy
from emojax.errors import InputError


def make(*values):
    times = np.arange(len(values), dtype=float)
    return events.from_columns(pathlib.Path("events.tsv"), times, np.ones(len(values)), values)


def test_a_map_is_parsed_in_order():
    got = parse_label_map("rest= ; bad = fear|anger;good=joy;")
    assert list(got.items()) == [("rest", ()), ("bad", ("fear", "anger")), ("good", ("joy",))]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (r"a=scene\|calm|b", ("scene|calm", "b")),
        (r"a=x\;y", ("x;y",)),
        (r"a=x=y|u\=v", ("x=y", "u=v")),
        (r"a=C:\\img\new|x\\", (r"C:\img\new", "x\\")),
        (r"a=x\\|y", ("x\\", "y")),
        ("a=\"x\"|'y z'", ('"x"', "'y z'")),
        ("a= fear | fear|Cafe\u0301", ("fear", "Caf\u00e9")),
        (
            "a=[red]|:x:|\u4e2d\u6027|\u0441\u0442\u0440\u0430\u0445",
            ("[red]", ":x:", "\u4e2d\u6027", "\u0441\u0442\u0440\u0430\u0445"),
        ),
    ],
)
def test_names_with_separators(text, values):
    assert parse_label_map(text) == {"a": values}


def test_names_of_classes_may_have_separators():
    assert parse_label_map(r"a\=b\;c=x;d=") == {"a=b;c": ("x",), "d": ()}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
def test_what_is_escaped_is_read_back(names):
    names = tuple(dict.fromkeys(filter(None, map(tidy, names))))
    text = "some class=" + "|".join(map(escape, names))
    assert parse_label_map(text) == {"some class": names}


@pytest.mark.parametrize(
    "text", ["a", "a=x;a=y", "a=x;b=x", "=x", "rest=;gap=", "a=x;b= x ", r"a\=x"]
)
def test_refuses(text):
    with pytest.raises(InputError, match=r"data.label_map"):
        parse_label_map(text)


@pytest.mark.parametrize("text", ["rest=n/a;b=x", "rest=x|n/a"])
def test_n_a_is_no_value(text):
    with pytest.raises(InputError, match="n/a as a value of class 'rest'; expected values of ev"):
        parse_label_map(text)


def test_lists_what_exists():
    tables = [make("face", "house"), make("face")]
    assert labelling(tables, "", "trial_type").classes == ("face", "house")
    with pytest.raises(InputError, match=r"value 'faces' of class 'x'; .* face \(2\), house \(1\)"):
        labelling(tables, "rest=;x=faces", "trial_type")
    with pytest.raises(InputError, match=r"two or more, of trial_type: face \(2\), house \(1\)"):
        labelling(tables, "x=face", "trial_type")
    with pytest.raises(InputError, match=r"found classes none; .* trial_type: n/a"):
        labelling([make("n/a", "")], "", "trial_type")


def test_values_that_exist_are_listed_as_one_would_type_them():
    tables = [make("scene|calm", "a=b;c", "back\\slash", "n/a")]
    with pytest.raises(InputError) as error:
        labelling(tables, r"a=Scene \|Calm;b=a=b\;c", "trial_type")
    line = str(error.value)
    for typed in (r"scene\|calm (1)", r"a\=b\;c (1)", r"back\\slash (1)", "n/a (1)"):
        assert typed in line
    listed = line.partition("values of trial_type: ")[2].partition(" (")[0]
    found = labelling(tables, rf"a={listed};b=a\=b\;c", "trial_type")
    assert len(found.number) == 2


def test_a_value_of_almost_the_same_spelling_comes_first():
    with pytest.raises(InputError, match=r"values of trial_type: Neutral \(1\), angry"):
        labelling([make("angry", "calm", "Neutral")], "a=neutral;b=calm", "trial_type")


def test_an_empty_value_is_no_class():
    found = labelling([make("face", "", "n/a", " ", "house")], "", "trial_type")
    assert found.classes == ("face", "house") and found.baseline == -1


def test_a_spelling_with_blanks_or_in_parts_means_the_same():
    tables = [make("neutral", "neutral ", "Caf\u00e9")]
    found = labelling(tables, "a= neutral;b=Cafe\u0301", "trial_type")
    assert found.number == {"neutral": 0, "Caf\u00e9": 1}
