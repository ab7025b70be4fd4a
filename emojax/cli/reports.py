"""The terminal output of a finished run."""

import pathlib

from emojax import stops


def show(workdir: pathlib.Path) -> None:
    """Prints the headline and the table of a finished workdir, and the path of its report."""
    with stops.deferred():
        from emojax.report import console as consoles
        from emojax.report.schema import Result

    console = consoles.make()
    consoles.print_table(Result.load(workdir), console)
    console.print(f"report: {workdir / 'report.html'}", markup=False)
