"""What mkdocs calls while it builds the site; see `hooks` in mkdocs.yml."""

import pathlib
import re
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import site_errors  # noqa: E402 (the path above is how it is found)
import site_pages  # noqa: E402

OUTSIDE = re.compile(r"\]\((?:\.\./)+((?:configs|emojax|examples)/[^)\s]+\.py)\)")
TABLE = re.compile(r"<!-- errors: ([\w-]+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code."""
    for path, text in site_pages.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Fills in tables of errors, and points links to source files at their pages."""
    if page.file.src_uri == "errors.md":
        found = site_errors.sites()
        markdown = markdown.replace("<!-- leaks -->", site_errors.leaks())
        markdown = TABLE.sub(lambda match: site_errors.table(match[1], found), markdown)
    up = "../" * page.file.src_uri.count("/")

    def link(match: re.Match) -> str:
        return f"]({up}{site_pages.source(match[1])})"

    return OUTSIDE.sub(link, markdown)
