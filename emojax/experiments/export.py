"""Export: from what a finished run has kept to a decoder on disk. No data is read."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emojax import decoder, files, models, provenance, sources
from emojax.data.acquisitions import canonical
from emojax.data.cohort import Prior
from emojax.decoder import Decoder, Facts, build, checks
from emojax.errors import InputError
from emojax.experiments.choice import AUTO, NETWORK
from emojax.features.masked import MaskedCohort
from emojax.procrustes import Mapping as Map
from emojax.procrustes import Procrustes
from emojax.records import FoldData
from emojax.training import checkpoint

SCANNED = "volumes as scanned: single ones cannot be cleaned"
CHUNK = 64  # volumes at a time


def export(
    config: Any,
    workdir: str | os.PathLike,
    subject: str = "",
    run: str = "",
    bundle: str | os.PathLike = "",
) -> pathlib.Path:
    """Writes the decoder of a finished run.

    Args:
      config: that of the run.
      workdir: of the run.
      subject: A: the test subject whose fold and alignment are taken; "" is the first. The
        classifier has not seen it.
      run: A: name of the run to be decoded, aligned by the subject's other runs; "" is the last.
      bundle: the folder to write; "" is `decoder` in the workdir. An older decoder of the same
        subject and run may be there.

    Returns:
      The bundle's folder.

    Raises:
      InputError: the run is not finished, cannot be repeated volume by volume, or has read files
        that have changed since; or the folder holds another decoder.
    """
    folder = pathlib.Path(workdir)
    if not (folder / "metrics.json").exists():
        expected = "one (the same command without --mode=export)"
        raise InputError(workdir, "no finished run", expected)
    work = checkpoint.open_workdir(workdir, config.to_dict())
    work.check_inputs()
    metrics = json.loads((folder / "metrics.json").read_text())
    headline = metrics["arms"][0]
    tests = [fold["test"] for fold in headline["folds"]]
    if headline["split"] and (subject or run):
        raise InputError("subject or run", subject or run, "neither: nobody is aligned")
    if subject and subject not in tests:
        raise InputError("subject", repr(subject), f"one of {', '.join(tests)}")
    kept = _load(config, work, metrics["arms"], tests.index(subject) if subject else 0)
    if "refused" in kept["fitted"]:
        raise InputError(
            "decoder", *(str(kept["fitted"][name]) for name in ("refused", "expected"))
        )
    make = _volume_decoder if headline["split"] else _vector_decoder
    made, target = make(config, kept, run), pathlib.Path(bundle or folder / "decoder")
    if (target / "manifest.json").exists():
        _check_same(target, decoder.load(target), made)
    decoder.save(made, target)
    return target


def _load(
    config: Any, work: checkpoint.Workdir, arms: Sequence[Mapping[str, Any]], number: int
) -> dict[str, Any]:
    """Returns what a run has kept of the decoder of one fold of its headline.

    Raises:
      InputError: nothing was kept, or a network that cannot be folded.
    """
    arm = arms[0]
    if arm.get("decoder") == AUTO:  # each fold has chosen
        chosen = arm["folds"][number]["chosen"]["chosen"]
        network = next(one for one in arms if not one.get("decoder"))
        arm = network if chosen == NETWORK else next(one for one in arms if one["name"] == chosen)
    if not arm.get("decoder"):
        if config.train.get("members"):
            found = f"{arm['name']}, with a network for each monitored subject"
            raise InputError("decoder", found, "one network (--config.train.members=False)")
        models.find(config.model.name).check_foldable(config.model)
    kept = work.load_model(f"{arm['name']} {number}")
    if kept is None:
        expected = "a run with train.keep_models=True"
        raise InputError(f"models/{arm['name']}", "nothing of its fits", expected)
    fold = arm["folds"][number]
    scores = (fold["instances"] or [fold["network"]])[0] or {}
    temperature = (scores.get("uncalibrated") or {}).get("temperature", 1.0)
    return {"params": {}, "batch_stats": {}, "temperature": temperature} | kept


def _check_same(folder: pathlib.Path, there: Decoder, made: Decoder) -> None:
    """Refuses to replace another decoder.

    Raises:
      InputError: facts or weights differ.
    """
    leaves = [files.flatten(one.weights) for one in (there, made)]
    same = there.facts == made.facts and leaves[0].keys() == leaves[1].keys()
    if not same or any(not np.array_equal(leaves[0][n], leaves[1][n]) for n in leaves[0]):
        who = f"subject {there.facts.subject}" if there.facts.subject else "another training"
        expected = "none of another subject or run (--bundle=DIR writes elsewhere)"
        raise InputError(folder, f"a decoder of {who}", expected)


def pack_a(
    config: Any, view: MaskedCohort, data: FoldData, weights: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns what a decoder of Experiment A needs, as plain arrays.

    A decoder repeats what was fitted volume by volume. Where that is impossible, the tree says what
    is in the way ("refused", "expected"), and the export refuses.

    Args:
      config: of the run.
      view: what the ledgers read.
      data: of the fold.
      weights: of a linear headline, see `scoring.bag.linear_weights`: it is folded here, for every
        run of the test subject. None: a network, which is kept beside this.
    """
    settings = data.notes["settings"]
    own = settings.regime == "independent_runs" and settings.match == "time"
    if done := _processed(config, view.prior):
        return _refuse(f"volumes after {done}", SCANNED)
    if config.units != "subject" or settings.own_voxels or not (own or settings.regime == "none"):
        return _refuse(
            f"units {config.units}, regime {settings.regime}, own voxels {settings.own_voxels}",
            "subjects with common voxels, regime none, or independent_runs matched by time",
        )
    if view.union is None:
        return _refuse("vectors", "volumes [X, Y, Z]")
    runs, facts = _facts_a(config, view, data, own)
    out: dict[str, Any] = {"mask": view.union, "runs": np.array(list(runs))}
    if (affine := view.cohort.affine(facts[0].subject)) is not None:
        out["affine"] = np.asarray(affine)
    maps = [_maps(data, rows) for rows in runs.values()]
    if weights is None:
        return out | _pack_network(data, own, facts, maps)
    return out | _pack_linear(view, data, own, facts, maps, weights)


def _pack_network(
    data: FoldData, own: bool, facts: Sequence[Facts], maps: Sequence[Sequence[Map | None]]
) -> dict[str, Any]:
    fitted = _fitted(data, own)
    parts = [build.affine_parts(of_run[0], fitted["mean"]) for of_run in maps]
    if (path := data.notes.get("linear path")) is not None:
        fitted["path"] = tuple(path)
    return {"facts": _written(facts), "maps": parts, "fitted": fitted}


def _pack_linear(
    view: MaskedCohort,
    data: FoldData,
    own: bool,
    facts: Sequence[Facts],
    maps: Sequence[Sequence[Map | None]],
    weights: Mapping[str, Any],
) -> dict[str, Any]:
    """Folds a bag, whose members come from the members of the fold, or one classifier of it."""
    is_bag = len(data.members) == len(weights["coef"])
    if not is_bag and "every voxel" in data.notes:
        return _refuse("voxels.classical=all", "the chosen voxels (voxels.classical=keep)")
    who = tuple(str(view.units[member.fold.monitor[0]]) for member in data.members if is_bag)
    kept = []
    for i, member in enumerate(data.members if is_bag else (data,)):
        params = {name: weights[name][i] for name in ("coef", "intercept", "temperature")}
        kept.append(build.keep(facts[0], view.union, params=params, **_fitted(member, own)))
    maps = [of_run[1:] if is_bag else of_run[:1] for of_run in maps]
    numbers = (weights[name].tolist() for name in ("temperature", "C"))
    more = {
        "kind": f"bag of {len(who)} logistic decoders" if is_bag else "logistic decoder",
        "members": tuple(zip(who, *numbers, strict=False)),
    }
    return {
        "facts": _written([one._replace(**more) for one in facts]),
        "weights": [build.fold("linear", kept, of_run) for of_run in maps],
        "calibration": {"members": kept},
    }


def _facts_a(
    config: Any, view: MaskedCohort, data: FoldData, aligned: bool
) -> tuple[dict[str, np.ndarray], list[Facts]]:
    """Returns the rows of each of the test subject's runs, by its name, and the facts of each."""
    rows, cohort = data.fold.test, view.cohort
    means, sds = [], []
    for name in dict.fromkeys(view.units[data.fold.train]):
        x = view.volumes[view.rows(name)]
        means.append(x.mean(1, dtype=np.float64))
        sds.append(x.std(1))
    level, spread = np.concatenate(means).mean(), np.concatenate(sds).mean()
    common = _facts(config, cohort, level, spread)._replace(
        subject=str(view.units[rows[0]]),
        left_out=data.fold.name,
        kind=models.find(config.model.name).label(config.model),
    )
    if aligned:
        options = data.notes["made"].space[0].options._asdict()
        names = tuple(map(str, view.run_names))  # in the order of their numbers
        common = common._replace(runs=names, alignment=tuple(options.items()))
    runs, facts = {}, []
    for number in np.unique(view.run[rows]):
        here = rows[view.run[rows] == number]
        runs[str(cohort.run[here][0])] = here
        seen = next(s for r, s in data.ledger.seen(rows) if here[0] in r)
        facts.append(common._replace(provenance=_seen(seen)))
    return runs, facts


def _fitted(data: FoldData, aligned: bool) -> dict[str, Any]:
    """Returns what was fitted in front of a classifier, and the template if there is one."""
    made = data.notes["made"]
    out = {"voxels": made.voxels, "mean": made.scaler[0], "sd": made.scaler[1]}
    if aligned:
        run, frame = made.space[1].T
        out |= {"template": np.asarray(made.space[0].template), "run": run, "frame": frame}
    return out


def _maps(data: FoldData, rows: np.ndarray) -> list[Map | None]:
    """Returns the alignment of one run, of the fold and then of each of its members."""
    scope, found = tuple(rows.tolist()), []
    for step, own_scope, fit in data.ledger.kept:
        if own_scope != scope or step not in ("alignment", "centring"):
            continue
        if isinstance(fit, np.ndarray):  # a mean that is subtracted
            fit = Procrustes(np.eye(len(fit)), np.ones(()), fit, np.zeros(len(fit)))
        found.append(fit)
    return found or [None] * (1 + len(data.members))


def pack_b(config: Any, cohort: Any, data: FoldData) -> dict[str, Any]:
    """Returns what a decoder of Experiment B needs beside the network, as plain arrays."""
    if done := _processed(config, cohort.prior):
        return _refuse(f"volumes after {done}", SCANNED)
    if config.data.mask:
        found = f"voxels outside of data.mask={config.data.mask} set to 0"
        return _refuse(found, "whole volumes (--config.data.mask='')")
    if config.pad:
        return _refuse(f"pad {config.pad}", "volumes as scanned")
    scale = data.notes["scale"]
    mask = np.broadcast_to(np.isfinite(scale.sd), cohort.shape)
    rows, means, sds = np.unique(data.fold.train), [], []
    for start in range(0, len(rows), CHUNK):
        values = data.notes["raw"](rows[start : start + CHUNK])[:, mask]
        means.append(values.mean(1))
        sds.append(values.std(1))
    facts = _facts(config, cohort, np.concatenate(means).mean(), np.concatenate(sds).mean())
    facts = facts._replace(
        kind=models.find(config.model.name).label(config.model),
        provenance=_seen(data.ledger.shared),
    )
    out = {"facts": _written([facts]), "mean": scale.mean, "sd": scale.sd}
    affine = cohort.common_affine
    return out if affine is None else out | {"affine": np.asarray(affine)}


def _processed(config: Any, prior: Sequence[Prior]) -> str:
    """Returns what was done to volumes or runs before they were read; "" if nothing."""
    asked = sources.cleaned_by(config.data).items()
    keys = [f"data.{key}={value}" for key, value in asked if key != "scrub_fd_mm"]
    others = [str(step) for step in prior if not (keys and str(step) == "cleaning")]
    return ", ".join((*others, *keys))


def _refuse(found: str, expected: str) -> dict[str, Any]:
    return {"refused": np.array(found), "expected": np.array(expected)}


def _facts(config: Any, cohort: Any, level: float, spread: float) -> Facts:
    behind, left = config.data.hrf_delay_s, config.data.drop_first
    return Facts(
        tuple(map(str, cohort.classes)),
        tuple(map(int, cohort.shape)),
        float(level),
        float(spread),
        None if cohort.tr is None else float(cohort.tr),
        preprocessing=(f"labels {behind:g} s behind events", f"first {left} volumes left"),
    )


def _seen(record: provenance.Provenance) -> tuple[tuple[str, int, int], ...]:
    rows = provenance.table(record)
    return tuple((row["step"], row["values"], row["labels"]) for row in rows)


def _written(facts: Sequence[Facts]) -> list[np.ndarray]:
    return [np.array(json.dumps(one._asdict())) for one in facts]


def _read(written: Any) -> Facts:
    return checks.read_facts(json.loads(str(written)), "facts of the run")


def _vector_decoder(config: Any, kept: Mapping[str, Any], run: str) -> Decoder:
    fitted = kept["fitted"]
    runs = list(map(str, fitted["runs"]))
    run = run or runs[-1]
    known = [canonical(name) for name in runs]
    if canonical(run) not in known:
        raise InputError("run", repr(run), f"one of {', '.join(runs)}")
    number = known.index(canonical(run))
    facts, mask, affine = _read(fitted["facts"][number]), fitted["mask"], fitted.get("affine")
    if "weights" in fitted:
        weights, calibration = fitted["weights"][number], fitted["calibration"]
        return Decoder(weights, mask, affine, calibration, "linear", facts)
    source, matrix, target = fitted["maps"][number]
    return decoder.from_cnn1d(
        facts._replace(temperature=kept["temperature"]),
        kept["params"],
        batch_stats=kept["batch_stats"],
        network=config.model.name,
        mask=mask,
        affine=affine,
        mapping=Procrustes(matrix, np.ones(()), source, target),
        **fitted["fitted"],
    )


def _volume_decoder(config: Any, kept: Mapping[str, Any], run: str) -> Decoder:
    fitted = kept["fitted"]
    return decoder.from_resnet3d(
        _read(fitted["facts"][0])._replace(temperature=kept["temperature"]),
        kept["params"],
        kept["batch_stats"],
        network=config.model.name,
        mean=fitted["mean"],
        sd=fitted["sd"],
        affine=fitted.get("affine"),
    )
