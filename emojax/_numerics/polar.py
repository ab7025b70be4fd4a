"""Orthogonal polar factor of a small matrix, the core of every Procrustes problem."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emojax._numerics.checks import Array
from emojax._numerics.order import after

Method = Literal["svd", "polar", "serial"]  # "serial" is for programs that run side by side


def scaled_newton_schulz_steps(dtype: np.dtype) -> list[float]:
    """Returns the scales rho of X <- rho X (3 I - rho^2 X'X) / 2, which gives the polar factor.

    Singular values in [low, 1] go to rho s (3 - rho^2 s^2) / 2. The best rho for the interval is
    sqrt(3 / (1 + low + low^2)), but it sends s = 1 to `low`, where rounding hides it; a cap at 1.6
    keeps it above 0.35 (Chen and Chow, A stable scaling of Newton-Schulz for improving the sign
    function computation of a Hermitian matrix, 2014, argue for such a cap). The bounds are known
    beforehand, and so is the number of steps: 25 in float32 and 49 in float64.
    """
    eps = float(jnp.finfo(dtype).eps)
    low, rhos = eps / 8, []
    while low < 1 - eps:
        rho = min(np.sqrt(3 / (1 + low + low**2)), 1.6)
        image = [rho * s * (3 - rho**2 * s**2) / 2 for s in (low, 1.0)]
        low = min(image)
        rhos.append(float(rho))
    return [*rhos, 1.0]


def _newton_schulz(x):
    """Computes the polar factor of x [a, b] by matrix products only; a null space stays null."""
    if x.shape[0] < x.shape[1]:
        return _newton_schulz(x.T).T
    rhos = jnp.asarray(scaled_newton_schulz_steps(x.dtype), x.dtype)
    size = jnp.abs(x)
    bound = jnp.sqrt(size.sum(0).max() * size.sum(1).max())  # largest singular value <= bound
    start = x / jnp.where(bound > 0, bound, 1)

    def step(x, rho):
        x = rho * x
        return 1.5 * x - 0.5 * (x @ (x.T @ x)), None

    return jax.lax.scan(step, start, rhos)[0]


def _svd(x):
    return jnp.linalg.svd(x, full_matrices=False)


_svd_in_turn = jax.custom_batching.sequential_vmap(_svd)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def polar(
    x: Float[Array, "a b"], reflection: bool, method: Method
) -> tuple[Float[Array, "a b"], Float[Array, ""]]:
    """Finds the matrix W with orthonormal rows or columns that maximises trace(W' x).

    Args:
      x: [a, b] float. If x = U diag(s) V' then W = U V' and the trace is sum(s).
      reflection: False asks for det W = +1 where a == b: if det(U V') = -1 the direction of the
        smallest singular value is flipped, and that value counts as negative in the trace.
      method: "svd"; "serial", the same with the matrices of a batch one by one (two programs with
        batches at once would deadlock); or "polar": scaled Newton-Schulz, matrix products alone
        (and one `eigh` for a flip). If x has a null space, "svd" completes W there arbitrarily and
        "polar" leaves W zero; x-weighted results (x.T @ W, the trace) agree.

    Returns:
      W [a, b] and the trace [].
    """
    if method != "polar":
        u, s, vt = (_svd if method == "svd" else _svd_in_turn)(x)
        if not reflection and x.shape[0] == x.shape[1]:
            sign = jnp.where(jnp.linalg.det(u @ vt) < 0, -1, 1).astype(x.dtype)
            u, s = u.at[:, -1].multiply(sign), s.at[-1].multiply(sign)
        return u @ vt, s.sum()
    w = _newton_schulz(x)
    trace = jnp.vdot(w, x)
    if not reflection and x.shape[0] == x.shape[1]:
        h = w.T @ x
        values, vectors = jnp.linalg.eigh((h + h.T) / 2)
        flip = jnp.where(jnp.linalg.det(after(w, vectors)) < 0, 2, 0).astype(x.dtype)
        smallest = vectors[:, :1]
        w = w - flip * (w @ smallest) @ smallest.T
        trace = trace - flip * values[0]
    return w, trace


@polar.defjvp
def _polar_jvp(reflection, method, primals, tangents):
    """Differentiates x = W H, H symmetric: smooth unless a sum of singular values is zero.

    W' dW = K is skew with K H + H K = W'dx - dx'W; in the eigenbasis of H that is one division. The
    derivative of `svd` itself would divide by differences, and fail for equal singular values.
    """
    (x,), (dx,) = primals, tangents
    w, trace = polar(x, reflection, method)
    tall = x.shape[0] >= x.shape[1]
    q, y, dy = (w, x, dx) if tall else (w.T, x.T, dx.T)
    h = q.T @ y
    values, vectors = jnp.linalg.eigh((h + h.T) / 2)
    tiny = y.shape[0] * jnp.finfo(x.dtype).eps * jnp.abs(values).max()
    sums = values[:, None] + values[None, :]
    inverse_sums = jnp.where(jnp.abs(sums) > tiny, 1 / jnp.where(sums == 0, 1, sums), 0)
    inverse = jnp.where(jnp.abs(values) > tiny, 1 / jnp.where(values == 0, 1, values), 0)
    skew = q.T @ dy - dy.T @ q
    dq = q @ (vectors @ (vectors.T @ skew @ vectors * inverse_sums) @ vectors.T)
    outside = dy - q @ (q.T @ dy)
    dq = dq + (outside @ vectors * inverse) @ vectors.T
    return (w, trace), (dq if tall else dq.T, jnp.vdot(w, dx))
