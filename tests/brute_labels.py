"""An independent labeller for the tests: whole milliseconds, one stretch after the other."""

import itertools
from fractions import Fraction

import numpy as np

UNKNOWN = None  # a duration that the table does not give


def label(rows, windows, classes, baseline, delay, least, drop_first=0, instead=0):
    """Labels volumes by counting stretches in which nothing changes; -1: no class.

    Args:
      rows: (onset, duration or UNKNOWN, value), in ms.
      windows: (start, stop) of each volume, in ms.
      classes: value -> class number.
      baseline: class number, or -1.
      delay: ms.
      least: part of a volume, a Fraction.
      drop_first: volumes.
      instead: ms, of events whose duration is 0 or unknown.
    """
    scan_ends = max(stop for _, stop in windows)
    shown = []
    for onset, duration, value in (row for row in rows if row[0] < scan_ends):
        if instead and not duration:
            duration = instead
        if duration is UNKNOWN:
            later = [other for other, _, _ in rows if other > onset]
            shown.append((onset + delay, min(later, default=10**9) + delay, "?"))
        else:
            shown.append((onset + delay, onset + duration + delay, classes.get(value, "other")))
    out = []
    for volume, (start, stop) in enumerate(windows):
        cuts = {start, stop, *(t for a, b, _ in shown for t in (a, b) if start < t < stop)}
        cuts = sorted(cuts)
        time = {}
        for a, b in itertools.pairwise(cuts):
            here = {what for begin, end, what in shown if begin <= a and b <= end}
            for what in here or {"free"}:
                time[what] = time.get(what, 0) + b - a
        enough = {what for what, ms in time.items() if Fraction(ms, stop - start) >= least}
        found = [what for what in enough if isinstance(what, int)]
        if volume < drop_first or "?" in enough or len(found) > 1:
            out.append(-1)
        else:
            out.append(found[0] if found else baseline if "free" in enough else -1)
    return np.array(out)
