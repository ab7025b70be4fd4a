"""Sentences on the scores of a run and their statistics."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from emojax.report import designs, floors, gains, permutations, texts
from emojax.report.outcomes import NETWORK
from emojax.report.paper.references import Citations
from emojax.report.paper.words import (
    Metrics,
    is_leaky,
    listed,
    name_of,
    network_tests,
    score,
    sentences,
    setting,
)
from emojax.report.plain import plain

LEDOIT_WOLF = "LDA-shrinkage"  # in `within_subject`, with Ledoit-Wolf shrinkage


def headline(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences on the headline's score, the kind of its interval, and the other rows."""
    classifier, summary = texts.first(arm)
    if not classifier:
        return ""
    found = summary["balanced_accuracy"]
    text = (
        f"Balanced accuracy {cite('brodersen2010')} of {name_of(arm)} is {found['mean']:.3f} "
        f"({_inside(arm, found)}; chance {metrics['chance']:.3f}; accuracy "
        f"{summary['accuracy']['mean']:.3f})."
    )
    return sentences(text, _interval(arm, cite), _others(metrics, arm))


def _inside(arm, found) -> str:
    limits = texts.interval(found)
    many = len(arm["folds"])
    inside = [f"95 % interval {limits}"] if limits else []
    inside += [f"sd {found['sd']:.3f} over {many} folds"] if many > 1 else []
    return "; ".join(inside) or "one fold"


def _interval(arm, cite) -> str:
    shared = "the variation from another draw of the training data"
    if arm["split"]:
        return (
            f"Intervals describe new {arm['unit']}s (jackknife over those that were tested, with "
            f"Student's t {cite('mackinnon2023')}); they do not include {shared}."
        )
    return (
        "Intervals are Student's t over folds. Folds share training data, so they are not "
        f"independent, and the intervals are approximate {cite('nadeau2003')}; they do not include "
        f"{shared}."
    )


def _others(metrics, head) -> str:
    """Returns a sentence on the other networks and decoders; leaky ones are named as such."""
    strict, leaky = [], []
    for arm in texts.real(metrics):
        classifier, summary = texts.first(arm)
        if arm is head or not classifier or arm["factor"] is not None:
            continue
        text = f"{name_of(arm)} {summary['balanced_accuracy']['mean']:.3f}"
        (leaky if is_leaky(arm) else strict).append(text)
    text = f"Other decoders: {'; '.join(strict)}." if strict else ""
    if leaky:
        text += f" Declared leaky, for comparison only: {'; '.join(leaky)}."
    return text.strip()


def floor(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns a sentence on the headline's noise floor."""
    classifier, _ = texts.first(arm)
    entry, noise = floors.of(metrics, arm, classifier), texts.floor(metrics, arm)
    parts = [f"{classifier} {floors.words(entry)}"] if entry else []
    if noise and texts.first(noise)[0]:
        parts.append(f"{name_of(noise)} {score(texts.first(noise)[1]['balanced_accuracy'])}")
    if not parts:
        return ""
    return (
        "The noise floor is the score of the whole procedure on the same data with random phases, "
        f"common to all voxels {cite('prichard1994')} (rows that are not points in time are "
        f"shuffled instead): {'; '.join(parts)}."
    )


def permutation(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns a sentence on the permutation test of the headline."""
    found = metrics.get("permutation")
    if not found:
        return ""
    null = np.array(found["null"])
    low, high = np.quantile(null, (0.025, 0.975))
    return (
        f"{permutations.name_of(metrics)} was compared with chance by a permutation test "
        f"{cite('ojala2010')}: the whole pipeline was fitted again for each of {len(null)} "
        f"permutations of the labels ({found['scheme']}; {found['blocks']} "
        f"{found['scheme'].split()[0]}). Observed {found['observed']:.3f}, null "
        f"{null.mean():.3f} (95 % of it from {low:.3f} to {high:.3f}), "
        f"p = {permutations.number(found['p'])}."
    )


def compared(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences that compare the network with other rows, and with its linear path."""
    tests = network_tests(metrics)
    parts = [f"{name} {test['difference']:+.3f}{_p(test)}" for name, test in tests.items()]
    if not parts:
        return gains.sentence(metrics)
    units = "groups" if arm["split"] else "folds"
    text = (
        f"Balanced accuracy of the network minus that of other decoders: {'; '.join(parts)} "
        f"(sign-flip tests over {units}, corrected by Holm's method {cite('holm1979')})."
    )
    return sentences(text, gains.sentence(metrics))


def _p(test) -> str:
    p = test.get("p_holm")
    return "" if p is None else f" (p {permutations.number(p)})"


def crossed(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences on the accuracy on new subjects and new levels of a design column."""
    parts = []
    for factor, found in (metrics.get("crossed") or {}).items():
        for classifier, entry in found.items() if "left out" not in found else ():
            text = f"{classifier}, new levels of {factor}: {score(entry)}"
            text += f", known levels {entry['leaving_subjects_out']['mean']:.3f}"
            if entry.get("null"):
                text += f", null {entry['null']['mean']:.3f} (sd {entry['null']['sd']:.3f}), "
                text += f"p = {permutations.number(entry['p'])}"
            parts.append(text)
    if not parts:
        return ""
    return (
        "In the crossed evaluation, training rows share neither subject nor level with the scored "
        f"rows. {'. '.join(parts)}."
    )


def within(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns a sentence on decoders trained on the test subject's other runs."""
    found = metrics.get("within_subject") or {}
    parts = []
    for classifier, entry in found.items():
        kind = f"{classifier} {cite('ledoit2004')}" if classifier == LEDOIT_WOLF else classifier
        text = f"{kind} {score(entry)}"
        if gain := entry.get("minus_cross_subject"):
            limits = f" ({texts.interval(gain)})" if gain.get("ci95") else ""
            text += f", {gain['difference']:+.3f}{limits} relative to logistic regression trained "
            text += "on the other subjects"
        parts.append(text)
    if not parts:
        return ""
    return f"Trained on the test subject's other runs alone: {'; '.join(parts)}."


def design(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences on the labels that are known from the design alone."""
    found, parts = metrics.get("design") or {}, []
    if lookup := found.get("lookup"):
        parts.append(
            f"the other subjects' label at the same position of the same run is right in "
            f"{lookup['accuracy']:.3f} of the volumes (commonest label {lookup['chance']:.3f})"
        )
    for name, entry in (found.get("nuisance") or {}).items():
        if name != "columns":
            parts.append(f"{name} on nuisance columns reaches {score(entry)}")
    text = f"Without any image: {'; '.join(parts)}." if parts else ""
    columns = "; ".join(f"{name} {said}" for name, said in factors(metrics).items())
    return sentences(text, f"Columns of the design: {columns}." if columns else "")


def factors(metrics: Metrics) -> dict[str, str]:
    """Returns how well each design column predicts the label, and how well it is decoded."""
    out = {}
    for name, entry in (metrics.get("design") or {}).items():
        if name not in designs.NAMES and entry.get("decodes_label") is not None:
            out[name] = f"predicts the label ({entry['decodes_label']:.3f})"
            if entry.get("decoded_by_data") is not None:
                out[name] += f" and is decoded from the data ({entry['decoded_by_data']:.3f})"
    return out


def probabilities(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences on the scores of the headline's probabilities."""
    _, summary = texts.first(arm)
    if "nll" not in summary:
        return ""
    nll = summary["nll"]["mean"]
    text = f"Negative log-likelihood is {nll:.3f} nats"
    if before := summary.get("uncalibrated"):
        text += (
            f" with one temperature, fitted to the monitored volumes "
            f"{cite('guo2017', 'platt1999')} (mean {before['temperature']['mean']:.2f}), and "
            f"{before['nll']['mean']:.3f} without it"
        )
    if "base_rate_nll" in summary:
        text += "; the class shares of the training volumes alone give "
        text += f"{summary['base_rate_nll']['mean']:.3f}"
    text += f". Brier score {summary['brier']['mean']:.3f}, expected calibration error "
    text += f"{summary['ece']['mean']:.3f} (15 bins)."
    if block := summary.get("block_accuracy"):
        text += f" With known block borders, accuracy over blocks is {block['mean']:.3f}."
    return text


def by_group(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns a sentence on the headline's score in each group of subjects."""
    classifier, parts = texts.first(arm)[0], []
    for name, entry in (metrics.get("groups") or {}).items():
        found = entry["network"] if classifier == NETWORK else entry["baselines"].get(classifier)
        if found:
            shown = f"{name or 'no group'} {score(found['balanced_accuracy'])}"
            parts.append(f"{shown}, {entry['tested']} tested")
    return f"By group: {'; '.join(parts)}." if parts else ""


def instances(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns a sentence on the spread of networks of one fold over random numbers."""
    found = spread(arm)
    if not found:
        return ""
    means, sd = found["means"], found["sd"]
    return (
        f"Over {len(means)} networks per fold, which differ in their random numbers"
        f"{' and bootstrap' if arm['split'] else ''}, the mean over folds has sd {sd:.3f} "
        f"({min(means):.3f} to {max(means):.3f})."
    )


def spread(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Returns "means", balanced accuracy of each instance over folds, and their "sd"; or {}."""
    rows = [[row["balanced_accuracy"] for row in fold["instances"]] for fold in arm["folds"]]
    if not rows or len(rows[0]) < 2:
        return {}
    means = np.mean(rows, axis=0)
    return {"means": plain(means), "sd": float(means.std(ddof=1))}


def software(metrics: Metrics, arm: Mapping[str, Any], cite: Citations) -> str:
    """Returns sentences on the software and its versions; unused packages are not cited."""
    versions = metrics.get("versions") or {}
    trained = any(a["summary"]["network"] for a in metrics["arms"])
    cited = {"jax": "jax", "numpy": "numpy", "scikit-learn": "scikit-learn"}
    cited |= {"flax": "flax"} if trained else {}
    boosted = any("XGB" in name for a in metrics["arms"] for name in a["summary"]["baselines"])
    if boosted:
        cited |= dict.fromkeys(("xgboost", "xgboost-cpu"), "xgboost")
    nilearn = "abraham2014" in cite.keys
    cited |= {"nilearn": "abraham2014"} if nilearn else {}
    left_out = set() if trained else {"flax", "optax"}
    left_out |= set() if nilearn else {"nilearn"}
    left_out |= set() if boosted else {"xgboost", "xgboost-cpu"}
    parts = [
        f"{name} {version}" + (f" {cite(cited[name])}" if name in cited else "")
        for name, version in versions.items()
        if name not in left_out
    ]
    if not parts:
        return ""
    seed = setting(metrics, "seed")
    said = f" All random numbers derive from seed {seed}." if seed is not None else ""
    return f"Analyses were run with {listed(parts)} (device: {metrics['device']}).{said}"
