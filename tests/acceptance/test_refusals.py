"""Settings, passwords, privileges and topics that are wrong: the command ends at once with one sentence of advice."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin._resource import ResourceType

from tests.acceptance.cli import Tenten
from tests.acceptance.faulty import PROMPT_SECONDS, Broker, make, own_broker, plain, refuses, status_of, wait_for


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker with users and privileges."""
    with own_broker() as broker:
        yield broker


def test_headquarters_names_the_unknown_channel_or_legal_entity(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str
) -> None:
    """Customers of an unknown channel or legal entity are held, those of another legal entity than the channel's are
    rejected, each by name. When headquarters has the channel its customers get their numbers.
    """
    # given stores whose settings are not those of headquarters
    kafka = plain(bootstrap_servers)
    known = {"houston": "usrt", "boston": "usrt", "toronto": "cart"}
    hq = make(tmp_path / "hq", prefix=prefix, kafka=kafka, headquarters=headquarters_url, channels=known)
    stores = make(
        tmp_path / "stores",
        prefix=prefix,
        kafka=kafka,
        channels={"houston": "cart", "boston": "demf", "dallas": "usrt"},
    )
    hq.ok("topics", "apply")
    hq.ok("database", "upgrade", "headquarters")
    stores.ok("database", "upgrade", "all")
    # when
    made = {
        name: stores.ok("customer", "create", name, "--first-name", "Ada", "--json").json["customer_id"]
        for name in ("houston", "boston", "dallas")
    }
    statuses = {"houston": "rejected", "boston": "held", "dallas": "held"}
    with (
        hq.running("headquarters", "run"),
        stores.running("channel", "run", "houston"),
        stores.running("channel", "run", "boston"),
        stores.running("channel", "run", "dallas"),
    ):
        for name, status in statuses.items():
            wait_for(lambda: status_of(stores, name, made[name]) == status, f"the reply to {name}")  # noqa: B023
        whole = hq.run("status", "--json")
    # then
    assert whole.json["headquarters"]["held"]["events"] == 2
    expected = {
        "houston": ("legal_entity", "other_legal_entity", "cart"),
        "boston": ("legal_entity", "unknown_legal_entity", "demf"),
        "dallas": ("channel_id", "unknown_channel", "dallas"),
    }
    for name, (field, code, named) in expected.items():
        shown = stores.ok("customer", "show", name, made[name], "--json").json
        assert shown["account_number"] is None
        assert [(reason["field"], reason["code"]) for reason in shown["reasons"]] == [(field, code)]
        assert named in shown["reasons"][0]["text"]
    # when
    known["dallas"] = "usrt"
    hq = make(tmp_path / "hq", prefix=prefix, kafka=kafka, headquarters=headquarters_url, channels=known)
    hq.ok("settings", "apply", "tenten.toml")
    # then
    with hq.running("headquarters", "run"), stores.running("channel", "run", "dallas"):
        wait_for(lambda: status_of(stores, "dallas", made["dallas"]) == "synchronized", "the account number")


@pytest.mark.parametrize(
    "words",
    [
        ("topics", "apply"),
        ("headquarters", "run"),
        ("channel", "run", "houston"),
        ("channel", "relay", "houston"),
        ("lag",),
    ],
    ids=" ".join,
)
def test_wrong_password_is_reported_at_once(
    tmp_path: Path, broker: Broker, prefix: str, headquarters_url: str, words: tuple[str, ...]
) -> None:
    """No command retries a broker that has refused the password."""
    broker.make_user("clerk")
    tenten = make(tmp_path, prefix=prefix, kafka=broker.toml("clerk", "wrong"), headquarters=headquarters_url)
    tenten.ok("database", "upgrade", "all")
    began = time.monotonic()
    refuses(tenten.run(*words), 1, "user or password", "sasl.username", "sasl.password")
    assert time.monotonic() - began < PROMPT_SECONDS


def test_doctor_distinguishes_refusals_of_the_broker(
    tmp_path: Path, broker: Broker, prefix: str, headquarters_url: str
) -> None:
    """A wrong password, topics without privilege, missing topics: each has its own advice."""
    broker.make_user("doctor")

    def broken(kafka: str) -> dict[str, str]:
        tenten = make(tmp_path, prefix=prefix, kafka=kafka, headquarters=headquarters_url)
        tenten.ok("database", "upgrade", "all")
        ended = tenten.run("doctor", "--json")
        assert ended.code == 3
        assert "Traceback" not in ended.err
        return {check["what"]: check["text"] for check in ended.json["checks"] if not check["ok"]}

    wrong, foreign, missing = map(broken, (broker.toml("doctor", "no"), broker.toml("doctor"), plain(broker.address)))
    assert wrong.keys() == {"broker"}
    assert "password" in wrong["broker"]
    assert foreign.keys() == {"topics"}
    assert "privilege" in foreign["topics"]
    assert missing.keys() == {"topics"}
    assert "tenten topics apply" in missing["topics"]


@pytest.mark.parametrize("words", [("headquarters", "run"), ("channel", "run", "houston")], ids=" ".join)
def test_missing_topic_is_reported_at_once(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str, words: tuple[str, ...]
) -> None:
    """Before `tenten topics apply` the command names the missing topic and that remedy."""
    tenten = make(tmp_path, prefix=prefix, kafka=plain(bootstrap_servers), headquarters=headquarters_url)
    tenten.ok("database", "upgrade", "all")
    began = time.monotonic()
    refuses(tenten.run(*words), 1, "tenten topics apply", prefix)
    assert time.monotonic() - began < PROMPT_SECONDS


@pytest.mark.parametrize(
    ("granted", "words", "named"),
    [
        ((), ("topics", "apply"), "async-customers"),
        ((), ("headquarters", "run"), "erasures"),
        ((), ("channel", "run", "houston"), "the topic"),
        ((ResourceType.TOPIC,), ("headquarters", "run"), "consumer group"),
        ((ResourceType.TOPIC, ResourceType.GROUP), ("headquarters", "run"), "transactional id"),
    ],
    ids=["apply", "headquarters", "channel", "group", "transactional id"],
)
def test_missing_privilege_is_reported_at_once(
    *,
    tmp_path: Path,
    broker: Broker,
    prefix: str,
    headquarters_url: str,
    granted: tuple[ResourceType, ...],
    words: tuple[str, ...],
    named: str,
) -> None:
    """A user without a privilege is told which one to grant."""
    owner = make(tmp_path, prefix=prefix, kafka=plain(broker.address), headquarters=headquarters_url)
    if granted:
        owner.ok("topics", "apply")
    owner.ok("database", "upgrade", "all")
    broker.make_user(f"{prefix}clerk")
    for kind in granted:
        broker.allow(f"{prefix}clerk", kind, prefix)
    clerk = make(tmp_path, prefix=prefix, kafka=broker.toml(f"{prefix}clerk"), headquarters=headquarters_url)
    began = time.monotonic()
    refuses(clerk.run(*words), 1, "does not allow", "grant it", named)
    assert time.monotonic() - began < PROMPT_SECONDS


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ('[kafka]\n"sasl.jaas.config" = "x"\n', "write sasl.username and sasl.password"),
        ('[kafka]\n"sasl.mechansim" = "PLAIN"\n', "sasl.mechansim"),
        ('[kafka]\n"acks" = "1"\n', "acks"),
        ("[kafka\n", "tenten.toml is not valid TOML"),
        ("kafka = 1\n", "[kafka]"),
    ],
    ids=["Java only", "misspelt", "breaks a promise", "broken", "no table"],
)
def test_invalid_settings_are_reported_at_once(tmp_path: Path, line: str, advice: str) -> None:
    """Errors in tenten.toml have their own exit code."""
    (tmp_path / "tenten.toml").write_text(line)
    tenten = Tenten(directory=tmp_path, environment={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    refuses(tenten.run("topics", "apply"), 2, advice)
