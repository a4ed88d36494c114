"""Resyncs, verifications and unfinished commands; and what operators did."""

from typing import Any

from fastapi import APIRouter, Request

from tenten.headquarters_views.verifications import list_unfinished, list_verifications
from tenten.sql.engine import consistent_view
from tenten.web.dashboard.actions import list_actions
from tenten.web.dashboard.paging import page_of
from tenten.web.dashboard.site import Site


def check_routes(site: Site) -> APIRouter:
    """`/checks` and `/actions`."""
    router = APIRouter(include_in_schema=False)
    site.add_live_page(router, "checks.html", "/checks", "checks stores", lambda _, __: _checks(site))
    site.add_live_page(router, "actions.html", "/actions", "actions", lambda request, _: _actions(site, request))
    return router


def _checks(site: Site) -> dict[str, Any]:
    snapshot = site.snapshots.current()
    with consistent_view(site.engine) as headquarters:
        verifications, unfinished = list_verifications(headquarters), list_unfinished(headquarters)
    limit = site.settings.alarms.incomplete_seconds_max
    behind = [
        row
        for row in snapshot.stores
        if row.loading is not None
        or row.complete_at is None
        or (snapshot.taken_at - row.complete_at).total_seconds() > limit
    ]
    return {
        "verifications": verifications,
        "unfinished": unfinished,
        "verify_hours": site.settings.headquarters.verify_hours,
        "behind": behind,
        "kept": [row for row in snapshot.stores if any(problem.code == "surplus_kept" for problem in row.problems)],
        "customers": verifications[0].customers if verifications else None,
        "hears": snapshot.kafka.heard is not None,
    }


def _actions(site: Site, request: Request) -> dict[str, Any]:
    with consistent_view(site.engine) as headquarters:
        done = page_of(
            request,
            "/actions",
            parse=int,
            read=lambda behind, count: list_actions(headquarters, count, behind),
            position=lambda row: row.action_id,
        )
    return {"done": done, "days": site.settings.headquarters.actions_days}
