"""Paths are looked at before they are opened: a pipe would be waited for."""

import os
import pathlib

import pytest

from emojax.data import hashes, paths
from emojax.errors import InputError


def test_takes_files_folders_and_links_to_them(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("a", "link"):
        paths.require_file(tmp_path / name)
    assert paths.require_folder(str(tmp_path), "a folder") == pathlib.Path(tmp_path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nothing", "no such file"),
        ("dangling", "a link to a file that is not there"),
        ("folder", "something that is not a file"),
        ("pipe", "something that is not a file"),
        ("loop", r"a path that cannot be read \(Too many levels of symbolic links\)"),
        ("a\0b", r"a path that cannot be read \(embedded null byte\)"),
        ("x" * 5000, r"a path that cannot be read \(File name too long\)"),
    ],
)
def test_refuses_what_is_no_file(tmp_path, name, found):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(InputError, match=f"found {found}; expected a table"):
        paths.require_file(tmp_path / name, "a table")


@pytest.mark.parametrize(
    ("content", "fetch"),
    [
        ("/annex/objects/MD5E-s26093786--0123456789abcdef.nii.gz\n", "datalad get"),
        ("/annex/objects/SHA256E-s5--ab.tsv\nmore lines\n", "datalad get"),
        ("../../.git/annex/objects/Xx/yY/MD5E-s5--ab.nii.gz/MD5E-s5--ab.nii.gz", "datalad get"),
        ("..\\.git\\annex\\objects\\Xx\\MD5E-s5--ab.json\r\n", "datalad get"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "git lfs pull --include",
        ),
    ],
)
def test_pointers_say_that_their_content_is_not_downloaded(tmp_path, content, fetch):
    path = tmp_path / "a b.nii.gz"
    path.write_text(content)
    said = rf"found a file that is not downloaded \({fetch} '{path}'\); expected a scan"
    with pytest.raises(InputError, match=said):
        paths.require_file(path, "a scan")
    with pytest.raises(InputError, match=f"not downloaded .{fetch}"):
        hashes.stamp(path)


def test_links_into_an_annex_say_so_too(tmp_path):
    key = tmp_path / ".git/annex/objects/Xx/key"
    (tmp_path / "a.tsv").symlink_to(".git/annex/objects/Xx/key")
    (tmp_path / "b.tsv").symlink_to("a.tsv")
    for name in ("a.tsv", "b.tsv"):
        with pytest.raises(InputError, match=r"not downloaded \(datalad get .*"):
            paths.require_file(tmp_path / name)
    key.parent.mkdir(parents=True)
    key.write_text("content")
    assert paths.require_file(tmp_path / "b.tsv").st_size == 7


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"onset\tduration\tstim_file\n0\t1\tannex/objects/a.png\n",
        b'{"Sources": "annex/objects"}',
        b"file,label\nannex/objects/a.nii,1\n",
        b"1 2 3\n",
        b"\x1f\x8b\x00\xff",
    ],
)
def test_small_files_with_content_are_files(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert paths.require_file(tmp_path / "a").st_size == len(content)


@pytest.mark.parametrize("name", ["", "/nowhere", "/etc/hostname", "a\0b", "/" + "x" * 5000])
def test_refuses_what_is_no_folder(name):
    with pytest.raises(InputError, match="found no such folder; expected a study"):
        paths.require_folder(name, "a study")


def test_hidden_files_are_nobodys(tmp_path):
    for name in ("b.npz", "a.npz", "._a.npz"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in paths.visible(tmp_path.iterdir())] == ["a.npz", "b.npz"]
