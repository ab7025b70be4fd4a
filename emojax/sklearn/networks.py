"""The networks as scikit-learn classifiers, trained by emojax's loop and optimiser."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from emojax.features.scaling import Kind
from emojax.sklearn.training import NetworkClassifier
from emojax.training.trial import By


class CNN1DClassifier(NetworkClassifier):
    """The 1D CNN of `emojax.models.cnn1d` on rows of voxels.

    With the default layers it needs at least 55 voxels, and their order matters. It includes all
    steps between rows and network: the scale of the voxels is fitted to the training rows.

    Attributes: as for `NetworkClassifier`.
    """

    _network = "cnn1d"
    _own = ("filters", "window", "dense", "dropout", "batch_norm", "conv_activation")

    def __init__(
        self,
        *,
        filters: tuple[int, ...] = (128, 128, 128, 64, 64, 64),
        window: int = 10,
        dense: tuple[int, ...] = (1024, 512, 256, 128, 64, 32, 16),
        dropout: tuple[float, float] = (0.25, 0.5),
        batch_norm: bool = False,
        conv_activation: str = "",
        scale: Kind = "voxel",
        penalty_factor: float = 1e-3,
        lr: float = 5e-4,
        epochs: int = 200,
        batch_size: int = 64,
        held_back: float = 0.2,
        patience: int = 10,
        best_by: By = "accuracy",
        balanced: bool = False,
        temperature: bool = True,
        random_state: Any = None,
    ):
        """Sets the parameters.

        Args:
          filters: numbers of channels of the convolutions.
          window: number of voxels in the window of a convolution.
          dense: sizes of the hidden dense layers.
          dropout: dropout rates of the features and of the first dense layer.
          batch_norm: whether every layer but the last is followed by batch norm.
          conv_activation: key of `emojax.models.cnn1d.ACTIVATIONS`, or "" for none.
          scale, penalty_factor, lr, epochs, batch_size, held_back, patience, best_by, balanced,
            temperature, random_state: see `NetworkClassifier`.
        """
        self.filters = filters
        self.window = window
        self.dense = dense
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.conv_activation = conv_activation
        self.scale = scale
        self.penalty_factor = penalty_factor
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.held_back = held_back
        self.patience = patience
        self.best_by = best_by
        self.balanced = balanced
        self.temperature = temperature
        self.random_state = random_state


class ResNet3DClassifier(NetworkClassifier):
    """The 3D ResNet of `emojax.models.resnet3d` on volumes.

    X is [n, x, y, z] with at least nine voxels along each axis; or, with a mask, rows of its voxels
    in C order, as from `emojax.masking.apply_mask` or a nilearn masker.

    Attributes: as for `NetworkClassifier`.
    """

    _network = "resnet3d"
    _own = ("depth", "width", "head_features", "dtype", "norm_momentum")

    def __init__(
        self,
        *,
        mask: Bool[np.ndarray, "x y z"] | None = None,
        depth: int = 18,
        width: int = 64,
        head_features: int = 0,
        dtype: str = "device",
        norm_momentum: float = 0.9,
        scale: Kind = "global",
        penalty_factor: float = 2e-4,
        lr: float = 3e-4,
        epochs: int = 100,
        batch_size: int = 16,
        held_back: float = 0.2,
        patience: int = 10,
        best_by: By = "accuracy",
        balanced: bool = False,
        temperature: bool = True,
        random_state: Any = None,
    ):
        """Sets the parameters.

        Args:
          mask: [x, y, z] bool, mask of the voxels in each row; np.ones((x, y, z), bool) for whole
            volumes as rows. None: X is [n, x, y, z].
          depth: number of layers: 18, 34, 50, 101 or 152.
          width: number of channels of the first stage.
          head_features: size of a dense layer before the last one; 0: no such layer.
          dtype: type of the computation: "float32", "bfloat16", "device" (bfloat16 on GPUs), or
            "auto" (also on CPUs if measured to be faster).
          norm_momentum: momentum of moving statistics; short training runs need less than 0.99.
          scale, penalty_factor, lr, epochs, batch_size, held_back, patience, best_by, balanced,
            temperature, random_state: see `NetworkClassifier`.
        """
        self.mask = mask
        self.depth = depth
        self.width = width
        self.head_features = head_features
        self.dtype = dtype
        self.norm_momentum = norm_momentum
        self.scale = scale
        self.penalty_factor = penalty_factor
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.held_back = held_back
        self.patience = patience
        self.best_by = best_by
        self.balanced = balanced
        self.temperature = temperature
        self.random_state = random_state

    def _shape(self, X: np.ndarray) -> tuple[int, ...]:
        if self.mask is None:
            if X.ndim != 4:
                raise ValueError(
                    f"want volumes [n, x, y, z], or rows of voxels and mask=; got X {X.shape}"
                )
            return X.shape[1:]
        mask = np.asarray(self.mask)
        if mask.ndim != 3 or mask.dtype != bool:
            raise ValueError(f"want mask: bool [x, y, z]; got {mask.dtype} {mask.shape}")
        if X.ndim != 2 or X.shape[1] != mask.sum():
            raise ValueError(f"want rows of the {mask.sum()} voxels of mask; got X {X.shape}")
        return mask.shape

    def _inputs(self, x: np.ndarray) -> Float[np.ndarray, "k x y z"]:
        if self.mask is None:
            return x
        volumes = np.full((len(x), *self.mask.shape), np.nan, np.float32)  # scaling maps NaN to 0
        volumes[:, np.asarray(self.mask)] = x
        return volumes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.mask is not None
        return tags
