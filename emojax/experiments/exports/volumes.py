"""Decoders of Experiment B: scaler and classifier of whole volumes."""

import numpy as np

from emojax import models
from emojax.decoder import Decoder
from emojax.errors import InputError
from emojax.experiments.exports import facts, span
from emojax.experiments.exports.parts import Made, Packed, Trained


def pack(made: Made, trained: Trained, run: str) -> Packed:
    """Builds the decoder of a fold; without alignment, it can decode every run.

    Args:
      made: the fold.
      trained: its classifier.
      run: not used.

    Raises:
      InputError: the pipeline cannot be repeated volume by volume.
    """
    config, cohort, data = made.config, made.view, made.data
    facts.check_scanned(config, cohort)
    if config.data.mask:
        found = f"voxels outside of data.mask={config.data.mask} set to 0"
        raise InputError("decoder", found, "whole volumes (--config.data.mask='')")
    grid, scale = cohort.shape, data.notes["scale"]
    padded = tuple(max(n, config.pad) for n in grid)
    scanned = tuple(
        slice((p - n) // 2, (p - n) // 2 + n) for p, n in zip(padded, grid, strict=True)
    )
    inside = np.zeros(padded, bool)
    inside[scanned] = np.broadcast_to(np.isfinite(scale.sd), padded)[scanned]
    mask = inside[scanned].copy()
    rows = np.unique(data.fold.train)
    chunks = (rows[i : i + facts.CHUNK] for i in range(0, len(rows), facts.CHUNK))
    stated = facts.common(made, trained, (cohort.volumes[own][:, mask] for own in chunks), grid)
    stated = stated._replace(provenance=facts.seen(data.ledger.shared))
    if trained.job is None:
        (params,) = trained.params
        fold = models.find(trained.network).fold
        assert fold is not None  # `check_foldable` has checked it
        weights = fold(params, trained.batch_stats)
        for name, part in (("mean", scale.mean), ("sd", scale.sd)):
            part = np.asarray(part, np.float32)
            weights[name] = np.broadcast_to(part, padded).copy() if padded != grid else part
        weights["temperature"] = np.float32(trained.temperature)
    else:
        weights = span.volumes(made, trained, inside)
        weights["voxels"] = np.flatnonzero(mask)[weights["voxels"]].astype(np.int32)
    affine = cohort.common_affine
    affine = None if affine is None else np.asarray(affine)
    decoder = Decoder(weights, mask, affine, None, trained.network, stated)
    used = [cohort.runs[i] for i in np.unique(cohort.run_index[rows])]
    subjects = list(dict.fromkeys(r.subject for r in used))
    groups = [[r for r in used if r.subject == name] for name in subjects]
    if len(cohort.subjects) == 1:
        groups = [[r] for r in used]
    of = subjects[0] if len(cohort.subjects) == 1 else ""
    return Packed(facts.with_reference(decoder, groups, of), data.fold.test)
