"""A service in an environment of its own, with a package and nothing else, publishes to the real broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.contract import load_contracts
from schemas.datum import example, to_json
from tests.conftest import ROOT, Stack
from tests.ops.projects import TestProject, make_project
from tests.ops.services import Service, make_service

pytestmark = pytest.mark.integration
PAID = load_contracts(ROOT / "schemas" / "events")["billing.InvoicePaid"]
DATA = json.dumps(to_json(example(PAID)))
SHADOW = 'raise ImportError("this is the service\'s own module")\n'


def program(*said: tuple[str, str]) -> str:
    """Python that publishes one event with each of these packages, by its id, and prints what came of them."""
    return f"""
import json
from importlib import import_module

outcomes = []
for module, id in {said!r}:
    package = import_module(module)
    event = import_module(module + ".billing").InvoicePaid.model_validate_json({DATA!r})
    with package.Publisher.from_env() as publisher:
        try:
            outcomes.append(publisher.publish(event, source="billing", id=id).result(timeout=30))
        except package.EventRejected as error:
            outcomes.append(str(error))
print(json.dumps(outcomes))
"""


def registered(folder: Path, prefix: str, stack: Stack) -> TestProject:
    project = make_project(folder, prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    result = project.run("schema", "register", "--apply", "--yes", "-q")
    assert result.exit_code == 0, result.output
    return project


def packaged(project: TestProject, name: str, folder: Path) -> Path:
    document = project.document("schema", "package", "--name", name, "--out", str(folder), "--date", "2026-11-29")
    return Path(document["data"]["file"])


def published(service: Service, file: str, stack: Stack) -> Any:
    said = service.run(
        file, BACKBONE_KAFKA__BOOTSTRAP_SERVERS=stack.bootstrap, BACKBONE_REGISTRY__URL=stack.registry_url
    )
    return json.loads(said)


def read_back(project: TestProject, place: list[Any]) -> dict[str, Any]:
    topic, partition, offset, _ = place
    found: dict[str, Any] = project.document("event", "get", f"{topic}/{partition}/{offset}")["data"]
    return found


def test_two_packages_in_one_environment_publish_to_the_real_broker_beside_modules_of_the_engines_names(
    tmp_path: Path, stack: Stack, prefix: str
) -> None:
    ours = registered(tmp_path / "ours", prefix, stack)
    theirs = registered(tmp_path / "theirs", f"{prefix}-other", stack)
    wheels = (packaged(ours, "acme-events", tmp_path), packaged(theirs, "other-events", tmp_path))
    service = make_service(tmp_path, *wheels)
    service.write(
        schemas=SHADOW,
        producers=SHADOW,
        ops=SHADOW,
        one=program(("acme_events", "e-1"), ("other_events", "e-2")),
        other=program(("other_events", "e-3"), ("acme_events", "e-4")),
    )
    for file, projects in (("one.py", (ours, theirs)), ("other.py", (theirs, ours))):
        for project, place in zip(projects, published(service, file, stack), strict=True):
            found = read_back(project, place)
            assert place[0] == project.invoices
            assert (found["type"], found["id"], found["source"]) == ("billing.InvoicePaid", place[3], "billing")
            assert found["data"]["invoice_id"] == json.loads(DATA)["invoice_id"]


def test_a_schema_that_is_not_registered_is_rejected_with_the_command_that_does_it(
    tmp_path: Path, stack: Stack, prefix: str
) -> None:
    project = make_project(tmp_path / "project", prefix, kafka=stack.bootstrap, registry=stack.registry_url)
    service = make_service(tmp_path, packaged(project, "acme-events", tmp_path))
    service.write(one=program(("acme_events", "e-1")))
    assert "backbone schema register" in published(service, "one.py", stack)[0]
