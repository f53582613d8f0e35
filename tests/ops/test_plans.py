"""Plan files and state files: written whole, read strictly, never a traceback."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops.changes.plan import Plan, dump, is_id, new_id, parse
from ops.changes.store import Journal, Progressed, Store
from schemas.errors import BackboneError, InputError, NotFoundError, RefusedError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
TEXTS = st.lists(st.text(), max_size=4).map(tuple)
PLANS = st.builds(
    Plan,
    id=st.just("ch-23456"),
    kind=st.text(),
    context=st.text(),
    subject=st.text(),
    title=st.text(),
    created=st.just(NOW),
    expires=st.just(NOW + timedelta(minutes=60)),
    author=st.text(),
    reason=st.text(),
    summary=TEXTS,
    rows=st.lists(OBJECTS, max_size=3).map(tuple),
    steps=TEXTS,
    preconditions=OBJECTS,
    before=OBJECTS,
    after=OBJECTS,
    details=OBJECTS,
)


def plan(**changes: Any) -> Plan:
    usual: dict[str, Any] = {
        "id": "ch-23456", "kind": "test", "context": "local", "subject": "x", "title": "do x", "created": NOW,
        "expires": NOW + timedelta(minutes=60), "author": "ana", "steps": ("one", "two"),
    }  # fmt: skip
    return Plan(**(usual | changes))


@given(PLANS)
def test_a_plan_that_was_written_is_read_back_with_its_hash(made: Plan) -> None:
    found = parse(dump(made).encode("utf-8", "surrogatepass"), "f")
    assert found == made
    assert found.hash == made.hash


@given(st.binary())
def test_bytes_that_are_no_plan_are_one_sentence(content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse(content, "ch-x.json")
    assert "ch-x.json" in str(caught.value)


@given(JSON | OBJECTS.map(lambda found: {"format": "backbone.plan/v1", "hash": "0", "plan": found}))
def test_json_that_is_no_plan_is_one_sentence(content: Any) -> None:
    with pytest.raises(InputError, match="Plan the change again"):
        parse(json.dumps(content).encode(), "f")


@given(st.data())
def test_a_plan_that_was_altered_anywhere_is_refused(data: st.DataObject) -> None:
    text = dump(plan(details={"offset": 12}))
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from('0123456789abcx"{}[], '))
    altered = text[:place] + other + text[place + 1 :]
    sentence = "Plan the change again"
    try:
        assert parse(altered.encode(), "f") == parse(text.encode(), "f")  # only white space was touched
    except InputError as error:
        sentence = str(error)
    assert "Plan the change again" in sentence


def test_a_deeply_nested_plan_is_one_sentence() -> None:
    with pytest.raises(InputError):
        parse(b'{"format": "backbone.plan/v1", "hash": "", "plan": ' + b"[" * 100_000, "f")


def test_ids_are_free_and_cannot_be_paths() -> None:
    taken = {new_id(lambda _: False) for _ in range(50)}
    fresh = new_id(lambda candidate: candidate in taken)
    assert fresh not in taken
    assert is_id(fresh)
    for wrong in ("", "ch-", "ch-../x", "ch-AB", "xx-234", "ch-" + "2" * 50, "ch-2/3"):
        assert not is_id(wrong)


def test_a_plan_is_found_only_in_its_context(tmp_path: Path) -> None:
    Store(tmp_path / "prod").save(plan(context="prod"))
    assert Store(tmp_path / "prod").load("ch-23456").context == "prod"
    with pytest.raises(NotFoundError, match="backbone -c prod"):
        Store(tmp_path / "local").load("ch-23456")
    with pytest.raises(NotFoundError, match="Did you mean 'ch-23456'"):
        Store(tmp_path / "prod").load("ch-23457")


def test_a_plan_that_was_copied_to_another_context_is_refused_there(tmp_path: Path) -> None:
    """What was previewed on one cluster would have been done on another."""
    Store(tmp_path / "test").save(plan(context="test"))
    (tmp_path / "prod").mkdir()
    (tmp_path / "prod" / "ch-23456.json").write_bytes((tmp_path / "test" / "ch-23456.json").read_bytes())
    with pytest.raises(InputError, match="is a plan for the context 'test' and cannot be used in 'prod'"):
        Store(tmp_path / "prod").load("ch-23456")


def test_steps_that_were_done_are_not_done_again_after_a_kill(tmp_path: Path) -> None:
    store, made = Store(tmp_path), plan()
    store.save(made)
    journal = Journal(store, made, Progressed(state="applying"))
    with journal.step("one") as todo:
        assert todo
        # a kill here leaves the truth: begun, not done
        assert store.progressed(made.id).doing == "one"
        assert store.progressed(made.id).done == []
    journal.note("seen", 3)
    later = Journal(store, made, store.progressed(made.id))
    with later.step("one") as todo:
        assert not todo
    assert later.notes == {"seen": 3}
    assert later.done == {"one"}


def test_a_step_that_raised_is_not_done(tmp_path: Path) -> None:
    store, made = Store(tmp_path), plan()
    store.save(made)
    with pytest.raises(ValueError), Journal(store, made, Progressed()).step("one"):
        raise ValueError
    assert store.progressed(made.id).done == []
    assert store.progressed(made.id).doing == "one"


@given(st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_broken_state_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ch-23456.state.json").write_bytes(content)
    with pytest.raises(BackboneError, match="change show"):
        Store(tmp_path).progressed("ch-23456")


def test_half_a_state_file_does_not_read_as_nothing_was_done(tmp_path: Path) -> None:
    """``{}`` used to be taken for a change that was only planned: it could have been applied a second time."""
    (tmp_path / "ch-23456.state.json").write_text("{}")
    with pytest.raises(InputError):
        Store(tmp_path).progressed("ch-23456")


def test_one_process_at_a_time_applies_a_change(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.locked("ch-23456"), pytest.raises(RefusedError, match="another process"), store.locked("ch-23456"):
        pass


def test_plans_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "local")
    store.save(plan())
    assert (tmp_path / "local" / "ch-23456.json").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "local").iterdir()] == ["ch-23456.json"]
