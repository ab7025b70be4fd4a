"""The command: dispatch, flags, configs, exit codes; stubs stand for the pipeline behind it."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import time
import types

import jax
import pytest
from shipped import NAMES

import emojax
from emojax import cli, experiments
from emojax.cli import clean, commands, config_files, flags
from emojax.errors import InputError
from emojax.experiments import settings
from emojax.provenance import LeakageError
from emojax.registry import resolve

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEMO = ("--config=expA:demo", "--workdir=runs/demo")
OTHER = "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({"


@pytest.fixture(autouse=True)
def unchanged_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def calls(monkeypatch):
    """Replaces the pipeline by stubs that record (name, arguments, keywords)."""
    made = []

    def stub(name, returned=None):
        def call(*args, **kwargs):
            made.append((name, args, kwargs))
            return returned

        return call

    def replace(package, name, **functions):
        module = types.SimpleNamespace(**functions)
        monkeypatch.setitem(sys.modules, f"{package}.{name}", module)
        monkeypatch.setattr(importlib.import_module(package), name, module, raising=False)

    monkeypatch.setattr(commands, "start_jax", lambda: None)
    monkeypatch.setattr(experiments, "run", stub("run"), raising=False)
    replace("emojax.experiments.exports", "command", export=stub("export", "runs/demo/decoder"))
    replace(
        "emojax.decoder",
        "commands",
        decode=stub("decode", "runs/new/predictions.csv"),
        calibrate=stub("calibrate", "runs/new/decoder"),
        announce=lambda folder, key: None,
    )
    return made


def emojax_command(*words):
    return cli.main(["emojax", *words])


def python(*words, cwd):
    """Runs Python in a folder that is not the checkout; returns code, out, err, seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr, time.perf_counter() - start


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("clean", "-h")], ids=" ".join)
def test_help_comes_at_once_and_without_the_numerical_packages(tmp_path, words):
    code, out, err, seconds = python("-X", "importtime", "-m", "emojax", *words, cwd=tmp_path)
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in err.splitlines()}
    assert code == 0 and out.startswith("usage: emojax") and "emojax" in loaded
    assert not loaded & {"jax", "jaxlib", "numpy", "matplotlib", "flax", "nibabel", "sklearn"}
    assert seconds < 3  # 0.02 and 0.08 s on an idle machine


def test_overview_lists_every_command(capsys):
    assert emojax_command("--help") == 0
    listed = capsys.readouterr().out.splitlines()
    for name, command in cli.COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(command.about) for line in listed)
    assert emojax_command() == 0
    assert capsys.readouterr().out.splitlines() == listed
    starts = [line.split()[0] for line in listed if line.startswith("  ")]
    assert starts[:3] == ["run", "export", "watch"]  # a newcomer's commands, in this order
    assert all(command.group in cli.GROUPS for command in cli.COMMANDS.values())
    assert emojax_command("--version") == 0
    assert capsys.readouterr().out == f"emojax {emojax.__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_function_and_its_own_help(name, capsys):
    assert callable(resolve("command", cli.COMMANDS[name].target))
    with pytest.raises(SystemExit) as stopped:
        emojax_command(name, "--help")
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and out.startswith(f"usage: emojax {name} ")
    assert cli.COMMANDS[name].about in out and max(map(len, out.splitlines())) <= 100
    assert set(cli.MODES) == cli.COMMANDS.keys() - {"clean"}


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("words", [("run", "--help"), ("bids", "--help"), ("fetch",)])
def test_a_reader_that_stops_early_is_no_error(words):
    read, write = os.pipe()
    os.close(read)  # as after `| head -1` has ended
    program = [sys.executable, "-m", "emojax", *words]
    done = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["run", "plan", "data"])
def test_data_that_are_not_there_leave_no_workdir(tmp_path, capsys, name):
    more = ["--config.data.source=bids", f"--config.data.root={tmp_path / 'none'}"]
    assert emojax_command(name, "expA:demo", f"--workdir={tmp_path / 'w'}", *more) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_command_registers_by_one_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "mycommands.py").write_text("def hello(argv):\n    print(argv)\n    return 7\n")
    monkeypatch.chdir(tmp_path)  # modules of the current folder are found
    monkeypatch.setitem(cli.COMMANDS, "hello", cli.Command("mycommands:hello", "Greets."))
    assert emojax_command("hello", "--loud") == 7
    assert capsys.readouterr().out == "['emojax hello', '--loud']\n"
    monkeypatch.setitem(cli.COMMANDS, "hello", cli.Command("mycommands:bye", "Greets."))
    assert emojax_command("hello") == 2


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("-m emojax", ("rn",), "command: found 'rn' (did you mean 'run'?); expected one of run, e"),
        ("-m emojax", ("run",), "flags: found none; expected --config and --workdir"),
        ("-m emojax", ("run", *DEMO, "--config.data.sourc=bids"), 'Did you mean "data.source"?'),
        (
            "-m emojax",
            ("decode", "--input=x"),
            "found --input=x; expected --bundle and --workdir\n",
        ),
        ("-m emojax", ("run", "expA:demo"), "flags: found expA:demo; expected --workdir\n"),
        ("launch.py", ("--mode=dcode",), "mode: found 'dcode' (did you mean 'decode'?); expected"),
        ("launch.py", (), "flags: found none; expected --config and --workdir"),
        ("launch.py", ("--mode=decode", "--workdir=x"), "expected --bundle and --input\n"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, script, words, said):
    program = script.split() if script.startswith("-m") else [ROOT / script]
    code, out, err, _ = python(*program, *words, cwd=tmp_path)
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("expA:dmo",), "expA:dmo: found unknown variant 'dmo' (did you mean 'demo'?); expected e"),
        (
            ("study:b",),
            "unknown variant 'b' (did you mean 'B'?); expected study, or one of study:B",
        ),
        (
            ("expaa",),
            "config: found 'expaa' (No such file or directory; did you mean 'expA'?); exp",
        ),
        (
            ("configs/hax.py",),
            "'configs/hax.py' (No such file or directory; did you mean 'haxby'?)",
        ),
        (
            ("expA", "--config.epochs=3"),
            "unknown key epochs; expected a key of the config. Did you",
        ),
        (("expA", "--config.train.epoch=3"), 'Did you mean "train.epochs"?'),
        (("expA", "--config.data.r=3"), "unknown key data.r; expected a key of the config"),
        (("--config=none.py",), "found 'none.py' (No such file or directory)"),
        (("--config=expA", "--config.zzz=3"), "unknown key zzz; expected a key of the config: "),
        (("--config=expA", "--config.train.epochs=2.5"), "invalid literal"),
        (("--config=expA", "--config.align=3"), "Failed to parse"),
        (("--config=expA", "--wrkdir=3"), "unknown flag '--wrkdir=3' (did you mean --workdir?)"),
        (("--config=expA", "two"), "flags: found two; expected the flags that 'emojax run --help'"),
        (("expA", "two"), "flags: found two; expected"),
        (("expA", "config.seed=7"), "found config.seed=7 (did you mean --config.seed=7?)"),
        (("config.seed=7",), "found config.seed=7 (did you mean --config.seed=7?)"),
        (("expA", "--config.seed=7", "noconfig.null"), "(did you mean --noconfig.null?)"),
        (("expA", "subject=01"), "flags: found subject=01 (did you mean --subject=01?)"),
        (("--config=" + "x" * 5000,), "(No such file or directory)"),
        ((f"--config={ROOT}",), "(a folder); expected the path of a .py file"),
        (("expA", "--config.seed"), "flags: found"),
        (("expA", "--config.seed.x=1"), "flags: found"),
        (("expA", "--config.train=1"), "flags: found"),
        (("expA", "--config.data.root"), "flags: found"),
        (("expA", f"--flagfile={ROOT}"), "flags: found"),
        (("expA", "--flagfile=/nowhere"), "flags: found"),
        (("--config.null", "--config=expA", "--subject"), "Missing value for flag --subject"),
    ],
)
def test_bad_flags_of_run(calls, capsys, words, said):
    assert emojax_command("run", "--workdir=w", *words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not calls


@pytest.mark.parametrize("mode", ["run", "plan", "data"])
@pytest.mark.parametrize("how", ["emojax", "launch.py", "positional"])
def test_commands_of_an_experiment(calls, mode, how):
    more = ("--config.train.epochs=2", "--noconfig.leaks", "--config.train.lr", "1e-3")
    if how == "launch.py":
        mode_flag = [] if mode == "run" else [f"--mode={mode}"]
        assert cli.launch(["launch.py", *DEMO, *more, *mode_flag]) == 0
        typed = " ".join(["python launch.py", *mode_flag, *DEMO, *more])
    else:
        words = DEMO if how == "emojax" else (DEMO[1], "expA:demo")
        assert emojax_command(mode, *words, *more) == 0
        typed = " ".join(["emojax", mode, *words, *more])
    ((_, (config, workdir), keywords),) = calls
    assert workdir == "runs/demo" and config.is_locked
    assert (config.train.epochs, config.leaks, config.train.lr) == (2, False, 1e-3)
    assert config.data.synthetic.subjects == 6  # of the variant
    until = "report" if mode == "run" else mode
    shared = {"command": typed, "until": until, "restart": False, "members": 1}
    assert keywords == shared


def test_decoder_commands(calls, capsys):
    assert emojax_command("export", *DEMO, "--subject=01", "--run=run-02") == 0
    assert emojax_command("decode", "BUNDLE", "FILE", "--workdir=DIR") == 0
    assert (
        cli.launch(
            [
                "launch.py",
                "--mode",
                "calibrate",
                "--bundle=B",
                "--input=I",
                "--workdir=W",
                "--run=run-02",
            ]
        )
        == 0
    )
    assert emojax_command("calibrate", "--workdir=W", "B", "I", "--subject=NEW") == 0
    (_, exported, keywords), *others = calls
    assert exported[1:] == ("runs/demo", "01", "run-02", "") and exported[0].experiment == "A"
    assert keywords == {"classifier": "", "refit": False}
    assert others == [
        ("decode", ("BUNDLE", "FILE", "DIR", False), {}),
        ("calibrate", ("B", "I", "W", "", "run-02"), {}),
        ("calibrate", ("B", "I", "W", "NEW", ""), {}),
    ]
    out, err = capsys.readouterr()
    assert out.split() == [
        "runs/demo/decoder",
        "runs/new/predictions.csv",
        *["runs/new/decoder"] * 2,
    ]
    assert err == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("export", *DEMO, "--refit"), {"classifier": "", "refit": True}),
        (("export", *DEMO, "--classifier=lda"), {"classifier": "lda", "refit": False}),
        (("decode", "B", "I", "--workdir=W", "--correct=none"), {"correct": "none"}),
        (
            ("decode", "B", "I", "--workdir=W", "--expect=01234567", "--trust=mine.pub"),
            {"expect": "01234567", "trust": "mine.pub"},
        ),
        (("calibrate", "B", "I", "--workdir=W", "--by=none"), {"by": "none"}),
        (
            ("calibrate", "B", "I", "--workdir=W", "--events=E", "--label_map=a=b", "--sign=mine"),
            {"events": "E", "label_map": "a=b", "sign": "mine"},
        ),
    ],
)
def test_flags_of_decoders_are_passed_on_where_given(calls, capsys, words, expected):
    assert emojax_command(*words) == 0
    ((_, _, keywords),) = calls
    assert keywords == expected and capsys.readouterr().err == ""


def test_flags_of_other_commands_are_noted(calls, capsys):
    assert emojax_command("run", *DEMO, "--subject=01") == 0
    assert capsys.readouterr().err == "note: run does not use --subject\n" and len(calls) == 1


def raising(error):
    def call(*args, **kwargs):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("data.root", "nothing", "a study"), 2, "data.root: found nothing; expected a"),
        (LeakageError("mask: saw\nthe test"), 2, "mask: saw the test"),
        (
            KeyboardInterrupt(),
            130,
            "interrupted; the same command resumes from what is kept",
        ),
    ],
)
def test_exit_codes(calls, monkeypatch, capsys, error, code, said):
    monkeypatch.setattr(experiments, "run", raising(error), raising=False)
    assert emojax_command("run", *DEMO) == code
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count("\n") == 1


def test_a_bug_keeps_its_traceback(calls, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(experiments, "run", raising(ZeroDivisionError()), raising=False)
    assert emojax_command("run", DEMO[0], f"--workdir={tmp_path / 'none'}") == 2
    (path,) = tmp_path.glob("traceback-*.txt")
    assert str(path) in capsys.readouterr().err and "ZeroDivisionError" in path.read_text()


def test_shipped_configs_are_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "configs"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("raise RuntimeError('another package of that name')")
    for module in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    assert flags.load_config("expB:demo").experiment == "B"
    assert flags.load_config(str(ROOT / "configs" / "expA.py")).train.epochs == 5000


CONFIG = "from configs import {}\n\n\ndef get_config():\n    return {}.get_config()\n"


@pytest.mark.parametrize("theirs", ["none", "a folder", "a package"])
def test_configs_of_a_wheel_are_lent_to_a_users_file(tmp_path, theirs):
    """`from configs import expA` works without a package of that name, and never replaces one."""
    (tmp_path / "mine.py").write_text(CONFIG.format("expA", "expA"))
    (tmp_path / "own.py").write_text(CONFIG.format("other", "other"))
    if theirs != "none":
        other = (
            "from emojax.configs import expB\n\n\ndef get_config():\n    return expB.get_config()\n"
        )
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "other.py").write_text(other)
    if theirs == "a package":
        (tmp_path / "configs" / "__init__.py").write_text("")
    code = "import sys; sys.path[:] = [p for p in sys.path if p not in (sys.argv[2], '')] + ['']\n"
    code += "from emojax.cli import flags\nprint(flags.load_config(sys.argv[1]).experiment)"
    alone = tmp_path / "site"  # emojax as a wheel installs it
    alone.mkdir()
    (alone / "emojax").symlink_to(ROOT / "emojax")
    results = {}
    for file in ("mine.py", "own.py"):
        done = subprocess.run(
            [sys.executable, "-c", code, file, str(ROOT)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(alone)},
            capture_output=True,
            text=True,
        )
        results[file] = done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]
    if theirs == "a package":
        assert "cannot import name 'expA' from 'configs'" in results["mine.py"]
    else:
        assert results["mine.py"] == "A"
    if theirs == "none":
        assert "cannot import name 'other' from 'configs'" in results["own.py"]
    else:
        assert results["own.py"] == "B"


def test_the_configs_of_the_repository_are_a_package_of_emojax():
    assert [pathlib.Path(path) for path in emojax.configs.__path__] == [ROOT / "configs"]
    assert config_files.shipped() == NAMES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "SyntaxError"),
        ("import nosuchpackage", "ModuleNotFoundError: No module named 'nosuchpackage'"),
        ("def get_config():\n    return missing", "NameError: name 'missing' is not defined ("),
        ("def get_config():\n    return {}", "returns no ConfigDict with a text as key"),
        ("", "has no attribute 'get_config'"),
        ("\n1 / 0", "ZeroDivisionError: division by zero ({path}, line 2)"),
        ("assert False", "AssertionError:  ({path}, line 1)"),
        ("x = (\n\ny", "SyntaxError: '(' was never closed ({path}, line 1)"),
        ("x = 'a\0b'", "null bytes"),
        (
            "def get_config():\n    return int('x')",
            "literal for int() with base 10: 'x' ({path}, line 2)",
        ),
        ("import sys\nsys.exit('bye')", "SystemExit: bye ({path}, line 2)"),
        ("def get_config():\n    return get_config()", "RecursionError: "),
        ("def get_config(a, b):\n    return a", "TypeError: "),
        ("def get_config():\n    return 'x'", "returns no ConfigDict with a text as key"),
        (f"{OTHER}'lr': 1}})", "returns no ConfigDict with a text as key `experiment`"),
        (
            f"{OTHER}'experiment': 3}})",
            "returns no ConfigDict with a text as key `experiment`",
        ),
    ],
)
def test_broken_config_files_are_named(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.py: found ") as refused:
        flags.load_config(str(path))
    assert said.format(path=path) in str(refused.value) and "\n" not in str(refused.value)


def test_the_last_value_of_a_key_counts():
    words = ["--config.fractions=(1,1,1)", "--config.seed=1", "--config.splits", "random"]
    words += ["--config.fractions=(0.5,0.25,0.25)", "--config.seed=2", "--config.splits=by_run"]
    config, left = flags.override(flags.load_config("expB"), words)
    assert (config.fractions, config.seed, config.splits) == ((0.5, 0.25, 0.25), 2, "by_run")
    assert not left


@pytest.mark.parametrize("key", ["seed", "train.lr", "null", "data.root", "model.dropout"])
@pytest.mark.parametrize(
    "value", ["(1", "[" * 3000, "(" * 300, "9" * 5000, "a\nb", "\0", "[/red]", "{}", "\x1b[31m"]
)
def test_values_of_a_wrong_type_are_one_line(key, value):
    config = flags.load_config("expA:demo")
    try:
        found, left = flags.override(config, [f"--config.{key}={value}"])
        assert not left
        settings.check(found)  # any text is a tuple of one to the flags
    except InputError as error:
        assert str(error).startswith(("flags: found ", f"{key}: found "))
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert key == "data.root" and found.data.root == value


def test_flags_from_a_file(calls, tmp_path):
    path = tmp_path / "flags.txt"
    path.write_text("--config=expA:demo\n--config.train.epochs=3\n")
    assert emojax_command("run", f"--flagfile={path}", "--workdir=w", "--config.seed=1") == 0
    config = calls[0][1][0]
    assert (config.train.epochs, config.seed) == (3, 1)


def test_own_config_file_extends_a_shipped_one(calls, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from configs import expA\n\n\ndef get_config(n='3'):\n"
        "    config = expA.get_config()\n    config.seed = int(n)\n    return config\n"
    )
    monkeypatch.chdir(tmp_path)
    assert emojax_command("run", "mine.py:8", "--workdir=w", "--config.mask.lower=0.3") == 0
    assert calls[0][1][0].seed == 8 and calls[0][1][0].mask.lower == 0.3


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"SLURM_NTASKS": "4"}, (0, 1)),  # a batch script without srun
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (0, 1)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, (0, 1)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
    ],
)
def test_tasks_are_those_of_a_slurm_step(monkeypatch, environment, found):
    step(monkeypatch, environment)
    assert commands.task() == found


def step(monkeypatch, environment):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("config", ["expA:demo", "expB:demo"])
@pytest.mark.parametrize("mode", ["run", "plan", "data", "export"])
@pytest.mark.parametrize("rank", [0, 1])
def test_tasks_train_volumes_together_and_divide_other_runs(
    calls, monkeypatch, capsys, config, mode, rank
):
    monkeypatch.setattr(jax.distributed, "initialize", lambda: calls.append(("joined",)))
    tasks = {"SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2"}
    step(monkeypatch, tasks)
    assert emojax_command(mode, config, "--workdir=w") == 0
    shares = (config, mode) == ("expB:demo", "run")
    assert (("joined",) in calls) == shares
    divides = (config, mode) == ("expA:demo", "run")
    assert len(calls) == (2 if shares else 1 if divides else 1 - rank)
    assert calls[-1:] == [] or calls[-1][2].get("members", 1) == (2 if divides else 1)
    alone = "task 1 of 2: the first one does the work" in capsys.readouterr().out
    assert alone == (rank == 1 and mode != "run")


def workdir_of(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text("{}")
    run = {"inputs": {"files": {}}, "stamps": {}, "versions": {}, "digest": ""}
    (folder / "run.json").write_text(json.dumps({"format": 2} | run))
    return folder


def test_report_prints_the_table_again(tmp_path, monkeypatch, capsys):
    folder = workdir_of(tmp_path / "demo", {"format": 2, "config": {}})
    result = types.SimpleNamespace(load=lambda path: f"result of {path.name}")
    schema = types.SimpleNamespace(Result=result)
    monkeypatch.setitem(sys.modules, "emojax.report.schema", schema)
    made = types.SimpleNamespace(print=lambda text, **options: print(text))
    console = types.SimpleNamespace(
        print_table=lambda result, out: out.print(result), make=lambda: made
    )
    monkeypatch.setitem(sys.modules, "emojax.report.console", console)
    monkeypatch.setattr("emojax.report.console", console, raising=False)
    for words in (["emojax", "report", str(folder)], ["emojax", "report", f"--workdir={folder}"]):
        assert cli.main(words) == 0
        out = capsys.readouterr().out
        assert out == f"result of demo\nreport: {folder / 'report.html'}\n"


def test_report_refuses_what_it_cannot_read(tmp_path, capsys):
    old = workdir_of(tmp_path / "old", {"experiment": "A", "data": {}})
    damaged = workdir_of(tmp_path / "damaged", {})
    (damaged / "config.json").write_text("{")
    events = tmp_path / "events.tsv"
    events.write_text("onset")
    changed = workdir_of(tmp_path / "changed", {"format": 2, "config": {}})
    run = json.loads((changed / "run.json").read_text())
    run |= {"inputs": {"files": {str(events): "another"}}, "stamps": {str(events): [0, 0]}}
    (changed / "run.json").write_text(json.dumps(run))
    for folder, said in (
        (old, "found a workdir of emojax 0.3; expected a new folder"),
        (damaged, "config.json: found "),
        (changed, f"{events}: found other content than the run in this workdir has read"),
        (tmp_path, "found no finished run; expected"),
        (tmp_path / "none", "found no such folder; expected"),
    ):
        assert emojax_command("report", str(folder)) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1


@pytest.fixture
def study(tmp_path):
    """Returns a workdir, and a store beside it with two arrays and a record."""
    folder = tmp_path / "store"
    (folder / "paths").mkdir(parents=True)
    for i, size in enumerate((3_000_000, 2_000)):
        (folder / f"{i:064x}.npy").write_bytes(b"\0" * size)
    (folder / "paths" / f"{0:032x}.json").write_text("{}")
    return workdir_of(tmp_path / "demo", {"format": 1, "config": {"data": {"store": ""}}}), folder


def test_clean_only_shows_where_nobody_can_agree(study, capsys):
    workdir, folder = study
    for words in ((str(workdir),), (f"--store={folder}",)):
        assert emojax_command("clean", *words) == 0
        out = capsys.readouterr().out
        assert out.count("array") == 2 and "3.0 MB" in out and "2.0 kB" in out
        assert f"in 3 files of {folder}" in out and "nothing was removed; --yes" in out
    assert len(list(folder.glob("**/*.*"))) == 3


@pytest.mark.parametrize(("answer", "left"), [("", 3), ("n", 3), ("y", 0), (None, 0)])
def test_clean_asks_in_a_terminal(study, monkeypatch, capsys, answer, left):
    workdir, folder = study
    if answer is not None:
        monkeypatch.setattr(clean.sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(clean.sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr("builtins.input", lambda question: answer)
    assert emojax_command("clean", str(workdir), *(() if answer is not None else ("--yes",))) == 0
    out = capsys.readouterr().out
    assert ("3 files were removed" in out) == (left == 0)
    assert len(list(folder.glob("**/*.*"))) == left and (workdir / "metrics.json").exists()


def test_clean_shows_and_removes_compiled_programs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("emojax.compiled.programs", lambda: None)  # in JAX_COMPILATION_CACHE_DIR
    assert emojax_command("clean", "--programs") == 0
    assert capsys.readouterr().out == "no compiled programs are kept\n"
    for name in ("xla/0123/jit_f-00-cache", "programs/0123/00.program", "programs/notes.txt"):
        path = tmp_path / ".cache" / "emojax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * 2000)
    assert emojax_command("clean", "--programs") == 0
    out = capsys.readouterr().out
    assert out.count("2.0 kB  in 1 files of") == 2 and "nothing was removed; --yes" in out
    assert emojax_command("clean", "--programs", "--yes") == 0
    assert "2 files were removed" in capsys.readouterr().out
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["notes.txt"]


def test_clean_touches_nothing_else(study, tmp_path, capsys):
    workdir, folder = study
    (folder / "thesis.tex").touch()
    elsewhere = workdir_of(tmp_path / "b", {"data": {"store": str(tmp_path / "none")}})  # as 0.3.0
    for words, said in (
        ((str(workdir), "--yes"), "thesis.tex"),
        ((f"--store={tmp_path}", "--yes"), "expected a store"),
        ((f"--store={workdir}", "--yes"), "expected a store"),
        ((str(folder), "--yes"), "found no config.json of a run; expected a workdir, or --store"),
        ((str(elsewhere), "--yes"), "none: found no such folder"),
        (("--yes",), "flags: found none; expected either a workdir or --store"),
        ((str(workdir), f"--store={folder}", "--yes"), "flags: found both; expected either"),
        ((str(workdir), "--programs", "--yes"), "flags: found both; expected either"),
    ):
        assert emojax_command("clean", *words) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert len(list(folder.glob("**/*.*"))) == 4
