"""The workdir of a run: whose it is, its checkpoints, finished trainings and kept networks.

    config.json           the configuration
    run.json              what the run has read, and with which versions
    done/<name>.npz       finished trainings
    models/<name>.npz     networks, with what was fitted before them
    training/<name>/      checkpoints of a training under way, see `generations`
    parts/<name>.npz      other pieces of work, where several processes share a run
    claims/<name>.lock    who is at work on which piece, see `emojax.cluster.pieces`

A workdir belongs to one configuration and to the data that its first training read; everything in
it carries the digest of both, and a hash of its own. All files appear whole or not at all. Damage
is found when they are read, and a damaged training is trained again.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import emojax
from emojax import files
from emojax.cluster.jobs import JOBS
from emojax.data import hashes, identity
from emojax.errors import InputError, say
from emojax.files import atomic_write
from emojax.locks import Lock
from emojax.training import generations
from emojax.training.claims import Claims
from emojax.training.ownership import (
    FORMAT,
    LOCK,
    check_config,
    check_ours,
    plain_config,
    read_config,
    read_run,
    same_config,
    slug,
)

__all__ = ["Workdir", "check_config", "open_workdir", "plain_config", "read_config", "read_run"]
__all__ += ["slug"]

SUFFIX = {
    "done": ".npz",
    "models": ".npz",
    "parts": ".npz",
    "training": "",
}  # folder -> of the names in it
BOUND = ".bound.lock"  # the text of the lock, once its process has read the data
CLAIMS = "claims"
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
    "tracking",
    BOUND,
    CLAIMS,
    JOBS,
    *SUFFIX,
)


def is_first() -> bool:
    """Returns whether this is the only process, or the first; a single one starts no backend."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


class Workdir:
    """An open workdir; also the store of `training.loop` and of `cluster.pieces`."""

    def __init__(
        self,
        folder: pathlib.Path,
        plain_config: dict[str, Any],
        lock: Lock | None = None,
        *,
        members: int = 1,
        serves: bool = False,
    ):
        """Opens a folder.

        Args:
          folder: the folder.
          plain_config: the configuration as plain data.
          lock: held on the folder; None: nothing is written but pieces of work.
          members: number of processes that share the work.
          serves: whether another process holds the lock, and writes the report.
        """
        self.folder, self.plain_config, self._lock = folder, plain_config, lock
        self.members, self.serves = members, serves
        self.finished: dict[str, int] = {}  # kind of pieces -> number that this process has done
        self._claims = Claims(folder / CLAIMS)
        self._said: set[pathlib.Path] = set()  # damaged files that were named
        self._names: dict[str, str] = {}  # slug -> the only name that it stands for
        self._digest = identity.digest(plain_config)

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes use the workdir."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                if (self.folder / BOUND).read_text() == self._lock.text:
                    (self.folder / BOUND).unlink()
            self._lock.release()

    @property
    def is_over(self) -> bool:
        """Whether the process that this one serves has written the report."""
        return self.serves and self.is_finished

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
        if self.serves or self.is_bound:
            run = read_run(self.folder)
            identity.check_same(run["inputs"], inputs)
            for name, ours in versions.items():
                if (theirs := run["versions"].get(name)) != ours:
                    expected = f"{name} {ours} (or --restart to begin anew, or {name} {theirs})"
                    raise InputError(self.folder, f"a run begun with {name} {theirs}", expected)
        else:
            run = {"format": FORMAT, "versions": versions, "digest": self._digest}
            run |= {"inputs": inputs, "stamps": identity.stamps(inputs)}
            with atomic_write(path) as partial:
                partial.write_text(json.dumps(run, indent=1))
        if self._lock is not None:
            with atomic_write(self.folder / BOUND) as partial:
                partial.write_text(self._lock.text)

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
        return self._load_whole("done", name, "training")

    def save_finished(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished training and drops its checkpoints (first process)."""
        if is_first():
            self._save("done", name, arrays)
            self.drop(name)
            self._count("trainings")

    def load_part(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of another piece of work, or None; a damaged one is done again."""
        return self._load_whole("parts", name, "piece of work")

    def save_part(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays of another piece of work, where several processes share the run."""
        if self.members > 1 and is_first():
            self._save("parts", name, arrays)
            self._count("other pieces")

    def claim(self, name: str) -> contextlib.AbstractContextManager | None:
        """Returns what holds a piece of work until it is left, or None.

        None: another process is at work on it, or the run has ended. The processes of one training
        (`jax.distributed`) hold everything together.
        """
        if self.is_over:
            return None
        if jax.distributed.is_initialized() or not (self._lock or self.serves):
            return contextlib.nullcontext()
        return self._claims.take(name, slug(name))

    def _count(self, kind: str) -> None:
        self.finished[kind] = self.finished.get(kind, 0) + 1

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
        self._check_locks(name)
        generations.save(self._path("training", name), self._digest, steps, tree)

    def drop(self, name: str) -> None:
        """Forgets the checkpoints of a training."""
        shutil.rmtree(self._path("training", name), ignore_errors=True)

    def sweep(self) -> None:
        """Removes what killed processes have left: half-written files, needless checkpoints.

        While others are at work on pieces, these are theirs.
        """
        if self._claims.is_held:
            return
        self._claims.remove()
        for left in [*self.folder.rglob("*.partial"), *self.folder.rglob(generations.TEMPORARY)]:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        for done in self.folder.glob("done/*.npz"):
            shutil.rmtree(self.folder / "training" / done.stem, ignore_errors=True)

    def refuse_shared(self) -> None:
        """Refuses to remove what others are at work on; raises as `Claims.refuse_any`."""
        self._claims.refuse_any()

    def tidy(self) -> None:
        """Removes what only an unfinished run needs: pieces of work and claims."""
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        self._claims.remove()

    def _check_locks(self, name: str) -> None:
        if self._lock is not None:
            self._lock.check()
        self._claims.check(name)

    def _load_whole(self, kind: str, name: str, noun: str) -> dict[str, np.ndarray] | None:
        """Returns arrays, or None; a damaged file is named once."""
        try:
            return self._load(kind, name)
        except Damaged as damaged:
            if damaged.path not in self._said:
                self._said.add(damaged.path)
                say(f"{damaged.path}: damaged ({damaged}); this {noun} is done again")
            return None

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
        self._check_locks(name)
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
    workdir: str | os.PathLike, config: dict[str, Any], *, restart: bool = False, members: int = 1
) -> Workdir:
    """Makes the workdir, or recognises it as this configuration's, and locks it.

    A workdir in which no training has begun accepts any configuration. `data.store`,
    `data.progress` and `train.loggers` may differ. A finished one is not locked: nothing is written
    into it.

    Args:
      workdir: a folder.
      config: the configuration as plain data; written as config.json.
      restart: removes what an earlier run has left in it.
      members: number of processes that share the work.

    Raises:
      InputError: it belongs to another configuration or version, or to something else.
      Held: another process is at work in it.
    """
    folder = pathlib.Path(workdir).absolute()
    plain = plain_config(config)
    try:
        check_ours(folder)
        if not restart and (folder / "metrics.json").exists():
            same_config(folder, plain, is_bound=True)
            return Workdir(folder, plain)
        folder.mkdir(parents=True, exist_ok=True)
        work = Workdir(folder, plain, Lock(folder / LOCK), members=members)
        try:
            check_ours(folder)
            work.sweep()
            if restart:
                work.refuse_shared()
                for name in OWN:
                    path = folder / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            is_new = not (folder / "config.json").exists()
            if is_new or same_config(folder, plain, is_bound=work.is_bound) != plain:
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
