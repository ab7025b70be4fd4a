"""A network, a classifier and a source of one's own, from the data to the report.

    python examples/own_network.py

Nothing is registered: the config names them by their paths, "module:name".
"""

import numpy as np
from flax import linen as nn
from sklearn.linear_model import RidgeClassifier

from emojax import experiments
from emojax.configs import expA  # pyright: ignore[reportAttributeAccessIssue] found at run time
from emojax.data.cohort import build
from emojax.data.run import Run


class MLP(nn.Module):
    """A network: vectors in, logits out."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        """Returns logits [batch, classes]."""
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(32)(x)))


def ridge(seed):
    """Returns a classical classifier, an estimator of scikit-learn."""
    return RidgeClassifier(alpha=100.0)


def load(data):
    """Returns a cohort of five subjects with two runs of 60 vectors each, in blocks of five."""
    rng, labels = np.random.default_rng(data.synthetic.seed), np.arange(60) // 5 % 3
    means = rng.normal(size=(3, 80))[labels]
    make = lambda: (means + 3 * rng.normal(size=(60, 80))).astype("float32")  # noqa: E731
    runs = [Run(f"0{s}", f"run-{r}", make(), tr=2.0) for s in range(1, 6) for r in (1, 2)]
    return build(runs, ("rest", "neutral", "negative"), [labels] * 10)


def main(workdir="runs/own_network"):
    """Leaves one subject out, and writes the report into the workdir."""
    config = expA.get_config("demo")
    config.data.source, config.model.name = "own_network:load", "own_network:MLP"
    config.baselines, config.protocols = "LDA,own_network:ridge", "nested"
    config.permutations, config.noise.draws = 19, 2
    config.voxels.keep, config.align.regimes, config.train.lr = 40, "none", 5e-3
    return experiments.run(config, workdir)


if __name__ == "__main__":
    main()
