"""The shipped configs: `from emojax.configs import expA`.

In a checkout they lie beside emojax, in `configs/` at its top. A wheel holds them as a package of
this name, which Python then prefers to this file.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[1] / "configs")]
