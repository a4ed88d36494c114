"""Classification of errors: transient, full disk, error codes, and the tree of the product's own errors."""

import errno
import sqlite3
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from psycopg import errors
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from tenten.local.ports import free_port
from tenten.runtime import errors as failures
from tenten.runtime.error_codes import error_code, is_full, is_transient
from tenten.runtime.errors import (
    CustomerRejected,
    DatabaseFull,
    DatabaseRefused,
    KafkaRefused,
    RegistryRefused,
    RegistryUnavailable,
    TentenError,
    TransactionFailed,
    WriteConflict,
)
from tenten.schemas.messages import Reason


@pytest.mark.parametrize(
    "error",
    [
        errors.ConnectionFailure(),
        errors.SerializationFailure(),
        errors.DeadlockDetected(),
        errors.TooManyConnections(),
        errors.DiskFull(),
        errors.AdminShutdown(),
        errors.CrashShutdown(),
        errors.CannotConnectNow(),
        errors.QueryCanceled(),
        errors.IdleInTransactionSessionTimeout(),
        psycopg.OperationalError("the connection is closed"),
        NoConnectionFree(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_postgresql_connection_lock_resource_and_shutdown_errors_are_transient(error: Exception) -> None:
    """Classes 08, 40, 53 and 57, a lost connection and an exhausted pool may succeed later."""
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.UniqueViolation(),
        errors.NotNullViolation(),
        errors.NumericValueOutOfRange(),
        errors.UntranslatableCharacter(),
        errors.UndefinedTable(),
        errors.InsufficientPrivilege(),
        errors.InFailedSqlTransaction(),
        errors.ReadOnlySqlTransaction(),
        psycopg.DataError("a string with a NUL"),
        psycopg.InterfaceError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_postgresql_data_errors_are_not_transient(error: Exception) -> None:
    """The same statement would always be refused."""
    assert not is_transient(error)


def test_errors_wrapped_by_sqlalchemy_are_recognised() -> None:
    """A driver's error is classified the same inside SQLAlchemy's wrapper."""
    # given
    deadlock = OperationalError("UPDATE", None, errors.DeadlockDetected())
    duplicate = IntegrityError("INSERT", None, errors.UniqueViolation())
    broken = DBAPIError("SELECT", None, errors.SyntaxError(), connection_invalidated=True)

    # then
    assert is_transient(deadlock)
    assert not is_transient(duplicate)
    assert is_transient(broken)


def test_causes_are_considered() -> None:
    """An error raised from a transient one is transient, unless an error of our own comes first."""
    # given
    deadlock = errors.DeadlockDetected()
    indirect = RuntimeError("batch")
    indirect.__cause__ = deadlock
    refusal = DatabaseRefused("no")
    refusal.__cause__ = deadlock
    circular = RuntimeError("a")
    circular.__cause__ = circular

    # then
    assert is_transient(indirect)
    assert not is_transient(refusal)
    assert not is_transient(circular)


def test_only_three_of_our_own_errors_are_transient() -> None:
    """An unavailable registry, an aborted transaction and a write conflict; no other error of ours."""
    # then
    assert is_transient(RegistryUnavailable("the registry does not answer"))
    assert is_transient(WriteConflict("another worker is faster"))
    assert is_transient(TransactionFailed("aborted"))
    assert not is_transient(RegistryRefused("incompatible", 409))
    assert not is_transient(KafkaRefused("wrong password"))
    assert not is_transient(TentenError("no"))
    assert not is_transient(ValueError("no"))


def test_busy_sqlite_is_transient(tmp_path: Path) -> None:
    """The error of a real SQLite database that is locked by another writer is transient."""
    # given
    url = f"sqlite:///{tmp_path / 'store.db'}"
    writer = create_engine(url)
    other = create_engine(url, connect_args={"timeout": 0})
    with writer.begin() as connection:
        connection.execute(text("CREATE TABLE customers (id INTEGER PRIMARY KEY)"))

    # when
    with writer.connect() as holding:
        holding.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError) as refused, other.begin() as connection:
            connection.execute(text("INSERT INTO customers VALUES (1)"))
    writer.dispose()
    other.dispose()

    # then
    assert is_transient(refused.value)
    assert error_code(refused.value) == "SQLITE_BUSY"
    assert not is_full(refused.value)


def test_full_sqlite_is_recognised(tmp_path: Path) -> None:
    """A real SQLite database without space left is recognised, so that a till can report it."""
    # given
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("CREATE TABLE customers (name TEXT)")
        database.execute("PRAGMA max_page_count = 3")

        # when
        with pytest.raises(sqlite3.OperationalError) as refused:
            database.execute("INSERT INTO customers VALUES (?)", ["x" * 100_000])
    database.close()

    # then
    assert is_full(refused.value)
    assert is_full(OperationalError("INSERT", None, refused.value))
    assert is_transient(refused.value)
    assert error_code(refused.value) == "SQLITE_FULL"


def test_sqlite_without_space_for_its_shared_memory_is_full() -> None:
    """The first connection to a database on a full disk gets this error, before it could write or read anything."""
    # given
    refused = sqlite3.OperationalError("disk I/O error")
    refused.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    other = sqlite3.OperationalError("disk I/O error")
    other.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ

    # then
    assert is_full(OperationalError("SELECT", None, refused))
    assert is_transient(refused)
    assert not is_full(other)
    assert not is_transient(other)


def test_sqlite_data_errors_are_not_transient() -> None:
    """A violated constraint, a misspelt statement and an error of the module itself do not go away."""
    # given
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY)")
    database.execute("INSERT INTO customers VALUES (1)")

    # when
    with pytest.raises(sqlite3.IntegrityError) as duplicate:
        database.execute("INSERT INTO customers VALUES (1)")
    with pytest.raises(sqlite3.OperationalError) as misspelt:
        database.execute("SELEKT 1")
    database.close()
    with pytest.raises(sqlite3.ProgrammingError) as closed:
        database.execute("SELECT 1")

    # then
    assert not is_transient(duplicate.value)
    assert not is_transient(misspelt.value)
    assert not is_transient(closed.value)


def test_full_postgresql_is_recognised() -> None:
    """53100 is transient for workers, and recognised for tills, which cannot wait."""
    # given
    full = OperationalError("INSERT", None, errors.DiskFull())

    # then
    assert is_full(full)
    assert is_transient(full)
    assert not is_full(OSError(errno.ENOSPC, "no space"))
    assert issubclass(DatabaseFull, DatabaseRefused)


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._DESTROY_BROKER,
        KafkaError._PARTIAL,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError._QUEUE_FULL,
    ],
)
def test_unavailable_kafka_is_transient(code: int) -> None:
    """Connections, brokers, coordinators and rebalances recover."""
    assert is_transient(KafkaException(KafkaError(code)))


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._INVALID_ARG,
        KafkaError._FENCED,
    ],
)
def test_kafka_refusals_are_not_transient(code: int) -> None:
    """Waiting does not fix passwords, privileges, topics and sizes."""
    assert not is_transient(KafkaException(KafkaError(code)))


def test_kafka_client_without_broker_is_transient() -> None:
    """The error of a real client without a broker is transient and has a code."""
    # given
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0})

    # when
    with pytest.raises(KafkaException) as refused:
        producer.list_topics(timeout=0.2)

    # then
    assert is_transient(refused.value)
    assert error_code(refused.value) == "_TRANSPORT"


def test_fatal_kafka_error_is_not_transient() -> None:
    """A fatal error of the client is not retried, whatever its code."""
    assert not is_transient(KafkaException(KafkaError(KafkaError._TIMED_OUT, "dead", True)))


def test_error_code_contains_no_data() -> None:
    """The code never contains values that the text may quote."""
    # given
    wrapped = IntegrityError("INSERT", None, errors.UniqueViolation("Key (email)=(ada@example.com) already exists"))

    # then
    assert error_code(wrapped) == "23505"
    assert error_code(ValueError("ada@example.com")) is None


def test_rejected_customer_has_every_reason() -> None:
    """The reasons are available as values and in the message."""
    # given
    reasons = [
        Reason(field="last_name", code="missing", text="is missing"),
        Reason(field="tax_number", code="too_long", text="is longer than 40 characters"),
    ]

    # when
    refused = CustomerRejected(reasons)

    # then
    assert refused.reasons == tuple(reasons)
    assert str(refused) == "last_name: is missing; tax_number: is longer than 40 characters"


def test_docstring_draws_the_whole_tree() -> None:
    """Every error of the module is in the tree of its docstring, below its base class."""
    # given
    drawn: list[tuple[str, int]] = []
    for line in (failures.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").split(" ")[0]
        if name in vars(failures):
            drawn.append((name, line.index(name)))

    # when
    parents: dict[str, str] = {}
    for place, (name, depth) in enumerate(drawn):
        above = [other for other, other_depth in drawn[:place] if other_depth < depth]
        if above:
            parents[name] = above[-1]

    # then
    declared = {
        name: kind.__base__.__name__
        for name, kind in vars(failures).items()
        if isinstance(kind, type) and issubclass(kind, TentenError) and kind.__base__ not in (None, Exception)
    }
    assert parents == declared
