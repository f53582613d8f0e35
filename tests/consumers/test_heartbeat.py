"""Heartbeats: what was written comes back, and nothing that anybody writes makes a reader fail."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connection import ConnectionView
from consumers.heartbeat import (
    BYTES_MAX,
    Heartbeat,
    Held,
    SubscriptionView,
    decode,
    encode,
    farewell_record,
    heartbeat_record,
)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.floats(0, 4e9)
counts = st.integers(0, 1 << 53)
helds = st.builds(
    Held,
    origin=names,
    why=st.sampled_from(["retry", "busy", "schema", "parked", "letter"]),
    since=times,
    waiting=counts,
    reason=texts,
    due=st.none() | times,
)
some_held = st.lists(helds, max_size=3).map(tuple)
subscriptions = st.builds(
    SubscriptionView,
    name=names,
    version=texts,
    state=st.sampled_from(["running", "paused", "stopped", "waiting"]),
    reason=texts,
    partitions=counts,
    unfinished=counts,
    lanes=counts,
    held=some_held,
    held_total=counts,
    parked_keys=counts,
    parked=some_held,
    oldest_at=st.none() | times,
    slow_projection_s=times,
    records_per_s=times,
)
connections = st.builds(
    ConnectionView,
    name=names,
    state=st.sampled_from(["running", "paused", "open", "half_open", "stopped", "held"]),
    reason=texts,
    until=st.none() | times,
    in_flight=counts,
    quota_used=st.none() | st.floats(0, 1),
    waiting=counts,
)
heartbeats = st.builds(
    Heartbeat,
    process=names,
    at=times,
    version=texts,
    pid=counts,
    host=texts,
    subscriptions=st.lists(subscriptions, max_size=3).map(tuple),
    connections=st.lists(connections, max_size=3).map(tuple),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(heartbeats)
def test_a_heartbeat_comes_back_as_it_was_written(heartbeat: Heartbeat) -> None:
    key, value = heartbeat_record(heartbeat)
    assert key.decode() == heartbeat.process
    assert decode(value) == heartbeat


@given(st.binary(max_size=50))
def test_bytes_that_are_no_heartbeat_are_none(value: bytes) -> None:
    assert decode(value) is None


def test_a_process_that_left_has_no_heartbeat() -> None:
    key, value = farewell_record("host/12")
    assert (key, decode(value)) == (b"host/12", None)


@given(heartbeats, st.data())
def test_whatever_stands_in_any_place_nothing_raises(heartbeat: Heartbeat, data: st.DataObject) -> None:
    found = json.loads(encode(heartbeat))
    place = found
    while True:
        within = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not within:
            return
        at = data.draw(st.sampled_from(within))
        if not isinstance(place[at], dict | list) or data.draw(st.booleans()):
            break
        place = place[at]
    place[at] = data.draw(anything)
    read = decode(json.dumps(found).encode())
    if read is not None:
        assert decode(encode(read)) == read


@pytest.mark.parametrize(
    "value", [b"[" * 100_000, b'{"process": "p", "at": 1' + b"0" * 5000 + b"}", b'{"process": "p", "at": NaN}', b"\xff"]
)
def test_json_made_to_break_a_reader_is_no_heartbeat(value: bytes) -> None:
    assert decode(value) is None


def test_what_a_newer_version_adds_is_left_out_and_its_words_are_kept() -> None:
    written = {
        "process": "p", "at": 5, "mood": {"good": True},
        "subscriptions": [{"name": "crm", "state": "draining", "temperature": 3}, {"version": "no name"}],
        "connections": [{"name": "hubspot", "state": "half_shut", "in_flight": "many"}],
    }  # fmt: skip
    read = decode(json.dumps(written).encode())
    assert read is not None
    assert [(one.name, one.state) for one in read.subscriptions] == [("crm", "draining")]
    assert [(one.state, one.in_flight) for one in read.connections] == [("half_shut", 0)]


def test_a_heartbeat_is_never_too_large_for_the_topic_and_counts_stay_true() -> None:
    held = tuple(Held(origin=f"{'t' * 200}/1/{n}", why="retry", since=float(n)) for n in range(20))
    view = SubscriptionView(name="crm", held=held, held_total=900, parked=held, parked_keys=400)
    many = Heartbeat(process="p", at=1.0, subscriptions=tuple(replace(view, name=f"s{n}") for n in range(200)))
    value = encode(many)
    assert len(value) <= BYTES_MAX
    read = decode(value)
    assert read is not None
    assert len(read.subscriptions) == 200
    assert {(one.held_total, one.parked_keys) for one in read.subscriptions} == {(900, 400)}


def test_a_number_that_json_does_not_know_is_not_written() -> None:
    view = ConnectionView(
        name="c", state="open", reason="", until=float("inf"), in_flight=0, quota_used=None, waiting=0
    )
    read = decode(encode(Heartbeat(process="p", at=1.0, connections=(view,))))
    assert read is not None
    assert read.connections[0].until is None
