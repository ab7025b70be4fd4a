"""Corresponding rows, and held-out subjects on their way into the common space of a fold."""

import jax.numpy as jnp
import numpy as np

from emojax import alignment, procrustes


def matched(subjects, chosen, settings):
    """Corresponding rows [c, m] of each subject, and (run, class or -1) of each row [c, 2]."""
    if settings.match == "time":
        run = next(iter(subjects.values())).run
        return list(chosen.values()), np.stack([run, np.full(len(run), -1)], 1)
    runs = [subject.run for subject in subjects.values()]
    labels = [subject.y for subject in subjects.values()]
    return alignment.match_rows(list(chosen.values()), runs, labels)


def unaligned(subjects, choose, centre: bool):
    """held_out(name) -> its voxels, run by run without a look at the run itself."""

    def held_out(name):
        subject = subjects[name]
        out = np.empty((len(subject.y), len(choose(name, None))), np.float32)
        for run in np.unique(subject.run):
            here = subject.run == run
            columns = choose(name, run)
            out[here] = subject.x[here][:, columns]
            if centre:
                out[here] -= subject.x[~here][:, columns].mean(0)
        return out

    return held_out


def held_out(subjects, choose, model, keys, everyones, settings):
    """held_out(name) -> its rows in the common space, by the regime."""

    def held_out(name):
        subject = subjects[name]
        if everyones is not None:
            return moved(everyones, subject.x[:, choose(name, None)])
        if settings.regime == "transductive":
            x = subject.x[:, choose(name, None)]
            (rows,), own = matched({name: subject}, {name: x}, settings)
            return moved(alignment.transductive(model, _at(rows, own, keys)), x)
        out = np.empty((len(subject.y), settings.keep), np.float32)
        for run in np.unique(subject.run):
            here = subject.run == run
            columns = choose(name, run)
            mapping = own_map(subject, run, columns, model, keys, settings)
            out[here] = moved(mapping, subject.x[here][:, columns])
        return out

    return held_out


def own_map(subject, run, columns, model, keys, settings):
    """The map of a subject's run by its other runs."""
    others = type(subject)(*(a[subject.run != run] for a in subject))
    (rows,), own = matched({"": others}, {"": others.x[:, columns]}, settings)
    at = _places(own, keys)
    return alignment.independent_runs(model, rows[at >= 0], at[at >= 0])


def _places(own, keys) -> np.ndarray:
    """[r] the template's row of each row, by run, class and order; -1 where it has none."""
    place = {}
    for i, key in enumerate(map(tuple, keys.tolist())):
        place.setdefault(key, []).append(i)
    taken = {key: iter(rows) for key, rows in place.items()}
    return np.array([next(taken.get(key, iter(())), -1) for key in map(tuple, own.tolist())])


def _at(rows, own, keys):
    """Rows in the order of the template's, which must all be there."""
    at = _places(own, keys)
    order = np.argsort(at[at >= 0])
    return jnp.asarray(rows)[at >= 0][order]


def moved(mapping, x):
    return np.asarray(procrustes.transform(mapping, jnp.asarray(x)))
