"""``backbone subscription shadow``: a new version against what was sent, at a real broker with a real ledger; and its
pure parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from connectors.connector import Delivery
from consumers.control import erased_record
from consumers.erased import ErasedPerson, key_id, mark_of
from consumers.pipeline import ToDeliver
from consumers.receipts import body_hash
from consumers.subscription import Projected, Route
from ops.changes.staleness import attached_subscription
from ops.control import write_control
from ops.lag.cluster import Cluster
from ops.reading import Spans
from ops.shadow import comparison
from ops.shadow.difference import Difference, between
from ops.shadow.tally import ELSEWHERE, PLACES_MAX, Compared, Tally, parse_share, percent
from schemas.errors import InputError
from schemas.event import Event, Origin, Record
from tests.conftest import Stack
from tests.ops.rows import TEXT, Rows, new_rows

PROJECTION = """
from consumers.subscription import Projected


def made(event):
    row = {'state': 'old', 'kind': 'x'}
    return Projected(action='row.upsert', entity=event.data['invoice_id'], body={'table': 'invoices', 'row': row})
"""
CREATED, PAID = "billing.InvoiceCreated", "billing.InvoicePaid"
AT = Origin("billing.invoices", 0, 7)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5]) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("xy", max_size=2), inner, max_size=3),
    max_leaves=6,
)
bodies = st.dictionaries(st.text("xyz", min_size=1, max_size=2), values, max_size=4)


def made(
    body: dict[str, Any], *, action: str = "row.upsert", entity: str = "1", place: str = "routes[0]",
    where: str | None = None, carried: Mapping[str, frozenset[str]] | None = None,
) -> ToDeliver:  # fmt: skip
    event = Event(id="e", source="shop", type=CREATED, time=datetime.now(UTC), key="1", subject="1", data={})
    route = Route(
        events=(CREATED,), fits=None, project=lambda _: Projected(action=action, entity=entity, body=body),
        action=action, reads=None, source={"where": where}, place=place,
        carried=carried or {},
    )  # fmt: skip
    return ToDeliver(event, Delivery(action=action, entity=entity, idempotency_key="", sequence=AT, body=body), route)


@given(bodies, bodies)
def test_deliveries_differ_somewhere_exactly_where_the_hashes_of_their_bodies_do(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    found = between(made(old), made(new))
    assert bool(found) == (body_hash(old) != body_hash(new))
    assert len({one.place for one in found}) <= len(found)
    for one in found:
        assert one.place.startswith("body")
        assert (one.cause == "added", one.cause == "removed") != (True, True)


def test_a_difference_names_the_field_and_both_values() -> None:
    old = made({"table": "t", "row": {"a": 1, "b": 2, "same": [1]}}, entity="1")
    new = made({"table": "t", "row": {"a": 1.0, "c": 3, "same": [1]}}, entity="2", action="row.insert")
    assert between(old, new) == [
        Difference("action", "action", "row.upsert", "row.insert"),
        Difference("entity", "entity", "1", "2"),
        Difference("body.row.a", "changed", 1, 1.0),
        Difference("body.row.b", "removed", 2, None),
        Difference("body.row.c", "added", None, 3),
    ]


def test_another_route_is_a_cause_where_its_condition_is_another_one() -> None:
    old = made({"a": 1}, where="data.x == 1")
    assert [one.cause for one in between(old, made({"a": 2}, place="routes[1]", where="data.x == 1"))] == ["changed"]
    found = between(old, made({"a": 2}, place="routes[1]", where="data.x == 2"))
    assert found[0] == Difference("route", "route", "routes[0]", "routes[1]")


def test_values_of_people_are_masked_and_nothing_below_them_is_named() -> None:
    carried = dict.fromkeys(("entity", "body.to"), frozenset({"email"}))
    old = made({"to": {"ann@acme.com": 1}, "n": 1}, entity="ann@acme.com", carried=carried)
    new = made({"to": {"bob@acme.com": 1}, "n": 2}, entity="bob@acme.com", carried=carried)
    found = between(old, new)
    assert [(one.place, one.was) for one in found] == [("entity", "‹email›"), ("body.n", 1), ("body.to", "‹email›")]
    assert "acme" not in repr(found)


def test_a_tally_stays_bounded_and_counts_an_event_once_a_place() -> None:
    tally = Tally()
    for number in range(PLACES_MAX + 50):
        places = [Difference(f"body.{number}", "added"), Difference(f"body.{number}x", "added")]
        tally.add(Compared(AT, CREATED, "different", places))
    tally.add(Compared(AT, CREATED, "not_compared", why="merged"))
    assert len(tally.places) <= PLACES_MAX + 1
    elsewhere = tally.places[CREATED, "different", ELSEWHERE, "added"]
    assert 0 < elsewhere <= PLACES_MAX + 50
    assert all(len(shown) <= 3 for shown in tally.examples.values())
    assert (tally.events, tally.compared, tally.share) == (PLACES_MAX + 51, PLACES_MAX + 50, Decimal(1))


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_share_that_is_not_nothing_and_not_all_is_never_shown_so(part: int, whole: int) -> None:
    part = min(part, whole)
    shown = percent(Decimal(part) / whole)
    assert (shown == 0, shown == 100) == (part == 0, part == whole)


@given(st.decimals(0, 100, places=3))
def test_a_share_is_a_percentage(number: Decimal) -> None:
    assert parse_share(f"{number}%") == number / 100


@given(st.text(max_size=8).filter(lambda text: "%" not in text) | st.sampled_from(["101%", "-1%", "%", "1e2%", "0,1%"]))
def test_what_is_no_percentage_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match="It is a percentage"):
        parse_share(text)


# ---- at a real broker -----------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path, stack: Stack, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    with new_rows(tmp_path, stack, prefix) as made_rows:
        yield made_rows


def changed(rows: Rows, *replaced: tuple[str, str]) -> str:
    """Another version of the file, beside the project's own; its path."""
    text = TEXT
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    folder = rows.project.folder / "next"
    folder.mkdir(exist_ok=True)
    path = folder / f"{rows.subscription.name}.yaml"
    path.write_text(text)
    return str(path)


def shadow(rows: Rows, file: str, *more: str, code: int = 0) -> Any:
    return rows.project.document("subscription", "shadow", file, *more, code=code)["data"]


def places(data: Any) -> list[tuple[str, str, int]]:
    return [(one["place"], one["cause"], one["events"]) for one in data["differences"]]


def read(rows: Rows, offset: int) -> None:
    rows.broker.commit(rows.subscription.name, rows.project.invoices, {1: offset})


def topics_ends(rows: Rows) -> dict[Any, int]:
    """Where everything ends that a shadow could write to by mistake."""
    name = rows.subscription.name
    cluster = Cluster(rows.app.admin(), rows.app.consumer)
    counts = cluster.partition_counts([rows.project.invoices, f"{name}.inbox", f"{name}.dead", "backbone.control"])
    return cluster.ends([(topic, part) for topic, count in counts.items() for part in range(count)], "committed")


@pytest.mark.integration
def test_a_new_version_is_compared_with_what_was_sent_field_by_field(rows: Rows) -> None:
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(4)]
    records += [rows.publish(CREATED, key="INV-8", total_minor=13), rows.publish(PAID, key="INV-1")]
    rows.publish(CREATED, key="INV-9")  # waits to be read live
    read(rows, 6)
    rows.known_from(0)
    for record in (*records[:4], records[5]):
        rows.delivered(record)
    before = (rows.broker.commits(rows.subscription.name), topics_ends(rows))
    same = shadow(rows, rows.subscription.name, "--max-different", "0%")
    assert (same["events"], same["compared"], same["different_percent"], same["differences"]) == (5, 5, 0.0, [])
    file = changed(
        rows, ("data.total_minor != 13", "data.invoice_id != 'INV-0'"), ("state: open,", "state: new, by: us,"),
        ("  - event: billing.InvoicePaid\n", "  - event: billing.InvoicePaid\n    where: data.invoice_id == 'x'\n"),
    )  # fmt: skip
    data = shadow(rows, file, "--from", "earliest")
    (created, paid) = data["by_event"]
    assert (created["different"], created["would_send"], created["would_not_send"]) == (3, 1, 1)
    assert (paid["different"], paid["would_not_send"]) == (0, 1)
    assert (data["compared_with"], data["fields_known"], data["complete"]) == ("receipts", True, True)
    assert {
        (one["event"][8:], one["result"], *found) for one, found in zip(data["differences"], places(data), strict=True)
    } == {
        ("InvoiceCreated", "different", "body.row.by", "added", 3),
        ("InvoiceCreated", "different", "body.row.state", "changed", 3),
        ("InvoiceCreated", "would_send", "routes", "condition", 1),
        ("InvoiceCreated", "would_not_send", "routes", "condition", 1),
        ("InvoicePaid", "would_not_send", "routes", "condition", 1),
    }
    state = next(one for one in data["differences"] if one["place"] == "body.row.state")
    assert [(one["was"], one["now"]) for one in state["examples"]] == [("open", "new")] * 3
    assert (rows.broker.commits(rows.subscription.name), topics_ends(rows)) == before  # nothing was written
    for share, code in (("99%", 3), ("100%", 0)):
        assert shadow(rows, file, "--max-different", share, code=code) is not None
    said = rows.project.run("subscription", "shadow", file, "--max-different", "0.1%")
    assert said.exit_code == 3
    assert "100% of 6 compared events differ; at most 0.1% may." in said.stderr
    assert f"backbone subscription attach {file}" in said.stderr
    assert "--only changed" in said.stderr
    assert "another value" in said.stdout
    few = rows.project.run("subscription", "shadow", file, "--max", "2")
    assert few.exit_code == 0
    assert "2 events, 2 compared" in few.stdout
    assert "(--max 2)" in few.stderr


@pytest.mark.integration
def test_what_cannot_be_compared_is_counted_with_its_reason(rows: Rows) -> None:
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=100) for number in range(7)]
    read(rows, 7)
    rows.known_from(0)
    rows.delivered(records[0], idempotency_key="0" * 64)
    rows.delivered(records[1], idempotency_key="0" * 64, change_id="c-1", change_kind="replay")
    rows.delivered(records[2], outcome="skipped", body_sha256=None)
    # of the fourth there is no receipt; what a version made that nobody has any more differs by names alone
    rows.delivered(records[4], body_sha256="0" * 64, body_fields=["state", "old"], subscription_version="abcdef")
    rows.delivered(records[5], body_sha256="0" * 64)
    rows.delivered(records[6], outcome="rejected", reason="http_400")  # the vendor was asked that
    data = shadow(rows, rows.subscription.name)
    assert data["not_compared"] == {"merged": 1, "omitted": 1, "not_sent": 1, "no_receipt": 1}
    assert (data["events"], data["compared"], data["by_event"][0]["same"]) == (7, 3, 1)
    assert set(places(data)) == {("body.row.total", "added", 1), ("body.row.old", "removed", 1), ("body", "values", 1)}
    said = rows.project.run("subscription", "shadow", rows.subscription.name)
    assert "1 event sent merged with others that are not all known any more" in said.stdout
    assert "is the version that is attached" in said.stderr
    nothing = rows.project.run("subscription", "shadow", rows.subscription.name, "--max", "3", "--max-different", "0%")
    assert (nothing.exit_code, "No event could be compared" in nothing.stderr) == (3, True)


@pytest.mark.integration
def test_another_entity_or_action_is_a_difference_though_the_body_is_the_same(rows: Rows) -> None:
    rows.delivered(rows.publish(PAID, key="INV-1"))
    read(rows, 1)
    last = TEXT[TEXT.index("  - event: billing.InvoicePaid") :]
    file = changed(rows, (last, last.replace("{{ data.invoice_id }}", "x-{{ data.invoice_id }}")))
    data = shadow(rows, file)
    assert places(data) == [("entity", "entity", 1)]


@pytest.mark.integration
def test_a_map_that_fails_is_told_with_its_place(rows: Rows) -> None:
    rows.delivered(rows.publish(CREATED, key="INV-1", total_minor=0))
    read(rows, 1)
    file = changed(rows, ('"{{ data.total_minor }}"', '"{{ 1 / data.total_minor }}"'))
    data = shadow(rows, file)
    ((place, cause, count),) = places(data)
    assert (cause, count, "routes[0]" in place) == ("refused", 1, True)
    assert "would not send" in rows.project.run("subscription", "shadow", file).stdout
    assert data["by_event"][0]["would_not_send"] == 1


@pytest.mark.integration
def test_what_no_version_can_take_is_not_compared(rows: Rows) -> None:
    fails = ('"{{ data.total_minor }}"', '"{{ 1 / data.total_minor }}"')
    own = rows.project.folder / "consumers" / "subscriptions" / f"{rows.subscription.name}.yaml"
    own.write_text(TEXT.replace(*fails))
    rows.project.document("subscription", "attach", rows.subscription.name, "--apply", "--yes")
    refused = rows.publish(CREATED, key="INV-1", total_minor=0)
    producer = Producer({"bootstrap.servers": rows.broker.bootstrap, "log_level": 0})
    producer.produce(rows.project.invoices, b"no event", b"k", partition=1)
    assert producer.flush(20) == 0
    read(rows, 2)
    rows.known_from(0)
    rows.delivered(refused, outcome="rejected", reason="projection", body_sha256=None)  # as it ended then
    data = shadow(rows, changed(rows, fails, ("state: open", "state: new")))
    assert (data["not_compared"], data["compared"]) == ({"refused": 1, "unreadable": 1}, 0)
    mended = shadow(rows, changed(rows))
    assert [(one["result"], one["cause"]) for one in mended["differences"]] == [("would_send", "refused")]


@pytest.mark.integration
def test_an_event_that_only_one_version_reads_has_that_as_its_cause(rows: Rows) -> None:
    rows.delivered(rows.publish(PAID, key="INV-1"))
    read(rows, 1)
    file = changed(rows, (TEXT[TEXT.index("  - event: billing.InvoicePaid") :], ""))
    data = shadow(rows, file)
    assert [(one["result"], one["cause"]) for one in data["differences"]] == [("would_not_send", "event")]


@pytest.mark.integration
def test_a_version_whose_projection_is_gone_is_compared_by_hash_and_names(rows: Rows) -> None:
    folder, name = rows.project.folder / "consumers" / "subscriptions", rows.subscription.name
    (folder / "made.py").write_text(PROJECTION)
    head = TEXT[: TEXT.index("routes:")]
    route = "  - event: billing.InvoiceCreated\n    projection: made.py:made\n"
    (folder / f"{name}.yaml").write_text(f"{head}routes:\n{route}")
    rows.project.document("subscription", "attach", name, "--apply", "--yes")
    rows.subscription = attached_subscription(rows.app, rows.app.control().subscriptions[name])
    records = [rows.publish(CREATED, key=f"INV-{number}", total_minor=number) for number in range(3)]
    read(rows, 3)
    rows.known_from(0)
    for record in records[:2]:
        rows.delivered(record)
    known = shadow(rows, changed(rows))
    assert (known["fields_known"], known["by_event"][0]["different"]) == (True, 2)
    assert ("body.row.total", "added", 2) in places(known)
    (folder / "made.py").write_text(PROJECTION.replace("'old'", "'new'"))
    result = rows.project.run("subscription", "shadow", name, "--output", "json")
    document = json.loads(result.stdout)
    data = document["data"]
    assert "Only names of fields and hashes can be compared" in document["warnings"][0]
    assert set(places(data)) == {("body", "values", 2), ("routes", "unknown", 1)}
    (rows.project.folder / ".backbone" / "ledger.db").unlink()
    neither = rows.project.run("subscription", "shadow", name)
    assert (neither.exit_code, "There is nothing to compare with. The ledger is empty" in neither.stderr) == (6, True)
    rows.project.run("subscription", "detach", name, "--apply", "--yes")  # its file could not be loaded here


@pytest.mark.integration
def test_what_is_about_an_erased_person_is_not_compared(rows: Rows) -> None:
    account, key = f"acc-{rows.subscription.name}", rows.app.installation_key
    rows.delivered(rows.publish(CREATED, key="INV-1", account_id=account, total_minor=100))
    read(rows, 1)
    person = ErasedPerson(
        field="account_id", events=(CREATED,), at=(datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        change="ch-1", key_id=key_id(key),
    )  # fmt: skip
    write_control(rows.app, [erased_record(mark_of("account_id", account, key), person)])
    data = shadow(rows, rows.subscription.name)
    assert (data["not_compared"], data["compared"]) == ({"erased": 1}, 0)


@pytest.mark.integration
def test_without_a_ledger_the_attached_version_stands_for_what_was_sent(rows: Rows) -> None:
    rows.publish(CREATED, key="INV-1", total_minor=100)
    rows.publish(CREATED, key="INV-2", total_minor=13)
    read(rows, 2)
    (rows.project.folder / ".backbone" / "ledger.db").unlink(missing_ok=True)
    file = changed(rows, ("data.total_minor != 13", "data.total_minor != 12"), ("state: open", "state: new"))
    result = rows.project.run("subscription", "shadow", file, "--output", "json")
    document = json.loads(result.stdout)
    data = document["data"]
    assert data["compared_with"] == "attached version"
    assert "not with what was sent" in document["warnings"][0]
    assert set(places(data)) == {("body.row.state", "changed", 1), ("routes", "condition", 1)}
    assert (data["by_event"][0]["different"], data["by_event"][0]["would_send"]) == (1, 1)


@pytest.mark.integration
def test_ctrl_c_shows_what_was_found_and_says_how_far_it_came(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        rows.delivered(rows.publish(CREATED, key=f"INV-{number}", total_minor=100))
    read(rows, 3)
    real = comparison.read_spans

    def interrupted(app: Any, spans: Spans) -> Iterator[Sequence[Record]]:
        for records in real(app, spans):
            yield records[:2]
            if records:
                raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "read_spans", interrupted)
    result = rows.project.run("subscription", "shadow", rows.subscription.name, "--output", "json")
    assert result.exit_code == 130
    data = json.loads(result.stdout)["data"]
    assert (data["complete"], data["records"], data["offsets"]) == (False, 2, 3)
    assert "Ended after 2 of 3 records" in result.stderr


@pytest.mark.integration
def test_wrong_words_are_refused_with_what_to_do(rows: Rows) -> None:
    name = rows.subscription.name
    other = rows.project.write_subscription('["billing.*"]', name=f"{name}x")
    for arguments, code, sentence in (
        ((f"{name}y",), 5, f"'{name}"),
        ((str(other),), 5, f"Did you mean '{name}'? Show what it would make: backbone subscription preview"),
        ((name, "--days", "1", "--from", "earliest"), 2, "Give --days or --from"),
        ((name, "--days", "0"), 2, "--days"),
        ((name, "--from", "14:00"), 2, "A time begins with @"),
        ((name, "--max-different", "0.1"), 2, "It is a percentage: 0.1%"),
        ((name,), 6, "so there is nothing to compare"),
    ):
        result = rows.project.run("subscription", "shadow", *arguments, "--output", "json")
        document = json.loads(result.stdout)
        assert (result.exit_code, document["error"]["code"]) == (code, code), result.output
        assert sentence in document["error"]["message"], document
