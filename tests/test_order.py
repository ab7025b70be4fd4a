"""Decompositions of batches in one program come one after another."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax import hyperalignment, procrustes
from emojax._numerics import piece_fits
from emojax._numerics.order import after
from emojax._numerics.subjects import Options

WIDE, NARROW = (3, 3, 6, 9), (3, 3, 9, 6)  # parcels, subjects, rows, voxels
LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = .*?[\])}] ([\w-]+)\((.*)$")


def decompositions(function, *args):
    """Returns the LAPACK calls of a compiled program, and of each the calls that it waits for."""
    text = jax.jit(function).lower(*args).compile().as_text()
    entry = text[text.index("\nENTRY") :]
    before, calls = {}, []
    for line in entry.splitlines():
        if found := LINE.match(line):
            name, kind, rest = found.groups()
            needs = {need for need in re.findall(r"%([\w.-]+)", rest) if need in before}
            before[name] = set().union(needs, *(before[need] for need in needs))
            if kind == "custom-call" and "lapack" in rest:
                calls.append(name)
    return calls, before


def loose(function, *args):
    """Returns pairs of decompositions of which neither waits for the other; and their number."""
    calls, before = decompositions(function, *args)
    pairs = [
        (a, b)
        for i, a in enumerate(calls)
        for b in calls[i + 1 :]
        if a not in before[b] and b not in before[a]
    ]
    return pairs, len(calls)


def values(shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_the_reader_of_programs_sees_what_is_loose():
    def two(a, b):
        return jnp.linalg.qr(a)[1] @ jnp.linalg.qr(b)[1]

    def chained(a, b):
        r = jnp.linalg.qr(a)[1]
        return r @ jnp.linalg.qr(after(b, r))[1]

    a = values((4, 9, 6))
    pairs, count = loose(two, a, a + 1)
    assert count >= 2 and pairs
    assert loose(chained, a, a + 1) == ([], count)


@pytest.mark.parametrize("first", [1.0, -1.0, 0.0, np.nan, np.inf])
def test_values_stay(first):
    x = values((3, 4)).at[0, 0].set(0)
    assert (after(x, jnp.full((2, 2), first)) == x).all()
    moved = jax.vmap(after)(jnp.stack([x, x + 1]), jnp.full((2, 3), first))
    np.testing.assert_array_equal(moved[1], x + 1)


@pytest.mark.parametrize("reflection", [True, False])
@pytest.mark.parametrize("demean", [True, False])
@pytest.mark.parametrize("method", ["svd", "polar"])
@pytest.mark.parametrize("fit", [procrustes.fit, procrustes.fit_lowrank])
def test_stacks_of_pairs(fit, method, demean, reflection):
    options = {"method": method, "demean": demean, "reflection": reflection}
    for shape in ((4, 6, 9), (4, 9, 6), (4, 6, 6)):
        x = values(shape)
        pairs, _ = loose(jax.vmap(lambda a, b: fit(a, b, **options)), x, x[::-1])
        assert not pairs, shape


SETTINGS = [
    piece_fits.Settings("procrustes", 0.1, Options()),
    piece_fits.Settings("procrustes", 0.1, Options(alpha=0.5)),
    piece_fits.Settings("procrustes", 0.1, Options(reflection=False, method="polar")),
    piece_fits.Settings("procrustes", 0.1, Options(demean=False)),
    piece_fits.Settings("ridge", 0.1, Options()),
]


@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.method}-{s.options.alpha}")
def test_batches_of_parcels(settings, shape):
    for program in (piece_fits.fit_batch, piece_fits.align_batch):
        pairs, count = loose(lambda x, program=program: program(x, settings), values(shape))
        assert count and not pairs, program


@pytest.mark.parametrize("lowrank", [True, False])
def test_subjects_of_one_fit(lowrank):
    def fit(x):
        return hyperalignment.fit(x, lowrank=lowrank).mappings

    pairs, count = loose(fit, values((3, 6, 9)))
    assert count and not pairs
