"""An unknown path in an event, from the store's outbox to the clerk: real relay, headquarters and settlement."""

from pathlib import Path

from sqlalchemy import update

from tenten.avro.wire import contract, encode
from tenten.producers import CustomerStatus, OpenChannel, create_customer, edit_customer, show_customer
from tenten.schemas.tables import channel
from tests.conftest import NewDatabase
from tests.faults.avro import decode
from tests.flow_scene import PARTS, rows, set_flow
from tests.waiting import wait_for


def add_path_by_hand(houston: OpenChannel, path: str) -> None:
    """Rewrite the only event in the outbox, as a newer release or an integrator's program might have written it."""
    (row,) = rows(houston, channel.outbox)
    event = decode("CustomerEvent", row["payload"])
    event["changed"].append(path)
    with houston.engine.begin() as connection:
        connection.execute(update(channel.outbox).values(payload=encode(contract("CustomerEvent"), event)))


def test_clerk_sees_the_unknown_path_and_the_next_change_is_synchronized(
    tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase
) -> None:
    """The customer is shown as rejected, with the path as the field; after the next change it has its number."""
    flow = set_flow(tmp_path, bootstrap_servers, prefix, new_database, "sqlite")
    with flow.opened() as houston:
        # given
        customer_id = create_customer(houston, first_name="Ada", last_name="Lovelace").customer_id
        add_path_by_hand(houston, "shoe_size")

        with flow.scene.headquarters(), flow.running(*PARTS):

            def has_status(status: CustomerStatus) -> bool:
                return show_customer(houston, customer_id).status is status

            # when
            wait_for(lambda: has_status(CustomerStatus.REJECTED), "the rejection")
            shown = show_customer(houston, customer_id)
            edit_customer(houston, customer_id, title="Dr.")
            wait_for(lambda: has_status(CustomerStatus.SYNCHRONIZED), "the account number")

        # then
        assert [(reason.field, reason.code) for reason in shown.reasons] == [("shoe_size", "unknown_path")]
        assert (shown.account_number, shown.state.first_name) == (None, "Ada")
        after = show_customer(houston, customer_id)
        assert (after.account_number, after.reasons, after.unsettled) == ("C-00000001", (), 0)
