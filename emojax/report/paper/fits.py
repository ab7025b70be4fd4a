"""Voxels, alignment, decoder and folds of a run's headline, in sentences."""

from collections.abc import Mapping
from typing import Any

from emojax import alignment
from emojax.report import texts
from emojax.report.outcomes import NETWORK
from emojax.report.paper.references import Citations
from emojax.report.paper.words import Metrics, count, is_leaky, listed, sentences, setting, span
from emojax.scoring import bag
from emojax.scoring.baselines import BAG

AUTO = "auto"
LAYERS = ("filters", "window", "dense", "dropout", "conv_activation", "depth", "width")
LAYERS += ("head_features",)
NORM = ("batch_norm", "norm_layers", "norm_momentum")


def features(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns what a classifier sees of a volume, and what that was fitted to."""
    if keep := setting(metrics, "voxels.keep"):
        parts = _voxels(metrics, arm, keep), _aligned(metrics, arm, cite)
        scaled = "Features were standardised by mean and sd of the training volumes."
        every = ""
        if setting(metrics, "voxels.classical") == "all":
            every = "The classical classifiers, but not the bag, saw every voxel of that mask, "
            every += "standardised likewise."
        return sentences(*parts, scaled, every)
    if scale := setting(metrics, "scale"):
        means = {
            "voxel": "Each voxel was standardised by its mean and sd over the training volumes",
            "global": "All voxels were standardised by one mean and sd of the training volumes",
            "none": "Values were not scaled",
        }
        text = f"Each volume is one sample, of all voxels. {means.get(scale, scale)}."
        pad = setting(metrics, "pad", 0)
        return text + (f" Shorter axes were filled up to {pad} voxels." if pad else "")
    return ""


def _voxels(metrics, arm, keep: int) -> str:
    unit = setting(metrics, "units", "subject")
    if setting(metrics, "voxels.own", False):
        whom = f"each {unit}'s own volumes and labels; of a scored {unit}, its other runs alone"
    elif "voxels" in arm["leaks"]:
        whom = f"volumes and labels of all {unit}s, the scored ones among them"
    else:
        whom = f"volumes and labels of the training {unit}s"
    centred = f", centred within {unit}" if setting(metrics, "voxels.centre") else ""
    where = "Of each fit" if is_leaky(arm) else "In each fold"
    return (
        f"{where}, the {keep} voxels with the largest one-way F scores between the classes entered "
        f"(from {whom}{centred})."
    )


def _aligned(metrics, arm, cite) -> str:
    if not arm["regime"]:
        return ""
    regime, options = alignment.REGIMES[arm["regime"]], setting(metrics, "align", {}) or {}
    leaks = "alignment" in arm["leaks"]
    if not (regime.needs_template or leaks):
        return _unaligned(arm)
    unit = setting(metrics, "units", "subject")
    whom = f"all {unit}s, the scored ones among them," if leaks else f"the training {unit}s"
    rows = "the means of each class in each run"
    if options.get("match") == "time":
        rows = "volumes at the same time of the same run"
    levels = options.get("level2_iters")
    told = [] if levels is None else [f"{count(levels, 'iteration')} of level 2"]
    told += ["scaling"] if options.get("scaling") else []
    told += ["reflections"] if options.get("reflection") else []
    text = (
        f"Hyperalignment {cite('haxby2011')} by orthogonal Procrustes rotations "
        f"{cite('schonemann1966')} brought {whom} into a common space ({', '.join(told)}); rows "
        f"that correspond are {rows}."
    )
    if options.get("alpha", 1) < 1:
        text += f" It was regularised {cite('xu2012')} with alpha {options['alpha']:g}."
    if not leaks:
        text += f" {_entry(arm['regime'], unit, options.get('match'))}"
    return sentences(text, _isc(arm))


def _unaligned(arm) -> str:
    centred = any(row["step"] == "centring" for row in arm["seen"])
    return "Nothing was aligned" + (
        "; voxels had the mean of the participant's other runs removed." if centred else "."
    )


def _entry(regime: str, unit: str, match: str | None) -> str:
    """Returns how what is scored came into the common space."""
    rows = "with their labels" if match == "class" else "without their labels, matched in time"
    said = {
        "independent_runs": f"A scored {unit} has a rotation of its own for each scored run, "
        f"fitted to its other runs {rows}; the scored run was not seen.",
        "piecewise": f"A scored {unit} has a map of its own in each parcel, for each scored run, "
        f"fitted to its other runs {rows}; the scored run was not seen.",
        "group": f"One rotation for all {unit}s was fitted to the training {unit}s; nothing of a "
        f"scored {unit} was seen.",
        "transductive": f"A scored {unit} has a rotation of its own, fitted to all its runs "
        f"{rows}: the scored volumes were seen.",
    }
    return said.get(regime) or f"A scored {unit}: {alignment.REGIMES[regime].text}"


def _isc(arm) -> str:
    pairs = [fold["isc"] for fold in arm["folds"] if None not in fold.get("isc", (None,))]
    if not pairs:
        return ""
    before, after = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return (
        "A voxel's mean correlation with the mean of the other training subjects is "
        f"{before:.3f} before and {after:.3f} after it."
    )


def decoder(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns the decoder of an arm and how it was trained."""
    classifier, _ = texts.first(arm)
    if classifier == NETWORK:
        return sentences(_network(metrics, arm, cite), _training(metrics, arm, cite))
    if classifier == BAG:
        return _bag(metrics, arm, cite)
    if classifier == AUTO:
        return _auto(metrics, arm, cite)
    return _classical(metrics, classifier, cite) if classifier else ""


def beside(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns the network and the classical classifiers that stand beside the headline."""
    parts, (classifier, _) = [], texts.first(arm)
    others = (a for a in texts.real(metrics) if a["summary"]["network"] and not is_leaky(a))
    if classifier not in (NETWORK, AUTO) and (other := next(others, None)):
        network = _network(metrics, other, cite, f"Beside it, {other['name']}")
        parts += [network, _training(metrics, other, cite), _kept(other)]
        parts.append("They are of whom is held back in turn: neither trained on nor scored.")
    names = [
        name
        for other in texts.with_classical(metrics)
        for name in other["summary"]["baselines"]
        if name != other.get("decoder")
    ]
    if names := [name for name in dict.fromkeys(names) if name != classifier]:
        which = f"classifier{'s' * (len(names) > 1)} ({', '.join(names)})"
        packages = ["scikit-learn"] + ["xgboost"] * any("XGB" in name for name in names)
        cited = listed([f"{name} {cite(name)}" for name in packages])
        parts.append(
            f"The classical {which} of {cited} had fixed settings, which metrics.json lists as "
            "baseline_settings."
        )
    return sentences(*parts)


def _network(metrics, arm, cite, subject: str = "The decoder") -> str:
    model = setting(metrics, "model", {}) or {}
    layers = LAYERS + NORM * bool(model.get("batch_norm"))
    told = [f"{key} {_plain(model[key])}" for key in layers if model.get(key)]
    published = model.get("name", "cnn1d") in ("cnn1d", "resnet3d")
    works = [cite("tchibozo2022")] * published
    if model.get("name") == "resnet3d":
        works.append(f"pre-activation residual blocks {cite('he2016')}")
    if model.get("batch_norm"):
        works.append(f"batch normalisation {cite('ioffe2015')}")
    said = f": {'; '.join(told)}" if told else ""
    inside = f" ({', '.join(works)}{said})" if works or said else ""
    text = f"{subject} is a network, {metrics['network']}{inside.replace('(: ', '(')}."
    if setting(metrics, "train.members", False):
        text += " One network was trained for each other subject that is held back in turn; their "
        text += "probabilities were averaged."
    many = max((len(fold["instances"]) for fold in arm["folds"]), default=0)
    drawn = "bootstraps of its training volumes" if arm["split"] else "other initial weights"
    return text + (f" Each fold has {many} of them, from {drawn}." if many > 1 else "")


def _plain(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _training(metrics, arm, cite) -> str:
    train = setting(metrics, "train", {}) or {}
    if "lr" not in train:
        return ""
    done = [fold["epochs"] for fold in arm["folds"] if fold.get("epochs")]
    epochs = max([train["epochs"], *done] if train.get("least_steps") else [train["epochs"]])
    text = (
        f"It was trained by Adam {cite('kingma2015')} (rate {train['lr']:g}, batches of "
        f"{train['batch_size']}, {train['penalty'].upper()} penalty {train['penalty_factor']:g}) "
        f"for at most {count(epochs, 'epoch')}"
    )
    plateau = train.get("plateau") or {}
    if plateau:
        text += (
            f"; the rate was multiplied by {plateau['factor']:g} after {plateau['patience']} "
            "epochs without a better monitored loss"
        )
    if train.get("draws") == "classes":
        text += ". Its batches are draws with equally likely classes"
    elif rows := setting(metrics, "balance"):
        unit = setting(metrics, "units", "subject")
        text += f". Its rows are a bootstrap of {rows} volumes of each class and {unit}"
    elif setting(metrics, "oversample", False):
        text += ". Volumes of rarer classes were drawn again up to the commonest"
    return f"{text}."


def _bag(metrics, arm, cite) -> str:
    found = [fold["baselines"][BAG].get("members") for fold in arm["folds"]]
    chosen = [entry for entry in found if entry]
    least = setting(metrics, "members", 0)
    unit = setting(metrics, "units", "subject")
    many = count(len(chosen[0]["C"]), "logistic regression") if chosen else "logistic regressions"
    grid = ", ".join(f"{value:g}" for value in bag.PENALTIES)
    text = (
        f"The decoder is a bag of {many} in each fold. Every member holds another {unit} back and "
        f"trains on the rest, with voxels, template and scaler of these alone and classes of equal "
        f"weight; the held-back {unit} chooses C (of {grid}) and one temperature "
        f"{cite('guo2017', 'platt1999')} by its class-balanced negative log-likelihood. The "
        "members' probabilities were averaged."
    )
    if chosen:
        values = [value for entry in chosen for value in entry["C"]]
        scales = [value for entry in chosen for value in entry["temperature"]]
        text += f" Chosen: C of {span(values)}, temperatures of {span(scales, '.2f')}."
    elif least:
        text += f" At most {least} {unit}s are held back in turn."
    return text


def _auto(metrics, arm, cite) -> str:
    """Returns how bag or network is chosen, and both."""
    chosen = [fold["chosen"]["chosen"] for fold in arm["folds"] if fold.get("chosen")]
    many = listed([f"{name} in {chosen.count(name)}" for name in sorted({*chosen})])
    inner = setting(metrics, "inner", 0)
    bags = (a for a in metrics["arms"] if a.get("decoder") == BAG)
    networks = (a for a in metrics["arms"] if a["summary"]["network"] and not is_leaky(a))
    return sentences(
        "The decoder of each fold is a bag or a network, whichever had the better balanced "
        f"accuracy in {inner or 'all'} inner folds without the scored participant ({many} folds).",
        *(_bag(metrics, other, cite) for other in [next(bags, None)] if other),
        *(decoder(metrics, other, cite) for other in [next(networks, None)] if other),
    )


def _classical(metrics, name: str, cite) -> str:
    settings = dict((metrics.get("baseline_settings") or {}).get(name) or {})
    kind = settings.pop("class", "")
    told = ", ".join(f"{key} {_plain(value)}" for key, value in settings.items())
    said = f" ({kind}{f': {told}' if told else ''})" if kind else ""
    source = "xgboost" if kind.startswith("XGB") else "scikit-learn"
    return f"The decoder is {name}{said}, of {source} {cite(source)}; nothing of it was tuned."


def folds(metrics: Metrics, arm: Mapping[str, Any]) -> str:
    """Returns who trained, who was monitored and who was scored."""
    found = arm["folds"]
    if not found:
        return ""
    if is_leaky(arm):
        return _leaky(arm)
    unit = setting(metrics, "units", "subject")
    if arm["split"]:
        how = "one split that keeps" if len(found) == 1 else f"{len(found)} folds that keep"
        text = (
            f"Accuracy is of {how} whole {arm['unit']}s together ({arm['split']}): what is scored "
            f"shares no {arm['unit']} with what trains or is monitored."
        )
    else:
        text = f"Accuracy is by leave-one-{unit}-out cross-validation, {count(len(found), 'fold')}."
    train, monitor, test = zip(*(fold["sizes"] for fold in found), strict=True)
    sizes = [f"{span(train)} train", f"{span(test)} are scored"]
    if any(monitor):
        sizes.insert(1, f"{span(monitor)} are monitored")
    text += f" Of the volumes of a fold, {listed(sizes)}; no volume is in two of these parts."
    if any(monitor) and texts.first(arm)[0] == NETWORK:
        text += f" {_kept(arm)}"
    return text


def _kept(arm) -> str:
    if arm["pick"] == "last":
        return "The monitored volumes set its learning rate; the last epoch is scored."
    epochs = [fold["epoch"] for fold in arm["folds"] if fold["epoch"] is not None]
    kept = f" (kept: {span(epochs)})" if epochs else ""
    return f"The monitored volumes chose the epoch{kept} and set the learning rate."


def _leaky(arm) -> str:
    steps = listed(arm["leaks"]) or "some steps"
    return (
        f"{arm['name']} is leaky by name: its {steps} saw labels of the scored volumes, or of "
        "their neighbours in time. Its scores are no estimate of the accuracy on new data."
    )


def protocol(metrics: Metrics, arm: Mapping[str, Any]) -> str:
    """Returns the class of the headline's protocol, and what was seen of whom it is scored on."""
    if is_leaky(arm):
        return ""
    text = f"The protocol is {arm['protocol']}: {texts.PROTOCOLS[arm['protocol']]}"
    steps = [f"{row['step']} ({what})" for row in arm["seen"] if (what := texts.whom(row))]
    if steps:
        text += f" By the record of the reads, in the first fold: {'; '.join(steps)}."
    return text
