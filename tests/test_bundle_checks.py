"""Bundles with right hashes and one thing wrong: one line, and nothing is decoded."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

from emojax import decoder, files, hyperalignment
from emojax.decoder import commands, schema
from emojax.errors import InputError
from emojax.models import cnn1d, resnet3d
from emojax.models.folded import check_cnn1d, check_resnet3d

pytestmark = pytest.mark.usefixtures("quick_compile")
GRID, M, N = (6, 5, 4), 20, 48
NET = cnn1d.CNN1D(3, filters=(4, 3), window=3, dense=(8, 6))
F, NAN = np.float32, float("nan")
OPTIONS = hyperalignment.DEFAULTS._replace(scaling=False)
MASK = np.zeros(GRID, bool)
MASK[1:5] = True


def make_patterns():
    """Returns two runs of the voxels inside the mask, which the templates are parts of."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(N, 4)) @ rng.normal(size=(4, MASK.sum())) / 2).astype(F)


PATTERNS = make_patterns()


def make():
    params = NET.init(jax.random.key(0), np.zeros((1, M), F))["params"]
    facts = decoder.Facts(
        ("a", "b", "c"),
        GRID,
        800.0,
        20.0,
        2.0,
        "01",
        ("as scanned",),
        (("mask", 3, 0),),
        ("r1", "r2"),
    )
    return decoder.from_cnn1d(
        facts,
        params,
        mask=MASK,
        voxels=np.arange(3, 3 + M),
        mean=np.full(M, 800, F),
        sd=np.full(M, 20, F),
        template=PATTERNS[:, 3 : 3 + M],
        run=np.repeat([0, 1], N // 2),
        frame=np.tile(np.arange(N // 2), 2),
        affine=np.diag([3.0, 3, 3, 1]),
        options=OPTIONS,
    ).replace(reference=np.full(GRID, 800, F))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "good"
    decoder.save(make(), folder)
    decoder.load(folder)
    return folder


def make_bag(members=2):
    rng = np.random.default_rng(0)
    each = [
        decoder.Member(
            voxels=np.arange(M) + 5 * i,
            mean=np.full(M, 800, F),
            sd=np.full(M, 20, F),
            coef=rng.normal(size=(M, 3)),
            intercept=rng.normal(size=3),
            temperature=2.0,
            template=PATTERNS[:, 5 * i : 5 * i + M],
            run=np.repeat([0, 1], N // 2),
            frame=np.tile(np.arange(N // 2), 2),
        )
        for i in range(members)
    ]
    facts = decoder.Facts(("a", "b", "c"), GRID, 800.0, 20.0, runs=("r1", "r2"))
    facts = facts._replace(members=(("01", 2.0, 1e-2), ("02", 2.0, 1e-2)))
    return decoder.from_linear(facts, each, mask=MASK)


@pytest.fixture(scope="module")
def saved_bag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bag"
    decoder.save(make_bag(), folder)
    decoder.load(folder)
    return folder


@pytest.fixture
def bag(saved_bag, tmp_path):
    """Returns a copy that tests may change."""
    return shutil.copytree(saved_bag, tmp_path / "bundle")


@pytest.fixture
def bundle(saved, tmp_path):
    """Returns a copy that tests may change."""
    return shutil.copytree(saved, tmp_path / "bundle")


def rehash(folder, edit=lambda manifest: None):
    """Makes hashes and id agree with everything else, after a change of the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    edited = edit(manifest) or manifest
    edited["id"] = schema.identify(edited)
    path.write_text(json.dumps(edited))


def refused(folder, said):
    with pytest.raises(InputError) as error:
        decoder.load(folder)
    line = str(error.value)
    assert said in line and "\n" not in line and len(line) < 1500, line


@pytest.mark.parametrize(
    "content",
    [
        *("null", "[1]", '"x"', "", b"\xff", "[" * 200_000, '{"format": 1' + "0" * 5000 + "}"),
        *('{"a":' * 900 + "1" + "}" * 900, '{"format": 2, "format": 1}', '{"network": "\\ud800"}'),
    ],
    ids=[
        "null",
        "list",
        "text",
        "empty",
        "no utf-8",
        *("deep", "digits", "nested", "twice", "half"),
    ],
)
def test_manifests_that_are_none(bundle, content):
    content = content if isinstance(content, bytes) else content.encode()
    (bundle / "manifest.json").write_bytes(content)
    refused(bundle, "manifest.json: found a damaged manifest; expected one as it was saved")


NEEDED = ("facts", "network", "sha256", "format", "bounds", "program")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(({name: None}, f"manifest.json: found {name} None") for name in NEEDED),
        ({"facts": []}, "manifest.json: found facts []; expected a table"),
        ({"network": ["cnn1d"]}, "network ['cnn1d']; expected text"),
        ({"format": "1"}, "format '1'; expected a whole number in [1, 2]"),
        ({"format": True}, "format True; expected"),
        ({"sha256": []}, "sha256 []; expected a table"),
        ({"sha256": {}}, "no sha256 of weights.npz"),
        ({"sha256": {"weights.npz": "0"}}, "expected a table, each 64 hexadecimal digits"),
        ({"more": 1}, "'more', which is unknown"),
        ({"signature": "x"}, "signature 'x'"),
        ({"signature": {"key": "0" * 64, "signature": ""}}, "signature {'key'"),
        ({"bounds": {}}, "bounds that do not follow from its facts"),
        ({"bounds": {"sd": [0, 1e9], "mean": [-1e9, 1e9]}}, "bounds that do not follow"),
        ({"format": 99}, "a decoder of format 99"),
        ({"network": "x"}, "model.name: found 'x'"),
        ({"network": "os:system"}, "model.name: found 'os:system'"),
        ({"network": "resnet3d"}, "weights: found no "),
        ({"network": "strangers:MLP"}, "expected a network that can be folded"),
        ({"network": "strangers:LINEAR"}, "weights that do not fit"),
    ],
)
def test_manifests_with_one_thing_wrong(bundle, change, said):
    rehash(bundle, lambda manifest: manifest | change)
    refused(bundle, said)


@pytest.mark.parametrize(
    "fact",
    [
        *(
            {"classes": v}
            for v in (None, "abc", [1, 2, 3], ["a"] * 3, ["a", "b", ""], [["a"], "b"])
        ),
        *({"grid": value} for value in ([6, 5], "abc", [10**30, 5, 4], [6.0, 5, 4], [0, 5, 4])),
        *({"level": value} for value in (NAN, "x", None, True, 1e300, 10**400)),
        *({"spread": value} for value in (0, NAN, -1, 1e308, float("inf"), [1])),
        *({"tr": value} for value in (-2, "2", NAN, 0)),
        *({"subject": value} for value in (7, None)),
        *({"runs": value} for value in ("ab", [1, 2], ["a", "a"])),
        *({"preprocessing": value} for value in (None, "x", [1])),
        *({"provenance": v} for v in ([1], [["a", 1]], [["a", -1, 0]], [[1, 1, 1]], {"a": 1})),
        *({"alignment": v} for v in (7, [["x", 1]], [["scaling", 1]], [["alpha", 2.0]], [[]])),
        *({"alignment": v} for v in ([["method", "qr"]], [["demean", True]] * 2, ["scaling"])),
        *({name: v} for name in ("kind", "left_out") for v in (None, 3)),
        *({"members": v} for v in (7, [["01", 1.0]], [["01", 0.0, 1.0]], [[1, 1.0, 1.0]])),
        *({"temperature": v} for v in (0, -1.0, None, NAN)),
        {"unknown": 1},
    ],
    ids=repr,
)
def test_facts_out_of_range(bundle, fact):
    rehash(bundle, lambda manifest: manifest["facts"].update(fact))
    refused(bundle, "manifest.json: found ")


@pytest.mark.parametrize("name", ["classes", "grid", "level", "spread"])
def test_facts_that_are_missing(bundle, name):
    rehash(bundle, lambda manifest: manifest["facts"].pop(name) and None)
    refused(bundle, f"manifest.json: found no {name}")


def test_facts_of_an_older_version_may_lack_the_later_ones(bundle):
    def older(manifest):
        for name in ("runs", "alignment", "provenance"):
            del manifest["facts"][name]

    rehash(bundle, older)
    assert decoder.load(bundle).facts.runs == ()


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]])
def test_another_number_of_classes(bundle, classes):
    rehash(bundle, lambda manifest: manifest["facts"].update(classes=classes))
    refused(bundle, f"one for each class; got 3); expected those of cnn1d for {len(classes)} class")


def test_another_grid(bundle):
    rehash(bundle, lambda manifest: manifest["facts"].update(grid=[6, 5, 5]))
    refused(bundle, "mask: found bool of shape (6, 5, 4); expected a bool mask of (6, 5, 5)")


def changed(folder, name, change):
    """Rewrites an archive: name -> array, or a function of the old one, or None to drop it."""
    with np.load(folder / name) as old:
        arrays = dict(old)
    for key, value in change.items():
        new = value(arrays[key]) if callable(value) else value
        arrays.pop(key, None)
        if new is not None:
            arrays[key] = new
    np.savez(folder / name, **arrays)
    rehash(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"voxels": np.full(M, 10**6, np.int32)}, "outside the mask"),
        ({"voxels": np.full(M, -5, np.int32)}, "outside the mask"),
        ({"voxels": np.arange(M, dtype=np.int32)}, "20 of 20 outside the mask"),
        ({"voxels": np.full(M, 50, np.int32)}, "a position twice"),
        ({"voxels": np.zeros(M, F)}, "float32 of shape (20,)"),
        ({"voxels": np.zeros((M, 2), np.int32)}, "int32 of shape (20, 2)"),
        ({"voxels": lambda v: v[: M // 2]}, "centre: found float32 of shape (20,)"),
        ({"voxels": None}, "no voxels"),
        ({"voxels": np.array(["a"])}, "<U1 of shape (1,)"),
        ({"voxels": np.array([None], object)}, "of Python objects"),
        ({"extra": np.zeros(3)}, "weights that do not fit"),
        ({"voxels/0": np.zeros(3)}, "arrays called"),
        ({"layers/0/0": None}, "arrays called"),
        ({"layers/0/0": lambda k: k.T}, "want layers/0: kernel [20, n] and bias [n]"),
        (
            {"layers/1/0": lambda k: k[:, :0], "layers/1/1": np.zeros(0, F)},
            "weights that do not fit",
        ),
        ({"layers/0/1": lambda b: b[:1]}, "weights that do not fit"),
        ({"layers/0/1": lambda b: b[None]}, "weights that do not fit"),
        ({"layers/0/0": lambda k: k * NAN}, "values that are not finite"),
        ({"layers/0/0": lambda k: k.astype(complex)}, "complex128 of shape"),
        ({"layers/0/0": lambda k: k.astype(int)}, "int64 of shape"),
        ({"layers/0/0": lambda k: k > 0}, "bool of shape"),
    ],
)
def test_weights_with_one_thing_wrong(bundle, change, said):
    changed(bundle, "weights.npz", change)
    refused(bundle, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": np.ones((3, 3, 3), bool)}, "mask: found bool of shape (3, 3, 3)"),
        ({"mask": np.zeros(GRID, bool)}, "mask: found no voxel"),
        ({"mask": np.ones(GRID, F)}, "mask: found float32"),
        ({"mask": None}, "context: found affine, reference; expected mask"),
        ({"more": np.zeros(1)}, "context: found affine, mask, more, reference"),
        ({"reference": np.zeros((3, 3, 3), F)}, "reference: found float32 of shape (3, 3, 3)"),
        ({"reference": np.full(GRID, NAN, F)}, "reference inside the mask: found values that"),
        ({"reference": np.zeros(GRID, int)}, "reference: found int64"),
        ({"affine": np.eye(3)}, "affine: found float64 of shape (3, 3)"),
        ({"affine": np.full((4, 4), NAN)}, "affine: found"),
        ({"affine": np.eye(4) * 1j}, "affine: found complex128"),
        ({"affine": np.array("x")}, "affine: found <U1"),
    ],
)
def test_contexts_with_one_thing_wrong(bundle, change, said):
    changed(bundle, "context.npz", change)
    refused(bundle, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template": np.zeros((N, 5), F)}, f"template: found shape ({N}, 5)"),
        ({"template": np.zeros(M, F)}, "template: found shape (20,)"),
        ({"template": lambda t: t * NAN}, "template: found"),
        ({"template": lambda t: t.astype("f2")}, "template: found float16"),
        ({"frame": None}, "expected frame, mean, params, run, sd, template"),
        ({"frame": lambda f: f - 3}, "frame: found numbers from -3"),
        ({"frame": lambda f: f.astype(float)}, "frame: found float64"),
        ({"frame": lambda f: f[:5]}, "frame: found int64 of shape (5,)"),
        (
            {"run": lambda r: r + 1},
            "run: found numbers from 1 to 2; expected numbers from 0 to 1",
        ),
        ({"mean": np.zeros(3, F)}, "mean: found shape (3,)"),
        ({"sd": lambda s: -s}, "sd: found negative values"),
        ({"sd": None}, "calibration: found frame, mean, params"),
        ({"more": np.zeros(1)}, "calibration: found frame, mean, more"),
        ({"params/conv1/bias": lambda b: b * NAN}, "params/conv1/bias: found"),
        ({"params/conv1/bias": np.array("x")}, "params/conv1/bias: found"),
    ],
)
def test_calibrations_with_one_thing_wrong(bundle, change, said):
    changed(bundle, "calibration.npz", change)
    refused(bundle, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": lambda k: k[:, :1]}, "want kernel [25, members, 3] and bias [members, 3]"),
        ({"kernel": lambda k: k[..., 0]}, "want kernel"),
        ({"kernel": None}, "want kernel and bias; got bias"),
        ({"kernel": lambda k: k * NAN}, "kernel: values that are not finite"),
        ({"bias": lambda b: b[:0], "kernel": lambda k: k[:, :0]}, "want kernel"),
        ({"bias": lambda b: b[:, :2], "kernel": lambda k: k[..., :2]}, "want kernel"),
        ({"centre": lambda c: c[:-1]}, "centre: found float32 of shape (24,)"),
        ({"centre": lambda c: c.astype(int)}, "centre: found int64"),
        ({"centre": lambda c: c * NAN}, "centre: values that are not finite"),
        ({"temperature": np.zeros((), F)}, "temperature: found 0.0"),
        ({"temperature": np.ones(2, F)}, "temperature: found float32 of shape (2,)"),
    ],
)
def test_weights_of_a_bag_with_one_thing_wrong(bag, change, said):
    changed(bag, "weights.npz", change)
    first, *rest = said.split(": ", 1)
    with pytest.raises(InputError) as error:
        decoder.load(bag)
    assert all(part in str(error.value) for part in (first, *rest)), str(error.value)


MEMBERS = "members"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({f"{MEMBERS}/1/voxels": None}, "members/1: found no voxels"),
        ({f"{MEMBERS}/1/voxels": lambda v: v + 60}, "members/1/voxels: found"),
        ({f"{MEMBERS}/1/voxels": lambda v: v[:-1]}, "members/1: mean: found shape (20,)"),
        ({f"{MEMBERS}/0/sd": lambda s: -s}, "members/0: sd: found negative"),
        ({f"{MEMBERS}/0/run": None}, "members/0: found frame, mean, params"),
        ({f"{MEMBERS}/0/run": lambda r: r + 1}, "members/0: run: found numbers from 1"),
        ({f"{MEMBERS}/0/params/coef": lambda c: c * NAN}, "members/0: params/coef: found"),
        ({"more": np.zeros(3)}, "calibration: found members, more"),
        ({f"{MEMBERS}/x": np.zeros(3)}, "calibration: found members"),
    ],
)
def test_members_with_one_thing_wrong(bag, change, said):
    changed(bag, "calibration.npz", change)
    refused(bag, said)


@pytest.mark.parametrize("name", ["coef", "intercept"])
def test_parameters_of_another_member(bag, name):
    changed(bag, "calibration.npz", {f"{MEMBERS}/1/params/{name}": lambda c: c[:2]})
    loaded, x = decoder.load(bag), like_run(0)
    decoder.decode(loaded, x[0])
    decoder.calibrate(make_bag(), x, "new", "r1")
    with pytest.raises(InputError, match="found a network that cannot be folded again"):
        decoder.calibrate(loaded, x, "new", "r1")


@pytest.mark.parametrize("name", [*decoder.FILES, "manifest.json"])
def test_files_that_are_folders(bundle, name):
    (bundle / name).unlink()
    (bundle / name).mkdir()
    refused(bundle, name)
    refused(bundle / "context.npz", "found ")


def test_saving_checks_too(tmp_path):
    made = make()
    layers = [(k * F(NAN), b) for k, b in made.weights["layers"]]
    broken = made.replace(weights=made.weights | {"layers": layers})
    with pytest.raises(InputError, match="values that are not finite"):
        decoder.save(broken, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_the_facts_of_a_decoder_are_read_back():
    facts = make().facts
    stored = json.loads(json.dumps(facts._asdict()))
    assert schema.read_facts(stored, "manifest") == facts
    assert dict(facts.alignment) == OPTIONS._asdict()


def volumes(rng, t):
    return (800 + 20 * rng.normal(size=(t, *GRID))).astype(F)


def like_run(number):
    """Returns volumes that follow a run of the template."""
    x = volumes(np.random.default_rng(0), N // 2)
    x[:, MASK] += 20 * PATTERNS[N // 2 * number :][: N // 2]
    return x


def test_an_output_that_is_not_finite_is_refused(bundle):
    changed(bundle, "weights.npz", {"layers/0/0": lambda k: k * F(1e38) / np.abs(k).max()})
    loaded = decoder.load(bundle)
    with pytest.raises(InputError, match=r"volume: found probabilities that are not finite"):
        decoder.decode(loaded, volumes(np.random.default_rng(0), 1)[0])


def test_a_constant_run_calibrates_nothing():
    x = np.repeat(like_run(0)[:1], N, 0)
    with pytest.raises(InputError, match="run: found 47 of 48 volumes that are the same as the"):
        decoder.calibrate(make(), x, "new", "r1")
    x = like_run(0)
    x.reshape(len(x), -1)[:, np.flatnonzero(MASK)[3 : 3 + M]] = 800  # those of the decoder
    with pytest.raises(InputError, match="calibration run: found want voxels that vary"):
        decoder.calibrate(make(), x, "new", "r1")


def test_noise_calibrates_nothing():
    x = volumes(np.random.default_rng(0), N // 2)
    with pytest.raises(InputError, match=r"run: found a run that fits (best|no better)"):
        decoder.calibrate(make(), x, "new", "r1")


def test_runs_are_names_or_numbers():
    made, x = make(), like_run(1)
    nameless = made.replace(facts=made.facts._replace(runs=()))
    decoder.calibrate(nameless, x, "new", "1")
    with pytest.raises(InputError, match=r"fits r2 better .* \(is it --run=r2\?\)"):
        decoder.calibrate(made, x, "new", "r1")
    for run in ("9" * 5000, "\u00b2", "\u0661", "-1", "99", "1.0", "a\nb", ""):
        for given in (made, nameless):
            with pytest.raises(InputError, match=r"run: found .*; expected one of"):
                decoder.calibrate(given, x, "new", run)


def test_parameters_of_another_network(bundle):
    changed(bundle, "calibration.npz", {"params/dense1/kernel": lambda k: k[:-1]})
    loaded, x = decoder.load(bundle), like_run(0)
    decoder.decode(loaded, x[0])  # needs the folded weights only
    decoder.calibrate(make(), x, "new", "r1")
    with pytest.raises(InputError, match="found a network that cannot be folded again"):
        decoder.calibrate(loaded, x, "new", "r1")


def test_resnet_weights_with_one_thing_wrong(tmp_path):
    grid = (9, 9, 9)
    model = resnet3d.ResNet3D(2, (1, 2), True, width=2)
    variables = model.init(jax.random.key(0), np.zeros((1, *grid), F))
    facts = decoder.Facts(("a", "b"), grid, 800.0, 50.0)
    scale = {"mean": np.full(grid, 800, F), "sd": np.full(grid, 50, F)}
    made = decoder.from_resnet3d(facts, variables["params"], variables["batch_stats"], **scale)
    decoder.save(made, tmp_path / "good")
    for i, (change, said) in enumerate(
        (
            ({"sd": np.zeros(grid, F)}, "an sd of 0"),
            ({"mean": np.full(grid, NAN, F)}, "a mean that is not finite"),
            ({"mean": np.zeros(3, F)}, "mean: found float32 of shape (3,)"),
            ({"mean": None}, "no mean"),
            ({"stem/0": lambda k: k[:3]}, "want stem: kernel [7, 7, 7, 1, n]"),
            ({"stages/1/0/shortcut/0": None, "stages/1/0/shortcut/1": None}, "do not fit"),
            ({"stages/1/1/conv3/1": lambda b: b[:-1]}, "do not fit"),
            ({"stages/1/1/before/1": lambda b: b[:-1]}, "do not fit"),
            ({"final/0": lambda a: a[:1]}, "want final: two arrays"),
            ({"head/0/0": lambda k: k[:, :1], "head/0/1": lambda b: b[:1]}, "one for each class"),
            ({"stages/0/0/conv2/0": lambda k: k * NAN}, "values that are not finite"),
        )
    ):
        folder = shutil.copytree(tmp_path / "good", tmp_path / str(i))
        changed(folder, "weights.npz", change)
        refused(folder, said)


def test_foldings_return_what_the_checks_expect():
    made = make()
    check_cnn1d({"layers": made.weights["layers"]}, M, 3)
    for depth in ((1,), (2, 1)):
        for bottleneck in (True, False):
            model = resnet3d.ResNet3D(2, depth, bottleneck, width=2, head_features=3)
            v = model.init(jax.random.key(0), np.zeros((1, 9, 9, 9), F))
            folded = resnet3d.fold_resnet3d(v["params"], v["batch_stats"])
            check_resnet3d(folded, 0, 2)
            check_resnet3d(files.unflatten(files.flatten(folded)), 0, 2)


def test_commands_end_in_one_line_and_leave_nothing(bundle, tmp_path):
    changed(bundle, "context.npz", {"affine": lambda a: a * NAN})
    for call in (commands.decode, commands.calibrate):
        more = ("x", "") if call is commands.calibrate else ()
        with pytest.raises(InputError, match="affine"):
            call(str(bundle), str(tmp_path / "no.nii"), str(tmp_path / "new"), *more)
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())
