"""Tests of the folder of compiled programs and of the checks on its files."""

import os
import pathlib
import stat
import subprocess
import sys
import warnings

import jax
import pytest

from emojax import compiled

KEY, CODE = "ab" * 32, bytes(range(256)) * 20


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Returns a home folder without a cache, and jax in its initial state."""
    names = ("compilation_cache_dir", "enable_compilation_cache")
    names = [f"jax_{name}" for name in (*names, "persistent_cache_min_compile_time_secs")]
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    for name, value in zip(names, (None, True, 1.0), strict=True):
        jax.config.update(name, value)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def file(home):
    """Returns the file of a program that was written."""
    compiled.write(KEY, CODE)
    return compiled.programs() / f"{KEY}.program"


def test_a_program_comes_back_as_it_was_written(file):
    assert compiled.read(KEY) == CODE
    assert compiled.read("cd" * 32) is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o077 == 0 or os.name == "nt"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:-1] + b"\x01",
        lambda content: content + b"\0",
        lambda content: content.replace(b"abab", b"cdab", 1),  # the program of another key
        lambda content: b"\0" * 5000,
        lambda content: os.urandom(5000),
    ],
)
def test_what_is_not_as_it_was_written_is_not_read(file, damage):
    file.write_bytes(damage(file.read_bytes()))
    assert compiled.read(KEY) is None
    compiled.write(KEY, CODE)
    assert compiled.read(KEY) == CODE


@pytest.mark.skipif(os.name == "nt", reason="files of Windows have no such modes")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_read(file, mode):
    file.chmod(mode)
    assert compiled.read(KEY) is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users")
def test_a_file_of_another_user_is_not_read(file, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert compiled.read(KEY) is None


@pytest.mark.skipif(os.name == "nt", reason="folders of Windows have no such modes")
def test_nobody_else_can_write_the_folders(home, monkeypatch):
    folder = compiled.programs()
    folder.parent.mkdir(parents=True)
    for level in (folder.parent.parent, folder.parent):
        level.chmod(0o775)  # as if made by another version
    compiled.write(KEY, CODE)
    for level in (folder.parent.parent, folder.parent, folder):
        assert not level.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    assert compiled.read(KEY) == CODE
    for mode in (0o770, 0o707):  # others may have put programs into it
        folder.chmod(mode)
        assert compiled.read(KEY) is None
    folder.chmod(0o700)
    elsewhere = folder.rename(home / "elsewhere")
    folder.symlink_to(elsewhere)
    assert compiled.read(KEY) is None
    monkeypatch.setattr(compiled, "_root", lambda: pathlib.Path("~/.cache/emojax"))  # no home
    monkeypatch.chdir(home)
    compiled.write(KEY, CODE)
    compiled.start()
    assert not (home / "~").exists() and jax.config.jax_compilation_cache_dir is None


def test_links_and_pipes_are_not_read(file):
    moved = file.with_name("elsewhere")
    file.rename(moved)
    file.symlink_to(moved)
    assert compiled.read(KEY) is None
    file.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)
        assert compiled.read(KEY) is None
        file.unlink()
    file.mkdir()
    assert compiled.read(KEY) is None


def test_where_nothing_can_be_written_nothing_is_kept(home):
    (home / ".cache").write_text("")
    compiled.write(KEY, CODE)
    assert compiled.read(KEY) is None
    compiled.start()
    assert jax.config.jax_compilation_cache_dir is None


def test_the_folder_follows_what_the_user_has_set(home):
    machine = compiled.machine()[:12]
    assert compiled.programs() == home / ".cache" / "emojax" / "programs" / machine
    for name, value, wanted in (
        ("jax_compilation_cache_dir", str(home / "mine"), home / "mine" / "emojax" / machine),
        ("jax_compilation_cache_dir", "gs://bucket/cache", None),
        ("jax_compilation_cache_dir", "", None),
        ("jax_enable_compilation_cache", False, None),
    ):
        jax.config.update(name, value)
        assert compiled.programs() == wanted
    compiled.write(KEY, CODE)
    assert compiled.read(KEY) is None and not (home / ".cache").exists()


def test_start_turns_the_cache_on_and_leaves_what_the_user_has_set(home, monkeypatch):
    def least():
        return jax.config.jax_persistent_cache_min_compile_time_secs

    with warnings.catch_warnings():
        compiled.start()
        assert jax.config.jax_compilation_cache_dir == str(compiled.home("xla")) and least() == 0.05
        assert compiled.programs() == compiled.home("programs")
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 3.0)
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "3")
        compiled.start()
        assert least() == 3
        for mine in ("/mine", ""):  # JAX_COMPILATION_CACHE_DIR= turns the cache off
            jax.config.update("jax_compilation_cache_dir", mine)
            compiled.start()
            assert jax.config.jax_compilation_cache_dir == mine


def test_what_was_not_used_for_the_longest_time_goes_first(home):
    keys = [f"{i:064x}" for i in range(4)]
    for i, key in enumerate(keys):
        compiled.write(key, CODE)
        os.utime(compiled.programs() / f"{key}.program", (1000 + i, 1000 + i))
    assert compiled.read(keys[0]) == CODE  # used now
    each = compiled.entries()[0].bytes
    compiled.prune(compiled.programs(), 2 * each)
    assert [compiled.read(key) is not None for key in keys] == [True, False, False, True]
    compiled.prune(compiled.programs(), 0)
    assert compiled.entries() == []


def test_entries_are_emojaxs_own(home):
    compiled.write(KEY, CODE)
    xla = compiled.home("xla")
    xla.mkdir(parents=True)
    for name in ("jit_f-0-cache", "jit_f-0-atime", "thesis.tex"):
        (xla / name).write_bytes(b"1234")
    jax.config.update("jax_compilation_cache_dir", str(home / "mine"))
    (home / "mine").mkdir()
    (home / "mine" / "jit_g-0-cache").touch()  # the user's
    compiled.write(KEY, CODE)
    left = compiled.programs() / "x.program.1-ab.partial"
    left.touch()
    names = [entry.path.name for entry in compiled.entries()]
    os.utime(left, (0, 0))  # by a process that was killed long ago
    assert len(compiled.entries()) == 1 + len(names)
    left.unlink()
    assert sorted(names) == sorted([f"{KEY}.program"] * 2 + ["jit_f-0-atime", "jit_f-0-cache"])
    assert compiled.clear() == 4
    left = sorted(path.name for path in home.rglob("*") if path.is_file())
    assert left == ["jit_g-0-cache", "thesis.tex"]


def test_processes_that_write_the_same_program_leave_a_whole_one(home):
    code = (
        "import os; from emojax import compiled\n"
        f"key, folder = {KEY!r}, {str(home)!r}\n"
        "import pathlib; compiled.programs = lambda: pathlib.Path(folder)\n"
        "for i in range(40):\n"
        "    compiled.write(key, bytes([os.getpid() % 256]) * 100_000)\n"
        "    found = compiled.read(key)\n"
        "    assert found is not None and len(set(found)) == 1 and len(found) == 100_000\n"
    )
    root = pathlib.Path(__file__).resolve().parents[1]
    at_once = [subprocess.Popen([sys.executable, "-c", code], cwd=root) for _ in range(2)]
    assert [process.wait(60) for process in at_once] == [0, 0]
    assert len(list(home.iterdir())) == 1


def test_damaged_entries_of_jaxs_cache_are_compiled_afresh_without_a_word(home):
    code = (
        "from emojax import compiled; compiled.start()\n"
        "import jax; print(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((4, 4))))\n"
    )
    environment = dict(os.environ, HOME=str(home), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2", "JAX_ENABLE_COMPILATION_CACHE": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    root = pathlib.Path(__file__).resolve().parents[1]
    for damage in (None, bytes(100), b""):
        for path in compiled.home("xla").glob("*-cache"):
            path.write_bytes(damage)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("64.0\n", "")
    assert list(compiled.home("xla").glob("*-cache"))
