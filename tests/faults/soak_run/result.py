"""The result of a run as a document: docs/explanation/soak.json has that of the last long run."""

import json
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.evidence import Evidence
from tests.faults.soak_run.clerks import Books
from tests.faults.soak_run.company import Company
from tests.faults.soak_run.proof import first_and_last, longest_life

_ROOT = Path(__file__).parents[3]


def result_of(
    company: Company,
    books: Mapping[str, Books],
    evidence: Evidence,
    violations: Sequence[str],
    *,
    seed: int,
    seconds: int,
) -> dict[str, Any]:
    """The document."""
    calls = sum((own.calls for own in books.values()), Counter[str]())
    sales = evidence.headquarters.sales
    programs = company.programs.values()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "seed": seed,
        "seconds": seconds,
        "operations": dict(sorted(calls.items())),
        "repeated_calls": sum(own.repeated for own in books.values()),
        "faults": dict(sorted(company.faults.items())),
        "kills": {program.name: program.kills for program in programs},
        "customers": len(evidence.headquarters.customers),
        "customers_erased": sum(row["erased_at"] is not None for row in evidence.headquarters.customers.values()),
        "events": len(evidence.headquarters.log),
        "sales_orders": len(sales.orders),
        "sales": len(sales.statement_lines),
        "statements": len(sales.statements),
        "numbers_lost_by_restore": sum(len(holes) for holes in company.holes.values()),
        "memory_mib": {program.name: _memory(program.lives) for program in programs if program.lives},
        "violations": len(violations),
    }


def _memory(lives: list[Any]) -> dict[str, int]:
    life = longest_life(lives)
    if not life.samples:
        return {}
    first, last = first_and_last(life)
    return {"seconds": round(life.seconds), "first": first >> 20, "last": last >> 20}


def _commit() -> str:
    asked = ("git", "-C", str(_ROOT), "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*")
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def write_result(file: Path, document: Mapping[str, Any]) -> None:
    """Write the document."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
