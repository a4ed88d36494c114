"""Compare the schemas of two databases: by name, type, null, default and index, not by position or CREATE text."""

from sqlalchemy import Connection, text


def catalogue(connection: Connection) -> list[tuple[str, ...]]:
    """The database's own description of its tables, indexes, constraints and views, except the version table."""
    described = _sqlite(connection) if connection.dialect.name == "sqlite" else _postgresql(connection)
    return sorted(described)


def _sqlite(connection: Connection) -> list[tuple[str, ...]]:
    objects = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master")).all()
    described: list[tuple[str, ...]] = []
    for kind, name, table, statement in objects:
        sql = " ".join(str(statement).split())
        if str(table).endswith("_version"):
            continue
        if kind != "table":
            described.append((kind, name, table, sql))
            continue
        options = [word for word in ("AUTOINCREMENT", "WITHOUT ROWID", "STRICT", "CHECK", "REFERENCES") if word in sql]
        described.append(("table", name, *options))
        columns = connection.execute(text("SELECT * FROM pragma_table_xinfo(:name)"), {"name": name}).mappings()
        described.extend(
            (
                "column",
                name,
                column["name"],
                column["type"],
                *(str(column[part]) for part in ("notnull", "dflt_value", "pk")),
            )
            for column in columns
        )
        # Unique constraints: their indexes have no statement.
        lists = connection.execute(text("SELECT * FROM pragma_index_list(:name)"), {"name": name}).mappings()
        for index in lists.all():
            info = connection.execute(text("SELECT name FROM pragma_index_info(:name)"), {"name": index["name"]})
            described.append(("index", name, str(index["unique"]), index["origin"], *map(str, info.scalars())))
    return described


def _postgresql(connection: Connection) -> list[tuple[str, ...]]:
    columns = """
        SELECT 'column', table_name, column_name, udt_name, is_nullable, column_default, is_identity,
               col_description(('public.' || quote_ident(table_name))::regclass, ordinal_position)
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '%\\_version'"""
    indexes = """
        SELECT 'index', indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND indexname NOT LIKE '%version%'"""
    constraints = """
        SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE '%\\_version'"""
    views = "SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'public'"
    storage = """
        SELECT 'storage', attrelid::regclass::text, attname, attstorage
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT LIKE '%\\_version' AND attnum > 0
          AND NOT attisdropped"""
    queries = (columns, indexes, constraints, views, storage)
    return [tuple(str(value) for value in row) for query in queries for row in connection.execute(text(query))]
