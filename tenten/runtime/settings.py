"""What is in force: flags before the environment before `tenten.toml`. Nothing is read before `load_settings`.

The environment holds what differs from machine to machine or is secret; everything else stands in the file:

    KAFKA_BOOTSTRAP_SERVERS, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD     as in [kafka]
    SCHEMA_REGISTRY_URL                                                   schema_registry_url
    TENTEN_HEADQUARTERS_URL                                               database of [headquarters]
    TENTEN_CONFIG                                                         the file, else tenten.toml in this directory
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tenten.rules.limits import countries, currencies
from tenten.rules.number_sequence import number_format
from tenten.runtime.errors import SettingsError
from tenten.schemas.messages import HEADQUARTERS, CustomerType, ReceiptPreference
from tenten.schemas.topics import Topic

FILE_NAME: Final = "tenten.toml"

_MASK: Final = "********"
_SECRET_WORDS: Final = ("password", "secret", "private.key", "key.pem", "oauthbearer.config")

_JAVA_ONLY: Final[Mapping[str, str]] = {
    "sasl.jaas.config": "write sasl.username and sasl.password",
    "sasl.login.callback.handler.class": "write sasl.oauthbearer.method and the properties beside it",
    "sasl.client.callback.handler.class": "remove it",
    "ssl.truststore.location": "write ssl.ca.location, the path of a PEM file",
    "ssl.truststore.password": "remove it; ssl.ca.location names a PEM file, which has none",
    "ssl.truststore.type": "remove it; ssl.ca.location names a PEM file",
    "ssl.truststore.certificates": "write ssl.ca.pem",
    "ssl.keystore.type": "remove it; ssl.keystore.location names a PKCS#12 file",
    "ssl.keystore.certificate.chain": "write ssl.certificate.pem",
    "ssl.keystore.key": "write ssl.key.pem",
    "ssl.protocol": "remove it",
    "ssl.enabled.protocols": "remove it",
    "key.serializer": "remove it",
    "value.serializer": "remove it",
    "key.deserializer": "remove it",
    "value.deserializer": "remove it",
    "interceptor.classes": "remove it",
    "metric.reporters": "remove it",
    "max.poll.records": "write batch_records_max in [headquarters]",
    "max.request.size": "write message.max.bytes",
    "buffer.memory": "write queue.buffering.max.kbytes",
    "fetch.max.wait.ms": "write fetch.wait.max.ms",
    "send.buffer.bytes": "write socket.send.buffer.bytes",
    "receive.buffer.bytes": "write socket.receive.buffer.bytes",
    "default.api.timeout.ms": "remove it",
    "max.block.ms": "remove it",
}
"""Properties of the Java clients that librdkafka does not have, and what to do instead.
Source: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
"""


def _id(value: str) -> str:
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,63}", value):
        raise ValueError("use small letters, digits, - and _, at most 64, and begin with a letter or a digit")
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch("[A-Za-z0-9._-]{0,100}", value):
        raise ValueError("use letters, digits, . - and _, at most 100; Kafka allows no others in names")
    return value


def _country(value: str) -> str:
    if value not in countries():
        raise ValueError("write the two letters of ISO 3166, for example US")
    return value


def _currency(value: str) -> str:
    if value not in currencies():
        raise ValueError("write the three letters of ISO 4217, for example USD")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("write a name of the IANA time zone database, for example America/Chicago") from error
    return value


def _number_format(value: str) -> str:
    number_format(value)
    return value


def _database_address(value: str, info: ValidationInfo) -> str:
    """A plain address; the path of a SQLite file becomes absolute, seen from where tenten.toml lies."""
    url = _plain_url(value)
    if url.drivername == "postgresql":
        return value
    if not url.database or url.database == ":memory:":
        raise ValueError("write the path of a file, for example sqlite:///houston.db")
    return url.set(database=str((_directory(info) / url.database).resolve())).render_as_string(hide_password=False)


def _headquarters_address(value: str) -> str:
    if _plain_url(value).drivername != "postgresql":
        raise ValueError("headquarters needs PostgreSQL; write postgresql://user@host/database")
    return value


def _plain_url(value: str) -> URL:
    try:
        url = make_url(value)
    except (ArgumentError, ValueError) as error:
        raise ValueError("write postgresql://user@host/database or sqlite:///file.db") from error
    if url.drivername not in ("postgresql", "sqlite"):
        raise ValueError(f"write plain postgresql:// or sqlite:// instead of {url.drivername}://")
    return url


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write an address like http://127.0.0.1:8081")
    return value


def _kafka_properties(value: Any) -> Any:
    """Property names with dots, quoted or not, and their values as text, which is how librdkafka takes them."""
    if not isinstance(value, Mapping):
        return value
    properties = dict(_flatten(value))
    for name in properties:
        if name in _JAVA_ONLY:
            raise ValueError(f"{name} is known to Java clients only: {_JAVA_ONLY[name]}")
    return properties


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)


def _directory(info: ValidationInfo) -> Path:
    """Where relative paths start: the directory of tenten.toml."""
    return Path((info.context or {}).get("directory", "."))


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


Id = Annotated[str, AfterValidator(_id)]
Country = Annotated[str, AfterValidator(_country)]
Currency = Annotated[str, AfterValidator(_currency)]
Language = Annotated[str, StringConstraints(min_length=2, max_length=35)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
NumberFormat = Annotated[str, StringConstraints(max_length=64), AfterValidator(_number_format)]
DatabaseAddress = Annotated[str, AfterValidator(_database_address)]
WebAddress = Annotated[str, AfterValidator(_web_address)]


class _Table(BaseModel):
    """A table of the file: what is not known is refused, and nothing changes once it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class AccountNumbers(_Table):
    """How a legal entity numbers its customers."""

    format: NumberFormat
    """Each # is a digit: `C-########`."""
    next: int = Field(default=1, ge=0)
    """The first number; only for a sequence that does not exist yet."""
    continuous: bool = True
    """True: no gap, ever."""

    @model_validator(mode="after")
    def _next_fits(self) -> Self:
        if self.next > number_format(self.format).number_max:
            raise ValueError(f"next = {self.next} has more digits than the format {self.format}")
        return self


class SalesOrderNumbers(_Table):
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


class LegalEntity(_Table):
    """A company of the retailer; what it says is the default of its customers."""

    country: Country
    currency: Currency
    language: Language
    account_numbers: AccountNumbers
    sales_orders: SalesOrderNumbers = SalesOrderNumbers()


class DefaultCustomer(_Table):
    """What a channel lends every new customer that does not say otherwise. None: as the legal entity has it."""

    customer_type: Annotated[CustomerType, BeforeValidator(_upper)] = CustomerType.PERSON
    customer_group: str = ""
    receipt_preference: Annotated[ReceiptPreference, BeforeValidator(_upper)] = ReceiptPreference.NONE
    currency: Currency | None = None
    language: Language | None = None
    affiliations: tuple[str, ...] = ()


class Channel(_Table):
    """A store, web shop or call centre with a database of its own."""

    legal_entity: str
    address_books: tuple[str, ...] = ()
    """None means all customers of the legal entity."""
    database: DatabaseAddress = Field(repr=False)
    default_customer: DefaultCustomer = DefaultCustomer()
    creation: Literal["async", "sync"] = "async"
    """async: a new customer is pending. sync: it is waited for, and pending only when that takes too long."""
    sync_seconds: float = Field(default=2.0, gt=0, le=60)
    """How long a sync creation waits at most."""
    time_zone: TimeZone = "UTC"
    """Where the channel's business days begin and end."""


class HeadquartersSettings(_Table):
    """Headquarters' database and limits."""

    database: Annotated[DatabaseAddress, AfterValidator(_headquarters_address)] | None = Field(default=None, repr=False)
    batch_records_max: int = Field(default=10_000, ge=1)
    dead_letters_in_a_row_max: int = Field(default=1_000, ge=1)
    waiting_seconds_max: int = Field(default=3_600, ge=1)
    """A transaction that waits for its customer for longer raises an alarm."""


class Settings(_Table):
    """Everything that is in force."""

    prefix: Annotated[str, AfterValidator(_prefix)] = ""
    """Before every topic, group and transactional id."""
    partitions: int = Field(default=12, ge=1, le=1_000)
    """How many partitions each keyed topic is created with. It never changes for a topic that exists."""
    data: Path = Path(".tenten")
    """Where local servers keep their data. Absolute."""
    kafka: Annotated[dict[str, str], BeforeValidator(_kafka_properties)] = Field(default={}, repr=False)
    """Properties of librdkafka."""
    schema_registry_url: WebAddress | None = Field(default=None, repr=False)
    headquarters: HeadquartersSettings = HeadquartersSettings()
    legal_entities: dict[Id, LegalEntity] = {}
    channels: dict[Id, Channel] = {}

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        object.__setattr__(self, "data", (_directory(info) / self.data).resolve())
        owners = {self.headquarters.database: HEADQUARTERS}
        for name, channel in self.channels.items():
            if name == HEADQUARTERS:
                raise ValueError("channels.headquarters: headquarters is no channel; choose another name")
            if channel.legal_entity not in self.legal_entities:
                known = ", ".join(self.legal_entities) or "none"
                raise ValueError(
                    f"channels.{name}.legal_entity: there is no legal entity {channel.legal_entity} (known: {known}); "
                    f"add [legal_entities.{channel.legal_entity}]"
                )
            owner = owners.setdefault(channel.database, name)
            if owner != name:
                raise ValueError(f"channels.{name}.database: {owner} has the same; each needs a database of its own")
        return self

    def topic(self, topic: Topic) -> str:
        """The topic's name in Kafka."""
        return self.prefix + topic.name

    def partitions_of(self, topic: Topic) -> int:
        """How many partitions the topic has when it is created."""
        return self.partitions if topic.partitions is None else topic.partitions

    def group(self, name: str) -> str:
        """A consumer group's name in Kafka."""
        return self.prefix + name

    def transactional_id(self, group: str, slot: int) -> str:
        """The transactional id of a group's worker in this slot: `headquarters-3`."""
        return f"{self.prefix}{group}-{slot}"

    def channel(self, name: str) -> Channel:
        """A channel by its name. Raises: `SettingsError` that names the known ones."""
        if name not in self.channels:
            raise SettingsError(f"there is no channel {name}: known are {', '.join(self.channels) or 'none'}")
        return self.channels[name]

    def legal_entity_of(self, channel: str) -> LegalEntity:
        """The legal entity that a channel belongs to. Raises: `SettingsError` when there is no such channel."""
        return self.legal_entities[self.channel(channel).legal_entity]

    def headquarters_database(self) -> str:
        """The address of headquarters' database. Raises: `SettingsError` when none is set."""
        if self.headquarters.database is None:
            raise SettingsError(
                "no database is named for headquarters: set TENTEN_HEADQUARTERS_URL or `database` of [headquarters] "
                f"in {FILE_NAME}, or run `tenten local start`"
            )
        return self.headquarters.database


class _Environment(BaseSettings):
    """The variables that count; an empty one is as good as none."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    kafka_bootstrap_servers: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: str | None = None
    schema_registry_url: str | None = None
    tenten_headquarters_url: str | None = None
    tenten_config: Path | None = None

    def kafka(self) -> dict[str, str]:
        """The properties that are set."""
        properties = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "sasl.username": self.kafka_sasl_username,
            "sasl.password": self.kafka_sasl_password,
        }
        return {name: value for name, value in properties.items() if value is not None}


def load_settings(path: Path | None = None, kafka: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. `path` and `kafka` are what the command line says, and win.

    Without a file, which only the working directory may lack, the environment and the defaults count.

    Raises: `SettingsError`.
    """
    environment = _Environment()
    named = path or environment.tenten_config
    file = (named or Path(FILE_NAME)).absolute()
    document = _read(file) if named is not None or file.exists() else {}
    document["kafka"] = {
        **dict(_flatten(_table(document, "kafka"))),
        **environment.kafka(),
        **(kafka or {}),
    }
    if environment.schema_registry_url is not None:
        document["schema_registry_url"] = environment.schema_registry_url
    if environment.tenten_headquarters_url is not None:
        document["headquarters"] = {
            **_table(document, "headquarters"),
            "database": environment.tenten_headquarters_url,
        }
    try:
        return Settings.model_validate(document, context={"directory": file.parent})
    except ValidationError as error:
        raise SettingsError(f"{'; '.join(_problems(error))} ({file})") from None


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for people to look at: without secrets."""
    shown = settings.model_dump(mode="json")
    shown["kafka"] = {name: _MASK if _is_secret(name) else value for name, value in settings.kafka.items()}
    for table in (shown["headquarters"], *shown["channels"].values()):
        if table["database"] is not None:
            table["database"] = _without_password(table["database"])
    if settings.schema_registry_url is not None:
        shown["schema_registry_url"] = _without_password(settings.schema_registry_url)
    return shown


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, Mapping):
        raise SettingsError(f"{name}: write a table, [{name}]")
    return table


def _problems(error: ValidationError) -> Iterator[str]:
    """One clause for each thing that is wrong: where, and what to write. Never the value, which may be secret."""
    for problem in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        match problem["type"]:
            case "extra_forbidden":
                text = "there is no such setting" + _suggestion(str(problem["loc"][-1]))
            case "missing":
                text = "is missing"
            case "value_error":
                text = str(problem["ctx"]["error"])
            case _:
                text = problem["msg"][0].lower() + problem["msg"][1:]
        yield f"{place}: {text}" if place else text


def _suggestion(name: str) -> str:
    tables = (Settings, HeadquartersSettings, LegalEntity, AccountNumbers, Channel, DefaultCustomer)
    fields = {field for table in tables for field in table.model_fields}
    if name in fields:
        return " in this table"
    near = get_close_matches(name, fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _is_secret(name: str) -> bool:
    return any(word in name for word in _SECRET_WORDS)


def _without_password(address: str) -> str:
    url = make_url(address)
    query = {name: _MASK if _is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("***@", f"{_MASK}@")
