"""Whole brains beside the peers in one run: piecewise alignment, then searchlights.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.wholebrain            # about a quarter of an hour; stored
    python -m benchmarks.wholebrain --print    # what is stored

`benchmarks.wholebrain_alignment` and `benchmarks.wholebrain_searchlight` say what is compared.
"""

import argparse
import json

from benchmarks import wholebrain_alignment as alignment
from benchmarks import wholebrain_searchlight as searchlight
from benchmarks.record import RESULTS, keep

FILE = "wholebrain_cpu"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="print what is stored")
    args = parser.parse_args()
    if not args.print:
        keep(FILE, "alignment", alignment.compare(alignment.SHAPE, args.rounds))
        rows, agreement = searchlight.compare({"centres": 47_500, "peer": 300}, args.rounds)
        keep(FILE, "searchlight", {"rows": rows, **agreement})
    stored = {
        part: own["results"]
        for part, own in json.loads((RESULTS / f"{FILE}.json").read_text()).items()
    }
    print(alignment.table(stored["alignment"]), end="\n\n")
    found = stored["searchlight"]
    print(searchlight.table(found["rows"], found))


if __name__ == "__main__":
    main()
