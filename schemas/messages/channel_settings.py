"""The settings of a channel as headquarters publishes them, with their way from Avro, and to and from JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeDefinition:
    """An extra field that headquarters has defined."""

    name: str
    kind: str
    """text, integer, decimal, boolean or currency; a later release may know others."""
    entities: tuple[str, ...]
    """Where it is used: customer, order, sale."""
    label: str = ""
    mandatory: bool = False
    initial: str | None = None
    """The value of a new customer, order or sale without one, as text."""
    choices: tuple[str, ...] = ()
    """The values of a text; empty: any."""
    minimum: str | None = None
    maximum: str | None = None


def attribute_definition(name: str, table: Mapping[str, Any]) -> AttributeDefinition:
    """The definition from a table as it is in tenten.toml and in headquarters' database."""
    return AttributeDefinition(
        name=name,
        kind=table["kind"],
        entities=tuple(table.get("entities") or ("customer",)),
        label=table.get("label") or "",
        mandatory=bool(table.get("mandatory")),
        initial=table.get("default"),
        choices=tuple(table.get("choices") or ()),
        minimum=table.get("minimum"),
        maximum=table.get("maximum"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalEntitySettings:
    """The legal entity of a channel, as far as a channel needs it."""

    name: str
    country: str
    currency: str
    language: str
    customer_groups: tuple[str, ...] = ()
    """Empty: any."""
    attributes: tuple[AttributeDefinition, ...] = ()
    """Empty: any attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCustomerSettings:
    """Defaults of a channel's new customers. Enums are in lower case; None: the legal entity's value."""

    customer_type: str = "person"
    customer_group: str = ""
    receipt_preference: str = "none"
    currency: str | None = None
    language: str | None = None
    affiliations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAnswer:
    """Headquarters' answer to an attempt to join as a channel."""

    nonce: str
    """As in the attempt that it answers."""
    outcome: str
    text: str
    mac: str
    """64 hexadecimal digits: nobody but headquarters can compute it for the key of the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """All that a channel needs to know from headquarters."""

    channel_id: str
    version: int
    """Number of the last change of headquarters' settings when this was published; a restored headquarters counts from
    a lower number again."""
    published_at: datetime
    legal_entity: LegalEntitySettings
    address_books: tuple[str, ...] = ()
    offline_customers: str = "all"
    """all, own or none."""
    creation: str = "async"
    sync_milliseconds: int = 2_000
    time_zone: str = "UTC"
    cut_off_hour: int = 0
    """The hour at which a business day begins."""
    new_customers: NewCustomerSettings = NewCustomerSettings()
    may_erase: bool = False
    kid: str | None = None
    """The id of the only key with which headquarters accepts the channel's records."""
    headquarters_public_key: bytes | None = None
    suspended: str | None = None
    """Why headquarters accepts no records of the channel at the moment."""
    joins: tuple[JoinAnswer, ...] = ()
    """The newest answers to attempts to join, the newest last."""
    public_key: bytes | None = None
    """The key that `kid` names."""
    acceptance_changed_at: datetime | None = None
    """When the key changed, or a suspension began or ended, whichever was last; None: never."""
    checks_keys: bool = False
    """Whether headquarters checks who has written a record."""


def channel_settings_from_avro(record: Mapping[str, Any]) -> ChannelSettings:
    """The settings from a decoded Avro record."""
    entity = record["legal_entity"]
    definitions = tuple(AttributeDefinition(**_with_tuples(item)) for item in entity["attributes"])
    return ChannelSettings(
        **{
            **_with_tuples(record),
            "legal_entity": LegalEntitySettings(**{**_with_tuples(entity), "attributes": definitions}),
            "new_customers": NewCustomerSettings(**_with_tuples(record["new_customers"])),
            "joins": tuple(JoinAnswer(**answer) for answer in record["joins"]),
        }
    )


def channel_settings_as_json(settings: ChannelSettings) -> dict[str, Any]:
    """The settings as a channel stores them."""
    changed_at = settings.acceptance_changed_at
    return {
        **asdict(settings),
        "published_at": settings.published_at.isoformat(),
        "headquarters_public_key": _hex(settings.headquarters_public_key),
        "public_key": _hex(settings.public_key),
        "acceptance_changed_at": None if changed_at is None else changed_at.isoformat(),
    }


def channel_settings_from_json(stored: Mapping[str, Any]) -> ChannelSettings:
    """The inverse. What another release has stored besides is left out, and what it has not stored is the default."""
    entity, changed_at = stored["legal_entity"], stored.get("acceptance_changed_at")
    record = _known(ChannelSettings, stored) | {
        "published_at": datetime.fromisoformat(stored["published_at"]),
        "headquarters_public_key": _from_hex(stored.get("headquarters_public_key")),
        "public_key": _from_hex(stored.get("public_key")),
        "acceptance_changed_at": None if changed_at is None else datetime.fromisoformat(changed_at),
        "legal_entity": _known(LegalEntitySettings, entity)
        | {"attributes": [_known(AttributeDefinition, item) for item in entity.get("attributes", ())]},
        "new_customers": _known(NewCustomerSettings, stored.get("new_customers", {})),
        "joins": [_known(JoinAnswer, answer) for answer in stored.get("joins", ())],
    }
    return channel_settings_from_avro(record)


def _hex(key: bytes | None) -> str | None:
    return None if key is None else key.hex()


def _from_hex(stored: str | None) -> bytes | None:
    return None if stored is None else bytes.fromhex(stored)


def _known(record: type[Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in record.__slots__}


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
