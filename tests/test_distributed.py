"""Two processes of one machine train as one: the same curve."""

import socket
import subprocess
import sys

import numpy as np
import pytest
from test_fitting import reference, same_curves  # noqa: F401

SCRIPT = """
import sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
sys.path.insert(0, "tests")
import numpy as np
from emojax import fitting
import test_fitting
assert jax.device_count() == 4 and len(jax.local_devices()) == 2
for name, kind in (("resident", fitting.Resident), ("streamed", fitting.Streamed)):
    found = test_fitting.trained(test_fitting.program(4), kind)
    if jax.process_index() == 0:
        np.savez(f"{sys.argv[3]}/{name}.npz", **found)
"""


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(reference, tmp_path):  # noqa: F811
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
            same_curves(dict(found), reference)
