"""The topics there should be."""

from __future__ import annotations

from schemas.contract import engine_contracts, load_contracts
from schemas.topics import (
    audit_topic,
    control_topic,
    deliveries_topic,
    heartbeat_topic,
    subscription_topics,
    topics_for,
)
from tests.conftest import ROOT

EVENTS = load_contracts(ROOT / "schemas" / "events")


def test_a_topic_an_entity_with_one_partition_count_for_all() -> None:
    plans = topics_for(EVENTS)
    assert [plan.name for plan in plans] == ["accounts.users", "billing.invoices"]
    assert {plan.partitions for plan in plans} == {12}
    assert {plan.config["message.timestamp.type"] for plan in plans} == {"LogAppendTime"}


def test_events_that_share_a_topic_keep_it_for_the_longest_retention() -> None:
    kept = {plan.name: plan.config["retention.ms"] for plan in topics_for(engine_contracts())}
    assert kept == {"backbone.audit": str(3650 * 86_400_000), "backbone.deliveries": str(90 * 86_400_000)}


def test_dead_letters_never_expire_and_waiting_redrives_are_not_compacted_away() -> None:
    dead, inbox = subscription_topics("crm-contacts", partitions=6)
    assert (dead.name, dead.partitions, dead.config["cleanup.policy"]) == ("crm-contacts.dead", 6, "compact")
    assert "retention.ms" not in dead.config
    assert (inbox.name, inbox.partitions, inbox.config["cleanup.policy"]) == ("crm-contacts.inbox", 6, "delete")


def test_a_dead_letter_of_the_largest_event_fits_with_its_headers() -> None:
    (events, *_), (dead, _) = topics_for(EVENTS), subscription_topics("any")
    assert int(events.config["max.message.bytes"]) > 1 << 20
    assert int(dead.config["max.message.bytes"]) > int(events.config["max.message.bytes"])


def test_the_control_topic_is_one_ordered_state() -> None:
    plan = control_topic(replication=3)
    assert (plan.name, plan.partitions, plan.replication) == ("backbone.control", 1, 3)
    assert plan.config["cleanup.policy"] == "compact"


def test_the_other_topics_of_the_backbone() -> None:
    assert audit_topic(partitions=1).name == "backbone.audit"
    assert deliveries_topic().partitions == 12
    assert heartbeat_topic().config["retention.ms"] == "3600000"
