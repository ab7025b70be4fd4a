"""Runs that several processes share: claims, who leads, jobs and their flags."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import numpy as np
import psutil
import pytest

from emojax import locks
from emojax.cli import cluster as flags
from emojax.cli import main
from emojax.cluster import jobs, pieces, team, waiting
from emojax.errors import InputError
from emojax.training.checkpoint import BOUND, LOCK, open_workdir

CONFIG = {"seed": 0, "data": {"root": "here"}}
INPUTS = {
    "files": {},
    "runs": {"01 1": {"labels": "aa"}},
    "masks": {},
    "classes": ["x", "y"],
    "before": [],
    "factors": {},
    "groups": {},
}


@pytest.fixture
def leader(tmp_path):
    """Returns the workdir of the process that leads two."""
    with open_workdir(tmp_path / "run", CONFIG, members=2) as work:
        work.bind(INPUTS)
        yield work


@pytest.fixture
def member(leader):
    """Returns the same folder as seen by another process that serves the leader."""
    work = team.enter(leader.folder, CONFIG, members=2)
    assert work.serves and not leader.serves
    work.bind(INPUTS)
    return work


def square(names):
    return ((name, {"x": np.float64(int(name) ** 2)}) for name in names)


def refused(call, *args, **options):
    with pytest.raises(InputError) as found:
        call(*args, **options)
    return str(found.value)


# pieces


def test_a_process_alone_does_all_at_once_and_stores_nothing():
    asked = []

    def compute(names):
        asked.append(names)
        return square(names)

    found = pieces.each(pieces.Alone(), list("0123"), compute)
    assert asked == [list("0123")] and [found[n]["x"] for n in "0123"] == [0, 1, 4, 9]
    assert pieces.each(pieces.Alone(), [], compute) == {} and len(asked) == 1


def test_pieces_are_claimed_done_and_stored_once(leader, member):
    first = pieces.claimed(leader, list("0123"), lambda name: False, most=2)
    assert next(first) == ["0", "1"]
    found = pieces.each(member, list("0123"), square, wait=False)
    assert {name: float(own["x"]) for name, own in found.items()} == {"2": 4, "3": 9}
    first.close()
    asked = []

    def compute(names):
        asked.extend(names)
        return square(names)

    found = pieces.each(leader, list("0123"), compute)
    assert asked == ["0", "1"] and [found[n]["x"] for n in "0123"] == [0, 1, 4, 9]
    assert (leader.finished, member.finished) == ({"other pieces": 2},) * 2
    values = pieces.each_value(member, "p", 2, lambda numbers: [n + 0.5 for n in numbers])
    assert values.tolist() == [0.5, 1.5]
    assert pieces.each_value(leader, "p", 2, None).tolist() == [0.5, 1.5]  # nothing is left
    leader.tidy()
    assert not {"parts", "claims"} & {path.name for path in leader.folder.iterdir()}


def test_a_serving_process_waits_for_nobody(leader, member):
    with leader.claim("p 0"):
        start = time.monotonic()
        values = pieces.each_value(member, "p", 2, lambda numbers: [n + 0.5 for n in numbers])
        assert time.monotonic() - start < pieces.POLL
    assert np.isnan(values[0]) and values[1] == 1.5


def test_the_leader_waits_and_takes_over_what_the_dead_have_claimed(leader, monkeypatch):
    monkeypatch.setattr(pieces, "POLL", 0.02)
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claim = leader.folder / "claims" / "1.lock"
    claim.parent.mkdir()
    owner = {"host": socket.gethostname(), "pid": gone.pid, "key": "theirs"}
    claim.write_text(json.dumps(owner | {"started": locks._started(gone.pid)}))
    threading.Timer(0.3, gone.kill).start()
    start = time.monotonic()
    found = pieces.each(leader, ["0", "1"], square)
    gone.wait()
    assert time.monotonic() - start > 0.2 and found["1"]["x"] == 1


def test_a_damaged_piece_is_done_again_and_named_once(leader, capsys):
    pieces.each(leader, ["3"], square)
    path = leader.folder / "parts" / "3.npz"
    path.write_bytes(path.read_bytes()[:-30])
    assert pieces.each(leader, ["3"], square)["3"]["x"] == 9
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: damaged") and line.endswith("this piece of work is done again")
    assert pieces.each(leader, ["3"], None)["3"]["x"] == 9


def test_pieces_of_another_run_are_refused(leader, member):
    pieces.each(leader, ["3"], square)
    member._digest = "other"
    assert "of another run" in refused(pieces.each, member, ["3"], square)


def test_the_looks_at_pieces_grow_with_their_number(leader, member, monkeypatch):
    """Starting again at the first piece for each of 400 pieces would take 80,000 looks."""
    names, looks, done = [str(i) for i in range(400)], [], set()
    monkeypatch.setattr(leader, "claim", lambda name: pieces.Alone().claim(name))

    def is_done(name):
        looks.append(name)
        return name in done

    for mine in pieces.claimed(leader, names, is_done, most=3):
        done.update(mine)
    assert done == set(names) and len(looks) <= 5 * len(names)


def test_pieces_that_were_passed_over_are_done_in_the_end(leader, member):
    claim, done, order = member.claim("0"), set(), []
    found = pieces.claimed(leader, list("0123"), done.__contains__)
    for mine in found:
        order += mine
        done.update(mine)
        if mine == ["2"]:
            claim.release()  # undone
    assert order == ["1", "2", "3", "0"]


def test_nothing_is_claimed_of_a_run_that_has_ended(leader, member):
    (leader.folder / "metrics.json").write_text("{}")
    assert member.is_over and member.claim("a") is None
    assert pieces.each(member, ["3"], square) == {}


# who leads


def test_two_cannot_lead_and_a_restart_waits_for_members(leader, member):
    assert "at work in it" in refused(open_workdir, leader.folder, CONFIG)
    with member.claim("a"):
        leader.close()
        line = refused(open_workdir, leader.folder, CONFIG, restart=True)
        assert line.startswith(f"{leader.folder / 'claims'}: found processes at work on pieces")
        left = leader.folder / "parts" / "a.npz.1.partial"
        left.parent.mkdir()
        left.write_text("")
        with team.enter(leader.folder, CONFIG, members=2) as again:
            assert not again.serves and left.exists()  # half-written by the living
    with open_workdir(leader.folder, CONFIG):
        assert not left.exists() and not (leader.folder / "claims").exists()


def test_a_member_waits_until_the_leader_has_read_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(team, "POLL", 0.02)
    with open_workdir(tmp_path, CONFIG, members=2) as work:
        timer = threading.Timer(0.3, work.bind, (INPUTS,))
        timer.start()
        start = time.monotonic()
        found = team.enter(tmp_path, CONFIG, 2)
        timer.join()
        assert found.serves and time.monotonic() - start > 0.2 and team.has_leader(found)
    assert not team.has_leader(found) and not (tmp_path / BOUND).exists()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("what", ["config", "data", "version"])
def test_a_member_of_another_run_is_refused_in_one_line(leader, what, monkeypatch):
    if what == "config":
        line = refused(team.enter, leader.folder, CONFIG | {"seed": 1}, 2)
        assert line.startswith(f"{leader.folder}: found a run with seed=0; expected seed=1")
        return
    work = team.enter(leader.folder, CONFIG, 2)
    if what == "data":
        line = refused(work.bind, INPUTS | {"runs": {"01 1": {"labels": "bb"}}})
        assert line.startswith("run 01 1: found other labels than before")
    else:
        monkeypatch.setattr("emojax.__version__", "0.0.1")
        assert "expected emojax 0.0.1" in refused(work.bind, INPUTS)
    assert json.loads((leader.folder / "run.json").read_text())["inputs"] == INPUTS


@pytest.mark.parametrize("what", ["fresh", "there", "held", "others", "begun", "logs"])
def test_a_refusal_removes_the_workdir_of_the_call_alone(tmp_path, what):
    folder, error = tmp_path / "run", InputError("data.root", "nothing", "a folder")
    if what == "there":
        folder.mkdir()
    with pytest.raises(InputError), team.nothing_left(folder):
        open_workdir(folder, CONFIG).close()
        if what == "held":
            open_workdir(folder, CONFIG)  # by another process, which then leads
        if what in ("others", "begun", "logs"):
            name = {"others": "mine", "begun": "done", "logs": "jobs"}[what]
            (folder / name).mkdir()
        raise error
    assert folder.exists() == (what != "fresh")
    if what != "fresh":
        assert (folder / "config.json").exists()


def test_counts_that_were_asked_for_outlive_a_refusal(tmp_path):
    for there in (False, True):
        with pytest.raises(InputError), team.nothing_left(tmp_path / "run", but="counts.csv"):
            open_workdir(tmp_path / "run", CONFIG).close()
            if there:
                (tmp_path / "run" / "counts.csv").write_text("subject\n01\n")
            raise InputError("cohort", "no volume of class 'rest'", "one")
        assert (tmp_path / "run").exists() == there


# jobs


def test_without_slurm_or_submitit_one_line_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert refused(jobs.choose, "slurm") == (
        "--cluster=slurm: found no sbatch and srun on this machine; expected the login node of a "
        "Slurm cluster (--cluster=local runs the same jobs here)"
    )
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    assert (jobs.choose("auto"), jobs.choose("local")) == ("local", "local")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert refused(jobs.choose, "auto") == (
        "--cluster: found no package submitit; expected the package: pip install 'emojax[slurm]'"
    )


SAY = "import sys; print('one', file=sys.stderr); sys.exit(3)"


def test_a_job_runs_the_command_and_keeps_its_exit_code(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    try:
        member = jobs.Member([sys.executable, "-c", SAY], 5, str(tmp_path / "code-0.json"), "x")
        assert member() == 3 and json.loads((tmp_path / "code-0.json").read_text()) == {"code": 3}
    finally:
        signal.signal(signal.SIGTERM, before)


LISTEN = """
import os, pathlib, signal, sys, time
place = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *_: (place.joinpath("stored").write_text(""), os._exit(143)))
place.joinpath(os.environ["EMOJAX_MEMBERS"]).write_text("")
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="a signal of POSIX")
def test_ahead_of_its_limit_a_job_stores_and_is_submitted_again(tmp_path):
    pytest.importorskip("submitit")
    code = str(tmp_path / "code")
    member = jobs.Member([sys.executable, "-c", LISTEN, str(tmp_path)], 3, code, "emojax run")
    found = []

    def ask():
        while not (tmp_path / "3").exists():
            time.sleep(0.01)
        found.append(member.checkpoint())

    before = signal.getsignal(signal.SIGTERM)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert member() == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    asking.join()
    assert (tmp_path / "stored").exists()
    again = found[0].function
    assert (again.words, again.members, again.code) == (member.words, 3, code)


def test_a_local_job_that_fails_gives_its_last_line(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "log").write_text("data.root: found nothing; expected a folder\nsubmitit ERROR x\n")
    paths = types.SimpleNamespace(stderr=tmp_path / "log")
    job = types.SimpleNamespace(done=lambda: True, paths=paths, cancel=None)
    code = tmp_path / "jobs" / "code-0.json"
    submitted = jobs.Submitted([job], [code])
    said = "data.root: found nothing; expected a folder; expected a report (the same command "
    assert refused(waiting.wait, submitted, tmp_path) == (
        f"{tmp_path}: found job 0 that did not run to its end: {said}resumes the run)"
    )
    code.write_text('{"code": 2}')
    assert refused(waiting.wait, submitted, tmp_path) == (
        f"{tmp_path}: found job 0 that ended with code 2: {said}resumes the run)"
    )
    code.write_text('{"code": 0}')
    assert "jobs that ended without a report" in refused(waiting.wait, submitted, tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    waiting.wait(submitted, tmp_path)


def test_jobs_that_joined_a_run_wait_for_its_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(waiting, "POLL", 0.02)
    code = tmp_path / "code"
    code.write_text('{"code": 0}')
    submitted = jobs.Submitted([types.SimpleNamespace(done=lambda: True)], [code])
    lock = locks.Lock(tmp_path / LOCK)

    def end():
        (tmp_path / "metrics.json").write_text("{}")
        lock.release()

    threading.Timer(0.3, end).start()
    waiting.wait(submitted, tmp_path)
    assert (tmp_path / "metrics.json").exists()
    assert f"the run continues in process {os.getpid()} on " in capsys.readouterr().err


SHELL = "true && {} -c 'import time; print(1, flush=True); time.sleep(60)' && true"


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
def test_a_stop_reaches_the_processes_below_the_shell_of_a_job():
    shell = subprocess.Popen(SHELL.format(sys.executable), shell=True, stdout=subprocess.PIPE)
    assert shell.stdout.readline() == b"1\n"
    below = psutil.Process(shell.pid).children(recursive=True) or [psutil.Process(shell.pid)]
    waiting._terminate(types.SimpleNamespace(job_id=str(shell.pid)))
    shell.wait(10)
    assert not psutil.wait_procs(below, 10)[1]
    shell.stdout.close()


FOLLOW = """
import os, pathlib, signal, sys, time
from emojax.cluster import jobs
def stored(*_):
    pathlib.Path(sys.argv[1]).write_text("")
    os._exit(143)
signal.signal(signal.SIGTERM, stored)
jobs.follow_parent()
assert jobs.PARENT not in os.environ
print(1, flush=True)
time.sleep(60)
"""
MEMBER = (
    "import sys; from emojax.cluster import jobs; jobs.Member(sys.argv[2:], 1, sys.argv[1], '')()"
)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_command_of_a_killed_job_stores_its_state_and_ends(tmp_path):
    words = [sys.executable, "-c", MEMBER, tmp_path / "code"]
    words += [sys.executable, "-c", FOLLOW, tmp_path / "stored"]
    job = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert job.stdout.readline() == b"1\n"
    (child,) = psutil.Process(job.pid).children()
    job.kill()
    job.wait(10)
    assert not psutil.wait_procs([child], 10)[1] and (tmp_path / "stored").exists()
    job.stdout.close()


def test_local_jobs_have_gpus_of_their_own(tmp_path, monkeypatch):
    made = []

    class LocalExecutor:
        def __init__(self, folder, max_num_timeout):
            made.append(self)

        def update_parameters(self, **given):
            self.given = given

        def submit(self, member):
            self.path = [os.environ["PYTHONPATH"], os.environ["PYTHONSAFEPATH"]]
            return member

    module = types.SimpleNamespace(LocalExecutor=LocalExecutor)
    monkeypatch.setitem(sys.modules, "submitit", module)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5")
    jobs.submit(["expA"], tmp_path, "local", jobs.Wanted(jobs=3))
    assert [own.given["visible_gpus"] for own in made] == [[2], [3], [5]]
    root, *_, mine = made[0].path[0].split(os.pathsep)
    assert (pathlib.Path(root, "emojax").is_dir(), mine) == (True, "/mine")
    assert made[0].path[1] == "1" and os.environ["PYTHONPATH"] == "/mine"
    assert "PYTHONSAFEPATH" not in os.environ
    line = refused(jobs.submit, ["expA"], tmp_path, "local", jobs.Wanted(jobs=2, gpus=2))
    assert line == "--cluster.jobs: found 2; expected at most 1: 2 of 3 GPUs for each"


def test_jobs_have_files_of_their_own_and_count_the_run_that_they_join(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_submit_here", lambda members, *_: members)
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "code-old-0.json").write_text("{}")
    first = jobs.submit(["expA"], tmp_path, "local", jobs.Wanted(jobs=1))
    assert not list(folder.iterdir()) and first.jobs[0].members == 1
    assert first.jobs[0].words[1:5] == ["-P", "-m", "emojax", "run"]
    first.codes[0].write_text("{}")
    with locks.Lock(tmp_path / LOCK):
        second = jobs.submit(["expA"], tmp_path, "local", jobs.Wanted(jobs=1))
    assert second.jobs[0].members == 2 and first.codes[0].exists()
    assert set(first.codes).isdisjoint(second.codes)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
@pytest.mark.parametrize(("cores", "most"), [(1, 2), (3, 3)])
def test_local_jobs_are_no_more_than_the_cores(tmp_path, monkeypatch, cores, most):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = refused(jobs.submit, ["expA"], tmp_path, "local", jobs.Wanted(jobs=most + 1))
    assert line == f"--cluster.jobs: found {most + 1}; expected at most {most}: one for each core"
    assert jobs.most_here() == most


SBATCH = '#!/bin/sh\ncp "$1" {place}/script\necho "Submitted batch job 12"\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Emulates a cluster that accepts jobs and never runs them."""
    pytest.importorskip("submitit")
    for name in ("sbatch", "srun"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(SBATCH.format(place=tmp_path))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", "")
    return tmp_path


def test_jobs_of_slurm_are_an_array_that_asks_for_notice(slurm, capsys):
    argv = ["emojax", "run", "expA:demo", f"--workdir={slurm / 'run'}", "--cluster=auto"]
    argv += ["--cluster.jobs=3", "--cluster.partition=gpu", "--cluster.time=1-02:30:00"]
    argv += ["--cluster.gpus=1", "--cluster.cpus=8", "--cluster.memory=32"]
    argv += ["--cluster.setup=module load cuda", "--config.train.epochs=2"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert f"submitted 3 jobs as 12; logs: {slurm / 'run' / 'jobs'}; squeue -j 12" in out
    script = (slurm / "script").read_text()
    for line in (
        "--array=0-2%3",
        "--job-name=emojax",
        "--partition=gpu",
        "--time=1590",
        "--gpus-per-node=1",
        "--cpus-per-task=8",
        "--mem=32768MB",
        "--signal=USR2@120",
        "--open-mode=append",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load cuda\n" in script
    assert len(list((slurm / "run" / "jobs").glob("12_*_submitted.pkl"))) == 3
    config = json.loads((slurm / "run" / "config.json").read_text())["config"]
    assert config["train"]["epochs"] == 2


# flags


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--cluster=sge"], "--cluster: found 'sge'; expected one of slurm, local, auto"),
        (
            ["--cluster.gpus=1"],
            "flags: found --cluster.gpus without --cluster; expected one of "
            "--cluster=slurm, --cluster=local, --cluster=auto as well",
        ),
        (
            ["--cluster=local", "--cluster.jobs=0"],
            "--cluster.jobs: found '0'; expected a whole number of at least 1",
        ),
        (
            ["--cluster=local", "--cluster.time=soon"],
            "--cluster.time: found 'soon'; expected HH:MM:SS, D-HH:MM:SS or minutes, above 0",
        ),
        (
            ["--cluster=local", "--cluster.time=0:03:00"],
            "--cluster.time: found '0:03:00'; expected 4 minutes or more: a job stores its state "
            "120 s earlier",
        ),
        (["--cluster.partitoin=gpu"], "did you mean --cluster.partition?"),
    ],
)
def test_flags_that_cannot_be_meant_end_in_one_line(given, line, tmp_path, capsys):
    assert main(["emojax", "run", "expA:demo", f"--workdir={tmp_path / 'w'}", *given]) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("", 0), ("30", 30), ("08:00:00", 480), ("1-00:00:00", 1440), ("0:03:01", 4), ("2:30", 150)],
)
def test_time_limits(text, minutes):
    assert flags._minutes(text) == minutes


def test_jobs_get_the_flags_of_the_run_alone():
    argv = ["emojax run", "expA:demo", "--cluster=slurm", "--cluster.time", "10", "--restart"]
    argv += ["--workdir", "w", "--cluster.jobs=2", "--config.train.epochs=2"]
    assert flags.words(argv) == ["expA:demo", "--workdir", "w", "--config.train.epochs=2"]


def test_a_serving_workdir_writes_no_report_files(member):
    names = {path.name for path in pathlib.Path(member.folder).iterdir()}
    assert names == {"config.json", "run.json", LOCK, BOUND}
