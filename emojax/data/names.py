"""Names that people typed, such as those of conditions: one spelling for each."""

import unicodedata

NONE = "n/a"  # how BIDS writes a cell without a value


def tidy(text: str) -> str:
    """Returns a name without blanks around it, its letters composed (NFC); "" for n/a."""
    name = unicodedata.normalize("NFC", str(text)).strip()
    return "" if name == NONE else name


def loose(name: str) -> str:
    """Returns what is left of a name without its blanks and the case of its letters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf")
