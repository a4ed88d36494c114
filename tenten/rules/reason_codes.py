"""The catalogue of reason codes: every `code` of a `Reason`, from the till, headquarters or a file import.

A rule has one code wherever it is checked. The text of a reason is for the person who reads it; meaning and remedy
here are for the reference pages.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCode:
    """One code, with what it means and what to do about it, each a sentence."""

    code: str
    meaning: str
    remedy: str


def catalogue(*codes: tuple[str, str, str]) -> dict[str, ReasonCode]:
    """The codes with meaning and remedy, by code."""
    return {code: ReasonCode(code=code, meaning=meaning, remedy=remedy) for code, meaning, remedy in codes}


REASON_CODES: Final = catalogue(
    ("awaited", "An order or sale of this customer may be waiting for the change.", "Correct the change instead."),
    ("blocked", "The customer of a transaction on the statement is blocked.", "See the reasons of the transaction."),
    ("cannot_be_written", "Headquarters' database rejected the sales order.", "See headquarters' log."),
    ("card_number", "The loyalty card number is malformed.", "Use 4 to 30 letters, digits and hyphens."),
    ("carried", "A cash-and-carry sale has a delivery address.", "Record an order, or leave the address out."),
    (
        "control_character",
        "A new text of one line contains a control character, such as a line break.",
        "Remove the character.",
    ),
    ("database_refused", "Headquarters' database rejected the data.", "See headquarters' log, then save again."),
    ("does_not_add_up", "An amount differs from the sum of its parts.", "Correct the amounts."),
    ("duplicate", "An id or a name occurs more than once.", "Give each its own id or name, or leave the repeat out."),
    (
        "event_mismatch",
        "The customer event inside an order or sale is of another channel, customer or id.",
        "Correct the program that sent it.",
    ),
    ("incomplete", "A customer event has no id, or an id has no event.", "Send both, or neither."),
    ("invalid_email", "The e-mail address is not valid.", "Correct the address."),
    ("invalid_id", "The id is not a GUID.", "Use a GUID in lower case with hyphens."),
    ("invalid_phone", "The phone number is not valid in E.164 form.", "Give country code and number: +17135550123."),
    ("invalid_time", "The time has no zone, or lies outside the years 1 to 9999.", "Correct the time."),
    ("invisible", "A new name has no visible character.", "Enter the name, or leave it out."),
    ("malformed", "A field of a request is not as the API describes it.", "See /openapi.json of the store."),
    ("misplaced", "A field or a listed transaction does not belong to this kind of record.", "Leave it out."),
    ("missing", "A listed transaction has not arrived at headquarters.", "Send the transaction again from the store."),
    ("nested", "A cell of the file holds a list or an object.", "Use a text, a number, true, false or null."),
    ("no_customer", "A delivery address is given without a customer.", "Add the customer, or leave the address out."),
    (
        "no_number_sequence",
        "Headquarters has no number sequence for the legal entity; the event is held.",
        "Upgrade headquarters' database.",
    ),
    ("no_sequence", "The legal entity has no sequence of sales order numbers.", "Upgrade headquarters' database."),
    (
        "not_permitted",
        "Only headquarters has customers sent again; only it and channels with `may_erase` erase them.",
        "Erase at headquarters, or allow the channel to.",
    ),
    (
        "not_unicode",
        "The text contains an unpaired surrogate.",
        "Enter the text again; check the encoding of the file.",
    ),
    ("nul", "The text contains a NUL character.", "Remove the character."),
    (
        "number_sequence_used_up",
        "The number sequence is used up; the event is held.",
        "Give the sequence a longer format, and upgrade headquarters' database.",
    ),
    ("one_value", "The attribute has no value, or more than one.", "Give a text, an integer, a decimal or yes or no."),
    (
        "other_legal_entity",
        "The legal entity is not that of the channel or customer.",
        "Use the channel's legal entity.",
    ),
    ("out_of_range", "The number or the date is outside the permitted range.", "Correct it."),
    ("pending", "The customer has no account number yet.", "Wait for the account number."),
    (
        "rejected",
        "Headquarters has rejected the customer or a listed transaction.",
        "Correct it and save or send again.",
    ),
    (
        "rejected_by_headquarters",
        "A person at headquarters rejected a change that was held.",
        "Correct or discard it: the text says why.",
    ),
    ("required", "A required field is empty.", "Fill in the field."),
    ("taken", "Another customer of this channel has the loyalty card.", "Issue another card."),
    ("too_large", "The record is too large to be sent.", "Remove lines, addresses, contacts or attributes."),
    ("too_long", "The text has too many characters.", "Shorten the text."),
    ("too_many", "The list has too many members.", "Remove members."),
    ("too_precise", "The number has too many decimal places.", "Round the number."),
    (
        "unknown_attribute",
        "The legal entity has not defined this attribute.",
        "Use a defined attribute, or define it in headquarters' settings.",
    ),
    (
        "unknown_channel",
        "Headquarters has no channel of this name yet; the record is held.",
        "Add the channel to headquarters' settings (`tenten settings apply`).",
    ),
    ("unknown_choice", "The value is none of those that its field accepts.", "Use one of the values in the text."),
    ("unknown_country", "The country is not an ISO 3166-1 alpha-2 code.", "Use a code such as US."),
    ("unknown_currency", "The currency is not an ISO 4217 code.", "Use a code such as USD."),
    ("unknown_customer", "The customer does not exist here.", "Check the id; wait until the customer has arrived."),
    ("unknown_field", "A request has a field that the API does not know.", "Correct its name, or leave it out."),
    ("unknown_kind", "The contact is neither a phone number nor an e-mail address.", "Use PHONE or EMAIL."),
    ("unknown_language", "The language is not a BCP 47 tag.", "Use a tag such as en-US."),
    (
        "unknown_legal_entity",
        "Headquarters has no such legal entity yet; the event is held.",
        "Add it to headquarters' settings (`tenten settings apply`).",
    ),
    ("unknown_path", "The event changes a field that a customer does not have.", "Correct the program that sent it."),
    ("unknown_purpose", "The purpose of the address does not exist.", "Use one of the purposes in the text, or none."),
    ("unknown_reference", "The customer has no address or contact with this id.", "Use an id of the customer's own."),
    ("unreadable", "The line of the file cannot be read.", "Correct the line."),
    (
        "unreadable_event",
        "Headquarters cannot read the change or the transaction: it is too large, damaged, or of a newer release.",
        "Correct it and save or send it again; headquarters has kept it among its dead letters.",
    ),
    ("waiting", "A transaction on the statement is waiting for its customer.", "Wait, or correct the customer."),
    (
        "wrong_kind",
        "The value of the attribute is not of the kind that is defined.",
        "Use a value of the kind in the text.",
    ),
)
"""By code, in alphabetical order."""
