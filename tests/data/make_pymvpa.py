"""Records what PyMVPA's hyperalignment and Procrustean mapper compute on alignment_inputs.npz.

    PYTHONPATH=PYMVPA_CHECKOUT python2.7 tests/data/make_pymvpa.py

PyMVPA runs on Python 2.7 with NumPy 1.16.6 and SciPy 1.2.3, so this script is written for it.
Writes hyperalignment.npz and procrustes.npz; each has an "index" in JSON.
"""

import itertools
import json
import os

import mvpa2
import numpy as np
import scipy
from mvpa2.algorithms.hyperalignment import Hyperalignment, mean_xy
from mvpa2.datasets import Dataset
from mvpa2.mappers.base import ChainMapper
from mvpa2.mappers.procrustean import ProcrusteanMapper

HERE = os.path.dirname(os.path.abspath(__file__))
COUNTS = {"A": 4, "C": 3, "D": 4}  # subjects
HYPERALIGNMENT = {
    "alpha": 1.0,
    "combiner1": "mean_xy",
    "level1_equal_weight": False,
    "level2_niter": 1,
    "output_dim": None,
    "ref_ds": None,
    "zscore_all": False,
    "zscore_common": True,
}
ALIGNMENT = {"demean": True, "reflection": True, "scaling": True}
PAIRS = ["eq_neg", "eq_pos", "exact", "up", "down", "wide"]


def keep_common(new, common, weights=None):
    """Ignores the new subject: a first combiner that is not the default."""
    return common


COMBINERS = {"mean_xy": mean_xy, "keep_common": keep_common}


def list_settings():
    """Returns {name: (case, options that differ from the defaults, train_on, call_on)}."""
    settings = {}

    def add(name, case="A", train=None, call=None, **options):
        train = list(range(COUNTS[case])) if train is None else train
        settings[case + "_" + name] = (case, options, train, call or train)

    for za, zc, rounds in itertools.product([False, True], [False, True], [0, 1, 3]):
        name = "za" + "FT"[za] + "_zc" + "FT"[zc] + "_it" + str(rounds)
        add(name, zscore_all=za, zscore_common=zc, level2_niter=rounds)
    for zc in [True, False]:
        end = "" if zc else "_zcF"
        add("alpha0.5" + end, alpha=0.5, zscore_common=zc)
        add("nodemean" + end, demean=False, zscore_common=zc)
        add("noreflect" + end, reflection=False, zscore_common=zc)
        add("noscale" + end, scaling=False, zscore_common=zc)
        add("outdim3" + end, output_dim=3, zscore_common=zc)
        add("ref2" + end, ref_ds=2, zscore_common=zc)
        add("single" + end, train=[0], zscore_common=zc)
    add("alpha0", alpha=0.0)
    add("alpha0_zaT", alpha=0.0, zscore_all=True)
    add("alpha0.5_zaT", alpha=0.5, zscore_all=True)
    add("comb1keep", combiner1="keep_common")
    add("l1equal", level1_equal_weight=True)
    add("outdim100", output_dim=100)
    add("two", train=[0, 1])
    add("train3_call1", train=[0, 1, 2], call=[3], zscore_all=True)
    add("train3_call1_alpha0.5", train=[0, 1, 2], call=[3], alpha=0.5)
    for case in "CD":
        add("default", case)
        add("alpha0.5", case, alpha=0.5)
        add("noreflect", case, reflection=False)
        add("noscale", case, scaling=False)
        add("zaT", case, zscore_all=True)
        add("zcF", case, zscore_common=False)
    add("it0", "C", level2_niter=0)
    add("it3", "C", level2_niter=3)
    add("ref2", "C", ref_ds=2)
    return settings


def find_procrustean(mapper):
    """Returns the Procrustean link of a mapper, which may be a chain."""
    links = list(mapper) if isinstance(mapper, ChainMapper) else [mapper]
    return next(link for link in links if isinstance(link, ProcrusteanMapper))


def run_hyperalignment(inputs, case, options, train, call):
    """Returns the settings of one fit in full, and what PyMVPA computed."""
    hyper = {key: options.get(key, HYPERALIGNMENT[key]) for key in HYPERALIGNMENT}
    mapper = {key: options.get(key, ALIGNMENT[key]) for key in ALIGNMENT}

    def load(kind, i):
        return Dataset(inputs[case + "/" + kind + "_" + str(i)].copy())

    given = dict(hyper)
    given["combiner1"] = COMBINERS[hyper["combiner1"]]
    model = Hyperalignment(alignment=ProcrusteanMapper(space="commonspace", **mapper), **given)
    model.ca.enable(["training_residual_errors", "residual_errors"])
    model.train([load("X", i) for i in train])
    maps = model([load("X", i) for i in call])
    out = {
        "commonspace": model.commonspace,
        "scale": np.array([find_procrustean(m)._scale for m in maps]),
        "chosen_ref_ds": np.array(model.ca.chosen_ref_ds),
        "training_residual_errors": model.ca.training_residual_errors.samples,
        "residual_errors": model.ca.residual_errors.samples,
    }
    for i, m in zip(call, maps):  # noqa: B905 (Python 2)
        own = str(i)
        out["aligned_" + own] = m.forward(load("X", i)).samples
        if case != "C":  # fewer rows than voxels: new rows and the projection are not determined
            out["test_aligned_" + own] = m.forward(load("T", i)).samples
            out["proj_" + own] = np.asarray(find_procrustean(m).proj)
    if hyper["output_dim"] is None and not hyper["zscore_all"]:
        first = str(call[0])
        out["reversed_" + first] = np.asarray(maps[0].reverse(out["aligned_" + first]))
    settings = {
        "case": case,
        "hyperalignment": hyper,
        "alignment": mapper,
        "train_on": train,
        "call_on": call,
        "proj_unique": case != "C",
    }
    return settings, out


def run_procrustes(inputs, data, scaling, reflection, demean):
    """Returns the record of one pair under one setting, and what PyMVPA computed."""
    source, target, new = (inputs[data + "/" + k] for k in ("source", "target", "test"))
    options = {"scaling": scaling, "reflection": reflection, "demean": demean}
    mapper = ProcrusteanMapper(space="targets", **options)
    rows = Dataset(source.copy())
    rows.sa["targets"] = target.copy()
    mapper.train(rows)
    out = {
        "proj": np.asarray(mapper.proj),
        "scale": np.array(mapper._scale),
        "forward": np.asarray(mapper.forward(source)),
        "forward_test": np.asarray(mapper.forward(new)),
        "reverse_target": np.asarray(mapper.reverse(target)),
    }
    if demean:
        out.update(offset_in=mapper._offset_in, offset_out=mapper._offset_out)
    key = data + "/" + "_".join(k[0] + str(int(options[k])) for k in sorted(options))
    unique = data != "wide"
    return {"key": key, "data": data, "alignment": options, "proj_unique": unique}, out


def save(name, runs, arrays):
    """Writes arrays and their index, with the versions that made them."""
    versions = {"PyMVPA": mvpa2.__version__, "numpy": np.__version__, "scipy": scipy.__version__}
    index = json.dumps({"versions": versions, "runs": runs}, sort_keys=True)
    np.savez_compressed(os.path.join(HERE, name), index=np.array(index.decode("ascii")), **arrays)


def main():
    """Runs every setting and writes both files."""
    inputs = dict(np.load(os.path.join(HERE, "alignment_inputs.npz")))
    runs, arrays = {}, {}
    for name, setting in sorted(list_settings().items()):
        runs[name], found = run_hyperalignment(inputs, *setting)
        arrays.update((name + "/" + key, value) for key, value in found.items())
    save("hyperalignment.npz", runs, arrays)
    pairs, arrays = [], {}
    for data in PAIRS:
        for options in itertools.product([True, False], repeat=3):
            record, found = run_procrustes(inputs, data, *options)
            pairs.append(record)
            arrays.update((record["key"] + "/" + key, value) for key, value in found.items())
    save("procrustes.npz", pairs, arrays)


if __name__ == "__main__":
    main()
