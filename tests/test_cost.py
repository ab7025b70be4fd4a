"""Tests of the estimated cost of a step, and of the memory that a process may use."""

import os

import pytest
import tiny_training as tiny

from emojax.configs import common
from emojax.errors import InputError
from emojax.experiments import plans
from emojax.training import cost

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V2, V1 = "0::{}\n", "12:cpu,cpuacct:/a\n4:memory:{}\n1:name=systemd:/b\n"


def test_a_step_is_measured(quick_compile):
    got = cost.measure_step(tiny.program(), (6, 5, 4))
    assert 0 < got.seconds < 5 and got.bytes > 8 * 120 * 4 and got.flops > 8 * 120 * 8 * 2
    assert got.parameters == 120 * 8 + 8 + 2 * 8 + 8 * 2 + 2
    assert cost.memory_limit() > got.bytes


def tree(root, groups, limits):
    """Writes what the kernel shows: the process' groups, and a limit in some of their folders."""
    for path, text in {"proc/self/cgroup": groups, **limits}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return cost.host_memory(root)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        (V2.format("/"), {"sys/fs/cgroup/memory.max": "1000000\n"}, 1000000),
        (V2.format("/job/step"), {"sys/fs/cgroup/job/step/memory.max": "7\n"}, 7),
        (  # a group above limits its children, too
            V2.format("/job/step"),
            {
                "sys/fs/cgroup/job/memory.max": "500\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
            },
            500,
        ),
        (
            V2.format("/job/step"),
            {
                "sys/fs/cgroup/memory.max": "400\n",
                "sys/fs/cgroup/job/memory.max": "900\n",
                "sys/fs/cgroup/job/step/memory.max": "600\n",
            },
            400,
        ),
        # The path inside a container is often that of the host, and is not there.
        (V2.format("/docker/4f"), {"sys/fs/cgroup/memory.max": "300\n"}, 300),
        (V2.format("/job"), {"sys/fs/cgroup/job/memory.max": "max\n"}, MACHINE),
        (V2.format("/job"), {"sys/fs/cgroup/job/memory.max": f"{4 * MACHINE}\n"}, MACHINE),
        (V2.format("/job"), {"sys/fs/cgroup/elsewhere/memory.max": "5\n"}, MACHINE),
        (V2.format("/job"), {"sys/fs/cgroup/job/memory.max": "many\n"}, MACHINE),
        (V1.format("/job"), {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "800\n"}, 800),
        (  # v1 has a number for "no limit"
            V1.format("/job/step"),
            {
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "700\n",
                "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": "9223372036854771712\n",
            },
            700,
        ),
        (V1.format("/job"), {"sys/fs/cgroup/memory/memory.limit_in_bytes": "60\n"}, 60),
        (V1.format("/job"), {"sys/fs/cgroup/cpu/a/memory.limit_in_bytes": "5\n"}, MACHINE),
        ("", {}, MACHINE),
        ("nonsense\n", {}, MACHINE),
    ],
)
def test_memory_is_the_machines_or_less(tmp_path, groups, limits, expected):
    assert tree(tmp_path, groups, limits) == expected


def test_without_groups_memory_is_the_machines(tmp_path):
    assert cost.host_memory(tmp_path) == MACHINE
    assert 0 < cost.host_memory() <= MACHINE


def test_what_does_not_fit_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(cost, "host_memory", lambda: 10_000_000_000)
    cost.require_memory(5e9, "kernels of 9 volumes")
    with pytest.raises(InputError) as refused:
        cost.require_memory(6e9, "kernels of 9 volumes")
    assert str(refused.value) == (
        "memory of this machine: found 10.0 GB; expected 12.0 GB for kernels of 9 volumes"
    )


def test_the_plan_says_when_trainings_stop():
    train = common.get_config().train.copy_and_resolve_references()
    kept = "an interrupted run resumes from its state, saved every 50 epochs and at a signal"
    assert plans.stops(train, 7) == f"stops: after 7 epochs; {kept}"
    train.update({"early_stop": True})
    assert plans.stops(train, 7) == (
        "stops: after 7 epochs, or after 50 epochs at rate 1e-05 without a new "
        f"minimum of the monitored loss; {kept}"
    )
