"""One trace from the till to the last store, seen by a receiver of OpenTelemetry's spans, and in Kafka's headers."""

from contextlib import ExitStack
from typing import Final

from confluent_kafka import Consumer

from tenten.kafka.records import headers_of
from tenten.runtime.tracing import valid_traceparent
from tests.acceptance.cli import Tenten
from tests.acceptance.spans import Receiver, receiving_spans
from tests.waiting import wait_for

CUSTOMER: Final = "11111111111111111111111111111111"
ORDER: Final = "22222222222222222222222222222222"
CALLER: Final = "aaaaaaaaaaaaaaaa"
TOPICS: Final = ("async-customers", "customers", "channel-replies", "retail-transactions", "transaction-replies")


def test_one_trace_leads_from_the_till_to_the_last_store(
    ready_company: Tenten, bootstrap_servers: str, prefix: str
) -> None:
    """A customer and an order are created in traces of their callers, another customer in none: each step of the two is
    a span under the step before, the headers of all records have the trace, and of the third there is nothing.
    """
    with receiving_spans() as receiver, ExitStack() as stack:
        # given
        for words in (
            ("headquarters", "run"),
            ("transactions", "run"),
            ("channel", "run", "houston"),
            ("channel", "run", "seattle"),
        ):
            stack.enter_context(ready_company.running(*words, **receiver.environment))

        # when
        untraced = ready_company.ok("customer", "create", "houston", "--last-name", "Byron", "--json").json
        traced = ready_company.run(
            *("customer", "create", "houston", "--last-name", "Lovelace", "--json"),
            **{"TRACEPARENT": f"00-{CUSTOMER}-{CALLER}-01", **receiver.environment},
        ).json["customer_id"]
        wait_for(lambda: is_numbered(ready_company, traced), "the number of the customer")
        order = ready_company.run(
            *("order", "create", "houston", "--customer", traced, "--line", "TENT:1:99.00", "--json"),
            **{"TRACEPARENT": f"00-{ORDER}-{CALLER}-01", **receiver.environment},
        )

        # then
        assert order.code == 0, order
        wait_for_steps(receiver, CUSTOMER, CUSTOMER_STEPS)
        wait_for_steps(receiver, ORDER, ORDER_STEPS)
        wait_for(lambda: is_numbered(ready_company, untraced["customer_id"]), "the number of the other customer")
        assert {span.trace_id for span in receiver.spans} == {CUSTOMER, ORDER}
        assert parents(receiver, CUSTOMER) == {
            ("tenten", "create"): None,
            ("tenten-houston", "relay"): ("tenten", "create"),
            ("tenten-headquarters", "judge"): ("tenten-houston", "relay"),
            ("tenten-houston", "settle"): ("tenten-headquarters", "judge"),
            ("tenten-houston", "apply"): ("tenten-headquarters", "judge"),
            ("tenten-seattle", "apply"): ("tenten-headquarters", "judge"),
        }
        assert parents(receiver, ORDER)["tenten-transactions", "ingest"] == ("tenten-houston", "relay")
        assert parents(receiver, ORDER)["tenten-houston", "settle"] == ("tenten-transactions", "ingest")
        texts = str([span.attributes for span in receiver.spans])
        assert traced not in texts
        assert "Lovelace" not in texts
        traces = traces_on_topics(bootstrap_servers, prefix)
        assert {topic for topic, of_topic in traces.items() if CUSTOMER in of_topic} >= set(TOPICS[:3])
        assert {topic for topic, of_topic in traces.items() if ORDER in of_topic} >= set(TOPICS[3:])
        assert all(None in traces[topic] for topic in TOPICS[:3])


CUSTOMER_STEPS: Final = {
    ("tenten", "create"),
    ("tenten-houston", "relay"),
    ("tenten-headquarters", "judge"),
    ("tenten-houston", "settle"),
    ("tenten-houston", "apply"),
    ("tenten-seattle", "apply"),
}
ORDER_STEPS: Final = {
    ("tenten", "write"),
    ("tenten-houston", "relay"),
    ("tenten-transactions", "ingest"),
    ("tenten-houston", "settle"),
}


def wait_for_steps(receiver: Receiver, trace_id: str, steps: set[tuple[str, str]]) -> None:
    """Wait until every step of a trace was received."""
    try:
        wait_for(lambda: receiver.of_trace(trace_id) >= steps, "the steps of a trace", 60.0)
    except AssertionError as late:
        late.add_note(f"missing: {steps - receiver.of_trace(trace_id)}; all: {receiver.spans}")
        raise


def is_numbered(tenten: Tenten, customer_id: str) -> bool:
    """Whether the customer has its account number."""
    return tenten.ok("customer", "show", "houston", customer_id, "--json").json["account_number"] is not None


def parents(receiver: Receiver, trace_id: str) -> dict[tuple[str, str], tuple[str, str] | None]:
    """The step above each step of a trace; None for one whose parent is the caller's span."""
    spans = {span.span_id: span for span in receiver.spans if span.trace_id == trace_id}
    found: dict[tuple[str, str], tuple[str, str] | None] = {}
    for span in spans.values():
        above = spans.get(span.parent_id)
        assert above is not None or span.parent_id == CALLER, span
        found[span.service, span.name] = None if above is None else (above.service, above.name)
    return found


def traces_on_topics(bootstrap_servers: str, prefix: str) -> dict[str, set[str | None]]:
    """By topic the traces of its records; None for a record without one."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": f"{prefix}reader", "auto.offset.reset": "earliest"}
    )
    found: dict[str, set[str | None]] = {topic: set() for topic in TOPICS}
    consumer.subscribe([prefix + topic for topic in TOPICS])
    try:

        def is_read() -> bool:
            for message in consumer.consume(100, 0.5):
                assert message.error() is None, message.error()
                traceparent = valid_traceparent(dict(headers_of(message)).get("traceparent"))
                topic = (message.topic() or "").removeprefix(prefix)
                found[topic].add(None if traceparent is None else traceparent.split("-")[1])
            return all(found.values()) and all(None in found[topic] for topic in TOPICS[:3])

        wait_for(is_read, "records on every topic")
    finally:
        consumer.close()
    return found
