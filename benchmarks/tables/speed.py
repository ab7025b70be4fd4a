"""Tables of time: networks beside their peers, first volumes, the watcher of a folder, data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.tables.stored import OURS, Part, Stored, release, significant, source, spread, table

PAPER_MS = {"cnn1d": 1.29, "resnet3d": 1.38}  # per volume of a batch, its GPU (arXiv 2210.17015)
STAGES = {  # of the latency table
    "device": "device",
    "host": "host",
    "file": "file",
    "checks": "the guards alone",
    "level": "host, gain and offset corrected",
    "motion": "host, motion too",
}
NETWORKS = {"linear": "linear", "cnn1d": "1D CNN", "resnet3d": "ResNet-50"}


def cnn1d(stored: Stored) -> list[str]:
    """Returns training step and forward pass of the 1D CNN beside its peers."""
    columns = {
        "train_step_ms": "training step, batch 64",
        "forward_600_ms": "forward, 600 vectors",
    }
    return _beside_peers(stored.part("cnn1d_cpu", "cnn1d"), "1D CNN, ms", columns)


def resnet3d(stored: Stored) -> list[str]:
    """Returns forward pass and training step of the ResNet-50 beside its peers."""
    columns = {
        "forward_1_ms": "forward, 1 volume",
        "forward_8_ms": "forward, 8",
        "step_4_ms": "training step, 4",
    }
    part = stored.part("resnet3d_cpu", "resnet3d")
    return _beside_peers(part, "3D ResNet-50, 64 x 64 x 44, ms", columns)


def _beside_peers(part: Part, head: str, columns: dict[str, str]) -> list[str]:
    rows, rounds = [], {}
    for row in part.results:
        jax = release(row.get("jax", part.environment["versions"]["jax"]))
        name = f"{OURS}, jax {jax}" if row["tool"].startswith(OURS) else row["tool"]
        cells = [f"{significant(row[c])} ({row[f'{c}_over_{OURS}']:.2f} x)" for c in columns]
        rows.append([name, *cells])
        rounds[name] = [[own[column] for own in row["rounds"]] for column in columns]
    return table([head, *columns.values()], rows) + source(spread(rounds), part)


def latency(stored: Stored) -> list[str]:
    """Returns the time from one volume, or a batch, to its probabilities."""
    part = stored.part("latency_cpu", "latency")
    return stages(part.results) + source(_calls(part.results, lambda tool: tool == OURS), part)


def stages(found: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the table of `latency`, from its rows as measured."""
    rows = []
    for row in found:
        if row["tool"] == OURS and row["stage"] != "cold":
            cells = [_network(row), STAGES.get(row["stage"], row["stage"]), str(row["batch"])]
            cells += [significant(row[p]) if p in row else "" for p in ("p50", "p95", "p99")]
            rows.append([*cells, significant(1e6 / row["us_per_volume"])])
    for network, ms in PAPER_MS.items():
        cells = ["a batch on the paper's GPU, as it states", "", str(ms), "", ""]
        rows.append([network, *cells, significant(1e3 / ms)])
    return table(["network", "from", "batch", "p50 ms", "p95 ms", "p99 ms", "volumes/s"], rows)


def latency_peers(stored: Stored) -> list[str]:
    """Returns the time of compiled networks on arrays in memory, beside their peers."""
    part = stored.part("latency_cpu", "latency")
    return peers(part.results) + source(_calls(part.results, lambda tool: tool != OURS), part)


def peers(found: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the table of `latency_peers`, from its rows as measured."""
    device = [row for row in found if row["stage"] == "device"]
    ours = {(row["network"], row["batch"]): row for row in device if row["tool"] == OURS}
    rows = []
    for row in device:
        own = ours.get((row["network"], row["batch"]))
        if row["tool"] != OURS and own is not None:
            cells = [significant(ms) for ms in (row["p50"], row["p99"], own["p50"])]
            cells.append(f"{significant(row['p50'] / own['p50'])} x")
            rows.append([row["network"], str(row["batch"]), row["tool"], *cells])
    head = ["network", "batch", "peer", "p50 ms", "p99 ms", "emojax p50 ms", "peer / emojax"]
    return table(head, rows)


def _network(row: dict[str, Any]) -> str:
    return row["network"] + (", bfloat16" if row["dtype"] == "bfloat16" else "")


def _calls(rows: Sequence[dict[str, Any]], chosen: Callable[[str], bool]) -> str:
    calls = [row["calls"] for row in rows if "calls" in row and chosen(row["tool"])]
    return f"percentiles of {min(calls):,} to {max(calls):,} single calls a row"


def realtime(stored: Stored) -> list[str]:
    """Returns percentiles from the closed file to the record sent."""
    part = stored.part("realtime_cpu", "rows")
    return watched(part.results) + source("one run of each row", part)


def watched(results: Mapping[str, Any]) -> list[str]:
    """Returns the table of `realtime`, from its results as measured."""
    rows = []
    for name, own in results.items():
        ms = own["closed_to_sent"]
        cells = [f"{ms[column]:.1f}" for column in ("p50", "p95", "p99", "max")]
        rows.append([name, *cells, f"{own['lost']} of {own['volumes']}"])
    return table(["closed file to record sent, ms", "p50", "p95", "p99", "maximum", "lost"], rows)


def realtime_day(stored: Stored) -> list[str]:
    """Returns what a day of volumes took, as a sentence."""
    part = stored.part("realtime_cpu", "day")
    return [day(part.results), *source("one run", part)]


def day(results: Mapping[str, Any]) -> str:
    """Returns the sentence of `realtime_day`, from its results as measured."""
    ((_, own),) = results.items()
    ms, files = own["closed_to_sent"], own["open_files"]
    return (
        f"A day of volumes ({own['volumes']:,}: 24 hours at a TR of 2 s) at 60 Hz: "
        f"{own['lost']} lost, {own['rss_growth_mb']:g} MB more memory, {files[0]} open files at "
        f"the start and {files[1]} at the end, p50 {ms['p50']:.1f} ms, p99 {ms['p99']:.1f} ms."
    )


def io(stored: Stored) -> list[str]:
    """Returns the speed of reading data."""
    decode, again, labels = (
        stored.part("io_cpu", name) for name in ("decode", "second_load", "labels")
    )
    seconds, memory = again.results["second_s"], again.results["resident_mb"]
    volumes, runs = again.results["volumes"], labels.results["runs"]
    rows = [
        [
            ".nii.gz runs of 64 x 64 x 44 x 200 into the store, 2 cores",
            f"{decode.results['speed_over_gzip']:.2f} x the speed of `gzip -dc` on 2 cores",
        ],
        [
            f"second load of {volumes:,} volumes",
            f"{seconds:.2f} s, {memory:.0f} MB resident",
        ],
        [
            f"labels of {runs:,} runs from their events.tsv",
            f"{labels.results['seconds']:.2f} s",
        ],
    ]
    ratios = [[theirs / ours for theirs, ours in decode.results["rounds"]]]
    said = f"first row: {spread({'store': ratios})}"
    return table(["reading data", ""], rows) + source(said, decode, again, labels)


def startup(stored: Stored) -> list[str]:
    """Returns the time to load a decoder and to decode its first volume, by release of jax."""
    parts = stored.newest_first("startup_cpu", "decode, jax")
    rows = []
    for network, name in NETWORKS.items():
        found = [_started(part, network, "warm") for part in parts]
        rows.append([name, *(f"{1e3 * r['load']:.0f} + {1e3 * r['first']:.0f}" for r in found)])
    head = ["load + first volume, ms", *(f"jax {part.jax}" for part in parts)]
    return table(head, rows) + source(_processes(parts), *parts)


def first_volume(stored: Stored) -> list[str]:
    """Returns the time of a decoder's first volumes, with its program kept and without."""
    parts = stored.newest_first("startup_cpu", "decode, jax")
    rows = []
    for network in NETWORKS:
        for part in parts if network == "resnet3d" else parts[:1]:
            cold, warm = (_started(part, network, cache) for cache in ("cold", "warm"))
            never = network == "resnet3d" and part.environment["convolutions"] == "onednn"
            kept = f"{1e3 * warm['first']:.0f}{' (never kept)' if never else ''}"
            ms = [f"{1e3 * cold['first']:.0f}", significant(1e3 * warm["next"], 2)]
            name = f"{network}, jax {part.jax}" if network == "resnet3d" else network
            rows.append([name, f"{1e3 * warm['load']:.0f}", kept, *ms])
    head = ["ms", "open the bundle", "first volume, program kept"]
    head += ["first volume on this machine", "later ones"]
    return table(head, rows) + source(_processes(parts), *parts)


def _started(part: Part, network: str, cache: str) -> dict[str, Any]:
    return next(r for r in part.results if (r["network"], r["cache"]) == (network, cache))


def _processes(parts: Sequence[Part]) -> str:
    rounds = {
        f"jax {part.jax}": [
            row["rounds"][name]
            for row in part.results
            if "rounds" in row
            for name in ("load", "first")
        ]
        for part in parts
    }
    said = spread(rounds) if all(rounds.values()) else "medians of 3 rounds"
    return f"a new process each; with programs kept, {said}"
