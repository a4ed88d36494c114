"""The database function that creates new customers in one round trip: one call is one SQL transaction.

Each session creates it as a temporary function, from the tables of this release: no migration has to replace it when a
table changes, and workers of two releases do not share it.

It raises, and then nothing is stored: `OLDER_THAN_STREAM`; `SETTINGS_CHANGED`; `NO_NUMBERS`; a unique violation when a
customer or an event already exists.
"""

from typing import Final

from sqlalchemy import Table

from tenten.consumers.headquarters.positions import BATCH_COMMITTED_CHANNEL, REGISTRY_VERSION
from tenten.schemas.tables.headquarters import (
    customer_addresses,
    customer_contacts,
    customers,
    synchronization_log,
)
from tenten.sql.recordset import insert_document, recordset_columns

OLDER_THAN_STREAM: Final = "TT001"
"""SQLSTATE: a position is behind the start of the batch."""

NO_NUMBERS: Final = "TT002"
"""SQLSTATE: a legal entity has no number sequence, or not enough numbers left."""

SETTINGS_CHANGED: Final = "TT003"
"""SQLSTATE: the registry is not the one with which the batch was checked."""

CREATED_AS_ROW: Final = "row"
"""In the documents: the place of the row's customer in the result, from 1."""


def _insert_numbered(table: Table, document: str) -> str:
    """Insert the rows of this argument, each with the account number of its customer."""
    columns = recordset_columns(table)
    names, typed = ", ".join(columns.names), ", ".join((*columns.typed, f"{CREATED_AS_ROW} integer"))
    values = ", ".join(f"numbers[new.{CREATED_AS_ROW}]" if name == "account_number" else name for name in columns.names)
    rows = f"json_to_recordset({document}) AS new ({typed})"
    return f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {rows};"  # noqa: S608 - names of tables of this project


CREATE_FUNCTION: Final = f"""
CREATE OR REPLACE FUNCTION pg_temp.create_customers(
    of_group text, of_topic_id text, partitions integer[], starts bigint[], next_offsets bigint[],
    is_checked boolean, checked_id bigint, checked_at timestamptz,
    entities text[], counts integer[], ids uuid[],
    new_customers json, new_addresses json, new_contacts json, new_log json,
    OUT numbers text[], OUT formats text[], OUT next_numbers bigint[]
) LANGUAGE plpgsql
-- Plans are made once, perhaps for empty tables: every access is by an index, whatever the tables contain then.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    sound integer;
    format_of text;
    next_of bigint;
    before text;
    digits integer;
    registry record;
BEGIN
    -- The keys and suspensions with which the batch was checked are those of now.
    SELECT * INTO registry FROM ({REGISTRY_VERSION}) AS newest;
    IF is_checked AND (
        registry.change_id IS DISTINCT FROM checked_id OR registry.applied_at IS DISTINCT FROM checked_at
    ) THEN
        RAISE EXCEPTION 'settings changed' USING ERRCODE = '{SETTINGS_CHANGED}';
    END IF;

    -- The guard: the database has everything before this batch.
    SELECT count(*) INTO sound
    FROM positions JOIN unnest(partitions, starts) AS reached (partition, start) USING (partition)
    WHERE consumer_group = of_group AND topic_id = of_topic_id AND next_offset >= start;
    IF sound <> cardinality(partitions) THEN
        RAISE EXCEPTION 'older than the stream' USING ERRCODE = '{OLDER_THAN_STREAM}';
    END IF;
    UPDATE positions SET next_offset = reached.next_offset
    FROM unnest(partitions, next_offsets) AS reached (partition, next_offset)
    WHERE consumer_group = of_group AND topic_id = of_topic_id
        AND positions.partition = reached.partition AND positions.next_offset < reached.next_offset;

    -- The numbers. The sequence stays locked until the commit, so it gets no gap.
    FOR i IN 1 .. cardinality(entities) LOOP
        UPDATE number_sequences SET next = next + counts[i] WHERE legal_entity = entities[i]
        RETURNING next, format INTO next_of, format_of;
        before := split_part(format_of, '#', 1);
        digits := length(format_of) - length(replace(format_of, '#', ''));
        IF NOT FOUND OR next_of > 10::numeric ^ digits THEN
            RAISE EXCEPTION 'no numbers' USING ERRCODE = '{NO_NUMBERS}';
        END IF;
        numbers := numbers || ARRAY(
            SELECT before || lpad(number::text, digits, '0') || substr(format_of, length(before) + digits + 1)
            FROM generate_series(next_of - counts[i], next_of - 1) AS number ORDER BY number
        );
        formats := formats || format_of;
        next_numbers := next_numbers || next_of;
    END LOOP;

    {_insert_numbered(customers, "new_customers")}
    {insert_document(customer_addresses, "new_addresses")};
    {insert_document(customer_contacts, "new_contacts")};
    {_insert_numbered(synchronization_log, "new_log")}

    -- Orders and sales that wait for these customers.
    INSERT INTO release_due (transaction_id)
    SELECT transaction_id FROM retail_transactions
    WHERE status IN ('waiting', 'blocked') AND customer_id = ANY (ids);
    IF FOUND THEN
        PERFORM pg_notify('{BATCH_COMMITTED_CHANNEL}', '');
    END IF;
END $$
"""  # noqa: S608 - constants of this project

CALL: Final = """
SELECT numbers, formats, next_numbers
FROM pg_temp.create_customers(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
"""Returns one row."""
