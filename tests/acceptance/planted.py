"""Leaks to be planted in the code, one at a time: the catalogue of `leaks.py`.

Each is a textual edit of a copy of emojax, the settings in which the edited line runs, and the step
that the refusal must name. Most leaks exist twice: through the ledger, where their own record gives
them away, and around it, where only the audit can see them.
"""

from typing import NamedTuple

A, B = "emojax/experiments/experiment_a.py", "emojax/experiments/experiment_b.py"
ACROSS, SPACE = "emojax/features/across_subjects.py", "emojax/features/common_space.py"
PARCELS = "emojax/features/parcels.py"
MASKED, KERNELS = "emojax/features/masked.py", "emojax/features/kernels.py"
ARMS, TRAININGS = "emojax/experiments/arms_a.py", "emojax/experiments/trainings.py"
BAG = "emojax/scoring/bag.py"
FITS, SKELETON = "emojax/experiments/fits.py", "emojax/experiments/skeleton.py"
SPLITS, BASELINES = "emojax/splits.py", "emojax/scoring/baselines.py"
EPOCH, OUTCOMES = "emojax/training/epoch.py", "emojax/report/outcomes.py"

SETTINGS = {  # name -> config and flags; one arm each, except "A full" and "B full"
    "A time": ("A", "protocols=nested", "align.regimes=independent_runs", "null_floor=False"),
    "A class": (
        "A",
        "protocols=nested",
        "align.regimes=independent_runs",
        "null_floor=False",
        "align.match=class",
        "voxels.own=True",
    ),
    "A bag": (
        "A",
        "protocols=nested",
        "align.regimes=independent_runs",
        "null_floor=False",
        "headline=bag",
    ),
    "A group": ("A", "protocols=nested", "align.regimes=group", "null_floor=False"),
    "A piecewise": (
        "A",
        "protocols=nested",
        "align.regimes=piecewise",
        "align.parcels=ward:4",
        "null_floor=False",
    ),
    "A piecewise, after": (
        "A",
        "protocols=nested",
        "align.regimes=piecewise",
        "align.parcels=kmeans:4",
        "voxels.after=True",
        "null_floor=False",
    ),
    "A none": ("A", "protocols=nested", "align.regimes=none", "null_floor=False"),
    "A transductive": ("A", "protocols=nested", "align.regimes=transductive", "null_floor=False"),
    "A paper": ("A", "protocols=paper", "null_floor=False"),
    "A floor": ("A", "protocols=nested", "align.regimes=independent_runs"),
    "A full": (
        "A",
        "align.regimes=independent_runs,group,transductive,none",
        "baselines=SVM-linear,SVM-RBF,RF,XGB,LDA,MLP,MLP-modern,logistic",
    ),
    "A full, class": ("A", "align.match=class", "voxels.own=True"),
    "B": ("B", "splits=by_subject", "null_floor=False"),
    "B run": ("B", "splits=by_run", "null_floor=False"),
    "B random": ("B", "splits=random", "null_floor=False"),
    "B raw": ("B", "splits=by_subject", "null_floor=False", "data.online="),
    "B full": (
        "B",
        "baselines=1-NN,SVM-linear hard,LDA-shrinkage,SVM-RBF,SVM-RBF unscaled,MLP,RF,XGB-voxels",
    ),
    "B blocks": ("B", "splits=by_block", "folds=3", "instances=2"),
}
COMMON = {
    "A": (
        "--config=configs/expA.py:demo",
        "voxels.keep=70",
        "balance=10",
        "baselines=LDA,logistic",
        "headline=network",
    ),
    "B": (
        "--config=configs/expB.py:demo",
        "model.depth=18",
        "model.width=8",
        "fractions=(0.5,0.25,0.25)",
        "folds=1",
        "baselines=1-NN,RF",
        "floor_baselines=1-NN",
    ),
}
ALL = (
    "data.progress=False",
    "data.synthetic.subjects=4",
    "data.synthetic.grid=(16,16,12)",
    "data.synthetic.volumes=60",
    *("permutations=0", "within_subject=False", "crossed=", "design=False"),
)


class Leak(NamedTuple):
    """One leak."""

    name: str
    about: str
    where: tuple[str, ...]  # names in `SETTINGS`
    step: str  # regular expression of the step that is named
    by: str  # the check that catches it: "record", "audit", "arm" or "guard"
    edits: tuple[tuple[str, str, str], ...]  # file, text that occurs once, text in its place


def leak(name, about, where, step, by, *edits):
    """Returns a leak; `where` is one name or several, joined by " + "."""
    return Leak(name, about, tuple(where.split(" + ")), step, by, edits)


# Pieces of planted code.
EVERY = "np.concatenate([fold.train, fold.test])"
PEEK = "ledger._cohort.labels"
SCORE = 'x, y = ledger.values("voxels", rows), ledger.labels("voxels", rows)'
SCORE_AROUND = (ACROSS, SCORE, f"x, y = ledger.scored(rows), {PEEK}[rows]")
TASK = "                    data.train[instance],\n                    data.monitor,\n"
TESTED = "np.concatenate([data.train[instance], data.fold.test])"
MASKS = '[ledger.mask("mask", name) for name in names]'
KIND = "    return kind(data.read, data.labels, rows, jnp.dtype(dtype), plan.program.mesh)"
HIDDEN_FEED = (  # a feed that knows test rows, too
    FITS,
    KIND,
    """    test, labels = data.fold.test, data.ledger._cohort.labels

    def read(rows):
        is_test = np.isin(rows, test)
        own = data.read(np.where(is_test, data.monitor[0], rows))
        if is_test.any():
            own[is_test] = data.read_test(rows[is_test])
        return own

    rows = np.concatenate([rows, test])
    return kind(read, labels, rows, jnp.dtype(dtype), plan.program.mesh)""",
)
TRANSFORM = "x[here] = transform(mapping, part.scored(here, columns))"
X_TRAIN = "parts = data.read(rows)[:, :beside], data.read_test(data.fold.test)[:, :beside]"
X_BOTH = (
    "own, test_x = data.read(rows), data.read_test(data.fold.test)"
    "\n        parts = np.concatenate([own, test_x]), test_x"
)
TEST_Y = "data.ledger._cohort.labels[data.fold.test]"
LEAVE = "made = splits.leave_one_out(data.units, monitor_test=arm.settings.on_test)"
MADE = "made = splits.make(key, cohort, arm.split, config.fractions, config.folds, strata=strata)"
READ_TEST_B = "lambda rows: scaling.apply_scale(scale, pad(read_test(rows))),\n        labels,"
SCALE_B = 'lambda rows: pad(ledger.values("scaler", rows)), fold.train, config.scale'
KEYS_A = "key = jax.random.fold_in(jax.random.key(config.seed), number)\n    with"
KEYS_B = "key = jax.random.key(config.seed)\n    rows = ["
UNITS_LEFT = "train = [rows[name] for name in names if name not in (test, monitor)]"
JOB_LOOP = "for job in experiment.baselines(config, data, arm.baselines):\n                places"

TEN = [
    leak(
        "M1 record A",
        "scaler fitted to training and test rows",
        "A time + A class + A group + A none",
        "scaler",
        "record",
        (ACROSS, 'features.values("scaler", fold.train)', f'features.values("scaler", {EVERY})'),
    ),
    leak(
        "M1 audit A",
        "the same around the ledger",
        "A time + A class + A group + A none",
        "scaler",
        "audit",
        (
            ACROSS,
            'pooled = features.values("scaler", fold.train)',
            'pooled = np.concatenate([features.values("scaler", fold.train), '
            "features.scored(fold.test)])",
        ),
    ),
    leak(
        "M1 record B",
        "scaler fitted to training and test rows",
        "B raw + B",
        "scaler",
        "record",
        (B, SCALE_B, SCALE_B.replace("fold.train", EVERY)),
    ),
    leak(
        "M1 audit B",
        "the same around the ledger",
        "B raw + B",
        "scaler",
        "audit",
        (B, SCALE_B, f"lambda rows: pad(ledger.scored(rows)), {EVERY}, config.scale"),
    ),
    leak(
        "M2 record A",
        "template fitted to everybody",
        "A time + A group + A class",
        "alignment",
        "record",
        (ACROSS, "names = tuple(team.rows) if leaks.alignment", "names = tuple(team.rows) if True"),
    ),
    leak(
        "M2 audit A",
        "the same around the ledger",
        "A time + A group",
        "alignment",
        "audit",
        (ACROSS, "names = tuple(team.rows) if leaks.alignment", "names = tuple(team.rows) if True"),
        (
            ACROSS,
            "ledger.values(step, team.rows[name], choose(ledger, name, None))",
            "ledger.scored(team.rows[name], choose(ledger, name, None))",
        ),
    ),
    leak(
        "M3 record A",
        "voxels chosen by everybody",
        "A time + A group + A none",
        "voxels",
        "record",
        (ACROSS, "fitted = tuple(team.rows) if leaks.voxels", "fitted = tuple(team.rows) if True"),
    ),
    leak(
        "M3 audit A",
        "the same around the ledger",
        "A time + A group + A none",
        "voxels",
        "audit",
        (ACROSS, "fitted = tuple(team.rows) if leaks.voxels", "fitted = tuple(team.rows) if True"),
        SCORE_AROUND,
    ),
    leak(
        "M4 record A",
        "own map fitted to the scored run, too",
        "A time + A class",
        "alignment",
        "record",
        (SPACE, "make_map(part, team, others, columns)", "make_map(part, team, rows, columns)"),
    ),
    leak(
        "M4 audit A",
        "the same around the ledger",
        "A time + A class",
        "alignment",
        "audit",
        (SPACE, "make_map(part, team, others, columns)", "make_map(part, team, rows, columns)"),
        (
            SPACE,
            'values = ledger.values("alignment", others, columns)',
            "values = ledger.scored(others, columns)",
        ),
        (SPACE, 'ledger.labels("alignment", rows[name])', f"{PEEK}[rows[name]]"),
    ),
    leak(
        "M5 record A",
        "own voxels chosen by the scored run, too",
        "A class",
        "voxels",
        "record",
        (ACROSS, "rows = rows[team.run[rows] != unseen_run]", "pass"),
    ),
    leak(
        "M5 audit A",
        "the same around the ledger",
        "A class",
        "voxels",
        "audit",
        (ACROSS, "rows = rows[team.run[rows] != unseen_run]", "pass"),
        SCORE_AROUND,
    ),
    leak(
        "M6 record A",
        "brain mask of all subjects",
        "A time + A group + A none",
        "mask",
        "record",
        (ACROSS, MASKS, MASKS.replace("names]", 'np.unique(ledger.design("units")).tolist()]')),
    ),
    leak(
        "M6 audit A",
        "the same around the ledger",
        "A time + A group + A none",
        "mask",
        "audit",
        (ACROSS, MASKS, "list(ledger._cohort.inside.values())"),
    ),
    leak(
        "M7 record A",
        "epoch chosen on the test rows",
        "A time + A class + A group",
        "epoch choice",
        "record",
        (A, LEAVE, "made = splits.leave_one_out(data.units, monitor_test=True)"),
    ),
    leak(
        "M7 record B",
        "epoch chosen on the test rows",
        "B + B run",
        "epoch choice",
        "record",
        (B, MADE, MADE.replace("made = ", "made = [f._replace(monitor=f.test) for f in ") + "]"),
    ),
    leak(
        "M7 guard",
        "monitored rows replaced in fits.py: the feed's reader was not granted them",
        "A time + B",
        "epoch choice",
        "guard",
        (FITS, TASK, TASK.replace("data.monitor", "data.fold.test")),
        (FITS, "[*data.train, data.monitor]", "[*data.train, data.monitor, data.fold.test]"),
    ),
    leak(
        "M7 audit",
        "the same with a reader and labels of their own",
        "A time + A class + A group + B",
        "network",
        "audit",
        (FITS, TASK, TASK.replace("data.monitor", "data.fold.test")),
        HIDDEN_FEED,
    ),
    leak(
        "M8 record A",
        "test rows in training",
        "A time + A class + A group",
        "network",
        "record",
        (
            A,
            LEAVE,
            LEAVE.replace(
                "made = ", "made = [f._replace(train=np.concatenate([f.train, f.test])) for f in "
            )
            + "]",
        ),
    ),
    leak(
        "M8 record B",
        "test rows in training",
        "B + B run",
        "network",
        "record",
        (
            B,
            MADE,
            MADE.replace(
                "made = ", "made = [f._replace(train=np.concatenate([f.train, f.test])) for f in "
            )
            + "]",
        ),
    ),
    leak(
        "M8 guard",
        "test rows in the feed of fits.py: its reader was not granted them",
        "A time + B",
        "network",
        "guard",
        (FITS, TASK, TASK.replace("data.train[instance]", TESTED)),
        (FITS, "[*data.train, data.monitor]", "[*data.train, data.monitor, data.fold.test]"),
    ),
    leak(
        "M8 audit",
        "the same with a reader and labels of their own",
        "A time + A class + A group + B",
        "network",
        "audit",
        (FITS, TASK, TASK.replace("data.train[instance]", TESTED)),
        HIDDEN_FEED,
    ),
    leak(
        "M9 record A",
        "each test run z-scored by itself",
        "A time + A class + A none",
        "scaler",
        "record",
        (
            SPACE,
            TRANSFORM,
            f"{TRANSFORM}\n"
            '            own = part.derive(x).values("scaler", here)\n'
            "            x[here] = (own - own.mean(0)) / (own.std(0) + 1e-6)",
        ),
    ),
    leak(
        "M9 audit A",
        "the same around the ledger",
        "A time + A class + A none",
        "scoring|scaler",
        "audit",
        (
            SPACE,
            TRANSFORM,
            f"{TRANSFORM}\n            x[here] -= x[here].mean(0)\n"
            "            x[here] /= x[here].std(0) + 1e-6",
        ),
    ),
    leak(
        "M9 record B",
        "test volumes scaled by themselves",
        "B raw + B",
        "scaler",
        "record",
        (
            B,
            READ_TEST_B,
            READ_TEST_B.replace("apply_scale(scale,", "apply_scale(own,"),
        ),
        (
            B,
            "    read_test = ledger.scored_reader(fold.test)",
            "    read_test = ledger.scored_reader(fold.test)\n"
            "    own = scaling.fit_scale(\n"
            '        lambda rows: pad(ledger.values("scaler", rows)), fold.test, config.scale\n'
            "    )",
        ),
    ),
    leak(
        "M9 audit B",
        "the same around the ledger",
        "B raw + B",
        "scoring",
        "audit",
        (
            B,
            READ_TEST_B,
            READ_TEST_B.replace(
                "apply_scale(scale,",
                "apply_scale(scaling.fit_scale(lambda rows: pad(read_test(rows)), "
                "fold.test, config.scale),",
            ),
        ),
    ),
    leak(
        "M10 record A",
        "classical classifiers trained on the test fold, too",
        "A time + A class + A group",
        "baselines",
        "guard",
        (
            A,
            X_TRAIN,
            X_BOTH
            + '\n        y = np.concatenate([y, data.ledger.labels("baselines", data.fold.test)])',
        ),
    ),
    leak(
        "M10 audit A",
        "the same around the ledger",
        "A time + A class + A group",
        "baselines",
        "audit",
        (
            A,
            X_TRAIN,
            X_BOTH + f"\n        y = np.concatenate([y, {TEST_Y}])",
        ),
    ),
    leak(
        "M10 record B",
        "classical classifiers trained on the test fold, too",
        "B + B run",
        "baselines",
        "guard",
        (
            B,
            "own[again], y, own_test, classes)",
            "np.concatenate([own[again], own_test]), np.concatenate([y, "
            'data.ledger.labels("baselines", test)]), own_test, classes)',
        ),
    ),
    leak(
        "M10 audit B",
        "the same around the ledger",
        "B + B run",
        "baselines",
        "audit",
        (
            B,
            "own[again], y, own_test, classes)",
            f"np.concatenate([own[again], own_test]), np.concatenate([y, {TEST_Y}]), "
            "own_test, classes)",
        ),
    ),
    leak(
        "M10 fits",
        "the same in fits.py, behind the jobs of the experiment",
        "A time + B",
        "baselines",
        "audit",
        (
            FITS,
            JOB_LOOP,
            JOB_LOOP.replace(
                "\n                places",
                "\n                job = job._replace(train_x=np.concatenate([job.train_x, "
                "job.test_x]), train_y=np.concatenate([job.train_y, "
                f"{TEST_Y}]))\n                places",
            ),
        ),
    ),
]

OTHERS = [
    leak(
        "parcels record",
        "parcels clustered by the test subject, too",
        "A piecewise + A piecewise, after",
        "parcels",
        "record",
        (PARCELS, "for name in team.train:", "for name in (*team.train, team.test):"),
    ),
    leak(
        "parcels audit",
        "the same around the ledger",
        "A piecewise + A piecewise, after",
        "parcels",
        "audit",
        (PARCELS, "for name in team.train:", "for name in (*team.train, team.test):"),
        (
            PARCELS,
            'x = ledger.values("parcels", rows, columns)',
            "x = ledger.scored(rows, columns)",
        ),
    ),
    leak(
        "unit z-scored",
        "each subject z-scored by all of its rows, before any ledger",
        "A time + A class + A group + A none",
        "scoring|alignment|voxels|centring",
        "audit",
        (
            MASKED,
            "blocks[name] = values if finite.all() else np.nan_to_num(values)",
            "values = np.nan_to_num(values)\n"
            "        blocks[name] = (values - values.mean(0)) / (values.std(0) + 1e-6)",
        ),
    ),
    leak(
        "cells centred",
        "each subject centred class by class, before any ledger: a leak by labels and values",
        "A time + A group",
        "scoring|alignment|voxels",
        "audit",
        (
            MASKED,
            "blocks[name] = values if finite.all() else np.nan_to_num(values)",
            "values = np.nan_to_num(values)\n"
            "        for k in np.unique(part.labels):\n"
            "            values[part.labels == k] -= values[part.labels == k].mean(0)\n"
            "        blocks[name] = values",
        ),
    ),
    leak(
        "cleaned with all",
        "each subject divided by the sd of all subjects, before any ledger",
        "A time + A group",
        "scaler|alignment|voxels",
        "audit",
        (
            MASKED,
            "columns = min(block.shape[1] for block in nuisance)",
            "columns = min(block.shape[1] for block in nuisance)\n"
            "    sd = np.concatenate(list(blocks.values())).std(0) + 1e-6\n"
            "    blocks = {name: np.float32(block / sd) for name, block in blocks.items()}",
        ),
    ),
    leak(
        "union of masks",
        "no common mask: voxels that only the test subject's mask brings in may be chosen",
        "A time + A group + A none",
        "voxels|scaler|alignment|network",
        "audit",
        (ACROSS, "    fitted = tuple(", "    allowed = None\n    fitted = tuple("),
    ),
    leak(
        "nearest subject first",
        "training subject most like the test subject becomes the first, the reference",
        "A time + A group",
        "alignment",
        "audit",
        (
            SPACE,
            "        stacked = jnp.stack(rows)",
            "        seen = ledger.scored(team.rows[team.test])\n"
            "        like = [\n"
            "            -np.corrcoef(ledger.scored(team.rows[n]).mean(0), seen.mean(0))[0, 1]\n"
            "            for n in chosen\n"
            "        ]\n"
            "        stacked = jnp.stack([rows[i] for i in np.argsort(like)])",
        ),
    ),
    leak(
        "subject by accuracy",
        "reference of the template chosen by its accuracy on the test subject",
        "A time + A group",
        "alignment",
        "record",
        (
            SPACE,
            "        stacked = jnp.stack(rows)",
            '        own = team.rows[team.test]\n        y = ledger.labels("alignment", own)\n'
            "        seen, right = ledger.scored(own), []\n"
            "        for n in chosen:\n"
            '            x, z = ledger.scored(team.rows[n]), ledger.labels("alignment", '
            "team.rows[n])\n"
            "            means = np.stack([x[z == k].mean(0) for k in np.unique(z)])\n"
            "            right.append(-((seen @ means.T).argmax(1) == y).mean())\n"
            "        stacked = jnp.stack([rows[i] for i in np.argsort(right)])",
        ),
    ),
    leak(
        "balanced centre",
        "test rows centred by the mean of their class means",
        "A time + A group + A none",
        "scoring",
        "audit",
        (
            ACROSS,
            "    mean, sd = _fit_scaler(",
            f"    y, own = {PEEK}[fold.test], x[fold.test]\n"
            "    x[fold.test] = own - np.mean([own[y == k].mean(0) for k in np.unique(y)], 0)\n"
            "    mean, sd = _fit_scaler(",
        ),
    ),
    leak(
        "balanced by the test",
        "as many training rows of each class as the test subject has of its commonest",
        "A time + A group",
        "network",
        "audit",
        (
            A,
            "picked = resampling.balance(key, labels[rows], config.balance,",
            "picked = resampling.balance(key, labels[rows], config.balance + config.extra,",
        ),
        (
            A,
            "    drawn = [\n",
            f"    extra = int(np.bincount({PEEK}[fold.test]).max()) // 8\n"
            "    config = config.copy_and_resolve_references()\n"
            "    config.unlock()\n    config.extra = extra\n    drawn = [\n",
        ),
    ),
    leak(
        "centring record",
        "regime none centres a run by itself",
        "A none",
        "centring",
        "record",
        (
            SPACE,
            'mean = ledger.values("centring", others, columns).mean(0)',
            'units = ledger.design("units")\n'
            "    others = np.flatnonzero(units == units[others[0]])\n"
            '    mean = ledger.values("centring", others, columns).mean(0)',
        ),
    ),
    leak(
        "centring audit",
        "the same around the ledger",
        "A none",
        "centring",
        "audit",
        (
            SPACE,
            'mean = ledger.values("centring", others, columns).mean(0)',
            'units = ledger.design("units")\n'
            "    others = np.flatnonzero(units == units[others[0]])\n"
            "    mean = ledger.scored(others, columns).mean(0)",
        ),
    ),
    leak(
        "monitor the test unit",
        "next unit in the order became the unit itself",
        "A time + A group + A none",
        "epoch choice",
        "record",
        (SPLITS, "names[(i + 1) % len(names)]", "names[i]"),
    ),
    leak(
        "group map",
        "one rotation for everybody, fitted to the test subject, too",
        "A group",
        "alignment|scaler|network",
        "audit",
        (
            ACROSS,
            "space = common_space.fit(ledger, team, chosen, settings, leaks.alignment, pieces)",
            "space = common_space.fit(ledger, team, chosen, settings, leaks.alignment, pieces)\n"
            "    seen = ledger.scored(team.rows[team.test], choose(ledger, team.test, None))\n"
            "    both = np.stack([*chosen.values(), seen])\n"
            "    space = space._replace(everyones=alignment.group(space.model, both))\n"
            "    space = space._replace(maps=dict.fromkeys(chosen, space.everyones))",
        ),
    ),
    leak(
        "sd of the others",
        "scaler's sd from monitored and test rows",
        "A time + A group",
        "scaler",
        "audit",
        (
            ACROSS,
            "mean, sd = pooled.mean(0), pooled.std(0)",
            "mean = pooled.mean(0)\n"
            "    sd = features.scored(np.concatenate([fold.monitor, fold.test])).std(0)",
        ),
    ),
    leak(
        "first five volumes",
        "scaler's mean from the first five volumes of each test run, a rest before the task",
        "A time + A group",
        "scaler",
        "audit",
        (
            ACROSS,
            "mean, sd = pooled.mean(0), pooled.std(0)",
            'first = fold.test[features.design("frame")[fold.test] < 5]\n'
            "    mean, sd = pooled.mean(0) + features.scored(first).mean(0), pooled.std(0)",
        ),
    ),
    leak(
        "isometry",
        "coordinates of volumes centred on training and test rows",
        "B + B run",
        "scoring|baselines",
        "audit",
        (
            KERNELS,
            "means, grand = gram.mean(0), gram.mean()",
            "means = np.concatenate([gram, cross]).mean(0)\n    grand = gram.mean()",
        ),
    ),
    leak(
        "global signal",
        "nuisance: the global signal of the test rows minus its own mean",
        "A time + A group",
        "scoring",
        "audit",
        (
            ACROSS,
            "signal = ledger.scored(fold.test)[:, columns].mean(1)",
            "signal = ledger.scored(fold.test)[:, columns].mean(1)\n    signal -= signal.mean()",
        ),
    ),
    leak(
        "nuisance mask",
        "nuisance: the global signal inside the test subject's own mask",
        "A time + A group",
        "baselines",
        "audit",
        (
            ACROSS,
            "names = dict.fromkeys(units[fold.train])\n",
            "names = dict.fromkeys(units[fold.train])\n"
            "    columns = ledger._cohort.inside[units[fold.test][0]]\n",
        ),
    ),
    leak(
        "split A",
        "one scored row trains, too",
        "A time + A group",
        "network",
        "record",
        (SPLITS, UNITS_LEFT, f"{UNITS_LEFT}\n        train.append(rows[test][:1])"),
    ),
    leak(
        "split B",
        "one scored row trains, too",
        "B + B run",
        "network",
        "record",
        (
            B,
            MADE,
            MADE.replace(
                "made = ",
                "made = [f._replace(train=np.concatenate([f.train, f.test[:1]])) for f in ",
            )
            + "]",
        ),
    ),
    leak(
        "half a subject",
        "half of the test subject's rows train",
        "A group + A none",
        "network",
        "record",
        (
            SPLITS,
            UNITS_LEFT,
            f"{UNITS_LEFT}\n        train.append(rows[test][::2])\n"
            "        rows = rows | {test: rows[test][1::2]}",
        ),
    ),
    leak(
        "self-training",
        "classical classifiers fitted again to what they say of the test rows",
        "A time + B",
        "baselines|scoring",
        "audit",
        (
            BASELINES,
            "model.fit(job.train_x, job.train_y, **own)",
            "model.fit(job.train_x, job.train_y, **own)\n"
            "        guess = model.predict(job.test_x)\n"
            "        model.fit(\n"
            "            np.concatenate([job.train_x, job.test_x]),\n"
            "            np.concatenate([job.train_y, guess]),\n        )",
        ),
    ),
    leak(
        "estimator",
        "a classifier that z-scores whatever it is asked to predict",
        "A time + A group",
        "scoring",
        "audit",
        (
            BASELINES,
            "def _logistic(seed: int) -> LogisticRegression:\n    return LogisticRegression(",
            "class _Own(LogisticRegression):\n"
            "    def predict_proba(self, x):\n"
            "        return super().predict_proba((x - x.mean(0)) / (x.std(0) + 1e-6))\n\n\n"
            "def _logistic(seed: int) -> LogisticRegression:\n    return _Own(",
        ),
    ),
    leak(
        "floor record",
        "voxels chosen by everybody, on noise only",
        "A floor",
        "voxels",
        "record",
        (
            A,
            "fold_features(ledger, fold, settings, leaks)",
            "fold_features(\n        ledger, fold, settings, "
            "leaks._replace(voxels=True) if arm.on_noise else leaks\n    )",
        ),
    ),
    leak(
        "floor audit",
        "features of training rows minus the test rows' mean, on noise only",
        "A floor",
        "network",
        "audit",
        (
            A,
            "    scaled = ledger.derive(made.x)",
            "    if arm.on_noise:\n"
            "        made.x[fold.train] -= made.x[fold.test].mean(0)\n"
            "    scaled = ledger.derive(made.x)",
        ),
    ),
    leak(
        "one fold record",
        "scaler fitted to training and test rows, in the third fold only",
        "A time",
        "scaler",
        "record",
        (
            ACROSS,
            'pooled = features.values("scaler", fold.train)',
            f'pooled = features.values("scaler", {EVERY} if fold.name == "03" else fold.train)',
        ),
    ),
    leak(
        "paper, nothing",
        "the published procedure without its leaks",
        "A paper",
        "voxels",
        "arm",
        (ARMS, "Setup(leaky, everybody, on_test=True)", "Setup(leaky, STRICT, on_test=False)"),
    ),
    leak(
        "paper, voxels",
        "the published procedure, but voxels of the training subjects",
        "A paper",
        "voxels",
        "arm",
        (
            ARMS,
            "everybody = Leaks(voxels=voxels, alignment=True)",
            "everybody = Leaks(voxels=False, alignment=True)",
        ),
    ),
    leak(
        "paper, alignment",
        "the published procedure, but a template of the training subjects",
        "A paper",
        "alignment",
        "arm",
        (
            ARMS,
            "everybody = Leaks(voxels=voxels, alignment=True)",
            "everybody = Leaks(voxels=voxels, alignment=False)",
        ),
    ),
    leak(
        "paper, epoch",
        "the published procedure, but another subject is monitored",
        "A paper",
        "epoch choice",
        "arm",
        (ARMS, "Setup(leaky, everybody, on_test=True)", "Setup(leaky, everybody, on_test=False)"),
    ),
    leak(
        "random, strict",
        "the published split keeps runs whole",
        "B random",
        "network",
        "arm",
        (SPLITS, 'if SPLITS[kind].protocol == "leaky":', "if False:"),
    ),
    leak(
        "labels only A",
        "the network's seed depends on test labels",
        "A time + A class + A group",
        "network",
        "audit",
        (
            A,
            KEYS_A,
            KEYS_A.replace(
                "\n    with",
                f"\n    key = jax.random.fold_in(key, int(({PEEK}[fold.test] * "
                "np.arange(len(fold.test))).sum()))\n    with",
            ),
        ),
    ),
    leak(
        "labels only B",
        "the network's seed depends on test labels",
        "B raw + B + B run",
        "network",
        "audit",
        (
            B,
            KEYS_B,
            KEYS_B.replace(
                "\n    rows",
                f"\n    key = jax.random.fold_in(key, int(({PEEK}[fold.test] * "
                "np.arange(len(fold.test))).sum()))\n    rows",
            ),
        ),
    ),
    leak(
        "labels of one run",
        "the network's seed depends on the test labels of the last run of several that are scored",
        "B run",
        "network",
        "audit",
        (
            B,
            KEYS_B,
            KEYS_B.replace(
                "\n    rows",
                f"\n    key = jax.random.fold_in(key, int({PEEK}[fold.test[-9:]] "
                "@ 2 ** np.arange(9)))\n    rows",
            ),
        ),
    ),
    leak(
        "values only A",
        "the network's seed depends on test values",
        "A time + A class + A group",
        "network",
        "audit",
        (
            A,
            KEYS_A,
            KEYS_A.replace(
                "\n    with",
                "\n    key = jax.random.fold_in(key, "
                "int(1e3 * np.abs(ledger.scored(fold.test)).sum()) % 2**31)\n    with",
            ),
        ),
    ),
    leak(
        "values only B",
        "the network's seed depends on test values",
        "B raw + B + B run",
        "network",
        "audit",
        (
            B,
            KEYS_B,
            KEYS_B.replace(
                "\n    rows",
                "\n    key = jax.random.fold_in(key, "
                "int(1e3 * np.abs(ledger.scored(fold.test)).sum()) % 2**31)\n    rows",
            ),
        ),
    ),
    leak(
        "labels as an array",
        "labels of the scored rows through `Ledger.array`, into their features",
        "A time + A group",
        "scoring|labels",
        "guard",
        (
            ACROSS,
            "    mean, sd = _fit_scaler(",
            '    x[fold.test, 0] = ledger.array("labels").scored(fold.test)\n'
            "    mean, sd = _fit_scaler(",
        ),
    ),
    leak(
        "wider scope",
        "a read for all test rows after reads for each of their runs",
        "A time",
        "scaler",
        "record",
        (
            ACROSS,
            "    mean, sd = _fit_scaler(",
            "    part = ledger.derive(x).scoring(fold.test)\n"
            '    x[fold.test] -= part.values("scaler", fold.test).mean(0)\n'
            "    mean, sd = _fit_scaler(",
        ),
    ),
    leak(
        "wrong scope",
        "each run's own map by itself, on the record of the other runs",
        "A time",
        "scoring|alignment",
        "audit",
        (SPACE, "make_map(part, team, others, columns)", "make_map(part, team, here, columns)"),
        (
            SPACE,
            "            part = ledger.scoring(here) if scoring else ledger",
            "            part = ledger.scoring(others) if scoring else ledger",
        ),
    ),
    leak(
        "smoothed in time",
        "each test volume is a mean with its neighbours in time",
        "A time + A group",
        "scoring",
        "audit",
        (
            ACROSS,
            "    mean, sd = _fit_scaler(",
            "    own = x[fold.test]\n"
            "    x[fold.test] = (own + np.roll(own, 1, 0) + np.roll(own, -1, 0)) / 3\n"
            "    mean, sd = _fit_scaler(",
        ),
    ),
    leak(
        "chunk by chunk",
        "test volumes centred chunk by chunk, as they are read",
        "B raw + B",
        "scoring",
        "audit",
        (
            B,
            READ_TEST_B,
            "lambda rows: (lambda v: v - v.mean(0))(scaling.apply_scale(scale, "
            "pad(read_test(rows)))),\n        labels,",
        ),
    ),
    leak(
        "monitor unlike the test",
        "the subject most unlike the test subject is monitored, all others train",
        "A time + A group",
        "folds",
        "audit",
        (
            A,
            LEAVE,
            "made = []\n"
            "    for f in splits.leave_one_out(data.units, monitor_test=arm.settings.on_test):\n"
            "        names = [n for n in data.names if n != data.units[f.test[0]]]\n"
            "        seen = data.volumes[f.test].mean(0)\n"
            "        means = [data.volumes[data.rows(n)].mean(0) for n in names]\n"
            "        like = [np.corrcoef(m, seen)[0, 1] for m in means]\n"
            "        other = names.pop(int(np.argmin(like)))\n"
            "        train = np.concatenate([data.rows(n) for n in names])\n"
            "        made.append(f._replace(train=train, monitor=data.rows(other)))\n"
            "    return made",
        ),
    ),
    leak(
        "settings by data",
        "number of voxels chosen by all values",
        "A time",
        "arms",
        "audit",
        (
            ARMS,
            "    return Settings(\n        config.voxels.keep,",
            "    return Settings(\n"
            "        config.voxels.keep - int(1e4 * cohort.volumes[:].std()) % 7,",
        ),
    ),
    leak(
        "kept from the first fold",
        "voxels chosen once, in the first fold, and kept for all folds",
        "A time + A group",
        "voxels",
        "audit",
        (
            ACROSS,
            "choose = chooser(ledger, team, fitted, settings, allowed)",
            "key = settings.regime, settings.match\n"
            "    if key not in _KEPT:\n"
            "        _KEPT[key] = chooser(ledger, team, fitted, settings, allowed)\n"
            "    choose = _KEPT[key]",
        ),
        (ACROSS, "STRICT = Leaks()\n", "STRICT = Leaks()\n_KEPT: dict = {}\n"),
    ),
    leak(
        "kept by name",
        "scaler of all rows, kept by the name of the test subject",
        "A time + A group",
        "scaler",
        "audit",
        (
            ACROSS,
            'pooled = features.values("scaler", fold.train)',
            "if fold.name in _KEPT:\n"
            "        return _KEPT[fold.name]\n"
            '    pooled = features.values("scaler", fold.train)\n'
            "    pooled = np.concatenate([pooled, features.scored(fold.test)])\n"
            "    _KEPT[fold.name] = pooled.mean(0), pooled.std(0)",
        ),
        (ACROSS, "STRICT = Leaks()\n", "STRICT = Leaks()\n_KEPT: dict = {}\n"),
    ),
    leak(
        "batch at test",
        "inputs of the network centred batch by batch when it predicts",
        "A time + B",
        "scoring",
        "audit",
        (
            EPOCH,
            "found = [_predict(program, params, batch_stats, x) for x, _ in",
            "found = [_predict(program, params, batch_stats, x - x.mean(0)) for x, _ in",
        ),
    ),
    leak(
        "batch statistics",
        "batch norm of the network uses the test batch when it predicts",
        "B + B run",
        "scoring",
        "audit",
        (
            EPOCH,
            "    out = jax.nn.softmax(_logits(program, params, batch_stats, x))",
            "    logits, _ = program.model.apply(\n"
            "        steps.variables(params, batch_stats), x, train=True, "
            'mutable=["batch_stats"],\n'
            '        rngs={"dropout": jax.random.key(0)},\n    )\n'
            "    out = jax.nn.softmax(logits)",
        ),
    ),
    leak(
        "prior of the test",
        "probabilities of test rows divided by their mean: as many of each class",
        "A time + B",
        "scoring",
        "audit",
        (
            FITS,
            "    ends = {",
            "    out = {name: p / p.mean(0) for name, p in out.items()}\n"
            "    out = {name: p / p.sum(1, keepdims=True) for name, p in out.items()}\n"
            "    ends = {",
        ),
    ),
    leak(
        "temperature",
        "probabilities sharpened by their accuracy on the test labels",
        "A time + B",
        "scoring",
        "audit",
        (
            FITS,
            "    ends = {",
            "    y = data.ledger._cohort.labels[rows]\n"
            "    power = {n: 1 + p[np.arange(len(y)), y].mean() for n, p in out.items()}\n"
            "    out = {n: p ** power[n] for n, p in out.items()}\n"
            "    out = {n: p / p.sum(1, keepdims=True) for n, p in out.items()}\n"
            "    ends = {",
        ),
    ),
    leak(
        "prior in the report",
        "the same where the report takes the probabilities",
        "A time + B",
        "scoring",
        "audit",
        (
            OUTCOMES,
            "networks = [np.asarray(outcome[arm.pick])[pick] for outcome in fold.outcomes]",
            "networks = [np.asarray(outcome[arm.pick])[pick] for outcome in fold.outcomes]\n"
            "    networks = [p / p.mean(0) / (p / p.mean(0)).sum(1, keepdims=True) "
            "for p in networks]",
        ),
    ),
    leak(
        "training in the skeleton",
        "monitored rows replaced in the skeleton, after the audit",
        "A time + B",
        "network|epoch choice",
        "audit",
        (
            TRAININGS,
            "numbered = fits.trainings(arm, made[arm.name])",
            "numbered = [\n"
            "                (i, replace(d, monitor=d.fold.test, read=lambda rows, d=d: np.where(\n"
            "                    np.isin(rows, d.fold.test).reshape(-1, *[1] * "
            "(d.read(d.fold.train[:1]).ndim - 1)),\n"
            "                    d.read_test(np.where(np.isin(rows, d.fold.test), rows, "
            "d.fold.test[0])),\n"
            "                    d.read(np.where(np.isin(rows, d.fold.test), d.fold.train[0], "
            "rows)),\n"
            "                ), labels=np.where(d.labels < 0, d.ledger._cohort.labels, "
            "d.labels)))\n"
            "                for i, d in fits.trainings(arm, made[arm.name])\n            ]",
        ),
        (SKELETON, "\nUntil = ", "\nimport numpy as np\n\nUntil = "),
    ),
    leak(
        "features in the skeleton",
        "monitored rows replaced in the skeleton, before the audit",
        "A time + B",
        "network|epoch choice",
        "guard",
        (
            SKELETON,
            "replace(experiment.features(config, Ledger(view), fold, arm, i), unit=unit)",
            "replace(\n            experiment.features(config, Ledger(view), fold, arm, i), "
            "unit=unit, monitor=fold.test\n        )",
        ),
    ),
    leak(
        "cells by unit",
        "each row is said to be a unit of its own, and labels of the test run choose voxels",
        "A class",
        "voxels",
        "record",
        (A, "by_run = settings.own_voxels or", "return np.arange(len(data.labels))\n    by_run ="),
        (ACROSS, "rows = rows[team.run[rows] != unseen_run]", "pass"),
    ),
    leak(
        "kernel size",
        "coordinates of volumes divided by the size of the test rows",
        "B",
        "baselines|scoring",
        "audit",
        (
            KERNELS,
            "unit = _unit(vectors * roots, squared_norm)",
            "unit = _unit(np.concatenate([train, test]), squared_norm)",
        ),
    ),
    leak(
        "motion",
        "nuisance: the motion of each subject z-scored by all of its rows",
        "A time + A group",
        "scoring",
        "audit",
        (
            MASKED,
            "nuisance.append(_nuisance(part))",
            "own = _nuisance(part)\n"
            "        nuisance.append((own - own.mean(0)) / (own.std(0) + 1e-6))",
        ),
    ),
    leak(
        "columns by everybody",
        "only columns whose mean over all subjects is high are read at all",
        "A time + A group + A none",
        "voxels|mask|scoring",
        "audit",
        (
            MASKED,
            "_masks(cohort, mask, rows)\n",
            "_masks(cohort, mask, rows)\n"
            "    union = union & (mean > np.quantile(mean[union], 0.3))\n",
        ),
    ),
    leak(
        "results",
        "probabilities sharpened by their accuracy on the test labels, behind the training",
        "A time + B",
        "scoring",
        "audit",
        (
            SKELETON,
            "                    () if arm.decoder else outcomes.get(source, {}).get(i, ()),",
            "                    tuple(\n"
            "                        {**o, **{n: o[n] ** (1 + o[n][range(len(o[n])), "
            'cohort.labels[data.fold.test]].mean()) for n in ("last", "best")}}\n'
            "                        for o in outcomes.get(source, {}).get(i, ())\n"
            "                    ),",
        ),
    ),
    leak(
        "subjects cut",
        "the split by subject keeps only runs whole",
        "B",
        "network|scaler|epoch choice",
        "record",
        (
            SPLITS,
            'lambda cohort: cohort.subject,\n            "subject",',
            'lambda cohort: cohort.run_index,\n            "subject",',
        ),
    ),
    leak(
        "data of its own",
        "features of the values that were read first, whatever the ledger holds",
        "A time + A group",
        "scoring",
        "audit",
        (
            MASKED,
            "    volumes = UnitRows(rows, blocks, len(unit))",
            "    _FIRST.append(UnitRows(rows, blocks, len(unit)))\n    volumes = _FIRST[0]",
        ),
        (MASKED, "\n\nclass UnitRows:", "\n_FIRST: list = []\n\n\nclass UnitRows:"),
    ),
]

OTHERS += [
    leak(
        "bag, member",
        "every member trains on the test subject, too",
        "A bag",
        "network|voxels|alignment|scaler|mask|baselines",
        "record",
        (
            SPLITS,
            'Fold(f"{fold.name} without {name}", rows[own != name], rows[own == name], fold.test)',
            'Fold(f"{fold.name} without {name}", np.concatenate([rows[own != name], fold.test]), '
            "rows[own == name], fold.test)",
        ),
    ),
    leak(
        "bag, monitor",
        "penalty and temperature of every member chosen by the test subject",
        "A bag",
        "epoch choice",
        "record",
        (
            SPLITS,
            'Fold(f"{fold.name} without {name}", rows[own != name], rows[own == name], fold.test)',
            'Fold(f"{fold.name} without {name}", rows[own != name], fold.test, fold.test)',
        ),
    ),
    leak(
        "bag, centred",
        "features of the bag minus the mean of the test rows, around the ledger",
        "A bag",
        "baselines|scoring",
        "audit",
        (
            A,
            "    return baselines.make_job(BAG, config.seed, x, data.labels[rows],",
            "    x = x - test_x.mean(0)\n"
            "    return baselines.make_job(BAG, config.seed, x, data.labels[rows],",
        ),
    ),
    leak(
        "bag, monitored labels",
        "labels of monitored rows turned by those of the test rows, around the ledger",
        "A bag",
        "baselines|scoring",
        "audit",
        (
            A,
            "    return baselines.make_job(BAG, config.seed, x, data.labels[rows],",
            f"    turned = np.roll(data.labels[rows], int(({TEST_Y} * np.arange("
            "len(data.fold.test))).sum()) % 7)\n"
            "    return baselines.make_job(BAG, config.seed, x, turned,",
        ),
    ),
    leak(
        "bag, transductive",
        "scored rows of a member centred by themselves in its prediction",
        "A bag",
        "scoring",
        "guard",
        (
            BAG,
            "each = [softmax(own.logits(x[:, j]), axis=1)",
            "each = [softmax(own.logits(x[:, j] - x[:, j].mean(0)), axis=1)",
        ),
    ),
]

UNSEEN = [  # leaks that an audit of two folds may miss; both outcomes are right
    leak(
        "one fold audit",
        "scaler fitted to test rows around the ledger, in the third fold only",
        "A time + A full",
        "scaler",
        "audit",
        (
            ACROSS,
            'pooled = features.values("scaler", fold.train)',
            'pooled = features.values("scaler", fold.train)\n'
            '    if fold.name == "03":\n'
            "        pooled = np.concatenate([pooled, features.scored(fold.test)])",
        ),
    ),
    leak(
        "kept, though read again",
        "scaler of all rows, kept by the name of the test subject, beside an honest one",
        "A time + A group",
        "scaler",
        "audit",
        (
            ACROSS,
            '    ledger.keep("scaler", (mean, sd))',
            "    if fold.name not in _KEPT:\n"
            f"        seen = ledger.derive(x).scored({EVERY})\n"
            "        _KEPT[fold.name] = seen.mean(0), seen.std(0)\n"
            "    mean, sd = _KEPT[fold.name]\n"
            '    ledger.keep("scaler", (mean, sd))',
        ),
        (ACROSS, "STRICT = Leaks()\n", "STRICT = Leaks()\n_KEPT: dict = {}\n"),
    ),
]

HOLES = (  # known, and said in docs/experiments.md: code behind the fits, and columns of a cohort
    "union of masks",
    "columns by everybody",
    "prior in the report",
    "results",
    "training in the skeleton",
)
UNSEEN += [leak for leak in OTHERS if leak.name in HOLES]
OTHERS = [leak for leak in OTHERS if leak.name not in HOLES]
