"""The public names: those of 0.3.0 with their signatures, and the new ones. Others import them."""

import ast
import importlib
import importlib.resources
import inspect
import pathlib
import subprocess
import sys

import pandas as pd
import pytest

import emojax

FROZEN = pathlib.Path(__file__).with_name("public_names_0_3_0.txt").read_text().splitlines()
NEW = {  # name -> parameters that callers may pass by these names
    "statistics.mean_interval": ("values", "level"),
    "statistics.clustered_interval": ("labels", "predicted", "groups", "num_classes", "level"),
    "provenance.Ledger": ("cohort",),
    "provenance.audit": ("make", "before", "changes", "stand_in", "name"),
    "provenance.classify": ("seen", "subject", "unit", "claimed", "name"),
    "maps.haufe": ("weights", "x"),
    "maps.saliency": ("decoder", "volumes"),
    "splits.crossed": ("subject", "condition"),
    "splits.leave_one_out": ("units", "monitor_test"),
    "splits.make": ("key", "cohort", "kind", "fractions", "folds"),
    "experiments.run": ("config", "workdir", "cohort"),
    "sources.load": ("config",),
    "sources.write_bids.write_bids": (),
}


def find(path):
    """Returns the object at a dotted path below emojax."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"emojax.{module}"), name)


def written(value):
    """Returns a default value as the frozen list writes it."""
    if isinstance(value, type) or inspect.isfunction(value) or hasattr(value, "__wrapped__"):
        return value.__name__
    return repr(value)


def parameters(function):
    """Returns {name: (kind, default as text or None)} of a function or class as it is now."""
    return {
        p.name: (p.kind, None if p.default is p.empty else written(p.default))
        for p in inspect.signature(function).parameters.values()
        if p.name != "parent"  # fields of every Flax module
    }


def frozen_parameters(text):
    """Returns the same from the frozen list."""
    args = ast.parse(f"def f({text}): pass").body[0].args
    defaults = [None] * (len(args.args) - len(args.defaults)) + list(args.defaults)
    pairs = zip([*args.args, *args.kwonlyargs], [*defaults, *args.kw_defaults], strict=True)
    out = {}
    for i, (arg, value) in enumerate(pairs):
        by_place = i < len(args.args)
        kind = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD if by_place else inspect.Parameter.KEYWORD_ONLY
        )
        out[arg.arg] = (kind, None if value is None else ast.unparse(value))
    if args.kwarg:
        out[args.kwarg.arg] = (inspect.Parameter.VAR_KEYWORD, None)
    return out


@pytest.mark.parametrize("line", FROZEN)
def test_names_of_0_3_0_keep_their_signatures(line):
    """Every call that 0.3.0 accepted is still accepted: new parameters are optional."""
    path, _, text = line.partition("(")
    now, before = parameters(find(path)), frozen_parameters(text.removesuffix(")"))
    assert {name: now.get(name) for name in before} == before
    by_place = [n for n, (kind, _) in before.items() if kind.name == "POSITIONAL_OR_KEYWORD"]
    assert list(now)[: len(by_place)] == by_place
    for name in now.keys() - before.keys():
        assert now[name][1] is not None, f"{name} is new and has no default"


def test_the_list_is_whole():
    modules = {line.partition("(")[0].rpartition(".")[0] for line in FROZEN}
    assert modules == {
        *("masking", "anova", "procrustes", "hyperalignment", "alignment", "resampling"),
        *("metrics", "statistics", "plateau", "fusion", "decoder", "provenance", "training"),
        *("models.cnn1d", "models.resnet3d", "models.keras_import"),
    }
    assert len(FROZEN) == len(set(FROZEN)) > 90


def test_names_that_are_no_functions_stay():
    from emojax import alignment, models, procrustes, provenance

    assert {"group", "independent_runs", "transductive", "none"} <= set(alignment.REGIMES)
    assert issubclass(procrustes.Procrustes, procrustes.Mapping)
    assert issubclass(provenance.LeakageError, Exception)
    assert "paper" in provenance.LEAKY_PROTOCOLS
    assert set(models.cnn1d.ACTIVATIONS) and models.resnet3d.MINIMUM == 9


@pytest.mark.parametrize("path", NEW)
def test_new_names(path):
    now = parameters(find(path))
    assert list(now)[: len(NEW[path])] == list(NEW[path])
    module = path.partition(".")[0]
    assert module in emojax.__all__ and module in dir(emojax)


def test_registries_are_where_the_design_says():
    for path in (
        *("models.NETWORKS", "alignment.REGIMES", "scoring.baselines.BASELINES", "splits.SPLITS"),
        *("sources.SOURCES", "experiments.EXPERIMENTS"),
    ):
        assert find(path), path
    assert [*find("experiments.EXPERIMENTS")] == ["A", "B"]
    assert {"bids", "spm", "lab", "arrays", "synthetic"} <= set(find("sources.SOURCES"))


def test_a_result_has_the_methods_of_a_notebook():
    from emojax.report.schema import Result

    for name in ("summary", "folds", "predictions", "save", "_repr_html_"):
        fields = Result.__dataclass_fields__
        assert hasattr(Result, name) or name in fields, name
    empty = Result({"arms": []}, pd.DataFrame())
    assert empty.summary.empty and empty.folds.empty


def test_modules_are_imported_on_first_use_and_jax_not_before():
    code = (
        "import sys, emojax\n"
        "assert emojax.__version__ and 'anova' in dir(emojax)\n"
        "assert not {'jax', 'numpy', 'flax', 'sklearn'} & set(sys.modules)\n"
        "import numpy as np\n"
        "f = emojax.anova.f_scores(np.eye(6, 4, dtype='f4'), np.arange(6) % 2, 2)\n"
        "assert f.shape == (4,) and 'jax' in sys.modules\n"
        "assert emojax.models.NETWORKS and emojax.training.make_train_step\n"
        "from emojax.models import cnn1d, keras_import, resnet3d\n"
        "try:\n"
        "    emojax.nothing\n"
        "except AttributeError as error:\n"
        "    assert 'nothing' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    root = pathlib.Path(emojax.__file__).parents[1]
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


def test_every_public_module_can_be_named():
    for name in emojax.__all__:
        assert getattr(emojax, name).__name__ == f"emojax.{name}"


def test_type_checkers_are_told():
    assert importlib.resources.files("emojax").joinpath("py.typed").is_file()
