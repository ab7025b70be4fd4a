"""The one command: python launch.py --config=configs/expA.py:demo --workdir=runs/demo

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
CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py or NAME.py:variant")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the results; made, or gone on with.")
MODE = flags.DEFINE_enum("mode", "run", ["run", "data"], "run: all; data: read, count and stop.")


def main(argv: list[str]) -> int:
    """Parses flags, runs the experiment, returns the exit code."""
    try:
        config = _config(argv)
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/emojax/xla"))
        if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            jax.distributed.initialize()  # one process per task; Slurm says where the others are
        experiment = importlib.import_module(EXPERIMENTS[config.experiment])
        command = shlex.join(["python", *argv])
        experiment.run(config, WORKDIR.value, command=command, only_data=MODE.value == "data")
    except (InputError, LeakageError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


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
    if not found or not WORKDIR.value:
        raise InputError("flags", shlex.join(argv[1:]) or "none", "--config and --workdir")
    if found not in EXPERIMENTS:
        raise InputError("experiment", repr(found), f"one of {', '.join(EXPERIMENTS)}")
    return CONFIG.value


if __name__ == "__main__":
    sys.exit(main(sys.argv))
