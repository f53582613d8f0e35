"""A connector of another package: found by its entry point, used like one of ours; a broken one harms nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Stack
from tests.ops.projects import TestProject, make_project
from tests.waiting import eventually

PACKAGE = Path(__file__).parent / "other_connector"
SUBSCRIPTION = """
description: Sign-ups, one line each.
owner: team-data
connection: log
routes:
  - event: accounts.UserSignedUp
    action: line.add
    body: {text: "{{ data.user_id }} signed up"}
tests:
  - name: a sign-up is a line
    given: [{event: accounts.UserSignedUp, data: {user_id: u1}}]
    expect: [{action: line.add, body: {text: u1 signed up}, outcome: delivered}]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, as pip installs it."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
         "--no-build-isolation", "--target", str(folder / "site"), str(folder / "source")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


def add_connection(project: TestProject, connector: str = "journal") -> None:
    file = project.folder / "backbone.toml"
    file.write_text(file.read_text() + f'\n[connections.log]\nconnector = "{connector}"\n')


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """``beside(folder)`` makes this process find what is installed in the folder."""
    before = set(sys.modules)
    yield lambda folder: monkeypatch.syspath_prepend(str(folder))
    for name in {"odd", *(name for name in sys.modules if name.partition(".")[0] == "journal")} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    return make_project(tmp_path / "project", "other")


def entry_point(folder: Path, name: str, value: str, package: str = "somebodys-package") -> Path:
    """A folder in which a package registers such a connector."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[event_backbone.connectors]\n{name} = {value}\n")
    return folder


def test_without_the_package_the_connection_has_no_connector(project: TestProject) -> None:
    add_connection(project)
    result = project.run("catalog", "show", "log")
    assert result.exit_code == 2
    assert "there is no connector 'journal' installed" in result.stderr


def test_it_is_in_the_catalogue_and_subscriptions_for_it_are_checked_and_tested(
    project: TestProject, installed: Path, beside: Callable[[Path], None]
) -> None:
    beside(installed)
    add_connection(project)
    data = project.document("catalog", "show", "log")["data"]
    assert (data["connector"], [action["action"] for action in data["actions"]]) == ("journal", ["line.add"])
    path = project.folder / "consumers" / "subscriptions" / "sign-ups.yaml"
    path.write_text(SUBSCRIPTION)
    assert project.document("subscription", "check", "sign-ups")["data"] == []
    (test,) = project.document("subscription", "test", "sign-ups")["data"]
    assert test["result"] == "passed"
    path.write_text(SUBSCRIPTION.replace('body: {text: "{{', 'body: {txt: "{{'))
    wrong = project.document("subscription", "check", "sign-ups", code=3)["data"]
    assert any("text" in finding["message"] for finding in wrong)


BROKEN = {
    "no-module": ("nowhere:CONNECTOR", None, "cannot be loaded: No module named 'nowhere'"),
    "no-name": ("odd:CONNECTOR", "x = 1", "cannot be loaded: AttributeError"),
    "raises": ("odd:CONNECTOR", "raise ValueError('secret')", "cannot be loaded: ValueError"),
    "ends": ("odd:CONNECTOR", "raise SystemExit(9)", "cannot be loaded: SystemExit"),
    "not-python": ("odd:CONNECTOR", "def (", "cannot be loaded: SyntaxError"),
    "no-type": ("odd:CONNECTOR", "CONNECTOR = 'x'", "is left out: odd:CONNECTOR is no ConnectorType"),
    "other-name": ("odd:CONNECTOR", "from connectors.slack import CONNECTOR", "calls itself 'slack'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_a_warning_with_its_package_and_reason_and_all_else_works(
    project: TestProject, tmp_path: Path, beside: Callable[[Path], None], kind: str
) -> None:
    value, module, said = BROKEN[kind]
    site = entry_point(tmp_path / "site", "odd", value)
    if module is not None:
        (site / "odd.py").write_text(module)
    beside(site)
    (warning,) = project.document("catalog", "show", "rows")["warnings"]
    assert warning.startswith("the connector 'odd' of the package somebodys-package ")
    assert said in warning
    assert "secret" not in warning
    add_connection(project, "odd")
    used = project.run("catalog", "show", "log")
    assert used.exit_code == 2
    assert said in used.stderr
    assert "there is no connector 'odd' installed" in used.stderr


def test_another_package_does_not_take_the_place_of_one_of_ours(
    project: TestProject, tmp_path: Path, beside: Callable[[Path], None]
) -> None:
    beside(entry_point(tmp_path / "site", "sql", "connectors.sql:CONNECTOR", "a-package"))
    (warning,) = project.document("catalog", "show", "rows")["warnings"]
    assert "a-package is left out: another package has one of that name" in warning


@pytest.mark.integration
def test_events_are_delivered_by_it(
    tmp_path: Path, stack: Stack, prefix: str, installed: Path, beside: Callable[[Path], None]
) -> None:
    beside(installed)
    project = make_project(tmp_path / "project", prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    (project.folder / "consumers" / "subscriptions" / f"{project.subscription}.yaml").unlink()
    add_connection(project)
    name = f"{prefix}-journal"
    (project.folder / "consumers" / "subscriptions" / f"{name}.yaml").write_text(SUBSCRIPTION)
    for arguments in (
        ("schema", "register", "--apply", "--yes"),
        ("subscription", "attach", name, "--from", "earliest", "--apply", "--yes"),
        ("event", "publish", "accounts.UserSignedUp", "--data", signed_up("u-7")),
    ):
        done = project.run(*arguments)
        assert done.exit_code == 0, done.output
    for _ in running(project, name, installed):
        file = project.folder / ".backbone" / "fakes" / "journal.jsonl"
        eventually(file.exists, 60, about="a line in the journal")
        assert [json.loads(line) for line in file.read_text().splitlines()] == [
            {"entity": "u-7", "text": "u-7 signed up"}
        ]


def running(project: TestProject, name: str, site: Path) -> Iterator[None]:
    """While a worker runs; it ends in an orderly way."""
    log = (project.folder / "worker.log").open("w")
    environment = {**os.environ, "BACKBONE_PROJECT": str(project.folder), "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "ops.cli", "run", name]
    worker = subprocess.Popen(command, env=environment, cwd=project.folder, stdout=log, stderr=log)
    try:
        yield
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, (project.folder / "worker.log").read_text()
    finally:
        worker.kill()
        worker.wait()
        log.close()


def signed_up(user: str) -> str:
    from schemas.contract import load_contracts
    from schemas.datum import example, to_json
    from tests.conftest import ROOT

    contract = load_contracts(ROOT / "schemas" / "events")["accounts.UserSignedUp"]
    return json.dumps({**to_json(example(contract)), "user_id": user})
