"""Pages and documents of the contracts: topics as AsyncAPI, the API for tills as OpenAPI, tables."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import Column, MetaData
from sqlalchemy.dialects import postgresql

from docs.pages import codes, page, table
from tenten import workers
from tenten.schemas import topics
from tenten.schemas.tables import channel, headquarters
from tenten.web.till_api.outputs import ALWAYS
from tenten.web.till_api.routes import till_api

ROOT: Final = Path(__file__).parents[1]
VERSION: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
AVRO: Final = ROOT / "schemas" / "avro"
_AVRO_FORMAT: Final = "application/vnd.apache.avro+json;version=1.11.0"


def asyncapi() -> str:
    """The topics with their messages: AsyncAPI 3."""
    channels, operations, messages, schemas = {}, {}, {}, {}
    for topic in topics.ALL:
        name = topic.value if (AVRO / f"{topic.value}.avsc").exists() else None
        message = name or _message_name(topic.name)
        messages[message] = _message(name, topic.value)
        if name is not None:
            schema = json.loads((AVRO / f"{name}.avsc").read_text(encoding="utf-8"))
            schemas[name] = {"schemaFormat": _AVRO_FORMAT, "schema": schema}
        channels[topic.name] = {
            "address": topic.name,
            "description": f"Key: {topic.key}.",
            "messages": {message: {"$ref": f"#/components/messages/{message}"}},
            "bindings": {"kafka": _kafka_binding(topic)},
        }
        reference = {
            "channel": {"$ref": f"#/channels/{topic.name}"},
            "messages": [{"$ref": f"#/channels/{topic.name}/messages/{message}"}],
        }
        for worker in workers.ALL:
            if topic in worker.writes:
                operations[f"{worker.name}.send.{topic.name}"] = {"action": "send", **reference}
            if topic in worker.inputs:
                operations[f"{worker.name}.receive.{topic.name}"] = {"action": "receive", **reference}
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tenten",
            "version": VERSION,
            "description": "The topics between stores and headquarters, without the prefix of an installation. Values "
            "are Avro in single-object encoding, or in Confluent framing where a schema registry is configured.",
        },
        "defaultContentType": "application/vnd.apache.avro",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _message_name(topic: str) -> str:
    return "".join(word.capitalize() for word in topic.replace(".", "-").split("-"))


def _message(name: str | None, value: str) -> dict[str, Any]:
    """A message: an Avro record with the headers of all records, or bytes that are only described."""
    if name is None:
        return {"summary": value}
    return {
        "name": name,
        "headers": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "format": "uuid", "description": "The id of the event that caused it."},
                "type": {"type": "string"},
                "traceparent": {"type": "string", "description": "W3C Trace Context, if its caller has a trace."},
            },
        },
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }


def _kafka_binding(topic: topics.Topic) -> dict[str, Any]:
    configuration = topic.configuration
    binding: dict[str, Any] = {"topic": topic.name, "bindingVersion": "0.5.0"}
    if topic.partitions is not None:
        binding["partitions"] = topic.partitions
    known: dict[str, Any] = {"cleanup.policy": [configuration["cleanup.policy"]]}
    for name in ("retention.ms", "delete.retention.ms"):
        if name in configuration:
            known[name] = int(configuration[name])
    return {**binding, "topicConfiguration": known}


def openapi() -> str:
    """The API for tills: OpenAPI 3.1, as a store serves it at /openapi.json."""
    document = _openapi()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _openapi() -> dict[str, Any]:
    from tenten.web.till_api.openapi import description

    nothing = cast("Any", None)
    document = description(till_api(nothing, nothing, "token").routes)
    document["info"]["version"] = VERSION
    return document


def http_page() -> str:
    """Every operation of the API for tills."""
    document = _openapi()
    rows = [
        (f"`{method.upper()} {path}`", operation["description"].split("\n\n")[0], codes(_own(operation)))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    always = next(iter(document["paths"].values()))["post"]["responses"]
    rows_of_all = [(f"`{status}`", always[str(status)]["description"]) for status in ALWAYS]
    rows_of_all.append(("`405`", "The address has other methods; `Allow` names them."))
    text = (
        f"{document['info']['description']} A store with `--http` serves it, and its description at `/openapi.json`, "
        "which is [openapi.json](openapi.json) here. Refusals are `application/problem+json`; their codes are "
        "[reason codes](reason-codes.md)."
    )
    parts = (table(("operation", "purpose", "answers"), rows), "Every operation may also answer:")
    return page("HTTP", "tenten/web/till_api/", text, *parts, table(("status", "meaning"), rows_of_all))


def _own(operation: Mapping[str, Any]) -> list[str]:
    """The statuses that not every operation has."""
    return [status for status in operation["responses"] if int(status) not in ALWAYS]


def table_page() -> str:
    """Every table of both databases."""
    parts = [
        *_tables("Headquarters", headquarters.metadata),
        *_tables("Channels", channel.metadata),
    ]
    text = (
        "Types are PostgreSQL's; in SQLite GUIDs and times are text. The [public interface](../interface.md#tables) "
        "says which columns others may rely on."
    )
    return page("Tables", "schemas/tables/", text, *parts)


def _tables(title: str, metadata: MetaData) -> list[str]:
    parts = [f"## {title}"]
    for name, declared in sorted(metadata.tables.items()):
        rows = [_column(column) for column in declared.columns]
        parts += [f"### {name}", table(("column", "type", "null", "meaning"), rows)]
    return parts


def _column(column: Column[Any]) -> tuple[str, str, str, str]:
    kind = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]  # its stubs lack it
    key = " (key)" if column.primary_key else ""
    return f"`{column.name}`{key}", kind.lower(), "yes" if column.nullable else "", column.comment or ""
