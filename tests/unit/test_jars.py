"""Jars are run only if their content is the released one."""

import hashlib
from pathlib import Path

import pytest

from tenten.local.failures import LocalServiceFailure
from tenten.local.java import check_jars
from tenten.local.kafka import KAFKA_CHECKSUMS, KAFKA_VERSION


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    """A jar in the cache."""
    jar = tmp_path / "kafka-clients.jar"
    jar.write_bytes(b"released")
    return jar


def test_released_jar_is_accepted(jar: Path) -> None:
    """Its SHA-512 is the pinned one."""
    check_jars([jar], {jar.name: hashlib.sha512(b"released").hexdigest()})
    assert jar.exists()


def test_changed_jar_is_refused_and_removed(jar: Path) -> None:
    """It is fetched again at the next start."""
    with pytest.raises(LocalServiceFailure, match="SHA-512"):
        check_jars([jar], {jar.name: hashlib.sha512(b"other").hexdigest()})
    assert not jar.exists()


def test_jar_without_checksum_is_refused(jar: Path) -> None:
    """A dependency that was added by somebody else is not run."""
    with pytest.raises(LocalServiceFailure, match="not known"):
        check_jars([jar], {})


def test_checksums_are_those_of_the_kafka_that_is_started() -> None:
    """An upgrade of Kafka needs new checksums."""
    names = {line.split()[1] for line in KAFKA_CHECKSUMS.read_text().splitlines()}
    assert {f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-clients-{KAFKA_VERSION}.jar"} <= names
