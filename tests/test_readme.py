"""What the README and docs print is what a reader gets. (.ci/run executes the bash blocks.)"""

import contextlib
import io
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FUNCTIONS = (ROOT / "docs" / "functions.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", FUNCTIONS, flags=re.DOTALL)
NUMBER = r"-?\d+\.\d+"


def test_every_python_block_has_its_output():
    assert len(EXAMPLES) == FUNCTIONS.count("```python") >= 8


@pytest.mark.parametrize("code, want", EXAMPLES, ids=[f"block{i}" for i in range(len(EXAMPLES))])
def test_block_prints_what_the_docs_say(code, want):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/functions.md", "exec"), {"__name__": "__main__"})
    assert out.getvalue() == want


def test_first_command_ends_in_the_printed_result():
    command, want = re.search(r"```bash\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    script = command.strip().split(" && ")[-1]
    assert script.startswith("python ")
    done = subprocess.run(
        [sys.executable, *script.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    got = done.stdout
    assert re.sub(NUMBER, "#", got) == re.sub(NUMBER, "#", want)
    # Rounding differs between versions of jax and processors, and may move a volume or two.
    numbers = [np.array(re.findall(NUMBER, text), float) for text in (got, want)]
    np.testing.assert_allclose(*numbers, atol=0.02)


def test_ci_runs_the_bash_blocks():
    assert README.count("```bash") == 2
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f'eval "$(block {n}' in script for n in (1, 2))
