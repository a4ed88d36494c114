"""The rules that a till uses import no column library: it costs a second of CPU and 80 MB."""

import subprocess
import sys
from pathlib import Path

RULES = Path(__file__).parents[2] / "tenten" / "rules"


def test_only_columnar_rules_import_polars() -> None:
    """All modules of the rules but `*_columns` can be imported without polars."""
    names = [f"tenten.rules.{path.stem}" for path in RULES.glob("*.py") if not path.stem.endswith("_columns")]
    program = (
        f"import sys, importlib; [importlib.import_module(name) for name in {names}]; print('polars' in sys.modules)"
    )

    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert imported.stdout.strip() == "False"
