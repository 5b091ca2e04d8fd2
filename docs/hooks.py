"""Hooks of MkDocs: add the pages that are not files of docs/, and adapt links between files.

On GitHub a link leads to a file of the repository. On the site it leads to the page that shows
that file, or to a copy of the file.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import reference_pages

ROOT = Path(__file__).parents[1]
SHOWN = {
    "index.md": "README.md",
    "recipes.md": "recipes/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
"""The pages of the site that show a file outside docs/."""
PAGE_OF = {source: page for page, source in SHOWN.items()} | {"docs/README.md": "index.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and those that show a file outside docs/."""
    for page, source in SHOWN.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for page, make in reference_pages.PAGES.items():
        files.append(File.generated(config, page, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the repository lead to their pages or to copies of them."""
    here = page.file.src_uri
    folder = posixpath.dirname(SHOWN.get(here, f"docs/{here}"))

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        if (ROOT / path).is_dir():
            path = f"{path}/README.md"
            if not (ROOT / path).is_file():
                return match["text"]  # a folder without a page
        if not (ROOT / path).is_file():
            return match[0]
        found = PAGE_OF.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(found) is None:
            found = f"files/{path}"
            files.append(File.generated(config, found, abs_src_path=str(ROOT / path)))
        return f"[{match['text']}]({posixpath.relpath(found, posixpath.dirname(here))}{anchor})"

    pattern = r"\[(?P<text>[^\]\[]*)\]\((?P<target>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)"
    return re.sub(pattern, link, markdown)
