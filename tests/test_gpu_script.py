"""benchmarks/gpu.sh: its parts, their limits, and flags that their modules know."""

import importlib
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import gpu_check, gpu_layers, record, resnet3d_peers
from emojax.models import resnet3d

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
PART = re.compile(r"(\w+) (\d+) s: python -m (benchmarks\.\w+)(.*)")


def bash(*words):
    return subprocess.run(["bash", *map(str, words)], capture_output=True, text=True)


def parts():
    return [PART.fullmatch(line).groups() for line in bash(SCRIPT, "--list").stdout.splitlines()]


def test_its_syntax_is_right():
    assert bash("-n", SCRIPT).stderr == ""


def test_all_parts_fit_into_half_an_hour_and_each_into_nine_minutes():
    limits = [int(limit) for _, limit, _, _ in parts()]
    assert len(limits) == 10
    assert sum(limits) <= 30 * 60 and max(limits) <= 9 * 60


def test_an_unknown_part_is_refused_with_those_there_are(tmp_path):
    done = bash(SCRIPT, "layer", "--out", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    names = " ".join(name for name, *_ in parts())
    assert done.stderr == f"no part 'layer'; expected some of: {names}\n"


@pytest.mark.parametrize("module", sorted({module for _, _, module, _ in parts()}))
def test_modules_know_the_flags_that_the_script_gives(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main()
    assert end.value.code == 0
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    commands = re.findall(rf'"{module.split(".")[1]}\b([^"]*)"', SCRIPT.read_text())
    assert len(commands) >= 2  # in full, and a short trial
    assert set(re.findall(r"--\w+", " ".join(commands))) <= known


def kernels_of_resnet50():
    """Returns the shapes of all volume kernels of emojax' network, sorted."""
    model = resnet3d.resnet50(2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 44)))
    return sorted(own.shape for own in jax.tree.leaves(shapes["params"]) if len(own.shape) == 5)


def test_layers_are_the_convolutions_of_the_network():
    found = gpu_layers.layers()
    assert sorted(layer.kernel for layer in found.elements()) == kernels_of_resnet50()
    assert str(next(iter(found))) == "7x7x7 / 2, 1 -> 64 at 64x64x44"
    assert [*found][-1].output == (2, 2, 2, 512)


def test_the_network_in_torch_has_the_same_layers():
    pytest.importorskip("torch")
    state = resnet3d_peers.torch_network().state_dict()
    kernels = [tuple(own.shape) for own in state.values() if own.ndim == 5]
    assert sorted((*own[2:], own[1], own[0]) for own in kernels) == kernels_of_resnet50()


def test_results_go_to_one_file_where_the_environment_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv(record.ONE_FILE, str(tmp_path / "out" / "gpu.json"))
    monkeypatch.setattr(record, "environment", lambda: {"device": "CPU: one, 2 cores"})
    record.keep("a_gpu", "rows", [1])
    record.keep("b_gpu", "rows", {"two": 2})
    gpu_check.ended("a", "60", "7", "124")
    assert record.kept("a_gpu", "rows") == [1] and record.kept("b_gpu", "rows") == {"two": 2}
    assert record.kept("c_gpu", "rows") == {}
    stored = record.read(tmp_path / "out" / "gpu.json")
    assert stored["parts"] == {"a": {"limit_s": 60, "seconds": 7, "exit_code": 124}}


def test_numbers_of_a_cpu_are_not_kept_among_the_results(tmp_path, monkeypatch):
    monkeypatch.setenv(record.ONE_FILE, str(tmp_path / "gpu.json"))
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path / "results")
    for device, there in (("CPU: one, 2 cores", False), ("H; CPU: one, 2 cores", True)):
        monkeypatch.setattr(record, "environment", lambda device=device: {"device": device})
        record.keep("a", "rows", [1])
        gpu_check.ended("a", 60, 7, 0)
        assert (tmp_path / "results" / "gpu.json").exists() == there
