"""Code and commands of README and docs print what the pages show; .ci/run has the bash blocks."""

import contextlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import traceback

import pytest

from benchmarks.tables import studies
from benchmarks.tables.stored import Stored
from emojax.report import tables

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ("functions", "wholebrain", "sklearn")  # with blocks of Python that are run
BLOCKS = README + "".join((ROOT / "docs" / f"{name}.md").read_text() for name in PAGES)
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", BLOCKS, flags=re.DOTALL)


def test_every_python_block_has_its_output():
    assert len(EXAMPLES) == BLOCKS.count("```python") >= 12


@pytest.mark.slow
@pytest.mark.parametrize("code, want", EXAMPLES, ids=[f"block{i}" for i in range(len(EXAMPLES))])
def test_block_prints_what_the_docs_say(code, want):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(code, "docs", "exec"), {"__name__": "__main__"})
        except Exception as error:  # the last line of the output
            out.write(traceback.format_exception_only(error)[-1])
    assert out.getvalue() == want


def test_the_first_command_gives_the_stored_result():
    """Compares the run that `.ci/run` makes with the README's first command with the stored one."""
    if "EMOJAX_DEMO" not in os.environ:
        pytest.skip("EMOJAX_DEMO does not name the workdir of the first command")
    metrics = json.loads((pathlib.Path(os.environ["EMOJAX_DEMO"]) / "metrics.json").read_text())
    found = {row.name: row.summary for row in tables.rows(metrics)}
    stored = studies.demo_rows(Stored().part(studies.FILE, "demo").results)
    assert stored.keys() == found.keys()
    for name, (_, scores) in stored.items():
        # Rounding differs between versions of jax and processors; training amplifies it.
        got = found[name]["balanced_accuracy"]["mean"]
        assert got == pytest.approx(scores["mean"], abs=studies.TOLERANCE), name


@pytest.mark.slow
def test_quickstart_prints_a_row_for_every_regime():
    done = subprocess.run(
        [sys.executable, "examples/quickstart.py"], cwd=ROOT, capture_output=True, text=True
    )
    rows = dict(re.findall(r"^(\w+) +(\d\.\d+) ", done.stdout, re.MULTILINE))
    assert done.returncode == 0, done.stderr
    assert set(rows) == {"group", "independent_runs", "transductive", "none"}
    values = {name: float(value) for name, value in rows.items()}
    assert values["none"] < 0.4 < values["independent_runs"] < values["transductive"]


def test_ci_runs_the_bash_blocks():
    assert README.count("```bash") == 2
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f'eval "$(block {n}' in script for n in (1, 2))
