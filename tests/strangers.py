"""Networks defined by a user, as a config names them: `model.name=strangers:MLP`."""

from flax import linen as nn
from flax.linen import initializers

from emojax.models.network import Network, penalty_l2


class MLP(nn.Module):
    """A stranger's network for vectors, without any attribute that emojax knows."""

    num_classes: int
    hidden: int = 4

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(0.5)(nn.relu(nn.Dense(self.hidden)(x)), deterministic=not train)
        return nn.Dense(self.num_classes)(x)


class Volumes(nn.Module):
    """A stranger's network for volumes; the number of classes is its first field."""

    classes: int
    input = "volume"

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(not train)(x.reshape(len(x), -1))
        return nn.Dense(self.classes)(x)


class Bare(nn.Module):
    """A network that is never told how many classes there are, nor whether it is trained."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


class Odd(MLP):
    input = "surface"


class Flat(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, *, train):
        return x @ self.param("w", initializers.ones, (x.shape[1], self.num_classes))


OWN = Network(lambda config, num_classes: MLP(num_classes, 7), penalty_l2, lambda config: "own")
NOTHING = 3


class Linear(nn.Module):
    """A network that is one matrix."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.num_classes, name="out")(x)


def fold_linear(params, batch_stats, matrix, offset):
    """Folds the affine map of vectors into the matrix."""
    kernel, bias = params["out"]["kernel"], params["out"]["bias"]
    return {"kernel": (matrix @ kernel).astype("f4"), "bias": (offset @ kernel + bias).astype("f4")}


LINEAR = Network(
    lambda config, num_classes: Linear(num_classes),
    penalty_l2,
    lambda config: "linear",
    fold=fold_linear,
    apply=lambda weights, x: x @ weights["kernel"] + weights["bias"],
)
