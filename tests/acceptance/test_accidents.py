"""The pages about accidents at headquarters: the accident happens, and the page's own commands lead out of it."""

import tomllib

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.topics_admin import admin_client
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ASYNC_CUSTOMERS, CUSTOMERS
from tests.acceptance.cli import Tenten, wait_until
from tests.acceptance.pages import (
    commands_of,
    create,
    headquarters_running,
    numbers,
    order,
    sales_order,
    trading,
    type_in,
)
from tests.restores import back_up, delete_topic, restore


def test_restored_database(ready_company: Tenten, headquarters_url: str) -> None:
    """Headquarters' database is put back to a copy: numbers that were given since then stay with their customers."""
    company = ready_company
    first, second = commands_of("restored-database.md")
    # given
    with trading(company):
        create(company, "Ada")
    backup = back_up(headquarters_url)
    with trading(company):
        create(company, "Ben")
        ordered = order(company)
        wait_until(lambda: sales_order(company, ordered) is not None, "the sales order")
    restore(headquarters_url, backup)
    # when
    type_in(company, first)
    with trading(company):
        # then
        assert create(company, "Cy") == "C-00000003"
        type_in(company, second)
    assert sales_order(company, ordered) == "SO-00000001"
    assert numbers(company, "ada", "ben", "cy") == ["C-00000001", "C-00000002", "C-00000003"]


def test_recreated_topic_and_moved_offsets(ready_company: Tenten) -> None:
    """`customers` is deleted: no store loses a customer, and after the commands of the page all is as before. Then the
    group's offsets are moved past an unread event: it is not skipped.
    """
    company = ready_company
    first, second = commands_of("recreated-topic.md")
    # given
    with trading(company):
        for name in ("Ada", "Ben"):
            create(company, name)
    settings = settings_of(company)
    delete_topic(settings, CUSTOMERS)
    # when
    type_in(company, first)
    with trading(company):
        create(company, "Cy")
        type_in(company, second)
    # then
    status = company.ok("channel", "status", "houston", "--json").json
    assert (status["customers"], status["pending"], status["unsettled"]) == (3, 0, 0)
    assert company.ok("headquarters", "verify", "--json").json["customers"] == 3

    # given
    (checks,) = commands_of("moved-offsets.md")
    with company.running("channel", "run", "houston"):
        company.ok("customer", "create", "houston", "--first-name", "Dee")
        wait_until(lambda: _unsent(company) == 0, "the event to be sent")
        # when
        move_offsets_to_the_end(settings)
        with headquarters_running(company):
            # then
            wait_until(lambda: numbers(company, "dee") == ["C-00000004"], "the account number")
            type_in(company, checks)
        assert "group_offsets_moved" in company.log
    assert numbers(company, "ada", "ben", "cy", "dee") == [f"C-0000000{number}" for number in (1, 2, 3, 4)]


def settings_of(company: Tenten) -> Settings:
    """The settings in the company's file."""
    document = tomllib.loads((company.directory / "tenten.toml").read_text())
    return Settings.model_validate(document, context={"directory": company.directory})


def _unsent(company: Tenten) -> int:
    count = company.ok("channel", "status", "houston", "--json").json["unsent"]
    assert isinstance(count, int)
    return count


def move_offsets_to_the_end(settings: Settings) -> None:
    """Move the offsets of the group `headquarters` to the end, as an operator does. It has no members."""
    topic = settings.topic(ASYNC_CUSTOMERS)
    ends = last_stable_offsets(settings, topic, settings.partitions)
    moved = [TopicPartition(topic, number, end) for number, end in ends.items()]
    request = ConsumerGroupTopicPartitions(settings.group("headquarters"), moved)
    (future,) = admin_client(settings).alter_consumer_group_offsets([request]).values()
    assert {partition.error for partition in future.result(60).topic_partitions} == {None}
