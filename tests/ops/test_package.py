"""The package for services: what is in it, what it is called, and what is said when it cannot be made."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import json
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from ops.package import vendored
from ops.package.content import WINDOW, Package, import_name, package, package_files
from ops.package.version import given_date, version
from schemas.contract import Contracts, contract_from_schema, load_contracts
from schemas.errors import BackboneError, InputError
from tests.conftest import ROOT
from tests.ops.projects import TestProject, make_project
from tests.ops.services import Service, make_service

EVENTS = load_contracts(ROOT / "schemas" / "events")
DAY = datetime(2026, 11, 29, 14, 32, 5, tzinfo=UTC)
TAKEN = {
    "producers.client_log", "producers.client_settings", "producers.errors", "producers.facts", "producers.failures",
    "producers.kafka", "producers.memory", "producers.payload", "producers.pending", "producers.plaintext",
    "producers.publisher",
    "producers.settings", "producers.settled", "producers.spans", "producers.uuid7", "schemas.avsc", "schemas.checker",
    "schemas.codec", "schemas.compatibility", "schemas.contract", "schemas.contract_form", "schemas.datum",
    "schemas.duration", "schemas.envelope", "schemas.errors", "schemas.event", "schemas.findings", "schemas.pattern",
    "schemas.references", "schemas.registry", "schemas.registry_local", "schemas.schema_cache", "schemas.traceparent",
    "schemas.walk", "schemas.write",
}  # fmt: skip


def made(name: str = "acme-events", contracts: Contracts = EVENTS, at: datetime = DAY) -> Package:
    return package(name, contracts, project="acme", changed_at=at)


def changed(name: str, **attributes: Any) -> Contracts:
    """The contracts, one of them with other attributes."""
    schema = {**EVENTS[name].schema, **attributes}
    found = contract_from_schema(schema)
    return Contracts({**{key: one for key, one in EVENTS.items() if key != name}, found.name: found})


# ---- what is taken from the engine ---------------------------------------------------------------------------------


def test_a_package_takes_these_modules_and_no_others() -> None:
    assert set(vendored.modules()) == TAKEN


def test_what_is_taken_imports_nothing_but_itself_the_standard_library_and_four_libraries() -> None:
    for path, text in vendored.vendored("acme_events._backbone").items():
        for one in vendored.imports(text, path):
            top = one.module.partition(".")[0]
            assert top in {"acme_events", *vendored.LIBRARIES} or vendored._standard(top), f"{path}: {one.module}"


def test_what_is_taken_says_the_same_but_for_where_it_imports_from() -> None:
    for module in vendored.modules():
        text = vendored._source(module)
        tree = ast.parse(vendored.moved(text, "acme_events._backbone", module))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                node.module = node.module.removeprefix("acme_events._backbone.")
        assert ast.dump(tree) == ast.dump(ast.parse(text)), module


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import schemas.codec", "write it 'from schemas.codec import NAME'"),
        ("from  schemas.codec import Encoder", "write it 'from schemas.codec import NAME'"),
        ("from . import codec", "a relative import cannot be moved"),
        ("import importlib\nimportlib.import_module('schemas.codec')", "loaded by a text"),
        ("__import__('schemas')", "loaded by a text"),
        ("exec('''\nimport schemas\n''')", "loaded by a text"),
    ],
)
def test_an_import_that_cannot_be_moved_ends_the_build(text: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        vendored.moved(text, "acme_events._backbone", "producers.new")


def test_an_import_is_moved_wherever_it_stands() -> None:
    text = '"""é"""; from schemas import avsc; from schemas.errors import (\n    InputError,\n)\ns = "schemas.errors"\n'
    moved = vendored.moved(text, "a._b", "x")
    assert moved == text.replace("from schemas", "from a._b.schemas")


@pytest.mark.parametrize("line", ["import click", "from consumers.kafka import x", "import avro"])
def test_a_module_that_needs_more_than_services_have_ends_the_build(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    real = vendored._source

    def source(module: str) -> str:
        return f"{line}\n{real(module)}" if module == "producers.errors" else real(module)

    monkeypatch.setattr(vendored, "_source", source)
    vendored.modules.cache_clear()
    try:
        with pytest.raises(BackboneError, match=r"producers\.errors imports .* which a package .* does not have"):
            vendored.modules()
    finally:
        vendored.modules.cache_clear()


# ---- the wheel -----------------------------------------------------------------------------------------------------


def test_the_same_contracts_are_the_same_file() -> None:
    assert made() == made()
    assert made(contracts=load_contracts(ROOT / "schemas" / "events")).wheel == made().wheel


def test_other_contracts_another_name_or_another_day_are_another_version() -> None:
    others = [
        made(contracts=changed("billing.InvoicePaid", doc="Paid.")),
        made("acme-billing"),
        made(at=DAY.replace(day=30)),
    ]
    assert len({made().version, *(one.version for one in others)}) == 4


def test_every_file_is_recorded_as_it_is() -> None:
    found = made()
    with zipfile.ZipFile(io.BytesIO(found.wheel)) as archive:
        record = next(name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
        assert [row[0] for row in rows] == archive.namelist()
        for name, digest, size in rows:
            if name != record:
                data = archive.read(name)
                wanted = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
                assert (digest, size) == (f"sha256={wanted}", str(len(data)))
    name, parsed, _, tags = parse_wheel_filename(found.file_name)
    assert (name, str(parsed), {str(tag) for tag in tags}) == ("acme-events", found.version, {"py3-none-any"})


def test_it_needs_four_libraries_and_holds_the_engines_licence() -> None:
    with zipfile.ZipFile(io.BytesIO(made().wheel)) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
        needed = [line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Requires-Dist")]
        assert [one.split(">=")[0] for one in needed] == ["confluent-kafka", "fastavro", "pydantic", "urllib3"]
        assert any(name.endswith("licenses/LICENSE.event-backbone") for name in archive.namelist())
    assert "@" not in metadata.replace("e-mail", "")


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1)), st.timedeltas(timedelta(seconds=1), timedelta(days=900))
)
def test_newer_contracts_are_a_newer_version_in_its_normal_form(at: datetime, later: timedelta) -> None:
    older = version(at.replace(tzinfo=UTC, microsecond=0), {"a": "1"})
    newer = version((at + later).replace(tzinfo=UTC), {"a": "2"})
    assert str(Version(older)) == older
    assert Version(older) < Version(newer)


@given(st.text(max_size=30))
def test_any_text_for_a_date_is_a_date_or_a_sentence(text: str) -> None:
    try:
        found = given_date(text)
    except InputError as error:
        said = str(error)
    else:
        assert found.tzinfo is UTC
        return
    assert said.startswith("--date")


@given(st.text(max_size=70) | st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True))
def test_any_text_for_a_name_is_an_importable_name_or_a_sentence(text: str) -> None:
    try:
        found = import_name(text)
    except InputError as error:
        said = str(error)
    else:
        assert found.isidentifier()
        return
    assert said.startswith("--name: ")


def test_a_domain_in_the_place_of_the_engines_folder_is_refused() -> None:
    one = contract_from_schema({**EVENTS["billing.InvoicePaid"].schema, "namespace": "_backbone"})
    with pytest.raises(InputError, match="_backbone"):
        package_files("acme_events", Contracts({one.name: one}))


def test_no_contracts_are_no_package() -> None:
    with pytest.raises(InputError, match="no contract"):
        made(contracts=Contracts({}))


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    return make_project(tmp_path / "project", "pack")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1 x", "lower-case letters"), ("Acme", "lower-case letters"), ("", "lower-case letters"),
        ("a--b", "lower-case letters"), ("x" * 61, "at most 60"), ("class", "a word of Python's own"),
        ("match", "a word of Python's own"), ("json", "a module of Python's own"), ("schemas", "in use"),
        ("fastavro", "in use"), ("event-backbone", "in use"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_one_sentence(project: TestProject, tmp_path: Path, name: str, said: str) -> None:
    result = project.run("schema", "package", "--name", name, "--out", str(tmp_path / "dist"), "--date", "2026-11-29")
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "dist").exists()


def test_it_is_written_once_and_another_file_of_its_name_is_left_alone(project: TestProject, tmp_path: Path) -> None:
    command = ("schema", "package", "--out", str(tmp_path / "dist"), "--date", "2026-11-29")
    first, second = (project.document(*command)["data"] for _ in range(2))
    assert (first["name"], first["import"], first["events"]) == ("acme-events", "acme_events", 7)
    assert first["version"].startswith("2026.11.29.0+h")
    assert (first["written"], second["written"]) == (True, False)
    Path(first["file"]).write_bytes(b"other")
    result = project.run(*command)
    assert result.exit_code == 6
    assert "with other content" in result.stderr
    assert Path(first["file"]).read_bytes() == b"other"


def test_a_file_in_place_of_the_folder_is_said(project: TestProject, tmp_path: Path) -> None:
    (tmp_path / "dist").write_text("")
    result = project.run("schema", "package", "--out", str(tmp_path / "dist"), "--date", "2026-11-29")
    assert result.exit_code == 2
    assert "is a file: name a folder" in result.stderr


def test_a_folder_that_cannot_be_made_is_said(project: TestProject) -> None:
    result = project.run("schema", "package", "--out", "/proc/dist", "--date", "2026-11-29")
    assert result.exit_code == 2
    assert "The folder /proc/dist cannot be written: " in result.stderr


def test_the_date_is_the_last_commits_and_what_is_not_committed_is_said(project: TestProject, tmp_path: Path) -> None:
    command = ("schema", "package", "--out", str(tmp_path / "dist"))
    result = project.run(*command)
    assert result.exit_code == 2
    assert "give --date DAY" in result.stderr
    git(project.folder, "init", "-q")
    git(project.folder, "add", "schemas")
    environment = ["-c", "core.hooksPath=/dev/null", "commit", "-qm", "contracts", "--date", "2026-03-04T05:06:07Z"]
    git(project.folder, *environment)
    document = project.document(*command)
    stamp = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=project.folder, capture_output=True, text=True, check=True
    )
    assert document["data"]["version"].split("+")[0] == version(
        datetime.fromtimestamp(int(stamp.stdout), UTC), {}
    ).split("+")[0]  # fmt: skip
    assert document["warnings"] == []
    file = next((project.folder / "schemas").rglob("InvoicePaid.avsc"))
    file.write_text(file.read_text().replace("Paid", "Paid", 1) + "\n")
    assert "not committed" in project.document(*command)["warnings"][0]


def test_a_clone_without_history_does_not_know_the_date(project: TestProject, tmp_path: Path) -> None:
    git(project.folder, "init", "-q")
    git(project.folder, "add", "schemas", "backbone.toml")
    git(project.folder, "commit", "-qm", "contracts")
    git(project.folder, "commit", "-qm", "later", "--allow-empty")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{project.folder}", "clone")
    result = TestProject(tmp_path / "clone", "pack").run("schema", "package", "--out", str(tmp_path / "dist"))
    assert result.exit_code == 6
    assert "fetch-depth: 0" in result.stderr


# ---- as a service has it -------------------------------------------------------------------------------------------

OWN = "MINE = True\n"
"""A module of the service, called like one of the engine's folders."""
TRY = """
import sys
from acme_events import CONTRACTS, Acknowledgement, MemoryPublisher, Publisher
from acme_events.billing import InvoicePaid

def publish(publisher: Publisher, event: InvoicePaid) -> Acknowledgement:
    return publisher.publish(event, source="billing", id="e-1").result(timeout=10)

if __name__ == "__main__":
    with MemoryPublisher() as publisher:
        event = InvoicePaid.model_validate_json(sys.stdin.read())
        publish(publisher, event)
        assert publisher.events[0].type == InvoicePaid.contract.name
    assert "confluent_kafka" not in sys.modules
    print(len(CONTRACTS))
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    folder = tmp_path_factory.mktemp("service")
    found = made()
    (folder / found.file_name).write_bytes(found.wheel)
    return make_service(folder, folder / found.file_name)


def test_the_example_of_its_description_runs_with_the_publisher_for_tests(service: Service) -> None:
    with zipfile.ZipFile(io.BytesIO(made().wheel)) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    first, second = (block.partition("```")[0] for block in text.split("```python\n")[1:])
    example = first.replace("from acme_events import Publisher", "from acme_events import MemoryPublisher")
    service.write(example=example.replace("Publisher.from_env()", "MemoryPublisher()") + second)
    service.run("example.py")


def test_it_stands_beside_modules_called_schemas_and_producers_and_loads_no_more_than_it_needs(
    service: Service,
) -> None:
    program = TRY.replace("sys.stdin.read()", repr(paid()))
    own = "import schemas, producers\nassert schemas.MINE and producers.MINE\n"
    service.write(schemas=OWN, producers=OWN, first=own + program, last=program + own)
    assert service.run("first.py") == "7\n"
    assert service.run("last.py") == "7\n"


def paid() -> str:
    from schemas.datum import example, to_json

    contract = EVENTS["billing.InvoicePaid"]
    return json.dumps(to_json(example(contract)))


def test_every_name_of_the_window_is_there_and_a_wrong_one_is_an_attribute_error(service: Service) -> None:
    service.write(
        names=f"import acme_events\nfor name in {[*WINDOW]!r}:\n    assert name in acme_events.__all__\n"
        "    getattr(acme_events, name)\nassert not hasattr(acme_events, 'Nope')\n"
    )
    service.run("names.py")


def test_a_registry_of_its_own_refuses_what_would_break_readers(service: Service) -> None:
    service.write(
        second="from acme_events import CONTRACTS\n"
        "from acme_events._backbone.schemas.registry import IncompatibleSchemaError, open_registry\n"
        "one = CONTRACTS['billing.InvoicePaid']\nregistry = open_registry('memory://x')\n"
        "registry.register(one.subject, one.text)\n"
        "try:\n    registry.register(one.subject, one.text.replace('\"long\"', '\"string\"', 1))\n"
        "except IncompatibleSchemaError as error:\n    print(error)\n"
    )
    assert "the registry refuses the schema" in service.run("second.py")


def test_a_service_that_uses_it_is_checked_strictly(service: Service, tmp_path: Path) -> None:
    import sys

    service.write(
        typed=TRY, wrong="from acme_events import Nope\nfrom acme_events.billing import InvoicePaid\nInvoicePaid(x=1)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path / "cache")]
    command += ["--python-executable", str(service.python)]

    def checked(file: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, file], cwd=service.folder, capture_output=True, text=True, check=False)

    assert checked("typed.py").returncode == 0
    wrong = checked("wrong.py")
    assert 'has no attribute "Nope"' in wrong.stdout
    assert "call-arg" in wrong.stdout
