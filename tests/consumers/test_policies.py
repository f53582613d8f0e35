"""Policies of a file: what is in force, where it comes from, and what cannot be asked of a connector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from connectors.connector import Action, ConnectorType, Idempotency
from consumers.subscription import Subscription, check_subscription
from schemas.findings import Finding
from tests.consumers.shop import CONTRACTS, HEAD, NOTES, Ping, loaded, route

CASE = Action(name="case.open", body=Ping, upsert=False, order_matters=True)
STRICT = replace(NOTES, actions={**NOTES.actions, "case.open": CASE}, look_up=True)
PUT = "{title: '{{ data.currency }}'}"


def checked(folder: Path, text: str, connector: ConnectorType = STRICT) -> tuple[Subscription | None, list[Finding]]:
    path = folder / "notes-test.yaml"
    path.write_text(text, encoding="utf-8")
    connections: Mapping[str, ConnectorType] = {"notes": connector}
    return check_subscription(path, contracts=CONTRACTS, connections=connections)


def policies(text: str) -> str:
    return f"policies: {text}\n"


def test_every_policy_can_be_said_and_says_where_it_comes_from(tmp_path: Path) -> None:
    said = policies(
        "{send: latest, expire_after: 1h, on_unknown: look_up, on_dead_letter: park_key, weight: 7, slo: 2m}"
    )
    subscription, findings = checked(tmp_path, route(PUT, more=said))
    assert subscription is not None, findings
    found = subscription.policies
    assert (found.send, found.on_unknown, found.on_dead_letter, found.weight) == ("latest", "look_up", "park_key", 7)
    assert found.expire_after == timedelta(hours=1)
    stated = {name for name, source in subscription.policy_sources.items() if source == "this file"}
    assert stated == {"send", "expire_after", "on_unknown", "on_dead_letter", "weight", "slo"}


def test_without_a_word_every_event_is_sent_never_expires_and_a_dead_letter_stops_nobody(tmp_path: Path) -> None:
    subscription = loaded(tmp_path, route(PUT))
    found = subscription.policies
    assert (found.send, found.expire_after, found.on_dead_letter, found.weight) == ("every", None, "continue", 1)
    assert subscription.policy_sources["on_dead_letter"] == subscription.policy_sources["send"] == "default"
    assert subscription.policy_sources["on_unknown"] == "the connector notes"
    never = loaded(tmp_path, route(PUT, more=policies("{expire_after: never}")))
    assert never.policies.expire_after is None
    assert never.policy_sources["expire_after"] == "this file"


def test_a_key_is_parked_by_default_where_an_actions_order_matters_and_a_file_may_say_otherwise(tmp_path: Path) -> None:
    text = route("{}").replace("note.put", "case.open")
    subscription, findings = checked(tmp_path, text)
    assert subscription is not None, findings
    assert subscription.policies.on_dead_letter == "park_key"
    assert subscription.policy_sources["on_dead_letter"] == "the order of case.open matters"
    other, _ = checked(tmp_path, text.replace("routes:", "policies: {on_dead_letter: continue}\nroutes:"))
    assert other is not None
    assert other.policies.on_dead_letter == "continue"
    assert other.version != subscription.version


def test_a_projection_may_ask_anything_so_the_connectors_actions_decide(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("def made(event):\n    return None\n")
    text = f"{HEAD}routes:\n  - event: shop.Ordered\n    projection: made.py:made\n"
    for connector, parked in ((STRICT, "park_key"), (NOTES, "continue")):
        subscription, findings = checked(tmp_path, text, connector)
        assert subscription is not None, findings
        assert subscription.policies.on_dead_letter == parked
    latest = text.replace("routes:", "policies: {send: latest}\nroutes:")
    assert checked(tmp_path, latest)[0] is not None  # the upserts among what it asks are merged
    none = replace(NOTES, actions={"ping": NOTES.actions["ping"]})
    (finding,) = checked(tmp_path, latest, none)[1]
    assert "notes has none" in finding.message


@pytest.mark.parametrize("kind", ["replay_key", "dedupe_id"])
def test_nothing_is_merged_for_a_vendor_that_remembers_keys(
    tmp_path: Path, kind: Literal["replay_key", "dedupe_id"]
) -> None:
    remembers = replace(NOTES, idempotency=Idempotency(kind))
    (finding,) = checked(tmp_path, route(PUT, more=policies("{send: latest}")), remembers)[1]
    assert "it remembers what it was sent by its key" in finding.message


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (
            route("{}", more=policies("{send: latest}")).replace("note.put", "ping"),
            "policies.send",
            "merges upserts, but routes[0] asks ping, which is none",
        ),
        (
            route(PUT, more=policies("{expire_after: 0s}")),
            "policies.expire_after",
            "more than nothing",
        ),
        (route(PUT, more=policies("{expire_after: 31d}")), "policies.expire_after", "at most 30d"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, text: str, place: str, words: str) -> None:
    subscription, (finding,) = checked(tmp_path, text)
    assert subscription is None
    assert (finding.path, finding.line) == (place, 4)
    assert words in finding.message


def test_a_connector_that_cannot_look_up_is_not_asked_to(tmp_path: Path) -> None:
    text = route(PUT, more=policies("{on_unknown: look_up}"))
    subscription, (finding,) = checked(tmp_path, text, NOTES)
    assert subscription is None
    assert finding.message == "The connector notes cannot look up what it has sent: choose resend or hold."


def two_topics(said: dict[str, Any] | str, action: str = "note.put") -> str:
    body = "{title: x}" if action == "note.put" else "{}"
    return (
        f"{HEAD}policies: {said}\nroutes:\n"
        f"  - {{event: shop.Ordered, action: {action}, entity: '{{{{ data.order_id }}}}', body: {body}}}\n"
        f"  - {{event: depot.Moved, action: {action}, entity: '{{{{ data.order_id }}}}', body: {body}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (two_topics("{send: latest}"), "'send: latest' merges within a key alone"),
        (two_topics("{on_dead_letter: park_key}", "ping"), "'park_key' holds back the one key alone"),
        (two_topics("{slo: 5m}", "case.open"), "an older value may win"),
    ],
)
def test_an_entity_fed_from_two_keys_is_a_warning_where_order_is_promised(
    tmp_path: Path, text: str, words: str
) -> None:
    subscription, (finding,) = checked(tmp_path, text)
    assert subscription is not None
    assert (finding.severity, finding.rule) == ("warning", "order")
    assert "depot.things (by box_id) and shop.things (by order_id)" in finding.message
    assert words in finding.message


def test_where_no_order_is_promised_two_keys_are_nothing_to_say(tmp_path: Path) -> None:
    assert checked(tmp_path, two_topics("{slo: 5m}", "ping"))[1] == []
