"""The site: every page is in its menu, every public module and every error has a place."""

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import emojax

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MENU = set(re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))


def load(name):
    """Imports a module of docs/tools, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as NamedTuple wants it
    spec.loader.exec_module(module)
    return module


ERRORS, PAGES, PIPELINES = load("site_errors"), load("site_pages"), load("pipelines")


def test_every_page_is_in_the_menu():
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert {*written, *PAGES.pages()} == MENU


def test_every_public_module_has_a_reference_page():
    shown = {module for modules in PAGES.MODULES.values() for module in modules}
    frozen = (ROOT / "tests" / "public_names_0_3_0.txt").read_text().splitlines()
    modules = {line.partition("(")[0].rpartition(".")[0] for line in frozen}
    below = {module.partition(".")[0] for module in shown}
    assert {*emojax.__all__} <= below
    assert modules <= shown
    assert all(importlib.util.find_spec(f"emojax.{module}") for module in shown)


def test_every_error_has_a_section():
    found = ERRORS.sites()
    assert len(found) > 500
    lost = [f"{site.module}:{site.line}" for site in found if ERRORS.family(site.module) is None]
    assert not lost
    page = (DOCS / "errors.md").read_text()
    assert re.findall(r"<!-- errors: ([\w-]+) -->", page) == [*ERRORS.FAMILIES]
    for name, entries in ERRORS.FAMILIES.items():
        assert ERRORS.table(name, found).count("\n") > 2, name
        for entry in entries:
            path = ROOT / "emojax" / entry
            assert path.is_dir() or path.with_suffix(".py").is_file(), entry


def test_the_page_of_errors_has_the_lines_of_leaks():
    lines = ERRORS.leaks().splitlines()[2:]
    assert len(lines) > 12 and "<!-- leaks -->" in (DOCS / "errors.md").read_text()
    assert any("claims to be …, but" in line for line in lines)


def test_a_table_of_errors_has_what_is_constant_of_a_line(tmp_path):
    (tmp_path / "cli.py").write_text(
        "KINDS = 'a or b'\n"
        "def check(value):\n"
        "    expected = 'one of ' + KINDS\n"
        "    if value:\n"
        "        raise InputError(f'key {value}', 'nothing|here', expected)\n"
        "    expected = 'a new one'\n"
        "    raise InputError(value, f'{value}{value} bytes', expected)\n"
    )
    found = ERRORS.sites(tmp_path)
    assert [site[2:] for site in found] == [
        ("key …", "nothing|here", "one of a or b"),
        ("…", "… bytes", "a new one"),
    ]
    assert "| key … | nothing&#124;here | one of a or b |" in ERRORS.table("command", found)


def test_links_of_root_documents_and_of_source_files_lead_to_pages():
    assert PAGES.source("configs/study.py") == "reference/configs.md#study"
    assert PAGES.source("emojax/scoring/baselines.py").startswith("reference/scoring.md#")
    assert PAGES.source("setup.py") is None
    changes = PAGES.included("CHANGELOG.md")
    assert "](../reliability.md)" in changes and "](docs/" not in changes


def test_the_settings_and_the_commands_are_those_of_the_program():
    from emojax.cli import COMMANDS, catalogue

    keys, commands = PAGES.keys(), PAGES.command()
    assert all(f"`{key.name}`" in keys for key in catalogue.default_keys())
    assert all(f"\n## {name}\n" in commands for name in COMMANDS)
    assert "--workdir=" in commands


def test_the_picture_is_the_one_that_its_script_draws():
    assert PIPELINES.svg() == PIPELINES.FILE.read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    mkdocs = shutil.which("mkdocs")
    if mkdocs is None:
        pytest.skip("mkdocs is not installed (requirements-docs.txt)")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", f"--site-dir={tmp_path / 'site'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pages = {p.relative_to(tmp_path / "site").as_posix() for p in tmp_path.rglob("*.html")}
    assert {page.replace(".md", ".html") for page in MENU} <= pages
    loaded = re.compile(r"<(?:script|link|img|iframe)[^>]*\b(?:src|href)=\"https?://")
    for page in tmp_path.rglob("*.html"):
        assert not loaded.search(page.read_text()), page  # nothing comes from elsewhere
    assert "InputError" in (tmp_path / "site" / "errors.html").read_text()
