"""The workdir of a run: its ownership, checkpoints, finished training runs and kept networks.

    config.json           the configuration
    run.json              the data that the run has read, and the versions used
    done/<name>.npz       finished training runs
    models/<name>.npz     networks, with the steps fitted before them
    training/<name>/      checkpoints of a training run in progress, see `generations`
    parts/<name>.npz      other pieces of work, if several processes share a run
    claims/<name>.lock    the process working on a piece, see `emojax.cluster.pieces`

A workdir belongs to one configuration and to the data that its first training run read. Everything
in it carries the digest of both and its own hash. All files are written atomically. Damage is
detected on reading, and a damaged training run is repeated.
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
}  # folder -> suffix of the names in it
BOUND = ".bound.lock"  # holds the text of the lock, once its process has read the data
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
    """Returns whether this is the first or only process, without starting a backend."""
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
          lock: lock held on the folder; None: only pieces of work are written.
          members: number of processes that share the work.
          serves: whether another process holds the lock and writes the report.
        """
        self.folder, self.plain_config, self._lock = folder, plain_config, lock
        self.members, self.serves = members, serves
        self.finished: dict[str, int] = {}  # kind of pieces -> number done by this process
        self._claims = Claims(folder / CLAIMS)
        self._said: set[pathlib.Path] = set()  # damaged files already reported
        self._names: dict[str, str] = {}  # slug -> the only name that it stands for
        self._digest = identity.digest(plain_config)

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Releases the workdir to other processes."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                if (self.folder / BOUND).read_text() == self._lock.text:
                    (self.folder / BOUND).unlink()
            self._lock.release()

    @property
    def is_over(self) -> bool:
        """True once the process that this one serves has written the report."""
        return self.serves and self.is_finished

    @property
    def is_finished(self) -> bool:
        """True if the report is complete; metrics.json is written last."""
        return (self.folder / "metrics.json").exists()

    @property
    def is_bound(self) -> bool:
        """True if training has begun, so that the workdir belongs to the data read."""
        return any((self.folder / name).exists() for name in (*SUFFIX, "metrics.json"))

    def bind(self, inputs: identity.Identity) -> None:
        """Binds the workdir to a cohort, or checks that it is bound to it.

        Args:
          inputs: see `identity.describe`.

        Raises:
          InputError: its content was made from other data or with other versions; the message names
            the first file, run or version that differs.
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
        """Checks that source files have not changed since the run read them.

        Raises:
          InputError: a file has changed, or run.json is missing or damaged.
        """
        run = read_run(self.folder)
        self._digest = run["digest"]
        identity.check_files(run["inputs"], run["stamps"])

    def load_finished(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a finished training run; None if missing or damaged."""
        return self._load_whole("done", name, "training")

    def save_finished(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished training run and drops its checkpoints (first process)."""
        if is_first():
            self._save("done", name, arrays)
            self.drop(name)
            self._count("trainings")

    def load_part(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of another piece of work; None if missing or damaged."""
        return self._load_whole("parts", name, "piece of work")

    def save_part(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays of another piece of work, if several processes share the run."""
        if self.members > 1 and is_first():
            self._save("parts", name, arrays)
            self._count("other pieces")

    def claim(self, name: str) -> contextlib.AbstractContextManager | None:
        """Returns a context manager that holds a piece of work, or None.

        None: another process is working on it, or the run has ended. The processes of one training
        run (`jax.distributed`) hold everything together.
        """
        if self.is_over:
            return None
        if jax.distributed.is_initialized() or not (self._lock or self.serves):
            return contextlib.nullcontext()
        return self._claims.take(name, slug(name))

    def _count(self, kind: str) -> None:
        self.finished[kind] = self.finished.get(kind, 0) + 1

    def load_model(self, name: str) -> dict[str, Any] | None:
        """Returns a tree kept by `save_model`, or None.

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
        """Returns whether an undamaged network is kept under this name."""
        try:
            return self._load("models", name) is not None
        except Damaged:
            return False

    def save_model(self, name: str, tree: Any) -> None:
        """Keeps a network and the steps fitted before it, for export (first process)."""
        if is_first():
            self._save("models", name, files.flatten(tree))

    def load(self, name: str, like: Any) -> Any:
        """Returns the state of a training run in progress, with the shapes of `like`, or None."""
        return generations.load(self._path("training", name), self._digest, like)

    def save(self, name: str, steps: int, tree: Any) -> None:
        """Keeps the state of a training run after some steps.

        Raises:
          InputError: the disk is full or cannot be written, or the lock was lost.
        """
        self._check_locks(name)
        generations.save(self._path("training", name), self._digest, steps, tree)

    def drop(self, name: str) -> None:
        """Removes the checkpoints of a training run."""
        shutil.rmtree(self._path("training", name), ignore_errors=True)

    def sweep(self) -> None:
        """Removes remains of killed processes: half-written files and obsolete checkpoints.

        Does nothing while other processes work on pieces, as these files may be theirs.
        """
        if self._claims.is_held:
            return
        self._claims.remove()
        for left in [*self.folder.rglob("*.partial"), *self.folder.rglob(generations.TEMPORARY)]:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        for done in self.folder.glob("done/*.npz"):
            shutil.rmtree(self.folder / "training" / done.stem, ignore_errors=True)

    def refuse_shared(self) -> None:
        """Checks that no other process works on the run; raises as for `Claims.refuse_any`."""
        self._claims.refuse_any()

    def tidy(self) -> None:
        """Removes files that only an unfinished run needs: pieces of work and claims."""
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        self._claims.remove()

    def _check_locks(self, name: str) -> None:
        if self._lock is not None:
            self._lock.check()
        self._claims.check(name)

    def _load_whole(self, kind: str, name: str, noun: str) -> dict[str, np.ndarray] | None:
        """Returns arrays, or None; reports a damaged file once."""
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
        named: dict[str, Any] = {**arrays, **own}
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, **named)


class Damaged(Exception):
    """An error about a file that has changed since it was written."""

    def __init__(self, path: pathlib.Path, said: str):
        """Args: the file, and the problem."""
        super().__init__(said)
        self.path = path


def open_workdir(
    workdir: str | os.PathLike, config: dict[str, Any], *, restart: bool = False, members: int = 1
) -> Workdir:
    """Creates a workdir, or checks that it belongs to this configuration, and locks it.

    A workdir without any training run accepts any configuration. `data.store`, `data.progress` and
    `train.loggers` may differ. A finished workdir is not locked, as nothing is written to it.

    Args:
      workdir: a folder.
      config: the configuration as plain data; written as config.json.
      restart: whether to remove the files of an earlier run.
      members: number of processes that share the work.

    Raises:
      InputError: it belongs to another configuration or version, or to something else.
      Held: another process is working in it.
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
