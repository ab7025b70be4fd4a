"""The dtype of networks of volumes: what each setting means, and that a run keeps its own."""

import json

import pytest
from ml_collections import ConfigDict

from emojax.experiments import dtypes
from emojax.models import precision
from emojax.training import ownership


@pytest.fixture
def measured(monkeypatch):
    """Replaces the measurement, and counts how often it is asked for."""
    seconds, asked = {"float32": 1.0, "bfloat16": 0.5}, []

    def measure(width):
        asked.append(width)
        return seconds

    monkeypatch.setattr(precision, "measure", measure)
    monkeypatch.setattr(precision, "_has_instructions", lambda: True)
    return seconds, asked


def test_only_auto_measures(measured):
    seconds, asked = measured
    names = ("float32", "bfloat16", "device")
    assert [precision.settle(name) for name in names] == ["float32", "bfloat16", "float32"]
    assert not asked
    assert precision.settle("auto", 16) == "bfloat16"
    assert asked == [16]
    seconds["bfloat16"] = 0.95  # too little to be worth the rounding
    assert precision.settle("auto") == "float32"


def test_without_the_instructions_nothing_is_measured(measured, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "_has_instructions", lambda: False)
    assert precision.settle("auto") == "float32"
    assert not measured[1]


def test_accelerators_compute_in_bfloat16(measured, monkeypatch):
    monkeypatch.setattr(precision.jax, "default_backend", lambda: "gpu")
    assert precision.settle("auto") == precision.settle("device") == "bfloat16"
    assert not measured[1]


def test_instructions_are_whole_words(tmp_path):
    for text, has in (
        ("flags : avx512_bf16 avx2", True),
        ("flags : amx_bf16", True),
        ("flags : avx512_bf162", False),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        assert precision._has_instructions(str(tmp_path / "cpuinfo")) == has
    assert not precision._has_instructions(str(tmp_path / "absent"))


def test_times_both():
    seconds = precision.measure(4)
    assert seconds.keys() == {"float32", "bfloat16"} and min(seconds.values()) > 0
    assert precision.measure(4) is seconds  # once in a process


def test_a_workdir_keeps_its_dtype(measured, tmp_path):
    seconds, asked = measured
    config = ConfigDict({"model": {"dtype": "auto", "width": 8}}).lock()
    first = dtypes.settle(config, tmp_path)
    assert (first.model.dtype, config.model.dtype, first.is_locked) == ("bfloat16", "auto", True)
    (tmp_path / "config.json").write_text(json.dumps({"format": 2, "config": first.to_dict()}))
    seconds["bfloat16"] = 2.0
    assert dtypes.settle(config, tmp_path).model.dtype == "bfloat16"
    assert asked == [8]
    assert dtypes.settle(config, tmp_path / "new").model.dtype == "float32"


def test_an_older_workdir_means_by_auto_what_device_means(measured, tmp_path):
    stored = {"format": 2, "config": {"model": {"dtype": "auto"}}}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert ownership.read_config(tmp_path)["model"]["dtype"] == "device"
    for asked in ("auto", "device"):
        config = ConfigDict({"model": {"dtype": asked, "width": 8}})
        plain = dtypes.settle(config, tmp_path).to_dict()
        assert plain["model"]["dtype"] == "device"
    ownership.check_config(tmp_path, {"model": {"dtype": "device"}})
    assert not measured[1]


@pytest.mark.parametrize("text", ["", "[]", '{"config": {"model": {}}}', '{"config": null}'])
def test_other_files_settle_nothing(measured, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    config = ConfigDict({"model": {"dtype": "auto", "width": 8}})
    assert dtypes.settle(config, tmp_path).model.dtype == "bfloat16"


def test_other_settings_stay(tmp_path):
    for model in ({"dtype": "device"}, {"dtype": "float32"}, {}):
        config = ConfigDict({"model": model})
        assert dtypes.settle(config, tmp_path) is config
