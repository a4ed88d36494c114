"""The registry's tables in headquarters' database: reading and writing them."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import JSON, Connection, bindparam, delete, insert, select, text

from tenten.registry.values import CHANNELS, Change, Differences, Entry, Registry, entry_of, table_of
from tenten.schemas.tables.headquarters import channels, legal_entities, settings_history
from tenten.sql.postgresql_driver import driver_cursor
from tenten.sql.recordset import insert_document


class Version(NamedTuple):
    """The last change of the registry. A restored database may count the same changes again, at other times."""

    change_id: int
    applied_at: datetime


def registry_version(headquarters: Connection) -> Version | None:
    """The last change; None if settings were never applied."""
    columns = settings_history.c
    query = select(columns.change_id, columns.applied_at).order_by(columns.change_id.desc()).limit(1)
    row = headquarters.execute(query).first()
    return None if row is None else Version(row.change_id, row.applied_at)


def read_registry(headquarters: Connection) -> Registry:
    """All legal entities and channels, with the formats and next numbers of the sequences."""
    entities = {row.legal_entity: _legal_entity(row) for row in headquarters.execute(_LEGAL_ENTITIES)}
    stores = {
        name: entry_of(dict(zip(_OF_CHANNEL, row, strict=True))) for name, *row in headquarters.execute(_CHANNELS)
    }
    return Registry(legal_entities=entities, channels=stores)


def _legal_entity(row: Any) -> Entry:
    table = {
        **{name: getattr(row, name) for name in _OF_LEGAL_ENTITY},
        "account_numbers": {"format": row.account_format, "next": row.account_next, "continuous": row.continuous},
        "sales_orders": {"format": row.order_format, "next": row.order_next},
    }
    return entry_of(table)


_OF_LEGAL_ENTITY: Final = ("country", "currency", "language", "customer_groups", "attributes")


_ACCEPTANCE: Final = ("suspended_at", "suspended_reason", "acceptance_changed_at")
"""No file has these: applying one neither begins nor ends a suspension."""

_NOT_SETTINGS: Final = ("channel_id", "changed_at", *_ACCEPTANCE)

_OF_CHANNEL: Final = tuple(column.name for column in channels.c if column.name not in _NOT_SETTINGS)

_CHANNELS: Final = select(channels.c.channel_id, *(channels.c[name] for name in _OF_CHANNEL))


def write_registry(headquarters: Connection, wanted: Registry, changes: Differences, now: datetime) -> None:
    """Write the entries that these changes name."""
    names = _Touched.of(changes)
    for name in names.written("legal_entities"):
        _write_legal_entity(headquarters, name, wanted.legal_entities[name], now)
    _write_channels(headquarters, {name: wanted.channels[name] for name in names.written("channels")}, now)
    for table, column in ((channels, channels.c.channel_id), (legal_entities, legal_entities.c.legal_entity)):
        gone = names.removed(table.name)
        if gone:
            headquarters.execute(delete(table).where(column.in_(gone)))


def end_identities(headquarters: Connection, names: Collection[str], now: datetime) -> tuple[Change, ...]:
    """Revoke the keys of these channels, and withdraw their tokens; the changes for the history.

    A channel of the same name that is added later begins without a key, and without an answer to joining stores.
    """
    if not names:
        return ()
    given = {"names": [*names], "now": now}
    revoked = headquarters.execute(_REVOKE, given).all()
    withdrawn = headquarters.execute(_WITHDRAW, given).all()
    headquarters.execute(_FORGET_ANSWERS, given)
    return (
        *(Change(setting=f"{CHANNELS}.{row.channel_id}.key", before=row.kid, after=None) for row in revoked),
        *(
            Change(setting=f"{CHANNELS}.{row.channel_id}.token", before={"token": row.token_id}, after=None)
            for row in withdrawn
        ),
    )


def write_history(
    headquarters: Connection, changes: Differences, *, operator: str | None, source: str, now: datetime
) -> None:
    """Add the changes to the history."""
    values = {"applied_at": now, "operator": operator, "source": source, "changes": changes.as_json()}
    headquarters.execute(insert(settings_history).values(values))


class _Touched(NamedTuple):
    """The entries that changes name, as section and name."""

    kept: Collection[tuple[str, str]]
    gone: Collection[tuple[str, str]]

    @classmethod
    def of(cls, changes: Differences) -> "_Touched":
        kept = {entry_named(change.setting) for change in (*changes.added, *changes.changed)}
        return cls(kept, {entry_named(change.setting) for change in changes.removed})

    def written(self, section: str) -> list[str]:
        """Sorted: sequences are locked in this order everywhere."""
        return sorted(name for of, name in self.kept if of == section)

    def removed(self, section: str) -> list[str]:
        return sorted(name for of, name in self.gone if of == section)


def entry_named(setting: str) -> tuple[str, str]:
    """The section and the name of the entry of a setting, such as `channels.houston.address_books`."""
    section, name, *_ = setting.split(".")
    return section, name


def _write_legal_entity(headquarters: Connection, name: str, entry: Entry, now: datetime) -> None:
    table = table_of(entry)
    values: dict[str, Any] = {column: table.get(column, {}) for column in _OF_LEGAL_ENTITY}
    headquarters.execute(_WRITE_LEGAL_ENTITY, {"name": name, "now": now, **values})
    headquarters.execute(
        _WRITE_ACCOUNT_NUMBERS,
        {
            "name": name,
            "format": entry["account_numbers.format"],
            "next": entry["account_numbers.next"],
            "continuous": entry["account_numbers.continuous"],
        },
    )
    orders = {"format": entry["sales_orders.format"], "next": entry["sales_orders.next"]}
    headquarters.execute(_WRITE_SALES_ORDERS, {"name": name, **orders})


def _write_channels(headquarters: Connection, written: Mapping[str, Entry], now: datetime) -> None:
    """Write the rows in one statement: there may be thousands."""
    if not written:
        return
    rows = [{"channel_id": name, "changed_at": now.isoformat(), **table_of(entry)} for name, entry in written.items()]
    others = [column.name for column in channels.c if not column.primary_key and column.name not in _ACCEPTANCE]
    updates = ", ".join(f"{name} = excluded.{name}" for name in others)
    statement = f"{insert_document(channels)} ON CONFLICT (channel_id) DO UPDATE SET {updates}"
    driver_cursor(headquarters).execute(statement.encode(), (json.dumps(rows),))


_LEGAL_ENTITIES: Final = text(
    """
    SELECT entity.*, numbers.format AS account_format, numbers.next AS account_next, continuous,
           orders.format AS order_format, orders.next AS order_next
    FROM legal_entities AS entity
    LEFT JOIN number_sequences AS numbers USING (legal_entity)
    LEFT JOIN sales_order_sequences AS orders USING (legal_entity)
    """
)
"""A sequence may be missing: it is written again with the next change of its legal entity."""

_WRITE_LEGAL_ENTITY: Final = text(
    """
    INSERT INTO legal_entities (legal_entity, country, currency, language, changed_at, customer_groups, attributes)
    VALUES (:name, :country, :currency, :language, :now, :customer_groups, :attributes)
    ON CONFLICT (legal_entity) DO UPDATE SET country = excluded.country, currency = excluded.currency,
        language = excluded.language, changed_at = excluded.changed_at, customer_groups = excluded.customer_groups,
        attributes = excluded.attributes
    """
).bindparams(bindparam("customer_groups", type_=JSON), bindparam("attributes", type_=JSON))

_WRITE_ACCOUNT_NUMBERS: Final = text(
    """
    INSERT INTO number_sequences (legal_entity, format, next, continuous) VALUES (:name, :format, :next, :continuous)
    ON CONFLICT (legal_entity) DO UPDATE SET format = excluded.format, continuous = excluded.continuous
    """
)
"""An existing sequence keeps its next number, which only numbering changes."""

_WRITE_SALES_ORDERS: Final = text(
    """
    INSERT INTO sales_order_sequences (legal_entity, format, next) VALUES (:name, :format, :next)
    ON CONFLICT (legal_entity) DO UPDATE SET format = excluded.format
    """
)
"""As above."""

_REVOKE: Final = text(
    """
    UPDATE channel_keys SET revoked_at = :now WHERE channel_id = ANY (:names) AND revoked_at IS NULL
    RETURNING channel_id, kid
    """
)

_WITHDRAW: Final = text(
    """
    UPDATE channel_tokens SET withdrawn_at = :now
    WHERE channel_id = ANY (:names) AND used_at IS NULL AND withdrawn_at IS NULL
    RETURNING channel_id, token_id
    """
)

_FORGET_ANSWERS: Final = text("DELETE FROM join_answers WHERE channel_id = ANY (:names)")
