"""The paper's files, written as MATLAB writes them, and refusals."""

import h5py
import numpy as np
import pytest
import scipy.io

from configs import common
from emojax import sources
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.sources import lab

NAMES = ("E13502_run7_3D_wholeBrain_allConds", "E13502_run10_3D_wholeBrain_allConds", "C2_run1_a")
GRID = (4, 3, 2)
LABELS, LABELS_TEST = np.array([0, 1, 2, 0, 1]), np.array([0, 2])
ALL_LABELS = np.r_[LABELS, LABELS_TEST]


def cell(volumes):
    out = np.empty((1, len(volumes)), object)
    for i, volume in enumerate(volumes):
        out[0, i] = volume
    return out


def variables(seed=0, dtype=float, grid=GRID, **changes):
    values = np.random.default_rng(seed).integers(0, 1000, (7, *grid)).astype(dtype)
    out = {
        "I": cell(values[:5]),
        "I_test": cell(values[5:]),
        "labels": LABELS[None].astype(float),
        "labels_test": LABELS_TEST[:, None].astype(np.uint8),
    }
    return {k: v for k, v in (out | changes).items() if v is not None}, values


def write(folder, name=NAMES[0], **options):
    contents, values = variables(**options)
    scipy.io.savemat(folder / f"{name}.mat", contents, do_compression=True)
    return values


def write_hdf5(path, contents):
    """Writes version 7.3: axes reversed, cells as references into #refs#, types as attributes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in contents.items():
            if value.dtype == object:
                refs = np.empty(value.shape, h5py.ref_dtype)
                for i, volume in np.ndenumerate(value):
                    item = file.create_dataset(f"#refs#/{name}{i[1]}", data=volume.T)
                    item.attrs["MATLAB_class"] = np.bytes_("double")
                    refs[i] = item.ref
                file.create_dataset(name, data=refs.T, dtype=h5py.ref_dtype)
                file[name].attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                file[name] = value.T
                file[name].attrs["MATLAB_class"] = np.bytes_("double")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def read(root, store, **options):
    return lab.read(root, store, **options)


def test_reads_volumes(root, tmp_path):
    given = {name: write(root, name, seed=i) for i, name in enumerate(NAMES)}
    config = common.get_config()
    config.data.update({"source": "lab", "root": str(root), "store": str(tmp_path / "s")})
    config.data.progress = False
    cohort = sources.load(config)
    assert cohort.classes == ("rest", "neutral", "negative")
    assert cohort.subjects == ("C2", "E13502")
    assert cohort.volumes.shape == (21, *GRID)
    assert cohort.tr is None and cohort.prior == ()
    keys = {"C2 1": NAMES[2], "E13502 7": NAMES[0], "E13502 10": NAMES[1]}
    for key, name in keys.items():
        subject, run = key.split()
        rows = np.flatnonzero((cohort.subject == subject) & (cohort.run == run))
        np.testing.assert_array_equal(cohort.labels[rows], ALL_LABELS)
        np.testing.assert_array_equal(cohort.volumes[rows], given[name])
    assert cohort.hashes.keys() == {str(root / f"{name}.mat") for name in NAMES}


@pytest.mark.parametrize(("dtype", "stored"), [(float, "f4"), ("f4", "f4"), ("i2", "i2")])
def test_stores_volumes_once_in_a_small_type(root, store, dtype, stored, monkeypatch):
    values = write(root, dtype=dtype)
    cohort = read(root, store)
    assert cohort.runs[0].frames.dtype == stored
    files = sorted(store.folder.iterdir())
    monkeypatch.setattr(lab, "_volumes", None)  # the second time nothing is read
    again = read(root, store)
    assert isinstance(again.runs[0].frames, np.memmap)
    assert sorted(store.folder.iterdir()) == files
    np.testing.assert_array_equal(again.volumes[:], values)


def test_reads_version_7_3(root, store):
    contents, values = variables()
    write_hdf5(root / "E1_run2_x.mat", contents)
    cohort = read(root, store)
    assert (cohort.runs[0].subject, cohort.runs[0].name) == ("E1", "2")
    np.testing.assert_array_equal(cohort.volumes[:], values)
    np.testing.assert_array_equal(cohort.labels, ALL_LABELS)
    del contents["I_test"]
    write_hdf5(root / "E1_run2_x.mat", contents)
    with pytest.raises(InputError, match="found variables I, labels, labels_test; expected I, I_t"):
        read(root, store)


def test_filters_and_map(root, store):
    for i, name in enumerate(NAMES):
        write(root, name, seed=i)
    assert len(read(root, store, subjects=("C2",)).runs) == 1
    assert len(read(root, store, subjects=("sub-C2",), runs=("run-01",)).runs) == 1
    assert [run.name for run in read(root, store, runs=("7", "10")).runs] == ["7", "10"]
    two = read(root, store, label_map="neutral=neutral;negative=negative")
    assert two.classes == ("neutral", "negative")
    assert np.bincount(two.labels).tolist() == [6, 6]
    assert two.notes == ("values of no class: rest (9)",)
    with pytest.raises(InputError, match="found no subject 'E1'; expected one of C2, E13502"):
        read(root, store, subjects=("E1",))
    with pytest.raises(InputError, match="no run that both filters allow"):
        read(root, store, subjects=("C2",), runs=("7",))


volumes = variables()[0]["I"][0]
NAN = [v.copy() for v in volumes]
NAN[2][0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"I_test": None}, "found variables I, labels, labels_test; expected I, I_test"),
        ({"labels": None}, "found variables I, I_test, labels_test; expected labels, labels_test"),
        ({"I": cell(volumes[:4])}, "found 4 volumes in I; expected 5, one for each label"),
        ({"I": np.zeros((5, 4, 3, 2))}, "found I of type float64.*expected I as a cell array"),
        (
            {"I": cell([*volumes[:4], np.zeros((4, 3, 3))])},
            r"found float64 of shape \(4, 3, 3\) in volume 4 of I; expected .*\(4, 3, 2\)",
        ),
        ({"I": cell([np.zeros((4, 3))] * 5)}, r"found float64 of shape \(4, 3\) in volume 0 of I"),
        ({"I": cell(NAN)}, "found 1 values of volume 2 of I like nan .first: at \\[0, 0, 0\\]"),
        ({"labels": np.array([[0, 1, 2, 3, 1]])}, "found 3 in labels; expected 0 rest, 1 neutral"),
        ({"labels": np.array([[0, 1, np.nan, 1, 1]])}, "found nan in labels"),
        ({"labels": np.zeros((5, 2))}, r"found labels of type float64, shape \(5, 2\)"),
    ],
)
def test_refuses(root, store, changes, message):
    write(root, **changes)
    with pytest.raises(InputError, match=message) as error:
        read(root, store)
    assert str(root / NAMES[0]) in str(error.value)
    assert not list(store.folder.glob("*.npy*"))


def test_refuses_damaged_and_misnamed_files(root, store):
    with pytest.raises(InputError, match=r"found no .mat file and no X_hyp_v2.csv"):
        read(root, store)
    write(root)
    path = root / f"{NAMES[0]}.mat"
    whole = path.read_bytes()
    for cut in (0, 60, 200, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="expected") as error:
            read(root, store)
        assert "\n" not in str(error.value)
        assert not list(store.folder.glob("*.npy*"))
    path.write_bytes(whole)
    write(root, "wholeBrain")
    with pytest.raises(InputError, match=r"found the name wholeBrain.mat; expected <subject>_run<"):
        read(root, store)


def test_refuses_a_run_twice_and_other_grids_within_a_subject(root, store):
    write(root, "E1_run7_a")
    write(root, "E1_run7_b", seed=1)
    with pytest.raises(InputError, match="run '7' a second time"):
        read(root, store)
    (root / "E1_run7_b.mat").unlink()
    write(root, "E1_run8_b", grid=(4, 4, 2))
    with pytest.raises(InputError, match=r"volumes of shape \(4, 4, 2\); expected \(4, 3, 2\)"):
        read(root, store)


def write_vectors(root, rows=12, header="", y_header="", voxels=3):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, voxels)).astype(np.float32), np.arange(rows) % 3
    np.savetxt(root / lab.VECTORS, x, delimiter=",", header=header, comments="")
    np.savetxt(root / lab.CLASS_NUMBERS, y, fmt="%d", header=y_header, comments="")
    return x, y


@pytest.mark.parametrize(
    ("header", "y_header"), [("", ""), ("v1,v2,v3", "label"), ("0,1,2", "0"), ('"a","b","c"', "y")]
)
def test_reads_vectors(root, header, y_header):
    x, y = write_vectors(root, header=header, y_header=y_header)
    cohort = lab.read_vectors(root, rows_per_subject=4)
    assert cohort.subjects == ("01", "02", "03")
    assert cohort.classes == lab.CLASSES
    assert cohort.tr is None
    np.testing.assert_array_equal(cohort.features(), x)
    np.testing.assert_array_equal(cohort.labels, y)
    assert len(cohort.hashes) == 2
    (prior,) = cohort.prior  # voxels were chosen with the labels of all
    assert prior.labels and str(prior) == "alignment of the files"
    second = lab.read_vectors(root, rows_per_subject=4, subjects=("02",))
    np.testing.assert_array_equal(second.features(), x[4:8])


def test_loads_vectors_where_the_folder_has_them(root, tmp_path):
    x, _ = write_vectors(root, rows=800)
    config = common.get_config()
    config.data.update({"source": "lab", "root": str(root), "store": str(tmp_path / "s")})
    cohort = sources.load(config)
    assert cohort.subjects == ("01", "02")
    np.testing.assert_array_equal(cohort.volumes[:], x)


def test_refuses_vectors(root):
    write_vectors(root)
    with pytest.raises(InputError, match="found 12 rows; expected a multiple of 400 per subject"):
        lab.read_vectors(root)
    path = root / lab.VECTORS
    whole = path.read_text()
    lines = whole.splitlines()
    for cell_text, found in (("x7", "'x7'"), ("nan", "'nan'"), ("", "''")):
        first, _, last = lines[5].split(",")
        path.write_text("\n".join([*lines[:5], f"{first},{cell_text},{last}", *lines[6:]]))
        with pytest.raises(InputError, match=f"X_hyp_v2.csv: found {found} in line 6, column 2;"):
            lab.read_vectors(root, rows_per_subject=4)
    path.write_text("\n".join([*lines[:5], "1,2", *lines[6:]]))
    with pytest.raises(InputError, match="found 2 cells in line 6, 3 before"):
        lab.read_vectors(root, rows_per_subject=4)
    path.write_text(whole)
    np.savetxt(root / lab.CLASS_NUMBERS, np.arange(11) % 3, fmt="%d")
    with pytest.raises(InputError, match=r"Y_hyp_v2.csv: found 11 rows of 1; expected 12 rows"):
        lab.read_vectors(root, rows_per_subject=4)
    np.savetxt(root / lab.CLASS_NUMBERS, np.arange(12) % 4, fmt="%d")
    with pytest.raises(InputError, match="found 3 in column 1; expected 0 rest, 1 neutral, 2 neg"):
        lab.read_vectors(root, rows_per_subject=4)
    (root / lab.CLASS_NUMBERS).unlink()
    with pytest.raises(InputError, match=r"Y_hyp_v2.csv: found no such file"):
        lab.read_vectors(root, rows_per_subject=4)


def links(path, kind):
    """Puts the labels of a 7.3 file elsewhere; returns the path of the other file."""
    other = path.with_suffix(".h5")
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as target:
        value = target["x"] = file["labels"][()]
        del file["labels"]
        if kind == "external":
            file["labels"] = h5py.ExternalLink(other.name, "/x")
        elif kind == "soft":
            file["other"] = h5py.ExternalLink(other.name, "/x")
            file["labels"] = h5py.SoftLink("/other")
        elif kind == "loop":
            file["labels"] = h5py.SoftLink("/labels")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(value.shape, value.dtype)
            layout[...] = h5py.VirtualSource(other.name, "x", value.shape)
            file.create_virtual_dataset("labels", layout)
        elif kind == "raw":
            place = [(str(other), 0, value.nbytes)]
            file.create_dataset("labels", value.shape, value.dtype, external=place)
        elif kind == "group":
            file.create_group("labels")


@pytest.mark.parametrize("kind", ["external", "soft", "loop", "virtual", "raw", "group"])
def test_refuses_values_of_another_file(root, store, kind):
    path = root / "E1_run2_x.mat"
    write_hdf5(path, variables()[0])
    links(path, kind)
    match = r"no readable variables .*labels is (a link|not an array of)"
    with pytest.raises(InputError, match=match):
        read(root, store)


def test_refuses_what_float32_cannot_hold(root, store):
    write(root, I=cell([volumes[0].astype(float) * 1e300 + 1e300, *volumes[1:5]]))
    with pytest.raises(InputError, match=r"values of volume 0 of I like .* below 3.4e38"):
        read(root, store)
    write_vectors(root)
    path = root / lab.VECTORS
    path.write_text("1e39,1,1\n" + path.read_text().split("\n", 1)[1])
    with pytest.raises(InputError, match=r"X_hyp_v2.csv: found 1 values of the table like 1e\+39"):
        lab.read_vectors(root, rows_per_subject=4)


def test_refuses_what_is_no_file(root, store):
    (root / "E1_run2_x.mat").mkdir()
    with pytest.raises(InputError, match=r"that is not a file; expected a .mat file"):
        read(root, store)


def test_refuses_a_variable_twice(root, store):
    write(root)
    path = root / f"{NAMES[0]}.mat"
    other = root.parent / "other.mat"
    scipy.io.savemat(other, {"labels": LABELS[None].astype(float)})
    whole, more = path.read_bytes(), other.read_bytes()
    path.write_bytes(whole[:128] + more[128:] + whole[128:])  # 128 bytes of header
    with pytest.raises(InputError, match=r"no readable variables \(labels twice"):
        read(root, store)
