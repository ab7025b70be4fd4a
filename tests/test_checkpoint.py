"""Workdirs and trainings, finished or not: whole or absent, and for one configuration only."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax.errors import InputError
from emojax.training import checkpoint
from emojax.training.checkpoint import Workdir, open_workdir, slug

CONFIG = {"seed": 0, "data": {"grid": (2, 3)}}


@pytest.fixture
def work(tmp_path):
    return open_workdir(tmp_path / "run", CONFIG)


def write(folder, text):
    folder.mkdir()
    (folder / "config.json").write_text(text)
    return folder


def refused(call, *args):
    """Returns the one line of an InputError."""
    with pytest.raises(InputError) as found:
        call(*args)
    assert "\n" not in str(found.value)
    return str(found.value)


# Trainings.


def test_state_comes_back_with_its_keys_and_dtypes(work):
    tree = {
        "key": jax.random.key(3),
        "x": jnp.arange(5.0),
        "short": jnp.arange(4, dtype=jnp.bfloat16),
        "n": jnp.int32(7),
        "none": {},
        "curve": np.full(3, np.nan, np.float32),
    }
    assert work.load("a", tree) is None
    for epoch in (1, 2):
        work.save("a", epoch, tree | {"n": jnp.int32(epoch)})
    epoch, got = work.load("a", tree)
    assert epoch == 2 and int(got["n"]) == 2 and got["none"] == {}
    for name in ("x", "short", "n", "curve"):
        assert got[name].dtype == tree[name].dtype
    np.testing.assert_array_equal(got["x"], tree["x"])
    assert np.isnan(got["curve"]).all()
    np.testing.assert_array_equal(jax.random.bits(got["key"]), jax.random.bits(tree["key"]))
    kept = list((work.folder / "training" / "a").glob("[0-9]*"))
    assert [path.name for path in kept] == ["2"]  # the older one is gone
    assert open_workdir(work.folder, CONFIG).load("a", tree)[0] == 2


def test_a_training_moves_to_the_devices_that_are_there(work):
    sharding = [
        jax.sharding.NamedSharding(jax.make_mesh((n,), ("data",)), jax.sharding.PartitionSpec())
        for n in (1, 8)
    ]
    tree = {"x": jax.device_put(jnp.arange(6.0), sharding[0])}
    work.save("a", 1, tree)
    like = {"x": jax.device_put(jnp.zeros(6), sharding[1])}
    _, got = work.load("a", like)
    assert got["x"].sharding.num_devices == 8
    np.testing.assert_array_equal(got["x"], tree["x"])


def test_an_empty_folder_is_no_checkpoint(work):
    (work.folder / "training" / "a").mkdir(parents=True)
    assert work.load("a", {"x": jnp.ones(2)}) is None


def test_finished_replaces_the_checkpoint(work):
    tree = {"x": jnp.ones(2)}
    work.save("a", 1, tree)
    work.save("b", 1, tree)
    assert work.load_finished("a") is None
    arrays = {"best": np.ones((2, 3), np.float32), "epoch": np.asarray(4), "done": np.int32(9)}
    work.save_finished("a", arrays)
    got = work.load_finished("a")
    assert got.keys() == arrays.keys() and int(got["epoch"]) == 4 and int(got["done"]) == 9
    np.testing.assert_array_equal(got["best"], arrays["best"])
    assert got["best"].dtype == np.float32
    assert work.load("a", tree) is None and work.load("b", tree)[0] == 1


def test_models_come_back_as_trees(work):
    tree = {
        "params": {"dense": {"kernel": jnp.ones((2, 3)), "bias": np.zeros(3)}},
        "batch_stats": {},
        "fitted": {"maps": [np.eye(2), np.ones(2)], "name": np.array("01"), "n": 3},
    }
    assert work.load_model("nested 0") is None
    work.save_model("nested 0", tree)
    got = work.load_model("nested 0")
    np.testing.assert_array_equal(got["params"]["dense"]["kernel"], np.ones((2, 3)))
    np.testing.assert_array_equal(got["fitted"]["maps"][1], np.ones(2))
    assert str(got["fitted"]["name"]) == "01" and int(got["fitted"]["n"]) == 3
    assert work.load_model("nested 1") is None
    assert (work.folder / "models" / "nested-0.npz").exists()


@pytest.mark.parametrize("kind", ["done", "models"])
def test_a_failure_leaves_the_old_file_and_no_other(work, monkeypatch, kind):
    save, load = {
        "done": (work.save_finished, work.load_finished),
        "models": (work.save_model, work.load_model),
    }[kind]
    save("a", {"x": np.zeros(2)})

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    for name in ("a", "b"):
        with pytest.raises(OSError, match="no space left"):
            save(name, {"x": np.ones(2)})
    assert [path.name for path in (work.folder / kind).iterdir()] == ["a.npz"]
    np.testing.assert_array_equal(load("a")["x"], np.zeros(2))
    assert load("b") is None


@pytest.mark.parametrize("text", [b"", b"half a file", b"PK\x03\x04 and no more"])
def test_a_damaged_file_is_named(work, text):
    work.save_finished("a", {"x": np.zeros(2)})
    path = work.folder / "done" / "a.npz"
    path.write_bytes(text)
    line = refused(work.load_finished, "a")
    assert line.startswith(f"{path}: found damaged (") and "as it was written" in line


def test_names_are_parts_of_file_names():
    assert slug("nested, none 0") == "nested-none-0"
    assert slug("by_run L2=1e-4+x.y") == "by_run-L2-1e-4+x.y"
    assert slug("../a/b 1 ") == "..-a-b-1"
    assert slug("été 0") == "été-0"


def test_two_names_never_share_a_file(work):
    """Another training's result would be taken for one's own."""
    work.save_finished("nested, none 0", {"x": np.zeros(1)})
    assert work.load_finished("nested, none 0") is not None
    line = refused(work.load_finished, "nested (none) 0")
    assert "found one file for 'nested, none 0' and 'nested (none) 0'" in line
    assert "expected names that differ in letters or digits" in line


def test_only_the_first_process_writes(work, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    work.save_finished("a", {"x": np.zeros(1)})
    work.save_model("a", {"x": np.zeros(1)})
    assert [path.name for path in work.folder.iterdir()] == ["config.json"]


# Workdirs.


def test_a_workdir_says_what_it_belongs_to(work):
    found = json.loads((work.folder / "config.json").read_text())
    assert found == {"format": 2, "config": {"seed": 0, "data": {"grid": [2, 3]}}}
    assert work.plain_config == found["config"] == checkpoint.read_config(work.folder)
    assert work.folder.is_absolute() and not work.is_finished
    assert [path.name for path in work.folder.iterdir()] == ["config.json"]
    (work.folder / "metrics.json").touch()
    assert work.is_finished


BEGUN = {
    "a checkpoint": lambda work: work.save("a", 1, {"x": jnp.ones(1)}),
    "a finished training": lambda work: work.save_finished("a", {"x": np.ones(1)}),
    "a kept network": lambda work: work.save_model("a", {"x": np.ones(1)}),
    "a report": lambda work: (work.folder / "metrics.json").touch(),
}


@pytest.mark.parametrize("begun", BEGUN)
def test_a_workdir_belongs_to_one_configuration(work, begun):
    """From the first checkpoint on: another run would continue it."""
    again = open_workdir(work.folder, CONFIG | {"seed": 5})  # nothing was trained
    assert again.folder == work.folder and checkpoint.read_config(work.folder)["seed"] == 5
    work = open_workdir(work.folder, CONFIG)
    BEGUN[begun](work)
    quiet = {"seed": 0, "data": {"grid": [2, 3], "progress": False, "store": "elsewhere"}}
    assert open_workdir(work.folder, quiet).plain_config == work.plain_config
    line = refused(open_workdir, work.folder, CONFIG | {"seed": 1})
    assert line == (
        f"{work.folder}: found a run with seed=0; expected seed=1, or another --workdir"
    )
    line = refused(open_workdir, work.folder, {"seed": 0, "data": {"grid": (2, 4)}})
    assert "found a run with data.grid=[2, 3]; expected data.grid=[2, 4]" in line
    line = refused(open_workdir, work.folder, CONFIG | {"new": 3})
    assert "found a run with new=None; expected new=3" in line
    assert checkpoint.read_config(work.folder) == work.plain_config


def test_opening_again_changes_no_file(work):
    before = (work.folder / "config.json").stat()
    open_workdir(work.folder, CONFIG)
    after = (work.folder / "config.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_foreign_folders_and_files_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    assert "found files of something else" in refused(open_workdir, tmp_path / "other", CONFIG)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]
    (tmp_path / "file").touch()
    line = refused(open_workdir, tmp_path / "file", CONFIG)
    assert "found a file; expected a folder as --workdir" in line
    line = refused(open_workdir, tmp_path / "file" / "below", CONFIG)
    assert "expected a folder that can be written to" in line
    (tmp_path / "empty").mkdir()
    assert isinstance(open_workdir(tmp_path / "empty", CONFIG), Workdir)


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    line = refused(open_workdir, tmp_path / "run", CONFIG)
    assert "found No space left on device" in line
    assert not list((tmp_path / "run").iterdir())


def test_a_workdir_of_another_version_is_one_line(tmp_path):
    old = write(tmp_path / "old", json.dumps(CONFIG, indent=1))
    line = f"{old}: found a workdir of emojax 0.3; expected a new folder as --workdir"
    assert refused(open_workdir, old, CONFIG) == line
    assert refused(checkpoint.read_config, old) == line
    new = write(tmp_path / "new", json.dumps({"format": 3, "settings": {}}))
    assert "found a workdir of another version (format 3)" in refused(open_workdir, new, CONFIG)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "\x00\xff", '{"format": 2}'])
def test_a_damaged_configuration_is_one_line(tmp_path, text):
    folder = write(tmp_path / "run", text)
    line = refused(open_workdir, folder, CONFIG)
    assert line.startswith(f"{folder / 'config.json'}: found damaged (")
    assert (folder / "config.json").read_text() == text


def test_a_folder_without_configuration_is_no_workdir(tmp_path):
    line = refused(checkpoint.read_config, tmp_path)
    assert line == f"{tmp_path}: found no config.json; expected the workdir of a run"
