"""`emojax compare`: one table over workdirs, and one line for a file that it cannot read."""

import copy
import csv
import json
import subprocess
import sys

import pytest

from emojax import cli
from emojax.cli import compare


def score(mean, sd=0.05, ci95=None):
    return {"balanced_accuracy": {"mean": mean, "sd": sd, "ci95": ci95}}


def arm(name, **more):
    own = {"name": name, "protocol": "calibrated", "strict": True, "regime": "group", "split": ""}
    own |= {"on_noise": False, "decoder": "", "draw": 0, "shares": "", "folds": []}
    return own | {"summary": {"network": {}, "baselines": {}}} | more


def metrics():
    """Returns the part of an Experiment A metrics.json that compare reads."""
    folds = [{"epoch": 1}, {"epoch": 2}]
    bag = arm("bag", decoder="bag", shares="nested", folds=[{"epoch": None}, {"epoch": None}])
    bag["summary"]["baselines"] = {"bag": score(0.789, 0.045, [0.741, 0.836])}
    nested = arm("nested", folds=folds)
    nested["summary"] = {"network": score(0.712, 0.074), "baselines": {}}
    return {
        "schema": 2,
        "experiment": "A",
        "command": "emojax run configs/expA.py:demo --workdir=runs/demo",
        "classes": ["calm", "fear"],
        "chance": 0.5,
        "network": "1D CNN",
        "device": "cpu",
        "versions": {"emojax": "0.4.0", "jax": "0.10.2"},
        "seconds": {"reading": 100.0, "training": 140.25},
        "data": {"subjects": 6, "runs": 12, "volumes": 2400},
        "arms": [bag, nested],
        "chosen_arm": None,
        "floor": {"nested": {"bag": {"mean": 0.501, "draws": [0.5, 0.502]}}},
        "permutation": {"p": 0.025, "classifier": "logistic"},
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name, content):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / "metrics.json").write_text(text)
        return name

    return make


def said(capsys, *words):
    code = cli.main(["emojax", "compare", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_table_of_two_runs(write, capsys):
    other = metrics()
    other |= {"arms": [copy.deepcopy(other["arms"][1])], "floor": {}, "permutation": None}
    other["arms"].append(arm("nested on noise", on_noise=True, strict=True))
    other["arms"][1]["summary"]["network"] = score(0.497)
    other |= {"command": "python launch.py --config configs/study.py", "seconds": {"all": 30000.0}}
    code, out, err = said(capsys, write("a", metrics()), write("b", other))
    assert code == 0 and not err
    lines = [" | ".join(part for part in line.split("  ") if part) for line in out.splitlines()]
    parts = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert parts == [
        list(compare.HEADER),
        [
            *("a", "expA:demo", "bag", "0.789 (0.045)", "0.741 - 0.836", "calibrated", "0.501"),
            *("0.025 (logistic)", "1D CNN 0.712", "1 - 2", "4 min", "6 subjects, 2,400 volumes"),
            "0.4.0",
        ],
        [
            *("b", "study", "nested", "0.712 (0.074)", "calibrated", "0.497", "1D CNN 0.712"),
            *("1 - 2", "8.3 h", "6 subjects, 2,400 volumes", "0.4.0"),
        ],
    ]


def test_no_numerical_package_is_imported(write):
    code = "import sys; from emojax import cli; cli.main(['emojax', 'compare', 'a']); "
    code += "assert not {'jax', 'numpy', 'pandas', 'rich'} & {*sys.modules}"
    write("a", metrics())
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_csv_has_the_numbers_as_they_are(write, capsys, tmp_path):
    code, _, err = said(capsys, write("a", metrics()), "--csv=table.csv")
    assert code == 0 and not err
    with open("table.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert [*row] == list(compare.NUMBERS)
    wanted = {"balanced_accuracy": "0.789", "low": "0.741", "high": "0.836", "on_noise": "0.501"}
    wanted |= {"p": "0.025", "p_of": "logistic", "seconds": "240.2", "classes": "calm, fear"}
    wanted |= {"network_balanced_accuracy": "0.712", "network_arm": "nested", "epoch_most": "2"}
    assert {key: row[key] for key in wanted} == wanted
    code, _, err = said(capsys, "a", "--csv=none/table.csv")
    assert code == 2 and "none/table.csv: found no such folder" in err
    (tmp_path / "folder").mkdir()
    code, _, err = said(capsys, "a", "--csv=folder")
    assert code == 2 and err == "folder: found a folder; expected a file in an existing folder\n"


def test_other_classes_are_said(write, capsys):
    other = metrics() | {"classes": ["a", "b", "c"], "chance": 1 / 3}
    code, out, _ = said(capsys, write("a", metrics()), write("b", other), write("c", metrics()))
    assert code == 0 and out.splitlines()[-1] == (
        "Scores are not comparable, because the classes differ: a, c: calm, fear (chance 0.500); "
        "b: a, b, c (chance 0.333)."
    )


def test_what_cannot_be_read_is_one_line_each(write, capsys, tmp_path):
    (tmp_path / "foreign").mkdir()
    broken = metrics()
    del broken["arms"]
    names = [write("good", metrics()), write("stopped", None), write("damaged", "{")]
    names += [write("old", {"schema": 1}), write("list", "[]"), write("parts", broken)]
    names += [write("chance", metrics() | {"chance": "half"})]
    names += [write("p", metrics() | {"permutation": {"p": "low", "classifier": "bag"}})]
    (tmp_path / "file").touch()
    code, out, err = said(capsys, *names, "foreign", "none", "file")
    assert code == 0 and len(out.splitlines()) == 2
    lines = dict(line.split(": ", 1) for line in err.splitlines())
    assert lines["stopped"].startswith("not finished (emojax run, with its config")
    assert lines["damaged"].startswith("metrics.json is damaged (Expecting property")
    assert lines["old"] == lines["list"]
    assert lines["old"] == "the result of another version of emojax, or of something else"
    assert all(lines[name].startswith("metrics.json lacks parts (") for name in ("chance", "p"))
    assert lines["parts"] == "metrics.json lacks parts (KeyError: 'arms')"
    assert lines["file"] == "a file, not a folder"
    assert lines["foreign"] == "not a workdir of emojax" and lines["none"] == "no such folder"
    code, out, err = said(capsys, "stopped", "none")
    assert code == 2 and not out and err.count("\n") == 3
    assert err.splitlines()[-1].startswith("compare: found no finished run; expected the workdir")
    assert said(capsys)[0] == 2


def test_a_narrow_terminal_gets_paragraphs():
    run = compare.Compared(compare._values("a", metrics()))
    lines = compare.lay_out([run.cells()], 80)
    assert lines[0] == "a" and max(map(len, lines)) <= 80
    assert "  balanced accuracy:  0.789 (0.045)" in lines
    assert len(compare.lay_out([run.cells()], 0)) == 2


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("emojax run expA:demo --workdir=w", "expA:demo"),
        ("emojax run --workdir=w --config=mine/study.py:B", "study:B"),
        ("python launch.py --config configs/expB.py --workdir=w", "expB"),
        ("emojax run --restart --workdir w --config.seed=2 haxby", "haxby"),
        ("emojax run --config.seed=2 --workdir w", ""),
        ("", ""),
        ("'", ""),
    ],
)
def test_the_config_of_a_command(command, config):
    assert compare.config_of(command) == config


def test_sweeps_and_splits(write, capsys):
    swept = metrics() | {"chosen_arm": "L2 0.001"}
    swept["arms"] = [arm("L2 0.1"), arm("L2 0.001", split="random", folds=[{"epoch": 7}])]
    swept["arms"][1]["summary"] = {"network": score(0.66, 0.0), "baselines": {}}
    assert said(capsys, write("a", swept), "--csv=a.csv")[0] == 0
    with open("a.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["headline"], row["balanced_accuracy"], row["low"]) == ("L2 0.001", "0.66", "")
