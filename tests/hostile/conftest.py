"""One running headquarters for all attacks."""

from collections.abc import Iterator
from secrets import token_hex

import pytest

from tests.databases import create_from_template, drop_database
from tests.faults.processes import worker_process
from tests.hostile.target import Target, target_of
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, set_scene
from tests.signed import Keys


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory, bootstrap_servers: str, postgresql: str) -> Iterator[Target]:
    """A customers worker and a transactions worker, which all attacks share: none may stop them."""
    name = token_hex(6)
    url = create_from_template(postgresql, f"t{name}", "headquarters")
    scene = set_scene(tmp_path_factory.mktemp("hostile"), bootstrap_servers, f"t{name}-", url, erasing=("munich",))
    keys = Keys(url=url)
    signatures = {channel: keys.join(channel) for channel in LEGAL_ENTITY_BY_CHANNEL}
    with worker_process(scene) as customers, worker_process(scene, group="transactions") as transactions:
        yield target_of(scene, (customers, transactions), signatures)
    drop_database(postgresql, f"t{name}")
