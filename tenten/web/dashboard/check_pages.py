"""Resyncs, verifications and unfinished commands; and what operators did."""

from typing import Any

from fastapi import APIRouter

from tenten.headquarters_views.verifications import list_unfinished, list_verifications
from tenten.sql.engine import consistent_view
from tenten.web.dashboard.actions import list_actions
from tenten.web.dashboard.site import Site

_ACTIONS_MAX = 500


def check_routes(site: Site) -> APIRouter:
    """`/checks` and `/actions`."""
    router = APIRouter(include_in_schema=False)
    site.add_live_page(router, "checks.html", "/checks", "checks stores", lambda _, __: _checks(site))
    site.add_live_page(router, "actions.html", "/actions", "actions", lambda _, __: _actions(site))
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


def _actions(site: Site) -> dict[str, Any]:
    with consistent_view(site.engine) as headquarters:
        done = list_actions(headquarters, _ACTIONS_MAX)
    return {"done": done, "actions_max": _ACTIONS_MAX, "days": site.settings.headquarters.actions_days}
