"""The settings as values; one class for each table of tenten.toml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator

from tenten.rules.definitions import CustomerDefinitions, TransactionDefinitions, value_problem
from tenten.rules.number_sequence import number_format
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings.http import HttpSettings
from tenten.runtime.settings.kafka_properties import kafka_properties
from tenten.runtime.settings.table import SettingsTable
from tenten.runtime.settings.values import (
    AttributeName,
    Country,
    Currency,
    DatabaseAddress,
    HeadquartersAddress,
    Id,
    Language,
    NumberFormat,
    NumberText,
    PlainText,
    Prefix,
    TimeZone,
    WebAddress,
    settings_directory,
    uppercase,
)
from tenten.schemas.consumer_groups import CHANNEL_GROUP, HEADQUARTERS_GROUP
from tenten.schemas.messages import (
    HEADQUARTERS,
    AttributeDefinition,
    CustomerType,
    ReceiptPreference,
    attribute_definition,
)
from tenten.schemas.topics import Topic

FILE_NAME: Final = "tenten.toml"


class AccountNumbers(SettingsTable):
    """How a legal entity numbers its customers."""

    format: NumberFormat
    """Each # is a digit: `C-########`."""
    next: int = Field(default=1, ge=0)
    """The first number; only for a sequence that does not exist yet."""
    continuous: bool = True
    """Whether the sequence never has a gap."""

    @model_validator(mode="after")
    def _next_fits(self) -> Self:
        if self.next > number_format(self.format).number_max:
            raise ValueError(f"next = {self.next} has more digits than the format {self.format}")
        return self


class SalesOrderNumbers(SettingsTable):
    """How a legal entity numbers its sales orders; there is never a gap."""

    format: NumberFormat = "SO-########"
    """Each # is a digit."""
    next: int = Field(default=1, ge=0)
    """The first number; only for a sequence that does not exist yet."""

    @model_validator(mode="after")
    def _next_fits(self) -> Self:
        if self.next > number_format(self.format).number_max:
            raise ValueError(f"next = {self.next} has more digits than the format {self.format}")
        return self


class AttributeSettings(SettingsTable):
    """The definition of an extra field of customers, orders or sales."""

    kind: Literal["text", "integer", "decimal", "boolean", "currency"]
    entities: tuple[Literal["customer", "order", "sale"], ...] = Field(default=("customer",), min_length=1)
    """Where it is used."""
    label: str = Field(default="", max_length=100)
    """The name that a clerk sees; empty: the name of the table."""
    mandatory: bool = False
    """Whether a new customer, order or sale needs a value."""
    default: PlainText | None = None
    """The value of one without a value."""
    choices: tuple[str, ...] = ()
    """The values of a text; empty: any."""
    minimum: NumberText | None = None
    maximum: NumberText | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.choices and self.kind != "text":
            raise ValueError("choices are for a text only")
        if (self.minimum is not None or self.maximum is not None) and self.kind in ("text", "boolean"):
            raise ValueError("minimum and maximum are for numbers only")
        problem = None if self.default is None else value_problem(self.definition("default"), self.default)
        if problem is not None:
            raise ValueError(f"default: {problem[0].lower()}{problem[1:]}")
        return self

    def definition(self, name: str) -> AttributeDefinition:
        """The definition of the attribute of this name."""
        return attribute_definition(name, self.model_dump())


class LegalEntity(SettingsTable):
    """A company of the retailer. Its country, currency and language are the defaults of its customers."""

    country: Country
    currency: Currency
    language: Language
    account_numbers: AccountNumbers
    sales_orders: SalesOrderNumbers = SalesOrderNumbers()
    customer_groups: tuple[str, ...] = ()
    """Empty: any group."""
    attributes: dict[AttributeName, AttributeSettings] = Field(default={})
    """By name; customers, orders or sales for which none is defined may have any."""

    def definitions(self) -> CustomerDefinitions:
        """What its customers may have."""
        return CustomerDefinitions.of(self._attributes(), self.customer_groups)

    def transaction_definitions(self) -> TransactionDefinitions:
        """What its orders and sales may have."""
        return TransactionDefinitions.of(self._attributes())

    def _attributes(self) -> list[AttributeDefinition]:
        return [attribute.definition(name) for name, attribute in self.attributes.items()]


class DefaultCustomer(SettingsTable):
    """Defaults of a channel's new customers. None: the legal entity's value."""

    customer_type: Annotated[CustomerType, BeforeValidator(uppercase)] = CustomerType.PERSON
    customer_group: str = ""
    receipt_preference: Annotated[ReceiptPreference, BeforeValidator(uppercase)] = ReceiptPreference.NONE
    currency: Currency | None = None
    language: Language | None = None
    affiliations: tuple[str, ...] = ()


class ChannelProfile(SettingsTable):
    """A store, web shop or call centre as headquarters knows it: everything but its database."""

    legal_entity: str
    address_books: tuple[str, ...] = ()
    """Empty: all customers of the legal entity."""
    default_customer: DefaultCustomer = DefaultCustomer()
    creation: Literal["async", "sync"] = "async"
    """async: a new customer is pending. sync: wait for the account number; pending only after `sync_seconds`."""
    sync_seconds: float = Field(default=2.0, gt=0, le=60)
    """The longest wait of a sync creation."""
    time_zone: TimeZone = "UTC"
    """Where the channel's business days begin and end."""
    cut_off_hour: int = Field(default=0, ge=0, le=23)
    """The hour at which a business day begins: until then it is still the day before."""
    offline_customers: Literal["all", "own", "none"] = "all"
    """The customers that the channel's own database has: all of them; own: those with one of `address_books`, without
    the shared ones, which have none; none: only those that headquarters has not settled."""
    may_erase: bool = False
    """Whether the channel may erase customers of its legal entity."""

    @model_validator(mode="after")
    def _own_have_books(self) -> Self:
        if self.offline_customers == "own" and not self.address_books:
            raise ValueError('offline_customers = "own" needs address_books')
        return self


class Channel(ChannelProfile):
    """A channel with its database, as the machine needs it on which the channel runs."""

    legal_entity: str = ""
    """Empty: as headquarters has it, which then says everything of this channel."""
    database: DatabaseAddress = Field(repr=False)


def check_channels(channels: Mapping[str, ChannelProfile], legal_entities: Mapping[str, LegalEntity]) -> None:
    """Raises: `ValueError` for a channel with a reserved name, or of a legal entity that is not among these."""
    for name, channel in channels.items():
        if name == HEADQUARTERS:
            raise ValueError("channels.headquarters: headquarters is not a channel; choose another name")
        is_open = isinstance(channel, Channel) and not channel.legal_entity
        if not is_open and channel.legal_entity not in legal_entities:
            known = ", ".join(legal_entities) or "none"
            raise ValueError(
                f"channels.{name}.legal_entity: unknown legal entity {channel.legal_entity} (known: {known}); "
                f"add [legal_entities.{channel.legal_entity}]"
            )


class HeadquartersSettings(SettingsTable):
    """Headquarters' database and limits."""

    database: HeadquartersAddress | None = Field(default=None, repr=False)
    batch_records_max: int = Field(default=10_000, ge=1)
    dead_letters_in_a_row_max: int = Field(default=1_000, ge=1)
    waiting_seconds_max: int = Field(default=3_600, ge=1)
    """A transaction that waits longer for its customer raises an alarm."""
    verify_hours: int = Field(default=24, ge=0)
    """How often a customers worker compares database and topic; 0: never."""
    actions_days: int = Field(default=400, ge=1)
    """How long the record of operators' actions at the dashboard is kept."""


class Alarms(SettingsTable):
    """The limits after which `tenten status` and `tenten fleet` report a problem."""

    silent_seconds_max: int = Field(default=90, ge=90)
    """Without a heartbeat of a channel; a quiet channel sends one a minute."""
    unsent_seconds_max: int = Field(default=600, ge=1)
    """The oldest change of a channel that has not been sent."""
    unsettled_seconds_max: int = Field(default=900, ge=1)
    """The oldest change of a channel that headquarters has neither settled nor rejected."""
    incomplete_seconds_max: int = Field(default=900, ge=90)
    """Since a channel was last known to have every customer."""
    blocked_seconds_max: int = Field(default=3_600, ge=1)
    """The oldest blocked statement."""
    held_seconds_max: int = Field(default=900, ge=1)
    """The oldest event that headquarters holds."""


class Settings(SettingsTable):
    """The effective settings."""

    prefix: Prefix = ""
    """Prepended to every topic, group and transactional id."""
    partitions: int = Field(default=12, ge=1, le=1_000)
    """Partition count of new keyed topics; that of an existing topic never changes."""
    data: Path = Path(".tenten")
    """Directory of the local servers' data. Absolute."""
    kafka: Annotated[dict[str, str], BeforeValidator(kafka_properties)] = Field(default={}, repr=False)
    """Properties of librdkafka."""
    store_kafka: Annotated[dict[str, str], BeforeValidator(kafka_properties)] = Field(default={}, repr=False)
    """Properties of librdkafka with which stores connect, for their tokens; empty: derived from `kafka`."""
    schema_registry_url: WebAddress | None = Field(default=None, repr=False)
    authentication: Literal["off", "warn", "require"] = "warn"
    """What headquarters believes of records that no channel has signed. off: everything. warn: those of channels that
    never had a key. require: nothing."""
    headquarters: HeadquartersSettings = HeadquartersSettings()
    alarms: Alarms = Alarms()
    http: HttpSettings = HttpSettings()
    legal_entities: dict[Id, LegalEntity] = Field(default={})
    channels: dict[Id, Channel] = Field(default={})
    _reader: str | None = PrivateAttr(default=None)
    """The channel whose process has these settings."""
    _directory: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        self._directory = settings_directory(info).resolve()
        object.__setattr__(self, "data", (self._directory / self.data).resolve())
        owners = {self.headquarters.database: HEADQUARTERS}
        check_channels(self.channels, self.legal_entities)
        for name, channel in self.channels.items():
            owner = owners.setdefault(channel.database, name)
            if owner != name:
                raise ValueError(f"channels.{name}.database: {owner} has the same database; each needs its own")
        return self

    @property
    def directory(self) -> Path:
        """The directory of tenten.toml."""
        return self._directory

    def topic(self, topic: Topic) -> str:
        """The topic's name in Kafka."""
        return self.prefix + topic.name

    def partitions_of(self, topic: Topic) -> int:
        """The partition count of the topic when it is created."""
        return self.partitions if topic.partitions is None else topic.partitions

    def group(self, name: str) -> str:
        """A consumer group's name in Kafka."""
        return self.prefix + name

    def channel_group(self, channel: str) -> str:
        """The name in Kafka of the consumer group of a channel."""
        return self.group(CHANNEL_GROUP.format(channel=channel))

    def for_channel(self, name: str) -> Self:
        """The same settings in a process of this channel, whose user may see no other channel's consumer group."""
        settings = self.model_copy()
        settings._reader = name
        return settings

    def reader_group(self) -> str:
        """The group, with prefix, of consumers that are assigned their partitions: they never join it.

        The client looks for its coordinator all the same, so the user must be allowed to see it.
        """
        channel = self._reader
        if channel is None and self.headquarters.database is None:
            channel = next(iter(self.channels), None)
        return self.group(HEADQUARTERS_GROUP) if channel is None else self.channel_group(channel)

    def transactional_id(self, group: str, slot: int) -> str:
        """The transactional id of a group's worker in this slot: `headquarters-3`."""
        return f"{self.prefix}{group}-{slot}"

    def channel(self, name: str) -> Channel:
        """The channel of this name. Raises: `SettingsError` that lists the known channels."""
        if name not in self.channels:
            raise SettingsError(f"unknown channel {name}; known channels: {', '.join(self.channels) or 'none'}")
        return self.channels[name]

    def legal_entity_of(self, channel: str) -> LegalEntity:
        """The legal entity that a channel belongs to.

        Raises: `SettingsError` for an unknown channel, and for one that has no settings from headquarters yet.
        """
        return self.legal_entities[self.with_legal_entity(channel).legal_entity]

    def with_legal_entity(self, name: str) -> Channel:
        """The channel of this name, which has a legal entity. Raises: as `legal_entity_of`."""
        channel = self.channel(name)
        if not channel.legal_entity:
            raise SettingsError(
                f"channel {name} has no settings from headquarters yet: start `tenten channel run {name}` where Kafka "
                f"can be reached; at headquarters `tenten settings show` must list [channels.{name}]"
            )
        return channel

    def headquarters_database(self) -> str:
        """The address of headquarters' database. Raises: `SettingsError` when none is set."""
        if self.headquarters.database is None:
            raise SettingsError(
                "headquarters has no database configured: set TENTEN_HEADQUARTERS_URL or `database` of [headquarters] "
                f"in {FILE_NAME}, or run `tenten local start`"
            )
        return self.headquarters.database
