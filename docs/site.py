"""What MkDocs cannot know: the navigation, by folder, and links to files of the repository beside docs/.

Such a file becomes a page of the site if it is Markdown, otherwise a file of the site; a link to a folder becomes text.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
_BESIDE: Final = "repository"
"""The folder of the site for files beside docs/."""

_LINK: Final = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")

SECTIONS: Final = {
    "Tutorial": "tutorial",
    "How-to": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
    "Decisions": "decisions",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation."""
    nav: list[Any] = [{"Start": "README.md"}]
    for title, folder in SECTIONS.items():
        pages = [page.relative_to(DOCS).as_posix() for page in sorted((DOCS / folder).glob("*.md"))]
        nav.append({title: ["interface.md", *pages] if folder == "reference" else pages})
    nav.append({"Developers": ["contributing.md", *(_uri(file) for file in _beside() if file.suffix == ".md")]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files beside docs/ to which a page links."""
    for file in _beside():
        content = file.read_text("utf-8") if file.suffix == ".md" else file.read_bytes()
        files.append(File.generated(config, _uri(file), content=content))
    return files


@cache
def _beside() -> list[Path]:
    """The files beside docs/ to which a page links, and those to which these link."""
    left = [*DOCS.rglob("*.md"), ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"]
    found = set(left)
    while left:
        page = left.pop()
        for _, link in _LINK.findall(page.read_text("utf-8")):
            target = _target(page, link)
            if target is not None and target.is_file() and target not in found:
                found.add(target)
                left += [target] if target.suffix == ".md" else []
    return sorted(file for file in found if DOCS not in file.parents)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - as called
    """Point links to where their targets are in the site."""
    uri = page.file.src_uri
    source = ROOT / uri.removeprefix(f"{_BESIDE}/") if uri.startswith(f"{_BESIDE}/") else DOCS / uri

    def pointed(match: re.Match[str]) -> str:
        text, link = match.groups()
        target = _target(source, link)
        if target is None:
            return match.group()
        if target.is_dir():
            return text
        fragment = urlsplit(link).fragment
        up = "../" * uri.count("/")
        return f"[{text}]({up}{_uri(target)}{'#' if fragment else ''}{fragment})"

    return _LINK.sub(pointed, markdown)


def _target(page: Path, link: str) -> Path | None:
    """The file or folder of the repository to which a link leads; None for others."""
    parts = urlsplit(link)
    if parts.scheme or not parts.path:
        return None
    return (page.parent / parts.path).resolve()


def _uri(file: Path) -> str:
    """The place in the site of a file of the repository."""
    return (
        file.relative_to(DOCS).as_posix() if DOCS in file.parents else f"{_BESIDE}/{file.relative_to(ROOT).as_posix()}"
    )
