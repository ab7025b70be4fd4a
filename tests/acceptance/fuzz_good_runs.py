"""Command lines, settings, decoders and Keras files that must run."""

import gzip

import h5py
import nibabel as nib
import numpy as np
from fuzz_bundles import calibrate, decode, decoding
from fuzz_cases import h5, header, image, move, nothing
from fuzz_inputs import nifti, scan
from fuzz_keras import FILE, KERNEL, call
from fuzz_overrides import argv

OF_A = (
    *("seed=7", "null=True", "noise.draws=1", "noise.network_draws=2", "protocols=last"),
    *("audit=True", "protocols=paper", "leaks=True", "null_floor=True"),
    "units=run align.regimes=none",  # two runs of each subject: one is left for the fit
    *("baselines=LDA", "baselines=logistic,LDA"),
    *("mask.lower=0.3", "mask.upper=0.9", "mask.opening=0", "voxels.keep=57"),
    *("voxels.centre=False", "align.regimes=none", "align.regimes=group,none"),
    *("align.regimes=transductive", "align.match=class", "align.level2_iters=0"),
    *("align.level2_iters=3", "align.zscore_common=False", "align.alpha=0.5", "align.alpha=0"),
    *("align.scaling=False", "align.reflection=False", "align.weight=1", "align.weight=0"),
    *("align.method=polar", "balance=5", "balance=1000"),
    *("model.filters=(8,8,8,8,8,8)", "model.filters=(16,)", "model.window=3", "model.dense=(8,)"),
    *("model.dense=()", "model.conv_activation=relu", "model.batch_norm=True"),
    *("model.dropout=(0.0,0.0)", "train.epochs=2", "train.batch_size=8", "train.batch_size=4096"),
    *("train.lr=1e-6", "train.adam=optax", "train.adam_b1=0", "train.adam_b2=0.5"),
    *("train.adam_eps=1e-3", "train.penalty=l1", "train.penalty_factor=0"),
    *("train.plateau.factor=0.9", "train.plateau.patience=1", "train.plateau.min_delta=0"),
    *("train.plateau.cooldown=3", "train.plateau.min_lr=0", "train.early_stop=True"),
    *("train.feed=stream", "train.feed=resident", "train.feed_dtype=bfloat16"),
    *("train.feed_dtype=auto", "train.feed_rounding=1", "train.memory_share=0.5"),
    *("train.keep_models=True", "train.strategy=loop", "train.strategy=scan"),
    *("train.checkpoint_epochs=1", "train.checkpoint_epochs=1000"),
)
OF_B = (
    *("splits=by_run", "splits=by_block", "splits=random", "splits=random,by_subject", "folds=2"),
    *("fractions=(2,1,1)", "instances=2", "oversample=False", "scale=voxel", "scale=none"),
    *("pad=20", "kernel_norm=1", "sweep=(1e-4,1e-3)", "sweep=(0,)", "model.depth=34"),
    *("model.depth=50", "model.width=8", "model.head_features=8", "model.dtype=float32"),
    *("model.dtype=bfloat16", "model.remat=True", "model.norm_momentum=0"),
    *("train.shortcut_l2=0", "train.shortcut_l2=0.01", "train.early_stop=False"),
    *("train.feed=stream", "train.feed_dtype=float32", "data.online=ema:30"),
)
SYNTHETIC = (
    *("seed=3", "design=B", "subjects=2", "volumes=90", "grid=(20,18,14)", "signal=0"),
    *("order=independent", "null=True"),
)


def cases():
    """Yields (family, name, step, flags), and for Keras the call."""
    for which, settings in (("A", OF_A), ("B", OF_B)):
        for setting in settings:
            yield f"override {which}:good", setting, nothing, argv(which, *setting.split())
    for key in SYNTHETIC:
        yield "override A:good", key, nothing, argv("A", f"data.synthetic.{key}")
    yield from _lines()
    yield from _bundles()
    for name, step in _keras():
        yield "keras:good", name, step, None, call


def _lines():
    def line(*words, place="{work}"):
        def flags(folder, work):
            own = ("--mode=data", "--config.data.progress=False", "--config.data.source=arrays")
            given = (*words, *own, "--config.data.root={folder}", f"--workdir={place}")
            return [word.format(folder=folder, work=work) for word in given]

        return flags

    config = "--config=configs/expA.py:demo"

    def linked(folder):
        (folder / "elsewhere").mkdir()
        (folder / "link").symlink_to(folder / "elsewhere")

    for name, step, flags in (
        ("config by name", nothing, line("--config=expA")),
        ("config by name, variant", nothing, line("--config=expA:demo")),
        ("config alone", nothing, line("expA:demo")),
        ("values apart", nothing, line("--config", "expA:demo", "--config.seed", "3")),
        ("one dash", nothing, line("-config=expA:demo", "-config.seed=3")),
        ("a key twice", nothing, line(config, "--config.seed=3", "--config.seed=4")),
        ("nodes of bool", nothing, line(config, "--noconfig.leaks")),
        ("a branch of tuples", nothing, line(config, "--config.model.dense=(8,8)")),
        ("workdir of unicode", nothing, line(config, place="{work}/Ergebnisse für 走")),
        ("workdir with spaces", nothing, line(config, place="{work}/my run (2) ")),
        ("workdir with brackets", nothing, line(config, place="{work}/[b]x[-red]")),
        ("workdir with quotes", nothing, line(config, place="{work}/a'b\"c&d=e")),
        ("workdir that is long", nothing, line(config, place="{work}/" + "/".join(["y" * 90] * 9))),
        ("workdir that is a link", linked, line(config, place="{folder}/link")),
        ("workdir that is empty", linked, line(config, place="{folder}/elsewhere/")),
    ):
        yield "flags:good", name, step, flags


def _bundles():
    run = "run.nii"
    one, few = scan(np.random.default_rng(0), 1), scan(np.random.default_rng(0), 3)
    zipped = decoding("run.nii.gz")

    def put(x, kind=nib.Nifti1Image, name=run):
        return image(name, lambda: nifti(x, kind=kind))

    def compressed(folder):
        (folder / "run.nii.gz").write_bytes(gzip.compress((folder / run).read_bytes(), 9))

    new = "--subject=x"
    for name, step, flags in (
        (".nii.gz", nothing, zipped),
        (".nii.gz of another compression", compressed, zipped),
        ("3-D", put(one[..., 0]), decode),
        ("one volume", put(one), decode),
        ("float32", put(few.astype("f4")), decode),
        ("float64", put(few.astype("f8")), decode),
        ("scaled", header(run, scl_slope=1.1, scl_inter=3), decode),
        ("NIfTI-2", put(few, nib.Nifti2Image), decode),
        ("a pair", put(one[..., 0], nib.Nifti1Pair, "run.img"), decoding("run.img")),
        ("a decoder with names of runs", nothing, decoding(bundle="named")),
        (
            "a decoder of another name",
            move("decoder", "Gefühl [1]"),
            decoding(bundle="Gefühl [1]"),
        ),
        ("calibrate", nothing, calibrate(new)),
        ("calibrate by number", nothing, calibrate(new, "--run=1", name="run2.nii")),
        (
            "calibrate by name",
            nothing,
            calibrate(new, "--run=run-02", bundle="named", name="run2.nii"),
        ),
        ("calibrate a subject of unicode", nothing, calibrate("--subject=Jürgen [/b] 走")),
        ("calibrate by another scale", header(run, scl_slope=1.1), calibrate(new)),
    ):
        yield "bundle:good", name, step, flags


def _keras():
    def whole_model(file):
        """Moves everything into the group of a file of a whole model."""
        layers, names = list(file), file.attrs["layer_names"]
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = names
        for name in layers:
            file.move(name, f"model_weights/{name}")
        del file.attrs["layer_names"]
        file.attrs["keras_version"] = "2.4.0"

    def later_numbers(file):
        """Names layers as a later model of a process has them."""
        names = []
        for old in file.attrs["layer_names"]:
            kind, number = old.split("_")
            new = f"{kind}_{int(number) + 16}"
            group = file.create_group(f"new_{new}")
            weights = list(file[old].attrs["weight_names"])
            for weight in weights:
                file.copy(file[old][weight], group, weight.replace(old, new))
            group.attrs["weight_names"] = [w.replace(old, new).encode() for w in weights]
            names.append(new)
        for name in [name for name in file if not name.startswith("new_")]:
            del file[name]
        for name in names:
            file.move(f"new_{name}", name)
        file.attrs["layer_names"] = [name.encode() for name in names]

    def as_text(file):
        names = np.array(list(file.attrs["layer_names"]), h5py.string_dtype())
        file.attrs.create("layer_names", names)

    def dropout(file):
        file.create_group("dropout_1").attrs["weight_names"] = np.array([], "S1")
        names = [*file.attrs["layer_names"], "dropout_1"]
        file.attrs["layer_names"] = [name.encode() for name in names]

    def stored(**options):
        def edit(file):
            value = file[KERNEL][()]
            del file[KERNEL]
            file.create_dataset(KERNEL, data=value, **options)

        return edit

    def doubled(file):
        value = file[KERNEL][()]
        del file[KERNEL]
        file[KERNEL] = value.astype(float)

    return (
        ("a whole model", h5(FILE, whole_model)),
        ("later numbers of layers", h5(FILE, later_numbers)),
        ("names as text", h5(FILE, as_text)),
        ("a layer without weights", h5(FILE, dropout)),
        ("float64", h5(FILE, doubled)),
        ("chunks", h5(FILE, stored(chunks=True))),
        ("compressed", h5(FILE, stored(compression="gzip", shuffle=True))),
    )
