"""Linear decoders: bags and single classifiers as one matrix, against NumPy in float64."""

import json

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from emojax import alignment, decoder, fusion, hyperalignment, models, procrustes
from emojax.decoder import build, schema
from emojax.errors import InputError
from emojax.models import linear, residual
from emojax.scoring import bag

pytestmark = pytest.mark.usefixtures("quick_compile")
GRID, KEEP, FRAMES = (6, 5, 4), 25, 24
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
LEVEL = 12_000.0  # scanner units may be large; their changes are some tens


@pytest.fixture(scope="module")
def study():
    """Returns three training subjects and a test subject: mask, values, labels, run, frame."""
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID, bool)
    mask[1:5, :, 1:] = True
    y = np.tile(np.repeat(np.arange(3), 4), 4)
    run, frame = np.repeat([0, 1], FRAMES), np.tile(np.arange(FRAMES), 2)
    source = rng.normal(size=(len(y), 15)) + 2 * rng.normal(size=(3, 15))[y]
    image = LEVEL + 500 * rng.normal(size=mask.sum())
    values = [
        image + 20 * (source @ rng.normal(size=(15, mask.sum())) + rng.normal(size=(len(y), 1)))
        for _ in range(4)
    ]
    return mask, np.float32(values), y, run, frame


def make_member(study, held_back, scored_run):
    """Returns the member of the bag that subject `held_back` monitors, and the map of the run."""
    _, values, y, run, frame = study
    train, test = [i for i in range(3) if i != held_back], values[3]
    voxels = np.random.default_rng(held_back).permutation(values.shape[2])[:KEEP]
    model = hyperalignment.fit(values[train][:, :, voxels])
    aligned = np.asarray(hyperalignment.transform(model.mappings, values[train][:, :, voxels]))
    aligned = aligned.reshape(-1, KEEP)
    mean, sd = aligned.mean(0), aligned.std(0)
    own = alignment.independent_runs(model, values[held_back][:, voxels], np.arange(len(y)))
    monitored = (np.asarray(procrustes.transform(own, values[held_back][:, voxels])) - mean) / sd
    fitted = bag.fit_member((aligned - mean) / sd, np.tile(y, 2), monitored, y)
    rows = np.flatnonzero(run != scored_run)
    mapping = alignment.independent_runs(model, test[rows][:, voxels], rows)
    rest = mapping, np.asarray(model.template), run, frame
    return decoder.Member(
        voxels, mean, sd, fitted.coef, fitted.intercept, fitted.temperature, *rest
    )


def make_bag(study, scored_run=1):
    members = [make_member(study, held_back, scored_run) for held_back in range(3)]
    facts = decoder.Facts(("a", "b", "c"), GRID, LEVEL, 500.0, 2.0, "s3", ("as scanned",))
    facts = facts._replace(kind="bag of 3 logistic decoders", left_out="s3", runs=("r1", "r2"))
    facts = facts._replace(
        members=tuple((f"s{i}", float(own.temperature), 1e-2) for i, own in enumerate(members))
    )
    return members, decoder.from_linear(facts, members, mask=study[0], affine=AFFINE)


@pytest.fixture(scope="module")
def made(study):
    return make_bag(study)


def expected(members, values):
    """Returns the mean of the members' probabilities of rows [t, voxels of the mask], float64."""
    found = []
    with jax.enable_x64(True):
        for own in members:
            x = np.float64(values[:, own.voxels])
            if own.mapping is not None:
                exact = jax.tree.map(np.float64, own.mapping)
                x = np.asarray(procrustes.transform(exact, x))
            z = (x - own.mean) / own.sd
            found.append(softmax((z @ own.coef + own.intercept) / own.temperature, axis=1))
    return np.mean(found, axis=0)


def volumes(study, run):
    mask, values, _, runs, _ = study
    out = np.zeros((FRAMES, *GRID), np.float32)
    out[:, mask] = values[3][runs == run]
    return out


def test_a_bag_is_one_matrix_over_the_voxels_of_all_members(study, made):
    members, got = made
    union = np.unique(np.concatenate([own.voxels for own in members]))
    assert KEEP < len(union) < 3 * KEEP
    np.testing.assert_array_equal(got.weights["voxels"], np.flatnonzero(study[0])[union])
    assert got.weights["kernel"].shape == (len(union), 3, 3)
    for i, own in enumerate(members):
        assert not got.weights["kernel"][~np.isin(union, own.voxels), i].any()


def test_volume_by_volume_it_says_what_the_members_say(study, made):
    members, bundle = made
    x = volumes(study, 1)
    want = expected(members, x[:, study[0]])
    assert (want.argmax(1) == study[2][study[3] == 1]).mean() > 0.8
    got = np.stack([decoder.decode(bundle, v, AFFINE) for v in x])
    np.testing.assert_allclose(got, want, atol=1e-5)
    f = fusion.fuse(bundle)
    np.testing.assert_allclose(jax.jit(f)(x), want, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(f)(x[:3]), want[:3], atol=1e-5)


def test_it_comes_back_from_disk_and_runs_without_the_package(study, made, tmp_path):
    members, bundle = made
    x = volumes(study, 1)
    decoder.save(bundle, tmp_path / "bundle")
    loaded = decoder.load(tmp_path / "bundle")
    assert (loaded.facts, loaded.network) == (bundle.facts, "linear")
    assert jax.tree.structure(loaded.calibration) == jax.tree.structure(bundle.calibration)
    facts = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["facts"]
    assert facts["kind"] == "bag of 3 logistic decoders"
    assert [name for name, *_ in facts["members"]] == ["s0", "s1", "s2"]
    program = jax.export.deserialize((tmp_path / "bundle" / "program.bin").read_bytes())
    with np.load(tmp_path / "bundle" / "weights.npz") as weights:
        got = program.call([weights[name] for name in weights], x[0])
        kernel, bias, centre = (np.float64(weights[n]) for n in ("kernel", "bias", "centre"))
        voxels = weights["voxels"]
    want = expected(members, x[:, study[0]])
    np.testing.assert_allclose(got, want[0], atol=1e-5)
    np.testing.assert_allclose(decoder.decode(loaded, x[0]), want[0], atol=1e-5)
    logits = np.einsum("tv,vmk->tmk", x.reshape(len(x), -1)[:, voxels] - centre, kernel) + bias
    np.testing.assert_allclose(softmax(logits, axis=2).mean(1), want, atol=1e-5)


def test_calibration_fits_a_map_for_every_member(study, made):
    _, bundle = made
    mapped, _ = make_bag(study, scored_run=0)  # by run 1
    again = decoder.calibrate(bundle, volumes(study, 1), "new", "r2", AFFINE)
    x = volumes(study, 0)
    got = np.stack([decoder.decode(again, v) for v in x])
    np.testing.assert_allclose(got, expected(mapped, x[:, study[0]]), atol=1e-5)
    assert (again.facts.subject, again.facts.left_out) == ("new", "s3")
    assert again.facts.members == bundle.facts.members
    with pytest.raises(InputError, match="run: found 'r9'; expected one of r1, r2"):
        decoder.calibrate(bundle, volumes(study, 1), "new", "r9")
    with pytest.raises(InputError, match="20 volumes; expected 24 or more"):
        decoder.calibrate(bundle, volumes(study, 1)[:20], "new", "r2")


def test_a_run_that_one_member_lacks_cannot_calibrate(study, made):
    members, bundle = made
    rows = members[1].run == 0
    some = {name: getattr(members[1], name)[rows] for name in ("template", "run", "frame")}
    members = [members[0], members[1]._replace(**some), members[2]]
    less = decoder.from_linear(bundle.facts, members, mask=study[0])
    decoder.calibrate(less, volumes(study, 0), "new", "r1")
    with pytest.raises(InputError, match="run: found 'r2'; expected one of r1"):
        decoder.calibrate(less, volumes(study, 1), "new", "r2")
    no = decoder.from_linear(bundle.facts, [members[0]._replace(template=None)], mask=study[0])
    with pytest.raises(InputError, match="found no template"):
        decoder.calibrate(no, volumes(study, 0), "new", "r1")


@pytest.mark.parametrize("classes", [2, 3])
def test_a_single_classifier_is_a_bag_of_one(study, classes):
    mask, values, y, run, _ = study
    x, y = values[3], np.minimum(y, classes - 1)
    voxels = np.arange(10, 40)
    mean, sd = x[:, voxels].mean(0), x[:, voxels].std(0)
    model = LogisticRegression(C=0.01).fit((x[:, voxels] - mean) / sd, y)
    (coef, intercept) = bag.weights_of(model)
    facts = decoder.Facts(("a", "b", "c")[:classes], GRID, LEVEL, 500.0)
    one = decoder.Member(voxels, mean, sd, coef, intercept)
    got = fusion.fuse(decoder.from_linear(facts, [one], mask=mask))(volumes(study, 0))
    want = model.predict_proba((np.float64(x[run == 0][:, voxels]) - mean) / sd)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": np.zeros(3)}, "mean and sd"),
        ({"voxels": np.full(KEEP, 10**6)}, "want voxels in"),
        ({"coef": np.zeros((3, 3))}, "mismatch"),
        ({"frame": np.zeros(3, int)}, "want template"),
        ({"run": np.full(2 * FRAMES, 2)}, "want run < 2"),
    ],
)
def test_members_that_do_not_fit(study, made, change, said):
    members, bundle = made
    with pytest.raises(ValueError, match=said):
        decoder.from_linear(bundle.facts, [members[0]._replace(**change)], mask=study[0])


def test_foldings_return_what_the_checks_expect(study, made):
    weights = made[1].weights
    own = {name: weights[name] for name in ("kernel", "bias")}
    linear.check_linear(own, len(weights["voxels"]), 3)
    for bad in (
        {},
        own | {"more": 1},
        own | {"bias": own["bias"][0]},
        {**own, "kernel": own["bias"]},
    ):
        with pytest.raises(ValueError, match="want kernel"):
            linear.check_linear(bad, len(weights["voxels"]), 3)


def test_it_is_not_a_network_to_be_trained():
    assert models.find("linear") is linear.NETWORK and "linear" not in models.NETWORKS
    with pytest.raises(InputError, match=r"'linear', which is not trained.*headline=bag"):
        models.find("linear").make(None, 3)


def make_residual(study, members, temperature=1.0):
    """Returns the network beside the linear path of the first member, on its features."""
    own, net = members[0], residual.Residual(3, dense=(7,))
    path = residual.Path(own.coef / own.temperature, own.intercept / own.temperature)
    params = net.init(jax.random.key(0), np.zeros((1, KEEP + 3)))["params"]
    last = 0.1 * np.random.default_rng(0).normal(size=(7, 3))
    params = params | {"dense2": params["dense2"] | {"kernel": last}}
    facts = decoder.Facts(("a", "b", "c"), GRID, LEVEL, 500.0, runs=("r1", "r2"))
    fitted = {n: getattr(own, n) for n in ("voxels", "mean", "sd", "mapping", "template", "run")}
    bundle = decoder.from_cnn1d(
        facts._replace(temperature=temperature),
        params,
        mask=study[0],
        frame=own.frame,
        network="emojax.models.residual:NETWORK",
        path=path,
        **fitted,
    )
    x = procrustes.transform(own.mapping, study[1][3][study[3] == 1][:, own.voxels])
    z = (np.asarray(x) - own.mean) / own.sd
    logits = net.apply({"params": params}, path.beside(lambda rows: z)(None))
    return bundle, softmax(np.asarray(logits) / temperature, axis=1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_network_with_a_linear_path_and_a_temperature(study, made, tmp_path, temperature):
    bundle, want = make_residual(study, made[0], temperature)
    x = volumes(study, 1)
    np.testing.assert_allclose(fusion.fuse(bundle)(x), want, atol=1e-5)
    decoder.save(bundle, tmp_path / "bundle")
    again = decoder.calibrate(decoder.load(tmp_path / "bundle"), volumes(study, 0), "new", "r1")
    np.testing.assert_allclose(fusion.fuse(again)(x), want, atol=1e-5)  # by the same run


def test_networks_of_several_members_are_refused(study, made):
    bundle, _ = make_residual(study, made[0])
    kept = bundle.calibration | {"voxels": bundle.weights["voxels"]}
    with pytest.raises(ValueError, match="want one network, or members with instances; got 2"):
        build.fold(bundle.network, [kept, kept], [None, None])


@pytest.mark.parametrize(
    "options",
    [
        {"lowrank": True},
        {"scaling": False},
        {"zscore_all": True},
        {"alpha": 0.5},
        {"demean": False},
    ],
    ids=lambda options: ",".join(options),
)
def test_every_alignment_is_a_centre_a_matrix_and_an_offset(study, options):
    x = study[1][3][:, :KEEP]
    model = hyperalignment.fit(study[1][:3, :, :KEEP], **options)
    mapping = alignment.independent_runs(model, x, np.arange(len(x)))
    centre, matrix, target = build.affine_parts(mapping, np.zeros(KEEP))
    with jax.enable_x64(True):
        want = procrustes.transform(jax.tree.map(np.float64, mapping), np.float64(x))
    got = (x - np.float64(centre)) @ matrix + target
    np.testing.assert_allclose(got, want, atol=1e-7 * np.abs(want).max())
    if options != {"demean": False}:
        np.testing.assert_allclose(centre, x.mean(0), rtol=1e-3)


def test_facts_are_read_back(made):
    facts = made[1].facts
    assert schema.read_facts(json.loads(json.dumps(facts._asdict())), "manifest") == facts
