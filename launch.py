"""Script that runs emojax from a checkout.

    python launch.py --config=configs/expA.py:demo --workdir=runs/demo

`--mode` names one of emojax's commands, `run` by default; `python launch.py --help` lists them:

    python launch.py --mode=export --config=configs/expA.py:demo --workdir=runs/demo --subject=01
    python launch.py --mode=decode --bundle=runs/demo/decoder --input=FILE.nii.gz --workdir=runs/new
"""

import sys

from emojax.cli import launch

if __name__ == "__main__":
    sys.exit(launch(sys.argv))
