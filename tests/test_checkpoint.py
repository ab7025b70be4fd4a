"""Workdirs and trainings, finished or not: whole or absent, and for one configuration only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax.errors import InputError
from emojax.files import atomic_write
from emojax.training import checkpoint
from emojax.training.checkpoint import Progress


def test_state_comes_back_with_its_keys_and_dtypes(tmp_path):
    progress = Progress(tmp_path)
    tree = {"key": jax.random.key(3), "x": jnp.arange(5.0), "n": jnp.int32(7), "none": {}}
    assert progress.load("a", tree) is None
    for epoch in (1, 2):
        progress.save("a", epoch, tree | {"n": jnp.int32(epoch)})
    epoch, got = progress.load("a", tree)
    assert epoch == 2 and int(got["n"]) == 2 and got["n"].dtype == jnp.int32
    np.testing.assert_array_equal(jax.random.bits(got["key"]), jax.random.bits(tree["key"]))
    assert len(list((tmp_path / "training" / "a").glob("[0-9]*"))) == 1  # the older one is gone


def test_finished_replaces_the_checkpoint(tmp_path):
    progress = Progress(tmp_path)
    progress.save("a", 1, {"x": jnp.ones(2)})
    assert progress.done("a") is None
    progress.finish("a", {"best": np.ones((2, 3))})
    assert progress.done("a")["best"].shape == (2, 3)
    assert progress.load("a", {"x": jnp.ones(2)}) is None


def test_workdir_belongs_to_one_configuration(tmp_path):
    config = {"seed": 0, "data": {"grid": (2, 3)}}
    folder = checkpoint.claim(tmp_path / "run", config)
    assert checkpoint.claim(tmp_path / "run", config | {"seed": 5}) == folder  # nothing was trained
    checkpoint.claim(tmp_path / "run", config)
    Progress(folder)
    quiet = {"seed": 0, "data": {"grid": (2, 3), "progress": False, "store": "elsewhere"}}
    assert checkpoint.claim(tmp_path / "run", quiet) == folder
    with pytest.raises(InputError, match=r"found a run with seed=0; expected seed=1"):
        checkpoint.claim(tmp_path / "run", config | {"seed": 1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(InputError, match="files of something else"):
        checkpoint.claim(tmp_path / "other", config)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
