"""A store joins with a token: from an empty directory to a working store, with real processes."""

import json
import shlex
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tenten.identity.join_proof import kafka_password
from tenten.identity.token import Token, decode_token, encode_token
from tenten.workers import JOIN_FAILPOINTS
from tests.acceptance.cli import LEGAL_ENTITY, Ended, Tenten, wait_until
from tests.acceptance.pages import commands_of, create, headquarters_running, type_in

CHANNEL: Final = '\n[channels.{name}]\nlegal_entity = "usrt"\n'
KILLED: Final = -signal.SIGKILL


@pytest.fixture
def company(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str) -> Tenten:
    """Headquarters alone: topics and database, and a file for the settings of its stores."""
    directory = tmp_path / "headquarters"
    directory.mkdir()
    servers = f'[kafka]\n"bootstrap.servers" = "{bootstrap_servers}"\n[headquarters]\ndatabase = "{headquarters_url}"\n'
    (directory / "tenten.toml").write_text(f'prefix = "{prefix}"\npartitions = 2\n{servers}')
    company = Tenten(directory=directory)
    add_channels(company, "houston", "dallas")
    company.ok("topics", "apply")
    company.ok("database", "upgrade", "headquarters")
    return company


def add_channels(company: Tenten, *names: str) -> None:
    """Write the file with the settings of these stores."""
    (company.directory / "stores.toml").write_text(LEGAL_ENTITY + "".join(CHANNEL.format(name=name) for name in names))


def token_of(company: Tenten, name: str, *options: str) -> str:
    """The token that headquarters prints for a store."""
    printed = company.ok("channel", "enroll", name, "--json", *options).json
    assert printed["channel_id"] == name
    return str(printed["token"])


def store_in(directory: Path) -> Tenten:
    """A store's machine, with an empty directory."""
    directory.mkdir(exist_ok=True)
    return Tenten(directory=directory)


def join(store: Tenten, token: str, *options: str, **environment: str) -> Ended:
    """`tenten store join` in a process of its own."""
    return store.run_process("store", "join", token, *options, **environment)


def refused(ended: Ended) -> str:
    """The sentence with which a command has failed."""
    assert ended.code == 1, ended
    (line,) = [line for line in ended.err.splitlines() if line.startswith("tenten: ")]
    assert "Traceback" not in ended.err
    return line.removeprefix("tenten: ")


@contextmanager
def customers_worker(company: Tenten) -> Iterator[None]:
    """Headquarters' customers worker runs during the block."""
    with company.running("headquarters", "run"):
        yield


def shown(store: Tenten, channel: str, name: str) -> list[str | None]:
    """The account numbers of the customers of this name in a store."""
    return [found["account_number"] for found in store.ok("customer", "search", channel, name, "--json").json]


def test_pages_add_a_store_which_sells_is_suspended_and_gets_another_key(company: Tenten, tmp_path: Path) -> None:
    """The commands of both pages: a second store joins while the first one sells, has its customers, and sells, too;
    while it is suspended nothing of it is accepted, and nothing is lost; with another key it sells on.
    """
    (apply, enroll), (join_command, run), *_, (rotate,), (suspend, resume) = commands_of("adding-a-store.md")
    assert [suspend, resume] == commands_of("suspended-store.md")[0][::2]
    company.ok("settings", "apply", "stores.toml")
    with headquarters_running(company):
        # given a store that has joined, and its customer
        first = store_in(tmp_path / "first")
        assert join(first, token_of(company, "houston")).code == 0
        with first.running("channel", "run", "houston"):
            assert create(first, "Ada", "houston") == "C-00000001"
            # when
            type_in(company, [apply])
            printed = company.ok(*shlex.split(enroll)[1:]).out.split()
            assert printed[:3] == join_command.split()[:3]
            second = store_in(tmp_path / "second")
            joined = second.run_process(*printed[1:], "--json")
            # then
            assert joined.code == 0, joined
            assert shown(second, "dallas", "ada") == ["C-00000001"]
            with second.running(*run.split()[1:]):
                assert create(second, "Ben", "dallas") == "C-00000002"
                wait_until(lambda: shown(first, "houston", "ben") == ["C-00000002"], "Ben in the first store")
                # when
                type_in(company, [suspend])
                wait_until(lambda: "suspension_received" in second.log, "the suspension")
                second.ok("customer", "create", "dallas", "--first-name", "Cy")
                type_in(company, commands_of("suspended-store.md")[0][1:2])
                # then
                assert shown(second, "dallas", "cy") == [None]
                type_in(company, [resume])
                wait_until(lambda: shown(second, "dallas", "cy") == ["C-00000003"], "a number after the suspension")
                assert company.ok("dead-letters", "list", "--json").json == []
                # when
                token = company.ok(*shlex.split(rotate)[1:]).out.split()[-1]
                rotated = join(second, token, "--json")
                # then
                assert rotated.code == 0, rotated
                assert create(second, "Di", "dallas") == "C-00000004"
    first_kid, second_kid = json.loads(joined.out)["kid"], rotated.json["kid"]
    assert (kid_of(second, "dallas"), first_kid != second_kid) == (second_kid, True)
    assert_history(company, second_kid)
    assert (second.directory / "tenten.toml").stat().st_mode & 0o077 == 0


def assert_history(company: Tenten, kid: str) -> None:
    """The history says who enrolled the second store, when and from where, and which key has joined."""
    changes = company.ok("settings", "history", "--json").json
    newest_last = reversed(changes)
    by_setting = {item["setting"]: (change, item["after"]) for change in newest_last for item in change["changed"]}
    enrolled, token = by_setting["channels.dallas.token"]
    joined, key = by_setting["channels.dallas.joined"]
    assert (enrolled["operator"], enrolled["source"]) == ("mary", "channel rotate-key")
    assert (joined["operator"], joined["source"]) == ("mary", "store join")
    assert token["from"]
    assert key == {"token": token["token"], "kid": kid, "from": token["from"]}


def test_each_failure_is_one_sentence(company: Tenten, tmp_path: Path, headquarters_url: str) -> None:
    """Exit code 1, and what to do. None of them uses up a token or changes a key."""
    company.ok("settings", "apply", "stores.toml")
    number = iter(range(100))

    def empty() -> Tenten:
        return store_in(tmp_path / f"store-{next(number)}")

    token = token_of(company, "houston")
    content = decode_token(token)
    # Without headquarters
    assert "not a complete token" in refused(join(empty(), token[:-3]))
    assert "expired at" in refused(join(empty(), token_of_past(content)))
    unreachable = encode_token(changed(content, kafka={"bootstrap.servers": "127.0.0.1:1"}))
    assert "Kafka at 127.0.0.1:1 does not answer" in refused(join(empty(), unreachable))
    waiting = empty()
    assert "headquarters has not answered within 1 s" in refused(join(waiting, token, "--wait", "1"))
    other = empty()
    (other.directory / "tenten.toml").write_text('[channels.dallas]\ndatabase = "sqlite:///dallas.db"\n')
    assert "is not of the store houston" in refused(join(other, token))
    # With headquarters, which knows what was asked meanwhile
    with customers_worker(company):
        # The token has expired meanwhile, and headquarters may have accepted the key before: it is asked all the same.
        assert join(waiting, token_of_past(content)).code == 0
        assert "was used at" in refused(join(empty(), token))
        wait_until(lambda: company.log.count("join_with_another_key") == 1, "the alarm")
        assert "headquarters does not know this token" in refused(
            join(empty(), encode_token(changed(content, secret=bytes(32))))
        )
        withdrawn, newest = token_of(company, "dallas"), token_of(company, "dallas")
        assert "newer token" in refused(join(empty(), withdrawn))
        with psycopg.connect(headquarters_url) as connection:
            connection.execute("UPDATE channel_tokens SET expires_at = now() WHERE used_at IS NULL")
        assert "by headquarters' clock" in refused(join(empty(), newest))
        # And at headquarters
        assert "has joined already" in refused(company.run("channel", "enroll", "houston"))
        assert "has not joined yet" in refused(company.run("channel", "rotate-key", "dallas"))
        own = company.run("channel", "enroll", "dallas", "--kafka", "sasl.username=dallas")
        assert "with which headquarters itself logs in" in refused(own)
        assert company.run("channel", "enroll", "boston").code == 2
        assert company.run("channel", "enroll", "dallas", "--expires", "31d").code == 2
        # The store that has joined continues: the same command again is no failure.
        assert join(waiting, token).code == 0
        assert_password_is_written_last(company, waiting, content)


def assert_password_is_written_last(company: Tenten, store: Tenten, used: Token) -> None:
    """Only a token that headquarters has accepted changes the password at Kafka in a store's file."""
    toml = store.directory / "tenten.toml"
    before = toml.read_text()
    rotated = decode_token(company.ok("channel", "rotate-key", "houston", "--json").json["token"])
    assert "expired at" in refused(join(store, token_of_past(with_password(rotated))))
    assert "does not know this token" in refused(
        join(store, encode_token(with_password(changed(rotated, secret=bytes(32)))))
    )
    assert join(store, encode_token(with_password(used))).code == 0
    assert toml.read_text() == before
    assert join(store, encode_token(with_password(rotated))).code == 0
    after = toml.read_text()
    assert kafka_password(rotated.secret) in after
    assert "joined with a newer token" in refused(join(store, encode_token(with_password(used))))
    assert toml.read_text() == after
    # A file that was written by hand stays; the password is in a private file, and not in the message.
    toml.write_text(f"# By hand\n{before}")
    newest = with_password(decode_token(company.ok("channel", "rotate-key", "houston", "--json").json["token"]))
    ended = join(store, encode_token(newest))
    assert "kafka-password.toml" in refused(ended)
    written = store.directory / "kafka-password.toml"
    assert kafka_password(newest.secret) in written.read_text()
    assert kafka_password(newest.secret) not in ended.err + ended.out
    assert written.stat().st_mode & 0o077 == 0


def with_password(token: Token) -> Token:
    """The token of a store that logs in at Kafka with a password."""
    return changed(token, has_password=True, kafka={**token.kafka, "sasl.username": token.channel_id})


def changed(token: Token, **fields: Any) -> Token:
    """A token with other content."""
    return replace(token, **fields)


def token_of_past(token: Token) -> str:
    """A token that expired long ago."""
    return encode_token(changed(token, expires_at=token.expires_at.replace(year=2020)))


def test_store_and_headquarters_killed_at_each_point_continue(company: Tenten, tmp_path: Path) -> None:
    """Run again with the same token, the store joins; headquarters has one key of each store, and all its customers."""
    points = JOIN_FAILPOINTS
    names = [f"store-{number}" for number in range(len(points))]
    add_channels(company, "houston", "dallas", *names)
    company.ok("settings", "apply", "stores.toml")
    tokens = {name: token_of(company, name) for name in (*names, "houston", "dallas")}
    # given a customer
    first = store_in(tmp_path / "first")
    with customers_worker(company):
        assert join(first, tokens["houston"]).code == 0
        with first.running("channel", "run", "houston"):
            create(first, "Ada", "houston")
        for name, point in zip(names, points, strict=True):
            store = store_in(tmp_path / name)
            # when
            assert join(store, tokens[name], TENTEN_FAILPOINT=point).code == KILLED, point
            # then
            again = join(store, tokens[name], "--json")
            assert again.code == 0, (point, again)
            assert shown(store, name, "ada") == ["C-00000001"], point
            assert again.json["kid"] == kid_of(store, name)
    # when headquarters is killed
    store = store_in(tmp_path / "dallas")
    with store.running("store", "join", tokens["dallas"], "--wait", "300") as joining:
        for point in ("joins.before_commit", "joins.after_commit"):
            with company.running("headquarters", "run", TENTEN_FAILPOINT=point) as worker:
                assert worker.wait(300) == KILLED
        with customers_worker(company):
            # then
            assert joining.wait(300) == 0, store.log
    keys = [item["setting"] for change in history(company) for item in change["changed"] if ".key" in item["setting"]]
    assert sorted(keys) == sorted(f"channels.{name}.key" for name in tokens)


def history(company: Tenten) -> Any:
    """All changes of the registry."""
    return company.ok("settings", "history", "--limit", "1000", "--json").json


def kid_of(store: Tenten, name: str) -> str:
    """The id of a store's key, in its database."""
    with closing(sqlite3.connect(store.directory / f"{name}.db")) as connection:
        ((kid,),) = connection.execute("SELECT kid FROM identity").fetchall()
    return str(kid)
