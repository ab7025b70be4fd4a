"""The edge: whatever ends a command is one line."""

import errno

import pytest

from emojax.cli import guard
from emojax.errors import InputError


def refused(error, capsys, argv=()):
    """Returns the one line of a command that ends with this error."""

    def command():
        raise error

    assert guard.run(command, argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback (most" not in said
    return said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("a.tsv", "x", "y"), "a.tsv: found x; expected y"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "/data/x: found No space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: found Permission denied"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "system: found Broken pipe"),
        (MemoryError(), "memory: found not enough"),
        (MemoryError("Unable to allocate 8 TiB"), "memory: found Unable to allocate 8 TiB"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"), "memory: found RESOURCE_EXH"),
        (
            RuntimeError("Unable to initialize backend 'cuda': no"),
            "jax: found no device for JAX_PLATFORMS",
        ),
    ],
)
def test_errors_of_the_machine_name_place_and_cause(error, words, capsys):
    assert refused(error, capsys).startswith(words)


def test_control_characters_are_spelled_out(capsys):
    line = refused(InputError("a\nb", "\x1b[2J\r", "\u2028\x00\u200b"), capsys)
    assert line == "a b: found \\x1b[2J\\r; expected \\u2028\\x00\\u200b\n"


def test_a_long_value_is_cut_in_its_middle(capsys):
    line = refused(InputError("key", "x" * 10_000, "a short one"), capsys)
    assert len(line) < 1000 and "xxx ... xxx" in line


@pytest.mark.parametrize("place", ["workdir", "temporary"])
def test_the_unforeseen_leaves_its_traceback_in_a_file(tmp_path, capsys, place, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    work = tmp_path / "work"
    for folder in (work, tmp_path / "tmp"):
        folder.mkdir()
    if place == "workdir":
        (work / "config.json").touch()
    line = refused(KeyError("surprise"), capsys, ["emojax run", f"--workdir={work}"])
    (path,) = tmp_path.rglob("traceback-*.txt")
    assert line.startswith("unforeseen: KeyError: 'surprise'; ") and str(path) in line
    assert path.parent == (work if place == "workdir" else tmp_path / "tmp")
    text = path.read_text()
    assert "Traceback (most recent call last)" in text and "in command" in text


def test_exit_codes():
    assert guard.run(lambda: None, []) == 0
    assert guard.run(lambda: 3, []) == 3
