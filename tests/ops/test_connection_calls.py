"""``backbone connection calls`` and what ``trace`` says of kept calls; no cluster runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from consumers.receipts import hashed
from ops.settings import load_project
from ops.watch.call_store import CallStore, KeptCall, KeptDelivery
from tests.ops.ledgers import address_of, open_store, row
from tests.ops.projects import TestProject, make_project


def kept(
    event: str, *, at: float, outcome: str = "delivered", entity: str = "u-1", is_hashed: bool = False
) -> KeptCall:
    return KeptCall(
        at=at, subscription="crm", connection="rows", action="row.upsert", outcome=outcome, attempt=1, seconds=0.25,
        trace_id=None, is_look_up=False,
        exchanges=[{
            "method": "POST", "endpoint": "/upsert", "status": 409 if outcome != "delivered" else 200, "failed": None,
            "seconds": 0.2, "sent_bytes": 120, "received_bytes": 30, "headers": {"retry-after": "7"},
            "answer": {"category": "CONFLICT"},
        }],
        deliveries=[KeptDelivery(
            event=event, type="accounts.UserSignedUp", origin="accounts.users/0/1", entity=entity,
            entity_hashed=is_hashed, idempotency_key="ab" * 32, attempt=1, outcome=outcome,
            reason="conflict" if outcome != "delivered" else "", body={"email": "‹email›", "plan": "team"},
        )],
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    """With three kept calls, and receipts of two of their events."""
    made = make_project(tmp_path, "acme")
    (made.folder / ".backbone" / "local.json").unlink()
    toml = made.folder / "backbone.toml"
    toml.write_text(toml.read_text().replace('connector = "sql"\n', 'connector = "sql"\ncall_log = true\n', 1))
    assert made.run("context", "show").exit_code == 0
    context = load_project(made.folder).context("local")
    secret = hashed("ana@example.org", context.installation_key)
    store = CallStore.at(context.calls_file, keep_s=86_400, bytes_max=1 << 24)
    now = time.time()
    calls = [
        kept("e-1", at=now - 7_200, outcome="retry_later"), kept("e-1", at=now - 60),
        kept("e-2", at=now - 30, entity=secret, is_hashed=True),
    ]  # fmt: skip
    store.add(calls, now)
    store.close()
    ledger = open_store(address_of(made.folder, "sqlite:///.backbone/ledger.db"))
    ledger.put_receipts([row(1, 1), row(2, 2)])
    ledger.close()
    return made


def test_kept_calls_are_found_by_event_entity_outcome_and_time(project: TestProject) -> None:
    def events(*arguments: str) -> list[str]:
        found = project.document("connection", "calls", "rows", *arguments)["data"]
        return [f"{one['deliveries'][0]['event']} {one['outcome']}" for one in found]

    assert events() == ["e-2 delivered", "e-1 delivered", "e-1 retry_later"]
    assert events("--event", "e-1") == ["e-1 delivered", "e-1 retry_later"]
    assert events("--entity", "u-1", "--outcome", "retry_later") == ["e-1 retry_later"]
    assert events("--entity", "ana@example.org") == ["e-2 delivered"]
    assert events("--from", "@-1h") == ["e-2 delivered", "e-1 delivered"]
    assert events("--to", "@-1h") == ["e-1 retry_later"]
    limited = project.run("connection", "calls", "rows", "--limit", "1")
    assert "Only the newest 1 are shown" in limited.stderr


def test_people_see_what_was_asked_and_answered(project: TestProject) -> None:
    table = project.run("connection", "calls", "rows", "--event", "e-1").stdout
    assert "/upsert" in table
    assert "conflict" in table
    full = project.run("connection", "calls", "rows", "--event", "e-1", "--bodies").stdout
    assert '    asked     {"email": "‹email›", "plan": "team"}' in full
    assert '    answered  {"category": "CONFLICT"}' in full
    assert "‹hashed›" in project.run("connection", "calls", "rows", "--entity", "ana@example.org", "--bodies").stdout


def test_trace_names_the_calls_of_an_event_and_the_command_that_shows_them(project: TestProject) -> None:
    (event,) = project.document("trace", "e-1")["data"]["events"]
    assert [(one["outcome"], one["status"], one["endpoint"]) for one in event["calls"]] == [
        ("retry_later", 409, "/upsert"), ("delivered", 200, "/upsert"),
    ]  # fmt: skip
    assert "exchanges" not in event["calls"][0]
    shown = project.run("trace", "e-1")
    assert "CALLED BY" in shown.stdout
    assert "backbone connection calls rows --event e-1 --bodies" in shown.stderr


def test_where_nothing_is_kept_that_is_said_with_what_to_do(project: TestProject) -> None:
    nothing = project.run("connection", "calls", "rows", "--event", "e-9", "--bodies")
    assert (nothing.exit_code, "No kept call is like that." in nothing.output) == (0, True)
    toml = project.folder / "backbone.toml"
    toml.write_text(toml.read_text().replace("call_log = true\n", ""))
    off = project.run("connection", "calls", "rows", "--event", "e-9")
    assert "write call_log = true in [connections.rows]" in off.output
    assert project.run("connection", "calls", "row").exit_code == 5


def test_a_file_that_is_no_call_log_is_an_error_there_and_a_warning_in_trace(project: TestProject) -> None:
    file = project.folder / ".backbone" / "calls" / "local.db"
    file.write_bytes(b"x" * 10_000)
    broken = project.run("connection", "calls", "rows")
    assert (broken.exit_code, str(file) in broken.stderr) == (8, True)
    assert "Traceback" not in broken.output
    document = project.document("trace", "e-1")
    assert document["data"]["events"][0]["calls"] == []
    assert any("call log" in warning for warning in document["warnings"])
    assert file.read_bytes() == b"x" * 10_000


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('call_log.keep = "30m"', "1h to 90d"),
        ('call_log.keep = "soon"', "call_log.keep"),
        ("call_log.megabytes = 0", "call_log.megabytes"),
        ("call_log = true", "call_log"),
    ],
)
def test_a_wrong_bound_is_named(project: TestProject, written: str, problem: str) -> None:
    toml = project.folder / "backbone.toml"
    toml.write_text(toml.read_text().replace("[contexts.local]\n", f"[contexts.local]\n{written}\n", 1))
    result = project.run("context", "show")
    assert (result.exit_code, problem in result.stderr) == (2, True)


def test_a_context_may_keep_calls_or_not_by_itself(project: TestProject) -> None:
    toml = project.folder / "backbone.toml"
    toml.write_text(
        toml.read_text()
        + '\n[contexts.stage]\nregistry.url = "http://127.0.0.1:1"\nkafka."bootstrap.servers" = "127.0.0.1:1"\n'
        '[contexts.stage.connections.rows]\ncall_log = false\nurl = "env:NOWHERE"\n'
    )
    loaded = load_project(project.folder)
    assert loaded.context("local").connection("rows").call_log
    assert not loaded.context("stage").connection("rows").call_log
    assert "call_log" not in loaded.context("stage").connection("rows").table
