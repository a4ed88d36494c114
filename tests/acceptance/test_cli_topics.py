"""`tenten topics` with the real command line."""

from tenten.avro.wire import contracts
from tenten.kafka.schema_registry import SchemasTopic
from tenten.settings import load_settings
from tests.acceptance.cli import Tenten


def test_topics_apply_publishes_the_schemas(company: Tenten) -> None:
    """A program that reads `schemas` finds the schema of every contract before any tenten process has run."""
    # when
    company.ok("topics", "apply")
    # then
    topic = SchemasTopic(load_settings(company.directory / "tenten.toml"))
    published = {schema.name: topic.find(schema.fingerprint) for schema in contracts()}
    assert published == {schema.name: schema.json for schema in contracts()}
