"""Metadata of a decoder: its training data, its scores, and statistics of its volumes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from emojax import provenance, sources
from emojax.data import causal, causal_settings, phases
from emojax.data.cohort import Cohort
from emojax.data.run import Run
from emojax.decoder import Decoder, Facts, card, guards
from emojax.errors import InputError
from emojax.experiments.exports.parts import Made, Trained

CHUNK = 64  # volumes read at a time
SCORES = ("balanced_accuracy", "nll", "ece")


def check_scanned(config: Any, cohort: Cohort) -> None:
    """Rejects volumes with processing that cannot be repeated volume by volume at the scanner.

    The one exception is the mean of maps, which are not points in time; the decoder stores it.

    Raises:
      InputError: names the processing, and its causal equivalent if there is one.
    """
    asked = {k: v for k, v in sources.cleaned_by(config.data).items() if k != "scrub_fd_mm"}
    prior = [str(step) for step in cohort.prior]
    others = [step for step in prior if step != "cleaning" and not causal_settings.is_prior(step)]
    if centred_maps(config, cohort) and not others:
        return
    done = [*others, *(f"data.{key}={value}" for key, value in asked.items())]
    if not done and "cleaning" in prior:
        done = ["cleaning"]
    if not done:
        return
    expected = "volumes as scanned: single ones cannot be cleaned"
    if _timed(cohort) and (text := causal.twin(config.data)):
        undone = " ".join(f"--config.data.{key}={_off(value)}" for key, value in asked.items())
        expected += f" (a run with {undone} --config.data.online={text} can: see data.online)"
    raise InputError("decoder", f"volumes after {', '.join(done)}", expected)


def _off(value: Any) -> str:
    return "False" if isinstance(value, bool) else "''" if isinstance(value, str) else "0"


def centred_maps(config: Any, cohort: Cohort) -> bool:
    """Returns whether `data.centre` is the only cleaning and rows are not points in time."""
    asked = sources.cleaned_by(config.data)
    return set(asked) == {"centre"} and not _timed(cohort)


def _timed(cohort: Cohort) -> bool:
    return any(run.tr is not None or run.starts is not None for run in cohort.runs)


def common(
    made: Made, trained: Trained, values: Iterable[np.ndarray], grid: Sequence[int]
) -> Facts:
    """Returns the metadata that all decoders have.

    Args:
      made: the fold.
      trained: the classifier.
      values: training volumes inside the mask, in chunks [k, voxels].
      grid: shape of a volume.
    """
    config, cohort, fold = made.config, made.cohort, made.data.fold
    x, y, z = map(int, grid)
    level, spread, count = 0.0, 0.0, 0
    for part in values:
        level += float(part.mean(1, dtype=np.float64).sum())
        spread += float(part.std(1, dtype=np.float64).sum())
        count += len(part)
    behind, left = config.data.hrf_delay_s, config.data.drop_first
    return Facts(
        tuple(map(str, cohort.classes)),
        (x, y, z),
        level / count,
        spread / count,
        None if cohort.tr is None else float(cohort.tr),
        preprocessing=(
            f"labels {behind:g} s behind events",
            *([f"first {left} volumes left out"] if left else []),
        ),
        kind=trained.kind,
        members=trained.members,
        temperature=float(trained.temperature),
        trained_on=_names(made, np.concatenate([fold.train, fold.monitor])),
        left_out=", ".join(_names(made, fold.test)),
        online=causal_settings.parse(config.data.online).text,
        drop_first=int(left),
    )


def _names(made: Made, rows: Int[np.ndarray, " k"]) -> tuple[str, ...]:
    """Returns the units of rows: subjects, or runs if the folds separate only runs."""
    if hasattr(made.view, "units"):
        return tuple(np.unique(made.view.units[rows]).tolist())
    subjects, runs = made.cohort.subject[rows], made.cohort.run[rows]
    if made.arm.split == "by_subject":
        return tuple(np.unique(subjects).tolist())
    return tuple(np.unique(np.char.add(np.char.add(subjects, "/"), runs)).tolist())


def seen(record: provenance.Provenance) -> tuple[tuple[str, int, int], ...]:
    """Returns a provenance record in the form of `Facts.provenance`."""
    rows = provenance.table(record)
    return tuple((row["step"], row["values"], row["labels"]) for row in rows)


class _Scanned:
    """The volumes of runs as scanned, in an iterable that can be repeated."""

    def __init__(self, runs: Sequence[Run], skip: int):
        """Takes runs, and the number of volumes to skip at the start of each."""
        self._runs, self._skip = list(map(phases.uncleaned, runs)), skip

    def __iter__(self) -> Iterator[Float[np.ndarray, "X Y Z"]]:
        for run in self._runs:
            for start in range(self._skip, len(run.frames), CHUNK):
                yield from run.read(slice(start, start + CHUNK))


def with_reference(decoder: Decoder, groups: Sequence[Sequence[Run]], of: str) -> Decoder:
    """Returns a decoder with a reference image, and with limits derived from its runs.

    Args:
      decoder: a decoder without a reference image.
      groups: its runs; the runs of each group are compared with the other groups.
      of: the subject whose runs they are; "" for the training subjects.

    Returns:
      The decoder; unchanged if rows are not points in time, or not all runs are on its grid.
    """
    runs, grid = [run for group in groups for run in group], tuple(decoder.facts.grid)
    timed = all(run.tr is not None or run.starts is not None for run in runs)
    if not runs or not timed or any(run.frames.shape[1:] != grid for run in runs):
        return decoder
    left = decoder.facts.drop_first  # volumes before the steady state differ in contrast
    if sum(max(len(run.frames) - left, 0) for run in runs) < 2:
        return decoder
    scanned = [_Scanned(group, left) for group in groups]
    reference, limits = guards.measured(scanned, decoder.mask)
    facts = decoder.facts._replace(limits=limits, reference_of=of)
    return decoder.replace(reference=reference, facts=facts)


def with_scores(
    facts: Facts,
    summary: Mapping[str, Any],
    reliability: Any,
    noise: float | None = None,
    protocol: str = "",
) -> Facts:
    """Returns facts with the classifier's scores from the report.

    Args:
      facts: facts without scores.
      summary: metric -> its "mean"; balanced accuracy also has "ci95", two limits or None.
      reliability: "confidence", "accuracy" and "count" of each bin.
      noise: balanced accuracy of the same procedure on noise; None: not measured.
      protocol: protocol class of the scores.
    """
    scores = tuple((name, summary[name]["mean"]) for name in SCORES if name in summary)
    limits = (summary.get("balanced_accuracy") or {}).get("ci95") or ()
    scores += tuple(zip((card.LOW, card.HIGH), limits, strict=False))
    scores += () if noise is None else ((card.NOISE, noise),)
    bins = zip(*(reliability[name] for name in ("confidence", "accuracy", "count")), strict=True)
    curve = tuple((float(c), float(a), int(n)) for c, a, n in bins if n)
    return facts._replace(scores=scores, reliability=curve, protocol=protocol)
