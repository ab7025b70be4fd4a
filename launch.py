"""The one command: python launch.py --config=configs/expA.py:demo --workdir=runs/demo

A finished run becomes a decoder, which then needs neither the data nor the config:

    python launch.py --mode=export --config=configs/expA.py:demo --workdir=runs/demo --subject=01
    python launch.py --mode=decode --bundle=runs/demo/decoder --input=FILE.nii.gz --workdir=runs/new
    python launch.py --mode=calibrate --bundle=runs/demo/decoder --input=RUN.nii --subject=NEW ...

Exit code 2 with one line for input that cannot be used. Started again with the same command, a run
goes on where it was stopped.
"""

import importlib
import os
import shlex
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # one line of XLA's per start, else

import jax
from absl import flags
from ml_collections import config_flags

from emojax.errors import InputError
from emojax.provenance import LeakageError

EXPERIMENTS = {"A": "emojax.experiment_a", "B": "emojax.experiment_b"}
MODES = {
    "run": "everything",
    "data": "read, count and stop",
    "export": "write the decoder of a finished run",
    "decode": "an image by a decoder",
    "calibrate": "a decoder for a new subject from one run",
}
CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py or NAME.py:variant")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the results; made, or gone on with.")
MODE = flags.DEFINE_enum("mode", "run", [*MODES], "; ".join(f"{k}: {v}" for k, v in MODES.items()))
BUNDLE = flags.DEFINE_string("bundle", "", "decode, calibrate: folder of the decoder.")
INPUT = flags.DEFINE_string("input", "", "decode, calibrate: an image.")
SUBJECT = flags.DEFINE_string("subject", "", "export: whose alignment; calibrate: its name.")
RUN = flags.DEFINE_string("run", "", "export: the run to decode; calibrate: its number, from 0.")


def main(argv: list[str]) -> int:
    """Parses flags, does what the mode says, returns the exit code."""
    try:
        config = _config(argv)
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/emojax/xla"))
        if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            jax.distributed.initialize()  # one process per task; Slurm says where the others are
        if MODE.value in ("run", "data"):
            experiment = importlib.import_module(EXPERIMENTS[config.experiment])
            command = shlex.join(["python", *argv])
            experiment.run(config, WORKDIR.value, command=command, only_data=MODE.value == "data")
        else:
            print(_deploy(config))
    except (InputError, LeakageError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _deploy(config):
    """What was written by the modes of a decoder."""
    from emojax.experiments import export

    if MODE.value == "export":
        return export.export(config, WORKDIR.value, SUBJECT.value, RUN.value)
    if MODE.value == "decode":
        return export.decode(BUNDLE.value, INPUT.value, WORKDIR.value)
    if not (RUN.value or "0").isdecimal():
        raise InputError("run", repr(RUN.value), "its number among the template's, from 0")
    number = int(RUN.value or 0)
    return export.calibrate(BUNDLE.value, INPUT.value, WORKDIR.value, SUBJECT.value, number)


def _config(argv: list[str]):
    """The configuration, with all that can be wrong with flags and config files as InputError."""
    try:
        flags.FLAGS(argv)
        found = CONFIG.value and CONFIG.value.experiment
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        ImportError,
        OSError,
    ) as e:
        said = [line.strip() for line in str(e.args[0] if e.args else e).splitlines()]
        said = said[-1:] if any(line.startswith("Traceback") for line in said) else said
        found = " ".join(said).replace("\\n", " ")
        raise InputError("flags", found, "a config of configs/ and its keys") from None
    given = shlex.join(argv[1:]) or "none"
    if MODE.value in ("decode", "calibrate"):
        if not (BUNDLE.value and INPUT.value and WORKDIR.value):
            raise InputError("flags", given, "--bundle, --input and --workdir")
        return None
    if not found or not WORKDIR.value:
        raise InputError("flags", given, "--config and --workdir")
    if found not in EXPERIMENTS:
        raise InputError("experiment", repr(found), f"one of {', '.join(EXPERIMENTS)}")
    return CONFIG.value


if __name__ == "__main__":
    sys.exit(main(sys.argv))
