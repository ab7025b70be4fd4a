"""What the README and docs print is what a reader gets. (.ci/run executes the bash blocks.)"""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from emojax.report import tables

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ("functions", "wholebrain", "sklearn")  # whose blocks of Python are run
FUNCTIONS = "".join((ROOT / "docs" / f"{name}.md").read_text() for name in PAGES)
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", FUNCTIONS, flags=re.DOTALL)


def test_every_python_block_has_its_output():
    assert len(EXAMPLES) == FUNCTIONS.count("```python") >= 11


@pytest.mark.slow
@pytest.mark.parametrize("code, want", EXAMPLES, ids=[f"block{i}" for i in range(len(EXAMPLES))])
def test_block_prints_what_the_docs_say(code, want):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs", "exec"), {"__name__": "__main__"})
    assert out.getvalue() == want


def test_first_command_ends_in_the_printed_result():
    """The numbers of the README against those of the run that `.ci/run` makes with its command."""
    if "EMOJAX_DEMO" not in os.environ:
        pytest.skip("EMOJAX_DEMO does not name the workdir of the first command")
    metrics = json.loads((pathlib.Path(os.environ["EMOJAX_DEMO"]) / "metrics.json").read_text())
    printed = re.search(r"```bash\n.*?```\n\n```text\n(.*?)```", README, re.DOTALL).group(1)
    rows = re.findall(r"^(\S.*?)  +(\d\.\d{3}) \(", printed, re.MULTILINE)
    found = {row.name: row.summary for row in tables.rows(metrics)}
    assert {name for name, _ in rows} == found.keys()
    for name, mean in rows:
        # Rounding differs between versions of jax and processors; training makes more of it.
        got = found[name]["balanced_accuracy"]["mean"]
        assert got == pytest.approx(float(mean), abs=0.06), name


def stored_numbers():
    """Every balanced accuracy in benchmarks/results/studies_cpu.json, as the README writes them."""
    stored = json.loads((ROOT / "benchmarks" / "results" / "studies_cpu.json").read_text())
    intervals, spreads = set(), set()
    for study in stored.values():
        for arm in study["results"]["arms"].values():
            for scores in arm["classifiers"].values():
                found = scores["balanced_accuracy"]
                spreads.add(f"{found['mean']:.3f} ({found['sd']:.3f})")
                if found["ci95"] is not None:
                    low, high = found["ci95"]
                    intervals.add(f"{found['mean']:.3f} ({low:.3f} - {high:.3f})")
                    spreads.add(f"{low:.3f} - {high:.3f}")
        floors = (study["results"].get("floor") or {}).values()
        rivals = (study["results"].get("within_subject") or {}).values()
        for found in [*(entry for floor in floors for entry in floor.values()), *rivals]:
            low, high = found["ci95"]
            intervals.add(f"{found['mean']:.3f} ({low:.3f} - {high:.3f})")
    return intervals, spreads


def test_numbers_come_from_stored_runs():
    intervals, spreads = stored_numbers()
    printed = set(re.findall(r"\d\.\d{3} \(\d\.\d{3} - \d\.\d{3}\)", README))
    assert len(printed) > 20 and printed <= intervals, printed - intervals
    table = re.search(r"```bash\n.*?```\n\n```text\n(.*?)```", README, re.DOTALL).group(1)
    table = table[: table.index("bag: balanced")]
    rows = re.findall(r"\d\.\d{3} \(\d\.\d{3}\)|\d\.\d{3} - \d\.\d{3}", table)
    assert len(rows) > 20 and set(rows) <= spreads, set(rows) - spreads


def test_the_tables_of_alignments_come_from_stored_runs():
    stored = json.loads((ROOT / "benchmarks" / "results" / "studies_cpu.json").read_text())
    page = (ROOT / "docs" / "wholebrain.md").read_text()
    for study in ("emotions_wholebrain", "wholebrain"):
        found = stored[study]["results"]
        for name, row in found["alignments"]["rows"].items():
            (low, high), gain = row["ci95"], row["minus_first"]
            cells = [f"`{name}`", f"{row['mean']:.3f} ({low:.3f} - {high:.3f})", "", ""]
            if gain is not None:
                low, high = gain["ci95"]
                cells[2] = f"{gain['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
                cells[3] = f"{gain['p_holm']:.2g}"
            cells += [f"{row['floor']['mean']:.3f}", f"{row['p']:.2f}"]
            assert re.sub(" +", " ", f"| {' | '.join(cells)} |") in re.sub(" +", " ", page), name
        assert f"{found['searchlight']['test']['significant']:,}" in page
        assert f"{found['searchlight']['largest']:.3f}".lstrip("0") in page


@pytest.mark.slow
def test_quickstart_prints_a_row_for_every_regime():
    done = subprocess.run(
        [sys.executable, "examples/quickstart.py"], cwd=ROOT, capture_output=True, text=True
    )
    rows = dict(re.findall(r"^(\w+) +(\d\.\d+) ", done.stdout, re.MULTILINE))
    assert set(rows) == {"group", "independent_runs", "transductive", "none"}, done.stderr
    values = {name: float(value) for name, value in rows.items()}
    assert values["none"] < 0.4 < values["independent_runs"] < values["transductive"]


def test_ci_runs_the_bash_blocks():
    assert README.count("```bash") == 2
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f'eval "$(block {n}' in script for n in (1, 2))


@pytest.mark.slow
def test_two_terminals_and_a_replay(tmp_path):
    """The lines of "Real time" as they are printed, but for speed, length and ports."""
    if "EMOJAX_DEMO" not in os.environ:
        pytest.skip("EMOJAX_DEMO does not name the workdir of the first command")
    demo = pathlib.Path(os.environ["EMOJAX_DEMO"]).resolve()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(demo, target_is_directory=True)
    block = README.split("## Real time\n")[1].split("```sh\n")[1].split("```")[0]
    watch, simulate, replay = (line.partition("#")[0].strip() for line in block.splitlines())
    emojax = f"{sys.executable} -m emojax "
    commands = [own.replace("emojax ", emojax) for own in (watch, simulate, replay)]
    export = f"{emojax}export expA:demo --workdir=runs/demo --bundle=decoder"
    subprocess.run(shlex.split(export), cwd=tmp_path, check=True, timeout=300)
    commands[0] = commands[0].replace("runs/demo/decoder", "decoder")
    commands[0] = commands[0].replace("--http=8000", "--http=0 --volumes=200")
    with subprocess.Popen(
        ["bash", "-c", commands[0]], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert any(line.startswith("ready") for line in watching.stderr)
        faster = [*shlex.split(commands[1]), "--speed=20"]
        subprocess.run(faster, cwd=tmp_path, check=True, timeout=300)
        said = watching.stderr.read()
        assert watching.wait(60) == 0, said
    done = subprocess.run(
        shlex.split(commands[2]), cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "200 of 200 records are the same" in done.stdout, done.stderr
