"""Fork processes of an earlier release; run as a program, with that release alone on the path.

    PYTHONPATH=<unpacked wheel> python -P serve_released.py <tests/forked.py>

The release is imported by name: its folders have the names of this checkout's.
"""

import gc
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

IMPORTED: Final = (
    "alembic.command",
    "psycopg",
    "pyarrow",
    "operations.cli.main",
    "operations.status",
    "commerce.logs",
    "producers.relay",
    "consumers.settlement",
    "consumers.distribution.run",
    "consumers.headquarters.run",
    "consumers.transactions.run",
)
"""Imported once, also what the release imports lazily: it starts no thread and opens no connection."""


def main() -> None:
    """Serve requests of `tests.forked.ForkServer`."""
    for name in IMPORTED:
        import_module(name)
    release = Path(import_module("operations").__file__ or "").parents[1]
    assert str(release) == sys.path[0], f"{release} was imported in place of {sys.path[0]}"
    gc.collect()
    gc.freeze()
    spec = spec_from_file_location("forked", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    forked = module_from_spec(spec)
    # Dataclasses and the like look their module up.
    sys.modules["forked"] = forked
    spec.loader.exec_module(forked)
    forked.serve()


if __name__ == "__main__":
    main()
