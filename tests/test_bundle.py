"""The bundle as a file format: id, signatures, content of the folder, two readers."""

import ast
import hashlib
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
import venv
import zipfile

import jax
import numpy as np
import pytest

from emojax import decoder
from emojax.decoder import bundle as bundles
from emojax.decoder import commands, numpy_reader, schema, signing
from emojax.errors import InputError
from emojax.models import cnn1d, resnet3d

pytestmark = pytest.mark.usefixtures("quick_compile")
GRID, M, N = (9, 10, 9), 60, 12
F = np.float32
LIMITS = (("correlation", 0.9, 1.0), ("gain", 0.8, 1.25))
RNG = np.random.default_rng(0)
VOLUMES = (500 + 60 * RNG.normal(size=(5, *GRID))).astype(F)
MASK = np.zeros(GRID, bool)
MASK[1:7, 1:6, 1:5] = True


def rows(width):
    """Returns rows of a template, for `calibrate`."""
    run, frame = np.repeat([0, 1], N // 2), np.tile(np.arange(N // 2), 2)
    return {"template": RNG.normal(size=(N, width)).astype(F), "run": run, "frame": frame}


def make_network(network="cnn1d"):
    net = cnn1d.CNN1D(3, filters=(6, 6), window=5, dense=(24, 8))
    params = net.init(jax.random.key(1), np.zeros((1, M), F))["params"]
    if network.startswith("mlp"):
        shapes = ((M, 9), (9, 3))
        params = {"layers": [(RNG.normal(size=s) / 5, RNG.normal(size=s[1])) for s in shapes]}
    facts = decoder.Facts(("a", "b", "c"), GRID, 500.0, 60.0, 2.0, "s4", temperature=1.5)
    made = decoder.from_cnn1d(
        facts._replace(limits=LIMITS),
        params,
        mask=MASK,
        voxels=np.arange(M),
        mean=np.full(M, 500, F),
        sd=np.full(M, 60, F),
        affine=np.diag([3.0, 3, 3, 1]),
        network=network,
        **rows(M),
    )
    return made.replace(reference=VOLUMES.mean(0))


def make_members():
    """Returns two members of two networks with a linear path, and a temperature each."""

    def layer(*shape):
        return (RNG.normal(size=shape) / 200).astype(F), RNG.normal(size=shape[1]).astype(F)

    members = [
        {
            "instances": [
                {"linear": layer(M, 3), "layers": [layer(M, 9), layer(9, 3)]} for _ in range(2)
            ],
            "temperature": F(temperature),
        }
        for temperature in (0.5, 2)
    ]
    base = make_network()
    scale = {name: base.weights[name] for name in ("voxels", "centre")}
    weights = {"members": members, **scale, "temperature": F(1)}
    return base.replace(network="residual", weights=weights, calibration=None)


def make_bag():
    members = [
        decoder.Member(
            voxels=np.arange(M) + 5 * i,
            mean=np.full(M, 500, F),
            sd=np.full(M, 60, F),
            coef=RNG.normal(size=(M, 3)) / 5,
            intercept=RNG.normal(size=3),
            temperature=2.0,
        )
        for i in range(3)
    ]
    facts = decoder.Facts(("a", "b", "c"), GRID, 500.0, 60.0)
    return decoder.from_linear(facts, members, mask=MASK)


def make_resnet():
    model = resnet3d.ResNet3D(2, (1,), True, width=2)
    variables = model.init(jax.random.key(0), np.zeros((1, *GRID), F))
    facts = decoder.Facts(("a", "b"), GRID, 500.0, 60.0)
    scale = {"mean": np.full(GRID, 500, F), "sd": np.full(GRID, 60, F)}
    return decoder.from_resnet3d(facts, variables["params"], variables["batch_stats"], **scale)


MAKERS = {
    "cnn1d": make_network,
    "mlp_relu": lambda: make_network("mlp_relu"),
    "residual": lambda: make_members(),
    "linear": make_bag,
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Returns decoders of every kind, saved once."""
    base = tmp_path_factory.mktemp("kept")
    for name, make in (MAKERS | {"resnet3d": make_resnet}).items():
        decoder.save(make(), base / name)
    return base


@pytest.fixture
def bundle(kept, tmp_path):
    """Returns a copy that tests may change."""
    return shutil.copytree(kept / "cnn1d", tmp_path / "bundle")


def edit(folder, change, renew=False):
    """Changes the manifest; `renew` gives it the id and the hashes that belong to its content."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if renew:
        for name in manifest["sha256"]:
            manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        manifest["id"] = schema.identify(manifest)
    path.write_text(json.dumps(manifest))


# ---------------------------------------------------------------- id


def test_the_id_binds_all_that_the_manifest_says(kept, bundle):
    first = decoder.load(bundle).id
    assert first == json.loads((bundle / "manifest.json").read_text())["id"]
    decoder.save(decoder.load(bundle), bundle)
    assert len(first) == 64 and decoder.load(bundle).id == first  # the same content, the same id
    for change in (
        lambda m: m["facts"].update(classes=["c", "b", "a"]),
        lambda m: m["facts"].update(level=501.0),
        lambda m: m.update(bounds={"sd": [0, 1e9]}),
        lambda m: m["program"].update(jax="0.1"),
        lambda m: m["sha256"].update({"weights.npz": "0" * 64}),
    ):
        edited = shutil.copytree(kept / "cnn1d", bundle.with_name("edited"), dirs_exist_ok=True)
        edit(edited, change)
        with pytest.raises(InputError, match=f"content that is not that of decoder {first[:16]}"):
            decoder.load(edited)


def test_another_order_of_classes_is_another_decoder(bundle):
    first = decoder.load(bundle)
    edit(bundle, lambda m: m["facts"]["classes"].reverse(), renew=True)
    assert decoder.load(bundle).id != first.id
    with pytest.raises(InputError, match=f"expected decoder {first.id[:8]}"):
        decoder.load(bundle, expect=first.id[:8])
    assert decoder.load(bundle, expect=decoder.load(bundle).id[:12].upper()).id != first.id
    with pytest.raises(InputError, match="8 digits of an id or more"):
        decoder.load(bundle, expect="abc")


def test_commands_name_the_decoder(bundle, tmp_path, capsys):
    import nibabel as nib

    image, affine = tmp_path / "run.nii", np.diag([3.0, 3, 3, 1])
    nib.save(nib.Nifti1Image(np.moveaxis(VOLUMES, 0, -1), affine), image)
    known = decoder.load(bundle).id
    commands.decode(str(bundle), str(image), str(tmp_path / "new"), expect=known[:10])
    assert f"decoder {known}" in capsys.readouterr().err
    assert json.loads((tmp_path / "new" / "decode.json").read_text())["decoder"] == known
    with pytest.raises(InputError, match="expected decoder 00000000"):
        commands.decode(str(bundle), str(image), str(tmp_path / "none"), expect="0" * 8)
    assert not (tmp_path / "none").exists()


# ---------------------------------------------------------------- signatures


@pytest.fixture
def keys(tmp_path):
    """Returns private and public key files of two owners, as OpenSSH and as PEM."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ((s.Encoding.PEM, s.PrivateFormat.OpenSSH), (s.Encoding.PEM, s.PrivateFormat.PKCS8))
    public = (
        (s.Encoding.OpenSSH, s.PublicFormat.OpenSSH),
        (s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo),
    )
    made = []
    for i in range(2):
        key = ed25519.Ed25519PrivateKey.generate()
        paths = tmp_path / f"key{i}", tmp_path / f"key{i}.pub"
        paths[0].write_bytes(key.private_bytes(*private[i], s.NoEncryption()))
        paths[1].write_bytes(key.public_key().public_bytes(*public[i]))
        made.append(paths)
    return made


def test_signatures(bundle, keys, tmp_path):
    (mine, my_public), (others, other_public) = keys
    known = decoder.load(bundle).id
    with pytest.raises(InputError, match=r"no signature; expected one by the owner of .*key0.pub"):
        decoder.load(bundle, trust=my_public)
    for private, public, foreign in ((mine, my_public, other_public), (others, other_public, mine)):
        bundles.sign(bundle, private)
        assert decoder.load(bundle, trust=public).id == known == decoder.load(bundle).id
        with pytest.raises(InputError, match=r"a signature by another key|no key that can"):
            decoder.load(bundle, trust=foreign)
    edit(bundle, lambda m: m["facts"]["classes"].reverse(), renew=True)
    with pytest.raises(InputError, match="a signature by another key"):
        decoder.load(bundle, trust=other_public)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="no key that can be read"):
        decoder.load(bundle, trust=tmp_path / "text")
    with pytest.raises(InputError, match="no such file"):
        bundles.sign(bundle, tmp_path / "none")


def test_signatures_without_the_package(bundle, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(InputError, match=r"no package cryptography; expected pip install"):
        signing.sign("0" * 64, tmp_path / "key")


# ---------------------------------------------------------------- files


def test_the_calibration_may_stay_behind(bundle):
    assert decoder.load(bundle).calibration is not None
    assert decoder.load(bundle, calibration=False).calibration is None
    (bundle / "calibration.npz").unlink()
    travelled = decoder.load(bundle)
    assert travelled.calibration is None and travelled.id
    with pytest.raises(
        InputError, match=r"calibration.npz: found no such file; .*left out of this copy"
    ):
        decoder.load(bundle, calibration=True)


@pytest.mark.parametrize("name", [*decoder.FILES, "calibration.npz", "manifest.json"])
def test_only_regular_files(bundle, name, tmp_path):
    path, real = bundle / name, tmp_path / "real"
    path.rename(real)

    def put_socket(at):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(at))

    for put in (
        lambda at: at.symlink_to(real),
        lambda at: at.symlink_to(at),
        lambda at: at.symlink_to("/dev/zero"),
        os.mkfifo,
        put_socket,
        os.mkdir,
    ):
        put(path)
        with pytest.raises(
            InputError, match=f"{name}: found (a link|something that is not|a path)"
        ):
            decoder.load(bundle)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_archives_that_would_fill_the_memory(bundle):
    """A file of less than 2 MB that holds an array of 420 MB is refused."""
    names = {"weights.npz": "layers/0/0", "context.npz": "mask", "calibration.npz": "template"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for file, name in names.items():
        copy = shutil.copytree(bundle, bundle.with_name(f"bomb {file}"))
        with (
            zipfile.ZipFile(copy / file, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open(f"{name}2.npy", "w", force_zip64=True) as out,
        ):
            header = {"descr": "<f4", "fortran_order": False, "shape": (50, 1 << 21)}
            np.lib.format.write_array_header_1_0(out, header)
            for _ in range(50):
                out.write(bytes(1 << 23))
        edit(copy, lambda m: None, renew=True)
        with pytest.raises(InputError, match=f"{file}: found .* bytes in"):
            decoder.load(copy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200 << 10  # kB


# ---------------------------------------------------------------- readers


def odd_volumes():
    """Returns volumes that cannot be read."""
    bad = VOLUMES[0].copy()
    bad[3, 3, 3] = np.nan
    endless = VOLUMES[0].copy()
    endless[3, 3, 3] = np.inf
    level = np.full(GRID, 500, F)
    return [bad, endless, 10 * VOLUMES[0], 0 * VOLUMES[0], level, -VOLUMES[0], VOLUMES[0] - 500]


@pytest.mark.parametrize("name", MAKERS)
def test_numpy_alone_gives_the_same(kept, name):
    loaded, decode = decoder.load(kept / name), numpy_reader.read(kept / name)
    for volume in VOLUMES:
        got, want = decode(volume), decoder.decode(loaded, volume)
        np.testing.assert_allclose(got, want, atol=1e-5)
    for volume in odd_volumes():
        assert np.isnan(decode(volume)).all() and len(decode(volume)) == len(loaded.facts.classes)
    with pytest.raises(ValueError, match="found shape"):
        decode(VOLUMES[0][1:])


def test_a_gain_outside_of_the_limits_gives_nan(kept):
    decode = numpy_reader.read(kept / "cnn1d")
    assert np.isfinite(decode(1.2 * VOLUMES[0])).all()
    assert np.isnan(decode(1.3 * VOLUMES[0])).all()


def test_numpy_alone_refuses(kept, bundle):
    known = decoder.load(bundle).id
    assert numpy_reader.read(bundle, known[:8])
    with pytest.raises(ValueError, match="expected 00000000"):
        numpy_reader.read(bundle, "00000000")
    with pytest.raises(ValueError, match=r"found a resnet3d; expected program.bin"):
        numpy_reader.read(kept / "resnet3d")
    with open(bundle / "weights.npz", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"weights.npz: found content that was changed"):
        numpy_reader.read(bundle)
    edit(bundle, lambda m: m["facts"]["classes"].reverse())
    with pytest.raises(ValueError, match="found decoder"):
        numpy_reader.read(bundle)


@pytest.mark.parametrize("name", [*MAKERS, "resnet3d"])
def test_programs_check_what_they_get(kept, name):
    loaded = decoder.load(kept / name)
    program = jax.jit(jax.export.deserialize((kept / name / "program.bin").read_bytes()).call)
    weights = list(np.load(kept / name / "weights.npz").values())
    for volume in VOLUMES[:2]:
        want = decoder.decode(loaded, volume)
        np.testing.assert_allclose(program(weights, volume), want, atol=1e-5)
    for volume in odd_volumes():
        assert np.isnan(program(weights, volume)).all()


def test_programs_name_no_file_of_the_machine(kept):
    assert b".py" not in (kept / "cnn1d" / "program.bin").read_bytes()


def test_the_manifest_says_what_a_program_needs(kept):
    about = json.loads((kept / "cnn1d" / "manifest.json").read_text())["program"]
    assert about["jax"] == jax.__version__ and about["platforms"] == ["cpu", "cuda"]
    assert about["needs"] == ["jax", "numpy", "flatbuffers"] and len(about["runs_on"]) == 2
    assert {"calling_convention", "matmul_precision", "x64", "XLA_FLAGS"} <= about.keys()


def test_the_numpy_reader_imports_nothing_else():
    tree = ast.parse(pathlib.Path(numpy_reader.__file__).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
    for_types = {node.module for node in found if isinstance(node, ast.ImportFrom)}
    assert names == {"hashlib", "json", "pathlib", "numpy"}
    assert for_types == {"__future__", "collections.abc", "typing"}


def example():
    """Returns the program in the bundle's docstring."""
    text = bundles.__doc__.partition("import pathlib, sys")
    return textwrap.dedent("    " + text[1] + text[2])


def run_bare(folder, packages, script, *words):
    """Runs a script by a Python that has these packages and what they need, and no other."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    place = next(folder.glob("lib/python*/site-packages"))
    for package in packages:
        module = __import__(package)
        source = pathlib.Path(module.__file__)
        source = source.parent if source.name == "__init__.py" else source
        (place / source.name).symlink_to(source)
        for libraries in source.parent.glob(f"{package}.libs"):
            (place / libraries.name).symlink_to(libraries)
        for about in source.parent.glob(f"{package}-*.dist-info"):
            (place / about.name).symlink_to(about)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-I", "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=env | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.strip().strip("[]").replace(",", " ").split()]


@pytest.mark.skipif(os.name == "nt", reason="links, and another layout")
def test_the_numpy_reader_in_a_bare_environment(kept, tmp_path):
    np.save(tmp_path / "x.npy", VOLUMES[0])
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np; from decoder_numpy import read\n"
        "print(*read()(np.load(sys.argv[2])))\n"
        "assert not {'jax', 'scipy', 'emojax'} & sys.modules.keys()"
    )
    found = run_bare(tmp_path / "v", ["numpy"], script, kept / "linear", tmp_path / "x.npy")
    want = decoder.decode(decoder.load(kept / "linear"), VOLUMES[0])
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="links, and another layout")
def test_the_program_in_a_bare_environment(kept, tmp_path):
    """The program of the docstring needs jax with its requirements, NumPy and flatbuffers only."""
    np.save(tmp_path / "x.npy", VOLUMES[0])
    packages = ["numpy", "jax", "jaxlib", "scipy", "ml_dtypes", "opt_einsum", "flatbuffers"]
    found = run_bare(tmp_path / "v", packages, example(), kept / "cnn1d", tmp_path / "x.npy")
    want = decoder.decode(decoder.load(kept / "cnn1d"), VOLUMES[0])
    np.testing.assert_allclose(found, want, atol=1e-5)
