import queue
import threading
from collections.abc import Iterator

import pytest

from multitron_core.utils.prefetch import prefetch


def test_items_come_in_order():
    assert list(prefetch(range(100))) == list(range(100))
    assert list(prefetch([])) == []


def test_an_error_comes_at_its_place():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    reader = prefetch(items())
    assert next(reader) == 1
    with pytest.raises(ValueError, match="broken"):
        next(reader)


def test_a_reader_that_stops_ends_the_thread():
    before = set(threading.enumerate())  # threads of other tests may end meanwhile
    reader = prefetch(iter(range(10**9)))
    next(reader)
    (started,) = set(threading.enumerate()) - before
    assert started.is_alive()
    reader.close()
    assert not started.is_alive()


def test_a_thread_without_memory_for_its_last_word_is_not_waited_for(monkeypatch):
    def put(*arguments: object, **settings: object) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    monkeypatch.setattr(queue.Queue, "put", put)
    with pytest.raises(MemoryError, match="the thread that prepares batches has ended"):
        list(prefetch([1]))
