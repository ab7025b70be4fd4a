"""Who trains, chooses the epoch, and tests in Experiment B: the paper's split and two strict ones.

`random` is the paper's: neighbouring volumes of one run, alike whatever is shown, end up on both
sides. `by_block` keeps blocks of one class whole, for studies of a single run: better, but volumes
at the edges of blocks still have neighbours on the other side. `by_run` keeps runs whole, and tests
on new runs of known subjects; `by_subject` keeps subjects whole, and tests on new people.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Shaped

from emojax import resampling
from emojax.errors import InputError
from emojax.provenance import Provenance, check_scoring
from emojax.training.fitting import Split

KINDS = ("by_subject", "by_run", "by_block", "random")


class Design(NamedTuple):
    """What the labelled volumes of a cohort are."""

    labels: Int[np.ndarray, " n"]
    subject: Shaped[np.ndarray, " n"]
    run: Int[np.ndarray, " n"]  # unique over subjects
    frame: Int[np.ndarray, " n"]  # in the run

    @property
    def block(self) -> Int[np.ndarray, " n"]:
        """Number of the block: volumes of one run and class without a gap."""
        new = np.diff(self.run, prepend=-1) != 0
        new |= np.diff(self.labels, prepend=-1) != 0
        new |= np.diff(self.frame, prepend=-1) != 1
        return np.cumsum(new)

    def groups(self, kind: str) -> np.ndarray:
        """[n] what a strict split keeps whole; runs for `random`, which does not."""
        return {"by_subject": self.subject, "by_block": self.block}.get(kind, self.run)


def make(
    key: jax.Array, design: Design, kind: str, fractions: Sequence[int | float], folds: int = 1
) -> list[Split]:
    """The splits of one kind.

    Args:
      key: [] typed.
      design: of all labelled volumes.
      kind: one of `KINDS`.
      fractions: of volumes (`random`) or groups: training, validation, test; sizes, or sum 1.
      folds: 1: one split by `fractions`. More: every group is tested once, in one of so many folds;
        the share of the other groups that validates is as in `fractions`. `random` has one.

    Raises:
      InputError: too few groups or volumes, or a part lacks a class.
    """
    labels, groups = design.labels, design.groups(kind)
    try:
        if kind == "random":
            return [Split(*resampling.stratified_split(key, labels, fractions))]
        if folds == 1:
            shares = np.divide(fractions, np.sum(fractions)).tolist()
            return [Split(*resampling.group_split(key, groups, shares, labels=labels))]
        made = []
        outer = resampling.group_kfold(key, groups, folds, labels=labels)
        share = fractions[1] / (fractions[0] + fractions[1])
        for i, (rest, test) in enumerate(outer):
            inner = resampling.group_split(
                jax.random.fold_in(key, i), groups[rest], (1 - share, share), labels=labels[rest]
            )
            made.append(Split(*(rest[part] for part in inner), test))
        return made
    except ValueError as error:
        raise InputError(f"split {kind}", error, "more volumes, runs or subjects") from None


def resampled(key: jax.Array, split: Split, labels, *, balance: bool, bootstrap: bool) -> Split:
    """The same split with other training rows.

    Args:
      key: [] typed.
      split: the split.
      labels: [n] int, of all rows of the cohort.
      balance: every class as often as the commonest; rows of rarer ones are drawn again.
      bootstrap: draw the rows of each class with replacement.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    classes = [split.train[labels[split.train] == k] for k in np.unique(labels[split.train])]
    most = max(map(len, classes))
    rows = []
    for own in classes:
        count = most if balance else len(own)
        again = count if bootstrap else count - len(own)
        kept = own[:0] if bootstrap else own
        rows.append(np.concatenate([kept, rng.choice(own, again)]))
    return split._replace(train=np.concatenate(rows))


def seen(design: Design, split: Split, prior: Sequence[str] = ()) -> Provenance:
    """What the steps of a training have seen: scaler, network, epoch choice, and earlier steps."""
    n = len(design.labels)
    out = Provenance.of("scaler", n, values=np.unique(split.train))
    train = np.unique(split.train)
    out |= Provenance.of("network", n, values=train, labels=train)
    out |= Provenance.of("epoch choice", n, values=split.monitor, labels=split.monitor)
    for step in prior:
        out |= Provenance.of(step, n, values=np.arange(n))
    return out


def check(design: Design, split: Split, kind: str, prior: Sequence[str] = ()) -> dict[str, int]:
    """Refuses to score what was seen; step -> volumes that it saw wrongly, declared or by `random`.

    Raises:
      LeakageError: a strict split whose training saw a scored volume, or labels of its group.
    """
    return check_scoring(
        seen(design, split, prior),
        split.test,
        protocol="paper" if kind == "random" else kind,  # the paper's split: leaks are reported
        subject=design.groups(kind),
        allow=dict.fromkeys(prior, "transductive"),
    )
