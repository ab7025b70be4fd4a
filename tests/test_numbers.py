"""The numbers of README and docs are those of benchmarks/results."""

import re

import pytest

from benchmarks.tables import claims, pages, scale, stored, studies
from benchmarks.tables.stored import Stored, significant, spread

RESULTS = Stored()
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.])|\b\d[\d,.]* (?:x|ms|s|%)(?=[\s,.;:)])")
EXPLAINED = re.compile(r"<!-- not measured: \S.* -->\s*$")
KNOWN = (  # numbers of README sentences that nobody measures
    r"arXiv:? ?\d+\.\d+",
    r"Python 3\.\d+",
    r"jax 0\.\d+",
    r"95 %",
)
NOT_README = [path for path in pages.paths() if path.name != "README.md"]


def outside(text: str) -> str:
    """Returns a page without its generated blocks and code blocks."""
    return FENCE.sub("", pages.BLOCK.sub("", text))


def test_pages_have_the_stored_numbers():
    found = [(path.name, changed) for path, _, changed in pages.outdated(RESULTS)]
    assert not found, "run `python -m benchmarks.tables`"


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: path.name)
def test_a_table_with_decimals_is_generated_or_says_why_not(path):
    text = outside(path.read_text())
    for table in TABLE.finditer(text):
        decimals = re.findall(r"(?<![\w.])\d*\.\d+", CODE.sub("", table[0]))
        above = text[: table.start()].rstrip()
        assert not decimals or EXPLAINED.search(above), table[0].splitlines()[0]


def test_numbers_in_sentences_of_the_readme_are_claims():
    text = outside(pages.paths()[0].read_text())
    for claim in claims.CLAIMS:
        text = claim.pattern.sub("", text)
    text = re.sub(r"\]\([^)]*\)", "]", CODE.sub("", text))
    for known in KNOWN:
        text = re.sub(known, "", text)
    assert DECIMAL.findall(text) == []


def test_every_claim_and_table_is_used():
    text = "\n".join(path.read_text() for path in pages.paths())
    assert [claim.text for claim in claims.CLAIMS if not claim.pattern.search(text)] == []
    used = {found[1] for found in pages.BLOCK.finditer(text)}
    assert used | {"demo_short"} == pages.TABLES.keys()


def test_a_changed_number_is_found_and_put_right():
    text = "Before.\n\n<!-- numbers: cnn1d -->\n\n| emojax | 1.0 |\n\n<!-- end -->\n\nAfter.\n"
    new, changed = pages.rendered(text, RESULTS)
    assert changed == ["cnn1d"] and new.startswith("Before.\n\n<!-- numbers: cnn1d -->\n\n| 1D CNN")
    assert new.endswith("<!-- end -->\n\nAfter.\n") and pages.rendered(new, RESULTS) == (new, [])
    with pytest.raises(ValueError, match="no table 'cnn'; expected one of: demo"):
        pages.rendered(text.replace("cnn1d", "cnn"), RESULTS)
    with pytest.raises(ValueError, match="has no line <!-- end -->"):
        pages.rendered(text.replace("<!-- end -->", ""), RESULTS)


def test_a_claim_changes_numbers_alone(monkeypatch):
    claim = claims.Claim("takes {} ms, {} x", lambda stored: ("12.5", "3"))
    monkeypatch.setattr(claims, "CLAIMS", (claim,))
    text = "It takes 7 ms,\n1,234 x. Later it takes 12.5 ms, 3 x."
    new, changed = claims.rendered(text, RESULTS)
    assert new == "It takes 12.5 ms,\n3 x. Later it takes 12.5 ms, 3 x."
    assert changed == ['"takes {} ms, {} x ..."'] * 2


def test_pages_that_differ_are_named(tmp_path):
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "README.md").write_text("Nothing.\n")
    page = tmp_path / "docs" / "deep" / "page.md"
    page.write_text("<!-- numbers: io -->\n<!-- end -->\n")
    ((path, text, changed),) = pages.outdated(RESULTS, tmp_path)
    assert path == page and changed == ["io"] and "gzip" in text
    page.write_text("<!-- numbers: io -->\n")
    with pytest.raises(ValueError, match=r"docs/deep/page\.md: a block of numbers has no"):
        list(pages.outdated(RESULTS, tmp_path))


@pytest.mark.parametrize("name", pages.TABLES)
def test_measured_tables_say_where_they_come_from(name):
    lines = pages.TABLES[name](RESULTS)
    last = lines[-1]
    if name in ("scale_bytes", "scale_feed"):
        assert last.startswith("*Arithmetic")
    else:
        assert re.fullmatch(r"\*.+, Python 3.+, jax 0.+, 20\d\d-\d\d-\d\d.*\.json`\)\*", last)
    rows = [line for line in lines if line.startswith("|")]
    assert len({CODE.sub("", row).count("|") for row in rows}) <= 1  # as many cells as the head


def test_spread_is_the_widest_of_the_rounds():
    assert spread({"emojax": [[1.0]]}) == "one round"
    said = spread({"emojax": [[10, 11, 10]], "peer": [[20, 20, 15]]})
    assert said == (
        "medians of 3 rounds, each within 25 % of its median (widest: peer; emojax: 10 %)"
    )
    assert spread({"emojax": [[1, 2, 3], [1.0]]}).startswith("medians of 1 to 3 rounds, each with")


@pytest.mark.parametrize(
    "value, text", [(23.75, "23.8"), (1238.2, "1,240"), (0.13, "0.130"), (9.99, "9.99"), (0, "0")]
)
def test_significant_digits(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(
    "seconds, text",
    [
        ((80,), "80 s"),
        ((20, 80), "20 to 80 s"),
        ((4e8,), "13 years"),
        ((6000, 9000), "1.7 to 2.5 h"),
    ],
)
def test_durations(seconds, text):
    assert scale.span(*seconds) == text


def test_the_printed_demo_is_the_stored_run():
    results = RESULTS.part(studies.FILE, "demo").results
    found = studies.demo_rows(results)
    printed = re.findall(
        r"^(\S.*?)  +(\d\.\d{3} \(\d\.\d{3}\)) (\d\.\d{3} - \d\.\d{3})",
        "\n".join(results["printed"]),
        re.M,
    )
    assert {name for name, *_ in printed} == found.keys()
    for name, mean, interval in printed:
        _, own = found[name]
        low, high = own["ci95"]
        assert f"{own['mean']:.3f} ({own['sd']:.3f})" == mean
        assert f"{low:.3f} - {high:.3f}" == interval


def test_every_result_has_device_versions_and_date():
    for path in sorted(stored.RESULTS.glob("*.json")):
        for part in RESULTS.parts(path.stem).values():
            assert part.environment["device"] and part.environment["python"]
            assert part.jax.startswith("0.") and part.environment["date"] > "2026"
