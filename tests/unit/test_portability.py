"""Store code runs where Unix-only modules do not exist."""

import subprocess
import sys

_IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules.update({"pwd": None, "fcntl": None, "grp": None, "resource": None, "termios": None})
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
print("imported")
"""

_STORE_PACKAGES = ("tenten.sql", "tenten.runtime", "tenten.kafka", "tenten.producers", "tenten.consumers.channel")


def test_store_packages_import_no_unix_module() -> None:
    """Every module that a store runs can be imported without `pwd` and `fcntl`, as on Windows."""
    # when
    imported = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, *_STORE_PACKAGES], capture_output=True, text=True, check=False
    )

    # then
    assert imported.stdout == "imported\n", imported.stderr
