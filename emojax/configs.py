"""The shipped configs: `from emojax.configs import expA`.

In a checkout they are in `configs/`, next to the package. A wheel contains them as a package of
this name, which Python prefers to this file.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[1] / "configs")]
