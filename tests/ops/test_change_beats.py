"""What a change says of itself while it runs, and what the audit says of one that another machine planned."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.heartbeat import decode
from ops.changes.afar import state_of
from ops.changes.audit import Entry
from ops.changes.beat import ChangeBeat, Heard, beat_record, change_of, decode_beat, farewell_record

BEAT = ChangeBeat(
    change="ch-7f3ab", process="host/7", by="ana", state="running", done=1200, total=40_000, unit="offsets", rate=50.0
)


def test_a_beat_reads_back_and_a_farewell_is_of_its_change() -> None:
    assert decode_beat(*beat_record(BEAT)) == BEAT
    assert BEAT.progress == "1,200/40,000 offsets"
    key, value = farewell_record("ch-7f3ab")
    assert (change_of(key), value, decode_beat(key, value)) == ("ch-7f3ab", None, None)
    assert (Heard(BEAT, 40.0).is_fresh, Heard(BEAT, 40.1).is_fresh) == (True, False)


def test_whoever_reads_the_heartbeats_of_workers_passes_it_over() -> None:
    assert decode(beat_record(BEAT)[1]) is None


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.none()))


@given(st.one_of(st.none(), st.binary(max_size=30)), st.one_of(st.none(), st.binary(max_size=60)))
def test_bytes_that_are_no_beat_are_none(key: bytes | None, value: bytes | None) -> None:
    decode_beat(key, value)


@given(st.dictionaries(st.sampled_from(["process", "by", "state", "done", "total", "unit", "rate", "new"]), values))
def test_whatever_another_version_writes_reads_as_a_beat_that_can_be_shown_or_not_at_all(found: Any) -> None:
    import json

    for extra in ({}, {"process": "h/1", "by": "ana", "state": "paused"}):
        beat = decode_beat(b"change|ch-7f3ab", json.dumps(found | extra).encode())
        if extra and isinstance(found.get("unit", ""), str):
            assert beat is not None
        if beat is not None:
            assert beat.progress
            json.dumps(beat.rate, allow_nan=False)


def entry(phase: Any, after: dict[str, Any] | None = None) -> Entry:
    return Entry(
        change_id="ch-7f3ab", kind="replay", phase=phase, context="local", author="ana", reason="", plan_hash="00",
        summary="", before={}, after=after or {}, at=datetime.now(UTC),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        ([entry("proposed"), entry("approved")], "planned"),
        ([entry("planned")], "applying"),
        ([entry("planned"), entry("partly_applied")], "applying"),
        ([entry("planned"), entry("partly_applied", {"cancelled": True})], "cancelled"),
        ([entry("planned"), entry("partly_applied"), entry("planned"), entry("applied")], "applied"),
        ([entry("planned"), entry("failed")], "failed"),
    ],
)
def test_the_audit_says_where_a_change_of_another_machine_stands(entries: list[Entry], state: str) -> None:
    assert state_of(entries) == state
