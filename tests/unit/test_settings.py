"""Settings: loading, precedence, and the messages for mistakes."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tenten.runtime.errors import SettingsError
from tenten.runtime.settings import Settings, load_settings, masked
from tenten.runtime.settings.load import parsed
from tenten.schemas.messages import CustomerType, ReceiptPreference
from tenten.schemas.topics import ASYNC_CUSTOMERS

COMPLETE = """
prefix = "test-"
data = "servers"

[kafka]
"bootstrap.servers" = "127.0.0.1:9092"
"sasl.password" = "secret of the broker"
linger.ms = 5
"enable.ssl.certificate.verification" = true

[headquarters]
database = "postgresql://hq:secret-of-hq@127.0.0.1/headquarters"

[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = { format = "C-########", next = 1, continuous = true }

[channels.houston]
legal_entity = "usrt"
address_books = ["US"]
database = "sqlite:///houston.db"

[channels.seattle]
legal_entity = "usrt"
database = "postgresql://tenten@127.0.0.1/seattle?password=secret-of-seattle"
default_customer = { customer_type = "organization", receipt_preference = "email", affiliations = ["club"] }
"""

LEGAL_ENTITY = """
[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = { format = "C-########" }
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the environment of the test run, and any tenten.toml in its directory."""
    for name in (
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
        "SCHEMA_REGISTRY_URL",
        "TENTEN_HEADQUARTERS_URL",
        "TENTEN_CONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes tenten.toml in a directory other than the working directory."""

    def to_file(text: str) -> Path:
        file = tmp_path / "store" / "tenten.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return to_file


def _refusal(file: Path) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(file)
    return str(refused.value)


def test_file_is_read_with_its_defaults(write: Callable[[str], Path]) -> None:
    """Values of the file are typed; omitted settings have their defaults."""
    # when
    settings = load_settings(write(COMPLETE))

    # then
    houston, seattle = settings.channel("houston"), settings.channel("seattle")
    assert (houston.legal_entity, houston.address_books) == ("usrt", ("US",))
    assert houston.default_customer.customer_type is CustomerType.PERSON
    assert houston.default_customer.affiliations == ()
    assert seattle.address_books == ()
    assert seattle.default_customer.customer_type is CustomerType.ORGANIZATION
    assert seattle.default_customer.receipt_preference is ReceiptPreference.EMAIL
    assert settings.legal_entity_of("houston").account_numbers.format == "C-########"
    assert settings.legal_entity_of("houston").account_numbers.continuous
    assert settings.headquarters.batch_records_max == 10_000
    assert settings.headquarters.dead_letters_in_a_row_max == 1_000
    assert settings.schema_registry_url is None


def test_kafka_properties_are_text_however_they_are_written(write: Callable[[str], Path]) -> None:
    """Names with dots may be quoted or not, numbers and truth values become what librdkafka reads."""
    # when
    kafka = load_settings(write(COMPLETE)).kafka

    # then
    assert kafka == {
        "bootstrap.servers": "127.0.0.1:9092",
        "sasl.password": "secret of the broker",
        "linger.ms": "5",
        "enable.ssl.certificate.verification": "true",
    }


def test_names_in_kafka_begin_with_the_prefix(write: Callable[[str], Path]) -> None:
    """Topics, groups and transactional ids of two installations on one cluster stay apart."""
    # when
    settings = load_settings(write(COMPLETE))

    # then
    assert settings.topic(ASYNC_CUSTOMERS) == "test-async-customers"
    assert settings.channel_group("houston") == "test-channel.houston"
    assert settings.transactional_id("headquarters", 3) == "test-headquarters-3"


def test_relative_paths_start_at_the_file(write: Callable[[str], Path], tmp_path: Path) -> None:
    """From whatever directory a command is run, it finds the same data and the same SQLite files."""
    # when
    settings = load_settings(write(COMPLETE))

    # then
    assert settings.data == tmp_path / "store" / "servers"
    assert settings.channel("houston").database == f"sqlite:///{tmp_path}/store/houston.db"


def test_absolute_sqlite_path_is_unchanged(write: Callable[[str], Path]) -> None:
    """Four slashes make a path absolute, as in SQLAlchemy."""
    # when
    settings = load_settings(write(COMPLETE.replace("sqlite:///houston.db", "sqlite:////var/lib/houston.db")))

    # then
    assert settings.channel("houston").database == "sqlite:////var/lib/houston.db"


def test_option_precedes_environment_and_environment_precedes_file(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source overrides only the settings that it has."""
    # given
    file = write('schema_registry_url = "http://file:8081"\n' + COMPLETE)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:9092")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "secret of the environment")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://environment:8081")
    monkeypatch.setenv("TENTEN_HEADQUARTERS_URL", "postgresql://environment/headquarters")

    # when
    settings = load_settings(file, kafka={"bootstrap.servers": "flag:9092"})

    # then
    assert settings.kafka["bootstrap.servers"] == "flag:9092"
    assert settings.kafka["sasl.password"] == "secret of the environment"
    assert settings.kafka["linger.ms"] == "5"
    assert settings.schema_registry_url == "http://environment:8081"
    assert settings.headquarters_database() == "postgresql://environment/headquarters"


def test_file_is_found_by_environment_then_in_the_working_directory(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`TENTEN_CONFIG` names the file; without it tenten.toml of the working directory is read."""
    # given
    file = write('prefix = "named-"')
    (tmp_path / "tenten.toml").write_text('prefix = "here-"', encoding="utf-8")

    # when
    here = load_settings()
    monkeypatch.setenv("TENTEN_CONFIG", str(file))
    named = load_settings()

    # then
    assert (here.prefix, named.prefix) == ("here-", "named-")


def test_environment_without_file_suffices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a file the environment and the defaults apply; an empty variable counts as unset."""
    # given
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:9092")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "")

    # when
    settings = load_settings()

    # then
    assert settings.kafka == {"bootstrap.servers": "environment:9092"}
    assert settings.schema_registry_url is None
    assert settings.data == tmp_path / ".tenten"
    assert settings.channels == {}


def test_configured_file_must_exist(tmp_path: Path) -> None:
    """A configured file that does not exist is an error, not an empty file."""
    assert _refusal(tmp_path / "nowhere.toml") == f"{tmp_path}/nowhere.toml cannot be read: No such file or directory"


def test_invalid_toml_is_refused(write: Callable[[str], Path]) -> None:
    """The message has the line of the mistake."""
    assert "is not valid TOML" in _refusal(write("prefix = \n"))
    assert "line 1" in _refusal(write("prefix = \n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('perfix = "x"', "perfix: unknown setting; did you mean prefix?"),
        ('[headquarters]\nprefix = "x"', "headquarters.prefix: unknown setting in this table"),
        ("[headquarters]\nbatch = 1", "headquarters.batch: unknown setting"),
        ("[headquarters]\nbatch_records_max = 0", "headquarters.batch_records_max: input should be greater than"),
        ("kafka = 1", "kafka: write a table, [kafka]"),
        ('prefix = "a b"', "prefix: use letters, digits, . - and _"),
        ('[http]\norigins = ["*"]', "http.origins.0: write each origin, such as https://till.example.com"),
        ('[http]\ncertificate = "store.crt"', "http: certificate and key belong together"),
        ('schema_registry_url = "registry:8081"', "schema_registry_url: write an address like http://127.0.0.1:8081"),
        ("[legal_entities.usrt]", "legal_entities.usrt.country: is missing; legal_entities.usrt.currency: is missing"),
        (LEGAL_ENTITY.replace('"US"', '"USA"'), "country: write the two letters of ISO 3166, for example US"),
        (LEGAL_ENTITY.replace('"USD"', '"usd"'), "currency: write the three letters of ISO 4217, for example USD"),
        (LEGAL_ENTITY.replace("C-########", "C-"), "C-########"),
        (LEGAL_ENTITY.replace("C-########", "#-#"), "C-########"),
        (LEGAL_ENTITY.replace('########"', '##", next = 100'), "next = 100 has more digits than the format C-##"),
        (LEGAL_ENTITY.replace("usrt", '"US RT"'), "use lowercase letters, digits, - and _, at most 64"),
    ],
)
def test_invalid_setting_is_named_with_its_correction(write: Callable[[str], Path], text: str, sentence: str) -> None:
    """The message names the setting, what to write instead, and the file."""
    # when
    refusal = _refusal(write(text))

    # then
    assert sentence in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("postgres://127.0.0.1/houston", "write plain postgresql:// or sqlite:// instead of postgres://"),
        ("postgresql+psycopg://127.0.0.1/houston", "write plain postgresql:// or sqlite://"),
        ("houston.db", "write postgresql://user@host/database or sqlite:///file.db"),
        ("sqlite://", "write the path of a file"),
        ("sqlite:///:memory:", "write the path of a file"),
        ("postgresql://hq:secret-of-hq@127.0.0.1/headquarters", "headquarters has the same"),
        (
            "postgresql://tenten@127.0.0.1/seattle?password=secret-of-seattle",
            "has the same database; each needs its own",
        ),
    ],
)
def test_invalid_database_address_is_refused(write: Callable[[str], Path], address: str, sentence: str) -> None:
    """Every channel has its own plain address; messages never show an address, as it may contain a password."""
    # when
    refusal = _refusal(write(COMPLETE.replace("sqlite:///houston.db", address)))

    # then
    assert sentence in refusal
    assert "secret" not in refusal


def test_headquarters_needs_postgresql(write: Callable[[str], Path]) -> None:
    """SQLite is refused for headquarters."""
    # when
    refusal = _refusal(write('[headquarters]\ndatabase = "sqlite:///hq.db"'))

    # then
    assert "headquarters needs PostgreSQL; write postgresql://user@host/database" in refusal


def test_unknown_legal_entity_of_a_channel_is_refused(write: Callable[[str], Path]) -> None:
    """The message lists the declared legal entities."""
    # when
    refusal = _refusal(write(COMPLETE.replace('legal_entity = "usrt"', 'legal_entity = "ustr"', 1)))

    # then
    assert (
        "channels.houston.legal_entity: unknown legal entity ustr (known: usrt); add [legal_entities.ustr]" in refusal
    )


@pytest.mark.parametrize("name", ["headquarters", "Houston", "-houston", '"store 1"', "h" * 65])
def test_invalid_channel_name_is_refused(write: Callable[[str], Path], name: str) -> None:
    """Channel names fit keys, groups and paths; `headquarters` is reserved."""
    assert "channels." in _refusal(write(COMPLETE.replace("channels.houston", f"channels.{name}")))


def test_unknown_channel_error_lists_known_channels(write: Callable[[str], Path]) -> None:
    """A misspelt channel on the command line is answered with the known names."""
    # given
    settings = load_settings(write(COMPLETE))

    # when
    with pytest.raises(SettingsError) as refused:
        settings.channel("huston")

    # then
    assert str(refused.value) == "unknown channel huston; known channels: houston, seattle"


def test_missing_headquarters_database_error_has_advice() -> None:
    """The error says where to configure it; a store needs none."""
    # when
    with pytest.raises(SettingsError) as refused:
        load_settings().headquarters_database()

    # then
    assert "set TENTEN_HEADQUARTERS_URL or `database` of [headquarters] in tenten.toml" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("sasl.jaas.config", "write sasl.username and sasl.password"),
        ("ssl.truststore.location", "write ssl.ca.location, the path of a PEM file"),
        ("max.poll.records", "write batch_records_max in [headquarters]"),
        ("key.serializer", "remove it"),
    ],
)
def test_java_property_error_names_the_replacement(write: Callable[[str], Path], name: str, advice: str) -> None:
    """Properties copied from a Java client are answered with their replacement, from the file and from an option."""
    # when
    from_file = _refusal(write(f'[kafka]\n"{name}" = "secret"'))
    with pytest.raises(SettingsError) as refused:
        load_settings(kafka={name: "secret"})

    # then
    for refusal in (from_file, str(refused.value)):
        assert f"kafka: {name} is a property of Java clients only: {advice}" in refusal
        assert "secret" not in refusal


def test_masked_settings_hide_only_secrets(write: Callable[[str], Path]) -> None:
    """`config show` prints no password, in whatever setting."""
    # given
    file = write('schema_registry_url = "https://tenten:secret-of-registry@registry:8081"\n' + COMPLETE)
    kafka = {"ssl.key.pem": "secret key", "sasl.oauthbearer.client.secret": "secret", "sasl.username": "houston"}

    # when
    shown = masked(load_settings(file, kafka=kafka))

    # then
    assert "secret" not in str(shown).replace("client.secret", "")
    assert shown["kafka"]["bootstrap.servers"] == "127.0.0.1:9092"
    assert shown["kafka"]["sasl.username"] == "houston"
    assert shown["kafka"]["sasl.password"] == "********"
    assert shown["headquarters"]["database"] == "postgresql://hq:********@127.0.0.1/headquarters"
    assert shown["schema_registry_url"] == "https://tenten:********@registry:8081"
    assert shown["channels"]["seattle"]["default_customer"]["receipt_preference"] == "EMAIL"


def test_repr_of_settings_contains_no_secret(write: Callable[[str], Path]) -> None:
    """A log line or a traceback with the whole settings shows no password."""
    assert "secret" not in repr(load_settings(write(COMPLETE)))


def test_settings_are_immutable(write: Callable[[str], Path]) -> None:
    """Loaded settings cannot be assigned to."""
    # given
    settings = load_settings(write(COMPLETE))

    # when
    with pytest.raises(ValueError, match="frozen"):
        settings.prefix = "other-"

    # then
    assert settings.prefix == "test-"


def test_settings_built_by_a_program_are_validated() -> None:
    """A program may build settings without a file; the same rules apply."""
    # when
    settings = Settings.model_validate({"prefix": "p-"})

    # then
    assert settings.data == Path.cwd() / ".tenten"
    with pytest.raises(ValueError, match="use letters, digits"):
        Settings.model_validate({"prefix": "a b"})


def test_further_properties_come_from_the_environment(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TENTEN_KAFKA is a JSON object; options take precedence over it, and a message never shows its content."""
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "first")
    monkeypatch.setenv("TENTEN_KAFKA", '{"sasl.password": "second", "linger.ms": 7}')
    assert load_settings(write(COMPLETE)).kafka["sasl.password"] == "second"
    settings = load_settings(write(COMPLETE), kafka={"sasl.password": "third"})
    assert (settings.kafka["sasl.password"], settings.kafka["linger.ms"]) == ("third", "7")
    monkeypatch.setenv("TENTEN_KAFKA", "hunter2")
    with pytest.raises(SettingsError, match="TENTEN_KAFKA") as refused:
        load_settings(write(COMPLETE))
    assert "hunter2" not in str(refused.value)


def test_long_file_is_read_as_a_short_one() -> None:
    """Another parser reads it; the settings are the same, and so is the message for a mistake."""
    # given
    more = "".join(f'[channels.store{number}]\nlegal_entity = "usrt"\n' for number in range(50))
    padding = "# " + "\u00e9" * 100_000 + "\n"
    short, long = COMPLETE + more, padding + COMPLETE + more
    values = (
        'a = [1, -9223372036854775808, 1e3, 0x1F]\nb = { c = """x\ny""", "d.e" = \'C:\\\' }\nf.g = inf\nnull = "null"\n'
    )
    # when
    documents = [parsed(short), parsed(long)]
    with pytest.raises(ValueError, match="line 2, column 10") as mistake:
        parsed(padding + "prefix = = 1")
    # then
    assert documents[0] == documents[1]
    assert parsed(padding + values) == parsed(values)
    assert isinstance(mistake.value, tomllib.TOMLDecodeError)
