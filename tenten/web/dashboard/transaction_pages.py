"""Orders, sales and statements: what waits or is blocked, why, and for which customer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection, select
from starlette.responses import Response

from tenten.headquarters_views import statements, transactions
from tenten.headquarters_views.list_positions import ListPosition
from tenten.headquarters_views.statements import NoSuchStatement, Statement, find_statement, list_statements
from tenten.headquarters_views.transactions import find_transaction, list_transactions
from tenten.rules.limits import is_guid
from tenten.runtime.errors import NoSuchTransaction
from tenten.schemas.tables.headquarters import retail_transactions
from tenten.sql.arrays import is_one_of
from tenten.sql.engine import consistent_view
from tenten.web.dashboard.failures import NotFound
from tenten.web.dashboard.paging import Paged, page_of
from tenten.web.dashboard.site import Site

_PATH = "/transactions"
_TABS = {"statements": statements.STATUSES, "orders": transactions.STATUSES}


def transaction_routes(site: Site) -> APIRouter:
    """`/transactions`, `/transactions/{transaction_id}` and `/statements/{channel}/{day}/{number}`."""
    router = APIRouter(include_in_schema=False)
    site.add_live_page(router, "transactions.html", _PATH, "transactions", lambda request, _: _values(site, request))

    @router.get(f"{_PATH}/{{transaction_id}}")
    def one(request: Request, transaction_id: str) -> Response:
        visitor = site.access.visitor(request)
        try:
            with consistent_view(site.engine) as headquarters:
                found = find_transaction(headquarters, transaction_id)
        except NoSuchTransaction as missing:
            raise NotFound(str(missing)) from missing
        return site.page(visitor, "transaction.html", _PATH, sold=found)

    @router.get("/statements/{channel}/{day}/{number}")
    def statement(request: Request, channel: str, day: date, number: int) -> Response:
        visitor = site.access.visitor(request)
        try:
            with consistent_view(site.engine) as headquarters:
                found = find_statement(headquarters, channel, day, number)
                customers = _customers(headquarters, _named(found.reasons))
        except NoSuchStatement as missing:
            raise NotFound(str(missing)) from missing
        return site.page(visitor, "statement.html", _PATH, statement=found, customers=customers)

    return router


def _values(site: Site, request: Request) -> dict[str, Any]:
    asked = request.query_params
    tab = "orders" if asked.get("tab") == "orders" else "statements"
    status = asked.get("status", "") if asked.get("status") in _TABS[tab] else ""
    channel = asked.get("channel") or None
    days: Paged[Statement] | None = None
    sold: Paged[transactions.TransactionAtHeadquarters] | None = None
    with consistent_view(site.engine) as headquarters:
        if tab == "statements":
            days = page_of(
                request,
                _PATH,
                parse=ListPosition.parse,
                read=lambda behind, count: list_statements(
                    headquarters, channel=channel, status=status or None, statements_max=count, behind=behind
                ),
                position=lambda found: ListPosition(found.received_at, found.statement_id),
            )
            # Blocked ones need a person.
            days = replace(days, rows=sorted(days.rows, key=lambda found: found.status != "blocked"))
        else:
            sold = page_of(
                request,
                _PATH,
                parse=ListPosition.parse,
                read=lambda behind, count: list_transactions(
                    headquarters, channel=channel, status=status or None, transactions_max=count, behind=behind
                ),
                position=lambda found: ListPosition(found.received_at, found.transaction_id),
            )
        named = [key for found in ([] if days is None else days.rows) for key in _named(found.reasons)]
        customers = _customers(headquarters, named)
    return {
        "tab_name": tab,
        "status": status,
        "statuses": _TABS[tab],
        "channel": channel or "",
        "channels": [row.channel_id for row in sorted(site.snapshots.current().stores, key=lambda row: row.channel_id)],
        "days": days,
        "sold": sold,
        "customers": customers,
    }


def _named(reasons: Iterable[Mapping[str, str]]) -> list[str]:
    """The transactions that the reasons of a statement name."""
    return [reason["field"] for reason in reasons if is_guid(reason["field"])]


def _customers(headquarters: Connection, ids: Sequence[str]) -> dict[str, str]:
    """The customer of each of these transactions that headquarters has received and that has one."""
    columns = retail_transactions.c
    query = select(columns.transaction_id, columns.customer_id).where(
        is_one_of(headquarters, columns.transaction_id, ids), columns.customer_id.is_not(None)
    )
    return {row.transaction_id: row.customer_id for row in headquarters.execute(query)} if ids else {}
