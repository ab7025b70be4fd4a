"""Choice of one series among all the series in a folder."""

from typing import NamedTuple

from emojax.online import dicom
from emojax.online.watching import scans
from emojax.online.watching.notes import Notes

MAGNITUDE = dicom.KINDS[0]
COMPONENTS = ("phase", "real", "imaginary")  # never decoded


class Series(NamedTuple):
    """The series of images that a file belongs to."""

    number: int | None  # None for NIfTI, whose series are identified by file names
    name: str
    kind: str  # see `dicom.KINDS`
    echo: float  # ms

    def __str__(self) -> str:
        if self.number is None:
            return self.name
        echo = f", echo {self.echo:g} ms" if self.echo else ""
        return f"series {self.number} {self.name} ({self.kind}{echo})"


class Choice:
    """The choice of a series. Each other series is noted once.

    Attributes:
      chosen: the chosen series, once it is known.
    """

    def __init__(self, asked: str, pattern: str, notes: Notes):
        """Prepares for the first file.

        Args:
          asked: number or name of the series; "" is the first of magnitude images.
          pattern: pattern of NIfTI file names, see `scans.check_pattern`; DICOM is ignored then.
          notes: notes to add to.

        Raises:
          InputError: the pattern is without {n}.
        """
        self._asked, self._pattern = asked, scans.check_pattern(pattern)
        self._notes = notes
        self.chosen: Series | None = None

    @property
    def is_by_name(self) -> bool:
        """True if names alone determine which NIfTI files are wanted."""
        return bool(self._asked or self._pattern or self.chosen)

    def identify(self, name: str) -> tuple[Series, int] | None:
        """Returns the series and number of a NIfTI file; None if its name has no number."""
        found = scans.identify(name, self._pattern)
        return found and (Series(None, found[0], MAGNITUDE, 0.0), found[1])

    def wants(self, series: Series) -> bool:
        """Returns whether a series is the chosen one; the first eligible series becomes it."""
        if self.chosen is None and self._is_eligible(series):
            self.chosen = series
            self._notes.add("series", f"{series}: taken")
        if series != self.chosen:
            self._notes.once("ignored", str(series), f"{series}: ignored")
        return series == self.chosen

    def _is_eligible(self, series: Series) -> bool:
        if self._pattern:
            return series.name == self._pattern
        if self._asked:
            asked = self._asked in (series.name, str(series.number))
            return asked and series.kind not in COMPONENTS
        return series.kind == MAGNITUDE


def series_of(part: dicom.Part) -> Series:
    """Returns the series of a part, ignoring its frame of reference."""
    own = part.series
    return Series(own.number, own.name, own.kind, own.echo)
