"""Hostile writers' schemas neither end nor freeze a reader."""

import os
from pathlib import Path
from typing import Final

from tests.forked import ended_with_block, fork_program
from tests.hostile.foreign_writers import CPU_SECONDS

RECORDS: Final = 200
SEED: Final = 66


def test_records_of_hostile_schemas_are_read_or_refused_with_little_time_and_memory(tmp_path: Path) -> None:
    """Endless lists, depth, recursion, giant types, other types than the contract's, and two hundred random ones."""
    log = tmp_path / "log"
    program = fork_program(
        "from tests.hostile.foreign_writers import main; main()",
        str(RECORDS),
        str(SEED),
        directory=tmp_path,
        log=log,
        # A reader of the client library writes a trace for each record that it cannot read.
        environment={**os.environ, "RUST_BACKTRACE": "0"},
    )
    with ended_with_block(program) as process:
        code = process.wait(3 * CPU_SECONDS)
    printed = log.read_text()
    assert code == 0, printed[-3_000:]
    refused, tried = map(int, printed.splitlines()[-1].split()[1::2])
    assert min(refused, tried) > RECORDS // 10
