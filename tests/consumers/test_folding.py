"""Folding a partition's past: what the vendor ends with, how often it is asked, and what is left to the flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.connector import Delivered, Outcome, Rejected
from consumers.assignment import Assigned, Place
from consumers.calls import asked
from consumers.erased import Erased, ErasedPerson
from consumers.folding import AGAIN_MAX, SHUT_KEYS_MAX, Folds
from consumers.pipeline import ToDeliver
from consumers.spill import Folded, Spill
from consumers.work import Limits
from schemas.codec import SchemaWanted
from schemas.event import Record
from tests.simulation.checker import SOURCE, Checker
from tests.simulation.plan import Pipeline, plan_of, subscription_of
from tests.simulation.world import Nature, World

PLACE: Place = (SOURCE, 0)


@dataclass
class Rig:
    """A fold of one partition's events, a vendor that is asked, and the records handed in ``at_once``."""

    outcome: Any = None
    """what the vendor answers, or a function of the delivery; None: Delivered"""
    batch_max: int = 10
    at_once: int = 7
    park: bool = False
    expire_after: timedelta | None = None
    accept: int = 1_000
    erased: Erased | None = None
    calls: list[list[Any]] = field(default_factory=list)
    rows: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    done: list[Place] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    missing: bool = False
    wanted: list[SchemaWanted] = field(default_factory=list)
    facts: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        import random

        self.world = World(partitions=1, kind="upsert", receipts=True, checker=Checker())
        plan = plan_of(random.Random(1))
        policies = replace(
            plan.policies,
            send="latest",
            expire_after=self.expire_after,
            on_dead_letter="park_key" if self.park else "continue",
        )
        self.pipeline = Pipeline(self.world)
        self.subscription = subscription_of(replace(plan, kind="upsert", batch_max=self.batch_max, policies=policies))
        self.folds = Folds(
            subscription=self.subscription,
            pipeline=self.pipeline,
            effects=self,
            observer=self.facts.append,
            limits=Limits(),
            chance=lambda: 0.5,
            wall=self.world.wall,
            accept=self.accept,
            erased=self.erased,
            spill=Spill(held_max=5),
        )

    def publish(self, entity: str, *fields: str, key: bytes | None = b"k", action: str = "put",
                nature: Nature = "fine") -> None:  # fmt: skip
        self.world.publish(0, key, nature, action, entity, fields or ("a",))

    @property
    def records(self) -> list[Record]:
        return [record for record in self.world.logs[PLACE].slots if record is not None]

    def begin(self, **changed: Any) -> None:
        until = self.world.logs[PLACE].end
        self.folds.begin([replace(Assigned(PLACE, 1, 0, (), until=until, fold=True), **changed)])

    def read(self) -> None:
        """Hand in what was asked for last."""
        records = self.records
        for at in range(0, len(records), self.at_once):
            some = records[at : at + self.at_once]
            self.folds.take(self.asked[-1], some, some[-1].offset + 1)
            while self.folds.step():
                pass

    def send(self) -> None:
        """Answer every call until there is none."""
        now = 0.0
        for _ in range(10_000):
            while self.folds.step():
                pass
            self.folds.flow.due(now)
            batch = self.folds.flow.next_batch(now)
            if batch is None:
                due = self.folds.flow.next_due()
                if due is None:
                    return
                now = due
                continue
            self.calls.append([delivery.entity for delivery in batch.deliveries])
            outcomes: list[Outcome] = []
            for delivery in batch.deliveries:
                outcome = self.outcome(delivery) if callable(self.outcome) else self.outcome or Delivered("r")
                if isinstance(outcome, Delivered):
                    body: Any = delivery.body["row"] if delivery.action == "row" else delivery.body
                    self.rows.setdefault((delivery.action, delivery.entity), {}).update(body)
                outcomes.append(outcome)
            self.folds.flow.settle(batch, outcomes, now, others_succeed=True)

    def row_of(self, record: Record) -> Folded | None:
        projection = self.pipeline.project(record)
        assert isinstance(projection, ToDeliver)
        return self.folds.row_of(record, projection.delivery)

    # ---- consumers.folding.Effects

    def read_past(self, ticket: int, place: Place, start: int, until: int) -> None:
        self.asked.append(ticket)

    def end_reading(self, ticket: int) -> None:
        """What is read is in the test's hand."""

    def is_missing(self, wanted: SchemaWanted) -> bool:
        return self.missing

    def await_past_schema(self, wanted: SchemaWanted) -> None:
        self.wanted.append(wanted)

    def folded(self, place: Place) -> None:
        self.done.append(place)


Change = tuple[int, str, tuple[str, ...]]
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.sampled_from(["put", "row"]),
        st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "c")]),
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(CHANGES, st.booleans(), st.integers(1, 9))
def test_the_vendor_ends_as_if_every_event_had_been_sent_with_one_delivery_a_thing(
    changes: Sequence[Change], keyless: bool, batch_max: int
) -> None:
    rig = Rig(batch_max=batch_max)
    expected: dict[tuple[str, str], dict[str, int]] = {}
    for number, (entity, action, fields) in enumerate(changes):
        rig.publish(f"e{entity}x", *fields, key=None if keyless else b"k%d" % (entity // 2), action=action)
        expected.setdefault((action, f"e{entity}x"), {}).update(dict.fromkeys(fields, number))
    rig.begin()
    rig.read()
    rig.send()
    assert rig.rows == expected
    assert sum(map(len, rig.calls)) == len(expected)
    assert rig.done == ([PLACE] if changes else [])
    for record in rig.records:
        row = rig.row_of(record)
        assert row is not None
        assert row.end is not None
        assert row.end.outcome == "delivered"


def test_calls_are_full() -> None:
    rig = Rig(batch_max=10)
    for number in range(200):
        rig.publish(f"e{number % 35}", key=b"k%d" % (number % 35))
    rig.begin()
    rig.read()
    rig.send()
    assert sorted(map(len, rig.calls)) == [5, 10, 10, 10]


def test_the_key_of_a_folded_delivery_is_the_same_whenever_the_same_events_are_folded() -> None:
    keys = []
    for at_once in (1, 50):
        rig = Rig(at_once=at_once)
        for number in range(50):
            rig.publish(f"e{number % 4}", "a" if number % 3 else "b", key=b"k")
        rig.begin()
        rig.read()
        keys.append([rig.row_of(record).delivery.idempotency_key for record in rig.records])  # type: ignore[union-attr]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 4


def test_what_is_rejected_as_one_is_left_to_be_sent_one_by_one() -> None:
    rig = Rig(outcome=lambda delivery: Rejected("invalid") if delivery.entity == "bad" else Delivered())
    for entity in ("bad", "good", "bad", "good", "once-bad"):
        rig.publish(entity, key=entity.encode())
    rig.begin()
    rig.read()
    rig.send()
    assert rig.done == [PLACE]
    ends = [rig.row_of(record).end.outcome for record in rig.records]  # type: ignore[union-attr]
    assert ends == ["alone", "delivered", "alone", "delivered", "delivered"]


def test_when_everything_is_rejected_the_rest_is_not_tried_folded() -> None:
    rig = Rig(outcome=Rejected("invalid"), batch_max=1, accept=0)
    for number in range(100):
        rig.publish(f"e{number % 50}", key=b"k%d" % (number % 50))
    rig.begin()
    rig.read()
    rig.send()
    assert len(rig.calls) == 5
    assert rig.done == [PLACE]
    assert rig.row_of(rig.records[60]).end is None  # type: ignore[union-attr]


def test_after_an_event_that_must_go_in_its_place_nothing_of_its_key_is_folded() -> None:
    rig = Rig()
    for entity, action, key in [
        ("e1", "put", b"k"), ("e2", "put", b"l"), ("e1", "post", b"k"), ("e1", "put", b"k"), ("e2", "put", b"l")
    ]:  # fmt: skip
        rig.publish(entity, key=key, action=action)
    rig.begin()
    rig.read()
    rig.send()
    folded = [rig.row_of(record) is not None for record in rig.records]
    assert folded == [True, True, False, False, True]
    assert rig.rows == {("put", "e1"): {"a": 0}, ("put", "e2"): {"a": 4}}


def test_what_is_too_old_is_left_out_wherever_it_stands() -> None:
    rig = Rig(expire_after=timedelta(seconds=60))
    for at, key in ((0, b"k"), (100, b"k"), (0, b"k"), (100, b"k"), (100, b"l")):
        rig.world.now = at
        rig.publish("e", key=key)
    rig.begin()
    rig.read()
    rig.send()
    folded = [rig.row_of(record) is not None for record in rig.records]
    assert folded == [False, True, False, False, True], "times that go back end the folding of their key"


def test_with_too_many_such_keys_the_fold_ends_where_it_is() -> None:
    rig = Rig(at_once=500)
    for number in range(SHUT_KEYS_MAX + 1):
        rig.publish("e", key=b"k%d" % number, action="post")
    rig.publish("e", key=b"new")
    rig.begin()
    rig.read()
    rig.send()
    assert rig.row_of(rig.records[-1]) is None
    assert rig.done == [PLACE]


def test_behind_what_parks_a_key_nothing_is_folded() -> None:
    rig = Rig(park=True)
    for nature, key in (("fine", b"k"), ("refused", b"k"), ("fine", b"k"), ("fine", b"parked"), ("fine", b"l")):
        rig.publish("e", key=key, nature=nature)  # type: ignore[arg-type]
    rig.begin(open_letters=[(b"parked", 0)])
    rig.read()
    folded = [rig.row_of(record) is not None for number, record in enumerate(rig.records) if number != 1]
    assert folded == [True, False, False, True]


def test_a_schema_that_is_not_known_is_waited_for_and_what_nobody_has_ends_the_folding_of_its_key() -> None:
    rig = Rig()
    for nature, key in (("fine", b"k"), ("lost_schema", b"k"), ("fine", b"k"), ("fine", b"l")):
        rig.publish("e", key=key, nature=nature)  # type: ignore[arg-type]
    rig.begin()
    rig.read()
    assert len(rig.wanted) == 1
    assert rig.folds.progress().read == 1  # type: ignore[union-attr]
    rig.missing = True
    rig.folds.go_on()
    rig.send()
    folded = [rig.row_of(record) is not None for number, record in enumerate(rig.records) if number != 1]
    assert folded == [True, False, True]


def test_what_an_earlier_assignment_finished_is_not_folded_again() -> None:
    rig = Rig()
    for _ in range(6):
        rig.publish("e", key=b"k")
    rig.begin(offset=1, done=[(2, 4)])
    rig.folds.take(rig.asked[-1], rig.records[1:], 6)
    rig.send()
    assert rig.rows == {("put", "e"): {"a": 5}}
    assert [fact.events for fact in rig.facts if type(fact).__name__ == "PastFolded"] == [3]


def test_somebody_erased_meanwhile_makes_the_fold_begin_anew() -> None:
    rig = Rig(erased=(erased := Erased(b"key")))
    rig.publish("e", key=b"k")
    rig.begin()
    rig.read()
    person = ErasedPerson(field="user_id", events=(), at="2026-01-01T00:00:00+00:00", change="c", key_id="x")
    for number in range(5):
        erased.put(f"mark{number}", replace(person, key_id=""))
        while rig.folds.step():
            pass
        assert len(rig.asked) == min(2 + number, 1 + AGAIN_MAX)  # not without end
        assert rig.done == ([PLACE] if number >= AGAIN_MAX else [])


def test_a_folded_call_carries_what_any_route_carries_so_that_it_is_masked() -> None:
    rig = Rig()
    rig.folds = Folds(
        subscription=replace(
            subscription := rig.subscription,
            routes={
                "shop.Changed": (
                    replace(subscription.routes["shop.Changed"][0], carried={"entity": frozenset({"none"})}),
                    replace(subscription.routes["shop.Changed"][0], carried={"body.a": frozenset({"email"})}),
                )
            },
        ),
        pipeline=rig.pipeline, effects=rig, observer=rig.facts.append, limits=Limits(), chance=lambda: 0.5,
        wall=rig.world.wall,
    )  # fmt: skip
    rig.publish("e")
    rig.begin()
    rig.read()
    while rig.folds.step():
        pass
    batch = rig.folds.flow.next_batch(0.0) or rig.folds.flow.next_batch(1.0)
    assert batch is not None
    assert asked(batch, [Delivered()])[0].carried == {"entity": {"none"}, "body.a": {"email"}}


def test_a_row_knows_the_routes_of_all_its_events_so_that_its_receipt_can_say_what_was_sent() -> None:
    rig = Rig()
    project = rig.pipeline.project

    class Routed:
        def route(self, record: Record) -> bool:
            return True

        def project(self, record: Record, revision: str = "") -> Any:
            made = project(record, revision)
            assert isinstance(made, ToDeliver)
            return replace(made, route=replace(made.route, place=f"routes[{min(record.offset, 1)}]"))

    rig.folds = Folds(
        subscription=rig.subscription, pipeline=Routed(), effects=rig, observer=rig.facts.append, limits=Limits(),
        chance=lambda: 0.5, wall=rig.world.wall, spill=Spill(held_max=1),
    )  # fmt: skip
    for entity in ("e", "e", "f", "e"):
        rig.publish(entity)
    rig.begin()
    rig.read()
    rig.send()
    rows = [rig.row_of(record) for record in rig.records]
    assert [row.routes for row in rows if row is not None] == [("routes[0]", "routes[1]")] * 2 + [
        ("routes[1]",), ("routes[0]", "routes[1]"),
    ]  # fmt: skip
