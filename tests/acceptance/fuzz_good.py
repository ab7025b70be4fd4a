"""Sound inputs of every kind, which must run: refusing everything would be no success."""

import fuzz_good_bids
import fuzz_good_runs
import fuzz_good_sources
from fuzz_cases import GOOD, Case


def cases():
    """Yields all of them."""
    for family, name, prepare, argv, *call in (
        *fuzz_good_bids.cases(),
        *fuzz_good_sources.cases(),
        *fuzz_good_runs.cases(),
    ):
        yield Case(family, name, prepare, argv, GOOD, *call)
