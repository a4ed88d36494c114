"""How a store connects to Kafka: the properties for its token, and its user where Kafka asks for passwords."""

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.topics_admin import ask
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings import Settings
from tenten.runtime.settings.kafka_properties import CONNECTION_PROPERTIES, is_secret

_MECHANISMS: Final = {
    "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256,
    "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512,
}
_ITERATIONS: Final = 8_192
_AUTHORITIES_BYTES_MAX: Final = 16 * 1024
"""Certificates of authorities travel in the token, which a person copies."""


def store_properties(settings: Settings) -> dict[str, str]:
    """The properties with which a store connects, without user and password; certificates are part of them. Without
    [store_kafka] they are those of [kafka] that are the same in stores.

    Raises: `SettingsError` for a property that no token may have, or a file that cannot be read.
    """
    given = settings.store_kafka
    found: dict[str, str] = {"bootstrap.servers": settings.kafka.get("bootstrap.servers", "")}
    found |= given or {name: value for name, value in settings.kafka.items() if name in CONNECTION_PROPERTIES}
    secrets = sorted(name for name in found if is_secret(name) or name == "sasl.username")
    if secrets:
        raise SettingsError(
            f"[store_kafka] {', '.join(secrets)}: every store would have it; remove it from tenten.toml"
        )
    others = sorted(set(found).difference(CONNECTION_PROPERTIES))
    if others:
        raise SettingsError(
            f"[store_kafka] {', '.join(others)}: a token cannot have it; write it into the tenten.toml of each store"
        )
    location = found.pop("ssl.ca.location", None)
    if location is not None:
        found["ssl.ca.pem"] = _authorities(Path(location))
    return found


def _authorities(file: Path) -> str:
    """Raises: `SettingsError`."""
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise SettingsError(f"ssl.ca.location: {file} cannot be read as a PEM file") from error
    if len(text) > _AUTHORITIES_BYTES_MAX:
        raise SettingsError(
            f"ssl.ca.location: {file} is too large for a token: name a file with the authority of this Kafka alone "
            "under [store_kafka]"
        )
    return text


def scram_mechanism(properties: Mapping[str, str]) -> ScramMechanism | None:
    """The mechanism by which stores log in with a password that headquarters can set; None for another way."""
    if not properties.get("security.protocol", "").upper().startswith("SASL_"):
        return None
    name = properties.get("sasl.mechanism") or properties.get("sasl.mechanisms") or ""
    return _MECHANISMS.get(name.upper())


def has_user(settings: Settings, name: str, mechanism: ScramMechanism) -> bool:
    """Whether Kafka has a password of this user. Needs DESCRIBE on the cluster.

    Raises: `KafkaRefused`, `KafkaException`.
    """
    answers = ask(
        settings,
        lambda admin: admin.describe_user_scram_credentials([name], request_timeout=REQUEST_SECONDS),  # type: ignore[arg-type, return-value]
    )
    try:
        described = call_kafka(answers[name].result, "users")
    except KafkaException as error:
        if error.args[0].code() == KafkaError.RESOURCE_NOT_FOUND:
            return False
        raise
    return any(info.mechanism == mechanism for info in described.scram_credential_infos)


def set_password(settings: Settings, name: str, mechanism: ScramMechanism, password: str) -> None:
    """Create the user, or give it another password. Needs ALTER on the cluster. Idempotent.

    Raises: `KafkaRefused`, `KafkaException`.
    """
    change = UserScramCredentialUpsertion(name, ScramCredentialInfo(mechanism, _ITERATIONS), password.encode())

    def question(admin: AdminClient) -> "dict[str, Future[None]]":
        return admin.alter_user_scram_credentials([change], request_timeout=REQUEST_SECONDS)

    call_kafka(ask(settings, question)[name].result, "users")
