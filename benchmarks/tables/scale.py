"""Tables of what large studies need: arithmetic on stored rates, see docs/scale.md."""

from benchmarks.tables.stored import Part, Stored, significant, source, table

VOLUMES = 400  # labelled volumes a subject
VOXELS, MASKED, CHOSEN = 64 * 64 * 44, 40_000, 300
SUBJECTS = (11, 1_000, 10_000)
KINDS = {  # form of a volume -> its bytes
    "int16, whole (scans, and emojax's store)": 2 * VOXELS,
    "float32, whole": 4 * VOXELS,
    "float32, in the mask (what Experiment A holds in memory)": 4 * MASKED,
    "int8, in the mask, a mean and a step for each voxel and run": MASKED,
    "float32, 300 chosen voxels (what the CNN sees)": 4 * CHOSEN,
}
FED = {"int8 in the mask": MASKED, "int16 whole": 2 * VOXELS, "float32 whole": 4 * VOXELS}
RATES = (5_000, 20_000)  # volumes a second that a GPU may take; assumed, see the page
EPOCHS, GPUS, FOLDS = 1_250, 8, 10
ROWS = 3 * 200  # balanced rows a subject
BATCH = 64
UNITS = ((86_400 * 365.25, "years"), (86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))
LEAST = {"years": 1.0, "days": 3, "h": 1.0, "min": 1.5, "s": 0}  # of a unit, to be used


def scale_bytes(stored: Stored) -> list[str]:
    """Returns the size of a volume and of studies in several forms."""
    rows = [
        [name, f"{size:,}", *(amount(size * VOLUMES * n) for n in SUBJECTS)]
        for name, size in KINDS.items()
    ]
    head = ["a volume as", "bytes", *(f"{n:,} subjects" for n in SUBJECTS)]
    return [*table(head, rows), "", f"*Arithmetic: {VOLUMES} volumes a subject.*"]


def scale_feed(stored: Stored) -> list[str]:
    """Returns the bytes a second that keep a GPU busy."""
    rows = [[name, *(f"{amount(size * rate)}/s" for rate in RATES)] for name, size in FED.items()]
    head = ["to keep it busy", *(f"at {rate:,} volumes a second" for rate in RATES)]
    return [*table(head, rows), "", "*Arithmetic on assumed rates.*"]


def scale_epochs(stored: Stored) -> list[str]:
    """Returns the time of an epoch and of a whole training of Experiment B."""
    part = stored.part("resnet3d_cpu", "resnet3d")
    step = part.results[0]["step_4_ms"] / 1e3
    volumes = [n * VOLUMES for n in SUBJECTS[1:]]
    gpu = [[n / rate for rate in reversed(RATES)] for n in volumes]
    cpu = [n * step / 4 for n in volumes]
    rows = [
        [
            f"one GPU, at {RATES[0]:,} to {RATES[1]:,} a second",
            *(f"{span(*own)}; {span(*(EPOCHS * s for s in own))}" for own in gpu),
        ],
        [
            f"eight GPUs, {EPOCHS:,} epochs",
            *(span(*(EPOCHS * s / GPUS for s in own)) for own in gpu),
        ],
        [
            f"two cores (4 volumes in {step:.2f} s)",
            *(f"{span(s)}; {span(EPOCHS * s)}" for s in cpu),
        ],
    ]
    head = [f"one epoch; the paper's {EPOCHS:,}"]
    head += [f"{n:,} subjects ({v:,} volumes)" for n, v in zip(SUBJECTS[1:], volumes, strict=True)]
    return table(head, rows) + source("GPUs: arithmetic on assumed rates", part)


def scale_features(stored: Stored) -> list[str]:
    """Returns the time and memory of features and folds of Experiment A."""
    fit, memory, values = rates(stored)
    fits = [n * fit for n in SUBJECTS[1:]]
    scores = [n * VOLUMES * MASKED / values for n in SUBJECTS[1:]]
    both = [sum(own) for own in zip(fits, scores, strict=True)]
    pairs = list(zip(SUBJECTS[1:], both, strict=True))
    rows = [
        [
            "one fit of the common space",
            *(f"{span(s)}, {amount(n * memory)}" for n, s in zip(SUBJECTS[1:], fits, strict=True)),
        ],
        [f"F-scores of one fold, {MASKED:,} voxels, rows in memory", *map(span, scores)],
        [
            "both, leaving one subject out: a fit for every subject",
            *(span(n * s) for n, s in pairs),
        ],
        [f"both, in {FOLDS} folds", *(span(FOLDS * s) for _, s in pairs)],
        [
            f"balanced rows of a training (200 of each of 3 classes and subject), steps of {BATCH}",
            *(f"{n * ROWS:,}; {n * ROWS // BATCH:,} an epoch" for n in SUBJECTS[1:]),
        ],
    ]
    head = ["", *(f"{n:,} subjects" for n in SUBJECTS[1:])]
    parts = _subjects(stored), stored.part("core_cpu", "anova")
    return table(head, rows) + source("extrapolated from 176 subjects and 4,000 rows", *parts)


def rates(stored: Stored) -> tuple[float, float, float]:
    """Returns seconds and bytes of a fit for each subject, and values a second of F-scores."""
    most = _subjects(stored).results[-1]
    count = most["shape"][0]
    anova = next(
        row
        for row in stored.part("core_cpu", "anova").results
        if row["tool"] == "emojax f_scores (NumPy array)" and row["shape"] == [4_000, 50_000]
    )
    memory = (most["peak_mib"] - most["before_mib"]) * 2**20 / count
    rows, voxels = anova["shape"]
    return most["seconds"] / count, memory, rows * voxels / anova["seconds"]


def _subjects(stored: Stored) -> Part:
    return stored.part("core_cpu", "subjects")


def amount(size: float) -> str:
    """Returns bytes in MB, GB or TB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit or name == "MB" or (size >= 0.1 * unit and name == "GB"):
            return f"{significant(size / unit, 3 if size >= 100 * unit else 2)} {name}"
    raise AssertionError("MB is the last unit")


def span(*seconds: float) -> str:
    """Returns one duration, or the range between two, in the unit that fits the longer one."""
    size, name = next((s, name) for s, name in UNITS if max(seconds) >= LEAST[name] * s)
    return f"{' to '.join(significant(own / size, 2) for own in seconds)} {name}"
