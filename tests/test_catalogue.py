"""`emojax configs` and `emojax keys`: everything that ships, said as the files say it."""

import importlib
import pathlib
import re
import subprocess
import sys
import time

import pytest
from shipped import ALL, NAMES
from test_configs import flat

from emojax import cli, nearest
from emojax.cli import catalogue, comments, config_files, flags
from emojax.configs import common

ROOT = pathlib.Path(__file__).resolve().parents[1]
MINE = '''"""My study: two groups."""

from emojax.configs import expA


def get_config(variant=""):
    """Returns it."""
    config = expA.get_config("demo")
    config.voxels.keep = 77  # all in my mask
    config.train.update(lr=1e-3, batch_size=8)
    config.align.update({"alpha": 0.5})  # tried once
    return expA.common.choose(config, variant, VARIANTS)


def quick(config):
    """Trains for one epoch.

    It is for a look at the report.
    """
    # Enough for a look.
    config.train.epochs, config.balance = 1, 9


VARIANTS = {"quick": quick}
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return "mine.py"


def said(capsys, *words):
    code = cli.main(["emojax", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    "words", [("configs",), ("keys", "epochs"), ("keys", "--config=expB:demo"), ("configs", "expA")]
)
def test_needs_no_numerical_package_and_no_second(tmp_path, words):
    start = time.perf_counter()
    code = "import sys; from emojax import cli; cli.main(['emojax', *sys.argv[1:]]); "
    code += "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0 and done.stdout
    assert not {"jax", "numpy", "pandas", "matplotlib", "rich"} & {*done.stderr.split()}
    assert time.perf_counter() - start < 3  # 0.11 s on an idle machine


def test_configs_lists_every_config_and_variant_with_its_first_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = said(capsys, "configs")
    assert code == 0 and not err and max(map(len, out.splitlines())) <= 100
    listed, name = [], ""
    for line in out.splitlines():
        if found := re.match(r"(\w+) +\S", line):
            name = found[1]
            listed.append((name, ""))
        elif found := re.match(r"  :(\w+) +\S", line):
            listed.append((name, found[1]))
    assert sorted(listed[:-1]) == sorted(ALL)  # the last line says how to run one
    words = " ".join(out.split())
    for name in NAMES:
        module = importlib.import_module(f"emojax.configs.{name}")
        for thing in (module, *module.VARIANTS.values()):
            if thing is not module.VARIANTS.get(""):
                assert " ".join(thing.__doc__.split("\n")[0].split()) in words


def test_a_variant_is_what_the_config_itself_takes():
    """The listed variants are the mapping that get_config uses, for every config."""
    for name in NAMES:
        module = importlib.import_module(f"emojax.configs.{name}")
        for variant in catalogue.variants_of(name):
            assert module.get_config(variant).is_locked
        with pytest.raises(ValueError) as refused:
            module.get_config("?")
        want = ", ".join(catalogue.variants_of(name))
        assert str(refused.value) == f"unknown variant '?'; want {want} or none"


@pytest.mark.parametrize("words", ["keys", "configs", "--help"])
def test_a_reader_that_stops_early_is_no_error(words):
    code = f"import sys; from emojax import cli; sys.exit(cli.main(['emojax', '{words}']))"
    done = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    done.stdout.close()
    assert done.stderr.read() == b"" and done.wait() == 0


def test_configs_says_all_about_one(capsys, mine):
    code, out, _ = said(capsys, "configs", "expB")
    assert code == 0 and out.startswith("Experiment B: 3D ResNet-50")
    assert "\n:l2_sweep\n    Tries the paper's eight factors" in out and "seed 1." in out
    code, out, _ = said(capsys, "configs", mine)
    assert out.startswith("My study: two groups.\n") and "It is for a look at the report." in out


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_every_key_has_a_comment(experiment):
    config = common.get_config(experiment)
    found = comments.read(common.EXPERIMENTS[experiment])
    assert {*flags.names_of(config)} == {*flat(config)}
    assert not [key for key in flat(config) if not found.get(key)]


def test_keys_has_every_key_with_its_default():
    found = {key.name: key.values for key in catalogue.default_keys()}
    a, b = (flat(common.get_config(each)) for each in "AB")
    assert found.keys() == a.keys() | b.keys()
    assert found["train.epochs"] == "5000 (A), 1250 (B)"
    assert found["voxels.keep"] == "300 (A)" and found["splits"].endswith("random (B)")
    assert found["seed"] == "0" and found["data.root"] == '""'
    typed = {"train.lr": "0.0045", "mask.opening": "2", "balance": "200"}
    assert {key: found[key].split(" (A)")[0] for key in typed} == typed


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_keys_of_a_config_are_its_own_values(name, variant):
    config = flat(config_files.load_config(f"{name}:{variant}" if variant else name))
    defaults = flat(common.get_config(config["experiment"]))
    found = {key.name: key for key in catalogue.keys_of(f"{name}:{variant}" if variant else name)}
    assert found.keys() == config.keys()
    assert all(key.comment for key in found.values())
    for key, value in config.items():
        assert ("(default " in found[key].values) == (value != defaults[key])


def test_a_comment_stands_behind_a_key_or_above_it(mine):
    found = {key.name: key for key in catalogue.keys_of("mine.py:quick")}
    assert found["voxels.keep"].values == "77 (default 300)"
    assert found["voxels.keep"].comment.endswith("; here: all in my mask")
    said = found["train.epochs"].comment
    assert said == "maximum number of epochs; see early_stop; here: Enough for a look."
    assert found["balance"].comment.endswith("; here: Enough for a look.")
    assert found["align.alpha"].comment.endswith("; here: tried once")
    assert "here:" not in found["train.lr"].comment and found["train.lr"].values.startswith("0.001")
    plain = {key.name: key for key in catalogue.keys_of("mine.py")}
    assert "Enough" not in plain["balance"].comment


def test_the_documented_config_works(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "install.md").read_text()
    code = re.search(r"```python\n(# mine.py.*?)```", text, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    pathlib.Path("mine.py").write_text(code)
    config = config_files.load_config("mine.py:quick")
    assert (config.data.root, config.voxels.keep, config.train.epochs) == ("/data/mine", 200, 2)
    assert config_files.load_config("mine.py:null").null and config.is_locked
    found = {key.name: key.comment for key in catalogue.keys_of("mine.py:quick")}
    assert found["voxels.keep"].endswith("; here: the mask is small")
    assert [*catalogue.variants_of("mine.py")] == ["quick", "null"]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("least_steps",), ["train.least_steps = 0"]),
        (("EPOCH_zero",), ["train.epoch_zero = False"]),
        (("data.r*",), ['data.root = ""', 'data.run_column = ""', 'data.runs = ""']),
        (("subjects", "--config=haxby"), ['data.subjects = ""', "data.synthetic.subjects = 0"]),
        (("Gaussian",), ["data.smooth_mm = 0.0"]),  # of its comment
        (("balance", "--config=expA:demo"), ["balance = 40 (default 200)"]),
        (("balance", "--config=expA", "--config.balance=7"), ["balance = 7 (default 200)"]),
    ],
)
def test_a_pattern_chooses_keys(capsys, words, lines):
    code, out, _ = said(capsys, "keys", *words)
    assert code == 0
    shown = [line for line in out.splitlines() if " = " in line and not line.startswith(" ")]
    assert len(shown) == len(lines)
    assert all(row.startswith(line) for row, line in zip(shown, lines, strict=True))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("keys", "penatly"),
            "keys: found 'penatly' (did you mean 'train.penalty'?); expected p",
        ),
        (
            ("keys", "zzz"),
            "keys: found 'zzz'; expected part of a key ('emojax keys' lists them",
        ),
        (
            ("configs", "haxbi"),
            "config: found 'haxbi' (No such file or directory; did you mean '",
        ),
        (
            ("keys", "--config=expA:dmo"),
            "expA:dmo: found unknown variant 'dmo' (did you mean 'd",
        ),
        (
            ("configs", "expA:demoo"),
            "expA:demoo: found unknown variant 'demoo' (did you mean 'demo'?); exp",
        ),
        (("configs", "two", "words"), "flags: found words; expected the flags that"),
    ],
)
def test_bad_input_is_one_line(capsys, words, line):
    code, out, err = said(capsys, *words)
    assert code == 2 and not out and err.startswith(line) and err.count("\n") == 1


def test_what_a_file_has_instead_of_a_table_of_variants_is_left_out(mine, capsys):
    path = pathlib.Path("odd.py")
    path.write_text(
        MINE.replace('{"quick": quick}', "3").replace(", variant, VARIANTS)", ', "", {})')
    )
    assert said(capsys, "configs", "odd.py")[:2] == (0, "My study: two groups.\n")
    assert said(capsys, "keys", "epochs", "--config=odd.py")[0] == 0
    path.write_text(MINE.replace('{"quick": quick}', '{"quick": quick, 3: quick, "no": 4}'))
    code, out, _ = said(capsys, "configs", "odd.py")
    assert code == 0 and ":quick" in out
    assert said(capsys, "configs", "mine.py:zzz") == (
        *(2, ""),
        "mine.py:zzz: found unknown variant 'zzz'; expected mine.py, or one of mine.py:quick\n",
    )


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("b", ["B", "null", "B_null"], "B"),
        ("Demo", ["demo", "demo030"], "demo"),
        ("", ["demo"], ""),
        ("xyz", ["demo"], ""),
        ("demo", [], ""),
    ],
)
def test_nearest(name, known, found):
    assert nearest.nearest(name, known) == found
    assert nearest.hint(name, known) == (f" (did you mean {found!r}?)" if found else "")
