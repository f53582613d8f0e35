"""How every change goes, on a real cluster and registry: planned, asked, audited, applied, cut, resumed, undone."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from ops import local
from ops.app import App
from ops.changes import ChangeKind, Journal, Plan, apply_by_id, new_plan, run_change, undo_by_id
from ops.changes import kinds as kinds_module
from ops.changes.audit import entries
from ops.changes.plan import dump
from ops.changes.store import Store
from ops.screen import Screen
from schemas.errors import NotFoundError, PartlyDoneError, RefusedError, UnreachableError
from tests.conftest import ROOT, Stack
from tests.ops.projects import TestProject, make_project

pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path, stack: Stack, prefix: str) -> TestProject:
    made = make_project(tmp_path, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    result = made.run("schema", "register", "--apply", "--yes", "-q")
    assert result.exit_code == 0, result.output
    return made


@pytest.fixture
def app(project: TestProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("BACKBONE_PROJECT", str(project.folder))
    monkeypatch.setenv("BACKBONE_AUTHOR", "tester")
    made = App()
    made.screen = Screen(quiet=True)
    yield made
    made.close()


@dataclass
class Switch:
    """What the kind ``switch`` changes: a state in memory, with steps that can be told to break."""

    state: dict[str, int] = field(default_factory=lambda: {"one": 0, "two": 0})
    breaks: dict[str, BaseException] = field(default_factory=dict)
    stale: bool = False
    acted: list[str] = field(default_factory=list)

    def precheck(self, app: App, plan: Plan, done: frozenset[str]) -> None:
        if self.stale:
            raise RefusedError("Somebody has switched it meanwhile. Nothing was changed.")

    def act(self, app: App, plan: Plan, journal: Journal) -> dict[str, Any]:
        for name in plan.steps:
            with journal.step(name) as todo:
                if todo:
                    if name in self.breaks:
                        raise self.breaks.pop(name)
                    self.state[name] = plan.details["to"]
                    self.acted.append(name)
        return dict(self.state)

    def undo(self, app: App, plan: Plan, notes: Mapping[str, Any], done: frozenset[str]) -> Plan:
        return switch_plan(app, to=0, steps=sorted(done), undoes=plan.id)


def switch_plan(app: App, *, to: int = 1, steps: list[str] | None = None, **more: Any) -> Plan:
    return new_plan(
        app,
        kind="switch",
        subject="lamp",
        title="switch the lamp",
        steps=steps or ["one", "two"],
        before={"lamp": 0},
        after={"lamp": to},
        details={"to": to},
        **more,
    )


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    made = Switch()
    module = types.ModuleType("tests.switch_kind")
    module.KIND = ChangeKind(  # type: ignore[attr-defined]
        name="switch", precheck=made.precheck, act=made.act, undo=made.undo
    )
    monkeypatch.setitem(sys.modules, "tests.switch_kind", module)
    monkeypatch.setattr(kinds_module, "KINDS", {**kinds_module.KINDS, "switch": "tests.switch_kind"})
    return made


def phases(app: App, change_id: str) -> list[str]:
    return [entry.phase for entry in entries(app) if entry.change_id == change_id]


def test_a_plan_changes_nothing_until_it_is_applied(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=False)
    assert switch.state == {"one": 0, "two": 0}
    assert phases(app, plan.id) == []
    apply_by_id(app, plan.id)
    assert switch.state == {"one": 1, "two": 1}
    assert phases(app, plan.id) == ["planned", "applied"]


def test_the_audit_says_who_why_and_the_values_before_and_after(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=True, yes=True, reason="INC-412")
    first, last = [entry for entry in entries(app) if entry.change_id == plan.id]
    assert (first.author, first.reason, first.kind, first.context) == ("tester", "INC-412", "switch", "local")
    assert first.before == {"lamp": 0}
    assert last.after == {"one": 1, "two": 1}
    assert first.plan_hash == Store.of(app).load(plan.id).hash


def test_without_its_audit_record_nothing_is_changed(app: App, switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=False)
    monkeypatch.setattr("ops.changes.audit.TOPIC", f"{plan.id}.no-such-topic")
    with pytest.raises(RefusedError, match="backbone schema register"):
        apply_by_id(app, plan.id)
    assert switch.acted == []
    monkeypatch.undo()


def test_an_audit_that_cannot_be_reached_is_said_to_have_kept_everything_as_it_was(
    project: TestProject, app: App, switch: Switch
) -> None:
    """`The registry cannot be reached` left open whether the subscription was paused."""
    plan = switch_plan(app)
    run_change(app, plan, apply=False)
    away = App()
    file = project.folder / "backbone.toml"
    file.write_text(file.read_text().replace("http://", "http://127.0.0.1:1/?was="))
    running = project.folder / ".backbone" / "local.json"
    if running.exists():
        content = json.loads(running.read_text())
        running.write_text(json.dumps(content | {"registry": "http://127.0.0.1:1/apis/ccompat/v7"}))
    with pytest.raises(UnreachableError, match="Nothing was changed: a change begins with its record in the audit"):
        apply_by_id(away, plan.id)
    away.close()
    assert switch.acted == []


def test_a_change_is_applied_once(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=True, yes=True)
    with pytest.raises(RefusedError, match="was applied already"):
        apply_by_id(app, plan.id)


def test_a_stale_plan_is_refused_before_the_audit(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=False)
    switch.stale = True
    with pytest.raises(RefusedError, match="meanwhile"):
        apply_by_id(app, plan.id)
    assert phases(app, plan.id) == []


def test_an_old_plan_is_refused(app: App, switch: Switch) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    plan = replace(switch_plan(app), created=now - timedelta(hours=2), expires=now - timedelta(hours=1))
    Store.of(app).save(plan)
    with pytest.raises(RefusedError, match="older than 60 minutes"):
        apply_by_id(app, plan.id)
    assert switch.acted == []


def test_an_altered_plan_is_refused(project: TestProject, app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    file = project.folder / ".backbone" / "changes" / "local" / f"{plan.id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dump(plan).replace('"to": 1', '"to": 7'))
    result = project.run("apply", plan.id)
    assert result.exit_code == 2
    assert "altered" in result.stderr


def test_a_change_that_breaks_in_the_middle_says_how_to_go_on_and_back(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    switch.breaks["two"] = UnreachableError("The lamp does not answer.")
    with pytest.raises(PartlyDoneError) as caught:
        run_change(app, plan, apply=True, yes=True)
    sentence = str(caught.value)
    assert "1 of 2 steps are done" in sentence
    assert f"backbone apply {plan.id}" in sentence
    assert f"backbone undo {plan.id}" in sentence
    assert phases(app, plan.id) == ["planned", "partly_applied"]
    apply_by_id(app, plan.id)
    assert switch.acted == ["one", "two"]  # what was done is not done again
    assert phases(app, plan.id) == ["planned", "partly_applied", "planned", "applied"]


def test_a_half_done_change_can_be_taken_back(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    switch.breaks["two"] = UnreachableError("The lamp does not answer.")
    with pytest.raises(PartlyDoneError):
        run_change(app, plan, apply=True, yes=True)
    undo_by_id(app, plan.id, yes=True)
    assert switch.state == {"one": 0, "two": 0}
    assert phases(app, plan.id)[-1] == "undone"
    with pytest.raises(RefusedError, match="taken back already"):
        undo_by_id(app, plan.id, yes=True)


def test_a_refusal_in_the_first_step_changed_nothing(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    switch.breaks["one"] = RefusedError("The lamp is held by somebody.")
    with pytest.raises(RefusedError, match="held by somebody"):
        run_change(app, plan, apply=True, yes=True)
    assert phases(app, plan.id) == ["planned", "failed"]
    with pytest.raises(RefusedError, match="nothing to take back"):
        undo_by_id(app, plan.id, yes=True)
    apply_by_id(app, plan.id)
    assert switch.state == {"one": 1, "two": 1}


def test_an_interrupted_change_is_resumed_by_its_id(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    switch.breaks["two"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_change(app, plan, apply=True, yes=True)
    assert f"backbone apply {plan.id}" in app.interrupted
    assert Store.of(app).progressed(plan.id).state == "applying"
    apply_by_id(app, plan.id)
    assert switch.acted == ["one", "two"]


KILLED = """
import os, pathlib, signal, sys, types
from ops.app import App
from ops.changes import ChangeKind, apply_by_id, kinds, new_plan, run_change

state = pathlib.Path(sys.argv[1])

def act(app, plan, journal):
    for name in plan.steps:
        with journal.step(name) as todo:
            if todo:
                with state.open("a") as file:
                    file.write(name + " ")
                if name == "two" and "killed" not in state.read_text():
                    state.write_text(state.read_text() + "killed ")
                    os.kill(os.getpid(), signal.SIGKILL)
    return {"state": state.read_text()}

module = types.ModuleType("killed_kind")
module.KIND = ChangeKind(name="killed", precheck=lambda app, plan, done: None, act=act)
sys.modules["killed_kind"] = module
kinds.KINDS["killed"] = "killed_kind"
app = App()
if sys.argv[2:]:
    apply_by_id(app, sys.argv[2])
else:
    plan = new_plan(app, kind="killed", subject="x", title="x", steps=["one", "two", "three"])
    print(plan.id, flush=True)
    run_change(app, plan, apply=True, yes=True)
app.close()
"""


def test_a_change_that_was_killed_goes_on_with_the_step_it_was_killed_in(project: TestProject, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "BACKBONE_PROJECT": str(project.folder)}
        command = [sys.executable, "-c", KILLED, str(state), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)

    first = run()
    assert first.returncode == -9
    change_id = first.stdout.split()[0]
    shown = project.document("change", "show", change_id)["data"]
    assert (shown["state"], shown["doing"]) == ("partly", "two")
    assert [step["done"] for step in shown["steps"]] == [True, False, False]
    assert [line["phase"] for line in shown["audit"]] == ["planned"]
    second = run(change_id)
    assert second.returncode == 0, second.stderr
    # killed between the effect and its record: the step is done again, the one before it is not
    assert state.read_text().split() == ["one", "two", "killed", "two", "three"]
    assert project.document("change", "show", change_id)["data"]["state"] == "applied"


def test_what_was_never_applied_cannot_be_taken_back(app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=False)
    with pytest.raises(RefusedError, match="never applied"):
        undo_by_id(app, plan.id, yes=True)
    with pytest.raises(NotFoundError):
        undo_by_id(app, "ch-99999", yes=True)


def test_a_severe_change_wants_its_name(app: App, switch: Switch) -> None:
    plan = switch_plan(app, severe="the house goes dark")
    with pytest.raises(RefusedError, match="--confirm lamp"):
        run_change(app, plan, apply=True, yes=True)
    with pytest.raises(RefusedError, match="names 'lmap'"):
        run_change(app, plan, apply=True, yes=True, confirm="lmap")
    run_change(app, plan, apply=False)
    with pytest.raises(RefusedError, match="--confirm lamp"):
        apply_by_id(app, plan.id)
    assert switch.acted == []
    apply_by_id(app, plan.id, confirm="lamp")
    assert switch.acted == ["one", "two"]


def test_in_production_a_change_wants_its_reason(app: App, switch: Switch) -> None:
    app.choose_context("prod")
    plan = switch_plan(app)
    run_change(app, plan, apply=False)
    with pytest.raises(RefusedError, match="--reason"):
        apply_by_id(app, plan.id)
    assert switch.acted == []
    apply_by_id(app, plan.id, reason="INC-412")
    assert [entry.reason for entry in entries(app) if entry.change_id == plan.id] == ["INC-412", "INC-412"]


def test_without_a_terminal_and_without_yes_nothing_is_changed(project: TestProject) -> None:
    result = project.run("subscription", "attach", project.subscription, "--from", "latest", "--apply")
    assert result.exit_code == 6
    assert "Nothing was changed. Give --yes" in result.stderr
    assert f"attach {project.subscription}" not in project.run("change", "list", "-q").stdout


@pytest.mark.parametrize(("answer", "code"), [("n\n", 6), ("\n", 6), ("y\n", 0), (None, 130)])
def test_on_a_terminal_a_person_is_asked(project: TestProject, answer: str | None, code: int) -> None:
    ours, theirs = pty.openpty()
    command = ["subscription", "attach", project.subscription, "--from", "latest", "--apply", "--output", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", *command],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "BACKBONE_PROJECT": str(project.folder)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    heard = b""
    while b"[y/N]" not in heard:
        heard += os.read(ours, 4096)
    if answer is None:  # Ctrl-C
        process.send_signal(signal.SIGINT)
    else:
        os.write(ours, answer.encode())
    assert process.stdout is not None
    document = json.loads(process.stdout.read())
    assert process.wait() == code
    os.close(ours)
    if code:
        assert document["error"]["message"].removeprefix("Interrupted. ") == "Nothing was changed."
    else:
        assert document["data"]["state"] == "applied"


def test_changes_of_other_machines_are_listed_from_the_audit(
    project: TestProject, app: App, switch: Switch, tmp_path_factory: pytest.TempPathFactory, stack: Stack
) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=True, yes=True)
    elsewhere = make_project(
        tmp_path_factory.mktemp("elsewhere"), project.prefix, kafka=stack.bootstrap, registry=stack.registry_url
    )
    rows = {row["id"]: row for row in elsewhere.document("change", "list", "--limit", "1000")["data"]}
    assert (rows[plan.id]["state"], rows[plan.id]["author"]) == ("applied", "tester")
    shown = elsewhere.document("change", "show", plan.id)["data"]
    assert [line["phase"] for line in shown["audit"]] == ["planned", "applied"]
    assert elsewhere.run("undo", plan.id, "--yes").exit_code == 5
    here = project.document("change", "show", plan.id)["data"]
    assert [step["done"] for step in here["steps"]] == [True, True]


def test_changes_of_one_second_are_listed_in_the_order_they_were_planned(project: TestProject, app: App) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ids = ["ch-zzzzz", "ch-22222", "ch-mmmmm"]
    for place, change_id in enumerate(ids):
        store = Store.of(app)
        store.save(replace(switch_plan(app), id=change_id, created=now))
        os.utime(store.folder / f"{change_id}.json", (place, place))
    listed = [row["id"] for row in project.document("change", "list", "--limit", "1000")["data"] if row["id"] in ids]
    assert listed == ids


def test_a_broken_plan_file_does_not_hide_the_other_changes(project: TestProject, app: App, switch: Switch) -> None:
    plan = switch_plan(app)
    run_change(app, plan, apply=False)
    (project.folder / ".backbone" / "changes" / "local" / "ch-22222.json").write_text("{}")
    found = project.document("change", "list", "--limit", "1000")
    assert plan.id in [row["id"] for row in found["data"]]
    assert any("ch-22222.json" in warning for warning in found["warnings"])


def test_on_a_new_cluster_registering_makes_the_audit_first(tmp_path: Path, prefix: str) -> None:
    started = local.up(tmp_path / "kafka", artifacts=ROOT / ".backbone" / "artifacts", parts=("kafka",))
    try:
        registry = f"file://{tmp_path}/registry"
        project = make_project(tmp_path / "project", prefix, kafka=started.address.kafka, registry=registry)
        refused = project.run("subscription", "attach", "--all", "--from", "earliest", "--apply", "--yes")
        assert refused.exit_code == 6
        assert "backbone schema register" in refused.stderr
        planned = project.document("schema", "register")["data"]
        assert "backbone.audit and its schema are made before" in " ".join(planned["summary"])
        assert project.document("topic", "list")["data"] == []
        assert project.run("apply", planned["id"]).exit_code == 0
        shown = project.document("change", "show", planned["id"])["data"]
        assert [line["phase"] for line in shown["audit"]] == ["planned", "applied"]
        assert project.document("topic", "plan")["data"]
        assert project.document("schema", "register")["data"] == {"state": "unchanged"}
    finally:
        local.down(tmp_path / "kafka")


def test_change_options_are_the_same_everywhere() -> None:
    from ops.cli import cli

    context = click.Context(cli)
    for path in (("schema", "register"), ("subscription", "attach"), ("subscription", "detach")):
        group = cli.get_command(context, path[0])
        assert isinstance(group, click.Group)
        command = group.get_command(context, path[1])
        assert command is not None
        names = {name for option in command.params for name in option.opts}
        assert {"--apply", "--yes", "--reason", "--confirm"} <= names
