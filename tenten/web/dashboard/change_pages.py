"""Changes of customers that headquarters has rejected, or cannot judge yet; a held one can be rejected."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from tenten.consumers.headquarters.customers.held_decisions import reject_held
from tenten.headquarters_views.held import held_status, list_held
from tenten.headquarters_views.list_positions import ListPosition
from tenten.headquarters_views.rejections import count_rejected, list_rejected
from tenten.rules.reason_codes import REASON_CODES
from tenten.runtime.errors import TentenError
from tenten.sql.engine import consistent_view
from tenten.web.dashboard.access import Visitor
from tenten.web.dashboard.actions import Action
from tenten.web.dashboard.failures import NotFound
from tenten.web.dashboard.paging import page_of
from tenten.web.dashboard.site import FormKey, Site

_PATH = "/changes"
_DAYS = (1, 7, 30, 365)


def change_routes(site: Site) -> APIRouter:
    """`/changes` and the form that rejects a held event."""
    router = APIRouter(include_in_schema=False)
    site.add_live_page(router, "changes.html", _PATH, "changes", lambda request, _: _values(site, request))

    @router.get(f"{_PATH}/held/{{event_id}}/reject")
    def form(request: Request, event_id: str) -> Response:
        visitor = site.access.operator_of_page(request)
        return _form(visitor, event_id)

    def _form(visitor: Visitor, event_id: str, *, status: int = 200, error: str = "", reason: str = "") -> Response:
        with consistent_view(site.engine) as headquarters:
            held = list_held(headquarters, channel=None, code=None, older_than_seconds=0, events_max=10_000)
        event = next((event for event in held if event.event_id == event_id), None)
        if event is None:
            raise NotFound("Headquarters does not hold this event, or not any more.")
        values = {"event": event, "error": error, "reason": reason}
        return site.page(visitor, "reject.html", _PATH, status=status, **values)

    @router.post(f"{_PATH}/held/{{event_id}}/reject")
    def reject(
        request: Request, event_id: str, form_key: FormKey = "", reason: Annotated[str, Form()] = ""
    ) -> Response:
        visitor = site.access.operator(request, form_key)
        reason = reason.strip()
        if not reason:
            return _form(visitor, event_id, status=422, error="Give a reason: the clerk in the store reads it.")
        try:
            with site.actions.recorded(visitor, Action.REJECT_HELD, event_id, reason):
                reject_held(site.engine, [event_id], reason, visitor.name)
        except TentenError as refusal:
            return _form(visitor, event_id, status=422, error=str(refusal), reason=reason)
        return site.done(f"{_PATH}?tab=held")

    return router


def _values(site: Site, request: Request) -> dict[str, Any]:
    asked = request.query_params
    tab = "held" if asked.get("tab") == "held" else "rejected"
    channel, code = asked.get("channel") or None, asked.get("code") or None
    days = next((days for days in _DAYS if asked.get("days") == str(days)), 7)
    with consistent_view(site.engine) as headquarters:
        held = rejected = None
        if tab == "held":
            held = page_of(
                request,
                _PATH,
                parse=ListPosition.parse,
                read=lambda behind, count: list_held(
                    headquarters, channel=channel, code=code, older_than_seconds=0, events_max=count, behind=behind
                ),
                position=lambda event: ListPosition(event.held_at, event.event_id),
            )
        else:
            rejected = page_of(
                request,
                _PATH,
                parse=ListPosition.parse,
                read=lambda behind, count: list_rejected(
                    headquarters, channel=channel, code=code, days=days, events_max=count, behind=behind
                ),
                position=lambda event: ListPosition(event.received_at, event.event_id),
            )
        status = held_status(headquarters)
        counts = count_rejected(headquarters, days=days)
    codes = {count.code for count in counts} if tab == "rejected" else {cause.code for cause in status.causes}
    return {
        "tab_name": tab,
        "channel": channel or "",
        "code": code or "",
        "days": days,
        "days_options": [(str(days), f"{days} days" if days > 1 else "1 day") for days in _DAYS],
        "channels": [row.channel_id for row in sorted(site.snapshots.current().stores, key=lambda row: row.channel_id)],
        "codes": sorted({*codes, *([code] if code else [])}),
        "held": held,
        "held_status": status,
        "rejected": rejected,
        "counts": counts,
        "rejected_total": sum(count.events for count in counts),
        "remedies": {code: entry.remedy for code, entry in REASON_CODES.items()},
    }
