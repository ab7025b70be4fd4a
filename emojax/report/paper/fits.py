"""Sentences on the voxels, alignment, decoder and folds of a run's headline."""

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
    """Returns sentences on the features of a volume, and on the data they were fitted to."""
    if keep := setting(metrics, "voxels.keep"):
        parts = _voxels(metrics, arm, keep), _aligned(metrics, arm, cite)
        scaled = "Features were standardised by mean and sd of the training volumes."
        every = ""
        if setting(metrics, "voxels.classical") == "all":
            every = "The classical classifiers, but not the bag, saw all voxels of the mask, "
            every += "standardised in the same way."
        return sentences(*parts, scaled, every)
    if scale := setting(metrics, "scale"):
        means = {
            "voxel": "Each voxel was standardised by its mean and sd over the training volumes",
            "global": "All voxels were standardised by one mean and sd of the training volumes",
            "none": "Values were not scaled",
        }
        text = f"Each volume, with all its voxels, is one sample. {means.get(scale, scale)}."
        pad = setting(metrics, "pad", 0)
        return text + (f" Shorter axes were padded to {pad} voxels." if pad else "")
    return ""


def _voxels(metrics, arm, keep: int) -> str:
    unit = setting(metrics, "units", "subject")
    if setting(metrics, "voxels.own", False):
        whom = f"each {unit}'s own volumes and labels; for a test {unit}, its other runs only"
    elif "voxels" in arm["leaks"]:
        whom = f"volumes and labels of all {unit}s, including the test {unit}"
    else:
        whom = f"volumes and labels of the training {unit}s"
    centred = f", centred within {unit}" if setting(metrics, "voxels.centre") else ""
    where = "For each fit" if is_leaky(arm) else "In each fold"
    return (
        f"{where}, the {keep} voxels with the largest one-way ANOVA F of the classes were selected "
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
    whom = f"all {unit}s, including the test {unit}," if leaks else f"the training {unit}s"
    rows = "the means of each class in each run"
    if options.get("match") == "time":
        rows = "volumes at the same time of the same run"
    levels = options.get("level2_iters")
    told = [] if levels is None else [f"{count(levels, 'iteration')} of level 2"]
    told += ["with scaling"] if options.get("scaling") else []
    told += ["with reflections"] if options.get("reflection") else []
    text = (
        f"Hyperalignment {cite('haxby2011')} by orthogonal Procrustes rotations "
        f"{cite('schonemann1966')} brought {whom} into a common space ({', '.join(told)}); "
        f"corresponding rows are {rows}."
    )
    if options.get("alpha", 1) < 1:
        text += f" It was regularised {cite('xu2012')} with alpha {options['alpha']:g}."
    if not leaks:
        text += f" {_entry(arm['regime'], unit, options.get('match'))}"
    return sentences(text, _isc(arm))


def _unaligned(arm) -> str:
    centred = any(row["step"] == "centring" for row in arm["seen"])
    return "Nothing was aligned" + (
        "; the mean of the subject's other runs was removed from each voxel." if centred else "."
    )


def _entry(regime: str, unit: str, match: str | None) -> str:
    """Returns how the scored volumes were mapped into the common space."""
    rows = "with their labels" if match == "class" else "without their labels, matched in time"
    said = {
        "independent_runs": f"A test {unit} has its own rotation for each scored run, "
        f"fitted to its other runs {rows}; the scored run was not seen.",
        "piecewise": f"A test {unit} has its own map in each parcel, for each scored run, "
        f"fitted to its other runs {rows}; the scored run was not seen.",
        "group": f"One rotation for all {unit}s was fitted to the training {unit}s; nothing of a "
        f"test {unit} was seen.",
        "transductive": f"A test {unit} has its own rotation, fitted to all its runs "
        f"{rows}: the scored volumes were seen.",
    }
    return said.get(regime) or f"A test {unit}: {alignment.REGIMES[regime].text}"


def _isc(arm) -> str:
    pairs = [fold["isc"] for fold in arm["folds"] if None not in fold.get("isc", (None,))]
    if not pairs:
        return ""
    before, after = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return (
        "The mean correlation of a voxel with the mean of the other training subjects is "
        f"{before:.3f} before and {after:.3f} after alignment."
    )


def decoder(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences on the decoder of an arm and its training."""
    classifier, _ = texts.first(arm)
    if classifier == NETWORK:
        return sentences(_network(metrics, arm, cite), _training(metrics, arm, cite))
    if classifier == BAG:
        return _bag(metrics, arm, cite)
    if classifier == AUTO:
        return _auto(metrics, arm, cite)
    return _classical(metrics, classifier, cite) if classifier else ""


def beside(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences on the network and the classical classifiers beside the headline."""
    parts, (classifier, _) = [], texts.first(arm)
    others = (a for a in texts.real(metrics) if a["summary"]["network"] and not is_leaky(a))
    if classifier not in (NETWORK, AUTO) and (other := next(others, None)):
        network = _network(metrics, other, cite, f"For comparison, {other['name']}")
        parts += [network, _training(metrics, other, cite), _kept(other)]
        unit = setting(metrics, "units", "subject")
        said = f"Monitored volumes are those of a held-back {unit}, neither trained on nor scored."
        parts.append(said)
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
            f"The classical {which} from {cited} had fixed settings (baseline_settings in "
            "metrics.json)."
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
        text += " Each training subject was held back once, with one network each; their "
        text += "probabilities were averaged."
    many = max((len(fold["instances"]) for fold in arm["folds"]), default=0)
    drawn = "bootstraps of its training volumes" if arm["split"] else "different initial weights"
    return text + (f" Each fold has {many} such networks, from {drawn}." if many > 1 else "")


def _plain(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _training(metrics, arm, cite) -> str:
    train = setting(metrics, "train", {}) or {}
    if "lr" not in train:
        return ""
    done = [fold["epochs"] for fold in arm["folds"] if fold.get("epochs")]
    epochs = max([train["epochs"], *done] if train.get("least_steps") else [train["epochs"]])
    text = (
        f"It was trained with Adam {cite('kingma2015')} (learning rate {train['lr']:g}, batches of "
        f"{train['batch_size']}, {train['penalty'].upper()} penalty {train['penalty_factor']:g}) "
        f"for at most {count(epochs, 'epoch')}"
    )
    plateau = train.get("plateau") or {}
    if plateau:
        text += (
            f"; the learning rate was multiplied by {plateau['factor']:g} after "
            f"{plateau['patience']} epochs without a lower monitored loss"
        )
    if train.get("draws") == "classes":
        text += ". Batches were drawn with equally likely classes"
    elif rows := setting(metrics, "balance"):
        unit = setting(metrics, "units", "subject")
        text += f". Its training rows are a bootstrap of {rows} volumes of each class and {unit}"
    elif setting(metrics, "oversample", False):
        text += ". Rarer classes were oversampled to the size of the commonest"
    return f"{text}."


def _bag(metrics, arm, cite) -> str:
    found = [fold["baselines"][BAG].get("members") for fold in arm["folds"]]
    chosen = [entry for entry in found if entry]
    least = setting(metrics, "members", 0)
    unit = setting(metrics, "units", "subject")
    many = count(len(chosen[0]["C"]), "logistic regression") if chosen else "logistic regressions"
    grid = ", ".join(f"{value:g}" for value in bag.PENALTIES)
    text = (
        f"The decoder is a bag of {many} in each fold. Every member holds back another {unit} and "
        "trains on the rest, with voxels, template and scaler fitted to these alone and with "
        f"equally weighted classes. Its C (one of {grid}) and temperature "
        f"{cite('guo2017', 'platt1999')} minimise the class-balanced negative log-likelihood of "
        f"the held-back {unit}. The members' probabilities were averaged."
    )
    if chosen:
        values = [value for entry in chosen for value in entry["C"]]
        scales = [value for entry in chosen for value in entry["temperature"]]
        text += f" Chosen: C of {span(values)}, temperatures of {span(scales, '.2f')}."
    elif least:
        text += f" At most {least} {unit}s are held back in turn."
    return text


def _auto(metrics, arm, cite) -> str:
    """Returns sentences on the choice between bag and network, and on both."""
    chosen = [fold["chosen"]["chosen"] for fold in arm["folds"] if fold.get("chosen")]
    many = listed([f"{name} in {chosen.count(name)}" for name in sorted({*chosen})])
    inner = setting(metrics, "inner", 0)
    bags = (a for a in metrics["arms"] if a.get("decoder") == BAG)
    networks = (a for a in metrics["arms"] if a["summary"]["network"] and not is_leaky(a))
    return sentences(
        "The decoder of each fold is a bag or a network, whichever had the better balanced "
        f"accuracy in {inner or 'all'} inner folds without the test subject ({many} folds).",
        *(_bag(metrics, other, cite) for other in [next(bags, None)] if other),
        *(decoder(metrics, other, cite) for other in [next(networks, None)] if other),
    )


def _classical(metrics, name: str, cite) -> str:
    settings = dict((metrics.get("baseline_settings") or {}).get(name) or {})
    kind = settings.pop("class", "")
    told = ", ".join(f"{key} {_plain(value)}" for key, value in settings.items())
    said = f" ({kind}{f': {told}' if told else ''})" if kind else ""
    source = "xgboost" if kind.startswith("XGB") else "scikit-learn"
    return f"The decoder is {name}{said} from {source} {cite(source)}; its settings were fixed."


def folds(metrics: Metrics, arm: Mapping[str, Any]) -> str:
    """Returns sentences on the cross-validation and the sizes of its parts."""
    found = arm["folds"]
    if not found:
        return ""
    if is_leaky(arm):
        return _leaky(arm)
    unit = setting(metrics, "units", "subject")
    if arm["split"]:
        how = "one split that keeps" if len(found) == 1 else f"{len(found)} folds that keep"
        text = (
            f"Accuracy was estimated with {how} {arm['unit']}s whole ({arm['split']}): scored "
            f"volumes share no {arm['unit']} with training or monitored volumes."
        )
    else:
        text = (
            f"Accuracy was estimated by leave-one-{unit}-out cross-validation "
            f"({count(len(found), 'fold')})."
        )
    train, monitor, test = zip(*(fold["sizes"] for fold in found), strict=True)
    sizes = [f"{span(train)} training", f"{span(test)} scored volumes"]
    if any(monitor):
        sizes.insert(1, f"{span(monitor)} monitored")
    text += f" A fold has {listed(sizes)}; these parts do not overlap."
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
        f"{arm['name']} is declared leaky: its {steps} saw labels of the scored volumes, or of "
        "their neighbours in time. Its scores are no estimate of the accuracy on new data."
    )


def protocol(metrics: Metrics, arm: Mapping[str, Any]) -> str:
    """Returns sentences on the headline's protocol, and on what was seen of the test subject."""
    if is_leaky(arm):
        return ""
    text = f"The protocol is {arm['protocol']}: {texts.PROTOCOLS[arm['protocol']]}"
    steps = [f"{row['step']} ({what})" for row in arm["seen"] if (what := texts.whom(row))]
    if steps:
        text += f" According to the record of reads in the first fold: {'; '.join(steps)}."
    return text
