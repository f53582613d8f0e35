"""TLS, logins and permissions, at a broker that lets nobody in without: every mechanism, every role, every refusal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ops.permissions import Permission, Role, permissions
from tests.conftest import Stack
from tests.integration.secured import ADMIN_PASSWORD, SecuredBroker, as_toml
from tests.ops.projects import TestProject, make_project
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PASSWORD = "hunter2-of-the-tests"
SIGNED_UP = '{"user_id": "USER", "email": "a@example.com", "plan": "free", "signed_up_at": "2026-05-01T12:00:00Z"}'


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    broker = SecuredBroker(tmp_path_factory.mktemp("secured"))
    yield broker
    broker.close()


@dataclass
class Company:
    """A project whose contexts are the people and programs that log in at the broker."""

    project: TestProject
    broker: SecuredBroker
    registry: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.project.folder

    @property
    def name(self) -> str:
        """The subscription."""
        return self.project.subscription

    def context(self, name: str, kafka: Mapping[str, str], *, more: str = "", ledger: bool = False) -> None:
        """Add one that logs in so."""
        file = self.folder / "backbone.toml"
        kept = f'ledger = "sqlite:///ledger-{name}.db"\n' if ledger else ""
        file.write_text(
            f'{file.read_text()}\n[contexts.{name}]\nconnections = "fake"\ntopics.partitions = 3\n{kept}{more}'
            f'registry.url = "{self.registry}"\n[contexts.{name}.kafka]\n{as_toml(kafka)}'
        )

    def by_scram(self, name: str, password: str = PASSWORD) -> dict[str, str]:
        """Settings of a user whose password stands in a file."""
        path = self.folder / f"{name}.password"
        path.write_text(f"{password}\n")
        return {**self.broker.scram(name, ""), "sasl.password": f"file:{path.name}"}

    def run(self, context: str, *words: str) -> Result:
        result = self.project.run("-c", context, *words)
        assert "Traceback" not in result.output
        for secret in (PASSWORD, ADMIN_PASSWORD):
            assert secret not in result.output
        return result

    def done(self, context: str, *words: str) -> str:
        result = self.run(context, *words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def publish(self, context: str, user: str) -> Result:
        return self.run(context, "event", "publish", "accounts.UserSignedUp", "--data", SIGNED_UP.replace("USER", user))

    def worker(self, context: str, *names: str) -> Path:
        """``backbone run`` in a process of its own; its log."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        command = [sys.executable, "-m", "ops.cli", "-c", context, "run", *names, "--log", "json"]
        environment = {**os.environ, "BACKBONE_PROJECT": str(self.folder)}
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT)
        self.workers.append(process)
        return log

    def stop(self) -> None:
        """End the workers in an orderly way."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            assert worker.wait(60) in (0, 7)
        self.workers.clear()

    def lag(self, group: str | None = None) -> Any:
        """As the admin sees it; None before the group is there."""
        result = self.run("admin", "lag", group or self.name, "--output", "json")
        return json.loads(result.stdout)["data"][0]["lag"] if result.exit_code == 0 else None

    def delivered(self, group: str | None = None) -> None:
        eventually(lambda: self.lag(group) == 0, 60, poll_s=0.3, about=f"lag 0 of {group or self.name}")

    def permissions(self, role: Role) -> list[Permission]:
        users, invoices = self.project.users, self.project.invoices
        return permissions(role, [users, invoices], {self.name: [users]})

    def allow(self, user: str, *roles: Role) -> None:
        bindings = {binding for role in roles for one in self.permissions(role) for binding in one.bindings()}
        self.broker.allow(user, sorted(bindings))

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait(10)


@pytest.fixture(scope="module")
def company(broker: SecuredBroker, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Its contracts are registered and its subscription attached, by the admin."""
    folder = tmp_path_factory.mktemp("company")
    company = Company(make_project(folder, "sec"), broker, stack.registry_url)
    company.context("admin", company.by_scram("admin", ADMIN_PASSWORD), ledger=True)
    company.done("admin", "schema", "register", "--apply", "--yes")
    company.done("admin", "subscription", "attach", company.name, "--from", "earliest", "--apply", "--yes")
    yield company
    company.close()


def logged_in(company: Company, mechanism: str, name: str) -> dict[str, str]:
    """Settings of somebody who is let in that way, and the broker's side of it."""
    broker, made = company.broker, company.broker.certificates
    match mechanism:
        case "SCRAM-SHA-512":
            broker.user(name, PASSWORD)
            return company.by_scram(name)
        case "OAUTHBEARER":
            broker.issuer.clients[name] = PASSWORD
            (company.folder / f"{name}.secret").write_text(PASSWORD)
            return {
                "bootstrap.servers": broker.bootstrap,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": name,
                "sasl.oauthbearer.client.secret": f"file:{name}.secret",
                "sasl.oauthbearer.token.endpoint.url": broker.issuer.url,
                "ssl.ca.location": str(made.ca),
            }
        case _:
            key, certificate = made.issue(name)
            return {
                "bootstrap.servers": broker.mutual,
                "security.protocol": "SSL",
                "ssl.ca.location": str(made.ca),
                "ssl.key.location": str(key),
                "ssl.certificate.location": str(certificate),
            }


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "OAUTHBEARER", "mutual TLS"])
def test_publish_deliver_lag_status_and_doctor_work_by(company: Company, mechanism: str) -> None:
    name = "by-" + mechanism.lower().replace(" ", "-")
    company.context(name, logged_in(company, mechanism, name))
    company.allow(name, "publisher", "worker", "monitor")
    published = company.publish(name, f"u-{name}")
    assert published.exit_code == 0, published.output
    company.worker(name, company.name)
    company.delivered()
    company.stop()
    assert json.loads(company.done(name, "lag", company.name, "--output", "json"))["data"][0]["lag"] == 0
    company.done(name, "status")
    lines = {line["check"]: line for line in json.loads(company.run(name, "doctor", "--output", "json").stdout)["data"]}
    assert lines["cluster"]["verdict"] == "ok"
    shown = "Kafka SSL" if mechanism == "mutual TLS" else f"Kafka SASL_SSL ({mechanism})"
    assert lines["transport"] == lines["transport"] | {"verdict": "ok", "found": f"{shown}, registry http"}


def test_a_plan_to_attach_says_who_may_run_it_and_what_whoever_is_nearest_lacks(company: Company) -> None:
    def permitted() -> Any:
        plan = json.loads(company.done("admin", "subscription", "attach", company.name, "--output", "json"))
        return plan["data"]["effects"][0]["permissions"]

    company.project.write_subscription('["accounts.UserErased"]')
    company.broker.user("may-run", PASSWORD)
    group = f"Read on the group {company.name}"
    wanted = {one for permission in company.permissions("worker") for one in permission.bindings()}
    try:
        company.broker.allow("may-run", sorted(one for one in wanted if one[:2] != ("group", company.name)))
        before = permitted()
        assert before["known"]
        assert "User:may-run" not in before["allowed"]
        assert before["allowed"] or before["lacking"] == {"User:may-run": [group]}
        company.allow("may-run", "worker")
        eventually(lambda: "User:may-run" in permitted()["allowed"], 30, about="the ACL to be there")
    finally:
        company.project.write_subscription()


def wrong(company: Company, case: str) -> dict[str, str]:
    made, name = company.broker.certificates, f"wrong-{case}"
    right = logged_in(company, "SCRAM-SHA-512", name)
    match case:
        case "password":
            (company.folder / f"{name}.password").write_text("not-" + PASSWORD)
            return right
        case "ca":
            return {**right, "ssl.ca.location": str(made.other_ca)}
        case "host":
            return {**right, "bootstrap.servers": company.broker.elsewhere}
        case "secret":
            settings = logged_in(company, "OAUTHBEARER", name)
            (company.folder / f"{name}.secret").write_text("not-" + PASSWORD)
            return settings
        case "certificate":
            settings = logged_in(company, "mutual TLS", name)
            made.issue(name, ca="other-ca")
            return settings
        case _:
            return {**right, "security.protocol": "SASL_PLAINTEXT"}


@pytest.mark.parametrize(
    ("case", "code", "words"),
    [
        ("password", 4, "refuses our login"),
        ("secret", 4, "refuses our login"),
        ("certificate", 4, "refuses our certificate, or wants one"),
        ("ca", 8, "is not trusted here: it was signed by nobody in ssl.ca.location"),
        ("host", 8, "is not trusted here"),
    ],
)
def test_a_refusal_is_one_sentence_without_a_secret_for_a_wrong(
    company: Company, case: str, code: int, words: str
) -> None:
    name = f"wrong-{case}"
    company.context(name, wrong(company, case))
    # each takes as long as a cluster that does not answer is waited for
    for command in (["lag"], ["run"]) if case == "password" else (["lag"],):
        result = company.run(name, *command)
        assert (result.exit_code, words in result.stderr) == (code, True), f"{command}: {result.output}"
        assert f"contexts.{name}.kafka" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


# ---- roles


@pytest.fixture(scope="module")
def roles(company: Company) -> Company:
    """Each role is a user with exactly its permissions, and no other; they share one ledger."""
    for role in ("publisher", "worker", "ledger", "monitor", "operator", "analyst"):
        company.broker.user(role, PASSWORD)
        company.allow(role, role)
        kept = 'ledger = "sqlite:///ledger.db"\n' if role in ("ledger", "operator") else ""
        company.context(role, company.by_scram(role), more=kept)
    return company


def test_every_role_does_its_work_with_exactly_its_permissions(roles: Company) -> None:
    name, users = roles.name, roles.project.users
    for number in range(3):
        published = roles.publish("publisher", f"role-{number}")
        assert published.exit_code == 0, published.output
    roles.worker("worker", name)
    roles.worker("ledger", "ledger")
    roles.delivered()
    roles.delivered("ledger")
    for command in (
        ["lag"],
        ["lag", name, "-v"],
        ["status"],
        ["status", name],
        ["deadletter", "list"],
        ["topic", "list"],
        ["catalog", "list"],
    ):
        roles.done("monitor", *command)
    roles.stop()
    for command in (
        ["subscription", "preview", name],
        ["event", "tail", "accounts.UserSignedUp", "--no-follow", "--from", "earliest"],
        ["subscription", "list"],
    ):
        roles.done("analyst", *command)
    for command in (
        ["rewind", name, "--to", "earliest", "--reason", "a test", "--apply", "--yes"],
        ["subscription", "pause", name, "--reason", "a test"],
        ["subscription", "resume", name],
        ["status"],
    ):
        roles.done("operator", *command)
    changes = json.loads(roles.done("operator", "change", "list", "--output", "json"))["data"]
    (rewind,) = [change["id"] for change in changes if change["kind"] == "rewind"]
    roles.done("operator", "undo", rewind, "--yes")
    roles.publish("publisher", "role-to-set-aside")
    found = json.loads(roles.done("monitor", "lag", name, "-v", "--output", "json"))["data"]
    (place,) = [row for row in found if row["lag"] and row["topic"] == users]
    where = (f"{users}:{place['partition']}", str(place["committed"]))
    roles.done("operator", "deadletter", "set-aside", name, *where, "--reason", "a test", "--apply", "--yes")
    roles.done("operator", "deadletter", "redrive", name, "--all", "--apply", "--yes")
    roles.worker("worker", name)
    roles.done(
        "operator", "replay", name, "--from", "earliest", "--allow-stale", "--reason", "a test", "--apply", "--yes"
    )
    eventually(lambda: not letters(roles), 60, poll_s=0.3, about="the letter to be closed")
    roles.stop()


def letters(company: Company) -> Any:
    return json.loads(company.done("monitor", "deadletter", "list", "--output", "json"))["data"]


@pytest.mark.parametrize(
    ("role", "without", "command", "words"),
    [
        ("publisher", "topic USERS", None, "describing the topic sec.users"),
        ("worker", "topic backbone.control", ["run", "NAME"], "describing the topic backbone.control"),
        ("worker", "group backbone-reader", ["run", "NAME"], "describing the group backbone-reader"),
        ("monitor", "topic backbone.control", ["status"], "reading the topic backbone.control"),
        (
            "operator",
            "topic backbone.audit",
            ["subscription", "pause", "NAME"],
            "Writing to the topic 'backbone.audit'",
        ),
        ("analyst", "topic USERS", ["subscription", "preview", "NAME"], "sec.users"),
    ],
)
def test_with_one_permission_less_a_command_ends_with_4_and_says_what_is_not_permitted(
    roles: Company, role: Role, without: str, command: list[str] | None, words: str
) -> None:
    user = f"less-{role}-{without.split('.')[-1].split('-')[-1].split(' ')[-1].lower()}"
    roles.broker.user(user, PASSWORD)
    roles.context(user, roles.by_scram(user))
    resource, _, gone = without.replace("USERS", roles.project.users).partition(" ")
    kept = [one for one in roles.permissions(role) if (one.resource, one.name) != (resource, gone)]
    roles.broker.allow(user, [binding for one in kept for binding in one.bindings()])
    words_typed = [word.replace("NAME", roles.name) for word in command or []]
    result = roles.publish(user, "u") if command is None else roles.run(user, *words_typed)
    assert (result.exit_code, words in result.stderr) == (4, True), result.output
    assert "AUTHORIZATION_FAILED" in result.stderr or "not permitted" in result.stderr


# ---- a password that changes


def test_a_worker_and_its_monitor_take_a_new_password_and_come_back_when_a_wrong_one_is_put_right(
    company: Company,
) -> None:
    """The broker wants every connection's login anew after 3 s, so that the old password does not last."""
    name = "rotating"
    company.broker.user(name, PASSWORD)
    company.context(name, company.by_scram(name))
    company.allow(name, "worker", "publisher", "monitor")
    file = company.folder / f"{name}.password"
    log = company.worker(name, company.name, "monitor")
    company.publish("admin", "rotate-1")
    company.delivered()
    company.broker.user(name, "the-next-password")
    file.write_text("the-next-password")
    eventually(lambda: "credential_taken" in log.read_text(), 30, about="the new password to be taken")
    company.publish("admin", "rotate-2")
    company.delivered()
    file.write_text("no-password-of-anybody")
    company.broker.user(name, "the-third-password")
    eventually(lambda: log.read_text().count("credential_taken") == 2, 30, about="the wrong password to be taken")
    eventually(lambda: "_AUTHENTICATION" in log.read_text(), 60, about="the login to be refused")
    company.publish("admin", "rotate-3")
    eventually(lambda: "round_failed" in log.read_text(), 60, about="the monitor to be refused")
    file.write_text("the-third-password")
    company.delivered()
    eventually(lambda: "rounds_again" in log.read_text(), 60, about="the monitor to come back")
    file.unlink()
    eventually(lambda: "cannot be read" in said(company), 60, poll_s=0.5, about="status to say it")
    file.write_text("the-third-password")
    company.stop()
    for secret in ("the-next-password", "no-password-of-anybody", "the-third-password", PASSWORD):
        assert secret not in log.read_text()


def said(company: Company) -> str:
    """What ``status`` says of credentials."""
    problems = json.loads(company.done("admin", "status", "--output", "json"))["data"]["problems"]
    return " ".join(one["cause"] for one in problems if one["kind"] == "credentials")
