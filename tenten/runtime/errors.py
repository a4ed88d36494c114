"""The errors of the program; `tenten.runtime.error_codes` decides which errors of libraries are transient.

A rejection by headquarters is a value, not an error. Each message is a sentence for the person in front of the screen:
what to do, and no personal data.

TentenError
├── SettingsError               tenten.toml, the environment or an option is wrong
├── NotInstalled                an optional dependency is missing
├── AddressRefused              HTTP cannot be served at this address
├── KafkaRefused                wrong password, missing privilege or topic
├── TopicChanged                a topic was recreated, or its number of partitions changed
├── TransactionFailed           a Kafka transaction was aborted (transient)
├── RegistryUnavailable         the schema registry does not answer (transient)
├── RegistryRefused             the schema registry refuses a request
├── TooManyDeadLetters          too many unreadable records in a row: the fault is not in the records
├── DatabaseRefused             a database cannot be used as it is
│   ├── DatabaseOlderThanStream the database was restored: Kafka holds what it does not contain
│   └── DatabaseFull            no space left; nothing was written
├── LockHeld                    another process does the same work
├── TokenRefused                a token is damaged, or has expired
├── JoinRefused                 a store cannot join
├── WriteConflict               another worker is writing the same customers (transient)
├── SettingsChanged             a batch was checked with keys or settings that are not those of now; checked again
├── NoSuchCustomer              no customer has this id here
├── SeveralCustomers            customers of several legal entities have this account number
├── AlreadyErased               a customer was erased before
├── NoSuchTransaction           no order, cash-and-carry sale or end of day has this id here
├── NoSuchDeadLetter            no dead letter has this position
├── NoSuchHeldEvent             headquarters does not hold an event with this id
├── KeyNotAccepted              the public key of a store was revoked, or belongs to another channel
├── KeyReused                   an idempotency key was used with another content
├── CustomerChanged             the customer is no longer as the caller has seen it
├── InputRejected               the input violates rules; nothing was written
│   ├── CustomerRejected        of customers
│   └── TransactionRejected     of orders, sales or ends of day
└── ImportRejected              a file cannot be imported as it is
"""

from collections.abc import Sequence

from tenten.schemas.messages import Reason


class TentenError(Exception):
    """Work cannot continue; the message says why, and what to do."""


class SettingsError(TentenError):
    """A setting is missing or wrong; the message names it and says what to write instead."""


class NotInstalled(TentenError):
    """An optional dependency is missing; the message says how to install it."""

    def __init__(self, missing: str, extra: str) -> None:
        super().__init__(f"{missing} is not installed: pip install 'tenten-commerce[{extra}]'")


class AddressRefused(TentenError):
    """HTTP cannot be served at this address: it is in use, or is not one of this machine."""


class KafkaRefused(TentenError):
    """Kafka refused a request, and waiting does not help."""


class TopicChanged(TentenError):
    """A topic is not the one that this database has read."""


class TransactionFailed(TentenError):
    """A Kafka transaction was aborted; its batch is read again. Transient. Carries the client's error text."""


class RegistryUnavailable(TentenError):
    """The schema registry does not answer. Transient."""


class RegistryRefused(TentenError):
    """The schema registry refused a request; `status` is its HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class TooManyDeadLetters(TentenError):
    """Too many records in a row were unreadable: the fault is probably in a release, not in the records."""


class DatabaseRefused(TentenError):
    """A database cannot be used as it is."""


class DatabaseOlderThanStream(DatabaseRefused):
    """The database was restored from a backup: the topics have records that it lacks."""


class DatabaseFull(DatabaseRefused):
    """No space is left for the database; nothing was written."""


class LockHeld(TentenError):
    """Another process does the same work."""


class TokenRefused(TentenError):
    """A token with which a store should join is damaged, or has expired."""


class JoinRefused(TentenError):
    """A store cannot join: headquarters refuses it, or does not answer."""


class WriteConflict(TentenError):
    """Another worker is writing the same customers. Transient."""


class SettingsChanged(TentenError):
    """A batch was checked with an earlier version of the registry. Its worker checks it again."""


class NoSuchDeadLetter(TentenError):
    """No dead letter has this position."""


class NoSuchHeldEvent(TentenError):
    """Headquarters does not hold an event with this id."""


class NoSuchCustomer(TentenError):
    """No customer has this id here."""


class SeveralCustomers(TentenError):
    """Customers of several legal entities have this account number."""


class AlreadyErased(TentenError):
    """The customer was erased before, and not at headquarters' request."""


class NoSuchTransaction(TentenError):
    """No order, cash-and-carry sale or end of day has this id here."""


class KeyNotAccepted(TentenError):
    """A public key cannot be added to a channel: it was revoked, or belongs to another one."""


class KeyReused(TentenError):
    """An idempotency key was used with another content; nothing was written."""


class CustomerChanged(TentenError):
    """The customer is no longer as the caller has seen it; nothing was written."""


class InputRejected(TentenError):
    """The input violates rules; `reasons` has every violation, and nothing was written."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__("; ".join(f"{reason.field}: {reason.text}" for reason in reasons))
        self.reasons = tuple(reasons)


class CustomerRejected(InputRejected):
    """A customer violates rules."""


class TransactionRejected(InputRejected):
    """An order, a cash-and-carry sale or an end of day violates rules."""


class ImportRejected(TentenError):
    """A file cannot be imported as it is; nothing was imported."""
