"""Citations in a methods paragraph: numbers, a list of references, and BibTeX."""

from collections.abc import Mapping, Sequence

from emojax.report.paper.works import WORKS

SHOWN = {'{\\"o}': "ö", '{\\"e}': "ë", "{\\O}": "Ø", "{": "", "}": "", "--": "-"}
SEVERAL = 3  # maximum number of authors before "et al."


class Citations:
    """The works that a text cites, numbered in order of first citation."""

    def __init__(self):
        self.keys: list[str] = []

    def __call__(self, *keys: str) -> str:
        """Cites works and returns their numbers in brackets, such as "[2, 5]".

        Args:
          *keys: keys of `WORKS`.

        Raises:
          KeyError: a key is not in `WORKS`.
        """
        for key in keys:
            WORKS[key]
            if key not in self.keys:
                self.keys.append(key)
        return f"[{', '.join(str(self.keys.index(key) + 1) for key in keys)}]"


def line(key: str, versions: Mapping[str, str]) -> str:
    """Returns a work as a line of a list of references.

    Args:
      key: a key of `WORKS`.
      versions: versions of packages, by name.
    """
    kind, fields = WORKS[key]
    names = [name.split(",")[0] for name in fields["author"].split(" and ")]
    shortened = len(names) > SEVERAL or "others" in names
    who = f"{names[0]} et al." if shortened else f"{', '.join(names)}."
    where = fields.get("journal") or fields.get("booktitle") or ""
    volume = fields.get("volume", "") + (f"({fields['number']})" if "number" in fields else "")
    if kind == "software" and versions.get(key):
        where = f"version {versions[key]}"
    elif "eprint" in fields:
        where = ", ".join(filter(None, [where, f"{fields['archiveprefix']}:{fields['eprint']}"]))
    place = ", ".join(filter(None, [f"{where} {volume}".strip(), fields.get("pages", "")]))
    parts = [who, f"{fields['title']}.", f"{place}, {fields['year']}." if place else fields["year"]]
    parts += [f"doi:{fields['doi']}"] if "doi" in fields else []
    return plain(" ".join(parts))


def plain(text: str) -> str:
    """Returns BibTeX text without its markup."""
    for mark, shown in SHOWN.items():
        text = text.replace(mark, shown)
    return text


def bibtex(keys: Sequence[str], versions: Mapping[str, str]) -> str:
    """Returns works as a BibTeX file.

    Args:
      keys: keys of `WORKS`, in the order of the file.
      versions: versions of packages, by name; software entries get a note with theirs.
    """
    entries = []
    for key in keys:
        kind, fields = WORKS[key]
        if kind == "software":
            kind = "misc"
            fields = {**fields, "note": f"version {versions[key]}"} if key in versions else fields
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        entries.append("\n".join([f"@{kind}{{{key},", *lines, "}"]))
    return "\n\n".join(entries) + "\n"
