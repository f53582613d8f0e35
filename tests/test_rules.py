"""Every rule that the code can report has its page, and every page is so: its example breaks that rule, mended it does
not, and the editors' schemas mark exactly what the page says they mark."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from connectors.connector import connector_types
from consumers import yaml_file
from consumers.loader import check_file, check_text
from consumers.rules import GOOD_SUBSCRIPTION
from ops.catalog.editor_schemas import stale
from ops.catalog.project_schema import project_schema
from ops.catalog.subscription_schema import subscription_schema
from ops.cli import cli
from ops.contracts.check import check_files
from ops.contracts.former import former
from ops.contracts.impact import changed, deprecated_readers, impact, readings
from ops.project_file import ProjectFileError, read_file
from ops.rules import GOOD_PROJECT, KINDS, PAGE, RULES
from ops.settings import load_project
from schemas import generate
from schemas.codec import Decoder, SchemaWanted
from schemas.contract import Contracts, contract_from_schema, engine_contracts, load_contracts
from schemas.contract_form import form_schema
from schemas.errors import BackboneError
from schemas.event import Record
from schemas.findings import Finding
from schemas.lint import lint, lint_folder
from schemas.registry import open_registry
from schemas.rules import GOOD_CONTRACT, Rule
from tests.conftest import ROOT

CODE = [
    path
    for folder in ("schemas", "consumers", "ops")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "rules" not in (path.stem, path.parent.name)
]
ENTRY = (
    "Every rule has an entry (id, means, why, breaks, mend) in schemas/rules/, consumers/rules/ or ops/rules.py, in "
    "the module of its subject; then: python -m ops.docs"
)
SAYING = {
    "Problem": 1, "Trap": 2, "ProjectFileError": 1, "say": 1, "_error": 1, "error": 1, "_stop": 1, "_trap": 2,
    "_about_file": 1, "_finding": 1,
}  # fmt: skip
"""What makes a finding, and at which place it is given the rule."""


# --- every rule has an entry


def said_rules() -> Iterator[tuple[str, str]]:
    """Every rule that stands in the code where a finding is made, with its place."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name == "error" and not isinstance(node.func, ast.Name):
                continue  # the screen's, which has words for a person
            place = SAYING.get(name)
            found = [keyword.value for keyword in node.keywords if keyword.arg == "rule"]
            if place is not None and len(node.args) > place:
                found.append(node.args[place])
            for value in found:
                assert not isinstance(value, ast.JoinedStr), (
                    f"{path}:{node.lineno}: a rule is written out, not put together"
                )
                if isinstance(value, ast.Constant) and isinstance(value.value, str) and ID.fullmatch(value.value):
                    yield value.value, f"{path.relative_to(ROOT)}:{node.lineno}"


ID = re.compile(r"[a-z]+(-[a-z]+)*")


def test_every_rule_that_the_code_reports_has_an_entry() -> None:
    missing = {f"{rule} ({place})" for rule, place in said_rules() if rule not in RULES}
    assert not missing, f"no entry for: {', '.join(sorted(missing))}. {ENTRY}"


def test_every_entry_is_reported_somewhere() -> None:
    texts = {
        node.value
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not set(RULES) - texts, "an entry for what nobody reports: take it out"


def test_rules_are_unique_over_all_kinds_of_files_and_speak_in_sentences() -> None:
    assert sum(len(kind.rules) for kind in KINDS) == len(RULES)
    for rule in RULES.values():
        assert ID.fullmatch(rule.id)
        assert rule.breaks != rule.mend
        for sentence in (rule.means, rule.why):
            assert sentence[0].isupper() or sentence[0] == "'" or sentence.startswith(("minLength", "backbone"))
            assert sentence.endswith((".", "_", "-"))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_anchor_on_the_page(rule: str) -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page.count(f"\n### {rule}\n") == 1


# --- every example is so


@cache
def known() -> tuple[Contracts, Any]:
    return load_contracts(ROOT / "schemas" / "events"), load_project(ROOT).connection_types(connector_types())


def contract_text(rule: Rule, example: str) -> str:
    if rule.frame == "file":
        return example
    schema = json.loads(GOOD_CONTRACT)
    part = json.loads(example)
    if rule.frame == "record":
        schema |= part
    elif rule.frame == "promise":
        schema["backbone"] = part
    else:
        schema["fields"].append(part)
    return json.dumps(schema)


def subscription_text(rule: Rule, example: str) -> str:
    there = set(re.findall(r"^(\w+):", example, re.MULTILINE)) if rule.frame == "part" else set(GOOD_SUBSCRIPTION)
    parts = [text for key, text in GOOD_SUBSCRIPTION.items() if key not in there]
    # the example first where it is about the beginning of the file, else behind what is always there
    return "\n".join([*parts, example]) + "\n"


def project_text(rule: Rule, example: str) -> str:
    return example if rule.frame == "file" or "[project]" in example else f"{GOOD_PROJECT}\n{example}\n"


def of_contract(folder: Path, text: str) -> list[Finding]:
    file = folder / "billing" / "PaymentReceived.avsc"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return [one for one in lint(file) if one.rule != "file-place"]  # examples change the name


def of_subscription(folder: Path, text: str) -> list[Finding]:
    contracts, connections = known()
    _, found = check_text(
        "example", text, contracts=contracts, connections=connections, folder=ROOT / "consumers" / "subscriptions"
    )
    return found


def of_project(folder: Path, text: str) -> list[Finding]:
    file = folder / "backbone.toml"
    file.write_text(text, encoding="utf-8")
    try:
        load_project(folder).connection_types(connector_types())
    except ProjectFileError as error:
        return [Finding(file=str(file), path="", rule=error.rule, message=str(error))]
    return []


WRITTEN: dict[str, tuple[Callable[[Rule, str], str], Callable[[Path, str], list[Finding]]]] = {
    "Contracts": (contract_text, of_contract),
    "Subscriptions": (subscription_text, of_subscription),
    "The project file": (project_text, of_project),
}
EXAMPLES = [(kind.title, rule) for kind in KINDS for rule in kind.rules if rule.frame != "situation"]


@pytest.mark.parametrize(("kind", "rule"), EXAMPLES, ids=[rule.id for _, rule in EXAMPLES])
def test_an_example_breaks_its_rule_and_mended_it_does_not(tmp_path: Path, kind: str, rule: Rule) -> None:
    written, check = WRITTEN[kind]
    found = check(tmp_path, written(rule, rule.breaks))
    assert (rule.id, rule.severity) in {(one.rule, one.severity) for one in found}, found
    assert check(tmp_path, written(rule, rule.mend)) == []


# --- what no text alone breaks


def test_every_situation_is_brought_about_below() -> None:
    situations = {rule.id for kind in KINDS for rule in kind.rules if rule.frame == "situation"}
    assert situations == set(SITUATIONS), f"bring it about in a function of SITUATIONS: {situations ^ set(SITUATIONS)}"


@pytest.mark.parametrize("rule", sorted(rule.id for kind in KINDS for rule in kind.rules if rule.frame == "situation"))
def test_a_situation_breaks_its_rule(tmp_path: Path, rule: str) -> None:
    found = list(SITUATIONS[rule](tmp_path))
    assert (rule, RULES[rule].severity) in [(one.rule, one.severity) for one in found], found


def good(folder: Path, name: str = "PaymentReceived", **changes: Any) -> Path:
    schema = json.loads(GOOD_CONTRACT) | {"name": name} | changes
    file = folder / "billing" / f"{name}.avsc"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(schema))
    return file


def side_by_side(folder: Path, old: dict[str, str], new: dict[str, str] | None = None) -> list[Finding]:
    """PaymentReceived with more promises, and perhaps an event V2 beside it."""
    promise = json.loads(GOOD_CONTRACT)["backbone"]
    good(folder, backbone=promise | old)
    if new is not None:
        good(folder, "PaymentReceivedV2", backbone=promise | new)
    return lint_folder(folder)


def hurt(
    folder: Path, change: Callable[[dict[str, Any]], None] | None, body: str = "{{ data.terms }}"
) -> list[Finding]:
    """The impact of a change of InvoiceCreated (None: it is taken away) on a subscription that sends ``body``."""
    contracts, connections = known()
    old = contracts["billing.InvoiceCreated"]
    new = dict(contracts)
    del new[old.name]
    if change is not None:
        schema = json.loads(old.text)
        change(schema)
        new[old.name] = contract_from_schema(schema)
    text = subscription_text(RULES["event"], f"""routes:
  - event: billing.InvoiceCreated
    action: message.post
    body: {{channel: "#paid", text: "x {body}"}}""")  # fmt: skip
    (folder / "paid.yaml").write_text(text)
    app: Any = SimpleNamespace(
        subscription_files=lambda: {"paid": folder / "paid.yaml"}, connection_types=connections, contracts=contracts,
        engine_contracts=engine_contracts(), project=SimpleNamespace(root=folder), screen=SimpleNamespace(warn=print),
    )  # fmt: skip
    was = former(old.text, "HEAD")
    assert was is not None
    read = readings(app, contracts, Contracts(new))
    now = new.get(old.name)
    ending = [] if now is None else deprecated_readers(now, read)
    return [*impact([changed(old.name, old.file, now, [was])], read), *ending]


def of_field(name: str, **attributes: Any) -> Callable[[dict[str, Any]], None]:
    def change(schema: dict[str, Any]) -> None:
        next(one for one in schema["fields"] if one["name"] == name).update(attributes)

    return change


def without_terms(schema: dict[str, Any]) -> None:
    schema["fields"] = [one for one in schema["fields"] if one["name"] != "terms"]


def many_fields(folder: Path) -> list[Finding]:
    fields = [{"name": f"f{number}", "type": "int", "doc": "N."} for number in range(501)]
    return lint(good(folder, fields=[*json.loads(GOOD_CONTRACT)["fields"], *fields]))


def two_keys(folder: Path) -> list[Finding]:
    good(folder)
    schema = json.loads(GOOD_CONTRACT)
    other = {**schema["fields"][0], "name": "account_id"}
    good(folder, "PaymentSent", backbone={**schema["backbone"], "key": "account_id"}, fields=[*schema["fields"], other])
    return lint_folder(folder)


def elsewhere(folder: Path) -> list[Finding]:
    (folder / "sales").mkdir()
    return lint(good(folder).rename(folder / "sales" / "Payment.avsc"))


def foreign_and_large(folder: Path) -> list[Finding]:
    class Large:
        def schema(self, id: int) -> str:
            return " " * (2 << 20)

    decoder = Decoder(Large())  # type: ignore[arg-type]
    decoder.load(SchemaWanted(1))
    answer = decoder.decode(Record("t", 0, 0, None, b"\0\0\0\0\1x", (), 0))
    return [Finding(file="", path="", rule=str(getattr(answer, "detail", "")).rpartition(": ")[2], message="")]


def registered(folder: Path, mode: str = "FULL_TRANSITIVE", **attributes: Any) -> list[Finding]:
    """The check of a contract with a field more than the registered one, whose subject has a mode of its own."""
    file = good(folder)
    registry = open_registry(f"memory://{folder}")
    contract = contract_from_schema(json.loads(file.read_text()))
    registry.register(contract.subject, contract.text)
    registry.set_compatibility(mode, contract.subject)
    more = {"name": "note", "type": "string", "doc": "N.", **attributes}
    good(folder, fields=[*json.loads(GOOD_CONTRACT)["fields"], more])
    project = SimpleNamespace(root=folder, schemas="registry")
    app: Any = SimpleNamespace(registry=registry, project=project, subscription_files=dict)
    return check_files(app, [file], folder=None, registry=True, base=None)


def old_models(folder: Path) -> list[Finding]:
    return generate.check(load_contracts(good(folder).parent.parent), folder / "models")


def replaced(folder: Path, read: str) -> list[Finding]:
    contracts, connections = known()
    schema = json.loads(json.dumps(contracts["billing.InvoicePaid"].schema))
    schema |= {"name": "InvoicePaidV2", "backbone": {**schema["backbone"], "replaces": "billing.InvoicePaid"}}
    both = Contracts({**contracts, "billing.InvoicePaidV2": contract_from_schema(schema)})
    text = subscription_text(RULES["event"], GOOD_SUBSCRIPTION["routes"].replace("billing.InvoicePaid", read))
    return check_text("x", text, contracts=both, connections=connections, folder=folder)[1]


def large_body(folder: Path) -> list[Finding]:
    fields = ", ".join(f"a{number}: text" for number in range(3_000))
    text = subscription_text(RULES["event"], f"""connection: warehouse
routes:
  - event: ["accounts.*", "billing.*"]
    action: row.upsert
    body: {{table: t, row: {{{fields}}}}}""")  # fmt: skip
    return of_subscription(folder, text)


def traps(text: str | bytes) -> list[Finding]:
    return [Finding(file="", path=one.path, rule=one.rule, message=one.message) for one in yaml_file.read(text)[1]]


def of_error(ask: Callable[[], Any]) -> list[Finding]:
    try:
        ask()
    except ProjectFileError as error:
        return [Finding(file="", path="", rule=error.rule, message=str(error))]
    except BackboneError as error:
        pytest.fail(f"no rule: {error}")
    return []


def context_of(folder: Path, text: str) -> Any:
    (folder / "backbone.toml").write_text(GOOD_PROJECT + text)
    return load_project(folder).context("prod")


SITUATIONS: dict[str, Callable[[Path], list[Finding]]] = {
    "unreadable": lambda folder: lint(folder),
    "too-large": foreign_and_large,
    "too-many-fields": many_fields,
    "file-place": elsewhere,
    "no-contracts": lint_folder,
    "key-differs": two_keys,
    "no-sunset": lambda folder: side_by_side(folder, {"status": "deprecated"}),
    "not-deprecated": lambda folder: side_by_side(folder, {"sunset": "2099-03-31"}),
    "sunset-passed": lambda folder: side_by_side(folder, {"status": "deprecated", "sunset": "2020-03-31"}),
    "replaces": lambda folder: side_by_side(folder, {"replaces": "billing.Nothing"}),
    "replaced-by": lambda folder: side_by_side(
        folder, {"status": "deprecated", "sunset": "2099-03-31", "replaced_by": "billing.PaymentReceivedV2"}, {}),
    "not-announced": lambda folder: side_by_side(folder, {}, {"replaces": "billing.PaymentReceived"}),
    "deprecated-read": lambda folder: hurt(folder, lambda schema: schema["backbone"].update(
        status="deprecated", sunset="2099-03-31")),
    "field-read": lambda folder: hurt(folder, without_terms),
    "promise-read": lambda folder: hurt(folder, lambda schema: schema["backbone"].update(topic="billing.other")),
    "personal-data-read": lambda folder: hurt(folder, of_field("terms", personal_data="other")),
    "event-read": lambda folder: hurt(folder, None),
    "subscription-breaks": lambda folder: hurt(folder, without_terms),
    "impact": lambda folder: hurt(folder, of_field("invoice_id", maxLength=1_000), "{{ data.invoice_id }}"),
    "incompatible": registered,
    "registry-disagrees": lambda folder: registered(folder, mode="NONE"),
    "models-not-current": old_models,
    "file": lambda folder: check_file(folder / "x.yaml", contracts=known()[0], connections=known()[1])[1],
    "name": lambda folder: check_text("CRM Contacts", subscription_text(RULES["event"], RULES["event"].mend),
                                      contracts=known()[0], connections=known()[1], folder=folder)[1],
    "replaced": lambda folder: replaced(folder, "[billing.InvoicePaid, billing.InvoicePaidV2]"),
    "successor-left-out": lambda folder: replaced(folder, '"billing.*"'),
    "too-much": large_body,
    "yaml-size": lambda folder: traps("a: 1\n" * 60_000),
    "yaml-encoding": lambda folder: traps("a: é".encode("utf-16")),
    "toml-unreadable": lambda folder: of_error(lambda: read_file(folder)),
    "unresolved-reference": lambda folder: of_error(lambda: context_of(
        folder, '[contexts.prod.kafka]\nsasl.password = "env:NOBODY_HAS_SET_THIS"').kafka),
    "plaintext": lambda folder: of_error(lambda: context_of(
        folder, '[contexts.prod.kafka]\nbootstrap.servers = "k1.acme.example:9092"').kafka),
    "no-credentials": lambda folder: of_error(lambda: context_of(
        folder, '[connections.slack]\nconnector = "slack"\n[contexts.prod]\n').connection("slack").settings(
            connector_types()["slack"])),
    "stale": lambda folder: stale({folder / "backbone.schema.json": "{}"}),
}  # fmt: skip


# --- editors


@cache
def validators() -> dict[str, jsonschema.Draft202012Validator]:
    contracts, connections = known()
    project = {name: table.connector for name, table in load_project(ROOT).connections.items()}
    return {
        "Contracts": jsonschema.Draft202012Validator(form_schema()),
        "Subscriptions": jsonschema.Draft202012Validator(subscription_schema(contracts, connections)),
        "The project file": jsonschema.Draft202012Validator(project_schema(connector_types(), project)),
    }


def parsed(kind: str, text: str) -> Any:
    """The text as an editor sees it; None where it is no JSON, YAML or TOML, which every editor marks by itself."""
    try:
        if kind == "Contracts":
            return json.loads(text)
        if kind == "Subscriptions":
            return yaml.safe_load(text) if list(yaml.parse(text)) else None
        return tomllib.loads(text)
    except (ValueError, yaml.YAMLError):
        return None


@pytest.mark.parametrize(("kind", "rule"), EXAMPLES, ids=[rule.id for _, rule in EXAMPLES])
def test_editors_mark_what_the_page_says_and_nothing_that_is_right(kind: str, rule: Rule) -> None:
    validator, (written, _) = validators()[kind], WRITTEN[kind]
    broken = parsed(kind, written(rule, rule.breaks))
    if not rule.id.startswith("yaml-") and broken is not None:
        assert validator.is_valid(broken) == (not rule.in_editor)
    mended = parsed(kind, written(rule, rule.mend))
    assert [error.message for error in validator.iter_errors(mended)] == []


# --- at the terminal


def test_a_rule_is_read_at_the_terminal_and_a_misspelt_one_has_a_suggestion() -> None:
    asked = CliRunner().invoke(cli, ["rule", "show", "no-owner"])
    assert asked.exit_code == 0
    assert RULES["no-owner"].means in asked.output
    assert RULES["no-owner"].breaks in asked.output
    asked = CliRunner().invoke(cli, ["rule", "show", "no-ownr"])
    assert asked.exit_code == 5
    assert "Did you mean 'no-owner'?" in asked.output


def test_all_rules_are_listed_with_their_pages() -> None:
    asked = CliRunner().invoke(cli, ["rule", "list", "--output", "json"])
    rows = json.loads(asked.output)["data"]
    assert {row["rule"]: row["docs"] for row in rows} == {rule: f"ops/RULES.md#{rule}" for rule in RULES}


def test_a_finding_names_its_page(tmp_path: Path) -> None:
    file = tmp_path / "x.avsc"
    file.write_text("{")
    asked = CliRunner(env={"BACKBONE_PROJECT": str(ROOT)}).invoke(
        cli, ["schema", "check", str(file), "--output", "json"]
    )
    (row,) = json.loads(asked.stdout)["data"]
    assert (asked.exit_code, row["rule"], row["docs"]) == (3, "not-json", "ops/RULES.md#not-json")
    asked = CliRunner(env={"BACKBONE_PROJECT": str(ROOT)}).invoke(cli, ["schema", "check", str(file)])
    assert "backbone rule show not-json" in asked.stderr
