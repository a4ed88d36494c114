"""The catalogue of the codes of unreadable records: `x-dlq-reason` of a dead letter, `reason` of a log event.

Meaning and remedy are for the reference pages; the text of an error is for the person who reads it.
"""

from collections.abc import Mapping
from typing import Final, Literal

from tenten.rules.reason_codes import ReasonCode, catalogue

UnreadableReason = Literal[
    "database_refused",
    "key_mismatch",
    "malformed",
    "no_avro",
    "not_authentic",
    "null_value",
    "suspended",
    "too_large",
    "unknown_kind",
    "unknown_schema",
    "wrong_partition",
]
"""The codes, for type checking where they are written."""

_CORRECT_THE_WRITER: Final = "Correct the program that wrote the record."

UNREADABLE_REASONS: Final[Mapping[str, ReasonCode]] = catalogue(
    (
        "database_refused",
        "Headquarters' database rejected the record.",
        "See headquarters' log, then correct the transaction and send it again.",
    ),
    (
        "key_mismatch",
        "The key of the record is not that of its content, or the key of a tombstone is not a GUID.",
        _CORRECT_THE_WRITER,
    ),
    (
        "malformed",
        "The value is not one record of the writer's schema, or has a field outside the supported range.",
        _CORRECT_THE_WRITER,
    ),
    (
        "no_avro",
        "The value begins neither with Avro's single-object marker nor with Confluent's.",
        _CORRECT_THE_WRITER,
    ),
    (
        "not_authentic",
        "The record is not signed with the valid key of the channel that it names. It is not answered.",
        "If the store wrote it, let it join again (`tenten channel enroll NAME`). See the how-to authentic-records.",
    ),
    ("null_value", "The record has no value.", _CORRECT_THE_WRITER),
    (
        "suspended",
        "Headquarters has suspended the channel. The record is not answered.",
        "`tenten channel resume NAME`: the store then sends its unsettled changes again.",
    ),
    ("too_large", "The value is larger than headquarters accepts.", _CORRECT_THE_WRITER),
    (
        "unknown_kind",
        "The record is of a kind that a later release has introduced.",
        "Upgrade headquarters, then replay the dead letter.",
    ),
    (
        "unknown_schema",
        "The schema of the record is unknown or invalid.",
        "Publish the writer's schema in the topic `schemas` or the registry, then replay the dead letter.",
    ),
    (
        "wrong_partition",
        "The record is not in the partition of its key, so two workers could own one customer.",
        "Let the writer partition by `murmur2_random`, as the Java clients do. A replay uses the right partition.",
    ),
)
