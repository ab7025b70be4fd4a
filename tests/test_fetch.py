"""`emojax fetch` against a file server on this machine, with a registry of three small files."""

import contextlib
import errno
import functools
import hashlib
import http.server
import json
import os
import re
import shlex
import shutil
import socket
import threading

import pytest

from emojax import cli, datasets
from emojax.cli import config_files, flags
from emojax.cli import fetch as command
from emojax.data import events
from emojax.data.label_map import labelling
from emojax.data.labels import assign
from emojax.data.windows import regular
from emojax.datasets import Dataset, File, fetching
from emojax.errors import InputError

CONTENT = {
    "dataset_description.json": b'{"Name": "tiny"}',
    "sub-1/func/sub-1_bold.nii.gz": bytes(range(256)) * 5000,
    "sub-2/func/sub-2_bold.nii.gz": b"two",
}
SCAN = "sub-1/func/sub-1_bold.nii.gz"


def file(path):
    kind = "md5" if path.endswith(".gz") else "sha256"
    return File(path, len(CONTENT[path]), f"{kind}:{hashlib.new(kind, CONTENT[path]).hexdigest()}")


TINY = Dataset(
    name="tiny",
    title="A test",
    accession="ds0",
    commit="0" * 40,
    licence="CC0",
    citation="Nobody (2000). Nothing.",
    config="study",
    options=("--config.data.subjects={subject}",),
    files=tuple(map(file, CONTENT)),
)


class Handler(http.server.SimpleHTTPRequestHandler):
    """A server of files that notes the requests; `half` closes a connection in the middle."""

    asked, half = [], False

    def do_GET(self):
        self.asked.append(self.path)
        if not self.half:
            super().do_GET()
            return
        content = CONTENT[SCAN]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Returns the address of a server of the three files; `Handler.asked` has the requests."""
    root = tmp_path / "served"
    for path, content in CONTENT.items():
        (root / "ds0" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "ds0" / path).write_bytes(content)
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(Handler, "half", False)
    monkeypatch.setattr(fetching, "RETRIES", 0)
    monkeypatch.setitem(datasets.DATASETS, "tiny", lambda: TINY)
    monkeypatch.setenv("EMOJAX_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("EMOJAX_MIRROR", raising=False)
    handler = functools.partial(Handler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def fetch(*words):
    return cli.main(["emojax", "fetch", *words])


def contents(folder):
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# ---------------------------------------------------------------- downloads


def test_the_first_call_downloads_and_the_second_needs_no_network(server, tmp_path, capsys):
    assert fetch("tiny", f"--mirror={server}") == 0
    out = capsys.readouterr().out.splitlines()
    licence = next(i for i, line in enumerate(out) if "licence: CC0" in line)
    assert licence < next(
        i for i, line in enumerate(out) if "3 files downloaded and verified" in line
    )
    folder = tmp_path / "cache" / "tiny"
    found = contents(folder)
    note = json.loads(found.pop(".emojax-fetch.json"))
    assert found == CONTENT and note["dataset"] == "tiny" and note["licence"] == "CC0"
    assert Handler.asked[0] == "/ds0/dataset_description.json" and len(Handler.asked) == 3
    assert oct((folder / SCAN).stat().st_mode & 0o777) == oct(0o666 & ~fetching._umask())
    words = shlex.split(out[-1])
    assert words[:4] == ["emojax", "run", "study", "--workdir=runs/tiny"]
    assert words[4:] == [f"--config.data.root={folder}", "--config.data.subjects=1"]
    assert fetch("tiny", "--mirror=http://127.0.0.1:9") == 0  # no server listens there
    assert "all files exist and match their registered hashes" in capsys.readouterr().out
    assert len(Handler.asked) == 3


def test_one_subject_into_a_folder_and_then_the_rest(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EMOJAX_MIRROR", server + "/")
    assert fetch("tiny", f"--to={tmp_path / 'here'}", "--subjects=sub-2") == 0
    assert "2 files, 19 B" in capsys.readouterr().out
    assert set(contents(tmp_path / "here")) == set(CONTENT) - {SCAN} | {fetching.NOTE}
    assert fetch("tiny", f"--to={tmp_path / 'here'}") == 0
    said = capsys.readouterr().out
    assert "1 files downloaded" in said and SCAN in Handler.asked[-1]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"x" * len(CONTENT[SCAN])], ids=["cut", "changed"])
def test_a_damaged_file_is_fetched_again(server, tmp_path, capsys, content):
    fetch("tiny", f"--mirror={server}")
    path = tmp_path / "cache" / "tiny" / SCAN
    path.write_bytes(content)
    assert fetch("tiny", f"--mirror={server}") == 0
    said = capsys.readouterr().out
    assert "1 files downloaded and verified; 1 of them replace files that did not match" in said
    assert path.read_bytes() == CONTENT[SCAN] and len(Handler.asked) == 4


def test_a_copy_that_was_made_in_another_way_is_used(server, tmp_path, capsys):
    shutil.copytree(tmp_path / "served" / "ds0", tmp_path / "copy")
    assert fetch("tiny", f"--to={tmp_path / 'copy'}") == 0
    assert Handler.asked == [] and contents(tmp_path / "copy") == CONTENT


# ---------------------------------------------------------------- what goes wrong


def refused(capsys, *words):
    assert fetch(*words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_a_connection_that_breaks_leaves_nothing_half(server, tmp_path, capsys):
    fetch("tiny", "--subjects=2", f"--mirror={server}")
    Handler.half = True
    said = refused(capsys, "tiny", f"--mirror={server}")
    assert f"{server}/ds0/{SCAN}: found " in said and "the same command resumes" in said
    assert set(contents(tmp_path / "cache/tiny")) == set(CONTENT) - {SCAN} | {fetching.NOTE}
    Handler.half = False
    assert fetch("tiny", f"--mirror={server}") == 0


def test_another_file_on_the_server(server, tmp_path, capsys):
    (tmp_path / "served" / "ds0" / SCAN).write_bytes(b"other")
    said = refused(capsys, "tiny", f"--mirror={server}")
    assert f"{SCAN}: found another file, or a damaged one; expected the file that was" in said
    assert SCAN not in contents(tmp_path / "cache" / "tiny")


def test_no_such_file_on_the_server(server, tmp_path, capsys):
    (tmp_path / "served" / "ds0" / SCAN).unlink()
    assert f"{SCAN}: found HTTP 404; expected the file" in refused(
        capsys, "tiny", f"--mirror={server}"
    )


def test_no_network(server, capsys):
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    said = refused(capsys, "tiny", f"--mirror=http://127.0.0.1:{port}")
    wanted = f"http://127.0.0.1:{port}/ds0/dataset_description.json: found no answer ("
    assert said.startswith(wanted) and "refused" in said
    assert "expected a network, or a copy in it (--mirror=URL)" in said


def test_a_full_disk(server, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    said = refused(capsys, "tiny", f"--mirror={server}")
    assert "found 0.0 GB free; expected 0.1 GB (--to=DIR, --subjects=...)" in said
    assert not (tmp_path / "cache").exists() and Handler.asked == []
    monkeypatch.undo()


def test_a_disk_that_fills_while_it_is_written(server, tmp_path, capsys, monkeypatch):
    import pooch

    def full(self, url, output, pup, check_only=False):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), output)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    assert "No space left on device" in refused(capsys, "tiny", f"--mirror={server}")
    assert set(contents(tmp_path / "cache" / "tiny")) == {fetching.NOTE}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["haxbi"], "data set: found 'haxbi' (did you mean 'haxby'?); expected one of haxby, ds0"),
        (["tiny", "--subjects=3"], "--subjects: found '3'; expected one of 1, 2"),
        (["tiny", "--mirror=ftp://x"], "mirror: found 'ftp://x'; expected an address that begins"),
        (["--to=x"], "flags: found --to without a data set; expected emojax fetch NAME"),
        (["tiny", "--to=FILE"], "FILE: found a file; expected a new folder"),
        (["tiny", "--to=served"], "served: found files of something else; expected a new folder"),
        (["tiny", "more"], "flags: found more; expected the flags that"),
    ],
)
def test_bad_input(server, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    before = contents(tmp_path)
    assert said in refused(capsys, *words)
    assert contents(tmp_path) == before and Handler.asked == []


def test_without_pooch(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    assert refused(capsys, "tiny") == "fetch: found no package pooch; expected pip install pooch\n"


# ---------------------------------------------------------------- the registered data sets


def test_the_list_says_licences(capsys):
    assert fetch("--list") == 0
    listed = capsys.readouterr().out
    assert fetch() == 0
    assert capsys.readouterr().out == listed
    for name in ("haxby", "ds000108"):
        found = datasets.find(name)
        assert f"{name}: {found.title} (" in listed and f"licence: {found.licence}" in listed


@pytest.mark.parametrize("name", ["haxby", "ds000108"])
def test_registries_are_whole(name):
    found = datasets.find(name)
    paths = [own.path for own in found.files]
    assert len(set(paths)) == len(paths) and paths[0] == "dataset_description.json"
    assert re.fullmatch("[0-9a-f]{40}", found.commit)
    bold = {path.removesuffix("_bold.nii.gz") for path in paths if path.endswith("_bold.nii.gz")}
    events_of = {path.removesuffix("_events.tsv") for path in paths if path.endswith("events.tsv")}
    assert bold <= events_of and len(bold) == {"haxby": 71, "ds000108": 200}[name]
    assert len(found.subjects) == {"haxby": 6, "ds000108": 34}[name]
    for own in found.files:
        kind, digits = ("md5", 32) if own.path.endswith(".gz") else ("sha256", 64)
        assert re.fullmatch(f"{kind}:[0-9a-f]{{{digits}}}", own.digest) and own.size > 0
        assert ".." not in own.path and not own.path.startswith("/")
        assert own.version or not own.path.endswith(".gz")  # images have a version in the bucket
    image = next(own for own in found.files if own.path.endswith(".gz"))
    url = image.url(found.accession)
    assert url.startswith(f"{datasets.BUCKET}/{found.accession}/sub-") and "?versionId=" in url
    assert "?" not in image.url(found.accession, "http://mirror/")


@pytest.mark.parametrize("name", ["haxby", "ds000108"])
def test_the_printed_command_fits_the_config(name):
    found = datasets.find(name)
    words = shlex.split(command.command(found, "/data/x"))
    config, left = flags.override(config_files.load_config(words[2]), words[4:])
    assert left == [] and config.data.root == "/data/x" and config.data.source == "bids"


def test_haxby_volumes_get_labels_by_the_printed_settings(tmp_path):
    """ds000105 has pictures of 0.5 s, every 2 s, 12 in a block, 8 blocks, TR 2.5 s."""
    config, _ = flags.override(
        config_files.load_config("haxby"),
        shlex.split(command.command(datasets.find("haxby"), "x"))[4:],
    )
    kinds = ["scissors", "face", "cat", "shoe", "house", "scrambledpix", "bottle", "chair"]
    rows = [f"{12 + 36 * b + 2 * i}\t0.5\t{k}" for b, k in enumerate(kinds) for i in range(12)]
    path = tmp_path / "events.tsv"
    path.write_text("\n".join(["onset\tduration\ttrial_type", *rows]) + "\n")
    table = events.read(path, config.data.label_column)
    mapped = labelling([table], config.data.label_map, config.data.label_column)
    found = assign(table, mapped, events.timing(config.data), regular(121, 2.5)).labels
    assert len(mapped.classes) == 8
    assert all(9 <= (found == k).sum() <= 10 for k in range(8))


def test_subjects_are_named(server):
    assert TINY.subjects == ["1", "2"]
    assert [own.path for own in TINY.select(("sub-2",))] == [next(iter(CONTENT)), list(CONTENT)[2]]
    with pytest.raises(InputError, match="expected one of 1, 2"):
        TINY.select(("12",))
