"""Events whose schema is not known yet: their lane is held and no other, and they are set aside only when the registry
has said long enough that there is no such schema."""

from __future__ import annotations

from dataclasses import dataclass, field

from consumers.flow import Flow
from consumers.pipeline import Projection, Wanted
from consumers.work import Work
from schemas.codec import SchemaWanted
from schemas.event import Record
from tests.consumers.flow_rig import JsonPipeline, Rig


class NewSchemas(JsonPipeline):
    """What begins with ``new`` has a schema that is not in memory until the test says so."""

    known = False

    def project(self, record: Record, revision: str = "") -> Projection:
        value = record.value or b""
        if value.startswith(b"new"):
            if not self.known:
                return Wanted(SchemaWanted(7))
            record = Record(record.topic, record.partition, record.offset, record.key, value[3:], (), record.timestamp)
        return super().project(record, revision)


@dataclass
class Awaiting(Rig):
    pipeline: NewSchemas = field(default_factory=NewSchemas)
    waiting: list[Work] = field(default_factory=list)
    missing: bool = False

    def __post_init__(self) -> None:
        self.flow = Flow(
            subscription=self.sub, pipeline=self.pipeline, effects=self, observer=self.told.append,
            limits=self.limits, chance=lambda: 0.5, wall=lambda: self.wall, receipts=self.receipts_on,
        )  # fmt: skip

    def is_missing(self, wanted: SchemaWanted) -> bool:
        assert wanted == SchemaWanted(7)
        return self.missing

    def await_schema(self, work: Work, wanted: SchemaWanted) -> None:
        self.waiting.append(work)

    def answered(self) -> None:
        """The registry has said what it had to say."""
        waited, self.waiting = self.waiting, []
        self.flow.go_on(waited)


def begun() -> Awaiting:
    rig = Awaiting()
    rig.assign(("t", 0))
    rig.give(b'new{"entity": "a", "n": 1}', {"entity": "a", "n": 2}, key=b"a")
    rig.give({"entity": "b", "n": 1}, key=b"b")
    return rig


def test_the_lane_of_an_unknown_schema_is_held_and_no_other() -> None:
    rig = begun()
    assert rig.deliver() == [{"entity": "b", "n": 1}]
    assert len(rig.waiting) == 1
    assert rig.committed() in (None, 0)
    (held,) = rig.flow.view(rig.now).held
    assert (held.why, held.origin, held.waiting) == ("schema", "t/0/0", 1)


def test_when_the_schema_is_there_its_lane_goes_on_in_order() -> None:
    rig = begun()
    rig.deliver()
    rig.pipeline.known = True
    rig.answered()
    assert rig.deliver() == [{"entity": "a", "n": 1}, {"entity": "a", "n": 2}]
    assert rig.committed() == 3
    assert rig.letters == []


def test_a_schema_that_the_registry_does_not_have_makes_a_dead_letter_with_the_same_bytes_and_the_lane_goes_on() -> (
    None
):
    rig = begun()
    rig.deliver()
    rig.missing = True
    rig.answered()
    assert rig.deliver() == [{"entity": "a", "n": 2}]
    (letter,) = rig.letters
    assert (letter.outcome, letter.reason, letter.detail) == ("undecodable", "schema_unknown", "7")
    assert (letter.key, letter.value) == (b"a", b'new{"entity": "a", "n": 1}')
    assert rig.committed() == 3


def test_a_schema_that_comes_when_its_partition_has_been_left_moves_nothing() -> None:
    rig = begun()
    rig.deliver()
    rig.flow.lost([("t", 0)])
    rig.pipeline.known = True
    rig.answered()
    assert rig.deliver() == []
