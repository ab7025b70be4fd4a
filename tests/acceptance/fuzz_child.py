"""One case of the fuzzer: the process that runs it, and the judgement on how it ended."""

import os
import pathlib
import re
import resource
import signal
import sys
import traceback

import numpy as np
from fuzz_cases import GOOD, MUST, Case

TRAINED, TRAINED_NAN = 77, 78  # exit codes of a child whose first training is finished


def child(case: Case, folder, work, log, checkout) -> None:
    """Runs a case in this process, which ends with its exit code."""
    os.setsid()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(f"{log}.out", flags), 1)
    os.dup2(os.open(log, flags), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (10 << 30, 10 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200 << 20, 200 << 20))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.chdir(checkout)
    code = 1
    try:
        code = case.call(folder) if case.call else launch(case.argv(folder, work))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def launch(argv: list[str]) -> int:
    """Calls the command as `launch.py` does; the process ends when a training is finished."""
    from emojax import cli
    from emojax.training.checkpoint import Workdir

    def save_finished(self, name, arrays):
        sys.stdout.flush()
        finite = all(np.isfinite(arrays[k]).all() for k in ("best", "last") if k in arrays)
        os._exit(TRAINED if finite else TRAINED_NAN)

    Workdir.save_finished = save_finished
    sys.argv = ["launch.py", *argv]
    return cli.launch(sys.argv)


def judge(status, timed_out, log, work, store) -> tuple[str, list[str], list[str]]:
    """Returns the outcome, the lines on stderr, and what was left half-written."""
    text = pathlib.Path(log).read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    unforeseen = [line for line in lines if line.startswith("unforeseen: ")]
    if timed_out:
        found = "hang"
    elif os.WIFSIGNALED(status):
        found = "crash"
        lines.append(f"signal {os.WTERMSIG(status)}")
    elif "Traceback (most recent call last)" in text or unforeseen:
        found = "traceback"
        lines += [line for said in unforeseen for line in kept_traceback(said)]
    else:
        code = os.WEXITSTATUS(status)
        found = {0: "accepted", TRAINED: "accepted", TRAINED_NAN: "accepted: NaN"}.get(code)
        if code == 2:
            found = "refused" if len(lines) == 1 else "noisy"
        if found is None:
            found = "other"
            lines.append(f"exit code {code}")
    return found, lines, [] if found.startswith("accepted") else half_written(work, store)


def kept_traceback(line: str) -> list[str]:
    """Returns the lines of the file that a line about an unforeseen error names last."""
    path = pathlib.Path(line.rpartition(": ")[2])
    text = path.read_text(errors="replace") if path.is_file() else ""
    return [line for line in text.splitlines() if line.strip()]


def half_written(*folders) -> list[str]:
    """Lists what a refused command must not leave behind."""
    files = [path for base in folders if base.exists() for path in base.rglob("*")]
    return [
        str(path)
        for path in files
        if path.name.endswith((".partial", ".old"))
        or path.name.startswith(".decoder-")
        or path.name == "predictions.csv"
    ]


def failed(case: Case, found: str) -> bool:
    """Returns whether an outcome breaks the rule of its case."""
    if found == "accepted":
        return case.rule == MUST
    return found != "refused" or case.rule == GOOD


def place(lines: list[str]) -> str:
    """Returns file:line of the checkout's innermost frame, and the exception."""
    frames = [m for m in map(re.compile(r'File "(.*)", line (\d+), in (\S+)').search, lines) if m]
    own = [m for m in frames if "/emojax/" in m[1] and "site-packages" not in m[1]]
    where = ""
    if own:
        file, line, function = own[-1].groups()
        where = f"{'/'.join(pathlib.Path(file).parts[-2:])}:{line} {function}"
    return f"{where}: {lines[-1][:200] if lines else ''}"
