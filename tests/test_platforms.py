"""Other platforms: what only Linux has is not needed, and what has no wheel is not asked for."""

import pathlib
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from small_studies import make_cohort, make_values

from emojax import experiments
from emojax.configs import common

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLATFORMS = {
    ("linux", "x86_64"): {"xgboost-cpu"},
    ("linux", "aarch64"): {"xgboost-cpu"},
    ("linux", "ppc64le"): set(),
    ("darwin", "arm64"): {"xgboost"},
    ("darwin", "x86_64"): {"xgboost"},
    ("win32", "AMD64"): {"xgboost-cpu"},
    ("win32", "ARM64"): set(),
}
# Libraries come first: theirs to know the platform. Then what Windows and macOS lack is gone.
BARE = """
import importlib, os, pathlib, pkgutil, signal, sys
import emojax, emojax.cli.commands
for info in pkgutil.walk_packages(emojax.__path__, "emojax."):
    importlib.import_module(info.name)
ours = [name for name in sys.modules if name.partition(".")[0] == "emojax"]
for name in ours:
    del sys.modules[name]
for name in ("fcntl", "grp", "posix", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in (
    "O_NOFOLLOW O_NONBLOCK O_DIRECTORY fork geteuid getuid getpgid killpg posix_fadvise "
    "posix_fallocate pread sched_getaffinity sched_setaffinity statvfs sysconf uname wait4"
).split():
    if hasattr(os, name):
        delattr(os, name)
for name in (
    "SIGUSR1 SIGUSR2 SIGALRM SIGHUP SIGXCPU setitimer ITIMER_REAL pthread_sigmask alarm"
).split():
    if hasattr(signal, name):
        delattr(signal, name)
sys.platform = sys.argv[1]
sys.path.insert(0, sys.argv[2])
read = pathlib.Path.read_text
def without_proc(self, *args, **kwargs):
    if str(self).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", str(self))
    return read(self, *args, **kwargs)
pathlib.Path.read_text = without_proc
for name in sorted(ours):
    importlib.import_module(name)

from emojax import files, locks, stops
from emojax._numerics import batches
from emojax.data import kept
from emojax.online.watching import events
from emojax.training import cost
folder = pathlib.Path(sys.argv[3])
assert cost.host_memory() > 1e8
assert not events.has_events(folder)
with stops.listening(), locks.Lock(folder / ".lock"):
    with files.atomic_write(folder / "a.txt") as partial:
        partial.write_text("a")
    with files.atomic_folder(folder / "b") as partial:
        (partial / "c").write_text("c")
    kept.allocate(folder / "a.txt")
    stops.check()
assert (folder / "a.txt").exists() and (folder / "b" / "c").exists()
print("fine")
"""


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_every_module_is_imported_without_what_only_linux_has(tmp_path, platform):
    done = subprocess.run(
        [sys.executable, "-c", BARE, platform, str(ROOT), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.endswith("fine\n"), done.stderr[-3000:]


def requirements():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in (re.sub(r"\s*#.*", "", each) for each in lines) if line]


@pytest.mark.parametrize(("platform", "machine"), PLATFORMS)
def test_xgboost_is_asked_for_where_it_has_wheels(platform, machine):
    here = {"sys_platform": platform, "platform_machine": machine}
    wanted = [r for r in requirements() if r.marker is None or r.marker.evaluate(here)]
    found = {r.name for r in wanted if r.name.startswith("xgboost")}
    assert found == PLATFORMS[platform, machine]
    assert len(wanted) == len(requirements()) - 2 + len(found)


@pytest.mark.slow
def test_without_xgboost_a_run_leaves_its_row_out(tmp_path, monkeypatch, capsys, quick_compile):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    monkeypatch.setitem(sys.modules, "xgboost", None)  # as if it were not installed
    config = common.get_config()
    config.update({"permutations": 0, "within_subject": False, "crossed": "", "design": False})
    config.update({"maps": False, "null_floor": False, "audit": False, "network": False})
    config.update({"protocols": "nested", "leaks": False, "balance": 8, "floor_baselines": ""})
    config.update({"baselines": "XGB,LDA", "members": 2})
    config.align.regimes, config.voxels.keep = "none", 10
    config.data.update({"progress": False, "store": str(tmp_path / "store")})
    cohort = make_cohort(*make_values(), tr=2.0)
    result = experiments.run(config, tmp_path / "run", cohort=cohort)
    assert "XGB: left out, its package is not installed\n" in capsys.readouterr().out
    classifiers = {*result.summary["classifier"]}
    assert "LDA" in classifiers and "XGB" not in classifiers
