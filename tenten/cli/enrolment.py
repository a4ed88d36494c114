"""`tenten channel enroll`, `rotate-key`, `suspend` and `resume`: headquarters' side of a store's identity."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tenten.cli.options import Json, Operator, RegisteredChannel, examples
from tenten.cli.output import print_json, print_line, report
from tenten.cli.wiring import configured_without_options, headquarters_engine

if TYPE_CHECKING:
    from confluent_kafka.admin._scram import ScramMechanism

    from tenten.runtime.settings import Settings

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EXPIRY_MAX: Final = timedelta(days=30)
_SECRET_BYTES: Final = 32

Expires = Annotated[
    str,
    typer.Option("--expires", metavar="DURATION", help="How long the token can be used: 30m, 12h or 7d; at most 30d."),
]
NewPassword = Annotated[
    bool,
    typer.Option(
        "--new-password",
        help="Also give the store's user another password at Kafka, at once. Default: only a user that does not exist.",
    ),
]


def add_enrolment_commands(app: typer.Typer) -> None:
    """Add the commands to `tenten channel`."""

    @app.command(epilog=examples("tenten channel enroll dallas", "tenten channel enroll dallas --expires 7d --json"))
    def enroll(
        context: typer.Context,
        *,
        name: RegisteredChannel,
        expires: Expires = "1d",
        new_password: NewPassword = False,
        operator: Operator = None,
        json: Json = False,
    ) -> None:
        """Make a token with which a store joins, and print the command to type in the store.

        The token works once, for this channel only. A newer one replaces it. Headquarters keeps only what is needed to
        check it: it cannot be printed again. Where stores log in at Kafka with a password (SCRAM), the user is created
        with its privileges: give the properties of Kafka's administrator with --kafka.
        """
        _make_token(context, name, expires, new_password=new_password, operator=operator, json=json, rotates=False)

    @app.command(
        "rotate-key", epilog=examples("tenten channel rotate-key dallas", "tenten channel rotate-key dallas --json")
    )
    def rotate_key(
        context: typer.Context,
        *,
        name: RegisteredChannel,
        expires: Expires = "1d",
        new_password: NewPassword = False,
        operator: Operator = None,
        json: Json = False,
    ) -> None:
        """Make a token for another key of a store that has joined: on the same machine, or on a new one.

        The key before is valid until the store has joined with the token. A password at Kafka stays as it is, unless
        --new-password is given; a store on a new machine needs that.
        """
        _make_token(context, name, expires, new_password=new_password, operator=operator, json=json, rotates=True)

    @app.command(epilog=examples('tenten channel suspend dallas --why "till 3 was stolen"'))
    def suspend(
        context: typer.Context,
        *,
        name: RegisteredChannel,
        why: Annotated[str, typer.Option("--why", metavar="TEXT", show_default=False, help="The reason, for people.")],
        operator: Operator = None,
        json: Json = False,
    ) -> None:
        """Accept no more records of a channel, until `tenten channel resume`.

        The store keeps what it records, and sends it after that: nothing is lost. It still receives customers. To
        keep a stolen machine from reading, remove its user at Kafka. Idempotent.
        """
        from tenten.identity.channel_changes import By
        from tenten.identity.suspension import suspend as suspend_channel

        with headquarters_engine(context) as (_, engine):
            since = suspend_channel(engine, name, why, By(source="channel suspend", operator=operator))
        if json:
            print_json({"channel_id": name, "suspended_at": since, "reason": why.strip()})
        else:
            report(f"{name} is suspended. `tenten channel resume {name}` ends it")

    @app.command(epilog=examples("tenten channel resume dallas"))
    def resume(
        context: typer.Context, *, name: RegisteredChannel, operator: Operator = None, json: Json = False
    ) -> None:
        """Accept the records of a suspended channel again. The store sends what it has kept, at once. Idempotent."""
        from tenten.identity.channel_changes import By
        from tenten.identity.suspension import resume as resume_channel

        with headquarters_engine(context) as (_, engine):
            was_suspended = resume_channel(engine, name, By(source="channel resume", operator=operator))
        if json:
            print_json({"channel_id": name, "was_suspended": was_suspended})
        else:
            report(f"{name} is resumed" if was_suspended else f"{name} was not suspended")


def _make_token(
    context: typer.Context,
    name: str,
    expires: str,
    *,
    new_password: bool,
    operator: str | None,
    json: bool,
    rotates: bool,
) -> None:
    from tenten.identity.channel_changes import By
    from tenten.identity.enrolment import NewToken, check_enrolment, store_token
    from tenten.identity.headquarters_keys import ensure_headquarters_keys
    from tenten.identity.token import Token, encode_token
    from tenten.kafka.store_connection import store_properties
    from tenten.runtime.settings import Settings

    expires_at = datetime.now(UTC) + _duration(expires)
    source = "channel rotate-key" if rotates else "channel enroll"
    with headquarters_engine(context) as (settings, engine):
        is_ours = check_enrolment(engine, name, rotates=rotates)
        _check_user(context, settings, name)
        with engine.begin() as headquarters:
            own_key = ensure_headquarters_keys(headquarters)
        properties, secret = store_properties(settings), os.urandom(_SECRET_BYTES)
        must_set = new_password or (is_ours and not rotates)
        mechanism = _mechanism(settings, name, properties, must_set=must_set)
        has_password = mechanism is not None
        token = encode_token(
            Token(
                channel_id=name,
                secret=secret,
                headquarters_public_key=own_key.public_key,
                expires_at=expires_at,
                kafka={**properties, "sasl.username": name} if has_password else properties,
                has_password=has_password,
                prefix=settings.prefix,
                partitions=None
                if settings.partitions == Settings.model_fields["partitions"].default
                else settings.partitions,
                schema_registry_url=_without_user(settings.schema_registry_url),
            )
        )

        def make_user() -> None:
            if mechanism is not None:
                _make_user(settings, name, secret, mechanism)

        new = NewToken(channel_id=name, secret=secret, has_password=has_password, expires_at=expires_at)
        by = By(source=source, operator=operator)
        # The password comes last: an earlier one ends with it.
        token_id = store_token(engine, new, by, rotates=rotates, last=make_user)
    if json:
        print_json({"channel_id": name, "token": token, "token_id": token_id, "expires_at": expires_at})
        return
    report(f"This token is for {name} alone, works once, and expires at {expires_at:%Y-%m-%d %H:%M} UTC.")
    where = "its directory" if rotates else "an empty directory"
    report(f"Type in the store, in {where}, where its settings and its database will be:")
    print_line(f"tenten store join {token}")


def _check_user(context: typer.Context, settings: "Settings", name: str) -> None:
    """Refuse a channel whose user at Kafka would be one of headquarters': its password would end.

    Raises: `TentenError`.
    """
    from tenten.runtime.errors import TentenError

    # With --kafka the administrator's properties hide those of headquarters' workers.
    if name in {found.kafka.get("sasl.username") for found in (settings, configured_without_options(context))}:
        raise TentenError(
            f"{name} is the user with which headquarters itself logs in at Kafka: give headquarters a user of another "
            "name, or the channel"
        )


def _mechanism(
    settings: "Settings", name: str, properties: Mapping[str, str], *, must_set: bool
) -> "ScramMechanism | None":
    """The mechanism for which the store's user is to get the password that follows from the secret; None if it gets
    none. An existing user keeps its password, unless it `must_set`. Changes nothing.

    Raises: `SettingsError` for a name that a user of headquarters has; `KafkaRefused`, `KafkaException`.
    """
    from tenten.kafka.acls import users
    from tenten.kafka.store_connection import has_user, scram_mechanism
    from tenten.runtime.errors import KafkaRefused

    mechanism = scram_mechanism(properties)
    if mechanism is None:
        if properties.get("security.protocol", "").upper().startswith("SASL_"):
            report(
                "Stores log in at Kafka in a way for which tenten cannot make a user: add it to the store's tenten.toml"
            )
        return None
    users(settings, [name], only_channels=True)
    try:
        if not must_set and has_user(settings, name, mechanism):
            report(f"Kafka has the user {name} already: its password stays (--new-password changes it)")
            return None
    except KafkaRefused as refusal:
        raise KafkaRefused(_not_created(name, refusal)) from refusal
    return mechanism


def _make_user(settings: "Settings", name: str, secret: bytes, mechanism: "ScramMechanism") -> None:
    """Give the user its privileges, and then the password that follows from the secret.

    Raises: `KafkaRefused`, `KafkaException`.
    """
    from tenten.identity.join_proof import kafka_password
    from tenten.kafka.store_connection import set_password
    from tenten.runtime.errors import KafkaRefused

    try:
        _grant(settings, name)
        set_password(settings, name, mechanism, kafka_password(secret))
    except KafkaRefused as refusal:
        raise KafkaRefused(_not_created(name, refusal)) from refusal


def _not_created(name: str, refusal: Exception) -> str:
    return (
        f"the user {name} cannot be created at Kafka ({refusal}): give the properties of Kafka's administrator with "
        "--kafka"
    )


def _grant(settings: "Settings", name: str) -> None:
    """Give the user the privileges of a channel, where the brokers check any."""
    from tenten.kafka.acls import apply_acls, users
    from tenten.runtime.errors import KafkaRefused, TentenError

    try:
        added = apply_acls(settings, users(settings, [name], only_channels=True)).added
    except KafkaRefused:
        raise
    except TentenError as error:
        report(f"No privileges were granted to {name}: {error}")
    else:
        report(
            f"Kafka has the user {name}, with {len(added):,} new privileges; `tenten topics acls --quotas` sets quotas"
        )


def _duration(text: str) -> timedelta:
    """Raises: `typer.BadParameter`."""
    found = re.fullmatch("([1-9][0-9]{0,5})([smhd])", text.strip())
    duration = timedelta() if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})
    if not timedelta() < duration <= _EXPIRY_MAX:
        raise typer.BadParameter(
            f"{text!r} is not a duration such as 30m, 12h or 7d, at most 30d", param_hint="--expires"
        )
    return duration


def _without_user(url: str | None) -> str | None:
    """The address of a schema registry without user and password, which are headquarters' own."""
    if url is None:
        return None
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
