"""The documentation as a site: complete, without a broken link, and without anything from the network."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest

from tests.acceptance.cli import ROOT

_LOADED: Final = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=\"?([^\"\s>]+)")
_LINKED: Final = re.compile(r"<a\b[^>]*?\bhref=\"?([^\"\s>]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, where every warning is an error."""
    target = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return target


def test_site_has_every_page_and_every_link_in_it_leads_somewhere(site: Path) -> None:
    """Also links to files beside docs/, such as ARCHITECTURE.md and deploy/; nothing is loaded from elsewhere."""
    pages = list(site.rglob("*.html"))
    sources = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    expected = {
        source.with_name("index.html" if source.name == "README.md" else f"{source.stem}.html") for source in sources
    }
    assert {page.relative_to(site) for page in pages} >= expected
    broken, foreign = set(), set()
    for page in pages:
        text = page.read_text("utf-8")
        foreign |= {address for address in _LOADED.findall(text) if urlsplit(address).scheme not in ("", "data")}
        for address in (*_LINKED.findall(text), *_LOADED.findall(text)):
            parts = urlsplit(address)
            # The page of an address that does not exist is served at any place.
            if parts.scheme or parts.netloc or not parts.path or page.name == "404.html":
                continue
            if not (page.parent / unquote(parts.path)).exists():
                broken.add((page.relative_to(site).as_posix(), address))
    assert foreign == set()
    assert broken == set()


def test_asyncapi_has_every_reference_that_it_makes() -> None:
    """The document is AsyncAPI 3: each reference in it leads to something, and channels, messages and operations have
    what the specification requires.
    """
    # given
    document = json.loads((ROOT / "docs/reference/asyncapi.json").read_text("utf-8"))
    references = re.findall(r'"\$ref": "#/([^"]+)"', (ROOT / "docs/reference/asyncapi.json").read_text("utf-8"))

    # then
    assert document["asyncapi"] == "3.0.0"
    assert document["info"].keys() >= {"title", "version"}
    assert len(references) > len(document["channels"])
    for reference in references:
        found = document
        for part in reference.split("/"):
            found = found[part]
    for name, channel in document["channels"].items():
        assert channel["address"] == name
        assert channel["messages"]
        assert channel["bindings"]["kafka"]["bindingVersion"] == "0.5.0"
    for name, operation in document["operations"].items():
        worker, action, _ = name.split(".", 2)
        assert operation["action"] == action in ("send", "receive"), worker
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
    for schema in document["components"]["schemas"].values():
        assert schema["schemaFormat"].startswith("application/vnd.apache.avro")
        assert schema["schema"]["type"] == "record"
