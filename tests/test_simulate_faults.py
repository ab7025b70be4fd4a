"""The plan of a simulated scanner: complete, in order, seeded."""

import itertools

import numpy as np
import pytest

from emojax.errors import InputError
from emojax.online.simulate import faults
from emojax.online.simulate.faults import plan


def test_without_faults_each_volume_comes_once_and_in_time():
    actions = plan(50, first=7)
    assert [a.volume for a in actions] == [*range(7, 57)]
    assert [a.source for a in actions] == [*range(50)]
    assert [a.at for a in actions] == [*range(1, 51)]
    assert all(a.is_last and a.part == faults.WHOLE and a.gain == 1 for a in actions)


@pytest.mark.parametrize("name", faults.FAULTS)
def test_plans_are_in_order_complete_and_seeded(name):
    actions = plan(500, [f"{name}:0.2"], seed=3)
    assert actions == plan(500, [f"{name}:0.2"], seed=3)
    assert [a.at for a in actions] == sorted(a.at for a in actions)
    sound = [a for a in actions if not (name in faults.AGAIN and a.fault)]
    ends = [a for a in sound if a.is_last]
    assert sorted(a.volume for a in ends) == [*range(1, 501)]
    for volume in {a.volume for a in sound}:
        parts = [a for a in sound if a.volume == volume]
        written = [a.part for a in parts if a.part is not None]
        assert parts[-1].is_last and written[0][0] == 0
        assert all(one[1] == two[0] for one, two in itertools.pairwise(written))
        assert written[-1][1] == 1 or name == "truncated"
    if name != faults.DRIFT:
        struck = {a.volume for a in actions if a.fault}
        assert 60 < len(struck) < 140 and 1 not in struck
        assert struck != {a.volume for a in plan(500, [f"{name}:0.2"], seed=4) if a.fault}


def test_faults_have_draws_of_their_own():
    def struck(name, *others):
        return {a.volume for a in plan(400, [name, *others], 1) if a.fault == name.split(":")[0]}

    assert struck("half:0.1") == struck("half:0.1", "late:0.1", "lost")
    after = {a.volume for a in plan(400, ["late:0.3", "half:0.3"], 1) if a.fault == "half"}
    assert after == struck("half:0.3") - struck("late:0.3")  # the first one named goes first
    assert struck("half:0.1") <= struck("half:0.3")


def test_volumes_by_number():
    actions = plan(20, ["lost@7+9", "motion@12-14", "half@1"], first=1)
    found = {(a.fault, a.volume) for a in actions if a.fault}
    want = {("lost", 7), ("lost", 9), *(("motion", n) for n in (12, 13, 14)), ("half", 1)}
    assert found == want


def test_order_and_delays():
    def order(*names):
        return [a.volume for a in plan(9, names)]

    assert order("shuffled@3") == [1, 2, 4, 3, 5, 6, 7, 8, 9]
    assert order("late@3").index(3) >= 4
    assert order("lost@3") == [*range(1, 10)]  # its turn is in the log
    assert order("duplicate@3").count(3) == order("conflict@3").count(3) == 2
    pause = [a.at for a in plan(9, ["half@3"]) if a.volume == 3]
    assert pause[1] - pause[0] > 0.5 and pause[1] == 3


def test_a_frozen_scanner_repeats_the_last_image():
    sources = [a.source for a in plan(8, ["frozen@3-5"])]
    assert sources == [0, 1, 1, 1, 1, 5, 6, 7]


def test_drift_comes_on_top():
    actions = plan(11, ["drift:0.1", "zeros@4"])
    np.testing.assert_allclose([a.gain for a in actions], 1 + np.arange(11) / 100)
    assert actions[3].fault == "zeros"


@pytest.mark.parametrize(
    "text",
    [
        *("loss", "", "lost\n", "lost:2", "lost:-.1", "lost:many", "lost:", "lost:nan", "lost@"),
        *("lost@x", "lost@9-7", "lost@0", "lost@21", "lost@99999999999", "drift@3", "drift:-2"),
    ],
)
def test_refuses_faults(text):
    with pytest.raises(InputError, match="faults"):
        plan(20, [text])


def test_refuses_two_faults_of_one_volume():
    with pytest.raises(InputError, match="half@3 and lost@3"):
        plan(20, ["half@2-4", "lost@3"])
