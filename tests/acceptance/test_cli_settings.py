"""Sources of settings, their output, and the messages for invalid ones."""

from pathlib import Path

import pytest

from tests.acceptance.cli import HOUSTON, LEGAL_ENTITY, Tenten


@pytest.fixture
def here(tmp_path: Path) -> Tenten:
    """A directory with a configuration without servers."""
    (tmp_path / "tenten.toml").write_text(LEGAL_ENTITY + HOUSTON)
    return Tenten(directory=tmp_path)


def test_flag_wins_over_environment_wins_over_file(here: Tenten) -> None:
    """The broker is taken from --kafka, else from the environment, else from the file."""
    # given
    with (here.directory / "tenten.toml").open("a") as file:
        file.write('[kafka]\n"bootstrap.servers" = "file:9092"\n"client.id" = "till-7"\n')
    # when
    by_file = here.ok("config", "show", "--json").json
    by_environment = here.run("config", "show", "--json", KAFKA_BOOTSTRAP_SERVERS="environment:9092").json
    by_flag = here.run(
        "config", "show", "--json", "--kafka", "bootstrap.servers=flag:9092", KAFKA_BOOTSTRAP_SERVERS="environment:9092"
    ).json
    # then
    assert by_file["kafka"] == {"bootstrap.servers": "file:9092", "client.id": "till-7"}
    assert by_environment["kafka"]["bootstrap.servers"] == "environment:9092"
    assert by_flag["kafka"] == {"bootstrap.servers": "flag:9092", "client.id": "till-7"}


def test_config_option_works_before_and_after_the_command(here: Tenten, tmp_path: Path) -> None:
    """--config and TENTEN_CONFIG name another file, whose relative paths start at its directory."""
    # given
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.toml").write_text('prefix = "other-"\n' + LEGAL_ENTITY + HOUSTON)
    # when
    before = here.ok("--config", "elsewhere/other.toml", "config", "show", "--json").json
    after = here.ok("config", "show", "--json", "--config=elsewhere/other.toml").json
    environment = here.run("config", "show", "--json", TENTEN_CONFIG="elsewhere/other.toml").json
    # then
    assert before == after == environment
    assert before["prefix"] == "other-"
    assert before["channels"]["houston"]["database"] == f"sqlite:///{elsewhere / 'houston.db'}"


def test_secrets_are_masked(here: Tenten) -> None:
    """No password of any source is printed."""
    ended = here.run(
        *("config", "show", "--kafka", "sasl.password=hunter2"),
        TENTEN_HEADQUARTERS_URL="postgresql://hq:hunter2@127.0.0.1/headquarters",
    )
    assert ended.code == 0
    assert "********" in ended.out
    assert "hunter2" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("config", "show", "--kafka", "sasl.jaas.config=x"), "sasl.username"),
        (("config", "show", "--kafka", "ssl.truststore.location=x"), "ssl.ca.location"),
        (("config", "show", "--config", "nowhere.toml"), "nowhere.toml"),
        (("config", "show", "--kafka", "bootstrap.servers"), "NAME=VALUE"),
        (("customer", "search", "dallas", "ada"), "houston"),
        (("lag",), "tenten local start"),
        (("headquarters", "run"), "tenten local start"),
        (("frobnicate",), "frobnicate"),
        (("customer", "create"), "CHANNEL"),
        (("customer", "create", "houston", "--sync", "soon"), "--sync"),
        (("dead-letters", "replay"), "--all"),
    ],
)
def test_wrong_settings_and_usage_are_exit_code_2_with_advice(
    here: Tenten, words: tuple[str, ...], advice: str
) -> None:
    """An invalid flag or setting is explained on stderr; nothing is printed to stdout."""
    ended = here.run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert advice in ended.err
    assert "Traceback" not in ended.err


def test_unknown_setting_is_refused_with_a_suggestion(here: Tenten) -> None:
    """A misspelt key is an error that names the similar valid key."""
    with (here.directory / "tenten.toml").open("a") as file:
        file.write("adress_books = []\n")
    ended = here.run("config", "show")
    assert ended.code == 2
    assert "address_books" in ended.err


def test_local_status_without_servers_is_exit_code_3(here: Tenten) -> None:
    """Without running servers the addresses are null."""
    ended = here.run("local", "status", "--json")
    assert ended.code == 3
    assert ended.json == {"bootstrap_servers": None, "postgresql": None, "directory": str(here.directory / ".tenten")}


def test_unknown_failpoint_is_refused_at_the_start(here: Tenten) -> None:
    """A misspelt failpoint would never fire: the message lists the valid ones."""
    ended = here.run("channel", "run", "houston", TENTEN_FAILPOINT="relay.after_lunch")
    assert ended.code == 2
    assert "relay.after_ack" in ended.err


def test_doctor_without_a_broker_gives_advice(here: Tenten) -> None:
    """Each failed check has a line with the command that fixes it; exit code 3."""
    # when
    ended = here.run("doctor", "--json")
    # then
    assert ended.code == 3
    assert ended.json["healthy"] is False
    bad = {check["what"]: check["text"] for check in ended.json["checks"] if not check["ok"]}
    assert bad.keys() == {"broker", "database of houston"}
    assert "tenten local start" in bad["broker"]
    assert "tenten database upgrade" in bad["database of houston"]


def test_doctor_reports_a_missing_broker_and_ignored_credentials(here: Tenten) -> None:
    """Both a broker that does not answer and a user name without SASL are reported."""
    ended = here.run("doctor", "--kafka", "bootstrap.servers=127.0.0.1:1", "--kafka", "sasl.username=ada")
    assert ended.code == 3
    assert "FAIL broker: 127.0.0.1:1: no answer" in ended.out
    assert "security.protocol" in ended.out


def test_init_writes_a_configuration_once(here: Tenten) -> None:
    """Its stores can be used immediately; a second call is refused and changes nothing."""
    # when
    written = here.ok("init", "shop")
    shop = Tenten(directory=here.directory / "shop")
    again = here.run("init", "shop")
    # then
    assert "tenten up" in written.out
    assert (again.code, again.out) == (1, "")
    assert "exists" in again.err
    shop.ok("database", "upgrade", "channel", "seattle")
    assert shop.ok("customer", "create", "seattle", "--first-name", "Ada", "--json").json["status"] == "pending"
