"""Check an installation and advise on problems. Changes nothing."""

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from sqlalchemy import Engine, text

from tenten.consumers.channel.status import stopped_partitions
from tenten.failure_messages import explain
from tenten.headquarters_views.transactions import transactions_status
from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.schema_registry import Registry
from tenten.kafka.topics_admin import admin_client, allowed_operations, check_topics
from tenten.registry.tables import read_registry
from tenten.registry.values import differences, registry_of_settings
from tenten.runtime.errors import SettingsError, TentenError
from tenten.runtime.settings import Settings
from tenten.runtime.settings.from_headquarters import differing_settings
from tenten.schemas.privileges import topic_operations
from tenten.schemas.topics import ALL, CUSTOMERS, Role, Topic
from tenten.sql.channel_settings import read_channel_settings
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import Which, check_version
from tenten.status import CODES_OF_RUNNING, whole_status
from tenten.status.fleet import hear, heard_ages

CLOCK_SECONDS_MAX: Final = 60.0
"""No decision depends on a clock, but people compare the times that clocks write."""

NUMBERS_LEFT_SHARE_MIN: Final = 0.1
_CONNECT_SECONDS: Final = 3.0
_NO_SUCH_SCHEMA: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of a check: its state, or advice."""

    what: str
    ok: bool
    text: str


def examine(load: Callable[[], Settings]) -> Iterator[Check]:
    """Run the checks in order, the settings first. Each may block for some seconds."""
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
    heard = _heard_channels(settings) if reachable and settings.headquarters.database is not None else {}
    for name in settings.channels:
        check = _look(f"database of {name}", partial(_database, settings.channel(name).database, "channel"))
        if not check.ok and name in heard:
            text = f"elsewhere: the channel was heard from {heard[name]:.0f} s ago"
            yield Check(what=check.what, ok=True, text=text)
            continue
        yield check
        if check.ok:
            yield _look(f"settings of {name}", partial(_own_settings, settings, name))
        if check.ok and reachable:
            yield _look(f"distribution to {name}", partial(_distribution, settings, name))
    if reachable:
        yield from _running(settings)


def _heard_channels(settings: Settings) -> Mapping[str, float]:
    """The channels that headquarters has heard from lately, with the age of the last heartbeat in seconds."""
    now, limit = datetime.now(UTC), settings.alarms.silent_seconds_max
    try:
        answer = hear(settings)
    except TentenError:
        # The check of what is running reports it.
        return {}
    if answer.is_unchecked:
        return {}
    ages = {name: heard_ages(heard, now).heard for name, heard in answer.heartbeats.heard.items()}
    return {name: age for name, age in ages.items() if age is not None and age <= limit}


def _look(what: str, look: Callable[[], str]) -> Check:
    """A check that fails if it raises an error that can be explained. Raises: any other error."""
    try:
        return Check(what=what, ok=True, text=look())
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        return Check(what=what, ok=False, text=problem)


def _configuration(settings: Settings) -> Check:
    if not settings.channels:
        text = "no channel is configured: add [channels.NAME] to tenten.toml, or set TENTEN_CONFIG to the file"
        return Check(what="configuration", ok=False, text=text)
    return Check(what="configuration", ok=True, text=f"channels {', '.join(settings.channels)}")


def _kafka(settings: Settings) -> Iterator[Check]:
    servers = settings.kafka.get("bootstrap.servers")
    if not servers:
        text = "not configured: set KAFKA_BOOTSTRAP_SERVERS, or run `tenten local start`"
        yield Check(what="broker", ok=False, text=text)
        return
    yield _security(settings)
    cluster = _cluster(settings)
    if isinstance(cluster, str):
        yield Check(what="broker", ok=False, text=f"{servers}: {cluster}")
        return
    yield Check(what="broker", ok=True, text=f"{servers} answers, brokers in the cluster: {len(cluster.brokers)}")
    yield _advertised(cluster)
    yield _look("topics", lambda: _topics(settings))


def _security(settings: Settings) -> Check:
    """Check that user and password are used if they are given."""
    protocol = settings.kafka.get("security.protocol", "plaintext").lower()
    named = sorted(name for name in settings.kafka if name.startswith("sasl."))
    if named and not protocol.startswith("sasl_"):
        text = f"{', '.join(named)} is ignored while security.protocol is {protocol}: set it to SASL_SSL"
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


def _cluster(settings: Settings) -> Any:
    """The cluster's metadata (`ClusterMetadata`), or as text the reason why there is none."""
    try:
        return admin_client(settings).list_topics(timeout=REQUEST_SECONDS)
    except TentenError as refusal:
        return str(refusal)
    except KafkaException as error:
        reason = error.args[0].str() if isinstance(error.args[0], KafkaError) else error.args[0]
        return f"no answer: {reason}; check bootstrap.servers and security.protocol, and whether the broker runs"


def _advertised(cluster: Any) -> Check:
    """Check that the addresses that the brokers advertise can be reached from here."""
    for broker in cluster.brokers.values():
        try:
            socket.create_connection((broker.host, broker.port), _CONNECT_SECONDS).close()
        except OSError as error:
            text = (
                f"broker {broker.id} advertises {broker.host}:{broker.port}, which cannot be reached from here "
                f"({error}): correct advertised.listeners on the broker, or names and firewalls here"
            )
            return Check(what="advertised addresses", ok=False, text=text)
    return Check(what="advertised addresses", ok=True, text="every broker can be reached at its advertised address")


def _topics(settings: Settings) -> str:
    """Check the topics, as far as this user needs them, and that it may do with each what it needs."""
    at_headquarters = settings.headquarters.database is not None
    allowed = allowed_operations(settings, [topic for topic in ALL if at_headquarters or _is_of_channel(topic)])
    if at_headquarters:
        # The user is that of the workers, or a person's.
        lacking = _lacking(allowed, Role.CUSTOMERS_WORKER, Role.TRANSACTIONS_WORKER)
        if not _lacking(allowed, Role.OPERATOR):
            lacking = []
    else:
        lacking = _lacking(allowed, Role.CHANNEL)
    if lacking:
        raise TentenError(
            f"Kafka does not allow this user {'; '.join(lacking)}: grant it these privileges, for example with "
            "`tenten topics acls --apply` at headquarters"
        )
    changes = check_topics(settings, Role.OPERATOR if at_headquarters else Role.CHANNEL)
    wrong = [f"{change.topic}: {change.action}, {change.detail}" for change in changes if change.action != "keep"]
    if wrong:
        raise TentenError(f"not as declared ({'; '.join(wrong)}): run `tenten topics apply`")
    return f"{len(changes)}, all as declared; this user has the privileges that it needs"


def _is_of_channel(topic: Topic) -> bool:
    return bool(topic_operations(Role.CHANNEL, topic))


def _lacking(allowed: Mapping[str, set[str]], *roles: Role) -> list[str]:
    """The operations of these roles on existing topics that are not allowed, as phrases."""
    lacking = []
    for topic in ALL:
        needed = {operation.value for role in roles for operation in topic_operations(role, topic)}
        if topic.name in allowed and (missing := needed - allowed[topic.name]):
            lacking.append(f"{', '.join(sorted(missing))} on {topic.name}")
    return lacking


def _registry(settings: Settings) -> str:
    assert settings.schema_registry_url is not None
    Registry(settings.schema_registry_url).schema(_NO_SUCH_SCHEMA)
    return "answers"


def _running(settings: Settings) -> Iterator[Check]:
    """Check that everything that should run does, and that nothing is late: what `tenten status` reports, too."""
    found = [problem for problem in whole_status(settings).problems if problem.code in CODES_OF_RUNNING]
    for problem in found:
        yield Check(what="running", ok=False, text=problem.text)
    if not found:
        yield Check(what="running", ok=True, text="everything that should run has been heard from, and nothing is late")


def _headquarters(settings: Settings) -> Iterator[Check]:
    address = settings.headquarters.database
    if address is None:
        yield Check(what="database of headquarters", ok=True, text="not configured here: headquarters is elsewhere")
        return
    check = _look("database of headquarters", lambda: _database(address, "headquarters"))
    yield check
    if check.ok:
        yield _look("settings of headquarters", lambda: _with(address, lambda engine: _settings(settings, engine)))
        yield _look("number sequences", lambda: _with(address, _sequences))
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


def _own_settings(settings: Settings, name: str) -> str:
    """Check that a channel has settings, and that those of tenten.toml are the same."""

    def look(engine: Engine) -> str:
        with consistent_view(engine) as connection:
            stored = read_channel_settings(connection, name)
        if stored is None:
            settings.with_legal_entity(name)
            return "none from headquarters yet: those of tenten.toml are used"
        different = differing_settings(settings, name, stored.settings)
        if different:
            raise TentenError(
                "headquarters has other values than tenten.toml, and the channel uses those: delete "
                f"{', '.join(different)} from tenten.toml"
            )
        return f"version {stored.settings.version} of headquarters"

    return _with(settings.channel(name).database, look)


def _distribution(settings: Settings, name: str) -> str:
    """Check that no unreadable snapshot stops a partition."""
    partitions = stopped_partitions(settings, name)
    if partitions:
        first = partitions[0]
        raise TentenError(
            f"{len(partitions)} partitions are stopped, the first at {settings.topic(CUSTOMERS)}/{first.partition}/"
            f"{first.offset}: its snapshot cannot be read ({first.reason}); upgrade this channel, then run "
            f"`tenten channel resync {name}` if it is still stopped"
        )
    return "no partition is stopped"


def _settings(settings: Settings, engine: Engine) -> str:
    """Check that headquarters has settings, and that those of tenten.toml are the same."""
    with consistent_view(engine) as connection:
        registry = read_registry(connection)
    if registry.is_empty:
        raise TentenError("headquarters has no legal entity and no channel: run `tenten settings apply FILE`")
    changes = differences(registry, registry_of_settings(settings), with_removed=False)
    if not changes.none:
        raise TentenError(
            f"those of tenten.toml differ, and are not used by headquarters ({changes}): `tenten settings diff "
            "tenten.toml` shows the differences; apply the file, or correct it"
        )
    return f"{len(registry.legal_entities):,} legal entities, {len(registry.channels):,} channels"


def _sequences(engine: Engine) -> str:
    """Check that every legal entity has its sequences, with enough numbers left."""
    with consistent_view(engine) as connection:
        legal_entities = read_registry(connection).legal_entities
    for name, entry in legal_entities.items():
        for sequence, what in (("account_numbers", "account numbers"), ("sales_orders", "sales order numbers")):
            if f"{sequence}.format" not in entry:
                raise TentenError(f"{name} has no sequence of {what}: run `tenten settings apply FILE`")
            _check_left(name, str(entry[f"{sequence}.format"]), int(str(entry[f"{sequence}.next"])), what)
    return f"{len(legal_entities)} each of account numbers and sales orders, numbers are left in each"


def _check_left(name: str, written: str, following: int, what: str) -> None:
    """Raises: `TentenError` if a sequence will soon have no numbers left."""
    total = 10 ** written.count("#")
    if total - following < total * NUMBERS_LEFT_SHARE_MIN:
        raise TentenError(f"{name} has {max(0, total - following):,} {what} left: configure a longer format")


def _transactions(settings: Settings, engine: Engine) -> str:
    """Check that no transaction waits for its customer for too long."""
    with consistent_view(engine) as connection:
        counts = transactions_status(connection, settings.headquarters.waiting_seconds_max)
    if counts.problem is not None:
        raise TentenError(counts.problem)
    return (
        f"{counts.waiting:,} wait for their customers, {counts.blocked:,} are blocked, {counts.rejected:,} rejected; "
        f"{counts.open_statements:,} statements are open"
    )


def _clock(engine: Engine) -> str:
    """Check that this machine's clock agrees with that of headquarters' database."""
    with consistent_view(engine) as connection:
        before = datetime.now(UTC)
        database_time = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    seconds = (database_time - before).total_seconds()
    if abs(seconds) > CLOCK_SECONDS_MAX:
        raise TentenError(
            f"this machine's clock is {abs(seconds):,.0f} s {'behind' if seconds > 0 else 'ahead of'} "
            "that of headquarters' database: set up NTP"
        )
    return f"within {max(1.0, abs(seconds)):.0f} s of headquarters' database"
