"""Look whether everything is well, and say what to do where it is not. Changes nothing."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from sqlalchemy import Engine, select, text

from tenten.consumers.channel.status import stopped
from tenten.failure_messages import explain
from tenten.headquarters_views.transactions import transactions_status
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.schema_registry import Registry
from tenten.kafka.topics_admin import admin_client, apply_topics
from tenten.runtime.errors import SettingsError, TentenError
from tenten.runtime.settings import Settings
from tenten.schemas.tables.headquarters import number_sequences, sales_order_sequences
from tenten.schemas.topics import CUSTOMERS
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import Which, check_version

CLOCK_SECONDS_MAX: Final = 60.0
"""Clocks do not decide anything here, but people compare the times they write."""

NUMBERS_LEFT_SHARE_MIN: Final = 0.1
_CONNECT_SECONDS: Final = 3.0
_NO_SUCH_SCHEMA: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, and how it is or what to do."""

    what: str
    ok: bool
    text: str


def examine(load: Callable[[], Settings]) -> Iterator[Check]:
    """Look at one thing after the other, each of which may take some seconds; the settings first."""
    try:
        settings = load()
    except SettingsError as error:
        yield Check(what="configuration", ok=False, text=str(error))
        return
    yield _configuration(settings)
    reachable = True
    for check in _kafka(settings):
        reachable = reachable and check.ok
        yield check
    if settings.schema_registry_url is not None:
        yield _look("schema registry", lambda: _registry(settings))
    yield from _headquarters(settings)
    for name in settings.channels:
        check = _look(f"database of {name}", partial(_database, settings.channel(name).database, "channel"))
        yield check
        if check.ok and reachable:
            yield _look(f"distribution to {name}", partial(_distribution, settings, name))


def _look(what: str, look: Callable[[], str]) -> Check:
    """A check that is well unless it raises what can be explained."""
    try:
        return Check(what=what, ok=True, text=look())
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        return Check(what=what, ok=False, text=problem)


def _configuration(settings: Settings) -> Check:
    if not settings.channels:
        text = "no channel is configured: add [channels.NAME] to tenten.toml, or name the file in TENTEN_CONFIG"
        return Check(what="configuration", ok=False, text=text)
    return Check(what="configuration", ok=True, text=f"channels {', '.join(settings.channels)}")


def _kafka(settings: Settings) -> Iterator[Check]:
    servers = settings.kafka.get("bootstrap.servers")
    if not servers:
        text = "none is named: set KAFKA_BOOTSTRAP_SERVERS, or run `tenten local start`"
        yield Check(what="broker", ok=False, text=text)
        return
    yield _security(settings)
    asked = _ask_broker(settings)
    if isinstance(asked, str):
        yield Check(what="broker", ok=False, text=f"{servers}: {asked}")
        return
    yield Check(what="broker", ok=True, text=f"{servers} answers, {len(asked.brokers)} in the cluster")
    yield _advertised(asked)
    yield _look("topics", lambda: _topics(settings))


def _security(settings: Settings) -> Check:
    """Whether what is said about user and password is used at all."""
    protocol = settings.kafka.get("security.protocol", "plaintext").lower()
    named = sorted(name for name in settings.kafka if name.startswith("sasl."))
    if named and not protocol.startswith("sasl_"):
        text = f"{', '.join(named)} count for nothing while security.protocol is {protocol}: set it to SASL_SSL"
        return Check(what="security", ok=False, text=text)
    mechanism = settings.kafka.get("sasl.mechanism", settings.kafka.get("sasl.mechanisms", "GSSAPI")).upper()
    needed = {"sasl.username", "sasl.password"} if mechanism == "PLAIN" or mechanism.startswith("SCRAM-") else set()
    missing = sorted(needed - settings.kafka.keys())
    if protocol.startswith("sasl_") and missing:
        text = f"{mechanism} needs {' and '.join(missing)}: set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        return Check(what="security", ok=False, text=text)
    return Check(
        what="security", ok=True, text=f"{protocol}, {mechanism}" if protocol.startswith("sasl_") else protocol
    )


def _ask_broker(settings: Settings) -> Any:
    """What the brokers say of themselves (`ClusterMetadata`), or as text why they say nothing."""
    try:
        return admin_client(settings).list_topics(timeout=REQUEST_SECONDS)
    except TentenError as refusal:
        return str(refusal)
    except KafkaException as error:
        said = error.args[0].str() if isinstance(error.args[0], KafkaError) else error.args[0]
        return f"no answer: {said}; check bootstrap.servers and security.protocol, and whether the broker runs"


def _advertised(cluster: Any) -> Check:
    """Whether the addresses that the brokers tell their clients can be reached from here."""
    for broker in cluster.brokers.values():
        try:
            socket.create_connection((broker.host, broker.port), _CONNECT_SECONDS).close()
        except OSError as error:
            text = (
                f"broker {broker.id} calls itself {broker.host}:{broker.port}, which cannot be reached from here "
                f"({error}): correct advertised.listeners on the broker, or names and firewalls here"
            )
            return Check(what="advertised addresses", ok=False, text=text)
    return Check(what="advertised addresses", ok=True, text="every broker can be reached at the address it names")


def _topics(settings: Settings) -> str:
    changes = apply_topics(settings, dry_run=True)
    wrong = [f"{change.topic}: {change.action}, {change.detail}" for change in changes if change.action != "keep"]
    if wrong:
        raise TentenError(f"not as declared ({'; '.join(wrong)}): run `tenten topics apply`")
    return f"{len(changes)}, all as declared"


def _registry(settings: Settings) -> str:
    assert settings.schema_registry_url is not None
    Registry(settings.schema_registry_url).schema(_NO_SUCH_SCHEMA)
    return "answers"


def _headquarters(settings: Settings) -> Iterator[Check]:
    address = settings.headquarters.database
    if address is None:
        yield Check(what="database of headquarters", ok=True, text="none is named here: headquarters is elsewhere")
        return
    check = _look("database of headquarters", lambda: _database(address, "headquarters"))
    yield check
    if check.ok:
        yield _look("number sequences", lambda: _with(address, lambda engine: _sequences(settings, engine)))
        yield _look("transactions", lambda: _with(address, lambda engine: _transactions(settings, engine)))
        yield _look("clock", lambda: _with(address, _clock))


def _with(address: str, look: Callable[[Engine], str]) -> str:
    engine = open_database(address)
    try:
        return look(engine)
    finally:
        engine.dispose()


def _database(address: str, which: Which) -> str:
    def look(engine: Engine) -> str:
        check_version(engine, which)
        return "reachable, of this release"

    return _with(address, look)


def _distribution(settings: Settings, name: str) -> str:
    """Whether a snapshot that cannot be read stops a partition."""
    waiting = stopped(settings, name)
    if waiting:
        first = waiting[0]
        raise TentenError(
            f"{len(waiting)} partitions stand still, the first at {settings.topic(CUSTOMERS)}/{first.partition}/"
            f"{first.offset}: its snapshot cannot be read ({first.reason}); upgrade this channel, then run "
            f"`tenten channel resync {name}` if it still does"
        )
    return "no partition stands still"


def _sequences(settings: Settings, engine: Engine) -> str:
    """Every legal entity has one, as the settings say, and enough numbers are left."""
    with consistent_view(engine) as connection:
        rows = {row.legal_entity: row for row in connection.execute(select(number_sequences))}
        orders = {row.legal_entity: row for row in connection.execute(select(sales_order_sequences))}
    for name, legal_entity in settings.legal_entities.items():
        numbers = legal_entity.account_numbers
        row = rows.get(name)
        if row is None or (row.format, row.continuous) != (numbers.format, numbers.continuous):
            raise TentenError(f"that of {name} is not as tenten.toml says: run `tenten database upgrade headquarters`")
        _check_left(name, row.format, row.next, "account numbers")
        order = orders.get(name)
        if order is None or order.format != legal_entity.sales_orders.format:
            raise TentenError(
                f"that of sales orders of {name} is not as tenten.toml says: run `tenten database upgrade headquarters`"
            )
        _check_left(name, order.format, order.next, "sales order numbers")
    return f"{len(settings.legal_entities)} of account numbers and of sales orders, numbers are left in each"


def _check_left(name: str, written: str, following: int, what: str) -> None:
    """Raises: `TentenError` when a sequence will soon have no number left."""
    total = 10 ** written.count("#")
    if total - following < total * NUMBERS_LEFT_SHARE_MIN:
        raise TentenError(f"{name} has {max(0, total - following):,} {what} left: write a longer format for them")


def _transactions(settings: Settings, engine: Engine) -> str:
    """Whether none waits for its customer for too long."""
    with consistent_view(engine) as connection:
        found = transactions_status(connection, settings.headquarters.waiting_seconds_max)
    if found.problem is not None:
        raise TentenError(found.problem)
    return (
        f"{found.waiting:,} wait for their customers, {found.blocked:,} are blocked, {found.rejected:,} rejected; "
        f"{found.open_statements:,} statements are open"
    )


def _clock(engine: Engine) -> str:
    """Whether this machine and headquarters' database agree about the time."""
    with consistent_view(engine) as connection:
        before = datetime.now(UTC)
        there = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    seconds = (there - before).total_seconds()
    if abs(seconds) > CLOCK_SECONDS_MAX:
        raise TentenError(
            f"this machine's is {abs(seconds):,.0f} s {'behind' if seconds > 0 else 'ahead of'} that of headquarters' "
            "database: set up NTP"
        )
    return f"within {max(1.0, abs(seconds)):.0f} s of headquarters' database"
