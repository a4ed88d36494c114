"""Ask several servers at the same time, each in a thread, for a limited time."""

import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Final, Generic, TypeVar

ANSWER_SECONDS: Final = 3.5
"""How long servers may take to answer: a command that asks them ends within five seconds."""

T = TypeVar("T")
Key = TypeVar("Key")


class NoAnswer(Exception):
    """The server has not answered in time."""


class Question(Generic[T]):
    """A call in a thread. A thread that gets no answer is left behind; it does not keep the program running."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: T | None = None
        self._failure: Exception = NoAnswer()
        self._has_result = False
        self._thread = Thread(target=self._run, name="question", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
            self._has_result = True
        except Exception as failure:  # noqa: BLE001 - `answer` returns it
            self._failure = failure

    def answer(self, until: float) -> T | Exception:
        """The result or the error; `NoAnswer` if there is neither at this time (`time.monotonic`)."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return self._result if self._has_result else self._failure  # type: ignore[return-value]  # it has a result


def ask_side_by_side(calls: Mapping[Key, Callable[[], T]]) -> dict[Key, T | Exception]:
    """The result or the error of each call; `NoAnswer` for those that take longer than `ANSWER_SECONDS`."""
    until = time.monotonic() + ANSWER_SECONDS
    questions = {name: Question(call) for name, call in calls.items()}
    return {name: question.answer(until) for name, question in questions.items()}
