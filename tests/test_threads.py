"""Programs side by side: order, precision, and what goes wrong."""

import threading

import jax.numpy as jnp
import pytest

from emojax._numerics.threads import cores, side_by_side


def test_results_come_in_the_order_of_the_jobs(dtype):
    got = side_by_side(lambda job: jnp.full(3, job, float), range(10))
    assert [float(own[0]) for own in got] == list(range(10))
    assert {own.dtype for own in got} == {dtype}  # threads compute in the caller's precision


@pytest.mark.skipif(cores() < 2, reason="one core")
def test_two_jobs_run_at_once():
    both = threading.Barrier(2, timeout=20)
    assert sorted(side_by_side(lambda job: both.wait() * 0 + job, [1, 2])) == [1, 2]


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda job: 1 / job, [1, 0])
