"""The languages of the screen: gettext catalogues, and how each language writes dates and numbers."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from tenten.rules.transaction_rules import is_currency, minor_unit

LOCALE: Final = Path(__file__).parent / "locale"
DOMAIN: Final = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How the screen speaks and writes."""

    code: str
    """ISO 639, as in the `lang` of the page."""
    name: str
    """Its own name."""
    date_format: str
    decimal: str
    group: str


_SPACE: Final = "\u00a0"

LANGUAGES: Final = {
    language.code: language
    for language in (
        Language(code="en", name="English", date_format="%Y-%m-%d", decimal=".", group=","),
        Language(code="es", name="Español", date_format="%d/%m/%Y", decimal=",", group="."),
        Language(code="et", name="Eesti", date_format="%d.%m.%Y", decimal=",", group=_SPACE),
        Language(code="fr", name="Français", date_format="%d/%m/%Y", decimal=",", group=_SPACE),
        Language(code="it", name="Italiano", date_format="%d/%m/%Y", decimal=",", group="."),
        Language(code="pt", name="Português", date_format="%d/%m/%Y", decimal=",", group="."),
    )
}
ENGLISH: Final = LANGUAGES["en"]


def language_of(*tags: str | None) -> Language:
    """The first of these BCP 47 tags that the screen speaks; English without one.

    >>> language_of(None, "pt-BR", "fr").code, language_of("ja").code
    ('pt', 'en')
    """
    for tag in tags:
        code = (tag or "").partition("-")[0].lower()
        if code in LANGUAGES:
            return LANGUAGES[code]
    return ENGLISH


@cache
def translations(code: str) -> NullTranslations:
    """The texts of a language; English is that of the source."""
    if code == ENGLISH.code:
        return NullTranslations()
    with (LOCALE / code / "LC_MESSAGES" / f"{DOMAIN}.mo").open("rb") as file:
        return GNUTranslations(file)


def date_text(language: Language, day: date) -> str:
    """The day in figures."""
    return day.strftime(language.date_format)


def time_text(language: Language, at: datetime, zone: ZoneInfo) -> str:
    """The time of today in this zone; of another day with its date."""
    local = at.astimezone(zone)
    clock = local.strftime("%H:%M")
    return clock if local.date() == datetime.now(zone).date() else f"{date_text(language, local.date())} {clock}"


def number_text(language: Language, number: Decimal) -> str:
    """The number with the separators of the language.

    >>> number_text(LANGUAGES["it"], Decimal("-1234.50"))
    '-1.234,50'
    """
    return f"{number:,f}".replace(",", "\0").replace(".", language.decimal).replace("\0", language.group)


def money_text(language: Language, amount: Decimal, currency: str) -> str:
    """An amount with the digits of its currency, and its code."""
    if is_currency(currency):
        unit = minor_unit(currency)
        amount = amount.quantize(unit) if amount == amount.quantize(unit) else amount
    return f"{number_text(language, amount)}{_SPACE}{currency}"


def entered_number(language: Language, text: str) -> Decimal | None:
    """The number that a person has typed in this language; None for any other text. Groups of thousands count only
    where they have three digits.

    >>> entered_number(ENGLISH, "1,234.5"), entered_number(LANGUAGES["it"], "4,50"), entered_number(ENGLISH, "4,50")
    (Decimal('1234.5'), Decimal('4.50'), None)
    """
    text = text.strip()
    decimal = re.escape(language.decimal)
    group = "[\u00a0\u202f ]" if language.group == _SPACE else re.escape(language.group)
    if re.fullmatch(rf"[+-]?\d{{1,3}}(?:{group}\d{{3}})+(?:{decimal}\d+)?", text):
        text = re.sub(group, "", text)
    if not re.fullmatch(rf"[+-]?\d+(?:{decimal}\d+)?", text):
        # A point is a decimal point in every language, where it is not one of a group of thousands.
        if not re.fullmatch(r"[+-]?\d+\.\d+", text):
            return None
    elif language.decimal != ".":
        text = text.replace(language.decimal, ".")
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
