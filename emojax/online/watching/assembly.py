"""Assembly of volumes from DICOM files, with the names of these files."""

import time

import numpy as np

from emojax.errors import InputError
from emojax.online.dicom import Part, slices
from emojax.online.watching import scans
from emojax.online.watching.notes import Notes
from emojax.online.watching.scans import Scan


class Assembly:
    """Parts of volumes that are not complete yet."""

    def __init__(self, notes: Notes):
        """Args: notes to add to."""
        self._state = slices.init()
        self._files: dict[tuple[slices.Series, int], list[tuple[str, float]]] = {}
        self._notes = notes

    def add(self, part: Part, name: str, closed: float) -> list[Scan]:
        """Adds a part; returns the volumes that are now complete.

        Args:
          part: the slices of one volume in a file.
          name: name of the file.
          closed: last modification of the file, s since 1970.
        """
        number = part.number or None
        try:
            status = slices.status(self._state, part)
            self._state, volumes = slices.add(self._state, part)
        except InputError as error:
            self._notes.add("unreadable", f"{name}: {error}", number)
            return []
        if status != "new":
            what = "duplicate" if status == "repeated" else status
            key = f"{what} {part.series} {part.number or name}"
            self._notes.once(what, key, f"{name} and perhaps others: {what} slices", number)
        waiting = self._state.open
        own = next((key for key, parts in waiting.items() if parts[-1] is part), None)
        if own is not None:
            self._files.setdefault(own, []).append((name, closed))
        out = []
        for volume in volumes:
            files = self._files.pop((volume.series, volume.number), [])
            if own is None and volume is volumes[-1]:
                files.append((name, closed))
            out.append(_scan(volume, files))
        self._files = {key: files for key, files in self._files.items() if key in waiting}
        return out

    def give_up(self, number: int) -> str:
        """Drops the slices of a volume; returns a text with their number, "" without any."""
        for own in slices.waiting(self._state):
            if own.number == number:
                self._state = slices.drop(self._state, own.series, number)
                self._files.pop((own.series, number), None)
                return f"{own.have} of {own.want or 'an unknown number of'} slices"
        return ""


def _scan(volume: slices.Volume, files: list[tuple[str, float]]) -> Scan:
    names, closed = zip(*files, strict=True)
    return Scan(
        volume.number,
        volume.values,
        volume.affine,
        volume.tr or None,
        volume.time if np.isfinite(volume.time) else None,
        max(closed),
        time.time(),
        names,
        scans.digest(volume.values),
    )
