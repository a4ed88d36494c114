"""docs/how-to/secure-kafka.md: its commands secure a broker; each user may do what its role needs, and no more."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tenten.kafka.schema_registry import SchemasTopic
from tenten.kafka.topic_status import read_topic_status
from tenten.runtime.settings import load_settings
from tenten.schemas.topics import ALL, CUSTOMERS
from tests.acceptance.cli import ROOT, Ended, Tenten, wait_until
from tests.acceptance.secured import STRANGER, Secured, secured_broker
from tests.acceptance.test_readme import blocks_of

TABLE: Final = "table."
"""The prefix of topics that a test fills with rubbish."""

JOINED: Final = "joined."
"""The prefix of the topics of the store that joins with a token."""

READ_SECONDS_MAX: Final = 60.0

ATTEMPTS: Final = 60
"""How often the broker is asked about a group, once a second, while it still loads it."""

NOT_READY: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)

USERS: Final = ("headquarters", "store-1", "store-10", STRANGER)

EXPECTED: Final = {
    # topic: headquarters, store-1, store-10, a stranger; r: read, w: write
    "async-customers": ("rw", "w", "w", ""),
    "customers": ("rw", "r", "r", ""),
    "channel-replies": ("rw", "r", "r", ""),
    "retail-transactions": ("r", "w", "w", ""),
    "transaction-replies": ("rw", "r", "r", ""),
    "channel-status": ("r", "w", "w", ""),
    "channel-settings": ("rw", "r", "r", ""),
    "joins": ("r", "w", "w", ""),
    "headquarters-status": ("rw", "r", "r", ""),
    "erasures": ("rw", "", "", ""),
    "schemas": ("rw", "r", "r", ""),
    "async-customers.dlq": ("w", "", "", ""),
    "retail-transactions.dlq": ("w", "", "", ""),
}
EXPECTED_GROUPS: Final = {
    # group: who may join it and commit
    "headquarters": ("headquarters",),
    "transactions": ("headquarters",),
    "channel.store-1": ("store-1",),
    "channel.store-10": ("store-10",),
    "anything": (),
}
EXPECTED_TRANSACTIONAL_IDS: Final = {"headquarters-0": ("headquarters",), "transactions-7": ("headquarters",), "x": ()}


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """The broker of the page."""
    with secured_broker() as secured:
        yield secured


def client(secured: Secured, user: str, **more: Any) -> dict[str, Any]:
    """The configuration of a plain client of this user."""
    company = secured.tenten(user, prefix=TABLE)
    kafka = dict(load_settings(company.directory / "tenten.toml").kafka)
    if "KAFKA_SASL_PASSWORD" in company.environment:
        kafka["sasl.password"] = company.environment["KAFKA_SASL_PASSWORD"]
    return {**kafka, "log_level": 0, **more}


def test_every_user_may_do_what_its_role_needs_and_no_more(secured: Secured) -> None:
    """Topic x operation x user, groups and transactional ids: the broker's answers are those of the table."""
    # given topics of their own, and the privileges of the same users for them
    admin = secured.tenten("admin", prefix=TABLE)
    admin.ok("topics", "acls", "--apply")
    admin.ok("topics", "apply")
    assert EXPECTED.keys() == {topic.name for topic in ALL}
    # when
    topics = {
        user: {name: "r" * (name in read) + "w" * (name in written) for name in EXPECTED}
        for user in USERS
        for read, written in [(readable(secured, user), writable(secured, user))]
    }
    # then
    assert {name: tuple(topics[user][name] for user in USERS) for name in EXPECTED} == EXPECTED
    assert {name: tuple(filter(may_use_group(secured, name), USERS)) for name in EXPECTED_GROUPS} == EXPECTED_GROUPS
    assert {
        name: tuple(filter(may_begin_transactions(secured, name), USERS)) for name in EXPECTED_TRANSACTIONAL_IDS
    } == EXPECTED_TRANSACTIONAL_IDS


def writable(secured: Secured, user: str) -> set[str]:
    """The topics to which the user can write a record."""
    written: set[str] = set()

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            written.add((message.topic() or "").removeprefix(TABLE))
        else:
            assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, error

    producer = Producer(client(secured, user, **{"enable.idempotence": False}))
    for name in EXPECTED:
        producer.produce(TABLE + name, b"rubbish", b"key", on_delivery=delivered)
    assert producer.flush(60) == 0
    return written


def readable(secured: Secured, user: str) -> set[str]:
    """The topics from which the broker gives the user a record, or says that it is at the end."""
    found: set[str] = set()
    never_joined = {"group.id": "never joined", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(client(secured, user, **never_joined))
    # Of a topic that a user may not even see, the client does not learn who has it, and reads nothing.
    seen = {name: consumer.list_topics(TABLE + name, timeout=60).topics[TABLE + name].error for name in EXPECTED}
    refused = {name for name, error in seen.items() if error is not None}
    assert {error.code() for error in seen.values() if error is not None} <= {KafkaError.TOPIC_AUTHORIZATION_FAILED}
    consumer.assign([TopicPartition(TABLE + name, 0, 0) for name in EXPECTED.keys() - refused])
    deadline = time.monotonic() + READ_SECONDS_MAX
    while len(found) + len(refused) < len(EXPECTED):
        assert time.monotonic() < deadline, EXPECTED.keys() - found - refused
        message = consumer.poll(1)
        if message is None:
            continue
        error, name = message.error(), (message.topic() or "").removeprefix(TABLE)
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            found.add(name)
        elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # which no reader of its own positions needs
            assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, error
            refused.add(name)
    consumer.close()
    return found


def may_use_group(secured: Secured, group: str) -> Callable[[str], bool]:
    """Whether a user may join the group, as the broker says."""

    def asked(user: str) -> bool:
        admin = AdminClient(client(secured, user))
        for _ in range(ATTEMPTS):
            described = admin.describe_consumer_groups([TABLE + group], include_authorized_operations=True)
            error = described[TABLE + group].exception(60)
            if error is None:
                return AclOperation.READ in described[TABLE + group].result().authorized_operations
            assert isinstance(error, KafkaException)
            if error.args[0].code() not in NOT_READY:
                return not_allowed(error, KafkaError.GROUP_AUTHORIZATION_FAILED)
            time.sleep(1)
        raise AssertionError(f"the broker does not come to know the group {group}")

    return asked


def may_begin_transactions(secured: Secured, transactional_id: str) -> Callable[[str], bool]:
    """Whether a user may use a transactional id: it would fence headquarters' worker."""

    def asked(user: str) -> bool:
        producer = Producer(client(secured, user, **{"transactional.id": TABLE + transactional_id}))
        try:
            producer.init_transactions(60)
        except KafkaException as error:
            return not_allowed(error, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        return True

    return asked


def not_allowed(error: BaseException, code: int) -> bool:
    """False, because the broker has refused it with this code; fails for any other error."""
    assert isinstance(error, KafkaException)
    assert error.args[0].code() == code, error
    return False


def checks(ended: Ended) -> dict[str, str]:
    """The failed checks of `tenten doctor --json`, with their advice."""
    return {check["what"]: check["text"] for check in ended.json["checks"] if not check["ok"]}


def test_stores_and_headquarters_work_with_exactly_their_privileges(secured: Secured, headquarters_url: str) -> None:
    """A customer of store-1 (password) gets a number and reaches store-10 (certificate), an order its sales order;
    the broker denies nothing; and in each place `tenten doctor` has nothing to say.
    """
    # given
    hq = secured.tenten("headquarters", database=headquarters_url)
    first, second = secured.tenten("store-1"), secured.tenten("store-10")
    hq.ok("database", "upgrade", "headquarters")
    for name, store in (("store-1", Tenten(directory=first.directory)), ("store-10", second)):
        store.ok("database", "upgrade", "channel", name)
    before = len(secured.denials())
    # when
    made = Tenten(directory=first.directory).ok("customer", "create", "store-1", "--first-name", "Ada", "--json").json
    ordered = second.ok("order", "create", "store-10", "--line", "TEA:1:9", "--json").json
    with (
        hq.running("headquarters", "run"),
        hq.running("transactions", "run"),
        first.running("channel", "run", "store-1"),
        second.running("channel", "run", "store-10"),
    ):
        wait_until(lambda: number_in(second, "store-10", made["customer_id"]) == "C-00000001", "the customer")
        number = number_in(Tenten(directory=first.directory), "store-1", made["customer_id"])
        wait_until(lambda: sales_order(second, ordered["transaction_id"]) == "SO-00000001", "the sales order")
        # What a store reads only now and then: schemas of other releases, and whether a topic is complete.
        settings = load_settings(second.directory / "tenten.toml").for_channel("store-10")
        assert SchemasTopic(settings).find(b"unknown!") is None
        read_topic_status(settings, CUSTOMERS)
        # then
        assert number == "C-00000001"
        assert secured.denials()[before:] == []
        operator = [f"{option}={path}" for option, path in certificate_of(secured, "operator").items()]
        by_operator = hq.run("doctor", "--json", *(word for text in operator for word in ("--kafka", text)))
        for ended in (first.run("doctor", "--json"), second.run("doctor", "--json"), by_operator):
            assert (ended.code, checks(ended)) == (0, {})
        secured.type_in(hq, 7)


def certificate_of(secured: Secured, user: str) -> dict[str, str]:
    """The properties that name the certificate of a user."""
    return {
        "ssl.certificate.location": str(secured.page.directory / f"{user}.pem"),
        "ssl.key.location": str(secured.page.directory / f"{user}.key"),
    }


def number_in(store: Tenten, channel: str, customer_id: str) -> str | None:
    """The account number of a customer in a store; None while the store does not have it."""
    ended = store.run("customer", "show", channel, customer_id, "--json")
    return None if ended.code else ended.json["account_number"]


def sales_order(store: Tenten, transaction_id: str) -> str | None:
    """The number of an order, None while it has none."""
    number: str | None = store.ok("order", "show", "store-10", transaction_id, "--json").json["sales_order"]
    return number


def test_store_joins_with_a_password_that_headquarters_has_made(secured: Secured, headquarters_url: str) -> None:
    """The commands of the page about adding a store, where Kafka asks for passwords: from an empty directory the store
    has a user with exactly its privileges, and works; a token that was replaced has no password any more.
    """
    # given topics of their own
    admin = secured.tenten("admin", prefix=JOINED)
    admin.ok("topics", "acls", "--apply")
    admin.ok("topics", "apply")
    page = secured.page.here((ROOT / "docs" / "how-to" / "adding-a-store.md").read_text(encoding="utf-8"))
    store_kafka = next(block.text for block in blocks_of(page) if block.language == "toml")
    enroll = next(line.strip() for line in page.splitlines() if "channel enroll dallas --kafka" in line)
    hq = secured.tenten("headquarters", prefix=JOINED, database=headquarters_url)
    toml = hq.directory / "tenten.toml"
    toml.write_text(
        f'{toml.read_text()}\n[channels.dallas]\nlegal_entity = "usrt"\ndatabase = "sqlite:///no.db"\n{store_kafka}'
    )
    hq.ok("database", "upgrade", "headquarters")
    # when
    replaced, token = (hq.ok(*shlex.split(enroll)[1:]).out.split()[-1] for _ in range(2))
    before = len(secured.denials())
    first, store = (Tenten(directory=secured.page.directory / name) for name in ("replaced", "dallas"))
    for directory in (first.directory, store.directory):
        directory.mkdir()
    with hq.running("headquarters", "run"):
        refused, joined = join(first, replaced), join(store, token)
        # then
        assert (refused.returncode, joined.returncode) == (1, 0), (refused, joined)
        assert "Perhaps a newer token has replaced this one" in refused.stderr
        with store.running("channel", "run", "dallas"):
            made = store.ok("customer", "create", "dallas", "--first-name", "Ada", "--sync", "60", "--json").json
            assert made["account_number"] == "C-00000001"
            assert secured.denials()[before:] == []
            ended = store.run("doctor", "--json")
            assert (ended.code, checks(ended)) == (0, {})
    assert "sasl.password" in (store.directory / "tenten.toml").read_text()
    assert "********" in store.ok("config", "show").out


def join(store: Tenten, token: str) -> "subprocess.CompletedProcess[str]":
    """`tenten store join`, with the token on stdin, where no other user sees it."""
    words = [sys.executable, "-P", "-m", "tenten.cli", "store", "join", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words,
        cwd=store.directory,
        env=environment,
        input=token,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_missing_and_surplus_privileges_are_shown(secured: Secured) -> None:
    """A stranger and a store that lacks a privilege are told which; `--apply` creates that one, shows what nobody
    needs, and deletes nothing.
    """
    # given
    admin = AdminClient(client(secured, "admin"))
    lost = ("channel-status", ResourcePatternType.LITERAL, "User:store-10", AclOperation.WRITE)
    foreign = ("channel.store-1", ResourcePatternType.PREFIXED, "User:store-1", AclOperation.READ)
    name, pattern, principal, operation = lost
    (deletion,) = admin.delete_acls(
        [AclBindingFilter(ResourceType.TOPIC, name, pattern, principal, "*", operation, AclPermissionType.ALLOW)]
    ).values()
    assert len(deletion.result(60)) == 1
    name, pattern, principal, operation = foreign
    binding = AclBinding(ResourceType.GROUP, name, pattern, principal, "*", operation, AclPermissionType.ALLOW)
    (creation,) = admin.create_acls([binding]).values()
    creation.result(60)
    # when
    store = secured.tenten("store-10")
    store.ok("database", "upgrade", "channel", "store-10")
    of_store, of_stranger = (checks(user.run("doctor", "--json")) for user in (store, secured.tenten(STRANGER)))
    operator = secured.tenten("admin")
    applied, again = (operator.ok("topics", "acls", "--apply", "--json").json for _ in range(2))
    # then
    assert of_store.keys() == {"topics"}
    assert "WRITE on channel-status:" in of_store["topics"]
    assert "tenten topics acls" in of_store["topics"]
    assert all(name in of_stranger["topics"] for name in ("READ on channel-replies", "WRITE on retail-transactions"))
    assert [(acl["principal"], acl["name"], acl["operation"]) for acl in applied["added"]] == [
        ("User:store-10", "channel-status", "write")
    ]
    assert again["added"] == []
    assert len(again["kept"]) == len(applied["kept"]) + 1
    # The same users have privileges for the topics of other tests, too.
    surplus = [acl for acl in again["surplus"] if not acl["name"].startswith((TABLE, JOINED))]
    assert [(acl["principal"], acl["name"], acl["pattern"]) for acl in surplus] == [
        ("User:store-1", "channel.store-1", "prefixed")
    ]


def test_quotas_are_set_by_the_printed_commands(secured: Secured) -> None:
    """The page's pipe into a shell sets the quotas of both stores."""
    block = secured.page.blocks["sh"][6]
    words, pipe, shell = block.strip().rpartition(" | ")
    assert (pipe, shell) == (" | ", "sh")
    printed = secured.tenten("headquarters").ok(*words.split()[1:]).out
    done = secured.page.shell(printed)
    assert [line for line in done.splitlines() if line.startswith("Completed")] == [
        f"Completed updating config for user {name}." for name in ("store-1", "store-10")
    ]
