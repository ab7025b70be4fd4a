"""Sentences on the participants, exclusions, labels and preprocessing of a run."""

from collections.abc import Mapping

from emojax.report.paper.references import Citations
from emojax.report.paper.words import Metrics, count, head, listed, sentences, setting

CHOSEN = ("subjects", "runs", "sessions", "task", "space", "entities")  # keys of `config.data`
CONFOUNDS = {"motion24": "friston1996", "compcor": "behzadi2007", "compcor5": "behzadi2007"}
PARTS = ("shared", "nonlinear")  # optional parts of the simulated response
VECTORS = ("arrays", "lab")  # sources without brain masks


def participants(metrics: Metrics, cite: Citations) -> str:
    """Returns sentences on the participants, and on excluded data."""
    data = metrics["data"]
    simulated = "simulated " if setting(metrics, "data.source") == "synthetic" else ""
    rows = data.get("counts") or []
    per_class = {name: _total(rows, name) for name in metrics["classes"]}
    text = f"The data comprise {data['subjects']} {simulated}subjects and "
    text += f"{count(data['runs'], 'run')}"
    if "volumes" in data:
        text += f" with {data['volumes']} labelled volumes"
    if rows:
        text += f" ({listed([f'{number} {name}' for name, number in per_class.items()])})"
    return sentences(
        f"{text}.",
        _scan(data),
        _groups(metrics),
        _null(metrics),
        _chosen(metrics),
        _unused(rows),
        _events(metrics),
        *(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in metrics.get("notes") or ()),
    )


def _total(rows, name: str) -> int:
    """Returns the number of volumes of a class, see `Cohort.counts`."""
    column = f"class {name}" if name in ("subject", "run", "volumes", "unused") else name
    return sum(row.get(column, 0) for row in rows)


def _scan(data) -> str:
    parts = []
    if len(shape := data.get("shape") or ()) > 1:
        parts.append(f"volumes of {' x '.join(map(str, shape))} voxels")
    if data.get("tr"):
        parts.append(f"TR {data['tr']:g} s")
    return f"Scans have {listed(parts)}." if parts else ""


def _groups(metrics) -> str:
    groups = metrics.get("groups") or {}
    parts = [f"{entry['subjects']} {name or 'without a group'}" for name, entry in groups.items()]
    return f"Groups of subjects: {listed(parts)}." if parts else ""


def _null(metrics) -> str:
    if not setting(metrics, "null", False):
        return ""
    return "All values were replaced by noise: this run measures the procedure's noise floor."


def _chosen(metrics) -> str:
    keys = [f"{key} {value}" for key in CHOSEN if (value := setting(metrics, f"data.{key}"))]
    return f"The analysis was restricted to {'; '.join(keys)}." if keys else ""


def _unused(rows) -> str:
    unused = sum(row.get("unused", 0) for row in rows)
    return f"{unused} other volumes have no label and were not used." if unused else ""


def _events(metrics) -> str:
    rows = [row for row in metrics.get("events") or () if row["name"]]
    if not rows:
        return ""
    total = {key: sum(row[key] for row in rows) for key in ("events", "unlabelled", "behind")}
    total |= {key: sum(row[key] for row in rows) for key in ("unknown", "dropped")}
    lost = {
        "unlabelled": "labelled no volume",
        "behind": "began after the end of the scan",
        "unknown": "had no known duration",
    }
    parts = [f"{total[key]} {text}" for key, text in lost.items() if total[key]]
    text = f"Of {total['events']} events of these classes, {listed(parts) or 'none was lost'}."
    if total["dropped"]:
        text += f" {total['dropped']} volumes in events of two classes were dropped."
    return text


def labels(metrics: Metrics, cite: Citations) -> str:
    """Returns sentences on the data source, and on how volumes were labelled."""
    source = setting(metrics, "data.source", "")
    said = {"synthetic": _synthetic, "bids": _bids, "spm": _spm, "maps": _maps}
    first = said[source](metrics, cite) if source in said else _other(metrics, source)
    mapped = setting(metrics, "data.label_map", "")
    dropped = setting(metrics, "data.drop_first", 0)
    return sentences(
        first,
        f"Values of the label column were mapped to classes by “{mapped}”." if mapped else "",
        f"The first {dropped} volumes of every run were not used." if dropped else "",
    )


def _synthetic(metrics, cite) -> str:
    about = setting(metrics, "data.synthetic", {}) or {}
    text = "The data are simulated: nobody was scanned"
    if about:
        order = (
            "the same order of events for all subjects" if about.get("order") == "shared" else ""
        )
        told = [f"design {about.get('design')} of {cite('tchibozo2022')}", order]
        told += [f"response {about['signal']:g} times the default"] if "signal" in about else []
        told += [f"{key} part of {about[key]:g}" for key in PARTS if about.get(key)]
        text += f" ({', '.join(filter(None, told))}; seed {about.get('seed', 0)})"
    return f"{text}."


def _events_rule(metrics) -> str:
    """Returns the rule by which a volume gets the label of an event."""
    delay = setting(metrics, "data.hrf_delay_s", 0.0)
    share = setting(metrics, "data.min_overlap", 0.5)
    text = f"at least {share:.0%} of its acquisition lay inside the event"
    if delay:
        text += f", shifted by {delay:g} s to allow for the haemodynamic response"
    if fixed := setting(metrics, "data.event_duration_s", 0.0):
        text += f"; events without a duration were given {fixed:g} s"
    return text


def _bids(metrics, cite) -> str:
    column = setting(metrics, "data.label_column", "trial_type")
    return (
        f"Data were read from a BIDS data set {cite('gorgolewski2016')}. A volume was labelled "
        f"with an event (column {column} of events.tsv) if {_events_rule(metrics)}."
    )


def _spm(metrics, cite) -> str:
    table = setting(metrics, "data.labels", "")
    images = setting(metrics, "data.images", "")
    return (
        f"Images were read from SPM folders (images {images}), labels from {table or 'a table'}. "
        f"With onsets, a volume was labelled with an event if {_events_rule(metrics)}."
    )


def _maps(metrics, cite) -> str:
    column = setting(metrics, "data.label_column", "")
    table = setting(metrics, "data.table", "")
    return (
        f"The volumes are maps, one for each row of {table or 'a table'}; column {column} is the "
        "label. They are not points in time."
    )


def _other(metrics, source: str) -> str:
    named = {"arrays": "arrays of values", "lab": "vectors that were aligned before"}
    if not source:
        return ""
    return f"Volumes and labels were read as {named.get(source, f'source {source} gave them')}."


def preprocessing(metrics: Metrics, cite: Citations) -> str:
    """Returns sentences on the cleaning of runs by emojax, and on the brain mask."""
    data = setting(metrics, "data", {}) or {}
    return sentences(_cleaning(data, cite), _mask(metrics, data, cite))


def _cleaning(data: Mapping, cite: Citations) -> str:
    removed = []
    if data.get("detrend"):
        removed.append(f"polynomials up to degree {data['detrend']}")
    if data.get("high_pass_hz"):
        removed.append(f"cosines slower than {data['high_pass_hz']:g} Hz")
    if data.get("motion"):
        removed.append("the six realignment parameters")
    if names := data.get("confounds"):
        cited = [CONFOUNDS[name] for name in names.split(",") if name in CONFOUNDS]
        works = cite("esteban2019", "abraham2014", *dict.fromkeys(cited))
        removed.append(f"fMRIPrep's confounds {names}, as selected by nilearn {works}")
    steps = []
    if width := data.get("smooth_mm"):
        steps.append(
            f"volumes were smoothed with a Gaussian of {width:g} mm (full width at half maximum)"
        )
    if removed:
        steps.append(f"{listed(removed)} were removed in one regression {cite('lindquist2019')}")
    scaled = [
        name for key, name in (("centre", "centred"), ("zscore", "z-scored")) if data.get(key)
    ]
    if scaled:
        steps.append(f"voxels were {listed(scaled)}")
    if limit := data.get("scrub_fd_mm"):
        steps.append(
            f"volumes with a framewise displacement above {limit:g} mm "
            f"{cite('power2012')} were left out"
        )
    if online := data.get("online"):
        steps.append(
            f"each volume was corrected with the volumes before it alone ({online}), as a decoder "
            "does at the scanner"
        )
    if not steps:
        return "emojax did no cleaning: no smoothing, filter, confound regression or detrending."
    text = f"Within each run, {listed(steps)}."
    if removed or scaled:
        text += " This used all volumes of the run, including the scored ones, but no labels."
    return text


def _mask(metrics, data, cite) -> str:
    if given := data.get("mask"):
        return f"Only voxels inside {given} were used."
    options = setting(metrics, "mask")
    arms = head(metrics)
    if not options or data.get("source") in VECTORS or not arms or arms["split"]:
        return ""
    return (
        "Each subject's brain mask came with the data, or was computed from the mean volume by the "
        f"rule of nilearn's compute_epi_mask {cite('abraham2014')} (lower quantile "
        f"{options['lower']:g}, upper {options['upper']:g}, opening {options['opening']})."
    )
    if setting(metrics, "voxels.own", False):
        return text
    return f"{text} Only voxels inside the masks of all training subjects were candidates."
