"""From a finished run to a decoder on disk, and from a decoder to predictions: the edge."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from emojax import decoder, provenance, sources, splits
from emojax.decoder.build import Decoder, Facts
from emojax.errors import InputError
from emojax.experiments import experiment_b, folds
from emojax.features import across_subjects, common_space, masked, scaling
from emojax.procrustes import Procrustes
from emojax.report import page
from emojax.sources import names
from emojax.training import checkpoint


def export(config, workdir: str, subject: str = "", run: str = "") -> pathlib.Path:
    """Writes the decoder of a finished run into its workdir, as `decoder`.

    Args:
      config: that of the run.
      workdir: of the run.
      subject: A: whose fold, and whose alignment; "" is the first. The network has not seen it.
      run: A: the run to be decoded, aligned by the subject's other runs; "" is the last.

    Returns:
      The bundle's folder.

    Raises:
      InputError: the run is not finished, or cannot be repeated volume by volume.
    """
    if not (pathlib.Path(workdir) / "metrics.json").exists():
        expected = "one (the same command without --mode=export)"
        raise InputError(workdir, "no finished run", expected)
    folder = checkpoint.claim(workdir, config.to_dict())
    if not config.data.store:
        config.data.store = str(folder.parent / "store")
    cohort = sources.load(config)
    if cohort.prior:
        found = f"volumes after {', '.join(cohort.prior)} of whole runs"
        raise InputError("data", found, "volumes as scanned: single ones cannot be cleaned")
    progress = checkpoint.Progress(folder)
    made = (_export_a if config.experiment == "A" else _export_b)(
        config, cohort, progress, subject, run
    )
    decoder.save(made, folder / "decoder")
    return folder / "decoder"


def _network(progress: checkpoint.Progress, name: str):
    kept = progress.model(name)
    if kept is None:
        raise InputError(f"models/{name}", "no network", "a run with train.keep_models=True")
    return kept


def _preprocessing(config) -> tuple[str, ...]:
    data = config.data
    return (f"labels {data.hrf_delay_s:g} s behind events", f"first {data.drop_first} volumes left")


def _export_a(config, cohort, progress, subject: str, run: str) -> Decoder:
    data = masked.load(config, cohort)
    variant = folds.variants(config, len(cohort.classes), cohort.prior)[0]
    settings, everyone = variant.settings, list(data.subjects)
    own = settings.regime == "independent_runs" and settings.match == "time"
    if config.units != "subject" or settings.own_voxels or not (own or settings.regime == "none"):
        found = f"units {config.units}, regime {settings.regime}, own voxels {settings.own_voxels}"
        expected = "subjects with common voxels, regime none, or independent_runs matched by time"
        raise InputError("decoder", found, expected)
    subject = subject or everyone[0]
    if subject not in data.subjects:
        raise InputError("subject", repr(subject), f"one of {', '.join(everyone)}")
    number = everyone.index(subject)
    fold = folds.leave_one_out(data.subjects, variant)[number]
    allowed = np.all([data.inside[name] for name in fold.train], axis=0)
    made = across_subjects.fold_features(data.subjects, fold, settings, variant.leaks, allowed)
    person = data.subjects[subject]
    runs = np.unique(cohort.run[person.rows]).tolist()
    run = run or runs[-1]
    if run not in runs:
        raise InputError("run", repr(run), f"one of {', '.join(runs)}")
    scored = runs.index(run)
    rest = person.run != scored
    kept: dict[str, np.ndarray] = {}
    if own:
        model, keys = made.space
        mapping = common_space.own_map(person, scored, made.voxels, model, keys, settings)
        first = data.subjects[fold.train[0]]
        kept = {"template": np.asarray(model.template), "run": first.run}
        kept["frame"] = cohort.frame[first.rows]
    else:
        m = len(made.voxels)
        centre = np.zeros(m, np.float32)
        if across_subjects.centres(data.subjects, settings):
            centre = person.x[rest][:, made.voxels].mean(0)
        mapping = Procrustes(jnp.eye(m), jnp.ones(()), jnp.asarray(centre), jnp.zeros(m))
    x = np.concatenate([data.subjects[name].x for name in fold.train])
    seen = next(seen for rows, seen in made.seen if person.rows[~rest][0] in rows)
    return decoder.from_cnn1d(
        _facts(config, cohort, x.mean(dtype=np.float64), x.std(1).mean(), subject, seen),
        _network(progress, f"{variant.name} {number}")["params"],
        mask=data.union,
        voxels=made.voxels,
        mean=made.scaler[0],
        sd=made.scaler[1],
        mapping=mapping,
        affine=cohort.affine(subject),
        **kept,
    )


def _export_b(config, cohort, progress, subject: str, run: str) -> Decoder:
    if subject or run:
        raise InputError("subject or run", subject or run, "neither: Experiment B aligns nobody")
    if config.pad:
        raise InputError("pad", config.pad, "volumes as scanned")
    design = splits.Design(cohort.labels, cohort.subject, cohort.run_index, cohort.frame)
    kind = names(config.splits)[0]
    key = jax.random.key(config.seed)
    split = splits.make(key, design, kind, config.fractions, config.folds)[0]
    read = experiment_b.reader(config, cohort)
    scale = scaling.fit_scale(read, split.train, config.scale)
    kept = _network(progress, f"{kind} 0 0")
    mask = np.broadcast_to(np.isfinite(scale.sd), cohort.shape)
    sums = [(v[:, mask].mean(1), v[:, mask].std(1)) for v in map(read, scaling.chunks(split.train))]
    level, spread = (np.concatenate(parts).mean() for parts in zip(*sums, strict=True))
    return decoder.from_resnet3d(
        _facts(config, cohort, level, spread, "", splits.seen(design, split)),
        kept["params"],
        kept["batch_stats"],
        mean=scale.mean,
        sd=scale.sd,
        affine=cohort.runs[0].affine,
    )


def _facts(config, cohort, level, spread, subject: str, seen) -> Facts:
    rows = tuple((row["step"], row["values"], row["labels"]) for row in provenance.table(seen))
    return Facts(
        tuple(cohort.classes),
        tuple(cohort.shape),
        float(level),
        float(spread),
        cohort.tr,
        subject,
        _preprocessing(config),
        rows,
    )


def decode(bundle: str, path: str, workdir: str) -> pathlib.Path:
    """Decodes every volume of an image; writes predictions.csv, or nothing.

    Raises:
      InputError: as `decoder.load` and `decoder.decode_file`.
    """
    loaded = decoder.load(bundle)
    found = decoder.decode_file(loaded, path)
    classes = np.array(loaded.facts.classes)
    columns = {"volume": np.arange(len(found)), "predicted": classes[found.argmax(1)]}
    columns |= {f"p_{name}": found[:, k] for k, name in enumerate(classes)}
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    page.write_csv(folder / "predictions.csv", columns)
    return folder / "predictions.csv"


def calibrate(bundle: str, path: str, workdir: str, subject: str, run: int) -> pathlib.Path:
    """Adds a subject to a decoder from one run of it; writes the new decoder into the workdir.

    Raises:
      InputError: as `decoder.load` and `decoder.calibrate`.
    """
    loaded = decoder.load(bundle)
    if not subject:
        raise InputError("subject", "none", "--subject, the name of the new one")
    values, _ = decoder.read_image(path)
    if values.ndim != 4:
        raise InputError(path, f"{values.ndim} axes", "a whole run [X, Y, Z, t]")
    made = decoder.calibrate(loaded, np.moveaxis(values, -1, 0), subject, run)
    decoder.save(made, pathlib.Path(workdir) / "decoder")
    return pathlib.Path(workdir) / "decoder"
