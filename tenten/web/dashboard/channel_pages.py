"""Channels: their settings and keys, suspending and resuming, and the history of settings."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from tenten.headquarters_views.channels import find_channel
from tenten.identity.channel_changes import By
from tenten.identity.suspension import REASON_CHARACTERS_MAX, resume, suspend
from tenten.registry.history import list_history
from tenten.runtime.errors import TentenError
from tenten.sql.engine import consistent_view
from tenten.web.dashboard.access import Visitor
from tenten.web.dashboard.actions import Action
from tenten.web.dashboard.failures import NotFound
from tenten.web.dashboard.site import FormKey, Site

_PATH = "/channels"
_HISTORY_MAX = 50
_SOURCE = "dashboard"


def channel_routes(site: Site) -> APIRouter:
    """`/channels`, `/channels/{channel_id}` and what can be done with one."""
    router = APIRouter(include_in_schema=False)
    site.add_live_page(router, "channels.html", _PATH, "channels", lambda _, __: _values(site))

    @router.get(f"{_PATH}/{{channel_id}}")
    def one(request: Request, channel_id: str) -> Response:
        return _page(site, site.access.visitor(request), channel_id)

    @router.post(f"{_PATH}/{{channel_id}}/suspend")
    def begin(
        request: Request, channel_id: str, form_key: FormKey = "", reason: Annotated[str, Form()] = ""
    ) -> Response:
        visitor = site.access.operator(request, form_key)
        try:
            with site.actions.recorded(visitor, Action.SUSPEND, channel_id, reason.strip()[:REASON_CHARACTERS_MAX]):
                suspend(site.engine, channel_id, reason, By(source=_SOURCE, operator=visitor.name))
        except TentenError as refusal:
            return _page(site, visitor, channel_id, status=422, error=str(refusal))
        return site.done(f"{_PATH}/{channel_id}")

    @router.post(f"{_PATH}/{{channel_id}}/resume")
    def end(request: Request, channel_id: str, form_key: FormKey = "") -> Response:
        visitor = site.access.operator(request, form_key)
        with site.actions.recorded(visitor, Action.RESUME, channel_id):
            resume(site.engine, channel_id, By(source=_SOURCE, operator=visitor.name))
        return site.done(f"{_PATH}/{channel_id}")

    return router


def _values(site: Site) -> dict[str, Any]:
    snapshot = site.snapshots.current()
    with consistent_view(site.engine) as headquarters:
        history = list_history(headquarters, _HISTORY_MAX)
    return {
        "stores": sorted(snapshot.stores, key=lambda row: row.channel_id),
        "known": {} if snapshot.database is None else snapshot.database.channels,
        "history": history,
        "history_max": _HISTORY_MAX,
    }


def _page(site: Site, visitor: Visitor, channel_id: str, *, status: int = 200, error: str = "") -> Response:
    with consistent_view(site.engine) as headquarters:
        channel = find_channel(headquarters, channel_id)
    if channel is None:
        raise NotFound(f"Headquarters does not have a channel of the name {channel_id}.")
    row = next((row for row in site.snapshots.current().stores if row.channel_id == channel_id), None)
    values = {"channel": channel, "row": row, "error": error, "reason_max": REASON_CHARACTERS_MAX}
    return site.page(visitor, "channel.html", _PATH, status=status, **values)
