"""Volumes in order of their numbers: each once, gaps declared, never a stall."""

from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.online.watching.order import AHEAD, MOST, Order

WINDOW = 1.0


def run(arrivals, order, until=None):
    """Feeds (time, number) to an order; returns [(time, number, item)] as it gives them out."""
    out, now = [], 0.0
    for now, number in sorted(arrivals):
        while order.wait(now) == 0 and (ready := order.pop(now)):
            out += [(now, *pair) for pair in ready]
        order.add(number, f"item {number}", f"digest {number}", now)
        out += [(now, *pair) for pair in order.pop(now)]
    return out + [(now, *pair) for pair in order.finish(until)]


@given(st.permutations(range(1, 21)), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_any_permutation_within_the_window_comes_out_in_order(numbers, seed):
    times = [i * 0.9 * WINDOW / len(numbers) for i in range(len(numbers))]
    out = run(list(zip(times, numbers, strict=True)), Order(window_s=WINDOW))
    assert [(n, item) for _, n, item in out] == [(n, f"item {n}") for n in range(1, 21)]


@given(st.sets(st.integers(1, 60), min_size=1), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_each_number_comes_once_and_in_order_and_lost_ones_are_declared(there, random):
    arrivals = [(n * 0.3 + random.uniform(0, 2 * WINDOW), n) for n in there]
    last = 60
    out = run(arrivals, Order(window_s=WINDOW), last)
    assert [n for _, n, _ in out] == list(range(1, last + 1))
    came = {n for _, n, item in out if item is not None}
    assert came <= there
    ready = {n: time for time, n in arrivals}
    for _, number, item in out:  # a number given up although it came had been waited for
        if item is None and number in there:
            assert ready[number] >= WINDOW + min(t for n, t in ready.items() if n > number)


@given(
    st.lists(st.tuples(st.integers(-5, 3000), st.floats(-5, 30)), max_size=300),
    st.sampled_from([None, 0, 7]),
)
@settings(max_examples=200, deadline=None)
def test_nothing_stalls_or_fills_memory(events, first):
    """The output ascends and few volumes wait, for any numbers and any clock."""
    order, given_out = Order(first, WINDOW), []
    for number, now in events:
        status = order.add(number, "x", str(number), now)
        assert status in {"new", "duplicate", "conflict", "late", "jump"}
        given_out += [n for n, _ in order.pop(now)]
        assert len(order._waiting) <= MOST and len(order._aside) <= 1
        assert 0 <= order.wait(now) <= WINDOW
    given_out += [n for n, _ in order.finish()]
    assert given_out == sorted(set(given_out))
    assert order.pop(100.0) == []


def test_a_gap_is_declared_after_the_window_of_the_first_later_volume():
    order = Order(window_s=WINDOW)
    for number, now in ((1, 0.0), (4, 10.0), (3, 10.9)):
        order.add(number, number, str(number), now)
    assert order.pop(10.99) == [(1, 1)]
    assert 0 < order.wait(10.99) < 0.011
    assert order.pop(11.0) == [(2, None), (3, 3), (4, 4)]
    assert order.add(2, 2, "2", 11.1) == "late"
    assert order.pop(20.0) == []


def test_copies_conflicts_and_unreadable_ones():
    order = Order(first=1, window_s=WINDOW)
    assert order.add(2, "a", "a", 0.0) == "new"
    assert order.add(2, "a", "a", 0.0) == "duplicate"
    assert order.add(2, "b", "b", 0.0) == "conflict"
    assert order.add(1, "damaged", "", 0.0) == "new"
    assert order.add(1, "good", "c", 0.1) == "new"  # instead
    assert order.pop(0.2) == [(1, "good"), (2, "a")]
    assert order.add(1, "good", "c", 0.3) == "duplicate"
    assert order.add(2, "b", "b", 0.3) == "conflict"
    assert order.add(0, "early", "d", 0.3) == "late"
    assert order.add(3, "damaged", "", 0.3) == "new"
    assert order.pop(0.4) == [(3, "damaged")]
    assert order.add(3, "good", "e", 0.5) == "late"


def test_numbers_begin_at_0_where_a_0_comes_first():
    order = Order()
    order.add(1, 1, "1", 0.0)
    order.add(0, 0, "0", 0.1)
    assert order.pop(0.1) == [(0, 0), (1, 1)]
    given_first = Order(first=5)
    assert given_first.add(4, 4, "4", 0.0) == "late"
    assert given_first.add(5, 5, "5", 0.0) == "new"


def test_one_jump_is_set_aside_and_two_that_agree_are_followed():
    order = Order(window_s=WINDOW)
    order.add(1, 1, "1", 0.0)
    assert order.add(20260301, "x", "x", 0.1) == "jump"
    assert order.add(20260301, "x", "x", 0.1) == "duplicate"
    order.add(2, 2, "2", 0.2)
    assert order.pop(0.2) == [(1, 1), (2, 2)]
    far = 3 + AHEAD + 1
    assert order.add(far, "a", "a", 1.0) == "jump"
    assert order.add(far + 1, "b", "b", 1.1) == "new"
    assert order.pop(1.5) == []
    assert order.pop(2.0) == [(far, "a"), (far + 1, "b")]  # no thousand gaps are declared
    assert order.next == far + 2


def test_too_many_that_wait_end_the_wait():
    order = Order(window_s=1e9)
    for number in range(2, MOST + 3):
        order.add(number, number, str(number), 0.0)
    assert order.pop(0.0)[:2] == [(1, None), (2, 2)]


def test_the_end_declares_what_is_missing_up_to_the_last():
    order = Order()
    order.add(2, 2, "2", 0.0)
    assert order.finish(4) == [(1, None), (2, 2), (3, None), (4, None)]
    assert order.finish(4) == []
