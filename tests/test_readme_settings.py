"""docs/settings.md names the settings of each config, with their values."""

import importlib
import pathlib
import re

import pytest

from configs import common

ROOT = pathlib.Path(__file__).resolve().parents[1]
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
PLACE = ("data.source", "data.root")  # the place of a study's files


def sections():
    """Returns {(config, variant): the keys in its tables, with their values if given}."""
    out = {}
    for part in SETTINGS.split("\n## ")[1:]:
        if found := re.match(r"`configs/(\w+)\.py(?::(\w+))?`\n", part):
            cells = [row.split("|")[1] for row in part.splitlines() if row.startswith("| `")]
            named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
            out[found.groups(default="")] = dict(name.partition("=")[::2] for name in named)
    return out


def flat(node, at=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{at}{key}.")
        else:
            yield at + key, value


SECTIONS = sections()


def test_every_config_has_a_section():
    names = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__", "common"}
    assert {name for name, _ in SECTIONS} == names
    assert {("expA", "authors"), ("expA", "demo"), ("expB", "demo")} <= SECTIONS.keys()


@pytest.mark.parametrize(("name", "variant"), SECTIONS)
def test_settings_md_names_every_key_that_a_config_sets(name, variant):
    module, named = importlib.import_module(f"configs.{name}"), SECTIONS[name, variant]
    config = module.get_config(variant) if variant else module.get_config()
    values = dict(flat(config.to_dict()))
    defaults = dict(flat(common.get_config(config.experiment).to_dict()))
    changed = {key for key, value in values.items() if value != defaults[key]} - {*PLACE}
    assert changed <= named.keys()
    assert named.keys() <= values.keys()
    stated = {key: value for key, value in named.items() if value}
    assert stated == {key: str(values[key]) for key in stated}
