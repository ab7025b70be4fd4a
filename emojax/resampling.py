"""Which rows go where: class balance by bootstrap, and splits into train and test.

Everything here is an int32 array of row indices, and the same key gives the same rows. `balance`
is traced (`jit`, `vmap`); the splits have sizes that depend on values and are made on the host.
A run number that repeats from subject to subject names no group: to leave runs out, give each run
of each subject its own number, for example `subject * 100 + run`.
"""

from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32, Key, Shaped

from emojax._check import Array, check_labels, is_concrete
from emojax._parts import class_table, part_sizes
