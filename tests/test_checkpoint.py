"""Workdirs and trainings, finished or not: whole or absent, and for one configuration only."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax.data import hashes
from emojax.errors import InputError
from emojax.training import checkpoint
from emojax.training.checkpoint import Workdir, open_workdir, slug

CONFIG = {"seed": 0, "data": {"grid": (2, 3)}}


@pytest.fixture
def work(tmp_path):
    with open_workdir(tmp_path / "run", CONFIG) as work:
        yield work


def reopened(work, config=CONFIG, **options):
    """Returns the workdir as the next process finds it."""
    work.close()
    again = open_workdir(work.folder, config, **options)
    again.close()
    return again


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


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
    got = work.load("a", tree)
    assert int(got["n"]) == 2 and got["none"] == {}
    for name in ("x", "short", "n", "curve"):
        assert got[name].dtype == tree[name].dtype
    np.testing.assert_array_equal(got["x"], tree["x"])
    assert np.isnan(got["curve"]).all()
    np.testing.assert_array_equal(jax.random.bits(got["key"]), jax.random.bits(tree["key"]))
    assert int(reopened(work).load("a", tree)["n"]) == 2


def test_two_checkpoints_are_kept(work):
    for steps in (1, 2, 3, 4):
        work.save("a", steps, {"x": jnp.full(2, steps)})
    kept = sorted(path.name for path in (work.folder / "training" / "a").iterdir())
    assert kept == ["3", "3.json", "4", "4.json"]


def test_a_training_moves_to_the_devices_that_are_there(work):
    sharding = [
        jax.sharding.NamedSharding(jax.make_mesh((n,), ("data",)), jax.sharding.PartitionSpec())
        for n in (1, 8)
    ]
    tree = {"x": jax.device_put(jnp.arange(6.0), sharding[0])}
    work.save("a", 1, tree)
    like = {"x": jax.device_put(jnp.zeros(6), sharding[1])}
    got = work.load("a", like)
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
    assert work.load("a", tree) is None and work.load("b", tree) is not None


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


DAMAGE = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one bit": lambda path: flip(path),
    "zeros": lambda path: flip(path, bytes(16)),
}


def flip(path, zeros=b""):
    """Changes one bit in the middle of a file, or sets some of its bytes to 0."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if zeros:
        content[middle : middle + len(zeros)] = zeros[: len(content) - middle]
    else:
        content[middle] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(work, capsys, harm):
    """A checkpoint with any damaged file is skipped in favour of the previous one."""
    like = {"x": jnp.zeros(3000), "n": jnp.int32(0)}
    for steps in (1, 2):
        work.save("a", steps, {"x": jnp.arange(3000.0) + steps, "n": jnp.int32(steps)})
    folder = work.folder / "training" / "a"
    whole = work.folder.parent / "whole"
    shutil.copytree(folder, whole)
    places = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    hit = [place for place in places if place.parts[0] in ("2", "2.json")]
    assert len(hit) > 5
    for place in hit:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        before = (folder / place).read_bytes()
        DAMAGE[harm](folder / place)
        same = (folder / place).exists() and (folder / place).read_bytes() == before
        got = work.load("a", like)
        assert int(got["n"]) == (2 if same else 1), place
        np.testing.assert_array_equal(got["x"], np.arange(3000.0) + int(got["n"]))
        said = capsys.readouterr().err
        silent = same or (harm == "deleted" and place.name == "2.json")  # a kill looks like that
        assert said.count("\n") == (0 if silent else 1) and "Traceback" not in said


def test_without_a_whole_checkpoint_a_training_begins_anew(work, capsys):
    for steps in (1, 2):
        work.save("a", steps, {"x": jnp.ones(3)})
    for path in work.folder.glob("training/a/*.json"):
        path.write_text("[]")
    assert work.load("a", {"x": jnp.ones(3)}) is None
    assert capsys.readouterr().err.count("\n") == 2
    assert not (work.folder / "training" / "a").exists()


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_training_is_done_again(work, capsys, harm):
    work.save_finished("a", {"x": np.arange(200.0)})
    DAMAGE[harm](work.folder / "done" / "a.npz")
    assert work.load_finished("a") is None
    said = capsys.readouterr().err
    assert said.count("\n") == (harm != "deleted")
    assert harm == "deleted" or ("a.npz: damaged (" in said and "done again" in said)


def test_values_that_rotted_under_a_right_checksum_of_the_archive_are_found(work):
    """The archive's own checksum is not enough: the archive may have been rewritten."""
    work.save_finished("a", {"x": np.zeros(3)})
    path = work.folder / "done" / "a.npz"
    with np.load(path) as stored:
        arrays = dict(stored) | {"x": np.ones(3)}
    np.savez(path, **arrays)
    assert work.load_finished("a") is None


@pytest.mark.parametrize("harm", ["emptied", "halved", "one bit"])
def test_a_damaged_network_is_named(work, harm):
    work.save_model("a", {"x": np.arange(200.0)})
    assert work.has_model("a") and not work.has_model("b")
    path = work.folder / "models" / "a.npz"
    DAMAGE[harm](path)
    assert not work.has_model("a")
    line = refused(work.load_model, "a")
    assert line.startswith(f"{path}: found damaged (") and "trained anew" in line


def test_names_are_parts_of_file_names():
    assert slug("nested, none 0") == "nested-none-0"
    assert slug("by_run L2=1e-4+x.y") == "by_run-L2-1e-4+x.y"
    assert slug("../a/b 1 ") == "..-a-b-1"
    assert slug("été 0") == "été-0"


def test_two_names_never_share_a_file(work):
    """A shared file would pass one training's result off as another's."""
    work.save_finished("nested, none 0", {"x": np.zeros(1)})
    assert work.load_finished("nested, none 0") is not None
    line = refused(work.load_finished, "nested (none) 0")
    assert "found one file for 'nested, none 0' and 'nested (none) 0'" in line
    assert "expected names that differ in letters or digits" in line


def test_only_the_first_process_writes(work, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    work.save_finished("a", {"x": np.zeros(1)})
    work.save_model("a", {"x": np.zeros(1)})
    assert files_of(work.folder) == [".lock", "config.json"]


# Workdirs.


def test_a_workdir_says_what_it_belongs_to(work):
    found = json.loads((work.folder / "config.json").read_text())
    assert found == {"format": 2, "config": {"seed": 0, "data": {"grid": [2, 3]}}}
    assert work.plain_config == found["config"] == checkpoint.read_config(work.folder)
    assert work.folder.is_absolute() and not work.is_finished
    assert files_of(work.folder) == [".lock", "config.json"]
    work.close()
    assert files_of(work.folder) == ["config.json"]
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
    """A workdir is bound to its config by the first checkpoint, which another run would resume."""
    again = reopened(work, CONFIG | {"seed": 5})  # nothing was trained
    assert again.folder == work.folder and checkpoint.read_config(work.folder)["seed"] == 5
    work = reopened(work)
    BEGUN[begun](work)
    quiet = {"seed": 0, "data": {"grid": [2, 3], "progress": False, "store": "elsewhere"}}
    assert reopened(work, quiet).plain_config == work.plain_config
    line = refused(open_workdir, work.folder, CONFIG | {"seed": 1})
    expected = "seed=1 (or --restart to begin anew, or another --workdir)"
    assert line == f"{work.folder}: found a run with seed=0; expected {expected}"
    line = refused(open_workdir, work.folder, {"seed": 0, "data": {"grid": (2, 4)}})
    assert "found a run with data.grid=[2, 3]; expected data.grid=[2, 4]" in line
    line = refused(open_workdir, work.folder, CONFIG | {"new": 3})
    assert "found a run with new=None; expected new=3" in line
    assert checkpoint.read_config(work.folder) == work.plain_config
    assert files_of(work.folder).count(".lock") == 0


def test_opening_again_changes_no_file(work):
    before = (work.folder / "config.json").stat()
    reopened(work)
    after = (work.folder / "config.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_restart_removes_what_a_run_has_written(work):
    work.bind(INPUTS)
    for begin in BEGUN.values():
        begin(work)
    (work.folder / "figures").mkdir()
    (work.folder / "notes.txt").write_text("the user's own")
    reopened(work, CONFIG | {"seed": 1}, restart=True)
    assert files_of(work.folder) == ["config.json", "notes.txt"]
    assert checkpoint.read_config(work.folder)["seed"] == 1


def test_one_process_at_a_time(work):
    line = refused(open_workdir, work.folder, CONFIG)
    assert line.startswith(f"{work.folder}: found process {os.getpid()} at work in it")
    work.close()
    open_workdir(work.folder, CONFIG).close()


def test_a_finished_workdir_needs_no_lock(work):
    (work.folder / "metrics.json").touch()
    assert open_workdir(work.folder, CONFIG).is_finished


def test_what_a_kill_has_left_is_swept(work):
    work.save_finished("a", {"x": np.zeros(1)})
    left = ["done/b.npz.1.partial", "metrics.json.77.partial", "training/a/1/x", ".lock.5.partial"]
    left += ["training/b/3.orbax-checkpoint-tmp/y"]
    for name in left:
        (work.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (work.folder / name).touch()
    reopened(work)
    assert files_of(work.folder) == ["config.json", "done", "done/a.npz", "training", "training/b"]


# Inputs.


INPUTS = {
    "files": {"/a/bold.nii": "1", "/a/events.tsv": "2"},
    "runs": {"01 run-1": {"values": "v", "labels": "l", "TR": 2.0}},
    "masks": {},
    "classes": ["rest", "happy"],
    "before": [],
    "factors": {},
    "groups": {},
}


def other(**parts):
    changed = json.loads(json.dumps(INPUTS))
    for name, part in parts.items():
        changed[name] = part
    return changed


CHANGED = {
    "/a/events.tsv: found other content": other(files=INPUTS["files"] | {"/a/events.tsv": "3"}),
    "/b: found data that the run has not read": other(files=INPUTS["files"] | {"/b": "3"}),
    "/a/events.tsv: found nothing any more": other(files={"/a/bold.nii": "1"}),
    "run 01 run-1: found other labels": other(
        runs={"01 run-1": INPUTS["runs"]["01 run-1"] | {"labels": "m"}}
    ),
    "classes: found others": other(classes=["happy", "rest"]),
}


@pytest.mark.parametrize("said", CHANGED)
def test_a_workdir_belongs_to_what_it_has_read(work, said):
    work.bind(CHANGED[said])  # nothing was trained: anything goes
    work.bind(INPUTS)
    work.save_finished("a", {"x": np.zeros(1)})
    work.bind(INPUTS)
    line = refused(work.bind, CHANGED[said])
    assert line.startswith(said) and "--restart" in line
    work.bind(INPUTS)
    assert work.load_finished("a") is not None


@pytest.mark.parametrize("name", ["emojax", "jax"])
def test_a_run_goes_on_with_the_versions_it_began_with(work, monkeypatch, name):
    work.bind(INPUTS)
    work.save_finished("a", {"x": np.zeros(1)})
    monkeypatch.setattr(f"{name}.__version__", "9.9")
    line = refused(work.bind, INPUTS)
    assert f"found a run begun with {name}" in line and f"expected {name} 9.9" in line


def test_trainings_of_another_run_are_refused(work, tmp_path):
    """An intact file copied from another workdir is refused."""
    work.bind(INPUTS)
    work.save_finished("a", {"x": np.zeros(1)})
    with open_workdir(tmp_path / "other", CONFIG | {"seed": 1}) as other_work:
        other_work.bind(INPUTS)
        (other_work.folder / "done").mkdir()
        shutil.copy(work.folder / "done" / "a.npz", other_work.folder / "done" / "a.npz")
        assert "found a training of another run" in refused(other_work.load_finished, "a")


def test_files_that_changed_since_are_named(work, tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset")
    work.bind(other(files={str(path): hashes.sha256(path), "/gone": "1"}))
    work.check_inputs()
    path.touch()
    work.check_inputs()  # another time, the same content
    path.write_text("onsets")
    assert refused(work.check_inputs).startswith(f"{path}: found other content")


@pytest.mark.parametrize("text", [None, "", "[]", '{"format": 2}', "{" * 9])
def test_a_damaged_record_of_inputs_is_one_line(work, text):
    work.bind(INPUTS)
    path = work.folder / "run.json"
    path.unlink() if text is None else path.write_text(text)
    line = refused(work.check_inputs)
    assert ("no run.json" if text is None else "damaged") in line


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
    work = open_workdir(tmp_path / "empty", CONFIG)
    assert isinstance(work, Workdir)
    work.close()
    foreign = write(tmp_path / "model", '{"model_type": "of another project"}')
    assert "found settings of something else" in refused(open_workdir, foreign, CONFIG)
    assert files_of(foreign) == ["config.json"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "y/" * 3000])
def test_names_that_no_folder_can_have_are_one_line(tmp_path, name):
    assert "found " in refused(open_workdir, f"{tmp_path}/{name}", CONFIG)


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    line = refused(open_workdir, tmp_path / "run", CONFIG)
    assert "found No space left on device" in line
    assert not list((tmp_path / "run").iterdir())


def test_a_workdir_of_another_version_is_one_line(tmp_path):
    old = write(tmp_path / "old", json.dumps({"experiment": "A"} | CONFIG))
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
