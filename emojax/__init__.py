"""emojax: decode emotional brain states from single fMRI volumes, in JAX.

Import the module that you need, for example ``from emojax import anova, hyperalignment``. Every
public function takes arrays (and random keys) and returns arrays or pytrees of arrays.
"""

__version__ = "0.3.0"
