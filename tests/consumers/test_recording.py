"""What Python projections read is seen while they run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers.projections import confined
from consumers.recording import Recording, Seen
from consumers.subscription import Projected, Route, Subscription, load_text
from tests.consumers.shop import CONNECTIONS, CONTRACTS, ORDERED, event, route

LINES = [{"sku": "A", "note": "n"}]
ADDRESS = {"city": "Bern", "country": "CH"}


def recorded(reads: Callable[[Any], Any], allow: frozenset[str] = frozenset({"email", "address", "free_text"})) -> Seen:
    """What is seen of a projection that does this with the event's data."""

    def project(one: Any) -> Projected:
        return Projected(action="note.put", entity="o-1", body={"title": str(reads(one.data))[:20]})

    python = Route(
        events=("shop.Ordered",), fits=None, action=None, reads=None, source={},
        project=confined(project, ORDERED, allow),
    )  # fmt: skip
    recording = Recording(replace(subscription(), routes={"shop.Ordered": (python,)}))
    [noted] = recording.subscription.routes["shop.Ordered"]
    assert noted.project(event(lines=LINES, address=ADDRESS)) is not None
    return recording.seen["shop.Ordered"]


def subscription() -> Subscription:
    text = route('{title: "{{ data.currency }}"}')
    return load_text("notes-test", text, contracts=CONTRACTS, connections=CONNECTIONS, folder=Path())


@pytest.mark.parametrize(
    ("reads", "fields"),
    [
        (lambda data: data["email"], {"email"}),
        (lambda data: data.get("coupon"), {"coupon"}),
        (lambda data: data.get("no_such_field"), set()),
        (lambda data: "coupon" in data, {"coupon"}),
        (lambda data: data["address"]["country"], {"address.country"}),
        (lambda data: (data.get("address") or {}).get("country"), {"address", "address.country"}),
        (lambda data: [line["sku"] for line in data["lines"]], {"lines", "lines.sku"}),
        (lambda data: data["tags"][0], {"tags"}),
        (lambda data: list(data), {""}),
        (lambda data: [name for name, _ in data.items()], {""}),
        (lambda data: json.dumps(data["address"]), {"address"}),
        (lambda data: data["address"] == {"city": "Bern"}, {"address"}),
        (lambda data: f"{data['address']}", {"address"}),
        (lambda data: data["address"].copy(), {"address"}),
        (lambda data: data["address"] | {"a": 1}, {"address"}),
        (lambda data: bool(data["address"]), {"address"}),
    ],
)
def test_every_way_of_looking_at_a_field_is_seen(reads: Callable[[Any], Any], fields: set[str]) -> None:
    assert recorded(reads).fields == fields


@pytest.mark.parametrize("reads", [lambda data: dict(data), lambda data: {**data}])
def test_a_copy_of_the_payload_reads_all_of_it(reads: Callable[[Any], Any]) -> None:
    assert "" in recorded(reads).fields


def test_the_places_it_fills_and_the_number_of_events_are_noted() -> None:
    seen = recorded(lambda data: data["order_id"])
    assert (seen.places, seen.events) == ({"entity", "body.title"}, 1)


def test_what_may_not_leave_is_not_there_to_be_read() -> None:
    assert recorded(lambda data: data.get("email"), allow=frozenset()).fields == set()


def test_a_subscription_without_projections_stays_as_it_is() -> None:
    plain = subscription()
    recording = Recording(plain)
    assert recording.seen == {}
    assert recording.subscription.routes == plain.routes


def test_a_route_says_which_place_reads_what() -> None:
    [parsed] = subscription().routes["shop.Ordered"]
    assert parsed.reads == {"body.title": {"currency"}, "entity": {"order_id"}}
    assert parsed.fields_read == {"currency", "order_id"}
