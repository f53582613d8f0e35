"""``backbone status``: the pure diagnosis case by case, and the command at a real broker."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.connection import ConnectionView
from consumers.control import (
    AttachedSubscription,
    Definition,
    Leave,
    Start,
    State,
    leave_record,
    start_record,
    state_record,
    timestamp,
)
from consumers.deadletter import DeadLetter, letter_of
from consumers.heartbeat import Heartbeat, Held, SubscriptionView
from ops.deadletters import Found, OpenLetter
from ops.diagnosis import ending, missing_topics, not_read_yet, problems_of
from ops.lag.attached import Header, header, subject_of
from ops.lag.cluster import Member
from ops.lag.measure import GroupLag, PartitionLag
from ops.lag.rules import Trend, offset_lag
from ops.problems import WORST_FIRST, Case, Kind, Problem, Sight, worst_first
from ops.watch.heartbeats import Beat
from schemas.contract import Contract, Contracts, contract_from_schema, load_contracts
from schemas.event import Record
from tests.conftest import ROOT, MakeTopic, Stack
from tests.ops.broker import TEXT, Broker, backbone, minutes_from_now, project_folder

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
TOPIC = "billing.invoices"
WORKER = Member("worker-1", "10.0.0.7", ((TOPIC, 0), (TOPIC, 1)))
DEFINITION = Definition(
    text=TEXT, version="3f9a2c", author="ana", at="2026-05-01T10:00:00+00:00", connection="slack",
    events=("billing.InvoiceCreated",), topics={TOPIC: 2},
)  # fmt: skip
NO_LETTERS = Found((), 0)
STARTED = {(TOPIC, p): Start(offset=0, state="started") for p in (0, 1)}


def partition(
    number: int = 0, *, committed: int | None = 100, end: int = 100, age_s: float | None = 0.0, **more: Any
) -> PartitionLag:
    log_start = more.pop("log_start", 0)
    usual: dict[str, Any] = {
        "topic": TOPIC, "partition": number, "committed": committed, "metadata": "", "log_start": log_start,
        "end": end, "uncommitted": 0, "age_s": age_s, "age_is_bound": False, "status": "OK", "member": WORKER,
        "offsets": offset_lag(committed=committed, start=None, log_start=log_start, end=end),
    }  # fmt: skip
    return PartitionLag(**(usual | more))


def case(
    *partitions: PartitionLag,
    state: State | None = None,
    members: tuple[Member, ...] = (WORKER,),
    leave: Leave | None = None,
    dead: Found | None = NO_LETTERS,
    **group: Any,
) -> Case:
    attached = AttachedSubscription(
        name="billing-alerts", definition=DEFINITION, state=state or State(state="running"), starts=STARTED, leave=leave
    )
    usual: dict[str, Any] = {
        "name": "billing-alerts", "ours": True, "state": "stable", "members": members, "at": NOW.timestamp(),
        "partitions": partitions or (partition(0), partition(1)), "slo_s": 300.0,
    }  # fmt: skip
    return Case(
        attached=attached,
        header=Header(description="", owner="team-sales-ops", slo=timedelta(minutes=5), reads=()),
        group=GroupLag(**(usual | group)),
        dead=dead,
        not_read_yet=(),
    )


def letter(hours: float = 2.0, reason: str = "invalid_channel") -> DeadLetter:
    record = Record(TOPIC, 0, 7, b"k", b"v", (), 0)
    now = NOW - timedelta(hours=hours)
    return letter_of(
        record, outcome="rejected", reason=reason, detail="", attempts=1, seconds_tried=0, version="3f9a2c", now=now
    )  # fmt: skip


def dead(*reasons: str) -> Found:
    letters = [OpenLetter(subscription="billing-alerts", letter=letter(reason=reason)) for reason in reasons]
    return Found(tuple(letters), 0)


def ended(sunset: str) -> Contract:
    """InvoiceCreated, with a successor and an end."""
    schema = json.loads(load_contracts(ROOT / "schemas" / "events")["billing.InvoiceCreated"].text)
    schema["backbone"] |= {"status": "deprecated", "sunset": sunset, "replaced_by": "billing.InvoiceCreatedV2"}
    return contract_from_schema(schema)


ENDING = ended("2026-06-30")
STOPPED = State(state="stopped", reason="5 rejections in a row", by="host/7", at="2026-05-01T11:48:00+00:00")
CASES: dict[str, tuple[Case, Kind, str, float | None, str]] = {
    "stopped": (
        case(state=STOPPED), "stopped", "5 rejections in a row. By host/7.", 720.0,
        "backbone subscription resume billing-alerts",
    ),
    "paused": (
        case(state=replace(STOPPED, state="paused", reason="")), "paused", "It is paused. By host/7.", 720.0,
        "backbone subscription resume billing-alerts",
    ),
    "retention was faster": (
        case(partition(committed=10, log_start=50)), "records_lost", "40 records were deleted", None,
        "backbone lag billing-alerts -v",
    ),
    "the committed position expired": (
        case(partition(committed=None, end=0)), "no_position", "billing.invoices/0 is not known", None,
        "backbone rewind billing-alerts --to POSITION",
    ),
    "a source topic is gone": (
        case(missing=(TOPIC,)), "topic_missing", "It reads billing.invoices, which does not exist.", None,
        "backbone schema register",
    ),
    "no dead topic": (
        case(dead=None), "dead_topic_missing", "billing-alerts.dead does not exist", None,
        "backbone subscription attach billing-alerts",
    ),
    "nobody reads": (
        case(partition(end=130, age_s=900.0), members=(), state=None), "nobody_reads", "30 offsets wait", 900.0,
        "backbone run billing-alerts",
    ),
    "attached without a worker": (
        case(members=()), "no_worker", "no worker runs it", None, "backbone run billing-alerts"
    ),
    "behind its promise": (
        case(partition(end=130, age_s=720.0)), "behind", "12m old; it promises 5m. 30 offsets wait.", 720.0,
        "backbone lag billing-alerts -v",
    ),
    "the age is unknown": (
        case(partition(end=130, age_s=None)), "age_unknown", "could not be found out", None,
        "backbone lag billing-alerts -v",
    ),
    "a partition without a reader": (
        case(partition(0), partition(1, end=130, age_s=20.0, member=None)), "partitions_unread",
        "No member reads billing.invoices/1.", 20.0, "backbone lag billing-alerts -v",
    ),
    "open dead letters": (
        case(dead=dead("invalid_channel")), "dead_letters", "1 open dead letter (rejected, invalid_channel).",
        7200.0, "backbone deadletter list billing-alerts",
    ),
    "dead letters of several causes": (
        case(dead=dead("a", "b", "b")), "dead_letters", "3 open dead letters (of 2 causes).", 7200.0,
        "backbone deadletter list billing-alerts",
    ),
    "it reads what ends": (
        replace(case(), ending=(ENDING,)), "reads_ending",
        "It reads billing.InvoiceCreated, which is published until 2026-06-30. Read billing.InvoiceCreatedV2 instead.",
        None, "backbone catalog show billing.InvoiceCreatedV2",
    ),
    "it reads what has ended": (
        replace(case(), ending=(ended("2026-04-30"),)), "reads_ending", "whose last day was 2026-04-30", None,
        "backbone catalog show billing.InvoiceCreatedV2",
    ),
    "stuck for long, for no reason that is known": (
        case(partition(end=130, age_s=200.0, status="STALLED", reason="It stands at 100 for 18m.")), "stalled",
        "billing.invoices/0: It stands at 100 for 18m.", 200.0, "backbone status billing-alerts",
    ),
    "retention comes near": (
        case(partition(0, end=130, age_s=90.0, status="AT_RISK", reason="In 1h."),
             partition(1, end=130, age_s=200.0, status="AT_RISK", reason="Retention deletes its next record in 5m.")),
        "at_risk", "billing.invoices/1 and 1 more partitions: Retention deletes its next record in 5m.", 200.0,
        "backbone lag billing-alerts -v",
    ),
    "a transaction that hangs": (
        case(partition(status="BLOCKED_TXN", reason="A transaction that does not end keeps back 9 offsets.")),
        "transaction_open", "keeps back 9 offsets", 0.0, "backbone lag billing-alerts -v",
    ),
    "asked to leave": (
        case(leave=Leave(change="ch-7f3a", until="2026-05-01T12:05:00+00:00"), members=()), "asked_to_leave",
        "by the change ch-7f3a", None, "backbone change show ch-7f3a",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "words", "age_s", "command"), CASES.values(), ids=CASES.keys())
def test_each_problem_says_its_cause_its_age_its_owner_and_what_to_type(
    given: Case, kind: Kind, words: str, age_s: float | None, command: str
) -> None:
    (problem,) = problems_of(given, NOW)
    assert problem.kind == kind
    assert words in problem.cause
    assert problem.age_s == age_s
    assert problem.command == command
    assert problem.owner == "team-sales-ops"
    assert problem.subject == "billing-alerts"


def test_a_well_subscription_has_no_problem() -> None:
    assert problems_of(case(), NOW) == []
    assert problems_of(case(partition(end=130, age_s=20.0)), NOW) == []


def test_that_it_stands_still_is_not_said_where_what_holds_it_is_known() -> None:
    stuck = partition(end=130, age_s=900.0, status="STALLED", reason="It stands at 100 for 18m.")
    paused = case(stuck, state=State(state="paused"))
    assert [problem.kind for problem in worst_first(problems_of(paused, NOW))] == ["behind", "paused"]
    assert [problem.kind for problem in worst_first(problems_of(case(stuck), NOW))] == ["stalled", "behind"]


def test_without_workers_that_say_their_pace_the_groups_own_trend_tells_when_it_is_level() -> None:
    given = case(partition(end=1100, age_s=900.0), trend=Trend(consumed_per_s=5.0, produced_per_s=1.0, seconds=600))
    (found,) = problems_of(given, NOW)
    assert (found.kind, found.eta_s) == ("catching_up", 250.0)


def sight_of(view: SubscriptionView) -> Sight:
    return Sight(views=((Beat(Heartbeat(process="host/1", at=NOW.timestamp()), 1.0), view),))


def test_an_attach_that_catches_up_says_how_far_its_hand_over_is_away() -> None:
    """Not when it is level: what is published meanwhile is live, and comes after."""
    late = partition(committed=100, end=5_000, age_s=900.0)
    given = case(late, partition(1, committed=40, end=40))
    starts = {(TOPIC, 0): Start(offset=0, state="started", until=700), (TOPIC, 1): STARTED[TOPIC, 1]}
    given = replace(given, attached=replace(given.attached, starts=starts))
    (found,) = problems_of(given, NOW)
    assert (found.kind, found.eta_s) == ("catching_up", None)
    assert found.cause.endswith("It is catching up to the hand-over position of its attach: 600 offsets to go.")
    view = SubscriptionView(name="billing-alerts", records_per_s=10.0)
    beating = replace(given, sight=sight_of(view), produced_per_s=0.0)
    (found,) = problems_of(beating, NOW)
    assert (found.kind, found.eta_s) == ("catching_up", 60.0)
    assert "600 offsets to go, in about 1m." in found.cause
    still = replace(given, sight=sight_of(replace(view, records_per_s=0.0)), produced_per_s=0.0)
    (found,) = problems_of(still, NOW)
    assert (found.kind, found.cause.endswith("It does not get closer.")) == ("behind", True)


def test_a_leave_that_has_run_out_hides_nothing() -> None:
    over = case(leave=Leave(change="ch-7f3a", until="2026-05-01T11:55:00+00:00"), members=())
    assert [problem.kind for problem in problems_of(over, NOW)] == ["no_worker"]


def test_what_is_paused_and_late_is_both() -> None:
    given = case(partition(end=130, age_s=900.0), state=State(state="paused"), members=())
    assert [problem.kind for problem in worst_first(problems_of(given, NOW))] == ["behind", "paused"]


def test_every_kind_has_its_place_and_the_oldest_of_a_kind_comes_first() -> None:
    def one(kind: Kind, age_s: float | None, subject: str = "s") -> Problem:
        return Problem(kind=kind, subject=subject, cause="", age_s=age_s, owner="", command="")

    assert len(WORST_FIRST) == len(set(WORST_FIRST))
    given = [one("no_worker", None), one("behind", 5.0), one("behind", 50.0), one("stopped", 1.0)]
    assert [(p.kind, p.age_s) for p in worst_first(given)] == [
        ("stopped", 1.0), ("behind", 50.0), ("behind", 5.0), ("no_worker", None),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def contracts() -> Contracts:
    return load_contracts(ROOT / "schemas" / "events")


def test_the_head_of_a_text_is_read_without_loading_it(contracts: Contracts) -> None:
    head = header(DEFINITION, contracts)
    assert (head.owner, head.slo, head.reads) == ("team-sales-ops", timedelta(minutes=5), ("billing.InvoiceCreated",))


@pytest.mark.parametrize(
    "text", ["", "[", "just words", "policies: 5", "routes: {a: b}", "owner: [x]", "policies: {slo: soon}"]
)
def test_a_text_that_is_no_subscription_has_an_empty_head(text: str, contracts: Contracts) -> None:
    head = header(replace(DEFINITION, text=text), None)
    assert head.slo is None
    assert head.reads == ()
    assert subject_of(AttachedSubscription(name="s", definition=replace(DEFINITION, text=text)), contracts).name == "s"


def test_without_an_slo_of_its_own_the_strictest_contract_counts(contracts: Contracts) -> None:
    text = "owner: team-data\nroutes: [{event: ['accounts.*', 'billing.*']}]\n"
    both = replace(DEFINITION, text=text, events=("accounts.UserSignedUp", "billing.InvoiceCreated"))
    assert header(both, contracts).slo == contracts["billing.InvoiceCreated"].freshness_slo
    assert header(both, None).slo is None


def test_events_that_a_wildcard_has_gained_since_are_not_read_yet(contracts: Contracts) -> None:
    text = "routes: [{event: ['billing.*']}]\n"
    attached = AttachedSubscription(name="s", definition=replace(DEFINITION, text=text))
    assert not_read_yet(attached, header(replace(DEFINITION, text=text), contracts), contracts) == (
        "billing.InvoicePaid",
        "billing.InvoiceVoided",
    )
    without = AttachedSubscription(name="s", definition=DEFINITION)
    assert not_read_yet(without, header(DEFINITION, contracts), contracts) == ()


def test_what_ends_among_the_events_it_was_attached_for_is_found(contracts: Contracts) -> None:
    known = Contracts({**contracts, ENDING.name: ENDING})
    attached = AttachedSubscription(name="s", definition=DEFINITION)
    assert ending(attached, known) == (ENDING,)
    assert ending(attached, contracts) == ()
    assert ending(attached, None) == ()


@pytest.fixture
def broker(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setenv("BACKBONE_PROJECT", str(project_folder(stack, tmp_path)))
    return Broker(stack)


Attach = Callable[..., str]


@pytest.fixture
def attach(broker: Broker, make_topic: MakeTopic, prefix: str) -> Iterator[Attach]:
    """Attach a subscription of a name; answers its source topic."""
    names = []

    def make(name: str, **settings: Any) -> str:
        topic = make_topic(f"{name}-source", partitions=2, config={"message.timestamp.type": "CreateTime"})
        make_topic(f"{name}.dead", partitions=2, config={"cleanup.policy": "compact"})
        names.append(f"{prefix}.{name}")
        broker.attach(names[-1], {topic: 2}, **settings)
        return topic

    yield make
    for name in names:
        broker.detach(name)


@pytest.fixture
def beat(broker: Broker, prefix: str) -> Iterator[Callable[..., str]]:
    """Say as a worker of this test what it does; answers the worker's name. It leaves at the end of the test."""
    process = f"{prefix}/1"

    def say(*views: SubscriptionView, connections: tuple[ConnectionView, ...] = ()) -> str:
        broker.beat(Heartbeat(process=process, at=time.time(), subscriptions=views, connections=connections))
        return process

    yield say
    broker.farewell(process)


def problems(name: str) -> list[tuple[str, str]]:
    found = backbone("status", "--output", "json")
    assert found.code == 0, found.err
    return [(p["kind"], p["cause"]) for p in found.data["problems"] if p["subject"] == name]


@pytest.mark.integration
def test_status_finds_stopped_late_and_unattended_subscriptions_worst_first(
    broker: Broker, attach: Attach, prefix: str
) -> None:
    attach("stopped")
    broker.control(
        state_record(
            f"{prefix}.stopped", State(state="stopped", reason="the dead topic is not writable", at=timestamp())
        )
    )
    late = attach("late")
    broker.produce(late, 3, at_ms=int((time.time() - 3600) * 1000))
    attach("idle")
    answer = backbone("status", "--output", "json")
    assert answer.code == 0, answer.err
    found = {p["subject"]: p for p in answer.data["problems"] if p["subject"].startswith(prefix)}
    assert found[f"{prefix}.stopped"]["kind"] == "stopped"
    assert found[f"{prefix}.late"]["kind"] == "nobody_reads"
    assert 3500 < found[f"{prefix}.late"]["age_s"] < 3700
    assert found[f"{prefix}.late"]["owner"] == "team-sales-ops"
    assert found[f"{prefix}.idle"]["kind"] == "no_worker"
    order = [p["subject"] for p in answer.data["problems"] if p["subject"].startswith(prefix)]
    assert order == [f"{prefix}.stopped", f"{prefix}.late", f"{prefix}.idle"]
    rows = {row["name"]: row for row in answer.data["subscriptions"]}
    assert (rows[f"{prefix}.late"]["lag"], rows[f"{prefix}.late"]["slo_seconds"]) == (3, 300.0)
    human = backbone("status")
    assert human.code == 0
    assert f"STOPPED  {prefix}.stopped" in human.out
    assert f"-> backbone subscription resume {prefix}.stopped" in human.out


@pytest.mark.integration
def test_a_running_member_that_is_level_is_well_once_its_worker_is_heard(
    broker: Broker, attach: Attach, prefix: str, beat: Callable[..., str]
) -> None:
    topic = attach("well")
    beat()
    member = broker.join(f"{prefix}.well", topic)
    assert [kind for kind, _ in problems(f"{prefix}.well")] == ["not_seen"]
    beat(SubscriptionView(name=f"{prefix}.well", partitions=2))
    assert problems(f"{prefix}.well") == []
    member.close()


@pytest.mark.integration
def test_a_started_partition_without_a_commit_is_no_position(broker: Broker, attach: Attach, prefix: str) -> None:
    topic = attach("expired")
    broker.control(*(start_record(f"{prefix}.expired", topic, p, Start(offset=0, state="started")) for p in (0, 1)))
    kinds = [kind for kind, _ in problems(f"{prefix}.expired")]
    assert kinds == ["no_position", "no_worker"]


@pytest.mark.integration
def test_workers_asked_to_leave_are_said_and_not_taken_for_absent(broker: Broker, attach: Attach, prefix: str) -> None:
    attach("away")
    broker.control(leave_record(f"{prefix}.away", Leave(change="ch-7f3a", until=minutes_from_now(5))))
    assert [kind for kind, _ in problems(f"{prefix}.away")] == ["asked_to_leave"]


def test_a_cluster_without_the_control_topic_is_not_well() -> None:
    """It was: `Nothing is wrong. Nothing is attached.`, on a cluster that had lost what was attached."""
    problem, blind = missing_topics(None, {"accounts.users"})
    assert (problem.subject, problem.command) == ("backbone.control", "backbone schema register")
    assert (blind.subject, blind.command) == ("backbone.heartbeat", "backbone schema register")
    assert missing_topics(None, {"backbone.control", "backbone.heartbeat"}) == []


@pytest.mark.integration
def test_a_topic_that_a_contract_promises_and_nobody_made_is_said(broker: Broker) -> None:
    answer = backbone("status", "--output", "json")
    promised = {"accounts.users", "billing.invoices"} - set(broker.admin.list_topics(timeout=10).topics)
    missing = {p["subject"] for p in answer.data["problems"] if p["kind"] == "topic_missing"}
    assert promised <= missing


@pytest.mark.integration
def test_one_subscription_in_full(broker: Broker, attach: Attach, prefix: str) -> None:
    from consumers.offsets import encode_runs

    name = f"{prefix}.full"
    topic = attach("full", starts={(f"{prefix}.full-source", 0): 1})
    broker.produce(topic, 6)
    broker.commit(name, topic, {0: 2}, metadata=encode_runs(2, [(3, 5)]))
    answer = backbone("status", name, "--output", "json")
    assert answer.code == 0, answer.err
    shown = answer.data
    first, second = shown["partitions"]
    assert (first["committed"], first["end"], first["lag"], first["begun"], first["done_ahead"]) == (2, 6, 4, 1, 2)
    assert (second["committed"], second["start_state"]) == (None, "pending")
    assert (shown["version"], shown["attached_by"], shown["owner"]) == ("3f9a2c", "ana", "team-sales-ops")
    over_workers = shown["connection"].pop("over_workers")
    assert shown["connection"] == {"name": "slack", "state": "running", "reason": ""}
    assert (over_workers["state"], over_workers["workers"]) == ("unused", 0)
    (next_,) = shown["next"]
    assert (next_["origin"], next_["event"], next_["key"]) == (f"{topic}/0/2", None, None)
    assert next_["age_seconds"] >= 0
    assert [problem["kind"] for problem in shown["problems"]] == ["nobody_reads"]
    human = backbone("status", name)
    assert human.code == 0
    assert "3f9a2c, attached" in human.out
    assert "NOBODY READS" in human.out


def contract_with_an_email_as_its_key(project: Path) -> None:
    """The project's contracts are its own from now on, and the key of accounts.UserErased is personal."""
    shutil.copytree(ROOT / "schemas" / "events", project / "events")
    file = project / "events" / "accounts" / "UserErased.avsc"
    schema = json.loads(file.read_text())
    (key,) = [field for field in schema["fields"] if field["name"] == schema["backbone"]["key"]]
    key["personal_data"] = "email"
    file.write_text(json.dumps(schema))
    settings = project / "backbone.toml"
    settings.write_text(settings.read_text().replace(f"{ROOT}/schemas/events", "events"))


@pytest.mark.integration
def test_what_the_workers_say_is_named_with_the_masked_key_of_the_record_at_its_origin(
    broker: Broker, attach: Attach, prefix: str, beat: Callable[..., str], tmp_path: Path
) -> None:
    name = f"{prefix}.holds"
    contract_with_an_email_as_its_key(tmp_path)
    topic = attach("holds")
    broker.produce(topic, 1, key=b"ana@example.org", event="accounts.UserErased", at_ms=int(time.time() * 1000))
    broker.produce(topic, 1, key=b"INV-7", event="billing.InvoiceCreated", at_ms=int(time.time() * 1000))
    broker.produce(topic, 2, key=b"who", event="no.SuchEvent")
    now = time.time()
    held = tuple(
        Held(origin=f"{topic}/0/{offset}", why="retry", since=now - 900 + offset, waiting=41, reason="http_500")
        for offset in (0, 1, 2, 99)
    )
    parked = (Held(origin=f"{topic}/0/1", why="parked", since=now - 3600, waiting=7, reason="invalid_channel"),)
    circuit = ConnectionView(
        name="slack", state="open", reason="timeout", until=now + 60, in_flight=0, quota_used=0.4, waiting=1
    )
    process = beat(
        SubscriptionView(name=name, held=held, held_total=30, parked=parked, parked_keys=1, records_per_s=1.5),
        connections=(circuit,),
    )
    found = dict(problems(name))
    assert found["key_held"].startswith(f"{topic}/0/0, accounts.UserErased of ‹email›: ")
    assert "41 events wait behind it. 29 more keys are held." in found["key_held"]
    assert found["keys_parked"].startswith("1 key is parked behind open dead letters; the oldest: ")
    assert f"{topic}/0/1, billing.InvoiceCreated of INV-7, 7 events wait behind it" in found["keys_parked"]
    overview = backbone("status", "--output", "json")
    (row,) = [row for row in overview.data["subscriptions"] if row["name"] == name]
    assert row["held_by"][:3] == ["no worker", "open circuit", "held key"]
    assert (row["held_keys"], row["parked_keys"], row["records_per_second"]) == (30, 1, 1.5)
    assert "ana@example.org" not in overview.out
    assert "open circuit" in backbone("status").out

    answer = backbone("status", name, "--output", "json")
    assert answer.code == 0, answer.err
    assert [(one["event"], one["key"]) for one in answer.data["held"]][1:] == [
        ("billing.InvoiceCreated", "INV-7"), ("no.SuchEvent", "‹not shown›"), (None, None),
    ]  # fmt: skip
    assert answer.data["connection"]["over_workers"]["state"] == "open"
    assert [p["kind"] for p in answer.data["problems"]][:3] == ["nobody_reads", "circuit_open", "key_held"]
    human = backbone("status", name)
    assert "HELD RECORD" in human.out
    assert "26 more are held." in human.out
    assert "slack, open, 40% of its rate used" in human.out
    assert "ana@example.org" not in human.out + answer.out
    assert process not in human.out, "it is no member of the group"


@pytest.mark.integration
def test_a_late_subscription_says_when_it_will_be_level_by_what_its_workers_finish_and_its_topics_gain(
    broker: Broker, attach: Attach, prefix: str, beat: Callable[..., str]
) -> None:
    name = f"{prefix}.backlog"
    topic = attach("backlog")
    broker.produce(topic, 600, at_ms=int((time.time() - 3600) * 1000), linger_ms=20)
    broker.commit(name, topic, {0: 0, 1: 0})
    member = broker.join(name, topic)

    def late(**view: Any) -> dict[str, Any]:
        beat(SubscriptionView(name=name, partitions=2, **view))
        found = backbone("status", "--output", "json").data["problems"]
        (problem,) = [one for one in found if one["subject"] == name]
        return dict(problem)

    catching_up = late(records_per_s=10.0)
    assert (catching_up["kind"], catching_up["eta_s"]) == ("catching_up", 60.0)
    assert "600 offsets wait. It is catching up: level in about 1m." in catching_up["cause"]
    assert late(records_per_s=0.0)["cause"].endswith("It does not get closer.")
    folding = late(fold_read=412, fold_to_read=600, fold_to_send=90)
    assert folding["kind"] == "catching_up"
    assert "It is folding the past: 412 of 600 offsets read, 0 deliveries sent" in folding["cause"]
    beat(SubscriptionView(name=name, fold_read=600, fold_to_read=600, fold_sent=31, fold_to_send=100))
    text = backbone("status", name).out
    assert "catch-up      sending what was folded: 31 of 100 deliveries" in text
    broker.produce(topic, 1200, at_ms=int(time.time() * 1000), linger_ms=20)
    faster = late(records_per_s=19.0)
    assert faster["kind"] == "behind", "20 a second are written, 19 are finished"
    member.close()


@pytest.mark.integration
def test_a_member_is_shown_with_what_its_process_said(
    broker: Broker, attach: Attach, prefix: str, beat: Callable[..., str]
) -> None:
    name = f"{prefix}.member"
    topic = attach("member")
    process = beat(SubscriptionView(name=name, partitions=2, unfinished=12, records_per_s=3.25))
    member = broker.join(name, topic, client_id=f"backbone-{process.replace('/', '-')}")
    (shown,) = backbone("status", name, "--output", "json").data["members"]
    assert (shown["process"], shown["state"], shown["unfinished"]) == (process, "running", 12)
    assert shown["heard_seconds"] < 40
    member.close()


@pytest.mark.integration
def test_names_that_are_not_attached_are_not_found(broker: Broker, attach: Attach, prefix: str) -> None:
    attach("here")
    answer = backbone("status", f"{prefix}.hear")
    assert answer.code == 5
    assert f"Did you mean '{prefix}.here'?" in answer.err
    broker.detach(f"{prefix}.here")
    detached = backbone("status", f"{prefix}.here", "--output", "json")
    assert detached.code == 5
    assert "is detached" in detached.err
