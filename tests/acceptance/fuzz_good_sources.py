"""SPM folders, the lab's files, vectors and arrays that must be read."""

import functools

import h5py
import nibabel as nib
import numpy as np
import scipy.io
from fuzz_cases import both, cell, change, data_argv, mat, move, nothing, put, swap
from fuzz_files import SOURCES
from fuzz_inputs import LABEL_MAP, SHAPE, arrays, conditions, lab_contents, nifti, scan, write_hdf5
from fuzz_spm import HEAD, ONSETS

RUNS = ("s1/run1", "s2/run1")


def cases():
    """Yields (family, name, step, flags)."""
    for family, table in (
        ("spm:good", (*_spm_images(), *_spm_tables(), *_conditions())),
        ("lab:good", _lab()),
        ("vectors:good", _vectors()),
        ("arrays:good", _arrays()),
    ):
        for name, step, *argv in table:
            yield family, name, step, *(argv or [SOURCES[family.split(":")[0]][0]])


def _flags(source, *keys):
    return data_argv(source, *(f"--config.data.{key}" for key in keys))


_spm = functools.partial(_flags, "spm")


def _spm_images():
    def each(write):
        """Replaces the images of both runs: write(folder of the run, values)."""

        def prepare(folder):
            for i, run in enumerate(RUNS):
                (folder / run / "raX.nii").unlink()
                write(folder / run, scan(np.random.default_rng(i)))

        return prepare

    def saved(kind, ending):
        return each(lambda folder, x: nib.save(nifti(x, kind=kind), folder / f"raX.{ending}"))

    def series(ending, kind=nib.Nifti1Image):
        def write(folder, x):
            for i in range(40):
                nib.save(nifti(x[..., i], kind=kind), folder / f"raX_{i + 1}.{ending}")

        return each(write)

    def direct(folder):
        for run in RUNS:
            for path in (folder / run).iterdir():
                path.rename(folder / run / ".." / path.name)
        for name in ("volumes.csv", "onsets.csv"):
            path = folder / name
            path.write_text(path.read_text().replace("run1", "raX"))

    volumes = "labels=volumes.csv"
    return (
        ("raX.nii.gz", saved(nib.Nifti1Image, "nii.gz")),
        ("NIfTI-2", saved(nib.Nifti2Image, "nii")),
        ("pairs of .img and .hdr", saved(nib.Nifti1Pair, "img")),
        ("Analyze", saved(nib.AnalyzeImage, "img"), _spm(volumes, "tr=2")),
        ("SPM99", saved(nib.Spm99AnalyzeImage, "img"), _spm(volumes, "tr=2")),
        ("3-D files", series("nii"), _spm(volumes, "tr=2")),
        ("3-D files, .nii.gz", series("nii.gz"), _spm(volumes, "tr=2")),
        ("3-D pairs", series("img", nib.Nifti1Pair), _spm(volumes, "tr=2")),
        ("no folders of runs", direct),
        ("no motion", swap("s1/run1/rp_aX.txt", "missing")),
        ("motion removed", nothing, _spm(volumes, "motion=True")),
        ("other files beside", both(put("s1/run1/meanaX.nii", b"x"), put("s1/notes.txt", "x"))),
        ("a folder without images", put("s1/anat/T1.txt", "x")),
    )


def _spm_tables():
    def of(names, text, **options):
        rows = "".join(text.format(s=s, run="run1") for s in ("s1", "s2"))
        return put(names, (options.get("head", HEAD) + rows).replace(",", options.get("by", ",")))

    alternating = "".join(f"{{s}},{{run}},{v},{'ab'[v % 2]}\n" for v in range(9))
    blocks = "{s},{run},neutral,4,10\n{s},{run},negative,22,10\n"
    short = "{s},{run},neutral,2,5\n{s},{run},negative,11,5\n"
    onsets = _spm(LABEL_MAP[len("--config.data.") :], "labels=onsets.csv")
    other = HEAD.replace("label", "valence")
    return (
        ("volumes as .tsv", of("v.tsv", alternating, by="\t"), _spm("labels=v.tsv")),
        ("volumes in a folder", of("etc/v.csv", alternating), _spm("labels=etc/v.csv")),
        (
            "volumes of no class",
            of("volumes.csv", alternating + "{s},{run},20,\n{s},{run},21,n/a\n"),
        ),
        (
            "volumes of a column",
            of("volumes.csv", alternating, head=other),
            _spm("labels=volumes.csv", "label_column=valence"),
        ),
        (
            "volumes with a map",
            nothing,
            _spm("labels=volumes.csv", "label_map=a=neutral;b=negative"),
        ),
        ("volumes with CRLF", change("volumes.csv", lambda d: d.replace(b"\n", b"\r\n"))),
        ("volumes with a byte-order mark", change("volumes.csv", lambda d: b"\xef\xbb\xbf" + d)),
        ("volumes as 3.0", of("volumes.csv", alternating.replace(",3,", ",3.0,"))),
        (
            "more columns",
            of(
                "volumes.csv", alternating.replace("\n", ",x\n"), head=HEAD.replace("\n", ",note\n")
            ),
        ),
        ("one subject", nothing, _spm("labels=volumes.csv", "subjects=s2")),
        ("onsets", of("onsets.csv", blocks, head=ONSETS), onsets),
        (
            "onsets as .tsv",
            of("o.tsv", blocks, head=ONSETS, by="\t"),
            _spm("labels=o.tsv", "label_map="),
        ),
        (
            "onsets in scans",
            of("onsets.csv", short, head=ONSETS),
            _spm("labels=onsets.csv", "onset_unit=scans"),
        ),
        ("volumes dropped", nothing, _spm("labels=volumes.csv", "drop_first=5")),
    )


def _conditions():
    argv = SOURCES["spm:mat"][0]

    def of(content, write=scipy.io.savemat, name="cond.mat"):
        return lambda folder: [write(folder / run / name, content) for run in RUNS]

    column = conditions(names=cell("neutral", "negative").T, onsets=cell([[4.0], [40.0]], [22.0]).T)
    spellings = (
        ("columns", column),
        ("a duration for each onset", conditions(durations=cell([10.0, 9.0], [10.0, 8.0]))),
        ("durations as whole numbers", conditions(durations=cell([10], [10]))),
        (
            "a condition of no class",
            conditions(
                names=cell("neutral", "negative", "button"),
                onsets=cell([4.0], [22.0], [70.0]),
                durations=cell([10.0], [10.0], [0.0]),
            ),
        ),
        (
            "a condition without onsets",
            conditions(
                names=cell("neutral", "negative", "missed"),
                onsets=cell([4.0], [22.0], []),
                durations=cell([10.0], [10.0], []),
            ),
        ),
        ("other variables", conditions(pmod={"name": "x"}, tmod=cell(0.0, 0.0))),
    )
    for name, content in spellings:
        yield f".mat: {name}", of(content), argv
    compressed = functools.partial(scipy.io.savemat, do_compression=True)
    yield ".mat: compressed", of(conditions(), compressed), argv
    old = {"names": np.array([["neutral"], ["negative"]], object)} | conditions()
    yield ".mat: names of text", of(old), argv
    named = LABEL_MAP[len("--config.data.") :]
    yield ".mat: of the run", of(conditions(), name="run1_c.mat"), _spm(named, "labels={run}_c.mat")
    yield (
        ".mat: in scans",
        of(conditions(onsets=cell([2.0], [11.0]), durations=cell([5.0], [5.0]))),
        (_spm(named, "labels=cond.mat", "onset_unit=scans")),
    )
    yield ".mat: version 7.3", of(None, lambda path, _: _conditions_hdf5(path)), argv


def _conditions_hdf5(path):
    """Writes a condition file of version 7.3; text is numbers of letters there."""

    def put(file, name, values, kind):
        data = file.create_dataset(name, (len(values), 1), h5py.ref_dtype)
        data.attrs["MATLAB_class"] = np.bytes_("cell")
        for i, value in enumerate(values):
            item = file.create_dataset(f"#refs#/{name}{i}", data=value)
            item.attrs["MATLAB_class"] = np.bytes_(kind)
            data[i, 0] = item.ref

    letters = [np.array([[ord(c)] for c in name], "u2") for name in ("neutral", "negative")]
    with h5py.File(path, "w", userblock_size=512) as file:
        put(file, "names", letters, "char")
        put(file, "onsets", [np.array([[4.0], [40.0]]), np.array([[22.0]])], "double")
        put(file, "durations", [np.array([[10.0]])] * 2, "double")


def _lab():
    def of(**change_):
        contents = {**lab_contents(np.random.default_rng(0)), **change_}
        return mat("E1_run1_x.mat", **contents)

    rng = np.random.default_rng
    whole = [rng(0).integers(0, 999, SHAPE).astype("i2") for _ in range(9)]
    return (
        ("double volumes", mat("E1_run1_x.mat", **lab_contents(rng(0), float))),
        ("volumes of integers", of(I=cell(*whole[:6]), I_test=cell(*whole[6:]))),
        ("labels as columns", of(labels=np.array([[0, 1, 2, 0, 1, 2]]).T)),
        ("labels of other types", of(labels=np.array([[0, 1, 2, 0, 1, 2]], "u1"))),
        ("other variables", of(note="x", day={"a": 1})),
        ("names of the paper", move("E1_run1_x.mat", "E1_run7_3D_wholeBrain_allConds.mat")),
        ("short names", move("E1_run1_x.mat", "E1_run-2.mat")),
        ("a hidden file", put("._E1_run1_x.mat", b"of macOS")),
        ("only version 7.3", lambda f: [p.unlink() for p in f.glob("E[12]*")]),
        ("7.3 of another run", lambda f: write_hdf5(f / "E1_run2_x.mat", lab_contents(rng(1)))),
        ("classes joined", nothing, _flags("lab", "label_map=rest=rest;any=neutral|negative")),
        ("one subject", nothing, _flags("lab", "subjects=E3")),
        ("one run", nothing, _flags("lab", "runs=1")),
        ("centred", nothing, _flags("lab", "centre=True")),
    )


def _vectors():
    x, y = "X_hyp_v2.csv", "Y_hyp_v2.csv"
    return (
        (
            "names in a header",
            both(change(x, lambda d: b"a,b,c,d\n" + d), change(y, lambda d: b"label\n" + d)),
        ),
        (
            "numbers as names",
            both(change(x, lambda d: b"0,1,2,3\n" + d), change(y, lambda d: b"0\n" + d)),
        ),
        ("CRLF", both(*(change(f, lambda d: d.replace(b"\n", b"\r\n")) for f in (x, y)))),
        ("a byte-order mark", change(x, lambda d: b"\xef\xbb\xbf" + d)),
        ("exponents", change(x, lambda d: b"1.5e-3,2E2,-3,+4\n" + d.split(b"\n", 1)[1])),
        ("classes as 1.0", change(y, lambda d: d.replace(b"1\n", b"1.0\n"))),
        ("two subjects", nothing, _flags("lab", "subjects=01,02")),
        ("classes joined", nothing, _flags("lab", "label_map=no=rest;yes=neutral|negative")),
    )


def _arrays():
    rng, n = np.random.default_rng(0), 24
    x = rng.normal(size=(n, 60))
    text = np.tile(["rest", "neutral", "negative"], n // 3)

    def one(**change_):
        return lambda folder: arrays(folder / "s1.npz", **change_)

    def every(**change_):
        values = change_.pop("x", x)  # different in each subject: copies are refused
        return lambda folder: [
            arrays(path, x=values + i, **change_)
            for i, path in enumerate(sorted(folder.glob("*.npz")))
        ]

    def compressed(folder):
        with np.load(folder / "s1.npz") as old:
            content = dict(old)
        np.savez_compressed(folder / "s1.npz", **content)

    return (
        ("x as float64", one(x=x)),
        ("x as float16", one(x=x.astype("f2"))),
        ("x as integers", one(x=(100 * x).astype("i4"))),
        ("x as unsigned bytes", one(x=rng.integers(0, 255, (n, 60)).astype("u1"))),
        ("x of big ends", one(x=x.astype(">f8"))),
        ("x in Fortran's order", one(x=np.asfortranarray(x))),
        ("x of one column", every(x=x[:, :1])),
        ("y as text", every(y=text)),
        ("y as text without classes", every(y=text, classes=None)),
        ("y without classes", every(classes=None)),
        ("y as bytes of numbers", one(y=np.tile([0, 1, 2], 8).astype("u1"))),
        ("y as int64 of big ends", one(y=np.tile([0, 1, 2], 8).astype(">i8"))),
        ("runs as text", one(run=np.repeat(["one", "zwei"], n // 2))),
        ("runs in turns", one(run=np.arange(n) % 3)),
        ("runs below zero", one(run=np.arange(n) % 3 - 1)),
        ("runs of unicode", one(run=np.repeat(["läuft", "走"], n // 2))),
        ("classes of unicode", every(classes=np.array(["Ruhe", "négatif", "中"]))),
        ("classes with markup", every(classes=np.array(["[red]", "[/red]", "[b]"]))),
        ("classes with commas", every(classes=np.array(["a,b", "c;d", 'e"f']))),
        ("more arrays", one(note=np.array("x"), weights=rng.normal(size=3))),
        ("compressed", compressed),
        ("a subject of unicode", move("s1.npz", "Jürgen 1.npz")),
        ("a hidden file", put("._s1.npz", b"of macOS")),
        ("classes joined", nothing, _flags("arrays", "label_map=a=rest;b=neutral|negative")),
        ("one run", nothing, _flags("arrays", "runs=2")),
        ("two subjects", nothing, _flags("arrays", "subjects=s1,s3")),
        (
            "one subject of fewer rows",
            one(x=x[:12], y=np.tile([0, 1, 2], 4), run=np.repeat([1, 2], 6)),
        ),
    )
