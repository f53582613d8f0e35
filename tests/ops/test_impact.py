"""``backbone schema check --base``: what a change does to those who read the event, with files and git."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.ops.projects import TestProject, make_project

Change = Callable[[dict[str, Any]], None]

EXACT = """
description: Contacts.
owner: team-revops
connection: rows
personal_data: {purpose: Contact our users., allow: [email, name]}
routes:
  - event: accounts.UserSignedUp
    where: data.plan != 'internal'
    action: row.upsert
    entity: "{{ data.user_id }}"
    body: {table: users, row: {mail: "{{ data.email }}"}}
"""
PROJECTION = """
description: Renames.
owner: team-x
connection: rows
routes:
  - event: accounts.UserUpgraded
    projection: renames.py:renamed
"""
PYTHON = """
from consumers.subscription import Projected


def renamed(event):
    return Projected(action="row.upsert", entity=event.data["user_id"], body={"table": "t", "row": {"a": event.id}})
"""
TESTED = """
tests:
  - {name: one, given: [{event: accounts.UserUpgraded}], expect: [{action: row.upsert}]}
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    """In git, with one subscription that reads two fields of one event."""
    made = make_project(tmp_path, "r")
    path = made.folder / "consumers" / "subscriptions" / f"{made.subscription}.yaml"
    path.unlink()
    subscribe(made, "contacts", EXACT)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "start")
    return made


def subscribe(project: TestProject, name: str, text: str) -> Path:
    path = project.folder / "consumers" / "subscriptions" / f"{name}.yaml"
    path.write_text(text)
    return path


def file_of(project: TestProject, event: str) -> Path:
    return project.folder / "schemas" / "events" / f"{event.replace('.', '/')}.avsc"


def edit(project: TestProject, event: str, change: Change) -> Path:
    path = file_of(project, event)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def field(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in content["fields"] if one["name"] == name)


def without(name: str) -> Change:
    return lambda content: content["fields"].remove(field(content, name))


def found(project: TestProject, code: int, *more: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = project.document("schema", "check", "--base", "HEAD", *more, code=code)["data"]
    return rows


def of_rule(rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["rule"] == rule]


def test_removing_a_field_that_somebody_reads_is_refused_with_their_names_and_places(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", without("email"))
    rows = found(project, 3)
    (row,) = of_rule(rows, "field-read")
    assert "'email' was removed, and it is read by contacts (team-revops: body.row.mail)." in row["message"]
    assert row["path"] == "email"
    (stops,) = of_rule(rows, "subscription-breaks")
    assert stops["file"].endswith("contacts.yaml")
    assert "contacts (team-revops) could not be loaded any more" in stops["message"]
    assert "has no field 'email'" in stops["message"]


def test_it_is_refused_also_where_avro_would_allow_it(project: TestProject) -> None:
    """A field with a default may go by every rule of compatibility; the mapping that sends it would send nothing."""
    subscribe(project, "all", EXACT.replace('{mail: "{{ data.email }}"}', '"{{ data | allowed }}"'))
    optional = next(
        one["name"]
        for one in json.loads(file_of(project, "accounts.UserSignedUp").read_text())["fields"]
        if "default" in one and one["name"] not in ("plan", "email")
    )
    edit(project, "accounts.UserSignedUp", without(optional))
    rows = found(project, 3)
    assert of_rule(rows, "incompatible") == []
    (row,) = of_rule(rows, "field-read")
    assert f"'{optional}' was removed, and it is read by all (team-revops: all of it)." in row["message"]
    assert "accounts.UserSignedUpV2" in row["message"]
    assert '"replaces": "accounts.UserSignedUp"' in row["message"]


def test_a_field_that_nobody_reads_may_go_and_that_is_said(project: TestProject) -> None:
    content = json.loads(file_of(project, "accounts.UserSignedUp").read_text())
    optional = next(one["name"] for one in content["fields"] if "default" in one and one["name"] != "plan")
    edit(project, "accounts.UserSignedUp", without(optional))
    rows = found(project, 0)
    assert [(row["rule"], row["severity"]) for row in rows] == [("impact", "notice")]
    assert "nobody here reads it" in rows[0]["message"]
    assert project.run("schema", "check", "--base", "HEAD", "--output", "github").stdout.startswith("::notice file=")


def test_a_mapping_that_is_changed_in_the_same_commit_lets_its_field_go(project: TestProject) -> None:
    content = json.loads(file_of(project, "billing.InvoiceCreated").read_text())
    assert "default" in field(content, "coupon")
    text = EXACT.replace("accounts.UserSignedUp", "billing.InvoiceCreated").replace(
        "data.plan != 'internal'", "data.coupon is none"
    )
    text = text.replace("data.user_id", "data.invoice_id").replace("data.email", "data.currency")
    subscribe(project, "invoices", text)
    edit(project, "billing.InvoiceCreated", without("coupon"))
    assert "invoices (team-revops: where)" in of_rule(found(project, 3), "field-read")[0]["message"]
    subscribe(project, "invoices", text.replace("data.coupon is none", "data.total_minor > 0"))
    assert of_rule(found(project, 0), "field-read") == []


def test_a_nested_field_is_read_by_who_reads_the_list_it_is_in(project: TestProject) -> None:
    text = EXACT.replace("accounts.UserSignedUp", "billing.InvoiceCreated").replace("data.user_id", "data.invoice_id")
    subscribe(
        project,
        "invoices",
        text.replace("data.plan != 'internal'", "data.total_minor > 0").replace("data.email", "data.lines"),
    )

    def change(content: dict[str, Any]) -> None:
        lines = field(content, "lines")["type"]["items"]["fields"]
        next(one for one in lines if one["name"] == "quantity")["type"] = "long"

    edit(project, "billing.InvoiceCreated", change)
    (row,) = of_rule(found(project, 3), "field-read")
    assert row["path"] == "lines.quantity"
    assert "is long and was int, and it is read by invoices (team-revops: body.row.mail)" in row["message"]


def test_of_a_projection_it_is_said_how_its_reads_are_known(project: TestProject) -> None:
    (project.folder / "consumers" / "subscriptions" / "renames.py").write_text(PYTHON)
    subscribe(project, "renames", PROJECTION)

    def retyped(name: str) -> Change:
        return lambda content: field(content, name).update(type="bytes")

    edit(project, "accounts.UserUpgraded", retyped("to_plan"))
    unseen = of_rule(found(project, 3), "field-read")[0]["message"]
    assert "renames (team-x: renames.py:renamed, which nobody has run: it may read anything it is allowed)" in unseen
    subscribe(project, "renames", PROJECTION + TESTED)
    assert of_rule(found(project, 0), "field-read") == []  # its test has shown that it reads user_id alone
    git(project.folder, "checkout", "-q", "--", "schemas")
    edit(project, "accounts.UserUpgraded", lambda content: field(content, "user_id").update(maxLength=1000))
    (seen,) = of_rule(found(project, 0), "impact")
    today = datetime.now(UTC).date()
    assert f"renames (team-x: renames.py:renamed, seen in 1 event, last on {today})" in seen["message"]


def test_a_personal_data_class_that_a_reader_does_not_allow_is_refused(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", lambda content: field(content, "user_id").update(personal_data="other"))
    rows = found(project, 3)
    (row,) = of_rule(rows, "personal-data-read")
    assert "contacts (team-revops: entity)" in row["message"]
    assert "add it to personal_data.allow of contacts" in row["message"]
    assert "could not be loaded any more" in of_rule(rows, "subscription-breaks")[0]["message"]


def test_a_personal_data_class_that_every_reader_allows_is_nothing_to_say(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", lambda content: field(content, "plan").update(personal_data="name"))
    assert of_rule(found(project, 0), "personal-data-read") == []


def test_a_reader_that_takes_what_is_allowed_is_warned_of_what_it_loses(project: TestProject) -> None:
    subscribe(project, "contacts", EXACT.replace('{mail: "{{ data.email }}"}', '"{{ data | allowed }}"'))
    edit(project, "accounts.UserSignedUp", lambda content: field(content, "plan").update(personal_data="health"))
    (row,) = of_rule(found(project, 0), "impact")
    assert row["severity"] == "warning"
    assert "it would be left out of what contacts (team-revops: all of it) sends" in row["message"]


def test_a_condition_may_look_at_what_may_not_leave(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", lambda content: field(content, "plan").update(personal_data="health"))
    assert found(project, 0) == []


@pytest.mark.parametrize(("name", "value"), [("topic", "r.others"), ("key", "email")])
def test_another_topic_or_key_of_an_event_that_is_read_is_refused(project: TestProject, name: str, value: str) -> None:
    edit(project, "accounts.UserSignedUp", lambda content: content["backbone"].update({name: value}))
    (row,) = of_rule(found(project, 3), "promise-read")
    assert f"the {name} is {value} and was" in row["message"]
    assert "read by contacts (team-revops)" in row["message"]


def test_more_symbols_and_looser_limits_are_a_warning_to_those_who_read(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", lambda content: field(content, "email").update(maxLength=1000))
    (row,) = of_rule(found(project, 0), "impact")
    assert row["severity"] == "warning"
    assert "look whether the mapping of contacts (team-revops: body.row.mail) can take it" in row["message"]


def test_tighter_limits_hurt_nobody_who_reads(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", lambda content: field(content, "email").update(maxLength=100))
    (row,) = of_rule(found(project, 0), "impact")
    assert row["severity"] == "notice"
    assert "other values are rejected at publishing" in row["message"]


def test_an_event_whose_file_is_gone_is_refused_where_it_is_read(project: TestProject) -> None:
    file_of(project, "accounts.UserSignedUp").unlink()
    file_of(project, "accounts.UserErased").unlink()
    rows = found(project, 3)
    (row,) = of_rule(rows, "event-read")
    assert "accounts.UserSignedUp was in HEAD and has no file any more, and is read by contacts" in row["message"]
    (notice,) = of_rule(rows, "impact")
    assert "accounts.UserErased was in HEAD and has no file any more; nobody here reads it." in notice["message"]


def test_an_event_that_moved_to_another_file_is_the_same_event(project: TestProject) -> None:
    path = file_of(project, "accounts.UserSignedUp")
    path.rename(path.with_name("Elsewhere.avsc"))
    assert [row["rule"] for row in found(project, 0)] == ["file-place"]


def test_a_file_that_is_broken_now_is_said_so_and_not_gone(project: TestProject) -> None:
    file_of(project, "accounts.UserSignedUp").write_text("{")
    assert {row["rule"] for row in found(project, 3)} == {"not-json", "subscription-breaks"}


def test_only_the_files_that_are_named_are_looked_at(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", without("email"))
    other = str(file_of(project, "accounts.UserErased"))
    assert found(project, 0, other) == []
    assert of_rule(found(project, 3, str(file_of(project, "accounts.UserSignedUp"))), "field-read")


@pytest.mark.parametrize("revision", ["no-such", "--output=/tmp/x", "-h", "HEAD:schemas", ""])
def test_what_is_no_revision_is_a_sentence(project: TestProject, revision: str) -> None:
    result = project.run("schema", "check", f"--base={revision}")
    assert result.exit_code == 2, result.output
    assert "no revision" in result.stderr


def test_outside_of_git_that_is_said(tmp_path: Path) -> None:
    project = make_project(tmp_path, "r")
    assert project.run("schema", "check", "--base", "HEAD").exit_code == 2


# ---- an event that ends -------------------------------------------------------------------------------------------


def second_version(project: TestProject) -> Path:
    content = json.loads(file_of(project, "accounts.UserSignedUp").read_text())
    content["name"] = "UserSignedUpV2"
    path = file_of(project, "accounts.UserSignedUpV2")
    path.write_text(json.dumps(content, indent=2))
    return path


SUNSET = (datetime.now(UTC).date() + timedelta(days=90)).isoformat()


def deprecate(project: TestProject, *more: str) -> tuple[str, ...]:
    return ("schema", "deprecate", "accounts.UserSignedUp", "--sunset", SUNSET, *more)


def test_deprecating_writes_both_files_and_names_who_still_reads_it(project: TestProject) -> None:
    new = second_version(project)
    data = project.document(*deprecate(project, "--replaced-by", "accounts.UserSignedUpV2"))["data"]
    assert [row["subscription"] for row in data["readers"]] == ["contacts"]
    assert [Path(one["file"]).name for one in data["written"]] == ["UserSignedUp.avsc", "UserSignedUpV2.avsc"]
    old = json.loads(file_of(project, "accounts.UserSignedUp").read_text())["backbone"]
    assert (old["status"], old["sunset"], old["replaced_by"]) == ("deprecated", SUNSET, "accounts.UserSignedUpV2")
    assert json.loads(new.read_text())["backbone"]["replaces"] == "accounts.UserSignedUp"
    rows = found(project, 0)
    (row,) = of_rule(rows, "deprecated-read")
    assert row["severity"] == "warning"
    assert f"it ends on {SUNSET} and is still read by contacts (team-revops)" in row["message"]
    again = project.document(*deprecate(project, "--replaced-by", "accounts.UserSignedUpV2"))["data"]
    assert again["written"] == []


def test_what_was_written_survives_into_the_models(project: TestProject) -> None:
    second_version(project)
    assert project.run(*deprecate(project, "--replaced-by", "accounts.UserSignedUpV2")).exit_code == 0
    assert project.run("schema", "generate").exit_code == 0
    text = (project.folder / "schemas" / "models" / "accounts.py").read_text()
    assert f'"sunset": "{SUNSET}"' in text
    assert '"replaces": "accounts.UserSignedUp"' in text


def test_a_subscription_that_would_read_both_is_refused_by_name(project: TestProject) -> None:
    subscribe(
        project,
        "all",
        EXACT.replace("event: accounts.UserSignedUp", "event: [accounts.UserSignedUp, accounts.UserSignedUpV2]"),
    )
    git(project.folder, "add", ".")
    second_version(project)
    git(project.folder, "add", ".")
    git(project.folder, "commit", "-qm", "both")
    assert project.run(*deprecate(project, "--replaced-by", "accounts.UserSignedUpV2")).exit_code == 0
    (row,) = of_rule(found(project, 3), "subscription-breaks")
    assert "all (team-revops) could not be loaded any more: Both accounts.UserSignedUp" in row["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("accounts.UserSignedUpp", "--sunset", SUNSET), 5, "Did you mean 'accounts.UserSignedUp'?"),
        (("accounts.UserSignedUp", "--sunset", "2020-01-01"), 2, "2020-01-01 is past"),
        (("accounts.UserSignedUp", "--sunset", "soon"), 2, "'soon' is no day"),
        (("accounts.UserSignedUp", "--sunset", "2027-02-30"), 2, "'2027-02-30' is no day"),
        (("accounts.UserSignedUp",), 2, "--sunset"),
        (("accounts.UserSignedUp", "--sunset", SUNSET, "--replaced-by", "accounts.Nothing"), 5, "no event"),
        (
            ("accounts.UserSignedUp", "--sunset", SUNSET, "--replaced-by", "accounts.UserSignedUp"),
            2,
            "does not replace itself",
        ),
        (
            ("accounts.UserSignedUp", "--sunset", SUNSET, "--replaced-by", "billing.InvoicePaid"),
            6,
            "goes to the same topic",
        ),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(
    project: TestProject, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = project.run("schema", "deprecate", *arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert git(project.folder, "status", "--porcelain", "schemas") == ""


def test_a_successor_of_another_event_is_not_taken(project: TestProject) -> None:
    path = second_version(project)
    content = json.loads(path.read_text())
    content["backbone"]["replaces"] = "accounts.UserErased"
    path.write_text(json.dumps(content))
    result = project.run(*deprecate(project, "--replaced-by", "accounts.UserSignedUpV2"))
    assert result.exit_code == 6
    assert "replaces accounts.UserErased already" in result.stderr


# ---- two versions side by side ------------------------------------------------------------------------------------


def test_a_diff_tells_what_differs_what_can_be_read_and_whom_it_hurts(project: TestProject) -> None:
    edit(project, "accounts.UserSignedUp", without("email"))
    data = project.document("schema", "diff", "accounts.UserSignedUp@HEAD", "accounts.UserSignedUp")["data"]
    assert [(one["field"], one["kind"]) for one in data["differences"]] == [("email", "removed")]
    assert data["compatible"] == {"backward": True, "forward": False, "full": False}
    assert data["reasons"][0]["field"] == "email"
    assert "contacts (team-revops: body.row.mail)" in data["impact"][0]["message"]
    path = file_of(project, "accounts.UserSignedUp")
    place = path.relative_to(project.folder).as_posix()
    assert project.document("schema", "diff", f"HEAD:{place}", str(path))["data"]["differences"] == data["differences"]
    text = project.run("schema", "diff", f"HEAD:{place}", str(path)).stdout
    assert f"HEAD:{place} reads what {path} wrote: no" in text


def test_what_is_the_same_is_said_to_be_the_same(project: TestProject) -> None:
    result = project.run("schema", "diff", "accounts.UserErased", "accounts.UserErased@HEAD")
    assert result.exit_code == 0
    assert "say the same" in result.stdout


@pytest.mark.parametrize(
    ("written", "code", "says"),
    [
        ("accounts.UserErasd", 5, "Did you mean 'accounts.UserErased'?"),
        ("accounts.UserErasd@HEAD", 5, "Did you mean 'accounts.UserErased'?"),
        ("accounts.UserErased@nothing", 2, "no revision 'nothing'"),
        ("accounts.UserErased:7", 5, "no version 7"),
        ("accounts.UserErased:latest", 5, "not registered"),
        ("HEAD:schemas/nothing.avsc", 5, "no file 'schemas/nothing.avsc'"),
        ("HEAD:schemas", 5, "no file 'schemas'"),
        ("HEAD:../x.avsc", 2, "not in the project"),
        ("nothing.avsc", 5, "no file nothing.avsc"),
        ("backbone.toml", 2, "no Avro schema of a record"),
        (".", 2, "is a folder"),
        ("", 2, "A side of the comparison is"),
        ("@", 5, "no file"),
        (":", 5, "no file"),
        (":x", 5, "no file"),
        ("a\0b", 2, "A side of the comparison is"),
    ],
)
def test_what_is_no_side_of_a_comparison_is_a_sentence(
    project: TestProject, monkeypatch: pytest.MonkeyPatch, written: str, code: int, says: str
) -> None:
    monkeypatch.chdir(project.folder)
    result = project.run("schema", "diff", written, "accounts.UserErased")
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert "unexpected" not in result.stderr
