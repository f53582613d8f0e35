"""A snapshot on its way: as JSON and back, as metrics, and under other exporters' names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ops.lag.cluster import Member
from ops.lag.measure import GroupLag, PartitionLag
from ops.lag.rows import group_document, group_from
from ops.lag.rules import SEVERITY, OffsetLag, Trend
from ops.monitor.address import address, claim, withdraw
from ops.monitor.snapshot import Attachment, Letters, Snapshot, envelope, refusal
from ops.settings import load_project
from ops.watch.compat import EXPORTERS, exporters
from ops.watch.group_metrics import GroupMetrics
from ops.watch.metrics import MONITOR_METRICS
from tests.ops.test_monitor_history import group, partition

OFFSET = st.integers(0, 2**62)
AGE = st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1000)
NAMES = st.text(min_size=1, max_size=12)
MEMBERS = st.builds(
    Member, NAMES, NAMES, st.lists(st.tuples(NAMES, st.integers(0, 50)), max_size=3).map(tuple), st.text(max_size=8)
)
PARTITIONS = st.builds(
    PartitionLag,
    topic=NAMES, partition=st.integers(0, 50), committed=st.none() | OFFSET, metadata=st.text(max_size=8),
    log_start=OFFSET, end=OFFSET, uncommitted=OFFSET,
    offsets=st.builds(OffsetLag, OFFSET, OFFSET, OFFSET, st.sampled_from(["commit", "start", "log"])),
    age_s=AGE, age_is_bound=st.booleans(), status=st.sampled_from(sorted(SEVERITY)), member=st.none(),
    reason=st.text(max_size=20), margin_s=AGE, lost_total=OFFSET, high_watermark=OFFSET, last_stable=OFFSET,
)  # fmt: skip
FLOATS = st.floats(0, 1e9, allow_nan=False)
GROUPS = st.builds(
    GroupLag,
    name=NAMES, ours=st.booleans(), state=NAMES, members=st.lists(MEMBERS, max_size=2).map(tuple),
    partitions=st.lists(PARTITIONS, max_size=4).map(tuple), at=st.integers(0, 2**40).map(lambda ms: ms / 1000),
    slo_s=st.none() | FLOATS, missing=st.lists(NAMES, max_size=2).map(tuple),
    trend=st.none() | st.builds(Trend, FLOATS, FLOATS, FLOATS),
)  # fmt: skip


@given(GROUPS)
def test_a_group_comes_back_from_its_document_as_it_was(measured: GroupLag) -> None:
    back = group_from(json.loads(json.dumps(group_document(measured))))
    owners = {place: member for member in measured.members for place in member.places}
    assert back.name == measured.name
    for ours, theirs in zip(back.partitions, measured.partitions, strict=True):
        assert ours.member == owners.get((theirs.topic, theirs.partition))
        assert {name: getattr(ours, name) for name in ours.__slots__ if name != "member"} == {
            name: getattr(theirs, name) for name in ours.__slots__ if name != "member"
        }
    for name in ("ours", "state", "members", "at", "slo_s", "missing", "trend", "lag", "age_s", "status", "eta_s"):
        assert getattr(back, name) == getattr(measured, name)


def test_a_group_that_could_not_be_measured_says_why_also_after_its_way(tmp_path: Path) -> None:
    failed = GroupLag(
        name="g", ours=False, state="unknown", members=(), partitions=(), at=1.0, slo_s=None,
        problem=KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED),
    )  # fmt: skip
    document = group_document(failed)
    assert (document["status"], document["problem"]) == (None, "GROUP_AUTHORIZATION_FAILED")
    back = group_from(json.loads(json.dumps(document))).problem
    assert back is not None
    assert back.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_what_is_no_group_is_an_error_that_readers_expect(document: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        group_from(document)


@given(st.text(), st.text())
def test_envelopes_are_json_whatever_names_hold(context: str, message: str) -> None:
    found = json.loads(envelope("backbone.monitor/v1", context, "[1]", warnings=(message,)))
    assert (found["context"], found["data"], found["warnings"]) == (context, [1], [message])
    refused = json.loads(refusal(context, 5, message))
    assert (refused["schema"], refused["data"]) == ("backbone.error/v1", None)
    assert refused["error"] == {"code": 5, "message": message}


# ---- metrics -------------------------------------------------------------------------------------------------------

WORKER = Member("worker-1", "10.0.0.7", (("orders", 0),), "worker-1-abc")
LATE = partition(
    0, age_s=65.5, status="BEHIND", member=WORKER, margin_s=7_200.0, lost_total=4, high_watermark=110, last_stable=100
)
NEW = partition(1, committed=0, age_s=None, high_watermark=100, last_stable=100)


def snapshot(*groups: GroupLag) -> Snapshot:
    return Snapshot(
        at=1_000.0, round_s=0.25, every_s=15.0, groups=groups,
        attached={"crm": Attachment("team-a", "hubspot", "3f9a2c")},
        letters={"crm": Letters(3, 400.0), "quiet": Letters(0, None)},
        reconciled={"crm": {"missing": 2, "extra": 0}},
    )  # fmt: skip


def scraped(shown: Snapshot | None, *names: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    watching = SimpleNamespace(snapshot=shown)
    registry.register(GroupMetrics(cast(Any, watching), also=[exporters("prod")[name] for name in names]))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def of(found: dict[Any, float], name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def test_a_round_is_shown_with_exactly_the_names_of_the_table() -> None:
    measured = GroupLag(
        name="crm", ours=True, state="stable", members=(WORKER,), partitions=(LATE, NEW), at=1_000.0, slo_s=60.0
    )
    found = scraped(snapshot(measured))
    assert {name for name, _ in found} == {metric.name for metric in MONITOR_METRICS}
    place = {"group": "crm", "topic": "orders", "partition": "0"}
    assert of(found, "backbone_group_lag", **place) == 10
    assert of(found, "backbone_group_lag_seconds", **place) == 65.5
    assert of(found, "backbone_group_committed_offset", **place) == 90
    assert of(found, "backbone_group_lost_records_total", **place) == 4
    assert of(found, "backbone_group_retention_margin_seconds", **place) == 7_200
    assert of(found, "backbone_group_status", group="crm", backbone_group_status="BEHIND") == 1
    assert of(found, "backbone_group_status", group="crm", backbone_group_status="OK") == 0
    assert of(found, "backbone_group_members", group="crm") == 1
    assert of(found, "backbone_reconcile_difference", subscription="crm", kind="missing") == 2
    assert of(found, "backbone_reconcile_difference", subscription="crm", kind="extra") == 0
    assert of(found, "backbone_group_slo_seconds", group="crm", topic="orders") == 60
    end = {"topic": "orders", "partition": "0"}
    assert of(found, "backbone_topic_end_offset", **end, kind="high_watermark") == 110
    assert of(found, "backbone_topic_end_offset", **end, kind="last_stable") == 100
    assert of(found, "backbone_topic_start_offset", **end) == 0
    assert of(found, "backbone_deadletter_open", subscription="crm") == 3
    assert of(found, "backbone_deadletter_oldest_seconds", subscription="crm") == 600
    assert of(found, "backbone_deadletter_oldest_seconds", subscription="quiet") == 0
    assert of(
        found, "backbone_subscription_info", subscription="crm", owner="team-a", connection="hubspot", version="3f9a2c"
    )
    assert of(found, "backbone_monitor_last_success_timestamp_seconds") == 1_000
    assert of(found, "backbone_monitor_round_seconds") == 0.25


def test_what_is_not_known_has_no_series_and_nothing_is_negative_or_no_number() -> None:
    unknown = partition(1, committed=None, age_s=None, offsets=OffsetLag(100, 0, 0, "log"))
    found = scraped(snapshot(group("g", unknown)), *EXPORTERS)
    place = {"group": "g", "topic": "orders", "partition": "1"}
    for name in ("backbone_group_lag_seconds", "backbone_group_committed_offset", "backbone_group_slo_seconds"):
        assert not [key for key in found if key[0] == name]
    assert of(found, "backbone_group_lag", **place) == 100
    assert of(found, "kafka_consumergroup_lag", consumergroup="g", topic="orders", partition="1") is None
    assert all(value >= 0 for value in found.values())


def test_before_the_first_round_and_of_groups_that_went_away_there_is_nothing() -> None:
    assert scraped(None) == {}
    assert any(("group", "a") in labels for _, labels in scraped(snapshot(group("a"))))
    assert not any(("group", "a") in labels for _, labels in scraped(snapshot(group("b"))))


def test_a_group_that_could_not_be_measured_is_left_out() -> None:
    failed = GroupLag(
        name="g", ours=False, state="unknown", members=(), partitions=(), at=1.0, slo_s=None,
        problem=KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED),
    )  # fmt: skip
    assert not any(("group", "g") in labels for _, labels in scraped(snapshot(failed)))


def test_boards_of_kafka_exporter_find_their_names_and_labels() -> None:
    measured = GroupLag(
        name="crm", ours=True, state="stable", members=(WORKER,), partitions=(LATE, NEW), at=1_000.0, slo_s=60.0
    )
    found = scraped(snapshot(measured), "kafka-exporter")
    place = {"consumergroup": "crm", "topic": "orders", "partition": "0"}
    assert of(found, "kafka_consumergroup_lag", **place) == 10
    assert of(found, "kafka_consumergroup_lag_sum", consumergroup="crm", topic="orders") == 110
    assert of(found, "kafka_consumergroup_current_offset", **place) == 90
    assert of(found, "kafka_consumergroup_current_offset_sum", consumergroup="crm", topic="orders") == 90
    assert of(found, "kafka_consumergroup_members", consumergroup="crm") == 1
    assert of(found, "kafka_topic_partition_current_offset", topic="orders", partition="0") == 110
    assert of(found, "kafka_topic_partition_oldest_offset", topic="orders", partition="0") == 0
    assert of(found, "kafka_topic_partitions", topic="orders") == 2


def test_boards_of_kafka_lag_exporter_find_their_names_and_labels() -> None:
    measured = GroupLag(
        name="crm", ours=True, state="stable", members=(WORKER,), partitions=(LATE,), at=1_000.0, slo_s=60.0
    )
    found = scraped(snapshot(measured), "kafka-lag-exporter")
    whole = {"cluster_name": "prod", "group": "crm"}
    place = {
        **whole, "topic": "orders", "partition": "0", "member_host": "10.0.0.7", "consumer_id": "worker-1-abc",
        "client_id": "worker-1",
    }  # fmt: skip
    assert of(found, "kafka_consumergroup_group_offset", **place) == 90
    assert of(found, "kafka_consumergroup_group_lag", **place) == 10
    assert of(found, "kafka_consumergroup_group_lag_seconds", **place) == 65.5
    assert of(found, "kafka_consumergroup_group_max_lag", **whole) == 10
    assert of(found, "kafka_consumergroup_group_max_lag_seconds", **whole) == 65.5
    assert of(found, "kafka_consumergroup_group_sum_lag", **whole) == 10
    assert of(found, "kafka_consumergroup_group_topic_sum_lag", **whole, topic="orders") == 10
    assert of(found, "kafka_partition_latest_offset", cluster_name="prod", topic="orders", partition="0") == 110
    assert of(found, "kafka_partition_earliest_offset", cluster_name="prod", topic="orders", partition="0") == 0


def test_names_follow_the_house_rules_and_no_label_names_a_member_a_key_or_a_url() -> None:
    allowed = {"group", "topic", "partition", "kind", "subscription", "owner", "connection", "version"}
    for metric in MONITOR_METRICS:
        assert re.fullmatch(r"backbone_[a-z_]+", metric.name)
        assert set(metric.labels) <= allowed
        assert metric.name.endswith("_total") == (metric.kind == "counter")


# ---- where it answers ----------------------------------------------------------------------------------------------

PROJECT = """
[project]
name = "acme"
schemas = "schemas"
subscriptions = "subscriptions"
[contexts.prod]
monitor = "http://monitor.acme.example:9400/"
kafka."bootstrap.servers" = "k1:9092"
"""


def test_the_address_is_the_settings_or_that_of_the_one_that_lives(tmp_path: Path) -> None:
    (tmp_path / "backbone.toml").write_text(PROJECT)
    project = load_project(tmp_path)
    assert address(project.context("prod")) == "http://monitor.acme.example:9400"
    local = project.context("local")
    assert address(local) is None
    assert claim(local, "0.0.0.0", 9400)
    assert address(local) == "http://127.0.0.1:9400"
    file = tmp_path / ".backbone" / "monitor" / "local.json"
    living = file.read_text()
    assert not claim(local, "127.0.0.1", 9401), "another one lives"
    assert claim(local, "127.0.0.1", 9401, over=True)
    assert address(local) == "http://127.0.0.1:9401"
    withdraw(local, "127.0.0.1", 9400)
    assert address(local) == "http://127.0.0.1:9401", "it is not that one's to take away"
    withdraw(local, "127.0.0.1", 9401)
    assert address(local) is None
    file.write_text(living.replace(json.loads(living)["started"], "long-ago"))
    assert claim(local, "127.0.0.1", 9402), "the one that was killed does not live"


@given(st.binary(max_size=60))
def test_a_file_of_addresses_may_hold_anything(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "backbone.toml").write_text(PROJECT)
        local = load_project(folder).context("local")
        (folder / ".backbone" / "monitor").mkdir(parents=True)
        (folder / ".backbone" / "monitor" / "local.json").write_bytes(content)
        assert address(local) is None or content
        assert claim(local, "127.0.0.1", 1)


@pytest.mark.parametrize("url", ["monitor:9400", "ftp://x", "http://user:secret@x:1", "http://x:1/path"])
def test_an_address_that_is_none_is_refused_with_its_key(tmp_path: Path, url: str) -> None:
    from schemas.errors import InputError

    (tmp_path / "backbone.toml").write_text(PROJECT.replace("http://monitor.acme.example:9400/", url))
    with pytest.raises(InputError, match=r"contexts\.prod\.monitor") as refused:
        load_project(tmp_path)
    assert "secret" not in str(refused.value)
