"""`python -m emojax`: the `emojax` command of an environment without its script."""

import sys

from emojax.cli import main

if __name__ == "__main__":
    sys.exit(main())
