"""Every config and variant that configs/ ships, and what makes a run of it take seconds."""

import importlib
import pathlib
import re

from configs import expA
from emojax.sources.write_bids import write_bids

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = sorted(
    p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in ("common", "__init__")
)
WORDS = {"neutral": "Look_Neutral_Stim", "negative": "Look_Neg_Stim"}  # from ds000108
FEW = {"maps": "cp001,cp002,cp003,cp004", "arrays": "01,02,03,04"}  # people, of those in the data
SIZES = {"subjects": 4, "grid": (16, 16, 12), "volumes": 40}


def get_config(name, variant=""):
    """Returns a config by its names."""
    return importlib.import_module(f"configs.{name}").get_config(variant)


def variants_of(name):
    """Returns the variants of a config, as it lists them when it is asked for another; "" first."""
    try:
        get_config(name, "?")
    except ValueError as error:
        return ["", *re.search("want (.*) or none", str(error))[1].split(", ")]
    raise AssertionError(f"configs/{name}.py takes any variant")


ALL = [(name, variant) for name in NAMES for variant in variants_of(name)]


def tiny(config, folder, shared):
    """Makes a run of a config take seconds: few people, small networks, its headline alone.

    Args:
      config: changed in place.
      folder: of data that are made.
      shared: the fixture; a test without its data is skipped.
    """
    config.update({"null_floor": False, "permutations": 0, "audit": False, "crossed": ""})
    config.update({"design": False, "within_subject": False, "baselines": "", "maps": False})
    config.floor_baselines = ""
    config.data.update({"progress": False, "store": str(folder / "store")})
    config.data.synthetic.update(SIZES)
    config.train.update({"epochs": 1, "least_steps": 0, "checkpoint_epochs": 1})
    if config.experiment == "A":
        config.update({"protocols": "nested", "leaks": False, "members": 3})
        config.align.regimes = config.align.regimes.split(",")[0]
        config.alignments, config.searchlight.radius_mm = "", 0.0
        config.update({"balance": min(config.balance, 8), "instances": min(config.instances, 2)})
        config.voxels.keep = 30
        config.model.update({"filters": (2,), "window": 3, "dense": (4,)})
    else:
        config.model.update({"depth": 18, "width": 2, "norm_momentum": 0.5})
        config.splits, config.folds, config.sweep = config.splits.split(",")[0], 1, config.sweep[:2]
    if config.data.source == "synthetic":
        return
    config.data.subjects = FEW.get(config.data.source, "")
    if config.data.root in ("", "ds000108"):
        config.data.root = str(_study(folder / "bids", WORDS if config.data.root else {}))
        config.data.label_map = config.data.label_map or "rest=;neutral=neutral;negative=negative"
    else:
        config.data.root = str(shared(config.data.root.removeprefix("../shared/")))


def _study(folder, words):
    """Writes a small BIDS study; the classes of its events are in other words."""
    config = expA.get_config("demo")
    config.data.update({"progress": False, "store": str(folder.parent / "made")})
    config.data.synthetic.update(SIZES)
    write_bids(config.data, folder)
    for path in folder.rglob("*_events.tsv"):
        text = path.read_text()
        for ours, theirs in words.items():
            text = text.replace(ours, theirs)
        path.write_text(text)
    return folder
