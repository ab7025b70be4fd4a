"""Leave one subject out, four ways to align the left-out subject, and what each of them has seen.

    python examples/quickstart.py

Eight simulated subjects with two runs each look at rest, neutral and negative blocks. All share the
classes' response patterns, but every subject has its own topography (a rotation of the informative
voxels). Per fold, on training subjects only: brain mask, F-scores, 60 voxels, hyperalignment, class
means. Scored: run 2 of the left-out subject.
"""

import jax
import jax.numpy as jnp
import numpy as np

from emojax import alignment, anova, hyperalignment, masking, metrics, statistics
from emojax.provenance import Allowance, Provenance, check_scoring

SUBJECTS, RUNS, VOLUMES, CLASSES, KEEP = 8, 2, 80, 3, 60
SHAPE = (16, 16, 10)
REGIMES = ("group", "independent_runs", "transductive", "none")


def simulate(rng):
    """Returns volumes [subjects, time, x, y, z] in scanner units, labels [time] and runs [time]."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    brain = (grid**2).sum(0) < 0.8
    informative = np.flatnonzero(brain.ravel())[300:400]
    runs = np.repeat(np.arange(RUNS), VOLUMES)
    labels = np.concatenate([np.repeat(rng.permutation(8) % 4, 10) for _ in range(RUNS)])
    labels = np.array([0, 0, 1, 2])[labels]  # half of the blocks are rest
    patterns = rng.normal(size=(CLASSES, informative.size))
    responses = 0.6 * patterns[labels] + 0.7 * rng.normal(size=(labels.size, informative.size))
    volumes = rng.normal(100, 40, size=(SUBJECTS, labels.size, *SHAPE))  # air
    volumes[:, :, brain] += 900
    for subject in volumes.reshape(SUBJECTS, labels.size, -1):
        topography = np.linalg.qr(rng.normal(size=(informative.size,) * 2))[0]
        subject[:, informative] += 20 * responses @ topography
    return volumes.astype(np.float32), labels, runs


def nearest_mean(train, labels, test):
    """Returns the predicted class [t] of each row, by the nearest class mean."""
    means = jnp.stack([train[labels == k].mean(0) for k in range(CLASSES)])
    return jnp.linalg.norm(test[:, None] - means, axis=-1).argmin(1)


def main():
    """Prints accuracy, interval over subjects and leaks of every alignment regime."""
    volumes, labels, runs = simulate(np.random.default_rng(0))
    t = labels.size
    subject = np.repeat(np.arange(SUBJECTS), t)
    own, scored = np.flatnonzero(runs == 0), np.flatnonzero(runs == 1)
    accuracy = {regime: [] for regime in REGIMES}
    leaks = {regime: {} for regime in REGIMES}
    for left_out in range(SUBJECTS):
        train = [s for s in range(SUBJECTS) if s != left_out]
        masks = [masking.brain_mask(volumes[s].mean(0)) for s in train]
        x = masking.apply_mask(volumes, masking.intersect(masks))
        pooled, pooled_labels = np.concatenate(x[jnp.array(train)]), np.tile(labels, len(train))
        voxels = anova.select_top(anova.f_scores(pooled, pooled_labels, CLASSES), KEEP)
        x = x[:, :, voxels]
        model = hyperalignment.fit(x[jnp.array(train)])
        common = hyperalignment.transform(model.mappings, x[jnp.array(train)])
        mine = x[left_out]
        maps = {
            "group": alignment.group(model, x[jnp.array(train)]),
            "independent_runs": alignment.independent_runs(model, mine[own], own),
            "transductive": alignment.transductive(model, mine),
            "none": alignment.none(KEEP),
        }
        trained = np.isin(subject, train)
        base = Provenance.of("training", subject.size, values=trained, labels=trained)
        for regime, mapping in maps.items():
            together = {"group": None, "none": x[jnp.array(train)]}.get(regime, common)
            if together is None:
                together = jax.vmap(mapping.forward)(x[jnp.array(train)])
            guess = nearest_mean(
                jnp.concatenate(together), pooled_labels, mapping.forward(mine[scored])
            )
            accuracy[regime].append(metrics.accuracy(labels[scored], guess))
            rows = {"independent_runs": own, "transductive": np.arange(t)}.get(regime, [])
            seen = base | Provenance.of(
                "alignment", subject.size, values=left_out * t + np.array(rows, int)
            )
            allow: dict[str, Allowance] = {}
            if regime == "transductive":
                allow["alignment"] = "transductive"
            leaks[regime] |= check_scoring(
                seen, left_out * t + scored, subject=subject, allow=allow
            )
    always_rest = np.mean(labels[scored] == 0)
    print(
        f"{SUBJECTS} subjects, {scored.size} volumes scored of each; always rest: {always_rest:.2f}"
    )
    print("alignment         accuracy  95 % interval  saw scored volumes")
    for regime, folds in accuracy.items():
        interval = statistics.bootstrap_interval(jax.random.key(0), jnp.stack(folds))
        print(
            f"{regime:18}{interval.estimate:8.3f}  {interval.low:.3f} - {interval.high:.3f}  "
            f"{'yes, by ' + ', '.join(leaks[regime]) if leaks[regime] else 'no'}"
        )


if __name__ == "__main__":
    main()
