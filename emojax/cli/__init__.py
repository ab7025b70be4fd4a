"""The `emojax` command, which calls a sub-command and turns errors into exit codes.

    emojax run expA:demo --workdir=runs/demo
    emojax run --help

A new command is one entry of `COMMANDS`. Its function is imported when it is called, so
`emojax --help` needs neither jax nor numpy. The function takes arguments like `sys.argv`, parses
them with `flags.parse` and returns an exit code, or None for 0. Exit codes: 0; 2 for unusable input
(one line on stderr); 130 for Ctrl-C; 143 for other signals.
"""

import shlex
import sys
from collections.abc import Collection, Sequence
from typing import NamedTuple

import emojax
from emojax.cli import guard
from emojax.errors import InputError, say
from emojax.nearest import hint
from emojax.registry import resolve


class Command(NamedTuple):
    """One sub-command of `emojax`."""

    target: str  # "package.module:function", with function(argv) -> exit code or None
    about: str  # one line of help
    group: str = "studies"  # a key of `GROUPS`


GROUPS = {  # headings of the help
    "first": "from nothing to a report, a decoder and the live page",
    "studies": "studies",
    "decoders": "decoders",
    "real time": "real time",
}
COMMANDS = {
    "run": Command(
        "emojax.cli.commands:run", "Train, score and report; resume if interrupted.", "first"
    ),
    "export": Command(
        "emojax.cli.commands:export", "Write the decoder of a finished run.", "first"
    ),
    "watch": Command(
        "emojax.cli.realtime:watch", "Decode volumes as a scanner writes them.", "first"
    ),
    "configs": Command("emojax.cli.catalogue:configs", "List the configs and their variants."),
    "keys": Command("emojax.cli.catalogue:keys", "List the config keys and what they mean."),
    "data": Command("emojax.cli.commands:data", "Read and count the data, and stop."),
    "plan": Command("emojax.cli.commands:plan", "Print data, memory and time; train nothing."),
    "report": Command("emojax.cli.commands:report", "Print the results of a finished run."),
    "compare": Command("emojax.cli.compare:compare", "Print the results of several runs."),
    "bids": Command("emojax.cli.bids:bids", "Run as a BIDS App, on participants or the group."),
    "fetch": Command("emojax.cli.fetch:fetch", "Download a public data set, and check it."),
    "clean": Command("emojax.cli.clean:clean", "Show stores of decoded scans, and remove them."),
    "decode": Command("emojax.cli.commands:decode", "Decode an image with a decoder.", "decoders"),
    "calibrate": Command(
        "emojax.cli.commands:calibrate", "Fit a decoder to a new subject.", "decoders"
    ),
    "simulate": Command(
        "emojax.cli.simulate:simulate", "Write a run the way a scanner does.", "real time"
    ),
    "replay": Command(
        "emojax.cli.realtime:replay", "Decode a session again, and compare.", "real time"
    ),
    "session": Command(
        "emojax.cli.realtime:session", "Write the report of a session.", "real time"
    ),
    "verify-log": Command(
        "emojax.cli.realtime:verify_log", "Check the journal of a session.", "real time"
    ),
    "seal": Command(
        "emojax.cli.seal:seal", "Allocate people to real or sham feedback, sealed.", "real time"
    ),
}
MODES = tuple(name for name in COMMANDS if name != "clean")  # values of launch.py's --mode
HELP = ("--help", "-h", "-help", "--helpfull", "--helpshort")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `emojax COMMAND ...`.

    Args:
      argv: the program's name and its arguments; default: those of this process.

    Returns:
      The exit code.
    """
    _, *words = sys.argv if argv is None else argv
    if not words or words[0] in HELP:
        guard.show(overview("emojax COMMAND [FLAGS]"))
        return 0
    if words[0] == "--version":
        print(f"emojax {emojax.__version__}")
        return 0
    return _call(words[0], [f"emojax {words[0]}", *words[1:]], COMMANDS, "command")


def launch(argv: Sequence[str]) -> int:
    """Runs `launch.py`: the command named by `--mode`, by default `run`.

    Args:
      argv: the script's name and its flags.

    Returns:
      The exit code.
    """
    from absl import flags

    given = flags.FlagValues()
    flags.DEFINE_string("mode", "run", "", flag_values=given)
    modes = "|".join(MODES)
    try:
        program, *words = given(list(argv), known_only=True)
    except (flags.Error, OSError, ValueError) as error:  # the last two come from a --flagfile
        say(InputError("flags", error, f"--mode={modes}"))
        return guard.REFUSED
    explicit = given["mode"].present
    if not explicit and any(word in HELP for word in words):
        guard.show(overview(f"python launch.py [--mode={modes}] [FLAGS]"))
        return 0
    typed = f"python {shlex.quote(program)}" + (f" --mode={given.mode}" if explicit else "")
    return _call(given.mode, [typed, *words], MODES, "mode")


def overview(usage: str) -> str:
    """Returns the help text: usage, one line for each command by group, and an example."""
    width = max(map(len, COMMANDS)) + 2
    lines = []
    for group, title in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {n:{width}}{c.about}" for n, c in COMMANDS.items() if c.group == group]
    return "\n".join(
        [
            f"usage: {usage}",
            "",
            "Decodes emotional brain states from single fMRI volumes.",
            *lines,
            "",
            "'emojax COMMAND --help' lists the flags of a command.",
            "example: emojax run expA:demo --workdir=runs/demo",
        ]
    )


def _call(name: str, argv: list[str], known: Collection[str], what: str) -> int:
    """Calls a command; errors that the user can fix become one line and an exit code."""
    if "" not in sys.path:
        sys.path.append("")  # a config's dotted paths may name modules in the current folder

    def command() -> int | None:
        if name not in known:
            raise InputError(what, repr(name) + hint(name, known), f"one of {', '.join(known)}")
        return resolve("command", COMMANDS[name].target)(argv)

    return guard.run(command, argv, resumes=name in ("run", "bids"))
