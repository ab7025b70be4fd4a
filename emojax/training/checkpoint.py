"""The workdir of a run: whose it is, its checkpoints, finished trainings and kept networks.

    config.json           the configuration
    run.json              what the run has read, and with which versions
    done/<name>.npz       finished trainings
    models/<name>.npz     networks, with what was fitted before them
    training/<name>/      checkpoints of a training under way, see `generations`

A workdir belongs to one configuration and to the data that its first training read; everything in
it carries the digest of both, and a hash of its own. All files appear whole or not at all. Damage
is found when they are read, and a damaged training is trained again.
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import emojax
from emojax import files
from emojax.data import hashes, identity
from emojax.errors import InputError, say
from emojax.files import atomic_write
from emojax.locks import Lock
from emojax.training import generations

SUFFIX = {"done": ".npz", "models": ".npz", "training": ""}  # folder -> of the names in it
FORMAT = 2  # of config.json and of all that a workdir holds; 0.3.0 wrote the bare configuration
LOCK = ".lock"
OWN = (
    "config.json",
    "run.json",
    "counts.csv",
    "events.csv",
    "metrics.json",
    "metrics.jsonl",
    "curves.json",
)
OWN += (
    "predictions.csv",
    "references.bib",
    "report.html",
    "chosen_voxels.nii.gz",
    "figures",
    "decoder",
    *SUFFIX,
)


def is_first() -> bool:
    """Returns whether this is the only process, or the first; a single one starts no backend."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


class Workdir:
    """An open workdir; also the store of `training.loop`."""

    def __init__(
        self, folder: pathlib.Path, plain_config: dict[str, Any], lock: Lock | None = None
    ):
        """Args: the folder, the configuration as plain data, and the lock that is held on it."""
        self.folder, self.plain_config, self._lock = folder, plain_config, lock
        self._names: dict[str, str] = {}  # slug -> the only name that it stands for
        self._digest = identity.digest(plain_config)

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes use the workdir."""
        if self._lock is not None:
            self._lock.release()

    @property
    def is_finished(self) -> bool:
        """Whether a whole report is there; metrics.json is written last."""
        return (self.folder / "metrics.json").exists()

    @property
    def is_bound(self) -> bool:
        """Whether trainings have begun, so that the workdir belongs to what they read."""
        return any((self.folder / name).exists() for name in (*SUFFIX, "metrics.json"))

    def bind(self, inputs: identity.Identity) -> None:
        """Makes the workdir that of a cohort, or recognises it as such.

        Args:
          inputs: see `identity.describe`.

        Raises:
          InputError: what it holds was made from other data, or with other versions; names the
            first file, run or version that differs.
        """
        path = self.folder / "run.json"
        versions = {"emojax": emojax.__version__, "jax": jax.__version__}
        self._digest = identity.digest([self.plain_config, versions, inputs])
        if not is_first():
            return
        if self.is_bound:
            run = read_run(self.folder)
            identity.check_same(run["inputs"], inputs)
            for name, ours in versions.items():
                if (theirs := run["versions"].get(name)) != ours:
                    expected = f"{name} {ours} (or --restart to begin anew, or {name} {theirs})"
                    raise InputError(self.folder, f"a run begun with {name} {theirs}", expected)
            return
        run = {"format": FORMAT, "versions": versions, "digest": self._digest}
        run |= {"inputs": inputs, "stamps": identity.stamps(inputs)}
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(run, indent=1))

    def check_inputs(self) -> None:
        """Refuses source files that have changed since the run read them.

        Raises:
          InputError: names the first of them, or a run.json that is missing or damaged.
        """
        run = read_run(self.folder)
        self._digest = run["digest"]
        identity.check_files(run["inputs"], run["stamps"])

    def load_finished(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a finished training, or None; a damaged one is trained again."""
        try:
            return self._load("done", name)
        except Damaged as damaged:
            say(f"{damaged.path}: damaged ({damaged}); this training is done again")
            return None

    def save_finished(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished training and drops its checkpoints (first process)."""
        if is_first():
            self._save("done", name, arrays)
            self.drop(name)

    def load_model(self, name: str) -> dict[str, Any] | None:
        """Returns a tree that `save_model` kept, or None.

        Raises:
          InputError: it is damaged.
        """
        try:
            arrays = self._load("models", name)
        except Damaged as damaged:
            expected = "as it was written (remove metrics.json and run again: it is trained anew)"
            raise InputError(damaged.path, f"damaged ({damaged})", expected) from None
        return None if arrays is None else files.unflatten(arrays)

    def has_model(self, name: str) -> bool:
        """Returns whether a network is kept under this name, undamaged."""
        try:
            return self._load("models", name) is not None
        except Damaged:
            return False

    def save_model(self, name: str, tree: Any) -> None:
        """Keeps a network and what was fitted before it, for the export (first process)."""
        if is_first():
            self._save("models", name, files.flatten(tree))

    def load(self, name: str, like: Any) -> Any:
        """Returns the state of a training under way, with the shapes of `like`, or None."""
        return generations.load(self._path("training", name), self._digest, like)

    def save(self, name: str, steps: int, tree: Any) -> None:
        """Keeps the state of a training after some steps.

        Raises:
          InputError: the disk is full or cannot be written, or the lock was lost.
        """
        if self._lock is not None:
            self._lock.check()
        generations.save(self._path("training", name), self._digest, steps, tree)

    def drop(self, name: str) -> None:
        """Forgets the checkpoints of a training."""
        shutil.rmtree(self._path("training", name), ignore_errors=True)

    def sweep(self) -> None:
        """Removes what killed processes have left: half-written files, needless checkpoints."""
        for left in [*self.folder.rglob("*.partial"), *self.folder.rglob(generations.TEMPORARY)]:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        for done in self.folder.glob("done/*.npz"):
            shutil.rmtree(self.folder / "training" / done.stem, ignore_errors=True)

    def _path(self, kind: str, name: str) -> pathlib.Path:
        other = self._names.setdefault(slug(name), name)
        if other != name:
            expected = "names that differ in letters or digits"
            raise InputError(self.folder / kind, f"one file for {other!r} and {name!r}", expected)
        return self.folder / kind / (slug(name) + SUFFIX[kind])

    def _load(self, kind: str, name: str) -> dict[str, np.ndarray] | None:
        path = self._path(kind, name)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
            digest, sha256 = (str(arrays.pop(key)) for key in ("digest", "sha256"))
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged archive raises many types
            raise Damaged(path, f"{type(error).__name__}: {error}") from None
        if sha256 != hashes.of_arrays(arrays):
            raise Damaged(path, "other content than was written")
        if digest != self._digest:
            raise InputError(path, "a training of another run", identity.CHOICES)
        return arrays

    def _save(self, kind: str, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        if self._lock is not None:
            self._lock.check()
        path = self._path(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {"digest": np.array(self._digest), "sha256": np.array(hashes.of_arrays(arrays))}
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays, **own)


class Damaged(Exception):
    """A file that is not as it was written."""

    def __init__(self, path: pathlib.Path, said: str):
        """Args: the file, and what is wrong."""
        super().__init__(said)
        self.path = path


def open_workdir(
    workdir: str | os.PathLike, config: dict[str, Any], *, restart: bool = False
) -> Workdir:
    """Makes the workdir, or recognises it as this configuration's, and locks it.

    A workdir in which no training has begun accepts any configuration. `data.store` and
    `data.progress` may differ. A finished one is not locked: nothing is written into it.

    Args:
      workdir: a folder.
      config: the configuration as plain data; written as config.json.
      restart: removes what an earlier run has left in it.

    Raises:
      InputError: it belongs to another configuration or version, to something else, or to another
        process that is at work in it.
    """
    folder = pathlib.Path(workdir).absolute()
    plain = plain_config(config)
    try:
        _check_ours(folder)
        if not restart and (folder / "metrics.json").exists():
            _check_config(folder, plain)
            return Workdir(folder, plain)
        folder.mkdir(parents=True, exist_ok=True)
        work = Workdir(folder, plain, Lock(folder / LOCK))
        try:
            _check_ours(folder)
            work.sweep()
            if restart:
                for name in OWN:
                    path = folder / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if not (folder / "config.json").exists() or _check_config(folder, plain) != plain:
                with atomic_write(folder / "config.json") as partial:
                    partial.write_text(json.dumps({"format": FORMAT, "config": plain}, indent=1))
        except BaseException:
            work.close()
            raise
        return work
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(folder, files.cause(error), "a folder that can be written to") from None


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration as JSON holds it, without the keys that no result depends on."""
    plain = json.loads(json.dumps(config))
    for key in ("store", "progress"):
        plain.get("data", {}).pop(key, None)
    return plain


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the configuration of a workdir.

    Raises:
      InputError: it has none, or one that was written by another version or program.
    """
    path = folder / "config.json"
    found = _read_json(path, "the workdir of a run")
    version = found.get("format", 1)
    if version == FORMAT and isinstance(found.get("config"), dict):
        return found["config"]
    if version == FORMAT:
        raise InputError(path, "damaged (no config in it)", "as it was written")
    if version == 1 and not {"experiment", "data"} <= found.keys():
        raise InputError(path, "settings of something else", "an empty or new folder as --workdir")
    written = "emojax 0.3" if version == 1 else f"another version (format {version})"
    raise InputError(folder, f"a workdir of {written}", "a new folder as --workdir")


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """Returns run.json: "inputs", their "stamps", "versions" and "digest".

    Raises:
      InputError: it is missing or damaged.
    """
    path = folder / "run.json"
    run = _read_json(path, "the one that the run has written (or --restart to begin anew)")
    if run.get("format") != FORMAT or not {"inputs", "stamps", "versions", "digest"} <= run.keys():
        raise InputError(path, "damaged (parts of it are missing)", "as it was written")
    return run


def slug(name: str) -> str:
    """Returns a name as part of a file name: "nested, none 0" -> "nested-none-0"."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-")


def _check_ours(folder: pathlib.Path) -> None:
    """Refuses a folder that holds anything else than a run."""
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "a file", "a folder as --workdir")
    if (folder / "config.json").exists():
        read_config(folder)
    elif folder.exists():
        ours = (LOCK, ".partial")
        if any(not path.name.endswith(ours) for path in folder.iterdir()):
            expected = "an empty or new folder as --workdir"
            raise InputError(folder, "files of something else", expected)


def _check_config(folder: pathlib.Path, plain: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a workdir, which must be ours once a training has begun."""
    theirs = read_config(folder)
    if Workdir(folder, plain).is_bound and (differs := _first_difference(theirs, plain)):
        key, old, new = differs
        expected = f"{key}={new!r} (or --restart to begin anew, or another --workdir)"
        raise InputError(folder, f"a run with {key}={old!r}", expected)
    return theirs


def _first_difference(theirs, ours, at: str = ""):
    """Returns (dotted key, value, value) of the first leaf that differs; None if all are equal."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return None if theirs == ours else (at, theirs, ours)
    for key in sorted(theirs.keys() | ours.keys()):
        place = f"{at}.{key}" if at else key
        if found := _first_difference(theirs.get(key), ours.get(key), place):
            return found
    return None


def _read_json(path: pathlib.Path, expected: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(path.parent, f"no {path.name}", expected) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, f"damaged ({error})", "as it was written") from None
    if not isinstance(found, dict):
        raise InputError(path, "damaged (no settings in it)", "as it was written")
    return found
