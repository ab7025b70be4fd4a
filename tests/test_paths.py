"""Paths are looked at before they are opened: a pipe would be waited for."""

import os
import pathlib

import pytest

from emojax.data import paths
from emojax.errors import InputError


def test_takes_files_folders_and_links_to_them(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("a", "link"):
        paths.require_file(tmp_path / name)
    assert paths.require_folder(str(tmp_path), "a folder") == pathlib.Path(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "folder", "pipe", "loop", "a\0b", "x" * 5000])
def test_refuses_what_is_no_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = "something that is no file" if name in ("folder", "pipe") else "no such file"
    with pytest.raises(InputError, match=f"found {found}; expected a table"):
        paths.require_file(tmp_path / name, "a table")


@pytest.mark.parametrize("name", ["", "/nowhere", "/etc/hostname", "a\0b", "/" + "x" * 5000])
def test_refuses_what_is_no_folder(name):
    with pytest.raises(InputError, match="found no such folder; expected a study"):
        paths.require_folder(name, "a study")


def test_hidden_files_are_nobodys(tmp_path):
    for name in ("b.npz", "a.npz", "._a.npz"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in paths.visible(tmp_path.iterdir())] == ["a.npz", "b.npz"]
