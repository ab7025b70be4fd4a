"""docs/settings.md names what each config sets; the README's numbers are those that are stored."""

import importlib
import json
import pathlib
import re

import pytest

from benchmarks import evidence, paper_settings, realtime, scanner
from configs import common

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
PLACE = ("data.source", "data.root")  # of a study's files


def sections():
    """Config and variant -> the keys that its tables name, with values where they have some."""
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


def test_the_readme_has_the_stored_measurements_of_the_published_settings():
    stored = json.loads((ROOT / "benchmarks/results/paper_settings_cpu.json").read_text())
    found, step = stored["experiment A"]["results"], stored["experiment B"]["results"]["step"]
    section = README.split("## What the published settings do\n")[1].split("\n## ")[0]
    assert "\n".join(paper_settings.table(found["summary"])) in section
    logistic = found["logistic"]
    assert f"{logistic['monitored']:.2f} / {logistic['test']:.2f}." in section
    cost = f"{step['core_seconds']:.0f} core seconds and {step['step_gigabytes']} GB"
    assert cost in section
    assert f"about {step['core_days_of_the_training_extrapolated']} days" in section
    assert all(len(row["curves"]["accuracy"]) == found["epochs"] == 2 for row in found["rows"])


def test_decoder_md_has_the_stored_tables_of_the_scanner():
    stored = json.loads((scanner.RESULTS / "scanner_cpu.json").read_text())
    tables = scanner.markdown(stored["demo030"]["results"])
    assert tables in (ROOT / "docs" / "decoder.md").read_text()


def test_realtime_md_has_the_stored_tables():
    text = (ROOT / "docs" / "realtime.md").read_text()
    for name, part, module in [("evidence", "demo030", evidence), ("realtime", "rows", realtime)]:
        stored = json.loads((scanner.RESULTS / f"{name}_cpu.json").read_text())
        assert module.markdown(stored[part]["results"]) in text
    stored = json.loads((scanner.RESULTS / "realtime_cpu.json").read_text())
    assert realtime.sentence(stored["day"]["results"]) in " ".join(text.split())  # lines are filled
    assert realtime.markdown(stored["rows"]["results"]) in README
