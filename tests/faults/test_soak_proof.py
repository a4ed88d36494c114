"""The judgement at the end of a soak run finds what clerks entered and nobody has, processes that end, and leaks."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults.evidence import ChannelTables, Evidence, HeadquartersTables, SalesTables
from tests.faults.soak_run import proof
from tests.faults.soak_run.clerks import Books
from tests.faults.soak_run.program import Life, Program
from tests.waiting import wait_for

ADA = "00000000-0000-4000-8000-000000000001"


def evidence(*, title: str = "Dr.", in_dallas: bool = True, orders: int = 1, posted: int = 1) -> Evidence:
    """A customer of houston with an order and a sale, at headquarters and in the stores."""
    states: dict[str, Any] = {ADA: {"first_name": "Ada", "title": title}}
    order, sale = {"transaction_id": "order"}, {"transaction_id": "sale"}
    sales = SalesTables(
        transactions={},
        sequences={},
        orders=(order,) * orders,
        order_lines=(),
        statements={},
        listed=(),
        statement_lines=(sale,) * posted,
        replies_due=(),
    )
    headquarters = HeadquartersTables(
        customers={ADA: {"legal_entity": "usrt"}},
        states=states,
        log={},
        sequences={},
        positions=(),
        held=(),
        sales=sales,
    )
    stores = {
        name: ChannelTables(customers={}, states=shown, outbox=(), queue=frozenset(), positions=())
        for name, shown in {
            "houston": states,
            "dallas": states if in_dallas else {},
            "munich": {},
            "vienna": {},
        }.items()
    }
    return Evidence(committed={}, open_transactions=(), headquarters=headquarters, group_offsets={}, channels=stores)


def books() -> dict[str, Books]:
    """The books of the clerk of houston."""
    own = Books(orders=["order"], sales=["sale"])
    own.customers[ADA] = {"first_name": "Ada", "title": "Dr."}
    return {"houston": own}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (evidence(), []),
        (evidence(title="Prof."), ["headquarters", "houston", "dallas"]),
        (evidence(in_dallas=False), ["dallas"]),
    ],
)
def test_last_values_that_a_clerk_entered_are_everywhere(found: Evidence, expected: list[str]) -> None:
    """At headquarters and in each store of the legal entity; customers that were erased are not compared."""
    sentences = [*proof.customers_are_as_entered(books(), (), found)]
    assert [sentence.split()[1] for sentence in sentences] == expected
    assert [*proof.customers_are_as_entered(books(), {ADA}, found)] == []


@pytest.mark.parametrize(("found", "violations"), [(evidence(), 0), (evidence(orders=2), 1), (evidence(posted=0), 1)])
def test_orders_and_sales_are_booked_once(found: Evidence, violations: int) -> None:
    """An order that is two sales orders, and a sale in no statement, are found."""
    assert len([*proof.sales_are_recorded(books(), found)]) == violations


@pytest.mark.parametrize(
    ("grown_mib", "seconds", "violations"), [(10, 600, 0), (proof.GROWTH_BYTES_MAX // 2**20 + 1, 600, 1), (500, 120, 0)]
)
def test_memory_that_grows_is_found(tmp_path: Path, grown_mib: int, seconds: int, violations: int) -> None:
    """Only in processes that lived long enough; what a process needs in its first minute does not count."""
    life = Life(samples=[(5.0, 50 * 2**20)])
    life.samples += [
        (float(second), 100 * 2**20 + grown_mib * 2**20 * (second > seconds // 2)) for second in range(60, seconds, 5)
    ]
    life.samples.append((float(seconds), life.samples[-1][1]))
    program = Program(name="houston", words=("channel",), directory=tmp_path, environment={}, lives=[life])
    assert len([*proof.memory_that_grows([program])]) == violations


def test_ends_that_nobody_caused_are_noted(tmp_path: Path) -> None:
    """A kill and an allowed refusal are none; any other end is, and each time the process is started again."""
    code = (
        "import pathlib, time\n"
        "script = pathlib.Path('next').read_text()\n"
        "print(script, flush=True)\n"
        "time.sleep(600) if script == 'run' else exit(1)\n"
    )
    program = Program(name="store", words=(), directory=tmp_path, environment={}, code=code)

    def start(script: str) -> None:
        (tmp_path / "next").write_text(script)
        lives = len(program.lives)

        def has_started() -> bool:
            program.look_after()
            return len(program.lives) > lives

        program.is_wanted = True
        wait_for(has_started, script)
        program.is_wanted = False
        wait_for(lambda: script in program.log.read_text(), script)

    def has_ended() -> bool:
        if program.is_running():
            return False
        program.look_after()
        return True

    start("run")
    program.kill()
    wait_for(has_ended, "the end")
    assert (program.ends, program.kills) == ([], 1)
    program.may_refuse = ("tenten headquarters recover",)
    start("run `tenten headquarters recover`")
    wait_for(has_ended, "the refusal")
    assert (program.ends, program.refusals) == ([], 1)
    start("it has failed")
    wait_for(has_ended, "the failure")
    assert ("it has failed" in program.ends[0], program.refusals) == (True, 1)
