"""Tables of convolutions and of the parts of a training step."""

from typing import Any

from benchmarks.tables.stored import Stored, short, significant, source, table

WAYS = {"forward, batch 1": ("forward", 1), "forward, batch 8": ("forward", 8)}
WAYS |= {"dX, batch 4": ("dX", 4), "dW, batch 4": ("dW", 4)}
PARTS = {  # rows of the step's table: start of a part's name -> words
    "dense1": "large dense layer: forward and both gradients",
    "Adam": "Adam's memory traffic",
    "random numbers": "random bits of dropout",
    "composition": "composing the convolutions, with the gradient",
}


def onednn(stored: Stored) -> list[str]:
    """Returns the ResNet-50 with oneDNN's convolutions beside planes."""
    part = stored.part("onednn_cpu", "resnet3d")
    found = {(row["what"], row["batch"], row["variant"]): row for row in part.results}
    rows = []
    for (what, batch, variant), row in found.items():
        planes = found.get((what, batch, variant.replace("onednn", "planes")))
        if variant.startswith("onednn") and planes is not None:
            short_type = ", bfloat16" if "bfloat16" in variant else ""
            cells = [significant(planes["ms"]), significant(row["ms"])]
            ratio = short(row["ms"] / planes["ms"], 2)
            if not short_type:  # rounds are ratios to planes in float32
                low, high = row["over_planes_spread"]
                ratio = f"{short(row['over_planes'], 2)} ({short(low, 2)} - {short(high, 2)})"
            rows.append([f"{what} of {batch}{short_type}", *cells, ratio])
    head = ["ms", "by planes", "with oneDNN", "oneDNN / planes (range of rounds)"]
    return table(head, rows) + source("medians of rounds in turns, in one process", part)


def onednn_layers(stored: Stored) -> list[str]:
    """Returns the time of single convolutions with oneDNN, divided by that of planes."""
    part = stored.part("onednn_cpu", "layers")
    found: dict[str, dict[tuple[str, int], float]] = {}
    for row in part.results:
        if row["variant"] == "onednn":
            name, _, way = row["what"].rpartition(", ")
            found.setdefault(name, {})[way, row["batch"]] = row["over_planes"]
    rows = [
        [name, *(short(own[way], 2) if way in own else "" for way in WAYS.values())]
        for name, own in found.items()
    ]
    return table(["oneDNN / planes", *WAYS], rows) + source("medians of rounds in turns", part)


def roofline_step(stored: Stored) -> list[str]:
    """Returns the floor of a training step of the 1D CNN by part, and the step."""
    part = stored.part("roofline_cpu", "step of the 1D CNN")
    found: dict[str, Any] = part.results
    sums = dict.fromkeys([*PARTS.values(), "other products"], 0.0)
    for row in found["rows"]:
        words = (own for start, own in PARTS.items() if row["part"].startswith(start))
        sums[next(words, "other products")] += row["floor_ms"]
    rows = [[name, f"{ms:.1f}"] for name, ms in sums.items()]
    rows.append(["floor: their sum", f"{found['floor_ms']:.1f}"])
    rows.append(
        [f"the step, {found['times_floor']:.2f} times the floor", f"{found['step_ms']:.1f}"]
    )
    return table(["part of a step of the 1D CNN", "ms"], rows) + source("medians of calls", part)
