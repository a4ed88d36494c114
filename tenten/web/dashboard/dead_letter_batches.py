"""Dead letters of one reason, replayed or discarded together: after a page that says how many, exactly those."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from tenten.consumers.headquarters.dead_letters import DeadLetter, list_dead_letters, record_decision, replay
from tenten.runtime.errors import TentenError
from tenten.schemas.topics import DEAD_LETTERS_OF
from tenten.web.dashboard.access import Visitor
from tenten.web.dashboard.actions import Action
from tenten.web.dashboard.failures import NotFound
from tenten.web.dashboard.site import FormKey, Site
from tenten.web.dashboard.watch import Letter

LETTERS_MAX: Final = 200
"""At once: the oldest that match."""

_PATH: Final = "/dead-letters"
_ACTIONS: Final = {"replay": Action.REPLAY, "discard": Action.DISCARD}

What = Literal["replay", "discard"]


def dead_letter_batch_routes(site: Site) -> APIRouter:
    """`/dead-letters/replay` and `/dead-letters/discard`."""
    router = APIRouter(include_in_schema=False)

    @router.get(f"{_PATH}/{{what}}")
    def confirm(request: Request, what: What, reason: str = "") -> Response:
        visitor = site.access.operator_of_page(request)
        matching = _matching(site, what, reason)
        if not matching:
            raise NotFound(f"No open dead letter of this reason is left to {what}.")
        values: dict[str, Any] = {
            "what": what,
            "reason": reason,
            "matching": len(matching),
            "letters": [_name(letter) for letter in matching[:LETTERS_MAX]],
        }
        return site.page(visitor, "dead_letter_batch.html", _PATH, **values)

    @router.post(f"{_PATH}/{{what}}")
    def act(
        request: Request,
        what: What,
        form_key: FormKey = "",
        reason: Annotated[str, Form()] = "",
        letter: Annotated[list[str] | None, Form()] = None,
    ) -> Response:
        """Those of the page that are still open: others that have come meanwhile were not seen."""
        visitor = site.access.operator(request, form_key)
        site.snapshots.expire()
        named = {*(letter or ())}
        wanted = [found for found in _matching(site, what, reason) if _name(found) in named][:LETTERS_MAX]
        _act(site, visitor, what, _read(site, wanted))
        return site.done(_PATH)

    return router


def _name(letter: Letter | DeadLetter) -> str:
    return f"{letter.topic.name}/{letter.partition}/{letter.offset}"


def _matching(site: Site, what: What, reason: str) -> Sequence[Letter]:
    """The open dead letters of this reason with which this can be done, the oldest first."""
    opened = [found.letter for found in reversed(site.snapshots.current().open_letters)]
    return [letter for letter in opened if letter.reason == reason and not (what == "replay" and letter.is_cut)]


def _read(site: Site, wanted: Iterable[Letter]) -> list[DeadLetter]:
    """The same with their contents. Raises: as `list_dead_letters`."""
    names = {_name(letter) for letter in wanted}
    topics = {letter.topic.name for letter in wanted}
    return [
        letter
        for topic in DEAD_LETTERS_OF.values()
        if topic.name in topics
        for letter in list_dead_letters(site.settings, site.engine, topic)
        if _name(letter) in names and letter.decision == "open"
    ]


def _act(site: Site, visitor: Visitor, what: What, letters: Sequence[DeadLetter]) -> None:
    """Each is recorded as an action. Raises: as `replay`; `TentenError` if none is left."""
    if not letters:
        raise TentenError(f"none of these dead letters is open any more: there was nothing to {what}")
    with ExitStack() as actions:
        for letter in letters:
            actions.enter_context(site.actions.recorded(visitor, _ACTIONS[what], letter.position))
        if what == "replay":
            replay(site.settings, site.engine, letters)
        else:
            record_decision(site.settings, site.engine, letters, "discarded")
