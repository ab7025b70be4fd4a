"""Maps with a table: grids, brains, factors, groups, refusals."""

import nibabel as nib
import numpy as np
import pytest

from emojax import sources
from emojax.data.cohort import Prior
from emojax.data.hashes import sha256
from emojax.errors import InputError
from emojax.sources import participants

AFFINE = np.array([[-4.0, 0, 0, 9], [0, 4.0, 0, -7], [0, 0, 4.0, 5], [0, 0, 0, 1]])  # mm
SHAPE = (7, 5, 4)
EMOTIONS, WORDS = ("anger", "fear"), ("same", "other")
BRAIN = np.random.default_rng(9).random(SHAPE) < 0.6


def save(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), path)


def make_study(root, people=("01", "02", "03")):
    """Writes four maps per person: two emotions, each after two words; 0 outside the brain."""
    rng, lines = np.random.default_rng(0), ["file\tsubject\temotion\tword\tsession\tgroup"]
    for who in people:
        for i, (emotion, word) in enumerate((e, w) for e in EMOTIONS for w in WORDS):
            name = f"maps/{who}_{emotion}_{word}.nii.gz"
            save(root / name, rng.normal(size=SHAPE) * BRAIN)
            group = "MDD" if who == "02" else "control"
            lines.append(f"{name}\tsub-{who}\t{emotion}\t{word}\t{i % 2 + 1}\t{group}")
    (root / "maps.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def root(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def load(config, root):
    def load(**settings):
        config.data.update({"source": "maps", "root": str(root), "table": "maps.tsv"})
        config.data.update({"label_column": "emotion"} | settings)
        return sources.load(config)

    return load


def edit(root, old, new, count=-1):
    table = root / "maps.tsv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, count))


def values_of(root, name):
    return nib.load(root / "maps" / name).get_fdata(dtype=np.float32)


def test_rows_keep_the_order_of_the_table(load, root):
    cohort = load()
    assert cohort.classes == EMOTIONS and cohort.subjects == ("01", "02", "03")
    assert [run.name for run in cohort.runs] == ["maps"] * 3 and cohort.tr is None
    assert cohort.labels.tolist() == [0, 0, 1, 1] * 3 and cohort.prior == () == cohort.lost
    assert cohort.factors["word"].tolist() == ["same", "other"] * 6
    assert {*cohort.factors} == {"emotion", "word", "session", "group"} and cohort.groups == {}
    np.testing.assert_array_equal(cohort.volumes[5], values_of(root, "02_anger_other.nii.gz"))
    np.testing.assert_array_equal(cohort.affine("02"), AFFINE)
    assert len(cohort.hashes) == 13 and isinstance(cohort.runs[0].frames, np.memmap)
    for mask in cohort.masks.values():
        np.testing.assert_array_equal(mask, BRAIN)
    for run in cohort.runs:
        assert run.place.endswith(f"{run.subject}_anger_same.nii.gz")
        assert run.hashes[str(root / "maps.tsv")] == sha256(root / "maps.tsv")


def test_a_second_load_decodes_nothing(load, monkeypatch):
    first = load()
    monkeypatch.setattr("emojax.sources.maps._values", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(load().volumes[:], first.volumes[:])


def test_columns_have_keys(load, root):
    edit(root, "file\tsubject\temotion", "image\tPerson\tcondition")
    settings = {"file_column": "image", "subject_column": "Person", "label_column": "condition"}
    cohort = load(run_column="session", group="group", **settings)
    assert [run.name for run in cohort.runs] == ["1", "2"] * 3
    assert cohort.groups == {"01": "control", "02": "MDD", "03": "control"}
    assert {*cohort.factors} == {"word", "condition"}
    assert cohort.factors["word"].tolist() == (["same"] * 2 + ["other"] * 2) * 3
    cohort = load(run_column="session", subjects="sub-03,1", runs="2", **settings)
    assert cohort.subjects == ("01", "03") and [run.name for run in cohort.runs] == ["2", "2"]
    assert cohort.labels.tolist() == [0, 1] * 2


def test_label_map_and_csv_and_rows_without_a_class(load, root):
    edit(root, "02\tfear", "02\tn/a", 1)
    text = (root / "maps.tsv").read_text()
    (root / "maps.csv").write_text(text.replace("\t", ","))
    cohort = load(table="maps.csv", label_map="bad=fear;angry=anger")
    assert cohort.classes == ("bad", "angry") and len(cohort.labels) == 11
    assert cohort.counts()[1]["unused"] == 1
    assert cohort.factors["word"].size == 11


@pytest.mark.parametrize("turned", ["flipped", "swapped", "one volume"])
def test_maps_on_another_order_of_axes_are_turned(load, root, turned):
    want = load().volumes[:]
    path = root / "maps/02_fear_same.nii.gz"
    values, affine = values_of(root, path.name), AFFINE
    if turned == "flipped":
        affine = AFFINE @ np.diag([-1, 1, 1, 1])
        values, affine[:3, 3] = values[::-1], AFFINE[:3, 3] + AFFINE[:3, 0] * (SHAPE[0] - 1)
    elif turned == "swapped":
        values, affine = values.transpose(1, 2, 0), AFFINE[:, [1, 2, 0, 3]]
    else:
        values = values[..., None]
    save(path, values, affine)
    got = load()
    np.testing.assert_array_equal(got.volumes[:], want)
    np.testing.assert_array_equal(got.affine("02"), AFFINE)


def test_the_first_map_of_a_person_may_be_the_turned_one(load, root):
    want = load().volumes[:]
    for path in (root / "maps").glob("03_*"):
        flipped = AFFINE @ np.diag([-1, 1, 1, 1])
        flipped[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, 0] * (SHAPE[0] - 1)
        save(path, values_of(root, path.name)[::-1], flipped)
    for how in ("mm", "array"):
        got = load(grid=how)
        np.testing.assert_array_equal(got.volumes[:], want)


def test_voxels_that_are_not_finite_or_always_zero_are_no_brain(load, root):
    for path in (root / "maps").glob("01_*"):
        values = values_of(root, path.name)
        values[~BRAIN] = np.nan
        values[0, 0] = 7
        save(path, values)
    one = root / "maps/02_anger_same.nii.gz"
    values = values_of(root, one.name)
    values[3] = np.nan
    save(one, values)
    masks = load().masks
    first, second = BRAIN.copy(), BRAIN.copy()
    first[0, 0], second[3] = True, False
    np.testing.assert_array_equal(masks["01"], first)
    np.testing.assert_array_equal(masks["02"], second)
    np.testing.assert_array_equal(masks["03"], BRAIN)


def test_groups_of_participants(load, monkeypatch):
    found = {"01": "x", "02": "y", "03": "x"}
    groups = participants.Groups(found, {"participants.tsv": "sha"})
    monkeypatch.setattr(participants, "read", lambda roots, column, subjects: groups)
    cohort = load(group="diagnosis")
    assert cohort.groups == found
    assert [[*run.hashes][-1] for run in cohort.runs] == ["participants.tsv"] * 3


def test_smoothing_centring_and_a_region_go_with_maps(load, root):
    region = np.zeros(SHAPE)
    region[2:5] = 1
    save(root / "roi.nii.gz", region)
    cohort = load(mask="roi.nii.gz", centre=True, smooth_mm=4.0)
    assert cohort.prior == (Prior("cleaning"),)
    np.testing.assert_array_equal(cohort.masks["02"], BRAIN & (region > 0))
    np.testing.assert_allclose(cohort.volumes[:4].mean(0), 0, atol=1e-6)


REFUSED = {
    "no table": (
        {"table": ""},
        None,
        r"data.table: found no table; .*--config.data.table=maps.tsv",
    ),
    "another table": ({"table": "m.tsv"}, None, "found no table 'm.tsv' in .*table=maps.tsv"),
    "no such column": (
        {"label_column": "trial_type"},
        None,
        r"maps.tsv: found columns file, subject, emotion, word, session, group, but no "
        r"'trial_type'; expected one of them as data.label_column",
    ),
    "no run column": ({"run_column": "visit"}, None, "no 'visit'; .* as data.run_column"),
    "missing file": ({}, ("01_fear_same", "01_joy_same"), r"01_joy_same.*no such file \(line 4 of"),
    "same file twice": (
        {},
        ("02_fear_other", "02_fear_same"),
        r"maps.tsv: found maps/02_fear_same.nii.gz in line 9, as in line 8; expected each im",
    ),
    "no subject": (
        {},
        ("sub-03\tanger\tother", "n/a\tanger\tother"),
        "found no subject in line 11",
    ),
    "no file": ({}, ("maps/03_fear_same.nii.gz\t", "\t"), "found no file in line 12"),
    "no such person": ({"subjects": "07"}, None, "no subject '07'; expected one of 01, 02, 03"),
    "two groups": (
        {"group": "group"},
        ("other\t2\tMDD", "other\t2\tcontrol"),
        "found group 'control' of subject 02 in line 7; expected one group .*'MDD' before",
    ),
    "one class": ({"label_map": "anger=anger"}, None, "data.label_map: found classes anger"),
    "unknown value": ({"label_map": "a=anger;b=joy"}, None, "value 'joy' of class 'b'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_cannot_be_used_are_one_line(load, root, name):
    settings, change, message = REFUSED[name]
    if change:
        edit(root, *change)
    with pytest.raises(InputError, match=message) as error:
        load(**settings)
    assert "\n" not in str(error.value)


def test_images_that_cannot_be_used_are_one_line(load, root):
    path = root / "maps/02_anger_same.nii.gz"
    whole, other = path.read_bytes(), root / "maps/03_fear_same.nii.gz"

    def said():
        with pytest.raises(InputError) as error:
            load()
        assert "\n" not in str(error.value)
        return str(error.value)

    save(path, np.ones((*SHAPE, 2)))
    assert f"{path}: found an image of shape (7, 5, 4, 2) (line 6 of maps.tsv)" in said()
    save(path, np.ones((8, 5, 4)))
    for part in (str(path), "01_anger_same.nii.gz", "(8, 5, 4)", "(7, 5, 4)", "resample_to_img"):
        assert part in said()
    save(path, np.ones(SHAPE), np.diag([4, 4, 4, 1]))
    assert "another grid than" in said()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in said()
    path.write_bytes(other.read_bytes())
    assert said() == (
        f"{root / 'maps.tsv'}: found 03_fear_same.nii.gz in line 12, the same content as line 6; "
        "expected each map once"
    )
    save(path, np.full(SHAPE, np.inf))
    assert f"{path}: found 140 values that are infinite" in said()
    save(path, np.full(SHAPE, np.nan))
    assert "no voxel that is finite in all maps of subject 02" in said()
    path.unlink()
    path.symlink_to(root / ".git/annex/objects/x")
    assert "(line 6 of maps.tsv)" in said()


def test_a_copy_under_another_person_is_refused(load, root):
    values = values_of(root, "01_anger_same.nii.gz")
    nib.save(nib.Nifti1Image(values, AFFINE), root / "maps/again.nii")
    edit(root, "maps/03_fear_same.nii.gz", "maps/again.nii")
    with pytest.raises(InputError, match="the same values as"):
        load()


@pytest.mark.parametrize("where", ["everywhere", "in a region"])
@pytest.mark.parametrize("how", ["unzipped", "int16", "uint8", "float64", "scaled", "flipped"])
def test_a_map_that_a_person_has_twice_is_refused(load, root, how, where):
    if where == "in a region":  # away from the middle
        region = np.zeros(SHAPE, bool)
        region[:4, 0, :2] = True
        for path in (root / "maps").iterdir():
            values = np.random.default_rng(len(path.name)).normal(size=SHAPE)
            values = values + values_of(root, path.name)
            save(path, np.where(region, values, 0))
    values, affine = values_of(root, "02_anger_same.nii.gz"), AFFINE
    image = nib.Nifti1Image(values, affine)
    if how in ("int16", "uint8", "float64"):
        image.set_data_dtype(how)
    elif how == "scaled":
        image = nib.Nifti1Image((values - np.float32(3)) / np.float32(0.1), affine)
        image.header.set_slope_inter(0.1, 3)
    elif how == "flipped":
        affine = AFFINE @ np.diag([-1, 1, 1, 1])
        affine[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, 0] * (SHAPE[0] - 1)
        image = nib.Nifti1Image(values[::-1], affine)
    nib.save(image, root / "maps/again.nii")
    load()
    edit(root, "maps/02_fear_same.nii.gz", "maps/again.nii")
    said = (
        r"maps.tsv: found again.nii in line 8, the same values as 02_anger_same.nii.gz in line 6;"
    )
    for settings in ({}, {"run_column": "word"}, {"subjects": "02"}):
        with pytest.raises(InputError, match=f"{said} expected each map once"):
            load(**settings)


def test_whole_numbers_are_no_copies_of_each_other(load, root):
    for i, path in enumerate(sorted((root / "maps").iterdir())):
        image = nib.Nifti1Image(values_of(root, path.name), AFFINE)
        image.set_data_dtype("uint8" if i % 2 else "int16")
        nib.save(image, path)
    assert len(load().labels) == 12


def test_real_maps(config, shared):
    config.data.update(
        {
            "source": "maps",
            "root": str(shared("data/emotion-maps")),
            "table": "maps.tsv",
            "label_column": "emotion",
            "mask": "mask.nii.gz",
            "subjects": "cp001,cp002",
        }
    )
    cohort = sources.load(config)
    assert cohort.classes == ("anger", "disgust", "fear") and len(cohort.labels) == 18
    assert {int(mask.sum()) for mask in cohort.masks.values()} == {28_029}
    assert {*cohort.factors["priming"].tolist()} == {"congruent", "incongruent", "neutral"}
