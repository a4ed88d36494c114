"""Dead letters: list them, look at one, replay or discard it."""

import json
from collections import Counter
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from fastapi import APIRouter, Request
from starlette.responses import Response

from tenten.avro.wire import Unreadable, contract
from tenten.consumers.headquarters.dead_letters import DeadLetter, find_dead_letter, record_decision, replay
from tenten.kafka.schema_registry import writer_schemas
from tenten.rules.unreadable_reasons import UNREADABLE_REASONS
from tenten.runtime.errors import NoSuchDeadLetter, TentenError
from tenten.runtime.settings import Settings
from tenten.schemas.topics import ALL, DEAD_LETTERS_OF, Topic
from tenten.web.dashboard.access import Visitor
from tenten.web.dashboard.actions import Action
from tenten.web.dashboard.failures import NotFound
from tenten.web.dashboard.masking import masked, plain
from tenten.web.dashboard.paging import page_of
from tenten.web.dashboard.site import FormKey, Site
from tenten.web.dashboard.watch import Letter

_PATH = "/dead-letters"
_ONE: Final = f"{_PATH}/{{topic}}/{{partition}}/{{offset}}"
_HEX_BYTES_MAX: Final = 4_096
_LINE_BYTES: Final = 16


def dead_letter_routes(site: Site) -> APIRouter:
    """`/dead-letters` and the pages and actions of one."""
    router = APIRouter(include_in_schema=False)
    site.add_live_page(router, "dead_letters.html", _PATH, "letters", lambda request, _: _values(site, request))

    @router.get(_ONE)
    def shown(request: Request, topic: str, partition: int, offset: int) -> Response:
        visitor = site.access.visitor(request)
        return _page(site, visitor, _find(site, topic, partition, offset), is_open=False)

    @router.post(f"{_ONE}/content")
    def content(request: Request, topic: str, partition: int, offset: int, form_key: FormKey = "") -> Response:
        visitor = site.access.operator(request, form_key)
        letter = _find(site, topic, partition, offset)
        with site.actions.recorded(visitor, Action.SHOW_DEAD_LETTER, letter.position):
            return _page(site, visitor, letter, is_open=True)

    @router.post(f"{_ONE}/replay")
    def send_again(request: Request, topic: str, partition: int, offset: int, form_key: FormKey = "") -> Response:
        visitor = site.access.operator(request, form_key)
        letter = _find(site, topic, partition, offset)
        with site.actions.recorded(visitor, Action.REPLAY, letter.position):
            if not replay(site.settings, site.engine, [letter]):
                raise TentenError("Only the beginning of its record was kept, so it cannot be replayed.")
        return site.done(_PATH)

    @router.get(f"{_ONE}/discard")
    def confirm(request: Request, topic: str, partition: int, offset: int) -> Response:
        visitor = site.access.operator_of_page(request)
        return site.page(visitor, "discard.html", _PATH, letter=_find(site, topic, partition, offset))

    @router.post(f"{_ONE}/discard")
    def discard(request: Request, topic: str, partition: int, offset: int, form_key: FormKey = "") -> Response:
        visitor = site.access.operator(request, form_key)
        letter = _find(site, topic, partition, offset)
        with site.actions.recorded(visitor, Action.DISCARD, letter.position):
            record_decision(site.settings, site.engine, [letter], "discarded")
        return site.done(_PATH)

    return router


def _values(site: Site, request: Request) -> dict[str, Any]:
    every = request.query_params.get("show") == "all"
    snapshot = site.snapshots.current()
    letters = snapshot.letters if every else None if snapshot.letters is None else snapshot.open_letters
    reason = request.query_params.get("reason", "")
    reasons = Counter(found.letter.reason for found in letters or ())
    known = [found for found in letters or () if not reason or found.letter.reason == reason]
    paged = page_of(
        request,
        _PATH,
        parse=_Place.parse,
        read=lambda behind, count: [found for found in known if behind is None or _Place.of(found.letter) < behind][
            :count
        ],
        position=lambda found: _Place.of(found.letter),
    )
    return {
        "every": every,
        "letters": paged,
        "is_read": letters is not None,
        "reason": reason,
        "reasons": reasons.most_common(),
        "remedies": {code: entry.remedy for code, entry in UNREADABLE_REASONS.items()},
    }


class _Place(NamedTuple):
    """The place of a dead letter in the list."""

    failed_at: datetime
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return "~".join((self.failed_at.isoformat(), self.topic, str(self.partition), str(self.offset)))

    @classmethod
    def of(cls, letter: Letter) -> Self:
        return cls(letter.failed_at, letter.topic.name, letter.partition, letter.offset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: `ValueError`."""
        time, topic, partition, offset = text.split("~")
        failed_at = datetime.fromisoformat(time)
        if failed_at.tzinfo is None:
            raise ValueError(text)
        return cls(failed_at, topic, int(partition), int(offset))


def _find(site: Site, topic_name: str, partition: int, offset: int) -> DeadLetter:
    """Raises: `NotFound`; as `find_dead_letter`."""
    topic = next((topic for topic in DEAD_LETTERS_OF.values() if topic.name == topic_name), None)
    if topic is None:
        raise NotFound(f"{topic_name} is not a topic of dead letters.")
    try:
        return find_dead_letter(site.settings, site.engine, topic, partition, offset)
    except NoSuchDeadLetter as missing:
        raise NotFound("There is no such dead letter, or it has expired.") from missing


def _page(site: Site, visitor: Visitor, letter: DeadLetter, *, is_open: bool) -> Response:
    value = letter.value or b""
    record = _decoded(site.settings, letter) if visitor.is_operator else None
    values: dict[str, Any] = {
        "letter": letter,
        "is_open": is_open,
        "remedy": UNREADABLE_REASONS.get(letter.reason),
        "value_bytes": len(value),
        "dump": _dump(value[:_HEX_BYTES_MAX]) if is_open else [],
        "is_cut": len(value) > _HEX_BYTES_MAX,
        "record": None
        if record is None
        else json.dumps(plain(record) if is_open else masked(record), indent=2, ensure_ascii=False),
        "key_text": (letter.key or b"").decode(errors="backslashreplace") if is_open else None,
        "headers": [
            (name, (text or b"").decode(errors="backslashreplace"))
            for name, text in letter.headers
            if is_open or name.startswith(("__connect.errors.", "x-dlq-"))
        ],
    }
    return site.page(visitor, "dead_letter.html", _PATH, **values)


def _decoded(settings: Settings, letter: DeadLetter) -> Any:
    """The record, if this release can read it now: it may have been another release, or a schema that came late."""
    read = _read_topic(letter.topic)
    try:
        return writer_schemas(settings).decode(letter.value or b"", contract(read.value))
    except Unreadable:
        return None


def _read_topic(dead_letters: Topic) -> Topic:
    """The topic whose dead letters these are."""
    return next(topic for topic in ALL if DEAD_LETTERS_OF.get(topic.name) == dead_letters)


def _dump(value: bytes) -> list[tuple[str, str, str]]:
    """Offset, bytes in hexadecimal, and the ASCII characters among them, by line."""
    lines = [value[start : start + _LINE_BYTES] for start in range(0, len(value), _LINE_BYTES)]
    return [
        (
            f"{number * _LINE_BYTES:04x}",
            line.hex(" "),
            "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in line),
        )
        for number, line in enumerate(lines)
    ]
