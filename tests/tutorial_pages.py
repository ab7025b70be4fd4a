"""Tutorial pages: their blocks are run in order, and the output is compared with the page.

    python tests/tutorial_pages.py docs/tutorials/hyperalignment.md

runs a page and writes what was printed into it, together with its figures. Blocks that still print
what the page says stay as they are.

Python blocks share one process and its names; `sh` blocks share one shell; both work in the same
folder. A Python block whose first line is a comment with a path, such as `# mypkg/nets.py`, becomes
that file. A block without a `text` block behind it prints nothing.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(
    r"^```(python|sh)\n(.*?)^```\n(?:\n(?:<!-- within ([\d.]+) -->\n)?```text\n(.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
IMAGE = re.compile(r"!\[[^]]*\]\(([\w.]+)\)")
SAVED = re.compile(r"# ([\w/]+\.py)\n")
NUMBER = re.compile(r"[-+]?\d*\.\d+(?:e[-+]?\d+)?")
# What differs between two runs of the same commands.
VOLATILE = (
    (
        re.compile(r"/\S*?/(?=(?:runs|session|faces|incoming)\b)"),
        "",
    ),  # where the reader's folder is
    (re.compile(r"\d+(\.\d+)? ?(ms|min|h|s)\b"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8,}\b"), "HASH"),
    (re.compile(r"\b\d+ lines\b"), "LINES"),
    (re.compile(r"(127\.0\.0\.1|localhost):\d+"), "ADDRESS"),
    (re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?"), "DATE"),
)
END = "end of the block"
DRIVER = """
import contextlib, io, json, sys
sys.path.insert(0, "")
names, pipe = {"__name__": "__main__"}, sys.stdout
for line in sys.stdin:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(json.loads(line), "tutorial", "exec"), names)
    print(json.dumps(out.getvalue()), file=pipe, flush=True)
"""


class Block(NamedTuple):
    """A block of code, and the output that the page prints below it."""

    kind: str  # "python" or "sh"
    code: str
    within: float  # decimals of the output may differ by this much
    want: str
    line: int


def read(page: pathlib.Path) -> list[Block]:
    """Returns the blocks of a page in order."""
    text = page.read_text()
    return [
        Block(
            *found.group(1, 2),
            float(found[3] or 0),
            found[4] or "",
            text.count("\n", 0, found.start()) + 1,
        )
        for found in BLOCK.finditer(text)
    ]


class Session:
    """A reader's folder, with a Python process and a shell."""

    def __init__(self, folder: pathlib.Path, cache: pathlib.Path):
        """Starts both processes.

        Args:
          folder: where files go; `examples` of the checkout is linked into it.
          cache: folder of compiled programs, unless the environment names one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "examples").exists():
            (folder / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
        self.folder, commands = folder, cache / "bin"
        commands.mkdir(parents=True, exist_ok=True)
        for name, words in (("python", ""), ("emojax", "-m emojax ")):
            script = commands / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
            script.chmod(0o755)
        known = {"JAX_COMPILATION_CACHE_DIR": str(cache / "xla"), "OPENBLAS_NUM_THREADS": "1"}
        given = {"COLUMNS": "110", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
        path = f"{commands}{os.pathsep}{os.environ['PATH']}"
        self._log = (cache / f"{folder.name}.log").open("w+")
        options = {
            "cwd": folder,
            "env": known | os.environ | given | {"PATH": path},
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "text": True,
        }
        self._python = subprocess.Popen([sys.executable, "-c", DRIVER], stderr=self._log, **options)
        self._shell = subprocess.Popen(
            ["bash"], stderr=subprocess.STDOUT, start_new_session=True, **options
        )

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_) -> None:
        self._python.stdin.close()
        with contextlib.suppress(ProcessLookupError):  # and what runs in its background
            os.killpg(self._shell.pid, signal.SIGTERM)
        for process in (self._python, self._shell):
            process.stdout.close()
            process.wait(60)
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        self._log.close()

    def run(self, block: Block) -> str:
        """Runs a block and returns its output.

        Raises:
          AssertionError: it raised, or its last command failed.
        """
        saved = SAVED.match(block.code)
        if saved and block.kind == "python":
            path = self.folder / saved[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
            return ""
        run = self._run_python if block.kind == "python" else self._run_shell
        return run(block)

    def _run_python(self, block: Block) -> str:
        print(json.dumps(block.code), file=self._python.stdin, flush=True)
        answer = self._python.stdout.readline()
        if not answer:
            self._log.seek(0)
            raise AssertionError(f"the block of line {block.line} raised:\n{self._log.read()}")
        return json.loads(answer)

    def _run_shell(self, block: Block) -> str:
        script = self.folder / ".block.sh"
        script.write_text(block.code)
        print(
            f'source {script.name} </dev/null; echo "{END} $?"', file=self._shell.stdin, flush=True
        )
        said = []
        for line in self._shell.stdout:
            before, found, code = line.partition(END)
            said.append(before if found else line)
            if found:
                assert code.strip() == "0", f"line {block.line}: {''.join(said)}"
                return "".join(said)
        raise AssertionError(f"the shell ended in the block of line {block.line}: {''.join(said)}")


def _normal(line: str) -> str:
    for pattern, name in VOLATILE:
        line = pattern.sub(name, line)
    return " ".join(line.split())


def _same(want: str, got: str, within: float) -> bool:
    """Returns whether two lines agree, but for decimals within the tolerance."""
    want, got = _normal(want), _normal(got)
    if want == got:
        return True
    ours, theirs = NUMBER.findall(want), NUMBER.findall(got)
    if not within or len(ours) != len(theirs) or NUMBER.sub("#", want) != NUMBER.sub("#", got):
        return False
    near = (abs(float(a) - float(b)) <= within + 1e-9 for a, b in zip(ours, theirs, strict=True))
    return all(near)


def agrees(want: str, got: str, within: float = 0.0) -> bool:
    """Returns whether an output is that of the page.

    Times, hashes, addresses, dates, blank lines and the width of gaps are not compared. A line
    `...` of the page stands for any number of lines.

    Args:
      want: output on the page.
      got: output of the block.
      within: largest difference of a decimal number; whole numbers are exact.
    """
    ours, theirs = (list(filter(str.strip, text.splitlines())) for text in (want, got))

    def match(i: int, j: int) -> bool:
        if i == len(ours):
            return j == len(theirs)
        if ours[i].strip() == "...":
            return any(match(i + 1, k) for k in range(j, len(theirs) + 1))
        return j < len(theirs) and _same(ours[i], theirs[j], within) and match(i + 1, j + 1)

    return match(0, 0)


def renew(page: pathlib.Path) -> None:
    """Runs a page, and writes the outputs that have changed and all figures into it."""
    text, blocks = page.read_text(), read(page)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(os.environ.get("TUTORIALS", scratch)) / page.stem
        with Session(folder, folder.parent / "cache") as session:
            outputs = [session.run(block) for block in blocks]
        for name in IMAGE.findall(text):
            shutil.copyfile(folder / name, PAGES / name)
    found = list(BLOCK.finditer(text))
    for match, block, out in reversed(list(zip(found, blocks, outputs, strict=True))):
        if agrees(block.want, out, block.within):
            continue
        print(f"{page.name}, line {block.line}: renewed")
        note = f"<!-- within {block.within:g} -->\n" if block.within else ""
        shown = f"\n{note}```text\n{out.rstrip()}\n```\n" if out.strip() else ""
        code = f"```{block.kind}\n{block.code}```\n"
        text = text[: match.start()] + code + shown + text[match.end() :]
    page.write_text(text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        renew(pathlib.Path(name).resolve())
