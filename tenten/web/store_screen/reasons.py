"""Why something was rejected, in the clerk's language: by the code of the reason, with the original text below.

The texts of reasons are English and name details, so the meaning of the code is what is translated.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from gettext import NullTranslations
from typing import Final

from tenten.schemas.messages import Reason
from tenten.web.store_screen.languages import ENGLISH, Language, translations


def N_(text: str) -> str:  # noqa: N802 - the name by which tools find texts to translate
    """Mark a text for translation."""
    return text


TEXTS: Final = {
    "awaited": N_("An order or a sale may need this change: correct it instead of discarding it."),
    "blocked": N_("The sale is blocked: open it to see why."),
    "card_number": N_("A card number has 4 to 30 letters, digits and hyphens."),
    "database_refused": N_("Headquarters could not store it. Save it again later."),
    "does_not_add_up": N_("The amounts do not add up."),
    "duplicate": N_("It occurs more than once."),
    "invalid_email": N_("This is not a valid e-mail address."),
    "invalid_phone": N_("This is not a valid phone number. Example: 713 555 0100 or +1 713 555 0100."),
    "misplaced": N_("This does not belong here."),
    "missing": N_("A sale has not arrived at headquarters yet."),
    "no_customer": N_("A delivery needs a customer."),
    "no_number_sequence": N_("Headquarters has no account numbers for this company yet."),
    "number_sequence_used_up": N_("Headquarters has run out of account numbers."),
    "other_legal_entity": N_("It belongs to another company."),
    "out_of_range": N_("This number is too small or too large."),
    "pending": N_("The customer has no account number yet."),
    "rejected": N_("Headquarters has rejected the customer or one of the sales."),
    "rejected_by_headquarters": N_("A person at headquarters has rejected this."),
    "required": N_("This field is required."),
    "taken": N_("Another customer has this card."),
    "too_large": N_("This is too much to be sent: shorten it."),
    "too_long": N_("This text is too long."),
    "too_many": N_("There are too many of them."),
    "too_precise": N_("This number has too many decimal places."),
    "unknown_attribute": N_("Customers do not have this field."),
    "unknown_channel": N_("Headquarters does not know this store yet."),
    "unknown_choice": N_("This value is not among those that are allowed."),
    "unknown_country": N_("Use a code such as US."),
    "unknown_currency": N_("This is not a currency."),
    "unknown_customer": N_("Headquarters does not know this customer yet."),
    "unknown_language": N_("Use a code such as en-US."),
    "unknown_legal_entity": N_("Headquarters does not know this company yet."),
    "unknown_reference": N_("The customer does not have this address or contact."),
    "waiting": N_("The customer has no account number yet."),
    "wrong_kind": N_("This is not a value of the right kind."),
}
"""By code: those that a clerk can meet. Others are shown in English."""

_SAYS_ALL: Final = ("blocked", "invalid_phone", "taken", "unknown_country", "unknown_language")
"""The codes whose text here says more to a clerk than the original, in English, too."""

_CHOICES: Final = "Must be one of: "
_ALLOWED: Final = N_("Allowed: %(choices)s.")

OWN: Final = {
    "changed_meanwhile": N_("Somebody else has changed this in the meantime. Save again to use your value."),
    "not_a_number": N_("This is not a number."),
    "nobody_found": N_("No customer was found."),
    "several_found": N_("Several customers were found: choose one."),
    "no_lines": N_("Enter at least one article."),
    "no_price": N_("Enter a price."),
    "empty_address": N_("Enter a street or a city."),
    "already_there": N_("The customer has this already."),
}
"""By code: reasons of the screen itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownReason:
    """A reason as a page shows it."""

    field: str
    code: str
    text: str
    original: str
    """The English text, where `text` is a translation of its meaning; else empty."""


def own(field: str, code: str) -> Reason:
    """A reason of the screen itself."""
    return Reason(field=field, code=code, text=OWN[code])


def shown(language: Language, reasons: Iterable[Reason]) -> list[ShownReason]:
    """The reasons in this language."""
    return [_shown(language, translations(language.code), reason) for reason in reasons]


def _shown(language: Language, texts: NullTranslations, reason: Reason) -> ShownReason:
    if reason.code in OWN:
        return ShownReason(field=reason.field, code=reason.code, text=texts.gettext(OWN[reason.code]), original="")
    if reason.code == "unknown_choice" and reason.text.startswith(_CHOICES):
        text = texts.gettext(_ALLOWED) % {"choices": reason.text.removeprefix(_CHOICES).removesuffix(".")}
        return ShownReason(field=reason.field, code=reason.code, text=text, original="")
    if reason.code in _SAYS_ALL:
        return ShownReason(field=reason.field, code=reason.code, text=texts.gettext(TEXTS[reason.code]), original="")
    if language is ENGLISH or reason.code not in TEXTS:
        return ShownReason(field=reason.field, code=reason.code, text=reason.text, original="")
    return ShownReason(
        field=reason.field, code=reason.code, text=texts.gettext(TEXTS[reason.code]), original=reason.text
    )
