"""A store reports in the name of another one."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from tenten.sql.engine import open_database
from tenten.status import fleet, whole_status
from tenten.web.health.reads import HeartbeatReads
from tests.faults.avro import encode
from tests.faults.journal import Operation
from tests.hostile.target import Target

OWN: Final = 41
FORGED: Final = 666
"""The customers that a heartbeat reports."""


def heartbeat(channel: str, customers: int) -> Operation:
    """A heartbeat in this channel's name, not signed."""
    content = {"channel_id": channel, "release": "1", "sent_at": datetime.now(UTC), "customers": customers}
    return Operation(topic="channel-status", key=channel.encode(), value=encode("Heartbeat", content))


def test_store_cannot_report_in_the_name_of_another_store(target: Target) -> None:
    """Its own last heartbeat counts, and everything that reads heartbeats says that others were refused."""
    # given
    settings = target.scene.settings
    signatures = target.signatures
    own, forged = signatures["dallas"].sign(heartbeat("dallas", OWN)), heartbeat("dallas", FORGED)
    attacks = [
        signatures["houston"].sign(forged),
        forged,
        replace(forged, headers=own.headers),
        replace(signatures["houston"].sign(replace(forged, key=b"houston")), key=b"dallas"),
        signatures["houston"].sign(replace(forged, key=b"houston")),
        signatures["houston"].sign(replace(heartbeat("houston", FORGED), key=b"dallas")),
    ]
    target.attack(own)
    [before] = [row for row in fleet(settings) if row.channel_id == "dallas"]
    # when
    target.attack(signatures["houston"].sign(heartbeat("houston", OWN)), *attacks)
    # then
    rows = {row.channel_id: row for row in fleet(settings)}
    assert {name: rows[name].customers for name in ("dallas", "houston")} == {"dallas": OWN, "houston": OWN}
    assert "heartbeat_refused" not in {problem.code for problem in (*before.problems, *rows["houston"].problems)}
    assert "heartbeat_refused" in {problem.code for problem in rows["dallas"].problems}
    status = whole_status(settings)
    assert status.channels["dallas"].customers == OWN
    assert ("dallas", "heartbeat_refused") in {(*problem.about, problem.code) for problem in status.problems}
    engine = open_database(target.scene.url)
    heard = {
        sample.labels: sample.value
        for sample in HeartbeatReads(settings, engine).read()
        if sample.name == "tenten_channel_heard_timestamp_seconds"
    }
    engine.dispose()
    assert heard["dallas",] == before.heard_at.timestamp() if before.heard_at else False
    target.assert_unharmed()
