"""Cost of verifying a store: hashing, and opening scans with and without it.

    python -m benchmarks.hashing             # about 2 minutes and 4 GB of disk under --folder

- hashing: GB/s of sha256 over decoded scans in the page cache, by one thread and by one per core.
- open: seconds of `Store.images` on --runs runs of 64 x 64 x 44 x 200 int16 that are in the store,
  with and without the hashes of their content, in turns; and once into an empty store.
"""

import json
import os
import pathlib
import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.io import make_study
from benchmarks.record import keep, make_parser
from emojax.data import hashes
from emojax.data.store import Store


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def hashing(files, rounds):
    size = sum(file.stat().st_size for file in files) / 1e9
    found = {}
    for threads in (1, len(os.sched_getaffinity(0))):
        with ThreadPoolExecutor(threads) as pool:
            times = [
                seconds(lambda p=pool: list(p.map(hashes.sha256, files))) for _ in range(rounds)
            ]
        found[f"gb_per_s_{threads}"] = size / statistics.median(times)
    return {"gb": size, **found}


def opening(sources, folder, first, rounds):
    pairs = [
        (seconds(Store(folder).images, sources), seconds(trusting(folder).images, sources))
        for _ in range(rounds)
    ]
    verified, trusted = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "runs": len(sources),
        "first_s": first,
        "second_s": verified,
        "second_without_hashes_s": trusted,
        "rounds": pairs,
    }


def trusting(folder):
    """Returns a store that counts its files as verified."""
    store = Store(folder)
    store._kept._verified.update(folder.glob("*.nii"))
    return store


def main():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--folder", default="/tmp/emojax-hashing", help="scratch, removed at the end"
    )
    parser.add_argument("--runs", type=int, default=22, help="22 at most")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    folder = pathlib.Path(given.folder)
    if folder.exists():
        parser.error(f"{folder} exists; want a folder that can be removed")
    try:
        sources = sorted(make_study(folder / "study").glob("sub-*/func/*.nii.gz"))[: given.runs]
        first = seconds(Store(folder / "store").images, sources)
        parts = {
            "hashing": hashing(sorted((folder / "store").glob("*.nii")), given.rounds),
            "open": opening(sources, folder / "store", first, given.rounds),
        }
        for name, results in parts.items():
            keep("hashing_cpu", name, results)
            print(name, json.dumps(results))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
