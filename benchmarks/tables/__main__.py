"""Writes the numbers of README.md and docs/ from benchmarks/results.

python -m benchmarks.tables            # rewrites generated tables and sentences
python -m benchmarks.tables --check    # changes nothing; exit code 1 if a number differs
python -m benchmarks.tables --print latency cnn1d
"""

from benchmarks.record import make_parser
from benchmarks.tables import pages
from benchmarks.tables.stored import Stored


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if stale")
    parser.add_argument("--print", nargs="+", choices=pages.TABLES, metavar="NAME")
    args = parser.parse_args()
    stored = Stored()
    for name in args.print or ():
        print("\n".join(pages.TABLES[name](stored)), end="\n\n")
    if args.print:
        return 0
    found = list(pages.outdated(stored))
    for path, text, changed in found:
        print(
            f"{path.relative_to(pages.ROOT)}: {'differs' if args.check else 'rewritten'}: "
            f"{', '.join(changed)}"
        )
        if not args.check:
            path.write_text(text)
    return int(args.check and bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
