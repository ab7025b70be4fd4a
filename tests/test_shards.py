"""Folds divided among devices and processes give the numbers of one process."""

import dataclasses
import importlib
import itertools
import json
import pathlib
import re
import sys
import threading

import jax
import numpy as np
import pytest
import tiny_training as tiny
from small_studies import make_cohort, make_values
from test_bag import small
from test_monitored_outputs import Three
from toy_folds import COHORT, make_with

from configs import common
from emojax import experiments
from emojax.cluster import lanes, pieces
from emojax.experiments import fits, plans
from emojax.experiments.fits import NoStore
from emojax.records import Arm
from emojax.training import feeds

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "acceptance"))
tiny_study = importlib.import_module("tiny_study")
Launcher, differences = tiny_study.Launcher, tiny_study.differences
result, said = tiny_study.result, tiny_study.said


def trained(used, devices=(), strategy="loop"):
    """Returns the outcomes of four folds that these devices train."""
    program, train = tiny.program(model=Three()), common.get_config().train
    many = tuple(program._replace(mesh=feeds.data_mesh([device])) for device in devices)
    plan = fits.Plan(program, train, False, True, 3, 3, strategy, many)
    data = make_with()(COHORT)
    folds = [(i, dataclasses.replace(data, keys=(jax.random.key(i),))) for i in range(4)]

    def keep(number, instance, best):
        used.setdefault(next(iter(best.params["Dense_0"]["bias"].devices())), []).append(number)

    arm = Arm("nested", "strict")
    return fits.fit_networks(plan, arm, folds, store=NoStore(), log=lambda *e: None, keep=keep)


def same(got, want):
    assert got.keys() == want.keys()
    for number, (outcome,) in want.items():
        assert got[number][0].keys() == outcome.keys()
        for name, values in outcome.items():
            np.testing.assert_array_equal(got[number][0][name], values, err_msg=name)


@pytest.mark.parametrize("strategy", ["loop", "scan"])
def test_two_devices_divide_the_folds_and_give_the_numbers_of_one(quick_compile, strategy):
    one, two = {}, {}
    want = trained(one, strategy=strategy)
    got = trained(two, jax.devices()[:2], strategy)
    assert [sorted(numbers) for numbers in one.values()] == [[0, 1, 2, 3]]
    assert sorted(itertools.chain(*two.values())) == [0, 1, 2, 3]
    if strategy == "scan":  # each takes half of them at a time
        assert len(two) == 2
        for number in want:
            for name, values in want[number][0].items():
                np.testing.assert_allclose(got[number][0][name], values, rtol=1e-5, atol=1e-6)
    else:
        same(got, want)


def test_lanes_claim_for_each_other_and_an_error_ends_them():
    seen, both = [], threading.Barrier(2, timeout=20)

    def work(lane, *, store, is_ended, note):
        for (name,) in pieces.claimed(store, list("abcd"), lambda name: name in seen):
            if len(seen) < 2:
                note(name)
                both.wait()
            elif lane == 0:
                raise ValueError("no more")
            if is_ended():
                return

    with pytest.raises(ValueError, match="no more"):
        lanes.run(work, [0, 1], NoStore(), note=seen.append)
    assert sorted(seen) == ["a", "b"]


def test_processors_that_jax_counts_as_many_are_one_lane(monkeypatch):
    assert len(jax.local_devices()) > 1 and plans.accelerators() == []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert plans.accelerators() == jax.local_devices()


def quick(folder, **changes):
    config = small(headline="auto", inner=1, **changes)
    config.train.epochs, config.train.checkpoint_epochs = 2, 1
    config.data.progress, config.audit, config.crossed, config.design = False, False, "", False
    config.permutations, config.temperature = 3, False
    config.data.store = str(folder / "store")
    return config


def without_time(node):
    if isinstance(node, dict):
        skip = ("seconds", "peak_bytes")
        return {k: without_time(v) for k, v in node.items() if k not in skip}
    return [without_time(v) for v in node] if isinstance(node, list) else node


def lines(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return sorted(map(str, found))


@pytest.mark.slow
def test_a_leader_of_several_writes_what_one_process_writes(tmp_path, monkeypatch):
    """The leader uses pieces that others have finished and computes the rest."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    cohort = make_cohort(*make_values(), tr=2.0)
    for name, members in (("one", 1), ("many", 3)):
        config = quick(tmp_path)
        experiments.run(config, tmp_path / name, cohort=cohort, members=members)
    read = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "many")]
    assert without_time(read[0]) == without_time(read[1])
    assert lines(tmp_path / "one") == lines(tmp_path / "many")
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "many")]
    assert names[0] == names[1] and not {"parts", "claims"} & names[1]
    pages = [(tmp_path / name / "report.html").read_text() for name in ("one", "many")]
    pages = [re.sub(r"<p>Time: [^<]*</p>|base64,[^\"]*|[\d.]+ (s|GB|MB)\b", "", p) for p in pages]
    assert pages[0] == pages[1]


LONGER = (
    "--config.train.epochs=12",
    "--config.null_floor=True",
    "--config.noise.draws=1",
    "--config.align.regimes=independent_runs,none",
)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    return Launcher(ROOT, tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def alone(launcher):
    """Runs one process alone."""
    trial = launcher.base / "alone"
    trial.mkdir()
    assert launcher.whole("A", trial, *LONGER) == 0, said(trial)
    return trial


@pytest.mark.slow
def test_two_tasks_of_a_step_divide_a_run(launcher, alone):
    trial = launcher.base / "step"
    trial.mkdir()
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    tasks = [launcher.start("A", trial, *LONGER, **step, SLURM_PROCID=str(i)) for i in range(2)]
    codes = [task.wait(240) for task in tasks]
    assert codes == [0, 0], said(trial)
    (served,) = [line for line in said(trial) if line.startswith("served")]
    count = int(re.search(r"(\d+) trainings", served)[1])
    assert 0 < count < len(list((trial / "work" / "done").iterdir())) == 12
    assert differences(result(alone), result(trial)) == []


@pytest.mark.slow
def test_local_jobs_divide_a_run(launcher, alone):
    pytest.importorskip("submitit")
    trial = launcher.base / "jobs"
    trial.mkdir()
    more = (*LONGER, "--cluster=local", "--cluster.jobs=2")
    assert launcher.whole("A", trial, *more) == 0, said(trial)
    assert not any("finished before" in line for line in said(trial))
    found = result(trial)
    found["files"] = [name for name in found["files"] if not name.startswith("work/jobs/")]
    assert differences(result(alone), found) == []
    logs = "\n".join(path.read_text() for path in (trial / "work" / "jobs").glob("*_log.out"))
    assert len(re.findall(r"^served .* trainings", logs, re.M)) == 1
