"""Prepare the next items of an iterable in a thread, for example batches while a training step computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yield the same items in the same order; a thread prepares up to `depth` of them in advance.

    Args:
        items: Iterated over in the thread.
        depth: Maximum number of prepared items that wait for the reader.

    Raises:
        MemoryError: The thread ended without the memory to report its own error.
        Exception: Of the iterable, after the items before it. If the reader stops early, the thread ends at its next
            item.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: Item | None, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def prepare() -> None:
        try:
            for item in items:
                if not offer(item, None):
                    return
        except BaseException as error:  # noqa: BLE001 (raised again by the reader)
            offer(None, error)
            return
        offer(None, StopIteration())

    thread = threading.Thread(target=prepare, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item, error = ready.get(timeout=1.0)
            except queue.Empty:
                if thread.is_alive() or not ready.empty():
                    continue
                # The thread ran out of memory while it passed on its own error.
                raise MemoryError("the thread that prepares batches has ended") from None
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
