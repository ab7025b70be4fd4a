"""Draws the inputs of the alignment goldens from seeds, with NumPy alone.

    python tests/data/make_inputs.py

Writes alignment_inputs.npz, which make_pymvpa.py and the tests read.
"""

import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
BITS = 2.0**16  # values are multiples of 2^-16, so that every machine stores the same bits

# Case: seed, rows to fit, voxels of each subject, new rows.
COHORTS = {
    "A": (1001, 24, [8, 8, 8, 8], 6),  # more rows than voxels
    "C": (1003, 10, [14, 14, 14], 4),  # fewer rows than voxels
    "D": (1004, 24, [7, 8, 6, 8], 6),  # unequal numbers of voxels
}
# Case: seed, rows to fit, voxels of source and target, noise, determinant of the planted rotation.
PAIRS = {
    "eq_neg": (2001, 20, 6, 6, 0.3, -1),
    "eq_pos": (2002, 20, 6, 6, 0.3, 1),
    "exact": (2003, 20, 6, 6, 0.0, 1),
    "up": (2004, 20, 5, 7, 0.3, 1),
    "down": (2005, 20, 7, 5, 0.3, 1),
    "wide": (2006, 8, 11, 11, 0.3, 1),
}
NEW = 5  # new rows of a pair


def draw_rotation(rng: np.random.Generator, size: int, sign: int) -> np.ndarray:
    """Draws an orthogonal matrix of the given determinant, 1 or -1."""
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) * sign < 0:
        q[:, 0] *= -1
    return q


def draw_cohort(seed: int, n: int, widths: list[int], new: int) -> dict[str, np.ndarray]:
    """Draws one signal, rotated, scaled and shifted for each subject: X_i to fit, T_i new."""
    rng = np.random.default_rng(seed)
    k = max(widths)
    signal = rng.normal(size=(n + new, k)) * np.linspace(2, 0.5, k)
    made = {}
    for i, width in enumerate(widths):
        rotation = draw_rotation(rng, k, (-1) ** i)[:, :width]
        rows = signal @ rotation + 0.5 * rng.normal(size=(n + new, width))
        rows = rng.uniform(0.5, 2) * rows + 3 * rng.normal(size=width)
        rows = np.round(rows * BITS) / BITS
        made |= {f"X_{i}": rows[:n], f"T_{i}": rows[n:]}
    return made


def draw_pair(seed: int, n: int, p: int, q: int, noise: float, sign: int) -> dict[str, np.ndarray]:
    """Draws a source, its rotated, scaled and shifted target, and new rows of the source."""
    rng = np.random.default_rng(seed)
    k = max(p, q)
    signal = rng.normal(size=(n + NEW, k)) * np.linspace(2, 0.5, k)
    source = signal[:, :p] + rng.normal(size=p)
    target = 1.7 * signal[:n] @ draw_rotation(rng, k, sign)[:, :q]
    target = target + noise * rng.normal(size=(n, q)) + rng.normal(size=q)
    source, target = (np.round(x * BITS) / BITS for x in (source, target))
    return {"source": source[:n], "target": target, "test": source[n:]}


def main() -> None:
    """Writes the inputs of every case."""
    made = {}
    for name, case in COHORTS.items():
        made |= {f"{name}/{key}": x for key, x in draw_cohort(*case).items()}
    for name, case in PAIRS.items():
        made |= {f"{name}/{key}": x for key, x in draw_pair(*case).items()}
    np.savez_compressed(HERE / "alignment_inputs.npz", **made)


if __name__ == "__main__":
    main()
