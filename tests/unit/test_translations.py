"""The catalogues of the store's screen: complete, usable, and compiled."""

import io
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from tenten.rules.reason_codes import REASON_CODES
from tenten.web.store_screen.languages import DOMAIN, ENGLISH, LANGUAGES, LOCALE, translations
from tenten.web.store_screen.reasons import OWN, TEXTS

_WEB = LOCALE.parents[1]
_PLACE = re.compile(r"%\(\w+\)s|<[^>]+>")
OTHERS = sorted(set(LANGUAGES) - {ENGLISH.code})


def _file(code: str, ending: str) -> Path:
    return LOCALE / code / "LC_MESSAGES" / f"{DOMAIN}.{ending}"


def _catalogue(code: str) -> Catalog:
    with _file(code, "po").open("rb") as file:
        return read_po(file)


def _texts() -> set[str | tuple[str, ...]]:
    """Every text that the code and the templates have."""
    with (LOCALE / "babel.cfg").open() as file:
        methods, options = parse_mapping_cfg(file)  # type: ignore[no-untyped-call]  # Babel's
    found = extract_from_dir(_WEB, methods, options, keywords={**DEFAULT_KEYWORDS, "N_": None})
    return {message for _, _, message, _, _ in found}


def _translated(message: Message) -> list[str]:
    return [message.string] if isinstance(message.string, str) else list(message.string or ())


@pytest.mark.parametrize("code", OTHERS)
def test_a_catalogue_has_every_text_of_the_screen_and_no_other(code: str) -> None:
    """Each with a translation that keeps what is filled in; `make translations` adds new texts."""
    # given
    messages = {message.id: message for message in _catalogue(code) if message.id}
    # then
    assert set(messages) == _texts()
    for message in messages.values():
        whole = message.id if isinstance(message.id, str) else message.id[-1]
        for text in _translated(message)[-1:] if isinstance(message.id, tuple) else _translated(message):
            assert sorted(_PLACE.findall(text)) == sorted(_PLACE.findall(whole)), message.id
        assert all(_translated(message)), message.id
    assert "Not reviewed by a native speaker" in _catalogue(code).header_comment


def test_every_translated_reason_exists() -> None:
    """The screen translates the codes of the catalogue, and its own."""
    assert set(TEXTS) <= set(REASON_CODES)
    assert not set(OWN) & set(REASON_CODES)


@pytest.mark.parametrize("code", OTHERS)
def test_a_compiled_catalogue_is_that_of_its_source(code: str) -> None:
    """Installing needs no compiler of catalogues: the compiled ones are in the repository."""
    # given
    compiled = io.BytesIO()
    write_mo(compiled, _catalogue(code))
    # then
    assert _file(code, "mo").read_bytes() == compiled.getvalue()
    assert translations(code).gettext("Customers") != "Customers"
