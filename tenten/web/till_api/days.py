"""Operations on business days."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from tenten.producers.till.documents import end_of_day_document
from tenten.producers.till.end_of_day import EndOfDayView, close_day, list_days, resend_day, show_day
from tenten.schemas.messages import TransactionStatus
from tenten.web.till_api import examples, headers
from tenten.web.till_api.cursors import cursor, position_of
from tenten.web.till_api.customers import Cursor, Limit
from tenten.web.till_api.document import Document
from tenten.web.till_api.exact_json import ExactRoute
from tenten.web.till_api.inputs import ChangeInput, Day
from tenten.web.till_api.openapi import header, with_headers
from tenten.web.till_api.outputs import DayOutput, EndsOfDayOutput, answer, refusals
from tenten.web.till_api.till import Till

_DAY: Final = {"business_date": "2026-03-02", "ends_of_day": [examples.END_OF_DAY]}


def day_routes(till: Till) -> APIRouter:
    """The routes below /v1/days."""
    router = APIRouter(prefix="/v1/days", tags=["days"], route_class=ExactRoute)

    @router.post(
        "/{business_date}/close",
        operation_id="close_day",
        responses={200: answer(DayOutput, _DAY, "The new end of day, or the last one."), **refusals(415)},
        openapi_extra=with_headers(header(headers.OPERATOR, "the person who closes it, if the body has no `operator`")),
    )
    async def close(
        request: Request, business_date: Annotated[Day, Path()], body: ChangeInput | None = None
    ) -> Response:
        """Close a business date: an end of day lists its new sales. The first one is written also without sales, a
        further one only with some.
        """
        in_body = None if body is None else body.operator
        with headers.operator_named(request, in_body):
            operator = headers.operator(request, in_body)
            return Document(_day(business_date, await till.write(close_day, business_date, operator=operator)))

    @router.post(
        "/{business_date}/resend",
        operation_id="resend_day",
        responses={200: answer(DayOutput, _DAY, "The ends of day of this date, the newest first."), **refusals()},
    )
    async def resend(business_date: Annotated[Day, Path()]) -> Response:
        """Send the ends of day of a business date again that headquarters has rejected; others are unchanged."""
        for end in await till.call(show_day, business_date):
            if end.status is TransactionStatus.REJECTED:
                await till.write(resend_day, end.end_of_day_id)
        return Document(_day(business_date, await till.call(show_day, business_date)))

    @router.get(
        "/{business_date}",
        operation_id="show_day",
        responses={200: answer(DayOutput, _DAY, "The ends of day of this date, the newest first."), **refusals()},
    )
    async def show(business_date: Annotated[Day, Path()]) -> Response:
        """The ends of day of a business date; none while it is open."""
        return Document(_day(business_date, await till.call(show_day, business_date)))

    @router.get(
        "",
        operation_id="list_days",
        responses={
            200: answer(EndsOfDayOutput, {"ends_of_day": [examples.END_OF_DAY], "next_cursor": None}, "Newest first."),
            **refusals(),
        },
    )
    async def list_(limit: Limit = 50, cursor: Cursor = None) -> Response:
        """List the ends of day of all dates, the newest first."""
        return Document(_page(await till.call(list_days, limit, position_of(cursor)), limit))

    return router


def _day(business_date: date, ends: Sequence[EndOfDayView]) -> dict[str, Any]:
    return {"business_date": business_date.isoformat(), "ends_of_day": [end_of_day_document(end) for end in ends]}


def _page(ends: Sequence[EndOfDayView], limit: int) -> dict[str, Any]:
    following = cursor(ends[-1].end_of_day_id) if len(ends) == limit else None
    return {"ends_of_day": [end_of_day_document(end) for end in ends], "next_cursor": following}
