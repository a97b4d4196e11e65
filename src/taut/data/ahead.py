"""Reading ahead in another thread, while the reader computes."""

import atexit
import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
LAST_WAIT = 5.0  # seconds that the end of the program waits for a thread

_running: dict[threading.Thread, threading.Event] = {}


def read_ahead(items: Iterator[Item], most: int) -> Iterator[Item]:
    """Make items in a thread of its own; it ends with its reader.

    Args:
        items: what to read. It must not refer to its reader, which would then never end.
        most: how many may wait, so that memory holds few of them.
    """
    ready: queue.Queue[Any] = queue.Queue(most)
    ended = threading.Event()

    def offer(item: Any) -> bool:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer((item, None)):
                    return
            offer((None, None))
        except BaseException as error:  # handed to the reader, who raises it
            offer((None, error))
        finally:
            _running.pop(thread, None)

    thread = threading.Thread(target=work, name="taut-read", daemon=True)
    _running[thread] = ended
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        ended.set()


def _end_all() -> None:
    """Stop before the interpreter does: a thread that it cuts off inside of Arrow aborts."""
    running = list(_running.items())
    for _, ended in running:
        ended.set()
    for thread, _ in running:
        thread.join(LAST_WAIT)


atexit.register(_end_all)
