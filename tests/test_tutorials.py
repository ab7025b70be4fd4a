"""The tutorials print what a reader gets: every block is run, and every figure is made."""

import re

import pytest
import tutorial_pages
from tutorial_pages import PAGES, Session, agrees

# In this order: the decoder at the scanner is that of the first page.
NAMES = (
    "first_decode",
    "at_the_scanner",
    "your_study",
    "leakage_lab",
    "hyperalignment",
    "own_network",
)
LARGEST = 60_000  # bytes of a figure


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Returns the folder of all pages."""
    return tmp_path_factory.mktemp("tutorials")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_page_prints_what_it_says(name, desk):
    page = PAGES / f"{name}.md"
    folder = desk / name
    if name == "at_the_scanner":
        if not (desk / "first_decode" / "runs").exists():
            pytest.skip("the run of first_decode.md is not there")
        folder = desk / "first_decode"
    with Session(folder, desk / "cache") as session:
        for block in tutorial_pages.read(page):
            got = session.run(block)
            where = f"{page.name}, line {block.line}"
            assert agrees(block.want, got, block.within), f"{where}: want\n{block.want}\ngot\n{got}"
    for image in tutorial_pages.IMAGE.findall(page.read_text()):
        assert (folder / image).exists(), f"no block of {page.name} makes {image}"


@pytest.mark.parametrize("name", NAMES)
def test_page_has_its_figures_and_its_blocks_are_found(name):
    page = PAGES / f"{name}.md"
    text, blocks = page.read_text(), tutorial_pages.read(page)
    assert len(blocks) == len(re.findall(r"^```(?:python|sh)$", text, re.MULTILINE)) >= 7
    assert text.count("```text") == sum(bool(block.want) for block in blocks)
    for image in tutorial_pages.IMAGE.findall(text):
        assert 0 < (PAGES / image).stat().st_size < LARGEST


def test_every_page_is_tested():
    assert {path.stem for path in PAGES.glob("*.md")} - {"index"} == set(NAMES)


def test_outputs_agree_but_for_what_differs_between_runs():
    assert agrees("a 0.50 b\n", "a  0.50 b\n") and not agrees("a 0.50\n", "a 0.51\n")
    assert agrees("a 0.50 b\n", "a 0.53 b\n", 0.03) and not agrees("a 0.50\n", "a 0.54\n", 0.03)
    assert not agrees("3 folds 0.5\n", "4 folds 0.5\n", 0.1)
    assert agrees("one\n...\nlast\n", "one\ntwo\nthree\nlast\n") and agrees("...\nx\n", "x\n")
    assert not agrees("one\n...\n", "two\n") and not agrees("", "more\n")
    assert agrees("took 3.2 s, id 0a1b2c3d\n", "took 14 s, id deadbeef00\n")
