"""Programs of piecewise alignment: batches of padded parcels, each fitted on its own."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve
from jaxtyping import Bool, Float

from emojax import hyperalignment
from emojax._numerics.checks import Array
from emojax._numerics.order import after
from emojax._numerics.pieces import Linear
from emojax._numerics.rows import as_rows, varies
from emojax._numerics.subjects import Options

Way = Literal["procrustes", "ridge", "identity"]


class Settings(NamedTuple):
    """Static settings of a program."""

    method: Way
    penalty: float
    options: Options
    levels: tuple[tuple[str, Any], ...] = ()  # options of `hyperalignment.fit` alone


class Fitted(NamedTuple):
    """Maps of a batch of parcels."""

    template: Float[Array, "n k p"] | None  # None: the template was given
    maps: Any  # `Procrustes`, `LowRankProcrustes`, `ComposedMapping` or `Linear`, stacked [s, k]
    residuals: Float[Array, "s k"] | None  # ||mapped - template||
    alive: Bool[Array, "s k"]  # whether any voxel of the subject varies in the parcel


@partial(jax.jit, static_argnames="settings")
@jax.default_matmul_precision("highest")
def fit_batch(x: Float[Array, "k s n p"], settings: Settings) -> Fitted:
    """Fits a template to each parcel of a batch and maps every subject onto it."""
    options = of_batch(x, settings)

    def one(x):
        made = hyperalignment.fit(x, **options._asdict(), **dict(settings.levels))
        maps, residuals = made.mappings, made.residuals
        if settings.method == "ridge":
            maps, residuals = jax.vmap(lambda own: _ridge(own, made.template, settings))(
                after(x, made.template)
            )
        return made.template, (maps, residuals, _alive(x, options))

    template, of_subjects = jax.vmap(one, out_axes=(1, 1))(x)
    return Fitted(template, *of_subjects)


@partial(jax.jit, static_argnames="settings")
@jax.default_matmul_precision("highest")
def align_batch(x: Float[Array, "k s+1 n p"], settings: Settings) -> Fitted:
    """Maps the parcels of subjects, x[:, :-1], onto those of the template, x[:, -1]."""
    options = of_batch(x, settings)

    def one(x):
        x, template = x[:-1], x[-1]
        if settings.method == "ridge":
            maps, _ = jax.vmap(lambda own: _ridge(own, template, settings))(x)
        else:
            maps = hyperalignment.align(hyperalignment.from_template(template, options), x)
        return maps, _alive(x, options) & varies(template, options.demean)

    maps, alive = jax.vmap(one, out_axes=1)(x)
    return Fitted(None, maps, None, alive)


def of_batch(x: Float[Array, "k s n p"], settings: Settings) -> Options:
    """Returns the options of a batch, with thin factors if parcels have more voxels than rows."""
    return settings.options._replace(lowrank=x.shape[3] > x.shape[2])


def serial(settings: Settings) -> Settings | None:
    """Returns settings whose programs decompose one matrix at a time, or None if impossible."""
    options = settings.options
    batched = options.alpha < 1 or not options.reflection or options.method == "polar"
    if settings.method != "procrustes" or batched:
        return None
    return settings._replace(options=options._replace(method="serial"))


def _alive(x, options: Options):
    return jax.vmap(partial(varies, demean=options.demean))(x)


def _ridge(x, template, settings: Settings) -> tuple[Linear, jax.Array]:
    """Returns the ridge map of one subject's parcel [n, p] onto the template, and its residual."""
    x, y = (as_rows(own, settings.options.demean) for own in (x, template))
    scale = settings.penalty * (x.left**2).sum() / len(x.left)
    scale = jnp.where(scale > 0, scale, 1)
    if x.left.shape[1] <= len(x.left):
        kernel = x.left.T @ x.left + scale * jnp.eye(x.left.shape[1], dtype=x.left.dtype)
        left, right = solve(kernel, x.left.T @ y.left, assume_a="pos"), None
    else:
        kernel = x.left @ x.left.T + scale * jnp.eye(len(x.left), dtype=x.left.dtype)
        left, right = solve(kernel, x.left, assume_a="pos").T, y.left
    made = Linear(left, right, x.mean, y.mean)
    return made, jnp.linalg.norm(made.forward(x.left + x.mean) - template)
