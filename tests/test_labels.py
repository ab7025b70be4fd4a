"""Volumes from events: against two independent labellers, real tables, laws, and losses."""

import pathlib
from fractions import Fraction

import brute_labels
import numpy as np
import pytest

from emojax.data import events
from emojax.data.events import Timing
from emojax.data.label_map import Labelling, labelling
from emojax.data.labels import assign
from emojax.data.losses import Loss
from emojax.data.windows import Windows, regular
from emojax.errors import InputError

PATH = pathlib.Path("sub-01_events.tsv")
LABELS = Labelling(("rest", "face", "house"), {"face": 1, "house": 2}, baseline=0)
NAN = np.nan


def make(*rows):
    onset, duration, value = zip(*rows, strict=True)
    return events.from_columns(PATH, onset, duration, value)


def label(rows, timing, num_volumes=20, tr=2.0, labels=LABELS):
    return assign(make(*rows), labels, timing, regular(num_volumes, tr)).labels.tolist()


def lost(rows, timing, num_volumes=20, labels=LABELS):
    found = assign(make(*rows), labels, timing, regular(num_volumes, 2.0), subject="1", run="2")
    return {loss.value: loss for loss in found.lost}


def of_moments(table, labels, timing, num_volumes, tr, steps=1000):
    """Covers each acquisition with many moments and counts them."""
    out = np.full(num_volumes, -1)
    for k in range(timing.drop_first, num_volumes):
        moments = (k + (np.arange(steps) + 0.5) / steps) * tr - timing.hrf_delay_s
        inside = (moments[:, None] >= table.onset) & (
            moments[:, None] < table.onset + table.duration
        )
        number = np.array([labels.number.get(v, -1) for v in table.value])
        share = [inside[:, number == c].any(1).mean() for c in range(len(labels.classes))]
        members = [c for c, s in enumerate(share) if s >= timing.min_overlap - 0.5 / steps]
        if len(members) == 1:
            out[k] = members[0]
        if not members and labels.baseline >= 0:
            free = 1 - inside.any(1).mean()
            out[k] = labels.baseline if free >= timing.min_overlap - 0.5 / steps else -1
    return out


@pytest.mark.parametrize(
    "timing",
    [
        Timing(),
        Timing(0.0, 1.0),
        Timing(6.0, 0.25, "drop", 3),
        Timing(-1.0, 0.75, "drop"),
    ],
    ids=str,
)
def test_agrees_with_counting_moments(timing):
    rng = np.random.default_rng(1)
    onset = np.sort(rng.uniform(0, 115, 24).round(2))
    durations = rng.uniform(0.5, 4, 24).round(2)
    table = make(*zip(onset, durations, rng.choice(["face", "house", "cue"], 24), strict=True))
    timing = timing._replace(conflicts="drop")
    got = assign(table, LABELS, timing, regular(60, 2.0)).labels
    np.testing.assert_array_equal(got, of_moments(table, LABELS, timing, 60, 2.0))
    assert len(set(got)) >= 3 and got.dtype == np.int32


def random_windows(rng, kind):
    """Returns start and stop of some volumes in ms: consecutive, with pauses, or uneven."""
    t, tr = int(rng.integers(5, 40)), int(rng.choice([720, 1000, 2000, 2500, 10000]))
    start = np.arange(t) * tr
    if kind == "irregular":
        start = np.r_[0, np.cumsum(rng.integers(tr, 3 * tr, t - 1))]
    length = tr if kind == "regular" else int(rng.integers(tr // 5, tr + 1))
    return start, start + length


@pytest.mark.parametrize("kind", ["regular", "sparse", "irregular"])
def test_agrees_exactly_with_an_independent_labeller(kind):
    rng = np.random.default_rng(["regular", "sparse", "irregular"].index(kind))
    met = set()
    for _ in range(100):
        start, stop = random_windows(rng, kind)
        n, end = int(rng.integers(1, 25)), int(stop[-1])
        values = rng.choice(["face", "house", "cue", "n/a"], n)
        onset = rng.integers(-end // 5, end + end // 10, n) // 10 * 10
        duration = rng.choice([rng.integers(1, 4000, n), rng.integers(1, end, n)])
        instead = int(rng.choice([0, 0, 1500, 4000]))
        unknown = rng.random(n) < rng.choice([0, 0, 0.2])
        no_time = (rng.random(n) < 0.1) & (np.isin(values, ["cue", "n/a"]) | bool(instead))
        duration = np.where(no_time, 0, duration)
        delay, least = (
            int(rng.choice([-1000, 0, 5000, 6200])),
            rng.choice([0.1, 0.25, 0.5, 0.75, 1]),
        )
        labels = LABELS._replace(baseline=int(rng.choice([-1, 0])))
        timing = Timing(delay / 1e3, least, "drop", int(rng.integers(0, 3)), instead / 1e3)
        table = make(*zip(onset / 1e3, np.where(unknown, NAN, duration / 1e3), values, strict=True))
        windows = Windows(start / 1e3, stop / 1e3)
        if (onset >= end).mean() > 0.5:
            with pytest.raises(InputError, match="after it"):
                assign(table, labels, timing, windows)
            continue
        rows = [
            (o, brute_labels.UNKNOWN if u else d, v)
            for o, d, v, u in zip(
                *(x.tolist() for x in (onset, duration, values, unknown)), strict=True
            )
        ]
        want = brute_labels.label(
            rows,
            list(zip(start.tolist(), stop.tolist(), strict=True)),
            labels.number,
            labels.baseline,
            delay,
            Fraction(str(least)),
            timing.drop_first,
            instead,
        )
        got = assign(table, labels, timing, windows)
        np.testing.assert_array_equal(got.labels, want)
        met |= set(want.tolist())
        assert sum(loss.events for loss in got.lost) == n
        assert sum(loss.behind for loss in got.lost) == (onset >= end).sum()
        assert sum(loss.unknown for loss in got.lost) == (
            0 if instead else (unknown & (onset < end)).sum()
        )
    assert met == {-1, 0, 1, 2}


def test_lag_shifts_whole_volumes():
    rows = ((0, 20, "face"), (40, 20, "house"))
    at_once, lagged = label(rows, Timing(0.0), 50), label(rows, Timing(6.0), 50)
    assert at_once[:-3] == lagged[3:]
    assert [i for i, c in enumerate(at_once) if c == 1] == list(range(10))


def test_default_delay_of_a_block_gives_ten_volumes():
    # 5 s after 20 s: volumes 22..32 touch [45, 65); 22 and 32 by half, which is enough.
    got = label([(40, 20, "face")], Timing(), 50)
    assert [i for i, c in enumerate(got) if c == 1] == list(range(22, 33))


def test_an_event_without_a_class_is_no_rest():
    got = label([(0, 20, "face"), (20, 20, "cue")], Timing(0.0), 30)
    assert got == [1] * 10 + [-1] * 10 + [0] * 10


def test_without_baseline_gaps_have_no_class():
    got = label([(0, 20, "face")], Timing(0.0), labels=LABELS._replace(baseline=-1))
    assert got == [1] * 10 + [-1] * 10


def test_overlapping_events_of_one_class_count_once():
    rows = [(0, 0.6, "face"), (0.2, 0.4, "face")]  # together 0.6 s of a volume of 2 s
    assert label(rows, Timing(0.0, 0.4), 2)[0] != 1
    assert label(rows, Timing(0.0, 0.3), 2)[0] == 1


def test_two_classes_at_once():
    rows = [(0, 20, "face"), (10, 20, "house")]
    with pytest.raises(
        InputError, match=r"5 volumes in two classes \(first: volume 5, face and house"
    ):
        label(rows, Timing(0.0))
    drop = Timing(0.0, conflicts="drop")
    assert label(rows, drop) == [1] * 5 + [-1] * 5 + [2] * 5 + [0] * 5
    assert [lost(rows, drop)[value].dropped for value in ("face", "house")] == [5, 5]
    assert label(rows, Timing(0.0, drop_first=10)) == [-1] * 10 + [2] * 5 + [0] * 5  # unused


def test_nobody_knows_when_an_event_of_unknown_duration_ends():
    rows = [(0, 8, "face"), (8, NAN, "film"), (24, 8, "house")]
    assert label(rows, Timing(0.0)) == [1] * 4 + [-1] * 8 + [2] * 4 + [0] * 4
    assert lost(rows, Timing(0.0))["film"] == Loss("1", "2", "film", "", 1, 0, 0, 1, 0)
    rows[1] = (8, NAN, "face")
    assert label(rows, Timing(0.0)) == [1] * 4 + [-1] * 8 + [2] * 4 + [0] * 4
    assert lost(rows, Timing(0.0))["face"] == Loss("1", "2", "face", "face", 2, 0, 0, 1, 0)


def test_an_unknown_duration_ends_with_the_next_later_onset():
    rows = [(8, NAN, "cue"), (8, 4, "face"), (20, 0, "press"), (30, NAN, "cue")]
    assert label(rows, Timing(0.0)) == [0] * 4 + [-1] * 6 + [0] * 5 + [-1] * 5
    assert lost(rows, Timing(0.0))["face"].unlabelled == 1
    assert lost(rows, Timing(0.0))["press"] == Loss("1", "2", "press", "", 1, 0, 0, 0, 0)


def test_a_key_gives_impulses_and_unknown_durations_a_length():
    rows = [(0, 0, "face"), (8, NAN, "house"), (20, 6, "house")]
    got = label(rows, Timing(0.0, event_duration_s=4.0))
    assert got == [1, 1, 0, 0, 2, 2, 0, 0, 0, 0, 2, 2, 2] + [0] * 7
    assert all(
        sum(loss[5:]) == 0 for loss in lost(rows, Timing(0.0, event_duration_s=4.0)).values()
    )


def test_an_impulse_of_a_class_is_refused_with_the_key():
    with pytest.raises(InputError, match=r"duration 0 of 'face' at 4 s.*event_duration_s=4.0"):
        label([(4, 0, "face")], Timing())
    rows = [(4, 4, "face"), (10, 4, "house"), (40, 0, "face")]
    assert label(rows, Timing(0.0)) == label(rows[:2], Timing(0.0))  # behind the scan


def test_events_behind_the_scan_are_counted_and_dropped():
    rows = [(0, 8, "face"), (8, 8, "house"), (40, 8, "face"), (50, 8, "cue")]
    assert label(rows, Timing(0.0)) == [1] * 4 + [2] * 4 + [0] * 12
    found = lost(rows, Timing(0.0))
    assert found["face"] == Loss("1", "2", "face", "face", 2, 0, 1, 0, 0)
    assert found["cue"] == Loss("1", "2", "cue", "", 1, 0, 1, 0, 0)
    rows[1] = (40.0, 8, "house")
    with pytest.raises(
        InputError,
        match=r"an onset at 50 s; expected onsets before the end of the run, 40 s \(3 of 4 .* ms\?",
    ):
        label(rows, Timing(0.0))


def test_short_events_that_label_nothing_are_counted():
    """Events of 1.2 s at a TR of 2 s: their place in the TR decides."""
    rows = [(4.3 + 8 * i + 0.7 * (i % 2), 1.2, ("face", "house")[i % 2]) for i in range(12)]
    timing = Timing()
    got, found = label(rows, timing, 52), lost(rows, timing, 52)
    assert got.count(1) == 0 and got.count(2) == 6
    assert (found["face"].events, found["face"].unlabelled) == (6, 6)
    assert (found["house"].events, found["house"].unlabelled) == (6, 0)
    assert lost(rows, timing._replace(min_overlap=0.25), 52)["face"].unlabelled == 0


def test_sparse_volumes_are_compared_by_their_own_time():
    """A volume lasts 2 s if the TR is 10 s, of which 8 s are silent."""
    rows = [(20.0 * i, 8.0, ("face", "house")[i % 2]) for i in range(12)]
    labels = LABELS._replace(baseline=-1)
    windows = regular(26, 10.0, duration=2.0)
    got = assign(make(*rows), labels, Timing(), windows).labels.tolist()
    want = [-1] * 26
    for k in range(26):
        for onset, duration, value in rows:
            if min(10 * k + 2, onset + duration + 5) - max(10 * k, onset + 5) >= 1.0:
                want[k] = labels.number[value]
    assert got == want and want.count(1) == want.count(2) == 6
    everywhere = assign(make(*rows), labels, Timing(), regular(26, 10.0)).labels.tolist()
    assert everywhere != want


def test_names_with_blanks_around_them_are_one():
    rows = [(0, 4, "face"), (4, 4, " face "), (8, 4, "Cafe\u0301"), (12, 4, "Caf\u00e9\u00a0")]
    table = make(*rows)
    assert table.value == ("face", "face", "Caf\u00e9", "Caf\u00e9")
    assert labelling([table], "", "trial_type").classes == ("Caf\u00e9", "face")


def test_every_table_of_a_real_study_is_assigned(shared):
    """Volumes of each condition in 34 subjects x 6 runs agree with a count of moments."""
    root = shared("data/bids-events/ds000108")
    paths = sorted(root.glob("sub-*/func/*_events.tsv"))
    tables = [events.read(path, "trial_type") for path in paths]
    assert len(tables) == 204
    text = "rest=;neutral=Look_Neutral_Stim;negative=Look_Neg_Stim"
    labels = labelling(tables, text, "trial_type")
    counts = [sum(table.value.count(v) for table in tables) for v in labels.number]
    assert counts == [814, 815]
    timing = Timing(conflicts="drop")
    for table in tables[::17]:
        num_volumes = int(table.onset[-1] // 2) + 8
        got = assign(table, labels, timing, regular(num_volumes, 2.0)).labels
        want = of_moments(table, labels, timing, num_volumes, 2.0)
        assert (got != want).mean() < 0.01  # moments are 2 ms apart
        assert np.bincount(got[got >= 0], minlength=3).min() > 0
