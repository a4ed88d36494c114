"""Processes that run until a signal: signal handlers, threads, and ending with the parent process."""

import gc
import os
import signal
from collections.abc import Callable, Mapping
from threading import Event, Thread
from types import FrameType
from typing import Final

STOP_SECONDS_MAX: Final = 60.0
"""How long each thread may take to drain. Work that is left undone is done at the next start, as after a crash."""

_PARENT_CHECK_SECONDS: Final = 1.0


def stop_on_signals(ends_with: int | None = None) -> Event:
    """The event that SIGTERM, SIGINT, or the end of the parent process sets; a second SIGINT ends at once."""
    stop = Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if ends_with is not None:
        Thread(target=_watch_parent, args=(ends_with, stop), name="parent", daemon=True).start()
    return stop


def collect_rarely() -> None:
    """Tune the garbage collector for batch work: higher thresholds, and never the objects imported so far.

    A batch makes a hundred thousand objects that are in use; scanning them took a fifth of headquarters' time. Call it
    when a worker has imported what it needs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _watch_parent(parent: int, stop: Event) -> None:
    """Set `stop` when the supervisor has ended: one that was killed cannot send a signal."""
    while os.getppid() == parent and not stop.wait(_PARENT_CHECK_SECONDS):
        pass
    stop.set()


def run_together(parts: Mapping[str, Callable[[], None]], stop: Event) -> None:
    """Run the parts in threads until `stop` is set; when one of them fails, stop the others and raise its error.

    Each part must return soon after the event is set. A part that returns earlier also stops the others.
    """
    failures: list[BaseException] = []

    def run(part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the main thread
            failures.append(error)
        finally:
            stop.set()

    collect_rarely()
    threads = [Thread(target=run, args=(part,), name=name, daemon=True) for name, part in parts.items()]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(STOP_SECONDS_MAX)
    if failures:
        raise failures[0]
