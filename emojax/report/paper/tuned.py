"""The table of choices that a run makes from data, and the data on which it makes them."""

from collections.abc import Iterator, Mapping
from typing import Any

from emojax.report import tables, texts
from emojax.report.cells import Table
from emojax.report.outcomes import NETWORK
from emojax.report.paper.words import Metrics, count, listed, setting, span
from emojax.scoring.bag import PENALTIES
from emojax.scoring.baselines import BAG

Arm = Mapping[str, Any]
NOTE = (
    "Chosen on: from the record of reads in the first fold. All other settings were fixed by the "
    "config before any data were read, and are the same for all folds; docs/settings.md says where "
    "their values come from, and whether test accuracies were known when they were set."
)


def table(metrics: Metrics) -> Table:
    """Returns the table, with one row per choice of each arm."""
    lines = []
    for arm in texts.real(metrics):
        if arm["folds"]:
            lines += [[arm["name"], *cells] for cells in _of(metrics, arm)]
    header = ["arm", "what", "chosen", "by", "chosen on"]
    return Table("What was tuned on what", header, lines, _note(metrics))


def _note(metrics: Metrics) -> str:
    words = str(metrics.get("command") or "").split()
    keys = [word.lstrip("-'").partition("=")[0] for word in words if "--config." in word]
    keys = [key.partition("config.")[2] for key in keys]
    typed = [key for key in dict.fromkeys(keys) if not key.startswith("data.")]
    return NOTE + (f" Set on the command line of this run: {', '.join(typed)}." if typed else "")


def _of(metrics: Metrics, arm: Arm) -> Iterator[list[str]]:
    """Yields the cells of each choice of an arm: what, chosen, by, chosen on."""
    classifier, _ = texts.first(arm)
    if (keep := setting(metrics, "voxels.keep")) and not arm["shares"]:
        yield ["voxels", f"the best {keep}", "ANOVA F of the classes", _whom(arm, "voxels")]
    if arm["factor"] is not None:
        chosen = "chosen" if arm["name"] == metrics["chosen_arm"] else "not chosen"
        yield ["penalty", chosen, "monitored accuracy of the arms", _whom(arm, "epoch choice")]
    if classifier == NETWORK:
        yield from _network(metrics, arm)
    elif classifier == BAG:
        yield from _bag(arm)
    elif classifier:
        chosen = [fold["chosen"]["chosen"] for fold in arm["folds"] if fold.get("chosen")]
        if chosen:
            parts = [f"{name} in {count(chosen.count(name), 'fold')}" for name in sorted({*chosen})]
            yield [
                "decoder",
                listed(parts),
                "accuracy in inner folds",
                "subjects other than the test subject",
            ]
        else:
            yield [f"settings of {classifier}", "fixed", "", "no data"]
    fixed = [name for name in arm["summary"]["baselines"] if name not in (classifier, BAG)]
    if fixed:
        shown = f"settings of {count(len(fixed), 'classical classifier')}"
        yield [shown, "fixed", "", "no data"]


def _network(metrics: Metrics, arm: Arm) -> Iterator[list[str]]:
    whom, train = _whom(arm, "epoch choice"), setting(metrics, "train", {}) or {}
    epochs = [row["epoch"] for fold in arm["folds"] for row in fold["instances"] or [fold]]
    kept = [epoch for epoch in epochs if epoch is not None]
    chosen = [fold["chosen"]["chosen"] for fold in arm["folds"] if fold.get("chosen")]
    if chosen:
        names = [(name, count(chosen.count(name), "fold")) for name in sorted({*chosen})]
        text = listed([f"{name.removeprefix(arm['name'] + ': ')} in {n}" for name, n in names])
        by = f"monitored {train.get('best_by', 'accuracy')}, in each fold"
        yield ["settings", text, by, _whom(arm, "setting choice")]
    if arm["pick"] == "last":
        yield ["epoch", "the last", "", "no data"]
    else:
        chosen = span(kept) if kept else "each member's own"
        yield ["epoch", chosen, f"monitored {train.get('best_by', 'accuracy')}", whom]
    plateau = train.get("plateau")
    if plateau and not arm["shares"]:
        falls = (
            f"times {plateau['factor']:g} after {plateau['patience']} epochs without a lower loss"
        )
        yield ["learning rate", f"from {train['lr']:g}, {falls}", "monitored loss", whom]
    rows = [row for fold in arm["folds"] for row in fold["instances"] or [fold["network"] or {}]]
    values = [before["temperature"] for row in rows if (before := row.get("uncalibrated"))]
    if values:
        yield ["temperature", span(values, ".2f"), "monitored loss", whom]


def _bag(arm: Arm) -> Iterator[list[str]]:
    whom = _whom(arm, "epoch choice")
    chosen = [fold["baselines"][BAG].get("members") for fold in arm["folds"]]
    for what, key, form in (
        ("C of each member", "C", "g"),
        ("temperature of each member", "temperature", ".2f"),
    ):
        values = [value for entry in chosen if entry for value in entry[key]]
        shown = span(values, form) if values else f"in {span(PENALTIES)}" if key == "C" else ""
        yield [what, shown, "loss on the held-back subject or run", whom]


def _whom(arm: Arm, step: str) -> str:
    """Returns the volumes that a step has seen, according to the record."""
    row = next((row for row in arm["seen"] if row["step"] == step), None)
    if row is None:
        return "not recorded"
    if said := texts.whom(row):
        mark = "LEAK: " if tables.kind(arm, row) == "LEAK" else ""
        return f"{mark}{row['values']} volumes, including {said}"
    subjects = row["subjects"] or []
    if 0 < len(subjects) <= 3:
        noun = "subject" if len(subjects) == 1 else "subjects"
        return f"{row['values']} volumes of {noun} {listed(subjects)}"
    return f"{row['values']} volumes of {len(subjects)} subjects, none of them scored"
