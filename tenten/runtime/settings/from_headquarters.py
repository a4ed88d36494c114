"""The settings of a channel's process: those of headquarters in place of those that tenten.toml has."""

from collections.abc import Iterator, Mapping
from typing import Any

from tenten.runtime.settings.model import AttributeSettings, DefaultCustomer, LegalEntity, Settings
from tenten.schemas.messages import (
    ChannelSettings,
    CustomerType,
    LegalEntitySettings,
    NewCustomerSettings,
    ReceiptPreference,
)


def with_headquarters(settings: Settings, name: str, published: ChannelSettings | None) -> Settings:
    """The settings with those that headquarters has published for this channel; unchanged before it has.

    A value that this release does not know counts as the default. Raises: `SettingsError` for an unknown channel.
    """
    channel = settings.channel(name)
    if published is None:
        return settings
    entity = published.legal_entity
    effective = channel.model_copy(update=_of_channel(published))
    legal_entity = _of_legal_entity(entity)
    configured = settings.legal_entities.get(entity.name)
    known = (
        LegalEntity.model_construct(**legal_entity)
        if configured is None
        else configured.model_copy(update=legal_entity)
    )
    return settings.model_copy(
        update={
            "channels": {**settings.channels, name: effective},
            "legal_entities": {**settings.legal_entities, entity.name: known},
        }
    )


def differing_settings(settings: Settings, name: str, published: ChannelSettings) -> list[str]:
    """The settings that tenten.toml has otherwise than headquarters, by name, sorted; headquarters' are used."""
    return sorted(_differing(settings, name, published))


def _differing(settings: Settings, name: str, published: ChannelSettings) -> Iterator[str]:
    configured, effective = settings.channel(name), _of_channel(published)
    yield from _different_fields(f"channels.{name}", configured, effective)
    entity = settings.legal_entities.get(published.legal_entity.name)
    if entity is not None:
        values = _of_legal_entity(published.legal_entity)
        yield from _different_fields(f"legal_entities.{published.legal_entity.name}", entity, values)


def _different_fields(path: str, configured: Any, effective: Mapping[str, Any]) -> Iterator[str]:
    for field in configured.model_fields_set & effective.keys():
        value = getattr(configured, field)
        if isinstance(value, DefaultCustomer):
            yield from _different_fields(f"{path}.{field}", value, effective[field].model_dump())
        elif _unordered(value) != _unordered(effective[field]):
            yield f"{path}.{field}"


def _unordered(value: Any) -> Any:
    """The order of names in a list does not matter."""
    return sorted({*value}) if isinstance(value, tuple) else value


def _of_legal_entity(entity: LegalEntitySettings) -> dict[str, Any]:
    """The fields of `LegalEntity` that a channel uses."""
    return {
        "country": entity.country,
        "currency": entity.currency,
        "language": entity.language,
        "customer_groups": entity.customer_groups,
        "attributes": {
            attribute.name: AttributeSettings.model_construct(
                kind=attribute.kind,
                entities=attribute.entities,
                label=attribute.label,
                mandatory=attribute.mandatory,
                default=attribute.initial,
                choices=attribute.choices,
                minimum=attribute.minimum,
                maximum=attribute.maximum,
            )
            for attribute in entity.attributes
        },
    }


def _of_channel(published: ChannelSettings) -> dict[str, Any]:
    """The fields of `Channel` that headquarters decides."""
    return {
        "legal_entity": published.legal_entity.name,
        "address_books": published.address_books,
        "default_customer": _default_customer(published.new_customers),
        "creation": "sync" if published.creation == "sync" else "async",
        "sync_seconds": published.sync_milliseconds / 1_000,
        "time_zone": published.time_zone,
        "cut_off_hour": published.cut_off_hour,
        "offline_customers": published.offline_customers if published.offline_customers in ("own", "none") else "all",
        "may_erase": published.may_erase,
    }


def _default_customer(new_customers: NewCustomerSettings) -> DefaultCustomer:
    customer_type, preference = new_customers.customer_type.upper(), new_customers.receipt_preference.upper()
    return DefaultCustomer.model_construct(
        customer_type=CustomerType(customer_type) if customer_type in CustomerType.__members__ else CustomerType.PERSON,
        customer_group=new_customers.customer_group,
        receipt_preference=(
            ReceiptPreference(preference) if preference in ReceiptPreference.__members__ else ReceiptPreference.NONE
        ),
        currency=new_customers.currency,
        language=new_customers.language,
        affiliations=new_customers.affiliations,
    )
