"""Refused records that an earlier SQL transaction has accepted, before a key was revoked or a channel suspended."""

from collections.abc import Mapping

from sqlalchemy import Column, Engine, select

from tenten.consumers.headquarters.positions import Stream, read_positions
from tenten.consumers.headquarters.record_positions import RecordPositions, is_read_again
from tenten.sql.arrays import is_one_of


def rows_stored_before(
    engine: Engine, stream: Stream, at: RecordPositions, ids: Mapping[int, str], id_column: Column[str]
) -> frozenset[int]:
    """The rows of a batch from which a table has these ids (by row): records that are read again after a failure.

    The table of the column also has topic, partition and offset. Raises: errors of the database.
    """
    if not ids:
        return frozenset()
    table = id_column.table.c
    query = select(id_column.label("id"), table.partition, table.offset).where(table.topic == at.topic)
    with engine.connect() as connection:
        rows = connection.execute(query.where(is_one_of(connection, id_column, set(ids.values()))))
        stored_at = {row.id: (row.partition, row.offset) for row in rows}
        stored_to = read_positions(connection, stream)
    return frozenset(row for row, found in ids.items() if is_read_again(at, row, stored_at.get(found), stored_to))
