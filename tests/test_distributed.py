"""Two processes of one machine train as one: the same curve."""

import socket
import subprocess
import sys

import numpy as np
import pytest
import tiny_training as tiny

SCRIPT = """
import sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
sys.path.insert(0, "tests")
import numpy as np
from emojax.training import feeds
import tiny_training as tiny
assert jax.device_count() == 4 and len(jax.local_devices()) == 2
for name, kind in (("resident", feeds.Resident), ("streamed", feeds.Streamed)):
    found = tiny.trained(tiny.program(4), kind=kind)
    if jax.process_index() == 0:
        np.savez(f"{sys.argv[3]}/{name}.npz", **found)
"""


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(quick_compile, tmp_path):
    reference = tiny.trained(tiny.program())
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, address, str(i), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [worker.communicate(timeout=240)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    for name in ("resident", "streamed"):
        with np.load(tmp_path / f"{name}.npz") as found:
            tiny.same(dict(found), reference)
