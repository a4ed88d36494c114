"""The end of day: what it would list, closing it, and how its statement fares."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tenten.producers.till.end_of_day import EndOfDayView, close_day, list_days, resend_day
from tenten.producers.till.transaction_draft import today
from tenten.producers.till.transaction_views import TransactionView, list_transactions, show_transaction
from tenten.rules.limits import is_guid
from tenten.rules.transaction_rules import control_totals
from tenten.runtime.errors import NoSuchTransaction
from tenten.schemas.messages import Reason, TransactionKind
from tenten.web.store_screen.screen import Posted, Screen

_DAYS_SHOWN: Final = 30
_NUMBERED_MAX: Final = 200
_SALES_MAX: Final = 1_000
_WORD: Final = re.compile("[0-9a-f-]{36}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDay:
    """The sales of today that no end of day lists yet."""

    sales: int
    totals: Mapping[tuple[str, str], Decimal]
    """By currency and payment method."""


def day_routes(screen: Screen) -> APIRouter:
    """The routes of the end of day."""
    router = APIRouter(dependencies=[Depends(screen.session)], include_in_schema=False)
    AForm = Annotated[Posted, Depends(screen.posted)]  # noqa: N806 - a type

    @router.get("/day")
    def day(request: Request) -> Response:
        """Today and the days before."""
        channel = screen.channel()
        now = today(channel)
        numbers = day_numbers(screen)
        days = list_days(channel, _DAYS_SHOWN)
        template = "day_part.html" if "x-fragment" in request.headers else "day.html"
        return screen.show(
            request,
            template,
            today=now,
            open=_open_day(screen),
            closed=[each for each in days if each.business_date == now],
            earlier=[each for each in days if each.business_date != now],
            numbers=numbers,
            sales_of=partial(named_sales, screen),
        )

    @router.post("/day/close")
    def close(posted: AForm) -> Response:
        """Close today."""
        close_day(screen.channel(), operator=posted.operator)
        return screen.done("/day", "closed")

    @router.post("/day/{end_of_day_id}/resend")
    def resend(end_of_day_id: str, posted: AForm) -> Response:  # noqa: ARG001 - it checks the form
        """Send a rejected end of day again."""
        resend_day(screen.channel(), end_of_day_id)
        return screen.done("/day", "resent")

    return router


def _open_day(screen: Screen) -> OpenDay:
    channel = screen.channel()
    views = list_transactions(channel, TransactionKind.CASH_AND_CARRY, business_date=today(channel), limit=_SALES_MAX)
    unlisted = [view.transaction for view in views if view.end_of_day_id is None]
    totals = control_totals((sale.currency, sale.payments) for sale in unlisted)
    return OpenDay(
        sales=len(unlisted), totals={(total.currency, total.payment_method): total.amount for total in totals}
    )


def day_numbers(screen: Screen) -> dict[str, int]:
    """Which end of its date each is, from 1, as headquarters numbers them; by id."""
    numbers: dict[str, int] = {}
    counts: Counter[date] = Counter()
    for day in reversed(list_days(screen.channel(), _NUMBERED_MAX)):
        counts[day.business_date] += 1
        numbers[day.end_of_day_id] = counts[day.business_date]
    return numbers


def named_sales(screen: Screen, day: EndOfDayView) -> list[tuple[Reason, TransactionView | None]]:
    """The reasons of an end of day, each with the sale that it names: those that are missing at headquarters, or that
    it cannot post.
    """
    return [(reason, _sale(screen, reason)) for reason in day.reasons]


def _sale(screen: Screen, reason: Reason) -> TransactionView | None:
    for word in _WORD.findall(f"{reason.field} {reason.text}"):
        if is_guid(word):
            try:
                return show_transaction(screen.channel(), word)
            except NoSuchTransaction:
                continue
    return None
