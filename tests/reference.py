"""Hyperalignment once more, in plain NumPy: an independent transcription of PyMVPA's steps.

Slow, dense and in float64. Tests hold it against PyMVPA's recorded outputs, and emojax against it
for settings and data that were not recorded.
"""

import numpy as np


def zscore(x):
    sd = x.std(0)
    return (x - x.mean(0)) / np.where(sd == 0, 1, sd)


def procrustes(x, y, scaling=True, reflection=True, demean=True):
    """Returns the map as a function of rows, the p x q rotation and the scale."""
    mx, my = (x.mean(0), y.mean(0)) if demean else (np.zeros(x.shape[1]), np.zeros(y.shape[1]))
    a, b = x - mx, y - my
    size_a, size_b = np.linalg.norm(a), np.linalg.norm(b)
    p, q = a.shape[1], b.shape[1]
    width = max(p, q)
    a = np.pad(a / size_a, ((0, 0), (0, width - p)))
    b = np.pad(b / size_b, ((0, 0), (0, width - q)))
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.ones(width)
    if not reflection:
        signs[-1] = np.sign(np.linalg.det(vt.T @ u.T))
    rotation = ((vt.T * signs) @ u.T)[:p, :q]
    scale = signs @ s * size_b / size_a
    factor = scale if scaling else 1.0
    return lambda rows: factor * (rows - mx) @ rotation + my, rotation, factor


def whiten(x, alpha):
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    return (x - x.mean(0)) @ (vt.T / np.sqrt((1 - alpha) * s**2 + alpha)) @ vt


def hyperalign(
    data,
    reference=None,
    level2_iters=1,
    zscore_common=True,
    zscore_all=False,
    alpha=1.0,
    scaling=True,
    reflection=True,
    demean=True,
    weight=0.5,
    level1_equal_weight=False,
):
    """Returns the template, the aligned rows of every subject and the scales."""

    def onto(x, target):
        return procrustes(x, target, scaling, reflection, demean)

    z = zscore if zscore_common else lambda x: x
    data = [zscore(x) if zscore_all else x for x in data]
    data = [whiten(x, alpha) if alpha < 1 else x for x in data]
    if reference is None:
        reference = int(np.argmax([x.shape[1] for x in data]))
    common = data[reference] if zscore_all else z(data[reference])
    if len(data) > 1:
        mapped, k = list(data), 0
        for i, x in enumerate(data):
            if i == reference:
                continue
            k += 1
            mapped[i] = z(onto(x, common)[0](x))
            w = k / (k + 1) if level1_equal_weight else weight
            common = z(w * mapped[i] + (1 - w) * common)
        common = np.mean(mapped, axis=0)
        for _ in range(level2_iters):
            targets = [z((len(data) * common - m) / (len(data) - 1)) for m in mapped]
            mapped = [z(onto(x, t)[0](x)) for x, t in zip(data, targets, strict=True)]
            common = np.mean(mapped, axis=0)
        common = z(common)
    maps = [onto(x, common) for x in data]
    return common, [f(x) for (f, _, _), x in zip(maps, data, strict=True)], [m[2] for m in maps]
