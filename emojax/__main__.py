"""`python -m emojax`: the `emojax` command for environments without the installed script."""

import sys

from emojax.cli import main

if __name__ == "__main__":
    sys.exit(main())
