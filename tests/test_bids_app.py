"""The BIDS App: what a small simulated study becomes, read back by other tools, and bad input."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import bids2table
import jax
import numpy as np
import pandas as pd
import pytest

import emojax
from emojax import cli, locks, sources
from emojax.bids_app import dataset, levels, names, output, pages, request, tables
from emojax.cli import bids as command
from emojax.data import cohort as cohorts
from emojax.data import store
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.report.schema import Result
from emojax.sources.write_bids import write_bids

LABELS = "rest=;neutral=neutral;negative=negative"
FAST = {
    "data.progress": False,
    "network": False,
    "align.regimes": "none",
    "baselines": "logistic",
    "voxels.keep": 20,
    "balance": 12,
    "mask.opening": 0,
    "null_floor": False,
    "permutations": 0,
    "within_subject": False,
    "crossed": "",
    "design": False,
    "maps": False,
    "audit": False,
}
VOLUMES, GRID = 66, (10, 9, 8)
FLAGS = ["--label-map", LABELS, *(f"--config.{key}={value}" for key, value in FAST.items())]


def app(*words):
    return cli.main(["emojax", "bids", *map(str, words)])


def blocks(subject, run):
    """Returns the events of a run: six blocks of 10 s, in another order in the second run."""
    kinds = ("neutral", "negative") if run.endswith("1") else ("negative", "neutral")
    return [(9 + 20 * i, 10, kinds[i % 2]) for i in range(6)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Writes a raw data set of four people with two runs each: boxes in which a corner responds."""
    rng, runs = np.random.default_rng(0), []
    for subject in ("01", "02", "03", "04"):
        for name in ("run-01", "run-02"):
            frames = rng.normal(0, 3, (VOLUMES, *GRID))
            frames[:, 1:-1, 1:-1, 1:-1] += 1000
            for onset, duration, kind in blocks(subject, name):
                shown = slice((onset + 5) // 2, (onset + duration + 5) // 2)
                frames[shown, 2:5, 2:5, 2:5] += 1.5 if kind == "negative" else -1.5
            frames = frames.astype(np.int16)
            runs.append(Run(subject, name, frames, tr=2.0, affine=np.diag([4.0, 4, 4, 1])))
    cohort = cohorts.build(runs, ("a",), [np.zeros(VOLUMES, int)] * len(runs))
    root = tmp_path_factory.mktemp("study") / "raw"
    return write_bids(cohort, root, events=blocks, task="faces", name="Faces & houses")


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    """Returns the output of both levels, and the files that the first level wrote."""
    out = tmp_path_factory.mktemp("derived") / "out"
    jax.config.update("jax_disable_most_optimizations", True)  # many small programs
    assert app(study, out, "participant", "--participant-label", "1", "sub-03", *FLAGS) == 0
    before = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert app(study, out, "group", *FLAGS) == 0
    yield out, before
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


def read(path):
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


# ---------------------------------------------------------------- the files written


def test_participants_get_labels_counts_and_a_page(done, study):
    out, before = done
    names_of = {str(path) for path in before}
    for label in ("01", "03"):
        stem = f"sub-{label}/func/sub-{label}_task-faces_run-02_desc-labels_events"
        assert {f"{stem}.tsv", f"{stem}.json", f"sub-{label}.html"} <= names_of
        assert f"emojax/sub-{label}/counts.csv" in names_of
    assert not any("sub-02" in name or "decoded" in name for name in names_of)
    counts = pd.read_csv(out / "emojax" / "sub-01" / "counts.csv").set_index("run")
    table = read(out / "sub-01/func/sub-01_task-faces_run-02_desc-labels_events.tsv")
    found = table["trial_type"].value_counts()
    assert found.to_dict() == counts.loc["run-02", ["rest", "neutral", "negative"]].to_dict()
    onset = table["onset"].astype(float)
    np.testing.assert_array_equal(onset, 2.0 * table["volume"].astype(int))  # TR 2 s
    assert set(table["duration"]) == {"2"}


def test_labels_are_those_of_the_events(done, study):
    """Every labelled volume lies inside an event of its class, 5 s later, or outside all events."""
    table = read(done[0] / "sub-01/func/sub-01_task-faces_run-01_desc-labels_events.tsv")
    events = pd.read_csv(study / "sub-01/func/sub-01_task-faces_run-01_events.tsv", sep="\t")
    for row in table.itertuples():
        middle = float(row.onset) + 1 - 5
        inside = (events.onset <= middle) & (middle < events.onset + events.duration)
        assert row.trial_type == (events.trial_type[inside].item() if inside.any() else "rest")


def test_decoded_events_are_the_predictions(done):
    """Another reader of BIDS finds them; they equal predictions.csv volume by volume."""
    out, _ = done
    table = pd.read_csv(
        out / "emojax" / "run" / "predictions.csv", dtype=str, keep_default_na=False
    )
    indexed = bids2table.index_dataset(str(out)).to_pandas()
    chosen = indexed[(indexed["desc"] == "decoded") & (indexed["ext"] == ".tsv")]
    assert len(chosen) == 4 * 2 and set(chosen["task"]) == {"faces"}
    total = 0
    for row in chosen.itertuples():
        found = read(out / row.path)
        own = table[(table["subject"] == row.sub) & (table["run"] == f"run-{int(row.run):02}")]
        assert list(found["volume"]) == list(own["frame"]) and len(found)
        assert list(found["onset"]) == list(own["time"])
        assert list(found["trial_type"]) == list(own["label"])
        for name in ("predicted", "p_rest", "p_neutral", "p_negative", "fold"):
            assert list(found[name]) == list(own[name])
        assert set(found["arm"]) == {"bag"}
        total += len(found)
    assert total == len(table)


def test_sidecars_describe_every_column(done):
    out, _ = done
    for path in out.glob("sub-*/func/*_events.tsv"):
        stated = json.loads(path.with_suffix(".json").read_text())
        assert set(read(path).columns) <= stated.keys()
        stem = path.name.partition("_desc-")[0]
        scan = f"bids:raw:{stem.partition('_')[0]}/func/{stem}"
        wanted = {f"{scan}_bold.nii.gz", f"{scan}_events.tsv", "bids:raw:task-faces_bold.json"}
        assert set(stated["Sources"]) == wanted
    levels = stated["trial_type"]["Levels"]
    assert list(levels) == ["rest", "neutral", "negative"] and LABELS in str(stated["trial_type"])


def test_description_says_who_made_it_of_what(done, study):
    stated = json.loads((done[0] / "dataset_description.json").read_text())
    (made,) = stated["GeneratedBy"]
    assert (made["Name"], made["Version"]) == ("emojax", emojax.__version__)
    assert stated["DatasetType"] == "derivative" and "Container" not in made
    link = done[0] / stated["DatasetLinks"]["raw"]
    assert (
        link.resolve() == study.resolve()
        and not pathlib.Path(stated["DatasetLinks"]["raw"]).is_absolute()
    )
    assert stated["SourceDatasets"] == [{"URL": stated["DatasetLinks"]["raw"]}]
    assert "Faces & houses" in stated["Name"]


def test_a_container_is_named(monkeypatch, study, tmp_path):
    config = command.load_config("study")
    asked = request.make(str(study), str(tmp_path / "out"), "group", config)
    monkeypatch.setenv("EMOJAX_CONTAINER_TYPE", "docker")
    monkeypatch.setenv("EMOJAX_CONTAINER_TAG", "emojax:1")
    made = dataset.describe(asked)["GeneratedBy"][0]
    assert made["Container"] == {"Type": "docker", "Tag": "emojax:1"}
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/emojax.sif")
    made = dataset.describe(asked)["GeneratedBy"][0]
    assert made["Container"] == {"Type": "apptainer", "Tag": "emojax:1"}
    assert not (tmp_path / "out").exists()


def test_pages_lead_to_files_that_exist(done):
    out, _ = done
    for page in [out / "report.html", *out.glob("sub-*.html")]:
        text = page.read_text()
        links = re.findall(r'<a href="(?!#)([^"]+)"', text)
        assert links and all((out / link.replace("%20", " ")).exists() for link in links)
    text = (out / "sub-02.html").read_text()
    table = pd.read_csv(out / "emojax/run/predictions.csv", dtype={"subject": str})
    own = table[table["subject"] == "02"]
    recall = (own["label"] == own["predicted"]).groupby(own["label"]).mean()
    assert f"{recall.mean():.3f} balanced accuracy over {len(own)} volumes" in text
    assert "report.html" in text and "chance 0.333" in text


def test_the_report_names_a_command_that_runs_it_again(done, study):
    """`emojax run` with the same settings finds the workdir finished."""
    metrics = json.loads((done[0] / "emojax" / "run" / "metrics.json").read_text())
    words = shlex.split(metrics["command"])
    assert words[:3] == ["emojax", "run", "study"]
    assert f"    emojax bids {study} {done[0]} group" in (done[0] / "README").read_text()
    kept = (done[0] / "emojax" / "run" / "metrics.json").stat().st_mtime_ns
    assert cli.main(words) == 0
    assert (done[0] / "emojax" / "run" / "metrics.json").stat().st_mtime_ns == kept


def test_a_person_who_was_not_scored_gets_a_page_that_says_so(done, study, tmp_path):
    asked = make(study, tmp_path / "out", label_map=LABELS, work_dir=str(done[0] / "emojax/store"))
    cohort = sources.load(asked.config.data)
    result = Result.load(done[0] / "emojax" / "run")
    others = result.predictions[result.predictions["subject"] != "02"]
    found = pages.render(cohort, "02", dict.fromkeys(pages.CAPTIONS, b""), [], result)
    assert "balanced accuracy over 132 volumes" in found
    result = dataclasses.replace(result, predictions=others)
    found = pages.render(cohort, "02", dict.fromkeys(pages.CAPTIONS, b""), [], result)
    assert "132 labelled volumes in 2 runs; none was scored." in found and "Scored" not in found
    assert len(tables.decoded(result, cohort, 2)) == 0  # of run-01 of 02


def test_citations_are_those_of_the_report(done):
    out, _ = done
    text = (out / "logs" / "CITATION.md").read_text()
    assert text.startswith("# Methods") and "## References" in text and "\n1. " in text
    assert "**Participants and data.**" in text and "**Results.**" in text
    same = (out / "emojax" / "run" / "references.bib").read_text()
    assert (out / "logs" / "CITATION.bib").read_text() == same and "@" in same


def test_running_again_changes_no_file(done, study, capsys):
    out, _ = done
    kept = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and "store" not in p.parts}
    (out / "sub-02/func/sub-02_task-old_desc-decoded_events.tsv").write_text("of an earlier run")
    assert app(study, out, "group", *FLAGS) == 0
    assert "finished before" in capsys.readouterr().out
    again = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and "store" not in p.parts}
    assert again == kept


# ---------------------------------------------------------------- the validator


def validated(root):
    """Returns the errors that the BIDS validator finds, without a network."""
    program = shutil.which("bids-validator-deno")
    if program is None:
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run(
        [program, "--json", str(root)],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
        timeout=120,
    )
    found = json.loads(done.stdout)["issues"]["issues"]
    return [issue for issue in found if issue["severity"] == "error"]


def test_the_validator_has_no_error_in_the_output(done):
    assert validated(done[0]) == []


def test_the_validator_accepts_decoded_events_as_events(done, tmp_path):
    """Its schema has no rule for events with a desc; without it, the same tables are checked."""
    copy = shutil.copytree(done[0], tmp_path / "copy", ignore=shutil.ignore_patterns("store"))
    lines = (copy / ".bidsignore").read_text().splitlines()
    kept = [line for line in lines if "decoded" not in line]
    assert len(kept) == len(lines) - 1
    (copy / ".bidsignore").write_text("\n".join(kept) + "\n")
    for path in copy.rglob("*_desc-decoded_events.*"):
        path.rename(path.with_name(path.name.replace("_desc-decoded", "")))
    assert validated(copy) == []
    broken = next(copy.glob("sub-01/func/*run-01_events.tsv"))
    broken.write_text(broken.read_text().replace("onset", "start"))
    assert validated(copy)


def test_the_validator_has_no_error_in_what_write_bids_writes(study):
    assert validated(study) == []


def test_the_validator_sees_errors(done, tmp_path):
    broken = shutil.copytree(done[0], tmp_path / "broken", ignore=shutil.ignore_patterns("store"))
    (broken / "sub-01" / "func" / "sub-01_nonsense.tsv").write_text("a\n1\n")
    assert validated(broken)


# ---------------------------------------------------------------- names and tables


@pytest.mark.parametrize(
    ("scan", "wanted"),
    [
        ("sub-1/func/sub-1_task-a_bold.nii.gz", "sub-1/func/sub-1_task-a"),
        (
            "sub-1/ses-x/func/sub-1_ses-x_task-a_acq-b_dir-AP_run-2_echo-1_space-T_desc-preproc_bold.nii",
            "sub-1/ses-x/func/sub-1_ses-x_task-a_acq-b_dir-AP_run-2",
        ),
    ],
)
def test_a_run_has_the_name_of_its_acquisition(scan, wanted):
    run = Run("1", "run-1", np.zeros((2, 3)), hashes={scan: "0"})
    assert names.of(run).file("decoded", "events", ".tsv") == f"{wanted}_desc-decoded_events.tsv"


def test_rows_of_several_arms_stay_apart():
    """A table with a row per arm (Experiment B) leaves noise out and keeps the arms' names."""
    run = Run("1", "run-1", np.zeros((3, 2)), tr=2.0, hashes={"sub-1/func/sub-1_bold.nii": "0"})
    cohort = cohorts.build([run], ("a", "b"), [np.array([0, -1, 1])])
    rows = [(arm, split, v, f) for arm, split, v in ARMS for f in (0, 2)]
    table = pd.DataFrame(rows, columns=["arm", "split", "values", "frame"])
    table = table.assign(subject="1", run="run-1", instance=0, fold="x", time=table["frame"] * 2.0)
    table = table.assign(label="a", predicted="b", p_a=np.nan, p_b=0.25)
    metrics = {"classes": ["a", "b"], "config": {}, "chosen_arm": None}
    metrics["arms"] = [{"name": name, "protocol": protocol} for name, protocol in PROTOCOL.items()]
    result = type("R", (), {"metrics": metrics, "predictions": table})()
    found = tables.decoded(result, cohort, 0)
    assert list(found["volume"]) == [0, 0, 2, 2] and list(found["onset"]) == [0, 0, 4, 4]
    assert list(found["arm"]) == ["by_run", "random"] * 2
    assert list(found["protocol"]) == ["strict", "leaky"] * 2
    stated = tables.decoded_sidecar(metrics, found, [])
    assert set(stated["protocol"]["Levels"]) == {"strict", "leaky"} and "split" in stated


ARMS = [("by_run", "by_run", "real"), ("random", "random", "real"), ("noisy", "by_run", "noise")]
PROTOCOL = {"by_run": "strict", "random": "leaky", "noisy": "strict"}


def test_cells_of_events(tmp_path):
    table = pd.DataFrame({"onset": [1 / 3, 2.0], "p": [np.nan, 1e-9], "x": ["", "a"]})
    tables.write(tmp_path / "new" / "t.tsv", table, {"x": {}})
    assert (
        tmp_path / "new" / "t.tsv"
    ).read_text() == "onset\tp\tx\n0.333333\tn/a\tn/a\n2\t1e-09\ta\n"


# ---------------------------------------------------------------- flags and filters


def make(study, out, **more):
    return request.make(str(study), str(out), "group", command.load_config("study"), **more)


def test_filters_of_flags_and_file_meet_in_the_config(study, tmp_path):
    file = tmp_path / "filter.json"
    wanted = {"task": "faces", "session": ["01", "02"], "run": 1, "echo": None, "suffix": "bold"}
    wanted |= {"reconstruction": ["norm", "raw"], "direction": "*"}
    file.write_text(json.dumps({"t1w": {"session": "9"}, "bold": wanted}))
    given = command.parser("x").parse_args(
        ["b", "o", "group", "--space", "space-MNI", "--res", "2"]
    )
    asked = make(study, tmp_path / "o", filter_file=str(file), filters=command._filters(given))
    data = asked.config.data
    assert (data.task, data.sessions, data.runs, data.space) == ("faces", "01,02", "1", "MNI")
    assert data.entities == "echo=none,rec=norm|raw,res=2"
    assert data.root == str(study) and data.events_root == "" and data.subjects == ""


def test_subjects_of_the_config_count(study, tmp_path):
    config = command.load_config("study")
    config.data.subjects = "sub-4,1"
    asked = request.make(str(study), str(tmp_path / "o"), "group", config)
    assert asked.labels == ("04", "01") and asked.config.data.subjects == "04,01"


def test_derivatives_take_events_of_the_raw_data(study, tmp_path):
    derived = tmp_path / "fmriprep"
    shutil.copytree(study, derived, ignore=shutil.ignore_patterns("*_events.tsv"))
    asked = make(study, tmp_path / "o", derivatives=str(derived), labels=["3", "sub-01", "03"])
    data = asked.config.data
    assert (data.root, data.events_root) == (str(derived), str(study))
    assert data.subjects == "03,01" and asked.labels == ("03", "01")
    stated = dataset.describe(asked)
    assert stated["DatasetLinks"].keys() == {"raw", "derivatives"}
    scan = derived / "sub-01" / "func" / "x_bold.nii.gz"
    assert dataset.source_uri(asked, str(scan)) == "bids:derivatives:sub-01/func/x_bold.nii.gz"


def test_both_spellings_of_flags(study, tmp_path):
    for dash in ("-", "_"):
        words = [f"--participant{dash}label", "01", "02", f"--skip{dash}bids{dash}validation"]
        words += [f"--n{dash}cpus", "2", f"--label{dash}map", "a=b"]
        given = command.parser("x").parse_args(["b", "o", "group", *words])
        assert given.participant_label == ["01", "02"] and given.skip_bids_validation
        assert given.n_cpus == 2 and given.label_map == "a=b"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RAW", "OUT", "grop"], "analysis level: found 'grop' (did you mean 'group'?); expected"),
        (["RAW", "OUT"], "flags: found the following arguments are required: analysis_level; ex"),
        (["RAW/none", "OUT", "group"], "none: found no such folder; expected the root of a BIDS"),
        (
            ["RAW", "OUT", "group", "--participant-label", "7"],
            "found '7'; expected one of 01, 02, ",
        ),
        (["RAW", "OUT", "group", "--participant_label", "012"], "found '012' (did you mean '02'?)"),
        (["RAW", "RAW", "group"], "the data set itself as output; expected a separate folder"),
        (["RAW", "RAW/sub-01/out", "group"], "found an output inside the data of"),
        (["RAW", "RAW/out", "group"], "found an output inside the data of"),
        (["RAW", "RAW/derivatives", "group"], "found the folder of all derivatives as output"),
        (["RAW", "FILE", "group"], "found a file; expected a separate folder"),
        (["RAW", "OTHER", "group"], "found another data set (other); expected a new folder"),
        (["RAW", "FILES", "group"], "found files without a dataset_description.json; expected"),
        (
            ["RAW", "OUT", "group", "--tsk", "x"],
            "flags: found unknown flag '--tsk' (did you mean '--task'?)",
        ),
        (["RAW", "OUT", "group", "--n-cpus", "0"], "--n-cpus: found 0; expected a whole number"),
        (["RAW", "OUT", "group", "--n-cpus", "x"], "invalid int value: 'x'"),
        (
            ["RAW", "OUT", "group", "--config.data.root=x"],
            "found --config.data.root; expected BIDS",
        ),
        (["RAW", "OUT", "group", "--config.data.tsk=x"], "unknown key data.tsk"),
        (
            ["RAW", "OUT", "group", "--config=expA:demo"],
            "found a config with data.source=synthetic",
        ),
        (["RAW", "OUT", "group", "--derivatives", "RAW/none"], "expected the root of BIDS derivat"),
        (["RAW", "OUT", "group", "--task", "rest"], "found no task-rest; expected one of faces"),
        (["RAW", "OUT", "participant", "--space", "T"], "found no space-T; expected one of none"),
        (["RAW", "OUT", "group", "--bids-filter-file", "FILE"], "found no readable JSON"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(study, tmp_path, capsys, words, said):
    (tmp_path / "FILE").write_text("{")
    (tmp_path / "FILES").mkdir()
    (tmp_path / "FILES" / "thesis.doc").write_text("")
    (tmp_path / "OTHER").mkdir()
    stated = json.dumps({"Name": "other", "BIDSVersion": "1.8.0"})
    (tmp_path / "OTHER" / "dataset_description.json").write_text(stated)
    before = sorted([*tmp_path.rglob("*"), *study.rglob("*")])
    place = {"RAW": study, "OUT": tmp_path / "OUT"}
    place |= {name: tmp_path / name for name in ("FILE", "FILES", "OTHER")}
    named = [re.sub("^[A-Z]+", lambda m: str(place.get(m[0], m[0])), word) for word in words]
    assert app(*named) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err
    assert sorted([*tmp_path.rglob("*"), *study.rglob("*")]) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "found another structure; expected a table such as"),
        ({"bold": []}, "found another structure"),
        ({"bold": {"datatype": "anat"}}, "found datatype 'anat'; expected datatype func"),
        ({"bold": {"datatype": [["func"]]}}, "found datatype [['func']]; expected datatype func"),
        ({"bold": {"suffix": {"a": 1}}}, "found suffix {'a': 1}; expected suffix bold"),
        ({"bolt": {"run": "1"}}, "filters of 'bolt' (did you mean 'bold'?); expected filters of"),
        ({"t1w": {}, "zzz": {}}, "found filters of 'zzz'; expected filters of \"bold\""),
        ({"bold": {"sesion": "1"}}, "found a filter by 'sesion' (did you mean 'session'?)"),
        ({"bold": {"subject": "01"}}, "found a filter by subject; expected --participant-label"),
        ({"bold": {"run": {"a": 1}}}, 'found run {"a": 1}; expected texts, numbers, null'),
        ({"bold": {"run": True}}, "found run true; expected texts, numbers"),
        ({"bold": {"task": ["a", "b"]}}, "found task a|b; expected one task"),
        ({"bold": {"res": "1"}}, "found res '1', and '2' as a flag; expected one of the two"),
    ],
)
def test_filters_that_cannot_be_used(study, tmp_path, content, said):
    file = tmp_path / "filter.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as refused:
        make(study, tmp_path / "o", filter_file=str(file), filters={"res": "2"})
    assert said in str(refused.value)


def test_an_experiment_that_refuses_its_data_leaves_nothing(study, tmp_path, capsys):
    words = ["group", "--participant-label", "01", "02", *FLAGS]
    assert app(study, tmp_path / "out", *words) == 2
    assert "found 2 (01, 02); expected 4 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [InputError, locks.Held])
@pytest.mark.parametrize("when", ["alone", "reads", "wrote", "runs"])
def test_a_refusal_leaves_what_another_job_does_in_the_same_output(study, tmp_path, when, error):
    """Two jobs start the same new output; the second is refused, whatever its moment."""
    config = command.load_config("study")
    with config.unlocked():
        config.data.label_map, config.data.progress = LABELS, False
    asked = request.make(str(study), str(tmp_path / "out"), "participant", config)
    with pytest.raises(error, match="damaged"), levels._nothing_left(asked, ("02",)):
        for label in ("01", "02")[when == "alone" :]:
            levels._read(asked, (label,))
        other = {"wrote": asked.out / "sub-01" / "x.tsv", "runs": asked.workdir / "config.json"}
        if when in other:
            other[when].parent.mkdir(parents=True)
            other[when].write_text("x")
        raise error("sub-02", "damaged", "whole")
    if when == "alone":
        assert asked.out.exists() == (error is locks.Held)
        return
    assert when not in other or other[when].exists()
    entries = store.entries(asked.out / output.FOLDER / output.STORE)
    left = {part for e in entries for part in pathlib.Path(e.source).parts if part[:4] == "sub-"}
    kept = ["sub-01"] if when == "reads" and error is InputError else ["sub-01", "sub-02"]
    assert sorted(part for part in left if "_" not in part) == kept


def test_an_output_of_another_study_is_refused(study, tmp_path):
    (tmp_path / "out").mkdir()
    stated = {"Name": "x", "GeneratedBy": [{"Name": "emojax"}], "DatasetLinks": {"raw": "../other"}}
    (tmp_path / "out" / "dataset_description.json").write_text(json.dumps(stated))
    with pytest.raises(InputError, match=r"an output of the data set \.\./other; expected a new"):
        output.check_output(study, study, tmp_path / "out")
    stated["DatasetLinks"]["raw"] = os.path.relpath(study, tmp_path / "out")
    (tmp_path / "out" / "dataset_description.json").write_text(json.dumps(stated))
    assert output.check_output(study, study, tmp_path / "out") == tmp_path / "out"


def test_a_participant_that_cannot_be_read_does_not_stop_the_others(study, tmp_path, capsys):
    copy = shutil.copytree(study, tmp_path / "raw")
    (copy / "sub-02" / "func" / "sub-02_task-faces_run-01_events.tsv").write_text("onset\n1\n")
    assert app(copy, tmp_path / "out", "participant", *FLAGS) == 2
    *lines, last = capsys.readouterr().err.splitlines()
    assert any(line.startswith("sub-02: ") and "a column 'duration'" in line for line in lines)
    assert last.startswith("participants: found 1 of 4 that cannot be used: sub-02; expected")
    assert (tmp_path / "out" / "sub-03.html").exists()
    assert not (tmp_path / "out" / "sub-02.html").exists()
    assert app(copy, tmp_path / "new", "participant", "--participant-label", "02", *FLAGS) == 2
    assert not (tmp_path / "new").exists()
