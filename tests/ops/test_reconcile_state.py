"""What a vendor should have, how it differs, and what mends it; results on the disk; asking a vendor. No broker."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connector import Kept, Listed, Unavailable
from connectors.hubspot import CONNECTOR as HUBSPOT
from connectors.pacing import Quota
from connectors.sql import CONNECTOR as SQL
from ops.changes.feeding import CHECKPOINT, Feeding
from ops.changes.orders import BEGAN
from ops.changes.repair import _spans
from ops.changes.repair_plan import mends_of
from ops.reconcile import asking
from ops.reconcile.asking import Asking, read_back_problem
from ops.reconcile.comparison import Difference, Window, compared, of_ledger, unexpected
from ops.reconcile.counting import Finding
from ops.reconcile.expected import Expectations, Expected, Stamp, fields_of, masks_of
from ops.reconcile.result import KEPT_MAX, Differences, Result, ResultStore, VendorState
from schemas.errors import InputError, NotAllowedError, NotFoundError, RefusedError, UnreachableError
from schemas.event import Origin
from tests.connectors.samples import FakeControl, delivery

CONTACT = HUBSPOT.actions["contact.upsert"]
ROW = SQL.actions["row.upsert"]
NAMES = ["a", "b", "c"]
events = st.lists(
    st.none() | st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5), max_size=3), min_size=1, max_size=12
)
"""What events say of one entity, in the order of the log; None deletes it."""


def stamp(offset: int, partition: int = 0, at: int | None = None) -> Stamp:
    return Stamp(1_000 * offset if at is None else at, Origin("t", partition, offset))


def folded(said: list[dict[str, int] | None], order: list[int] | None = None) -> Expected:
    one = Expected("contact.upsert", {}, "u-1")
    for offset in order or range(len(said)):
        fields = said[offset]
        if fields is None:
            one.delete(stamp(offset))
        else:
            one.write(fields, stamp(offset), {})
    return one


def applied(said: list[dict[str, int] | None]) -> dict[str, int] | None:
    """What a vendor has that was given these one after another."""
    held: dict[str, int] | None = None
    for fields in said:
        held = None if fields is None else (held or {}) | fields
    return held


@given(events, st.randoms(use_true_random=False))
def test_whatever_the_order_of_reading_the_newest_of_every_field_is_expected(
    said: list[dict[str, int] | None], random: Random
) -> None:
    order = list(range(len(said)))
    random.shuffle(order)
    one = folded(said, order)
    held = applied(said)
    assert one.should_be == (held is not None)
    assert {name: value.value for name, value in one.values.items()} == (held or {})


@given(events, st.none() | st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5)))
def test_what_is_delivered_again_mends_whatever_the_vendor_has_made_of_it(
    said: list[dict[str, int] | None], held: dict[str, int] | None
) -> None:
    one, right = folded(said), applied(said)
    action, names = CONTACT, list(one.values)
    kept = None if held is None else Kept({n: one.values[n].value for n in names}, {n: held.get(n) for n in names}, "7")
    found = compared(one, kept, "", "s")
    if right is None:
        assert (found is None) == (held is None or one.gone is None)
        assert found is None or (found.kind, found.send, found.reference) == ("extra", (), "7")
        return
    is_right = held is not None and all(held.get(name) == value for name, value in right.items())
    assert (found is None) == is_right
    if found is None:
        return
    assert found.kind == ("missing" if held is None else "different")
    assert {field["name"] for field in found.fields} == (
        set() if held is None else {name for name in right if held.get(name) != right[name]}
    )
    mended = dict(held or {})
    for mend in mends_of(found):
        fields = said[mend.origin.offset]
        assert fields is not None
        whole = fields_of(delivery(action.name, "u-1", fields), action)
        mended |= {name: value for name, value in whole.items() if name in mend.names}
        assert one.written is not None
        assert mend.as_of == one.written.origin
    assert {name: mended.get(name) for name in right} == right


def test_between_partitions_what_arrived_later_is_newer() -> None:
    one = Expected("contact.upsert", {}, "u-1")
    one.write({"a": 1}, stamp(9, partition=0, at=1_000), {})
    one.write({"a": 2}, stamp(0, partition=1, at=2_000), {})
    one.write({"a": 3}, stamp(1, partition=2, at=500), {})
    assert one.values["a"].value == 2
    assert one.newest == stamp(0, partition=1, at=2_000)


@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 9)), max_size=40), st.integers(1, 5))
def test_entities_beyond_the_bound_are_kept_as_well(written: list[tuple[str, int]], held_max: int) -> None:
    kept = Expectations(held_max=held_max)
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    for offset, (entity, value) in enumerate(written):
        one = kept.of(("row.upsert", "things", entity), {"table": "things"})
        one.write({"n": value, "at": moment, "raw": b"\x00"}, stamp(offset), {"n": "‹email›"})
    last = dict(written)
    found = [one for page in kept.pages(3) for one in page]
    assert {one.entity: one.values["n"].value for one in found} == last
    assert len(found) == len(last)
    assert all((one.values["at"].value, one.values["n"].mask) == (moment, "‹email›") for one in found)
    for entity, value in last.items():
        one_known = kept.known(("row.upsert", "things", entity))
        assert one_known is not None
        assert one_known.values["n"].value == value
    assert kept.known(("row.upsert", "things", "nobody")) is None
    assert kept.abouts == ({("row.upsert", "things"): {"table": "things"}} if written else {})
    kept.close()


def test_a_page_is_of_one_action() -> None:
    kept = Expectations()
    for number in range(5):
        kept.of(("one", "", f"{number}"), {}).write({"a": 1}, stamp(number), {})
        kept.of(("two", "", f"{number}"), {}).write({"a": 1}, stamp(number), {})
    pages = [[one.action for one in page] for page in kept.pages(3)]
    assert pages == [["one"] * 3, ["one"] * 2, ["two"] * 3, ["two"] * 2]
    kept.close()


def test_a_folded_delivery_has_the_form_of_its_action() -> None:
    row = Expected("row.upsert", {"table": "things"}, "u-1")
    row.write({"n": 1}, stamp(3), {})
    assert row.delivery(ROW).body == {"table": "things", "row": {"n": 1}}
    assert row.delivery(ROW).sequence == Origin("t", 0, 3)
    assert fields_of(row.delivery(ROW), ROW) == {"n": 1}
    assert folded([{"a": 1}]).delivery(CONTACT).body == {"a": 1}


def test_values_of_people_are_masked_wherever_their_class_stands() -> None:
    carried = {
        "body.row.mail": frozenset({"email"}), "body.row.home.city": frozenset({"address"}), "entity": frozenset({"x"}),
        "body.row.free": frozenset({"none"}),
    }  # fmt: skip
    fields = dict.fromkeys(("mail", "home", "free", "plan"), 1)
    assert masks_of(fields, ROW, carried) == {"mail": "‹email›", "home": "‹address›"}
    assert masks_of(fields, ROW, {"body": frozenset({"email", "name"})}) == dict.fromkeys(fields, "‹email, name›")
    one = Expected("row.upsert", {"table": "t"}, "ann@acme.com", mask="‹email›")
    one.write({"mail": "ann@acme.com"}, stamp(0), {"mail": "‹email›"})
    found = compared(one, Kept({"mail": "ann@acme.com"}, {"mail": "bob@acme.com"}), "t", "s")
    assert found is not None
    assert "acme" not in json.dumps(found.plain())


@pytest.mark.parametrize(
    ("listed", "whole", "expected"),
    [
        (Listed("x", origin=Origin("t", 0, 4)), False, "before"),
        (Listed("x", origin=Origin("t", 0, 5)), False, "extra"),
        (Listed("x", origin=Origin("t", 0, 9)), False, "after"),
        (Listed("x", origin=Origin("by hand", 0, 0)), False, "extra"),
        (Listed("x", origin=Origin("theirs", 0, 0)), False, "others"),
        (Listed("x"), True, "extra"),
        (Listed("x"), False, "before"),
        (Listed("x", made_at=datetime(2026, 4, 1, tzinfo=UTC)), False, "before"),
        (Listed("x", made_at=datetime(2026, 6, 1, tzinfo=UTC)), False, "extra"),
    ],
)
def test_what_may_come_from_events_that_are_gone_is_not_too_much(listed: Listed, whole: bool, expected: str) -> None:
    window = Window({("t", 0): (5, 9)}, whole, datetime(2026, 5, 1, tzinfo=UTC), frozenset({"theirs"}))
    assert unexpected(listed, window) == expected


@given(st.sets(st.integers(0, 60)))
def test_offsets_and_their_ranges_are_the_same(offsets: set[int]) -> None:
    ranges = _spans(sorted(offsets))
    assert {offset for start, end in ranges for offset in range(start, end)} == offsets
    assert all(start < end for start, end in ranges)
    assert all(one[1] < other[0] for one, other in pairwise(ranges))


# ---- results --------------------------------------------------------------------------------------------------------


def saved(store: ResultStore, name: str = "crm", *rows: Difference) -> Result:
    result_id = store.new_id()
    differences, digest = store.write_rows(result_id, rows)
    result = Result(
        id=result_id, subscription=name, version="3f9a2c", connection="hubspot", at=datetime.now(UTC),
        begin="earliest", end=None, published=3, holes=0, stages={"delivered": 3}, proved=3, uncounted=0, unwanted=0,
        places=[], differences=differences, vendor=VendorState(), read_to=[("t", 0, 3)], rows_sha256=digest,
    )  # fmt: skip
    store.save(result)
    return result


LOST = of_ledger(("t", 0), Finding("receipt_missing", 4, 9, 3))
GONE = Difference(
    kind="missing", action="contact.upsert", entity="u-1", fields=({"name": "a", "expected": 1, "found": None},),
    holds={"t/0/1": ["a"]}, send=("t/0/1",), as_of="t/0/1", subject="s",
)  # fmt: skip


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    written = saved(store, "crm", LOST, GONE)
    assert store.load(written.id) == written == store.named("crm") == store.named(None) == store.named(written.id)
    assert list(store.rows(written)) == [LOST, GONE]
    assert list(store.rows(written, ["missing"])) == [GONE]
    assert (written.differences["receipt_missing"], written.differences["missing"], written.repairable) == (3, 1, 1)
    assert not written.agrees
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    newer = saved(store)
    assert store.named("crm") == newer
    assert newer.agrees


def test_what_is_not_as_it_was_written_is_refused(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    written = saved(store, "crm", GONE)
    file = store.rows_file(written.id)
    for content in (file.read_bytes().replace(b"u-1", b"u-2"), b"", b"{}\n", b"no json\n"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="not as it was written"):
            list(store.rows(written))
    file.unlink()
    with pytest.raises(InputError, match="not as it was written"):
        list(store.rows(written))
    (tmp_path / f"{written.id}.json").write_text('{"format": "another"}')
    with pytest.raises(InputError, match="no result of this version"):
        store.load(written.id)
    assert store.latest() == {}
    for name in ("../../etc/passwd", "rc-zzzzz", "crm", None):
        with pytest.raises(NotFoundError, match="backbone reconcile run"):
            store.named(name)


def test_the_oldest_results_are_dropped_and_the_metric_is_of_the_last(tmp_path: Path) -> None:
    store, differences = ResultStore(tmp_path), Differences(tmp_path)
    assert differences.now() == {}
    saved(store, "crm", GONE)
    assert differences.now()["crm"]["missing"] == 1
    for _ in range(KEPT_MAX + 5):
        saved(store, "crm")
    assert len(list(tmp_path.iterdir())) == 2 * KEPT_MAX
    saved(store, "rows", LOST)
    assert {name: sum(counts.values()) for name, counts in differences.now().items()} == {"crm": 0, "rows": 3}
    (tmp_path / "rc-aaaaa.json").write_text("broken")
    assert set(differences.now()) == {"crm", "rows"}


# ---- what a cut try has sent ----------------------------------------------------------------------------------------


def feeding(notes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, inbox: list[tuple[int, Origin]]) -> Feeding:
    """``inbox``: what stands in its one partition, at which offset."""
    app: Any = SimpleNamespace(project=SimpleNamespace(root=Path("/nowhere")), screen=SimpleNamespace(context="local"))
    plan: Any = SimpleNamespace(id="ch-2", subject="crm", details={"rate": 0})
    journal: Any = SimpleNamespace(notes=notes, note=lambda name, value: notes.__setitem__(name, value))
    monkeypatch.setattr("ops.changes.feeding.inbox_ends", lambda *_: {"0": len(inbox)})
    monkeypatch.setattr(
        "ops.changes.feeding.orders_of",
        lambda _app, _plan, ends: [(SimpleNamespace(origin=one), None) for at, one in inbox if at >= ends["0"]],
    )
    return Feeding(app, plan, journal, cast(Any, SimpleNamespace(look=lambda: None)))  # nobody steers


def test_what_was_sent_before_a_cut_is_known_however_the_partitions_are_read_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: dict[str, Any] = {}
    inbox: list[tuple[int, Origin]] = []
    first = feeding(notes, monkeypatch, inbox)
    first.begin()
    assert notes == {BEGAN: {"0": 0}}
    assert first.before == set()
    inbox += [(0, Origin("t", 0, 5)), (1, Origin("t", 1, 7))]  # and it was killed before its checkpoint
    second = feeding(notes, monkeypatch, inbox)
    second.begin()
    assert second.take_sent(Origin("t", 0, 5))
    assert not second.take_sent(Origin("t", 0, 6))
    inbox.append((2, Origin("t", 0, 6)))
    # the other partition was not come to: what was sent of it must be found once more
    notes[CHECKPOINT] = second.checkpoint({("t", 0): 7}, last=False)
    assert notes[CHECKPOINT]["inbox"] == {"0": 0}
    third = feeding(notes, monkeypatch, inbox)
    third.begin()
    assert third.before == {Origin("t", 1, 7)}
    assert third.take_sent(Origin("t", 1, 7))
    assert third.checkpoint({("t", 0): 7, ("t", 1): 8}, last=False)["inbox"] == {"0": 3}
    assert third.checkpoint({}, last=True)["inbox"] == {"0": 3}


# ---- asking a vendor ------------------------------------------------------------------------------------------------


def app_for(url: str, *, state: str = "running") -> Any:
    settings = HUBSPOT.settings(**HUBSPOT.fake_settings(url, Path()), timeout_s=5.0)
    resolved = SimpleNamespace(settings=lambda _: settings, quota=Quota(), circuit_open_s=None)
    held = SimpleNamespace(state=state)
    return SimpleNamespace(
        control=lambda: SimpleNamespace(connections={"hubspot": held}),
        context=SimpleNamespace(connection=lambda _: resolved),
    )


async def asked_of_fake(*orders: dict[str, Any]) -> Any:
    assert HUBSPOT.fake is not None
    fake = HUBSPOT.fake()
    url = await fake.start()
    control = FakeControl(url)
    wanted = delivery("contact.upsert", "u-1", {"plan": "pro"})
    try:
        await control.misbehave(*orders)
        async with Asking(app_for(url), "hubspot", HUBSPOT) as vendor:
            return await vendor.read_back([wanted]), (await vendor.list_ours({}, "")).found
    finally:
        await control.close()
        await fake.stop()


def test_a_vendor_that_asks_for_quiet_is_asked_again_later() -> None:
    limited = {"kind": "status", "status": 429, "times": 2, "headers": {"Retry-After": "0"}}
    assert asyncio.run(asked_of_fake(limited)) == ([None], [])


def test_a_vendor_that_refuses_or_stays_away_ends_it_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAllowedError, match="refuses to be read"):
        asyncio.run(asked_of_fake({"kind": "status", "status": 403}))
    monkeypatch.setattr(asking, "WAIT_S", 0.3)
    with pytest.raises(UnreachableError, match=r"could not be read for 0\.3 s"):
        asyncio.run(asked_of_fake({"kind": "status", "status": 503, "times": 50}))


def test_a_connection_that_a_person_has_paused_is_not_asked() -> None:
    with pytest.raises(RefusedError, match="backbone connection resume hubspot"):
        Asking(app_for("http://127.0.0.1:1", state="paused"), "hubspot", HUBSPOT)


def test_who_cannot_be_asked_what_it_has_is_said() -> None:
    from connectors.slack import CONNECTOR as SLACK

    assert read_back_problem(HUBSPOT) == read_back_problem(SQL) == ""
    assert "cannot be asked" in read_back_problem(SLACK)


def test_an_answer_that_does_not_fit_is_no_answer() -> None:
    """A connector of another package may answer anything."""
    from connectors.connection import Connection

    class Wrong:
        pause_until = 0.0

        async def read_back(self, wanted: Any) -> Any:
            return [None, None]

        async def list_ours(self, about: Any, after: str) -> Any:
            raise ValueError("secret")

        async def close(self) -> None: ...

    async def ask() -> tuple[Any, Any]:
        connection = Connection("x", HUBSPOT, cast(Any, Wrong()), observer=lambda *_: None, total=timedelta(seconds=5))
        seat = connection.join("s", wake=lambda: None)
        assert seat.try_enter(background=True)
        first = await seat.read_back([delivery("contact.upsert", "u-1", {})])
        seat.leave()
        assert seat.try_enter(background=True)
        second = await seat.list_ours({}, "")
        seat.leave()
        await connection.close()
        return first, second

    first, second = asyncio.run(ask())
    assert first == Unavailable("read_back_wrong_length")
    assert second == Unavailable("list_ours_raised_ValueError")
