"""Programs of decoders that are kept: the same numbers, and compiled afresh where one is odd."""

import jax
import numpy as np
import pytest

import tests.tiny_decoder as tiny
from emojax import compiled, decoder
from emojax.decoder import native
from emojax.models import resnet3d

IMPORTANT = "jax_compilation_cache_dir", "jax_enable_compilation_cache"


@pytest.fixture
def kept(tmp_path):
    """Returns the folder of the programs, which does not exist at first."""
    before = [getattr(jax.config, name) for name in IMPORTANT]
    for name, value in zip(IMPORTANT, (str(tmp_path / "cache"), True), strict=True):
        jax.config.update(name, value)
    native._opened.cache_clear()
    yield compiled.programs()
    native._opened.cache_clear()
    for name, value in zip(IMPORTANT, before, strict=True):
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    made, later, _ = tiny.made()
    folder = tmp_path_factory.mktemp("native") / "decoder"
    decoder.save(made, folder)
    return folder, later[:2]


def compilations(monkeypatch):
    """Returns a list that grows by one with each compiled program."""
    found, lower = [], native._jitted.lower
    monkeypatch.setattr(native._jitted, "lower", lambda *a: (found.append(a), lower(*a))[1])
    return found


def by_jit(loaded, volume):
    x = decoder.decode.__globals__["inputs"](loaded, volume)[None]
    weights = {name: part for name, part in loaded.weights.items() if name != "voxels"}
    return np.asarray(native._jitted(loaded.network, weights, x))[0]


def test_a_program_is_compiled_once_and_says_what_jit_says(bundle, kept, monkeypatch):
    folder, volumes = bundle
    made = compilations(monkeypatch)
    for _ in range(2):
        native._opened.cache_clear()  # as if by two processes
        loaded = decoder.load(folder)
        for volume in volumes:
            assert (decoder.decode(loaded, volume) == by_jit(loaded, volume)).all()
    assert len(made) == 1 and len(list(kept.iterdir())) == 1


def test_other_weights_of_the_same_shapes_share_a_program(bundle, kept, monkeypatch):
    folder, (volume, _) = bundle
    made, loaded = compilations(monkeypatch), decoder.load(folder)
    other = loaded.replace(weights=loaded.weights | {"bias": loaded.weights["bias"] + 1e-3 * 7})
    first, second = (decoder.decode(own, volume) for own in (loaded, other))
    assert len(made) == 1
    assert (second == by_jit(other, volume)).all() and np.isfinite(first).all()


@pytest.mark.parametrize("how", ["half", "noise", "native"])
def test_a_damaged_program_is_compiled_afresh(bundle, kept, monkeypatch, how):
    folder, (volume, _) = bundle
    wanted = decoder.decode(decoder.load(folder), volume)
    (file,) = kept.iterdir()
    if how == "native":  # written as it ought to be, but nothing that XLA knows
        compiled.write(file.stem, b"\x7fELF" + bytes(5000))
    else:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if how == "half" else bytes(len(content)))
    made = compilations(monkeypatch)
    native._opened.cache_clear()
    assert (decoder.decode(decoder.load(folder), volume) == wanted).all()
    assert len(made) == 1
    native._opened.cache_clear()
    assert (decoder.decode(decoder.load(folder), volume) == wanted).all()
    assert len(made) == 1  # the new one took its place


def test_everything_that_changes_a_program_changes_its_name(bundle, kept, monkeypatch):
    loaded = decoder.load(bundle[0])
    weights, takes = native._weights(loaded), ((1, 5), np.dtype(np.float32))
    device = jax.devices()[0]

    def key(takes=takes):
        return native._key("linear", weights, takes, device)

    names = {key(), key(((1, 6), takes[1])), key(((1, 5), np.dtype(np.float64)))}
    with jax.default_matmul_precision("highest"):
        names.add(key())
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    names.add(key())
    for owner, name, value in (
        (native, "cores", 77),
        (native, "_code", ["other"]),
        (compiled, "machine", "other"),
    ):
        monkeypatch.setattr(owner, name, lambda value=value: value)
        names.add(key())
    assert len(names) == 8 and key() in names


def test_another_precision_is_another_program(bundle, kept):
    folder, (volume, _) = bundle
    loaded = decoder.load(folder)
    decoder.decode(loaded, volume)
    with jax.default_matmul_precision("highest"):
        assert (decoder.decode(loaded, volume) == by_jit(loaded, volume)).all()
    assert len(list(kept.iterdir())) == 2


def test_what_was_not_loaded_keeps_nothing(kept):
    made, later, _ = tiny.made()
    assert np.isfinite(decoder.decode(made, later[0])).all()
    assert not kept.exists()


def test_keep_compiles_for_those_who_will_load(bundle, kept, monkeypatch):
    native.keep(tiny.made()[0])
    made = compilations(monkeypatch)
    decoder.decode(decoder.load(bundle[0]), bundle[1][0])
    assert not made and len(list(kept.iterdir())) == 1


def test_a_program_that_cannot_be_kept_is_used_all_the_same(bundle, kept, monkeypatch):
    def refuse(key, content):
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(compiled, "write", refuse)
    loaded = decoder.load(bundle[0])
    assert (decoder.decode(loaded, bundle[1][0]) == by_jit(loaded, bundle[1][0])).all()
    assert native._opened.cache_info().currsize > 0


def test_weights_may_change(bundle, kept):
    loaded = decoder.load(bundle[0])
    before = decoder.decode(loaded, bundle[1][0])
    loaded.weights["bias"] = loaded.weights["bias"] + jax.numpy.arange(len(before)) * 3.0
    after = decoder.decode(loaded, bundle[1][0])
    assert (after == by_jit(loaded, bundle[1][0])).all() and not (after == before).all()


@pytest.fixture
def volumes(tmp_path):
    """Returns the bundle of a small network of volumes, and a volume."""
    grid, rng = (12, 10, 9), np.random.default_rng(0)
    model = resnet3d.ResNet3D(2, (1,), True, width=2)
    x = (800 + 50 * rng.normal(size=(1, *grid))).astype(np.float32)
    parts = jax.jit(model.init)(jax.random.key(0), x)
    facts = decoder.Facts(("a", "b"), grid, 800.0, 50.0)
    scale = {"mean": np.full(grid, 800, np.float32), "sd": np.full(grid, 50, np.float32)}
    made = decoder.from_resnet3d(facts, parts["params"], parts["batch_stats"], **scale)
    decoder.save(made, tmp_path / "volumes")
    return tmp_path / "volumes", x[0]


def test_a_network_of_volumes_is_compiled_while_it_is_read(volumes, kept, monkeypatch):
    folder, volume = volumes
    made = compilations(monkeypatch)
    loaded = decoder.load(folder)
    assert (decoder.decode(loaded, volume) == by_jit(loaded, volume)).all()
    assert len(made) == 1  # by the thread, not by this one


def test_settings_that_hold_for_the_caller_alone_hold_for_its_program(volumes, kept, monkeypatch):
    folder, volume = volumes
    made = compilations(monkeypatch)
    with jax.default_matmul_precision("highest"):
        loaded = decoder.load(folder)
        assert (decoder.decode(loaded, volume) == by_jit(loaded, volume)).all()
    assert len(made) == 1  # by this thread: the other one does not have the setting
    assert (decoder.decode(loaded, volume) == by_jit(loaded, volume)).all()
    assert len(made) == 2
