"""Names and dotted paths of a config, and one line for those that lead nowhere."""

import sys

import pytest

from emojax.errors import InputError
from emojax.registry import Registry, resolve

NUMBERS = Registry("number", {"one": 1, "pi": "math:pi", "text": "os:sep"})


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Writes modules of a user into a folder on the path."""
    for name, text in {
        "own_things": "class Box:\n    inside = 7\n\nLEFT = 'x'\n",
        "own_needy": "import no_such_package_at_all\n",
        "own_typo": "def f(:\n",
        "own_refusing": "from own_things import missing\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_entries_are_objects_or_imported_on_first_use():
    assert NUMBERS["one"] == 1
    assert NUMBERS["pi"] == pytest.approx(3.14159, abs=1e-5)
    lazy = Registry("x", {"bad": "own_needy:x", "good": "math:pi"})
    assert lazy["good"]  # an entry that cannot be imported does no harm
    with pytest.raises(InputError, match="no_such_package_at_all"):
        lazy["bad"]


def test_it_is_a_mapping_of_its_names():
    assert [*NUMBERS] == ["one", "pi", "text"] and len(NUMBERS) == 3
    assert "one" in NUMBERS and "two" not in NUMBERS and "math:e" not in NUMBERS
    assert dict(Registry("x", {"a": 1}).items()) == {"a": 1}


def test_paths_need_no_registration():
    assert NUMBERS["math:e"] == pytest.approx(2.71828, abs=1e-5)
    assert NUMBERS["own_things:Box.inside"] == 7
    assert NUMBERS["own_things:LEFT"] == "x"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two", "number: found 'two'; expected one of one, pi, text, or 'package.module:name'"),
        ("", "number: found ''; expected one of one, pi, text, or 'package.module:name'"),
        ("own_nowhere:x", "number: found 'own_nowhere:x' (no module 'own_nowhere'); ex"),
        ("os.nowhere:x", "number: found 'os.nowhere:x' (no module 'os.nowhere'"),
        ("own_things:Box.outside", "number: found 'own_things:Box.outside' (type object 'Box' has"),
        ("own_things:", "number: found 'own_things:' (module 'own_things' has no attribute '')"),
        (":x", "number: found ':x' ("),
        ("own_needy:x", "number: found 'own_needy:x' (no module 'no_such_package_at_all')"),
        ("own_typo:f", "number: found 'own_typo:f' ("),
        ("own_refusing:x", "number: found 'own_refusing:x' (cannot import name 'missing'"),
        ("..relative:x", "number: found '..relative:x' (a relative path)"),
    ],
)
def test_refuses_in_one_line(name, message):
    with pytest.raises(InputError) as error:
        NUMBERS[name]
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_entries_may_have_to_be_of_one_class():
    boxes = Registry("box", {"three": 3}, of=int)
    assert boxes["three"] == 3 and boxes["own_things:Box.inside"] == 7
    with pytest.raises(InputError) as error:
        boxes["own_things:LEFT"]
    assert str(error.value) == (
        "box: found 'own_things:LEFT', an object of the class str; expected one of the class int"
    )


def test_a_module_that_fails_by_itself_shows_its_own_error(tmp_path):
    """A bug in a user's module shows its own traceback."""
    (tmp_path / "own_bug.py").write_text("x = 1\n1 / 0\n")
    with pytest.raises(InputError, match=r"ZeroDivisionError: .*own_bug.py, line 2\)"):
        resolve("number", "own_bug:x")
