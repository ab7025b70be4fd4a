"""Feeds: the rows that they were given and no others, in the order that was asked for."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax.training import feeds
from emojax.training.feeds import Resident, Streamed

KINDS = pytest.mark.parametrize("kind", [Resident, Streamed])
N = 40
X = np.random.default_rng(0).normal(size=(N, 3, 2)).astype(np.float32)
Y = np.arange(N) % 3
GIVEN = np.array([7, 3, 3, 30, 12, 7, 21, 5, 6])


class Reader:
    """A reader of X that notes the rows it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, rows):
        self.asked.append(np.array(rows))
        return X[rows]

    @property
    def rows(self):
        return np.concatenate(self.asked)


def mesh(devices=1):
    return feeds.data_mesh(jax.devices()[:devices])


def make(kind, read=X.__getitem__, dtype=np.float32, devices=1, labels=Y):
    return kind(read, labels, GIVEN, dtype, mesh(devices))


@KINDS
@pytest.mark.parametrize("devices", [1, 2])
def test_batches_are_the_rows_that_were_asked_for(kind, devices):
    lines = np.array([[12, 3, 3, 7], [30, 21, 7, 5], [5, 5, 5, 5]])
    got = list(make(kind, devices=devices).batches(lines))
    assert len(got) == 3
    for line, (x, y) in zip(lines, got, strict=True):
        np.testing.assert_array_equal(x, X[line])
        np.testing.assert_array_equal(y, Y[line])
        assert x.sharding.num_devices == devices and y.dtype == jnp.int32
        assert x.sharding.shard_shape(x.shape) == (4 // devices, 3, 2)


@KINDS
def test_labels_of_given_rows(kind):
    rows = np.array([30, 3, 3])
    np.testing.assert_array_equal(make(kind).labels(rows), Y[rows])
    with pytest.raises(ValueError, match=r"want rows that the feed was given; got \[4\] too"):
        make(kind).labels(np.array([3, 4]))


@KINDS
@pytest.mark.parametrize("row", [4, 39, 0, 31, -1])
def test_a_row_that_was_not_given_is_refused(kind, row):
    """Rows before, between and behind the given ones: no batch stands for them."""
    read = Reader()
    feed = make(kind, read)
    with pytest.raises(ValueError, match=rf"want rows that the feed was given; got \[{row}\] too"):
        list(feed.batches(np.array([[7, 3], [row, 30]])))
    assert set(np.concatenate([[], *read.asked])) <= set(GIVEN)


def test_a_resident_feed_holds_the_distinct_rows_and_their_labels():
    read = Reader()
    labels = np.where(np.isin(np.arange(N), GIVEN), Y, -1)
    feed = make(Resident, read, labels=labels)
    np.testing.assert_array_equal(read.rows, [3, 5, 6, 7, 12, 21, 30])  # each of them once
    np.testing.assert_array_equal(feed.rows, read.rows)
    assert feed.x.shape == (7, 3, 2)
    np.testing.assert_array_equal(feed.x, X[feed.rows])
    np.testing.assert_array_equal(feed.y, Y[feed.rows])
    np.testing.assert_array_equal(feed.places(GIVEN), [3, 0, 0, 6, 4, 3, 5, 1, 2])
    assert feed.places(GIVEN.reshape(3, 3)).shape == (3, 3)
    with pytest.raises(ValueError, match=r"got \[0, 1, 2, 4, 8\] too"):
        feed.places(np.arange(N))


def test_resident_rows_are_read_in_chunks(monkeypatch):
    monkeypatch.setattr(feeds, "CHUNK", 4)
    read = Reader()
    feed = make(Resident, read)
    assert [len(rows) for rows in read.asked] == [4, 3]
    np.testing.assert_array_equal(feed.x, X[feed.rows])


@KINDS
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32])
def test_values_are_sent_in_the_type_that_was_asked_for(kind, dtype):
    ((x, _),) = make(kind, dtype=jnp.dtype(dtype)).batches(GIVEN[None])
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, X[GIVEN].astype(jnp.dtype(dtype)))


@KINDS
def test_an_example_has_the_shape_of_a_batch_of_one(kind):
    example = make(kind).example
    assert example.shape == (1, 3, 2) and example.dtype == np.float32 and not example.any()


def test_a_streamed_feed_reads_ahead_in_order_and_no_further():
    """One thread reads the next two batches, in order, while a batch is used."""
    read, lines = Reader(), GIVEN[[0, 1, 3, 4, 6, 7, 8]][:, None]
    started = threading.Semaphore(0)
    gate = threading.Semaphore(0)

    def slow(rows):
        started.release()
        assert gate.acquire(timeout=30)
        return read(rows)

    feed = make(Streamed, slow)
    gate.release()
    assert feed.example.shape == (1, 3, 2)
    batches = feed.batches(lines)
    for _ in range(1 + feeds.AHEAD):
        gate.release()
    x, _ = next(batches)
    np.testing.assert_array_equal(x, X[[7]])
    for _ in range(1 + 1 + feeds.AHEAD):  # for the example, this batch and those ahead
        assert started.acquire(timeout=30)
    assert not started.acquire(timeout=0.2)
    for _ in range(len(lines)):
        gate.release()
    rest = [int(y[0]) for _, y in batches]
    assert rest == Y[lines[1:, 0]].tolist()
    np.testing.assert_array_equal(read.rows[1:], lines[:, 0])


def test_a_failing_read_reaches_the_caller():
    def read(rows):
        if 30 in rows:
            raise OSError("the disk is gone")
        return X[rows]

    with pytest.raises(OSError, match="the disk is gone"):
        list(make(Streamed, read).batches(np.array([[7], [3], [30]])))


def test_placed_trees_keep_keys_and_values():
    tree = {"key": jax.random.key(3), "x": np.arange(6.0, dtype=np.float32).reshape(3, 2)}
    got = feeds.replicate(tree, mesh(2))
    assert got["x"].sharding.is_fully_replicated and got["x"].sharding.num_devices == 2
    np.testing.assert_array_equal(got["x"], tree["x"])
    np.testing.assert_array_equal(jax.random.bits(got["key"]), jax.random.bits(tree["key"]))
