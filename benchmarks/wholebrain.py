"""Piecewise alignment and searchlights of whole brains, beside peers in one run.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.wholebrain            # about a quarter of an hour
    python -m benchmarks.wholebrain --print    # the stored tables

See `benchmarks.wholebrain_alignment` and `benchmarks.wholebrain_searchlight` for the comparisons.
"""

from benchmarks import wholebrain_alignment as alignment
from benchmarks import wholebrain_searchlight as searchlight
from benchmarks.record import keep, make_parser
from benchmarks.tables import core as tables
from benchmarks.tables.stored import Stored

FILE = "wholebrain_cpu"


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="print the stored tables alone")
    args = parser.parse_args()
    if not args.print:
        keep(FILE, "alignment", alignment.compare(alignment.SHAPE, args.rounds))
        rows, agreement = searchlight.compare({"centres": 47_500, "peer": 300}, args.rounds)
        keep(FILE, "searchlight", {"rows": rows, **agreement})
    for table in (tables.speed_alignment, tables.speed_searchlight):
        print("\n".join(table(Stored())), end="\n\n")


if __name__ == "__main__":
    main()
