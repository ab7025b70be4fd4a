"""Methods, references, limits, tuned settings and commands of a report, from metrics.json alone."""

import copy
import json
import re
import shlex

import hand_made
import pytest

from configs import common, expA, expB
from emojax.cli import commands, flags
from emojax.records import Arm, ArmResult
from emojax.report import page, results
from emojax.report.paper import checks, limits, methods, references, reruns, tuned
from emojax.report.paper.works import WORKS
from emojax.report.schema import Result

KINDS = ("left_out", "by_split", "sweep", "classical")
ENTRY = re.compile(r"@(\w+)\{([\w-]+),\n((?:  \w+ = \{.*\},\n)+)\}\n")
COMMAND = "python launch.py --config=configs/expA.py:demo --workdir=runs/a --config.balance=20"


def of(kind="left_out", **changes):
    """Returns the content of metrics.json of a small study that a test may change."""
    return copy.deepcopy(hand_made.finished(kind)[0].metrics) | changes


def real(variant="demo", make=expA.get_config, **changes):
    """Returns the same with a whole configuration."""
    config = make(variant).to_dict()
    config = json.loads(json.dumps(config))
    kind = "by_split" if config["experiment"] == "B" else "left_out"
    return of(kind, config=config, command=COMMAND) | changes


def with_bag():
    """Returns metrics whose headline is a bag, beside one logistic regression and a network."""
    cohort, found = hand_made.left_out()
    arm = Arm("bag", "calibrated", regime="independent_runs", decoder="bag")
    whole = Arm("logistic n-1", "calibrated", regime="independent_runs", decoder="logistic")
    folds = []
    for i, fold in enumerate(found[0].folds):
        both = hand_made.classical(cohort, fold.fold.test, {"bag": 2.5, "logistic": 1.0}, i)
        folds.append(fold._replace(outcomes=(), baselines=both))
    ours = [ArmResult(a, a.protocol, tuple(folds)) for a in (arm, whole)]
    metrics = results.summarise("A", of()["config"], cohort, [*ours, *found])
    for fold in metrics["arms"][0]["folds"]:
        fold["baselines"]["bag"]["members"] = {"C": [0.001, 0.01, 0.001], "temperature": [1, 2, 1]}
    return metrics | {"config": json.loads(json.dumps(expA.get_config("demo").to_dict()))}


def text_of(metrics):
    found = methods.make(metrics)
    return " ".join(paragraph.text for paragraph in found.paragraphs)


def everything(metrics):
    """Returns all that is written for a paper, in one text."""
    table = tuned.table(metrics)
    parts = [text_of(metrics), *limits.sentences(metrics), table.note]
    parts += [cell for row in table.rows for cell in row]
    return " ".join([*parts, *(check.found for check in checks.make(metrics))])


def analysed(p=0.7, null=0.34, gain=(0.02, 0.12)):
    """Returns the entries that the analyses add to metrics.json."""
    score = {"mean": 0.444, "ci95": [0.401, 0.487]}
    crossed = score | {"null": {"mean": null, "sd": 0.031, "draws": 99}, "p": p}
    crossed |= {"permuted": "rows", "leaving_subjects_out": score | {"mean": 0.519}}
    middle = {"difference": sum(gain) / 2, "ci95": list(gain), "p": 0.04}
    return {
        "permutation": {
            "classifier": "logistic",
            "p": 0.01,
            "observed": 0.777,
            "null": [0.3 + 0.001 * i for i in range(99)],
            "scheme": "blocks within runs",
            "blocks": 48,
            "least_p": 0.01,
        },
        "crossed": {"priming": {"logistic": crossed}, "stimulus": {"left out": "one level"}},
        "within_subject": {"LDA-shrinkage": score | {"minus_cross_subject": middle}},
        "design": {
            "lookup": {"accuracy": 1.0, "chance": 0.5, "matched": 1.0},
            "nuisance": {"columns": ["time"], "logistic": score},
            "subject_and_run_out": None,
        },
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_paragraphs_have_the_numbers_of_the_run(kind):
    metrics = of(kind)
    text = text_of(metrics)
    head = next(a for a in metrics["arms"] if a["name"] == (metrics["chosen_arm"] or a["name"]))
    summary = head["summary"]["network"] or next(iter(head["summary"]["baselines"].values()))
    for name in ("balanced_accuracy", "accuracy", "nll", "brier", "ece", "base_rate_nll"):
        assert f"{summary[name]['mean']:.3f}" in text, name
    assert all(f"{limit:.3f}" in text for limit in summary["balanced_accuracy"]["ci95"])
    data = metrics["data"]
    assert f"{data['subjects']} simulated subjects and {data['runs']} runs" in text
    assert f"{data['volumes']} labelled volumes" in text and f"chance {1 / 3:.3f}" in text
    rows = data["counts"]
    assert all(f"{sum(row[name] for row in rows)} {name}" in text for name in metrics["classes"])
    assert all(
        f"{name} {version}" in text
        for name, version in metrics["versions"].items()
        if name in ("emojax", "numpy", "scikit-learn")
    )


def test_a_network_of_one_subject_left_out_is_described():
    metrics = real()
    for fold, epoch in zip(metrics["arms"][0]["folds"], (2, 1, 2, 2), strict=True):
        fold["epoch"] = epoch
    text = text_of(metrics)
    assert "leave-one-subject-out cross-validation (4 folds)" in text
    assert "96 training, 48 monitored and 48 scored volumes" in text
    assert "chose the epoch (kept: 1 to 2)" in text and "at most 2 epochs" in text
    assert "the 200 voxels" in text and "a bootstrap of 40 volumes of each class" in text
    assert "0.115 before and 0.500 after" in text
    assert "The protocol is calibrated" in text and "24 volumes of other runs" in text


def test_a_bag_is_described_with_what_its_members_chose():
    metrics = with_bag()
    text = text_of(metrics)
    assert "a bag of 3 logistic regressions in each fold" in text
    assert "Chosen: C of 0.001 to 0.01, temperatures of 1.00 to 2.00." in text
    assert "For comparison, nested is a network" in text and "logistic n-1" in text
    assert "[5, 6]" in text and "Platt" in " ".join(methods.make(metrics).references)
    rows = [row for row in tuned.table(metrics).rows if row[0] == "bag"]
    assert ["bag", "C of each member", "0.001 to 0.01", "loss on the held-back subject or run"] in [
        row[:4] for row in rows
    ]
    assert all("seed" not in rerun.what for rerun in reruns.commands(metrics))


def test_a_chosen_decoder_is_described_with_both():
    metrics = with_bag()
    head = metrics["arms"][0]
    head |= {"name": "auto", "decoder": "auto"}
    for fold, chosen in zip(head["folds"], ("bag", "network", "bag", "bag"), strict=True):
        fold["chosen"] = {"chosen": chosen, "inner": {"bag": 0.7, "network": 0.6}}
        fold["baselines"]["auto"] = fold["baselines"].pop("bag")
    found = head["summary"]["baselines"]
    head["summary"]["baselines"] = {"auto": found["bag"], "logistic": found["logistic"]}
    bag = copy.deepcopy(with_bag()["arms"][0])
    metrics["arms"].insert(1, bag)
    text = text_of(metrics)
    assert "3 inner folds" in text and "bag in 3 and network in 1 folds" in text
    assert "bag of 3 logistic" in text and "is a network" in text
    assert ["auto", "decoder", "bag in 3 folds and network in 1 fold"] in [
        row[:3] for row in tuned.table(metrics).rows
    ]


@pytest.mark.parametrize(("kind", "leaky"), [("left_out", "paper"), ("by_split", "random")])
def test_a_leaky_headline_is_never_called_cross_validation(kind, leaky):
    metrics = of(kind)
    metrics["arms"].sort(key=lambda arm: arm["name"] != leaky)
    text, said = text_of(metrics), limits.sentences(metrics)
    for word in ("cross-validation", "leave-one", "held out", "unseen", "whole subjects"):
        assert word not in text
    assert (
        f"{leaky} is declared leaky" in text and "no estimate of the accuracy on new data" in text
    )
    assert any("is declared leaky" in sentence for sentence in said)
    answers = {check.asked: check.found for check in checks.make(metrics)}
    assert "LEAK, no result" in answers["headline"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_leak_are_called_so(kind):
    metrics = of(kind)
    text = text_of(metrics)
    for arm in metrics["arms"]:
        if arm["protocol"] == "leaky" and not arm["on_noise"]:
            before, after = text.split("Declared leaky, for comparison only: ", 1)
            assert arm["name"] in after and f"{arm['name']} 0." not in before


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_promised(kind):
    for more in ({}, analysed(), analysed(p=0.01, gain=(-0.2, -0.1))):
        text = everything(of(kind) | more)
        for word in ("generalis", "prove that", "significant", "state-of-the-art"):
            assert word not in text.replace("does not prove that", "")


def test_a_transductive_row_is_called_so():
    metrics = of()
    metrics["arms"][0]["protocol"] = "transductive"
    assert "The protocol is transductive: values of the scored volumes" in text_of(metrics)
    assert any("saw values of the scored volumes" in said for said in limits.sentences(metrics))


def test_every_analysis_stands_with_its_numbers():
    text = text_of(of() | analysed())
    for number in ("0.777", "0.349", "p = 0.010", "99 permutations", "48 blocks"):
        assert number in text
    assert "new levels of priming: 0.444 (95 % interval 0.401 to 0.487)" in text
    assert "null 0.340 (sd 0.031), p = 0.700" in text and "stimulus" not in text
    assert "LDA-shrinkage [" in text and "+0.070 (0.020 to 0.120)" in text
    assert "right in 1.000 of the volumes (commonest label 0.500)" in text


def test_limits_follow_from_the_numbers():
    inside, outside = (limits.sentences(of() | analysed(p=p)) for p in (0.7, 0.01))
    lost = "is not shown to decode the labels at new levels of priming"
    assert any(lost in said for said in inside) and not any(lost in said for said in outside)
    own, not_own = (
        limits.sentences(of() | analysed(gain=gain)) for gain in ((0.02, 0.12), (-0.2, -0.1))
    )
    rival = "A benefit from other subjects is not shown"
    assert any(rival in said for said in own) and not any(rival in said for said in not_own)
    assert any("without any image" in said for said in own)
    none = limits.sentences(of())
    for key in ("permutations=0", "design=False", "within_subject=False", "crossed="):
        assert any(key in said for said in none), key
        assert not any(key in said for said in own), key
    assert any("4 folds are few" in said for said in none)
    assert any("trained once, with seed 0" in said for said in none)
    assert not any("trained once" in said for said in limits.sentences(of("by_split")))


def test_worse_probabilities_than_base_rates_are_a_limit():
    metrics = of()
    assert not any("Probabilities are worse" in said for said in limits.sentences(metrics))
    metrics["arms"][0]["summary"]["network"]["nll"]["mean"] = 1.2
    (said,) = [said for said in limits.sentences(metrics) if "Probabilities are worse" in said]
    assert "1.200 against 1.099 nats" in said


def test_a_floor_above_chance_is_a_limit():
    metrics = of()
    noise = next(arm for arm in metrics["arms"] if arm["on_noise"])
    score = noise["summary"]["network"]["balanced_accuracy"]
    score |= {"mean": 0.7, "ci95": [0.65, 0.75]}
    said = " ".join(limits.sentences(metrics))
    assert "The noise floor is 0.700" in said and "reaches down to the noise floor" in said


def test_networks_of_several_random_numbers_are_compared():
    metrics = of("by_split")
    folds = metrics["arms"][0]["folds"]
    means = [sum(f["instances"][i]["balanced_accuracy"] for f in folds) / 2 for i in range(2)]
    text = text_of(metrics)
    assert f"({min(means):.3f} to {max(means):.3f})" in text and "Over 2 networks" in text
    answers = {check.asked: check.found for check in checks.make(metrics)}
    assert answers["another seed"].startswith("sd 0.0")


def test_groups_stand_with_their_scores():
    entry = {"balanced_accuracy": {"mean": 0.61, "ci95": [0.5, 0.72]}, "accuracy": {"mean": 0.6}}
    both = {"subjects": 2, "tested": 2, "network": entry, "baselines": {}}
    metrics = of(groups={"patients": both, "controls": both})
    text = text_of(metrics)
    assert "Groups of subjects: 2 patients and 2 controls." in text
    assert "patients 0.610 (95 % interval 0.500 to 0.720), 2 tested" in text
    assert any("difference was not tested" in said for said in limits.sentences(metrics))


def test_exclusions_are_written():
    event = {"subject": "01", "run": "1", "value": "neg", "name": "negative", "events": 9}
    event |= {"unlabelled": 2, "behind": 1, "unknown": 0, "dropped": 4}
    metrics = of(events=[event], notes=["run-3 of 02 is left out"])
    metrics["data"]["counts"][0]["unused"] = 7
    metrics["config"]["data"] |= {"subjects": "01,02", "drop_first": 3}
    text = text_of(metrics)
    assert "Run-3 of 02 is left out." in text and "7 other volumes have no label" in text
    assert "Of 9 events of these classes, 2 labelled no volume and 1 began after" in text
    assert "4 volumes in events of two classes were dropped" in text
    assert "subjects 01,02" in text and "The first 3 volumes of every run" in text


@pytest.mark.parametrize(
    ("source", "words", "works"),
    [
        (
            "bids",
            "column trial_type of events.tsv) if at least 50% of its acq",
            ["gorgolewski2016"],
        ),
        ("spm", "SPM folders (images ra*)", []),
        ("maps", "column trial_type is the label", []),
        ("arrays", "arrays of values", []),
        ("lab", "vectors that were aligned before", []),
        ("synthetic", "nobody was scanned (design A of [1]", ["tchibozo2022"]),
        ("mypkg:load", "source mypkg:load gave them", []),
    ],
)
def test_every_source_is_described(source, words, works):
    metrics = real()
    metrics["config"]["data"]["source"] = source
    found = methods.make(metrics)
    text = text_of(metrics)
    assert words in text and ("simulated" in text) == (source == "synthetic")
    cited = [name for _, name, _ in ENTRY.findall(found.bibtex)]
    assert set(works) <= set(cited) and ("gorgolewski2016" in cited) == (source == "bids")


def test_cleaning_is_written_with_its_works():
    metrics = real()
    assert "emojax did no cleaning" in text_of(metrics)
    more = {"smooth_mm": 6.0, "high_pass_hz": 0.01, "detrend": 2, "zscore": True, "motion": True}
    more |= {"confounds": "motion24,compcor", "scrub_fd_mm": 0.5}
    metrics["config"]["data"] |= more
    text = text_of(metrics)
    for words in ("6 mm", "slower than 0.01 Hz", "up to degree 2", "z-scored", "above 0.5 mm"):
        assert words in text
    assert "emojax did no cleaning" not in text and "six realignment parameters" in text
    cited = [name for _, name, _ in ENTRY.findall(methods.make(metrics).bibtex)]
    works = {"esteban2019", "abraham2014", "friston1996", "behzadi2007", "power2012"}
    assert works | {"lindquist2019"} <= set(cited)
    metrics = real()
    metrics["config"]["data"] |= {"online": "gain+ema:30"}
    text = text_of(metrics)
    assert "with the volumes before it alone (gain+ema:30)" in text
    assert "emojax did no cleaning" not in text and "all volumes of the run" not in text


@pytest.mark.parametrize(("alpha", "there"), [(1.0, False), (0.5, True)])
def test_only_used_works_are_cited(alpha, there):
    metrics = real()
    metrics["config"]["align"]["alpha"] = alpha
    cited = [name for _, name, _ in ENTRY.findall(methods.make(metrics).bibtex)]
    assert ("xu2012" in cited) == there and "haxby2011" in cited and "ojala2010" not in cited
    assert "flax" in cited and "he2016" not in cited and "ledoit2004" not in cited
    cited = [name for _, name, _ in ENTRY.findall(methods.make(of("classical")).bibtex)]
    assert "flax" not in cited and "kingma2015" not in cited and "scikit-learn" in cited


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_bibtex_agree(kind):
    found = methods.make(of(kind) | analysed())
    text = " ".join(paragraph.text for paragraph in found.paragraphs)
    numbers = {
        int(n) for group in re.findall(r"\[(\d+(?:, \d+)*)\]", text) for n in group.split(",")
    }
    assert numbers == set(range(1, len(found.references) + 1))
    entries = ENTRY.findall(found.bibtex)
    assert "\n".join(f"@{k}{{{n},\n{body}}}\n" for k, n, body in entries) == found.bibtex
    names = [name for _, name, _ in entries]
    assert len(names) == len(set(names)) == len(found.references)
    for (_, name, body), line in zip(entries, found.references, strict=True):
        fields = dict(re.findall(r"  (\w+) = \{(.*)\},", body))
        assert {"author", "title", "year"} <= fields.keys() and name in WORKS
        assert fields["year"] in line and fields["author"].split(",")[0][:3] in line
        assert all(value.count("{") == value.count("}") for value in fields.values())


def test_every_work_is_whole():
    for key, (kind, fields) in WORKS.items():
        line, entry = references.line(key, {}), references.bibtex([key], {})
        assert ENTRY.fullmatch(entry), key
        assert entry.isascii() and "{" not in line and "\\" not in line and "http" not in line
        assert {"article": "journal", "inproceedings": "booktitle"}.get(kind, "title") in fields
        assert re.fullmatch(r"(19|20)\d\d", fields["year"])
        assert re.fullmatch(r"10\.\d{4,}/\S+", fields.get("doi", "10.1000/x"))
    assert "note = {version 0.9.1}" in references.bibtex(["jax"], {"jax": "0.9.1"})
    with pytest.raises(KeyError):
        references.Citations()("nobody1900")


@pytest.mark.parametrize("kind", KINDS)
def test_older_results_are_read_and_shown(tmp_path, kind):
    """A workdir finished before these keys existed is still shown."""
    result, *_ = hand_made.finished(kind)
    result.save(tmp_path)
    metrics = Result.load(tmp_path).metrics
    for name in ("groups", "notes", "events", "permutation", "crossed", "within_subject"):
        metrics.pop(name)
    for name in ("design", "floor", "inputs"):
        metrics.pop(name, None)
    metrics |= {"versions": {}, "config": {}, "audit": {"measured": False}, "probabilities": None}
    for arm in metrics["arms"]:
        for name in ("draw", "decoder", "members", "gain", "learned_nothing"):
            arm.pop(name, None)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    text = page.render(Result.load(tmp_path).metrics, {}, {})
    assert "What a reviewer asks" in text and "not measured (--config.permutations=999)" in text


@pytest.mark.parametrize("config", [common.get_config("A"), common.get_config("B")])
def test_checks_name_keys_that_there_are(config):
    kind = "by_split" if config.experiment == "B" else "left_out"
    off = {"permutations": 0, "crossed": "", "design": False, "within_subject": False}
    plain = json.loads(json.dumps(config.to_dict())) | off
    found = checks.make(of(kind, config=plain))
    keys = re.findall(r"--config\.(\w+)=", " ".join(check.found for check in found))
    assert {"permutations", "crossed", "design"} <= set(keys) <= set(config.keys())


def test_checks_answer_every_question():
    answers = {check.asked: check.found for check in checks.make(of() | analysed())}
    assert "0.401" in answers["new subjects and new levels"]
    assert "stimulus cannot be crossed: one level" in answers["new subjects and new levels"]
    assert "null 0.349 over 99 permutations" in answers["permutation test"]
    assert answers["the test subject's own runs"].startswith("LDA-shrinkage 0.444")
    assert "1.000" in answers["the design without any image"]
    assert answers["who saw what"].startswith("measured by an audit of")
    assert "neither trained on nor scored" in answers["what was tuned on what"]


def test_what_was_tuned_is_on_the_record():
    metrics = real()
    for arm in metrics["arms"]:
        fold = {"of_scored_runs": {"values": 0, "labels": 0}}
        fold |= {"of_other_runs": {"values": 0, "labels": 0}}
        leak = arm["name"].startswith("paper")
        fold |= {"step": "epoch choice", "values": 48, "labels": 48, "subjects": ["02"]}
        fold["of_scored"] = {"values": 48 * leak, "labels": 48 * leak}
        arm["seen"].append(fold)
    rows = {(row[0], row[1]): row[2:] for row in tuned.table(metrics).rows}
    assert rows["nested", "epoch"] == ["3", "monitored accuracy", "48 volumes of subject 02"]
    assert rows["paper", "epoch"][2].startswith("LEAK: 48 volumes, including values and labels")
    assert rows["last", "epoch"] == ["the last", "", "no data"]
    assert rows["nested", "voxels"][0] == "the best 200"
    assert rows["nested", "settings of 2 classical classifiers"][0] == "fixed"
    assert "Set on the command line of this run: balance." in tuned.table(metrics).note


def parsed(command):
    """Returns the config and the workdir of a command line, as the command itself would."""
    words = shlex.split(command)
    given = flags.parse(["launch.py", *words[2:]], commands.RUN)
    return given.config, given.text["workdir"]


def test_every_command_can_be_typed():
    command = f"{COMMAND} --config.permutations=99 --config.crossed=priming"
    for metrics in (real() | analysed(), with_bag()):
        metrics["command"] = command
        metrics["config"] |= {"balance": 20, "permutations": 99, "crossed": "priming"}
        found = {rerun.what: rerun.command for rerun in reruns.commands(metrics)}
        *others, printed = found.values()
        assert printed == "emojax report runs/a"
        places = [parsed(command)[1] for command in others]
        assert len(set(places)) == len(places) and all(p.startswith("runs/a-") for p in places)
        assert all(parsed(command)[0].balance == 20 for command in others)
        config, _ = parsed(found["the permutation test"])
        assert config.permutations == 99 and config.crossed == "" and not config.null_floor
        assert config.baselines == "logistic" and config.protocols == "nested"
        config, _ = parsed(found["new subjects and new levels"])
        assert config.crossed == "priming" and config.permutations == 99
        config, _ = parsed(found["the test subject's own runs"])
        assert config.within_subject and not config.audit and config.train.epochs == 1
        config, _ = parsed(found["the headline and its probabilities"])
        assert config.align.regimes == "independent_runs" and not config.leaks
        assert config.train.epochs == (1 if metrics["arms"][0].get("decoder") else 2)
        config, _ = parsed(found["the noise floor"])
        assert config.null_floor and config.permutations == 0


def test_commands_of_experiment_b_keep_the_split():
    command = "python launch.py --config=configs/expB.py:demo --workdir runs/b --restart"
    metrics = real("demo", expB.get_config, command=command)
    found = {rerun.what: rerun.command for rerun in reruns.commands(metrics)}
    config, place = parsed(found["the headline and its probabilities"])
    assert config.splits == "by_subject" and place == "runs/b-headline"
    assert "restart" not in " ".join(found.values())
    assert "the test subject's own runs" not in found


def test_a_run_from_python_has_commands_to_fill_in():
    found = reruns.commands(real(command=""))
    assert all(rerun.command.startswith("emojax run CONFIG ") for rerun in found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_all_sections(tmp_path, kind):
    result, *_ = hand_made.finished(kind)
    result.save(tmp_path)
    text = (tmp_path / "report.html").read_text()
    jumps = re.findall(r'href="#(\w+)"', text)
    assert len(jumps) == 11 and all(f'id="{place}"' in text for place in jumps)
    order = ["What a reviewer asks", "Result", "Who saw what, and", "What this does not show"]
    order += ["Figures", "Details", "Text for the paper", "Run it again", "Files"]
    places = [text.index(f">{name}") for name in order]
    assert places == sorted(places) and "What was tuned on what" in text
    assert (tmp_path / "references.bib").read_text() == methods.make(result.metrics).bibtex
    assert text.count('href="references.bib"') == 2


def test_names_of_a_study_are_escaped():
    metrics = of(notes=["<b>left out</b>"], command="x --workdir='<i>'")
    metrics["classes"] = ["<a>", "b", "c"]
    text = page.render(metrics, {}, {})
    assert "<b>left" not in text and "<i>" not in text and "64 <a>" not in text


def test_nothing_is_written_without_an_arm():
    metrics = of() | {"arms": []}
    assert methods.make(metrics) is None and not limits.sentences(metrics)
    assert not checks.make(metrics) and not reruns.commands(metrics)
