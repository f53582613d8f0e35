"""Ids that sort by time: RFC 9562's layout, and no two the same."""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from producers.uuid7 import uuid7


def test_it_is_a_version_7_uuid_in_the_usual_notation() -> None:
    for _ in range(200):
        text = uuid7()
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)


def test_its_first_48_bits_are_the_milliseconds_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(uuid7()).int >> 80
    assert before - 1 <= made <= time.time_ns() // 1_000_000 + 1


def test_ids_of_one_process_ascend_even_from_many_threads() -> None:
    ids = [uuid7() for _ in range(5_000)]
    assert ids == sorted(ids)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: [uuid7() for _ in range(1_000)], range(8)))
    assert all(run == sorted(run) for run in runs)
    assert len({one for run in runs for one in run}) == 8_000


def test_a_clock_that_steps_back_does_not_make_ids_descend(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600 * 10**9)
    assert uuid7() > first


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    uuid7()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "\n".join(uuid7()[-17:] for _ in range(100)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        theirs = set(stream.read().split("\n"))
    os.waitpid(child, 0)
    assert len(theirs) == 100
    assert not theirs & {uuid7()[-17:] for _ in range(100)}
