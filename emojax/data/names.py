"""Unified spelling of names that people typed, such as those of conditions."""

import unicodedata

NONE = "n/a"  # a cell without a value in BIDS


def tidy(text: str) -> str:
    """Returns a name without surrounding blanks, in composed form (NFC); "" for n/a."""
    name = unicodedata.normalize("NFC", str(text)).strip()
    return "" if name == NONE else name


def loose(name: str) -> str:
    """Returns a name without blanks and in folded case, for comparison."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf")
