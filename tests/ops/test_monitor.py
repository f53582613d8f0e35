"""The monitor at a real broker, and as a process of its own that the commands read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import KafkaException, Producer

from connectors.connection import ConnectionView
from consumers.control import State, connection_record, timestamp
from consumers.deadletter import letter_of, letter_record
from consumers.heartbeat import Heartbeat, SubscriptionView
from ops.app import App
from ops.lag.cluster import Cluster
from ops.lag.measure import GroupLag
from ops.monitor.following import Following
from ops.monitor.monitor import Monitor
from ops.monitor.opening import open_monitor
from ops.monitor.snapshot import Letters, Snapshot
from schemas.event import Record
from tests.conftest import ROOT, MakeTopic, Stack
from tests.ops.broker import Broker, backbone, project_folder
from tests.ops.simulated_cluster import Log, Reader, SimulatedCluster, Time
from tests.ops.test_lag_cluster import transactions
from tests.waiting import eventually


@pytest.fixture
def folder(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = project_folder(stack, tmp_path)
    monkeypatch.setenv("BACKBONE_PROJECT", str(made))
    return made


@pytest.fixture
def broker(folder: Path, stack: Stack) -> Broker:
    return Broker(stack)


@pytest.fixture
def monitor(broker: Broker) -> Iterator[Monitor]:
    app = App()
    monitor = open_monitor(app)
    yield monitor
    monitor.close()
    app.close()


def letter(broker: Broker, topic: str, origin: int, *, hours: float, closed: bool = False) -> None:
    """Write a dead letter for the record of that offset in partition 0, or its tombstone."""
    from datetime import UTC, datetime, timedelta

    found = letter_record(
        letter_of(
            Record("orders", 0, origin, b"k", b"v", (), 0), outcome="rejected", reason="r", detail="", attempts=1,
            seconds_tried=0, version="3f9a2c", now=datetime.now(UTC) - timedelta(hours=hours),
        )
    )  # fmt: skip
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    if closed:
        producer.produce(topic, None, found.key, partition=0)
    else:
        headers = cast("list[tuple[str, str | bytes | None]]", found.headers)
        producer.produce(topic, found.value, found.key, partition=0, headers=headers)
    assert producer.flush(10) == 0


def named(snapshot: Snapshot, name: str) -> GroupLag:
    found = snapshot.by_name[name]
    assert found.problem is None
    return found


@pytest.mark.integration
def test_one_round_measures_groups_of_every_kind(
    broker: Broker, monitor: Monitor, make_topic: MakeTopic, prefix: str
) -> None:
    ours, marked = make_topic("ours"), make_topic("marked")
    stamped = make_topic("stamped", config={"message.timestamp.type": "CreateTime"})
    broker.produce(ours, 6)
    broker.attach(f"{prefix}-ours", {ours: 1}, starts={(ours, 0): 2})
    broker.produce(stamped, 2, at_ms=int((time.time() - 7200) * 1000))
    broker.commit(f"{prefix}-empty", stamped, {0: 1})
    transactions(broker, marked, prefix, "co")
    broker.commit(f"{prefix}-level", marked, {0: 6})
    classic = broker.join(f"{prefix}-classic", ours, group_protocol="classic", isolation_level="read_uncommitted")
    try:
        found = monitor.round()
    finally:
        classic.close()
        broker.detach(f"{prefix}-ours")
    attached = named(found, f"{prefix}-ours")
    assert (attached.ours, attached.lag, attached.slo_s, attached.state) == (True, 4, 300.0, "dead")
    late = named(found, f"{prefix}-empty")
    assert (late.ours, late.lag, late.state) == (False, 1, "empty")
    assert late.age_s == pytest.approx(7200, abs=60)
    assert late.margin_s == pytest.approx(7 * 86_400 - 7200, abs=60), "the topic's own retention, a week"
    open_transaction = named(found, f"{prefix}-level").partitions[0]
    assert (open_transaction.high_watermark, open_transaction.last_stable) == (11, 6)
    unheard = named(found, f"{prefix}-classic")
    assert (unheard.no_commit, unheard.status, len(unheard.members)) == (1, "NO_COMMIT", 1)
    assert found.attached[f"{prefix}-ours"].owner == "team-sales-ops"
    assert f"{prefix}-ours" not in monitor.round().by_name, "it was detached, and nobody has ever committed"


@pytest.mark.integration
def test_open_dead_letters_are_followed_and_each_record_is_read_once(
    broker: Broker, monitor: Monitor, make_topic: MakeTopic, prefix: str
) -> None:
    name, source = f"{prefix}.crm", make_topic("source")
    dead = make_topic("crm.dead", partitions=2, config={"cleanup.policy": "compact"})
    broker.attach(name, {source: 1})
    try:
        assert monitor.round().letters[name] == Letters(0, None)
        letter(broker, dead, 7, hours=2)
        letter(broker, dead, 8, hours=1)
        found = monitor.round().letters[name]
        assert found.open == 2
        assert found.oldest_at == pytest.approx(time.time() - 7200, abs=60)
        letter(broker, dead, 7, hours=0, closed=True)
        kept: list[str] = []
        keep = monitor._following._keep
        monitor._following._keep = lambda message: (kept.append(message.topic() or ""), keep(message))[1]  # type: ignore[method-assign, func-returns-value]
        found = monitor.round().letters[name]
        assert found.open == 1
        assert found.oldest_at == pytest.approx(time.time() - 3600, abs=60)
        assert kept.count(dead) == 1
        broker.admin.delete_topics([dead])[dead].result(30)
        eventually(lambda: name not in monitor.round().letters, about="a dead topic that is gone")
        make_topic("crm.dead", partitions=2, config={"cleanup.policy": "compact"})
        eventually(lambda: monitor.round().letters.get(name) == Letters(0, None), about="the one made anew")
    finally:
        broker.detach(name)
    assert name not in monitor.round().letters


@pytest.mark.integration
def test_connections_are_what_the_living_workers_and_people_say(broker: Broker, monitor: Monitor, prefix: str) -> None:
    account = f"{prefix}-account"
    view = ConnectionView(
        name=account, state="open", reason="connection_refused", until=None, in_flight=0, quota_used=0.5, waiting=3
    )
    broker.beat(
        Heartbeat(
            process=f"{prefix}/1", at=time.time(), connections=(view,), subscriptions=(SubscriptionView(name="x"),)
        )
    )
    try:
        (found,) = [status for status in monitor.round().connections if status.name == account]
        assert (found.state, found.reason, found.quota_used, found.waiting) == ("open", "connection_refused", 0.5, 3)
        broker.control(connection_record(account, State(state="paused", reason="INC-1", at=timestamp())))
        (found,) = [status for status in monitor.round().connections if status.name == account]
        assert (found.state, found.reason) == ("held", "INC-1")
    finally:
        broker.farewell(f"{prefix}/1")
        broker.control(connection_record(account, State(state="running", at=timestamp())))
    assert account not in [status.name for status in monitor.round().connections]


# ---- rounds that fail ----------------------------------------------------------------------------------------------


class Failing(Cluster):
    """A cluster that answers, or does not, as the test says."""

    away = False

    def group_names(self) -> list[str]:
        if self.away:
            from confluent_kafka import KafkaError

            raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        return super().group_names()


def simulated(history: Any = None) -> tuple[Monitor, Failing, SimulatedCluster]:
    cluster = SimulatedCluster(Time(time.time()))
    cluster.logs["orders", 0] = Log(since=cluster.clock.now - 100)
    cluster.readers["g"] = Reader({("orders", 0): 40})
    view = Failing(cast(Any, cluster), cast(Any, cluster.consumer))
    monitor = Monitor(
        cluster=view,
        following=Following(view, cast(Any, cluster.consumer)),
        contracts=None,
        history=history,
        sentence=lambda error: f"said: {type(error).__name__}",
        every_s=0.02,
    )
    return monitor, view, cluster


def test_a_round_that_fails_is_said_keeps_the_last_one_and_the_next_one_comes() -> None:
    monitor, view, _ = simulated()
    assert not monitor.ready
    view.away = True
    monitor.start()
    eventually(lambda: monitor.problem == "said: KafkaException")
    assert not monitor.ready
    view.away = False
    eventually(lambda: monitor.ready and not monitor.problem)
    first = monitor.snapshot
    view.away = True
    eventually(lambda: monitor.problem)
    assert monitor.snapshot is not None
    assert first is not None
    assert monitor.snapshot.at >= first.at
    assert monitor.live
    monitor.close()


def test_it_rests_while_another_one_does_the_work_and_shows_nothing_then() -> None:
    monitor, _, _ = simulated()
    resting = [False]
    monitor.start(rests=lambda: resting[0])
    eventually(lambda: monitor.ready)
    resting[0] = True
    eventually(lambda: not monitor.ready and monitor.is_resting)
    resting[0] = False
    eventually(lambda: monitor.ready)
    monitor.close()


def test_new_credentials_are_told_to_every_client_by_the_thread_that_reads() -> None:
    monitor, _, cluster = simulated()
    monitor.start()
    eventually(lambda: monitor.ready)
    opened = list(cluster.consumers)
    assert len(opened) >= 2, "the one that follows topics, and the one that reads first records"
    monitor.renew(cast(Any, cluster), "us", "a-new-password")
    eventually(lambda: all(one.logins == [("us", "a-new-password")] for one in opened))
    assert {one.told_by for one in opened} == {"monitor"}
    monitor.close()


def test_a_history_that_cannot_be_written_is_said_once_and_rounds_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ops.monitor.history import History
    from ops.watch import logs

    (tmp_path / "file").write_text("")
    monitor, _, _ = simulated(History(tmp_path / "file" / "local.db"))
    logs.configure(json=True, stream=sys.stderr)
    seen: set[float] = set()

    def three() -> bool:
        if monitor.snapshot is not None:
            seen.add(monitor.snapshot.round_s)
        return len(seen) >= 3

    monitor.start()
    eventually(three, about="rounds after the first")
    monitor.close()
    assert capsys.readouterr().err.count("history_not_written") == 1


# ---- as a process --------------------------------------------------------------------------------------------------


@contextmanager
def running(folder: Path, *words: str, command: str = "monitor") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """``backbone monitor``; its process and address, once it has measured."""
    log = folder / f"{command}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", command, *words, "--log", "json"],
            env={**os.environ, "BACKBONE_PROJECT": str(folder)}, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    file = folder / ".backbone" / "monitor" / "local.json"

    def ready() -> str | None:
        assert process.poll() is None, log.read_text()
        if not file.exists() or "_started" not in log.read_text():
            return None
        url: str = json.loads(file.read_text())["url"]
        return url if get(url, "/ready")[0] == 200 else None

    try:
        yield process, cast(str, eventually(ready, 120, about="the first round"))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def get(url: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{url}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def asked(url: str, path: str, code: int = 200) -> Any:
    status, text = get(url, path)
    assert status == code, text
    return json.loads(text)


@pytest.mark.integration
def test_the_commands_read_what_a_monitor_has_measured_and_measure_themselves_without_one(
    broker: Broker, folder: Path, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic(partitions=2)
    broker.produce(topic, 9)
    broker.commit(prefix, topic, {0: 4, 1: 0})
    name = f"{prefix}.ours"
    broker.attach(name, {topic: 2}, starts={(topic, 0): 3})
    try:
        alone = backbone("lag", prefix, "-v")
        assert "No monitor runs here, so this is measured now." in alone.err
        with running(folder, "--every", "1s", "--compat", "kafka-exporter,kafka-lag-exporter") as (process, url):
            _reads_of_a_monitor(broker, url, topic, prefix, name)
            process.kill()
            process.wait(60)
        gone = backbone("lag", name, "-v", "--output", "json")
        assert gone.code == 0, gone.err
        assert "does not answer" in gone.err
        assert [row["lag"] for row in gone.data] == [6, 0]
    finally:
        broker.detach(name)


def _reads_of_a_monitor(broker: Broker, url: str, topic: str, prefix: str, name: str) -> None:
    document = asked(url, "/api/v1/snapshot")
    assert (document["schema"], document["context"], document["warnings"]) == ("backbone.monitor/v1", "local", [])
    data = document["data"]
    assert data["every_seconds"] == 1.0
    assert {prefix, name} <= {group["group"] for group in data["groups"]}
    one = asked(url, f"/api/v1/groups/{prefix}")
    assert (one["schema"], one["data"]["lag"], len(one["data"]["partitions"])) == ("backbone.monitor_group/v1", 5, 2)
    missing = asked(url, f"/api/v1/groups/{prefix}x", 404)
    assert missing["error"]["code"] == 5
    assert f"Did you mean '{prefix}" in missing["error"]["message"]
    assert asked(url, "/api/v1/history", 400)["error"]["code"] == 2
    for hours in ("soon", "0", "25", "nan"):
        assert asked(url, f"/api/v1/history?group={prefix}&hours={hours}", 400)["error"]["code"] == 2
    assert asked(url, "/api/v1/history?group=nobody-at-all", 404)["error"]["code"] == 5
    eventually(lambda: asked(url, f"/api/v1/history?group={prefix}&hours=1")["data"]["points"])
    metrics = get(url, "/metrics")[1]
    assert f'backbone_group_lag{{group="{prefix}",partition="0",topic="{topic}"}} 5.0' in metrics
    assert f'kafka_consumergroup_lag{{consumergroup="{prefix}",partition="0",topic="{topic}"}} 5.0' in metrics
    assert f'kafka_consumergroup_group_sum_lag{{cluster_name="local",group="{prefix}"}} 5.0' in metrics
    assert get(url, "/live")[0] == 200

    eventually(lambda: backbone("lag", prefix, "--output", "json").data[0]["trend"], about="a trend in one look")
    shown = backbone("lag", prefix)
    assert "ago by the monitor." in shown.err
    assert "TREND" in shown.out
    assert "LAST 24 H" in backbone("lag", prefix, "-v").out
    at_once = backbone("lag", prefix, "--now")
    assert "by the monitor" not in at_once.err
    assert backbone("lag", prefix, "--fail-over", "1h").err == "", "a check measures"
    every = backbone("lag", "--output", "json")
    assert {prefix, name} <= {row["group"] for row in every.data}
    assert backbone("lag", f"{prefix}x").code == 5

    status = backbone("status", name, "--output", "json")
    assert status.code == 0, status.err
    assert status.data["sampled_at"] is not None
    assert [row["topic"] for row in status.data["last_24_hours"]] == [topic]
    assert status.data["lag"] == 6
    assert "What takes time to be seen was sampled" in backbone("status").err

    # what it measures next is shown next, and a group that is gone is gone
    broker.commit(prefix, topic, {0: 9})
    eventually(lambda: backbone("lag", prefix, "--output", "json").data[0]["lag"] == 0, about="the next round")
    broker.admin.delete_consumer_groups([prefix])[prefix].result(30)
    eventually(lambda: f'group="{prefix}"' not in get(url, "/metrics")[1], about="no series of a deleted group")


@pytest.mark.integration
def test_watching_a_monitor_appends_a_look_for_each_of_its_rounds(
    broker: Broker, folder: Path, make_topic: MakeTopic, prefix: str
) -> None:
    topic = make_topic()
    broker.produce(topic, 9)
    broker.commit(prefix, topic, {0: 4})
    with running(folder, "--every", "1s"):
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "lag", prefix, "--watch", "--output", "ndjson"],
            env={**os.environ, "BACKBONE_PROJECT": str(folder)}, cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline())["data"] for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped watching." in said
    assert len({look["sampled_at"] for look in looks}) == 3


@pytest.mark.integration
def test_a_worker_that_runs_everything_watches_too(broker: Broker, folder: Path) -> None:
    broker.control()  # the topic, without which nothing runs
    with running(folder, command="run") as (_, worker):
        eventually(lambda: get(worker, "/api/v1/snapshot")[0] == 200, 60, about="its first round")
        assert asked(worker, "/api/v1/snapshot")["schema"] == "backbone.monitor/v1"
        assert "backbone_monitor_round_seconds" in get(worker, "/metrics")[1]
    assert not (folder / ".backbone" / "monitor" / "local.json").exists()


@pytest.mark.integration
def test_beside_a_monitor_that_of_a_worker_rests_and_only_the_monitor_is_found(broker: Broker, folder: Path) -> None:
    broker.control()
    with running(folder) as (_, url), running(folder, command="run") as (_, found):
        assert found == url
        lines = (folder / "run.log").read_text().splitlines()
        started = [json.loads(line) for line in lines if line.startswith("{")]
        (worker,) = [line["health"] for line in started if line["event"] == "worker_started"]
        eventually(lambda: "Another monitor of this project does the work" in get(worker, "/api/v1/snapshot")[1], 60,
                   about="its monitor to rest")  # fmt: skip
        assert asked(worker, "/api/v1/snapshot", 503)["error"]["code"] == 8
        assert "backbone_group" not in get(worker, "/metrics")[1]


def test_what_can_be_typed_wrong_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.ops.broker import PROJECT

    (tmp_path / "backbone.toml").write_text(PROJECT)
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    for words, code, said in (
        (("--every", "1ms"), 2, "--every must be at least 1s."),
        (("--every", "soon"), 2, "a duration is"),
        (("--compat", "kafka-exportr"), 2, "Did you mean 'kafka-exporter'?"),
        (("--health", "9400"), 2, "write HOST:PORT"),
        (("--health", "127.0.0.1:99999"), 2, "write HOST:PORT"),
        ((), 8, "backbone local up"),
    ):
        answer = backbone("monitor", *words)
        assert (answer.code, answer.out) == (code, "")
        assert said in answer.err
        assert "Traceback" not in answer.err
