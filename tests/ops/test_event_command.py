"""``backbone event`` as a person types it, at a real broker and registry."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops.commands.event import _broken_off
from ops.lag.cluster import Cluster
from ops.publishing import Done
from schemas.contract import Contract
from schemas.errors import UnreachableError
from schemas.registry import open_registry
from tests.conftest import MakeTopic, Stack
from tests.ops.broker import Answer, Broker, backbone
from tests.producers.events import contract_on, note

pytestmark = pytest.mark.integration

SECRET = "s3cret"
PROJECT = """
[project]
name = "acme"
schemas = "events"
subscriptions = "subscriptions"
[contexts.local]
connections = "fake"
"""


@dataclass
class World:
    """A project with one event, ``demo.NoteWritten``, registered and with its topic of two partitions."""

    folder: Path
    contract: Contract
    broker: Broker

    def file(self, lines: list[Any], name: str = "notes.jsonl") -> str:
        path = self.folder / name
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return str(path)

    def is_empty(self) -> bool:
        places = [(self.contract.topic, partition) for partition in range(2)]
        return set(Cluster(self.broker.admin, self.broker.consumer).ends(places, "uncommitted").values()) == {0}

    def published(self) -> list[dict[str, Any]]:
        """The payloads that stand in the topic, as ``tail`` shows them."""
        answer = backbone(
            "event", "tail", self.contract.topic, "--from", "earliest", "--no-follow", "--output", "ndjson"
        )
        assert answer.code == 0, answer.err
        return [json.loads(line)["data"] for line in answer.out.splitlines()]


@pytest.fixture
def world(stack: Stack, make_topic: MakeTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    contract = contract_on(make_topic("notes", partitions=2))
    (tmp_path / "backbone.toml").write_text(PROJECT)
    (tmp_path / "events" / "demo").mkdir(parents=True)
    (tmp_path / "events" / "demo" / "NoteWritten.avsc").write_text(contract.text)
    (tmp_path / ".backbone").mkdir()
    running = json.loads((stack.folder / "local.json").read_text())
    (tmp_path / ".backbone" / "local.json").write_text(json.dumps({"fakes": {}} | running))
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    open_registry(stack.registry_url).register(contract.subject, contract.text)
    return World(tmp_path, contract, Broker(stack))


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def use(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return use


# ---- publish


def test_one_event_is_published_and_its_place_is_said(world: World) -> None:
    answer = backbone(
        "event", "publish", "NoteWritten", "--data", json.dumps(note()), "--id", "mine", "--output", "json"
    )
    assert answer.code == 0, answer.err
    data = answer.data
    assert (data["event"], data["topic"], data["id"]) == ("demo.NoteWritten", world.contract.topic, "mine")
    (row,) = world.published()
    assert (row["id"], row["source"], row["data"]["note_id"]) == ("mine", "backbone/cli", "n-1")
    assert f"{data['partition']}/{data['offset']}" == f"{row['partition']}/{row['offset']}"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["NoteWriten", "--data", "{}"], 5, "Did you mean 'NoteWritten'?"),
        (["NoteWritten", "--data", "{"], 2, "--data: it is not JSON: Expecting property name"),
        (["NoteWritten", "--data", "[]"], 2, "--data: an event is a JSON object with its fields."),
        (["NoteWritten", "--data", '{"a": 1, "a": 2}'], 2, "a key stands twice"),
        (["NoteWritten", "--data", '{"a": NaN}'], 2, "NaN is not JSON"),
        (["NoteWritten", "--data", "[" * 100_000], 2, "nested too deeply"),
        (["NoteWritten", "--data", '{"note_id": "x"}'], 2, "field text is missing"),
        (["NoteWritten", "--data", json.dumps(note(count=SECRET))], 2, "field count must be a whole number"),
        (["NoteWritten", "--data", json.dumps(note(txet=SECRET))], 2, "Did you mean 'text'?\n"),
        (["NoteWritten"], 2, "Give either --data or --file."),
        (["NoteWritten", "--data", "{}", "--file", "x"], 2, "Give either --data or --file."),
        (["NoteWritten", "--data", "{}", "--from-line", "2"], 2, "--repeatable and --from-line are for a file."),
        (["NoteWritten", "--file", "x", "--id", "x"], 2, "--id is for one event"),
        (["NoteWritten", "--file", "/nowhere.jsonl"], 5, "There is no file /nowhere.jsonl."),
        (["NoteWritten", "--file", "/proc"], 2, "/proc is a folder"),
        (["NoteWritten", "--file", "/proc/self/mem"], 2, "Line 1: it cannot be read"),
    ],
)
def test_what_can_be_typed_wrong_is_one_sentence_and_publishes_nothing(
    world: World, arguments: list[str], code: int, sentence: str
) -> None:
    answer = backbone("event", "publish", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert sentence in answer.err
    assert SECRET not in answer.err
    assert "Traceback" not in answer.err
    assert world.is_empty()


def test_a_topic_or_schema_that_is_not_there_names_the_command_that_makes_it(world: World, prefix: str) -> None:
    file = world.folder / "events" / "demo" / "NoteWritten.avsc"
    file.write_text(contract_on(f"{prefix}.missing").text)
    answer = backbone("event", "publish", "NoteWritten", "--data", json.dumps(note()))
    assert answer.code == 5
    assert "Create it: backbone schema register demo.NoteWritten" in answer.err
    file.write_text(contract_on(world.contract.topic, contact="#other").text)
    answer = backbone("event", "publish", "NoteWritten", "--data", json.dumps(note()))
    assert answer.code == 6
    assert "backbone schema register demo.NoteWritten" in answer.err


def test_a_file_is_published_in_order_and_counted(world: World) -> None:
    lines = [note("a", count=number) for number in range(500)]
    answer = backbone("event", "publish", "demo.NoteWritten", "--file", world.file(lines), "--output", "json")
    assert answer.code == 0, answer.err
    assert answer.data["published"] == 500
    assert "500/500 events" in answer.err
    assert [row["data"]["count"] for row in world.published()] == list(range(500))


def test_a_bad_line_in_a_file_is_named_before_anything_is_published(world: World) -> None:
    path = world.file([note(), "", note(count=SECRET), note()])
    answer = backbone("event", "publish", "NoteWritten", "--file", path)
    assert answer.code == 2
    assert "Line 3: demo.NoteWritten: field count must be" in answer.err
    assert "Nothing was published." in answer.err
    assert SECRET not in answer.err
    assert world.is_empty()


def test_a_pipe_in_place_of_a_file_is_read_once(world: World) -> None:
    """`--file <(generate)`: a pipe was read to its end to be checked, and then nothing was left to publish."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write("".join(json.dumps(note(note_id=f"n-{number}")) + "\n" for number in range(3)))
    answer = backbone("event", "publish", "NoteWritten", "--file", f"/dev/fd/{reading}", "--output", "json")
    os.close(reading)
    assert answer.code == 0, answer.err
    assert answer.data["published"] == 3
    assert len(world.published()) == 3


def test_json_over_several_lines_is_said_with_the_line_of_the_file(world: World) -> None:
    """It was: `Line 1: it is not JSON: … at line 2, column 1`."""
    answer = backbone("event", "publish", "NoteWritten", "--file", world.file([json.dumps(note(), indent=1)]))
    assert answer.code == 2
    assert "Line 1: it is not JSON: Expecting property name enclosed in double quotes at column 2;" in answer.err
    assert "one event stands on one line." in answer.err


def test_nothing_on_standard_input_is_said(world: World, type_in: Callable[[str], None]) -> None:
    type_in("")
    answer = backbone("event", "publish", "NoteWritten", "--file", "-")
    assert answer.code == 2
    assert "Standard input holds no event." in answer.err
    assert world.is_empty()


def test_when_the_rest_of_a_file_failed_the_line_to_go_on_from_is_said() -> None:
    """It said: publish what failed by itself, and named six of a thousand lines."""
    away = UnreachableError("It is not known whether it was published.")
    rest = Done(acked=7, failures=tuple((number, away) for number in range(8, 20)))
    assert "Go on with --from-line 8" in str(_broken_off(rest, 1))
    scattered = Done(acked=7, failures=((3, away), (9, away)))
    assert "Publish what failed by itself" in str(_broken_off(scattered, 1))


def test_a_bad_line_of_standard_input_ends_it_and_says_how_to_go_on(
    world: World, type_in: Callable[[str], None]
) -> None:
    lines = [json.dumps(note(f"n-{number}")) for number in range(5)]
    type_in("\n".join([*lines[:3], '{"note_id": ', *lines[3:]]))
    answer = backbone("event", "publish", "NoteWritten", "--file", "-")
    assert answer.code == 7
    assert "Line 4: it is not JSON" in answer.err
    assert "3 events published and acknowledged. Correct it and go on with --from-line 4" in answer.err
    assert len(world.published()) == 3
    type_in("\n".join([*lines[:3], "", *lines[3:]]))
    answer = backbone("event", "publish", "NoteWritten", "--file", "-", "--from-line", "4")
    assert answer.code == 0, answer.err
    assert sorted(row["key"] for row in world.published()) == [f"n-{number}" for number in range(5)]


def test_an_event_of_standard_input_that_does_not_fit_ends_it_too(world: World, type_in: Callable[[str], None]) -> None:
    type_in("\n".join(json.dumps(one) for one in (note(), note(count=-1), note())))
    answer = backbone("event", "publish", "NoteWritten", "--file", "-")
    assert answer.code == 7
    assert "Line 2: demo.NoteWritten: field count must be at least 0." in answer.err
    assert "1 event published and acknowledged. Correct it and go on with --from-line 2" in answer.err
    assert len(world.published()) == 1


def test_a_line_that_the_broker_rejects_stops_the_file_and_says_what_stands(
    world: World, make_topic: MakeTopic
) -> None:
    contract = contract_on(make_topic("small", config={"max.message.bytes": "2000"}))
    (world.folder / "events" / "demo" / "NoteWritten.avsc").write_text(contract.text)
    open_registry(world.broker.stack.registry_url).register(contract.subject, contract.text)
    big = os.urandom(30_000).hex()  # which does not compress below 2,000 bytes
    answer = backbone("event", "publish", "NoteWritten", "--file", world.file([note(text=big)]))
    assert answer.code == 6
    assert "Line 1: The event demo.NoteWritten was not published: The record, or the batch it" in answer.err
    assert "Nothing was published." in answer.err
    # the broker refuses whole batches: which of the small ones travel with the big one is a matter of milliseconds
    answer = backbone("event", "publish", "NoteWritten", "--file", world.file([note(text=big), note(), note()]))
    assert answer.code in (6, 7)
    assert "Line 1: The event demo.NoteWritten was not published" in answer.err
    assert ("Nothing was published." in answer.err) == (answer.code == 6)


def test_a_repeatable_file_published_twice_holds_the_same_events(world: World) -> None:
    path = world.file([note("a"), note("b"), note("a")])
    for _ in range(2):
        assert backbone("event", "publish", "NoteWritten", "--file", path, "--repeatable").code == 0
    ids = [row["id"] for row in world.published()]
    assert len(ids) == 6
    assert len(set(ids)) == 3


def test_a_dry_run_checks_and_publishes_nothing(world: World) -> None:
    answer = backbone("event", "publish", "NoteWritten", "--file", world.file([note()] * 3), "--dry-run")
    assert answer.code == 0
    assert "3 events of demo.NoteWritten, all valid. Nothing was published" in answer.out
    assert backbone("event", "publish", "NoteWritten", "--data", json.dumps(note()), "--dry-run").code == 0
    for given in (["--file", world.file([note()] * 3)], ["--data", json.dumps(note())]):
        machine = backbone("event", "publish", "NoteWritten", *given, "--dry-run", "--output", "json")
        assert machine.code == 0
        assert machine.data["event"] == "demo.NoteWritten", "it printed no document at all"
    assert world.is_empty()


def test_a_production_context_asks_and_is_not_written_to_without_an_answer(world: World) -> None:
    running = json.loads((world.folder / ".backbone" / "local.json").read_text())
    (world.folder / "backbone.toml").write_text(
        PROJECT
        + f'[contexts.prod]\nproduction = true\nregistry.url = "{running["registry"]}"\n'
        + f'kafka.bootstrap.servers = "{running["kafka"]}"\n'
    )
    command = ["-c", "prod", "event", "publish", "NoteWritten", "--data", json.dumps(note())]
    answer = backbone(*command)
    assert answer.code == 6
    assert world.is_empty()
    answer = backbone(*command, "--yes")
    assert answer.code == 0, answer.err
    assert len(world.published()) == 1


# ---- tail and get


def test_tail_shows_payloads_masked_and_commits_nothing(world: World) -> None:
    assert backbone("event", "publish", "NoteWritten", "--data", json.dumps(note(text=SECRET, count=4))).code == 0
    answer = backbone("event", "tail", "NoteWritten", "--from", "earliest", "--max", "1")
    assert answer.code == 0, answer.err
    assert SECRET not in answer.out
    assert "‹free_text›" in answer.out
    assert "demo.NoteWritten  n-1" in answer.out
    assert not [
        name for name in world.broker.admin.list_consumer_groups().result().valid or [] if "reader" in str(name)
    ]


def test_tail_takes_positions_partitions_keys_and_conditions(world: World) -> None:
    lines = [note(f"k-{number % 4}", count=number) for number in range(40)]
    assert backbone("event", "publish", "NoteWritten", "--file", world.file(lines)).code == 0

    def counts(*arguments: str) -> list[int]:
        answer = backbone("event", "tail", *arguments, "--no-follow", "--output", "ndjson")
        assert answer.code == 0, answer.err
        return [json.loads(line)["data"]["data"]["count"] for line in answer.out.splitlines()]

    topic = world.contract.topic
    assert sorted(counts(topic, "--from", "earliest")) == list(range(40))
    assert counts(topic, "--from", "latest") == []
    assert sorted(counts(topic, "--from", "@-1h")) == list(range(40))
    assert sorted(counts(f"{topic}:0", "--from", "earliest") + counts(f"{topic}:1", "--from", "0")) == list(range(40))
    assert len(counts(topic, "--from", "-3")) == 6
    assert counts(topic, "--from", "earliest", "--key", "k-2") == list(range(2, 40, 4))
    assert sorted(counts("NoteWritten", "--from", "earliest", "--where", "data.count > 35")) == [36, 37, 38, 39]
    assert len(counts(topic, "--from", "earliest", "--max", "5")) == 5


def test_records_that_are_no_events_are_shown_by_what_is_wrong_with_them(world: World) -> None:
    world.broker.produce(world.contract.topic, 1, value=b"garbage")
    (row,) = world.published()
    assert (row["data"], row["bytes"]) == (None, 7)
    assert row["problem"].startswith("undecodable, framing")
    answer = backbone("event", "get", f"{world.contract.topic}/0/0")
    assert answer.code == 0
    assert "garbage" not in answer.out


@pytest.mark.parametrize("form", ["{topic}/{partition}/{offset}", "{topic}:{partition}:{offset}", "{id}"])
def test_get_shows_one_event_by_its_place_or_id(world: World, form: str) -> None:
    backbone("event", "publish", "NoteWritten", "--data", json.dumps(note("other")))
    said = backbone("event", "publish", "NoteWritten", "--data", json.dumps(note(text=SECRET)), "--output", "json").data
    answer = backbone("event", "get", form.format(**said), "--output", "json")
    assert answer.code == 0, answer.err
    assert answer.data["id"] == said["id"]
    assert answer.data["data"] == {"note_id": "n-1", "text": "‹free_text›", "count": 0, "parts": []}
    assert SECRET not in backbone("event", "get", form.format(**said)).out


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("{topic}/0/99", "There is no record at {topic}/0/99: the partition is empty."),
        ("{topic}/7/0", "The topic '{topic}' has no partition 7; it has 2, numbered from 0."),
        ("nowhere/0/0", "no such topic"),
        ("some-id", "There is no event 'some-id' in the 0 records"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(world: World, place: str, sentence: str) -> None:
    answer = backbone("event", "get", place.format(topic=world.contract.topic))
    assert (answer.code, answer.out) == (5, "")
    assert sentence.format(topic=world.contract.topic) in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere"], 5, "There is no topic or event 'nowhere'."),
        (["NoteWriten"], 5, "Did you mean"),
        (["a topic"], 2, "is not a topic"),
        (["NoteWritten", "--from", "14:00"], 2, "A time begins with @"),
        (["NoteWritten", "--where", "data.cuont > 1"], 2, "cuont"),
        (["NoteWritten", "--where", "__import__('os')"], 2, ""),
        (["NoteWritten", "--max", "0"], 2, "--max"),
    ],
)
def test_what_can_be_typed_wrong_at_tail_is_one_sentence(
    world: World, arguments: list[str], code: int, sentence: str
) -> None:
    answer: Answer = backbone("event", "tail", *arguments, "--no-follow")
    assert (answer.code, answer.out) == (code, "")
    assert sentence in answer.err
    assert "Traceback" not in answer.err
