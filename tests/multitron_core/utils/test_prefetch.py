"""`prefetch`: order, exceptions, and the end of its thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from multitron_core.utils.prefetch import prefetch


def test_prefetch_preserves_the_order() -> None:
    assert list(prefetch(range(100))) == list(range(100))
    assert list(prefetch([])) == []


def test_prefetch_raises_after_the_items_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    reader = prefetch(items())
    assert next(reader) == 1
    with pytest.raises(ValueError, match="broken"):
        next(reader)


def test_prefetch_prepares_at_most_depth_items() -> None:
    started: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            started.append(number)
            yield number

    reader = prefetch(items(), depth=3)
    assert next(reader) == 0
    threading.Event().wait(0.3)  # time enough to prepare all items
    assert len(started) <= 1 + 3 + 1, "one read, three prepared, one that waits for a place"
    reader.close()


def test_prefetch_ends_its_thread_when_closed() -> None:
    before = set(threading.enumerate())  # threads of other tests may end meanwhile
    reader = prefetch(iter(range(10**9)))
    next(reader)
    (started,) = set(threading.enumerate()) - before
    assert started.is_alive()
    reader.close()
    assert not started.is_alive()


def test_prefetch_reports_a_thread_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a patched queue fails at exactly this place: a thread that cannot even pass on its error.
    def put(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    monkeypatch.setattr(queue.Queue, "put", put)
    with pytest.raises(MemoryError, match="the thread that prepares batches has ended"):
        list(prefetch([1]))
