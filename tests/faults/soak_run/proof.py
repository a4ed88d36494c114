"""The proof at the end of a run: what is wrong, as sentences."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Final

from tests.faults.checker import violations
from tests.faults.evidence import Evidence, gather
from tests.faults.soak_run.clerks import LAST_NAME, Books
from tests.faults.soak_run.company import STORES, Company
from tests.faults.soak_run.program import Life, Program

LIFE_SECONDS_MIN: Final = 300.0
"""The memory of a process that was killed earlier is not judged."""

WARM_SECONDS: Final = 60.0
"""After this time a process has seen everything that it keeps."""

GROWTH_BYTES_MAX: Final = 64 * 1024**2
"""A first resync, long after the start, needs most of it; an hour of lost objects is more."""


def gathered(company: Company) -> Evidence:
    """The evidence of headquarters and of all stores."""
    databases = {store: company.database(store) for store in STORES}
    scene = company.scene
    evidence = gather(scene.bootstrap_servers, scene.prefix, scene.url, databases)
    evidence.earlier = {topic: tuple(records) for topic, records in company.earlier.items()}
    return evidence


def found_wrong(company: Company, books: Mapping[str, Books], erased: Collection[str], evidence: Evidence) -> list[str]:
    """Every violation, of the invariants and of the clerks' books."""
    setting = replace(company.setting, holes=company.holes)
    return [
        *violations(evidence, company.scene.journal, setting),
        *holes_are_explained(company),
        *customers_are_as_entered(books, erased, evidence),
        *sales_are_recorded(books, evidence),
        *_personal_data_in_logs(company),
        *company.ends(),
        *memory_that_grows(company.programs.values()),
    ]


def holes_are_explained(company: Company) -> Iterator[str]:
    """I3: a number without a customer was assigned, and no store was ever told about it."""
    for entity, holes in company.holes.items():
        unexplained = sorted(holes - company.lost_numbers[entity])
        if unexplained:
            yield f"I3: {entity} has lost the numbers {unexplained[:10]}, which the database before did not have alone"


def customers_are_as_entered(books: Mapping[str, Books], erased: Collection[str], evidence: Evidence) -> Iterator[str]:
    """I7: at headquarters and in every store of the legal entity: the last value of each field that a clerk entered.

    The checker has compared the customers that were erased.
    """
    entities = {name: row["legal_entity"] for name, row in evidence.headquarters.customers.items()}
    for store, own in books.items():
        for customer_id, fields in own.customers.items():
            if customer_id in erased:
                continue
            if entities.get(customer_id) != STORES[store]:
                yield f"I7: headquarters lacks customer {customer_id} of {store}"
                continue
            places = {"headquarters": evidence.headquarters.states}
            places |= {name: evidence.channels[name].states for name in STORES if STORES[name] == STORES[store]}
            for place, states in places.items():
                state = states.get(customer_id, {})
                wrong = sorted(name for name, value in fields.items() if state.get(name) != value)
                if wrong:
                    yield f"I7: {place} has customer {customer_id} with other {wrong} than {store} has entered"


def sales_are_recorded(books: Mapping[str, Books], evidence: Evidence) -> Iterator[str]:
    """T1, T2, T4: each order is one sales order, and each sale in one statement."""
    sales = evidence.headquarters.sales
    ordered = [str(row["transaction_id"]) for row in sales.orders]
    posted = [str(row["transaction_id"]) for row in sales.statement_lines]
    for what, recorded, booked in (
        ("order", [order for own in books.values() for order in own.orders], ordered),
        ("sale", [sale for own in books.values() for sale in own.sales], posted),
    ):
        if sorted(recorded) != sorted(booked):
            odd = sorted({*recorded} ^ {*booked})
            yield f"T: {len(recorded)} times {what} was recorded, {len(booked)} times booked; {odd[:3]} differ"


def _personal_data_in_logs(company: Company) -> Iterator[str]:
    """I12."""
    for program in company.programs.values():
        if LAST_NAME in program.log.read_text(errors="replace"):
            yield f"I12: the log of {program.name} has the name of a customer"


def memory_that_grows(programs: Iterable[Program]) -> Iterator[str]:
    """A process whose memory grows after its first minute."""
    for program in programs:
        for life in program.lives:
            if life.seconds >= LIFE_SECONDS_MIN:
                first, last = first_and_last(life)
                if last - first > GROWTH_BYTES_MAX:
                    grown = f"from {first >> 20} to {last >> 20} MiB in {life.seconds:.0f} s"
                    yield f"memory: {program.name} has grown {grown}"


def first_and_last(life: Life) -> tuple[int, int]:
    """The memory of a process when it was warm, and in the end: medians of a tenth of its samples, in bytes."""
    warm = [size for seconds, size in life.samples if seconds >= WARM_SECONDS] or [size for _, size in life.samples]
    part = max(1, len(warm) // 10)
    return int(median(warm[:part])), int(median(warm[-part:]))


def longest_life(lives: list[Life]) -> Life:
    """The life that was watched for the longest time."""
    return max(lives, key=lambda life: life.seconds)
