"""The demo's plot. Everything is done as a person would, with ``backbone`` and files; what is shown at the end is
counted by the vendors' fakes and the database themselves and compared with the story."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ops import local
from ops.demo.story import Story, tell
from ops.demo.table import Row, judge, render
from ops.local.process import ProcessId, identify, stop
from schemas.errors import BackboneError, RefusedError, UnreachableError

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".backbone"
MARKER = STATE / "demo.json"
"""There while the local stack holds the demo's data; it knows the worker that was kept."""
SEED, EVENTS, PER_SECOND = 7, 2_000, 150
SUBSCRIPTIONS = ("crm-contacts", "billing-alerts", "warehouse")
ALERT_CHANNELS = frozenset({"#wins", "#emea", "#us"})
FINANCE = """\
description: Every invoice, for the finance channel.
owner: team-finance
connection: slack
routes:
  - event: billing.InvoiceCreated
    action: message.post
    body:
      channel: "#finance"
      text: "{{ data.invoice_id }}: {{ data.total_minor | money(data.currency) }}"
"""


class Demo:
    """One run of it. ``end`` stops what was started, whatever happened; with ``keep`` the stack and a worker stay."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._began = time.monotonic()
        self._worker: subprocess.Popen[bytes] | None = None
        self._service: subprocess.Popen[str] | None = None
        self._owns_stack = False
        self._address: local.Address
        self._succeeded = False
        self._folder = Path(tempfile.mkdtemp(prefix="finance-team-"))

    def run(self) -> int:
        story = tell(SEED, EVENTS)
        address = self._start_stack()
        self._backbone("schema", "register", "--apply", "--yes")
        self._say("the seven contracts are registered and their topics made")
        self._backbone("subscription", "attach", *SUBSCRIPTIONS, "--from", "earliest", "--apply", "--yes")
        self._say(f"attached from the beginning: {', '.join(SUBSCRIPTIONS)}")
        self._start_worker()
        self._misbehave("hubspot", {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}, "times": 3})
        self._misbehave("hubspot", {"kind": "partial", "fail": 2, "category": "CONFLICT", "times": 4})
        self._say("HubSpot will answer 429 three times and refuse parts of four batches")
        self._service = subprocess.Popen(
            [sys.executable, "-m", "ops.demo.service", "--seed", str(SEED), "--events", str(EVENTS),
             "--per-second", str(PER_SECOND)],
            env={**os.environ, "BACKBONE_KAFKA__BOOTSTRAP_SERVERS": address.kafka,
                 "BACKBONE_REGISTRY__URL": address.registry},
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._say(f"a service publishes {EVENTS:,} events: sign-ups, upgrades, address changes, invoices")
        self._wait(lambda: self._published() > EVENTS * 0.3, 30, "the first third of the events")
        self._misbehave("hubspot", {"kind": "away", "seconds": 5})
        self._say("HubSpot is away for 5 s: its subscription waits, the others go on")
        self._wait(lambda: self._published() > EVENTS * 0.6, 30, "two thirds of the events")
        self._kill_worker()
        self._start_worker()
        self._publish_poison(address.kafka)
        acked = self._service_acked()
        self._wait(lambda: self._lag(SUBSCRIPTIONS) == 0, 60, "lag 0")
        self._say("the service is done and all three subscriptions have caught up")
        self._attach_finance_feed()
        self._wait(lambda: self._lag(("finance-feed",)) == 0, 60, "lag 0 of finance-feed")
        self._say("finance-feed has read everything from the beginning")
        rows = self._rows(story)
        print("\n" + render(acked, rows))
        wrong = judge(EVENTS, acked, rows) + self._faults_not_seen()
        for sentence in wrong:
            print(f"WRONG: {sentence}", file=sys.stderr)
        if not wrong:
            self._succeeded = True
            print(f"All of it is true: counted by the vendors themselves. {time.monotonic() - self._began:.0f} s.")
            self._say_what_next()
        return 1 if wrong else 0

    # ---- the stack and the worker

    def _start_stack(self) -> local.Address:
        if (STATE / "local" / "kafka").exists() and not MARKER.exists():
            raise RefusedError(
                "The local stack holds data that is not the demo's, and the demo begins from nothing. Keep your data: "
                "run the demo in another clone. Or throw it away: backbone local reset"
            )
        stop_kept_worker()
        local.reset(STATE)
        STATE.mkdir(exist_ok=True)
        MARKER.write_text("{}")
        self._owns_stack = True
        started = local.up(STATE, say=self._say)
        self._address = started.address
        self._say(f"Kafka, the schema registry and two fake vendors are up in {started.seconds:.1f} s")
        return started.address

    def _start_worker(self) -> None:
        log = (STATE / "demo-worker.log").open("ab")
        with log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", "run", "--log", "json"],
                cwd=ROOT, env=_environment(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        identity = identify(self._worker.pid)
        if identity is not None:
            MARKER.write_text(json.dumps({"worker": {"pid": identity.pid, "started": identity.started}}))
        self._say(f"a worker runs (pid {self._worker.pid})")

    def _kill_worker(self) -> None:
        assert self._worker is not None
        self._worker.send_signal(signal.SIGKILL)
        self._worker.wait()
        self._say("the worker was killed (SIGKILL) in the middle of its deliveries")

    def end(self) -> None:
        """Stop the worker and the stack, unless they are to be kept."""
        kept = self._keep and self._succeeded
        for process in (self._service, None if kept else self._worker):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._owns_stack and not kept:
            local.reset(STATE)
            MARKER.unlink(missing_ok=True)

    # ---- what happens

    def _publish_poison(self, bootstrap: str) -> None:
        from producers.kafka import Acknowledged, RecordProducer, SendFailed

        answers: list[Acknowledged | SendFailed] = []
        producer = RecordProducer({"bootstrap.servers": bootstrap})
        headers = [("ce_type", b"accounts.UserUpgraded"), ("ce_id", b"poison"), ("ce_source", b"a-broken-script")]
        value = b"\x00\x00\x00\x00\x01 this is no event"
        producer.send("accounts.users", b"u-0001", value, headers, on_settled=answers.append)
        producer.flush(30)
        producer.close(5)
        if not answers or isinstance(answers[0], SendFailed):
            raise UnreachableError("The poison record could not be written.")
        self._say("somebody wrote a record into accounts.users that nobody can read")

    def _service_acked(self) -> int:
        assert self._service is not None
        out, _ = self._service.communicate(timeout=120)
        if self._service.returncode:
            raise BackboneError(f"The service failed with exit code {self._service.returncode}.")
        return int(json.loads(out.splitlines()[-1])["acked"])

    def _attach_finance_feed(self) -> None:
        """The finance team's own project directory: their subscription, the contracts from the registry."""
        address = self._address
        (self._folder / "subscriptions").mkdir()
        (self._folder / "subscriptions" / "finance-feed.yaml").write_text(FINANCE)
        (self._folder / "backbone.toml").write_text(
            '[project]\nname = "finance"\nschemas = "registry"\nsubscriptions = "subscriptions"\n'
            '[connections.slack]\nconnector = "slack"\n'
            f'[contexts.shared]\nconnections = "fake"\nregistry.url = "{address.registry}"\n'
            f'[contexts.shared.kafka]\n"bootstrap.servers" = "{address.kafka}"\n[contexts.shared.fakes]\n'
            f'slack = "{address.fakes["slack"]}"\n'
        )
        words = ("subscription", "attach", "finance-feed", "--from", "earliest", "--apply", "--yes")
        self._backbone("-c", "shared", *words, project=self._folder)
        self._say("the finance team attached finance-feed (one YAML file, invoices only) from the beginning")

    def _misbehave(self, vendor: str, order: Mapping[str, Any]) -> None:
        url = f"{self._address.fakes[vendor]}/__fake__/misbehave"
        request = urllib.request.Request(url, json.dumps([order]).encode(), method="POST")
        urllib.request.urlopen(request, timeout=20).read()

    def _report(self, vendor: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._address.fakes[vendor]}/__fake__/report", timeout=20) as answer:
            return dict(json.load(answer))

    # ---- what is so

    def _published(self) -> int:
        rows = self._json("topic", "list")
        return sum(row["records"] for row in rows if row["topic"] in ("accounts.users", "billing.invoices"))

    def _lag(self, names: tuple[str, ...]) -> int | None:
        rows = self._json("lag", *names)
        if any(row["lag"] is None for row in rows):
            return None
        return int(sum(row["lag"] for row in rows))

    def _dead_letters(self, name: str) -> int:
        return sum(row["count"] for row in self._json("deadletter", "list", name))

    def _rows(self, story: Story) -> list[Row]:
        hubspot, slack = self._report("hubspot"), self._report("slack")
        contacts = hubspot["contacts"]
        asked = sum(story.rows[name] for name in ("user_upgraded", "user_email_changed")) + len(story.contacts)
        differing = sum(
            any(contacts.get(user, {}).get(name) != value for name, value in wanted.items())
            for user, wanted in story.contacts.items()
        )
        alerts = [m for m in slack["messages"] if m["channel"] in ALERT_CHANNELS]
        finance = [m for m in slack["messages"] if m["channel"] == "#finance"]
        tables = self._tables()

        def row(name: str, vendor: str, expected: int, applied: int, duplicates: int | None, differing: int) -> Row:
            lag = self._lag((name,))
            return Row(name, vendor, expected, applied, duplicates, self._dead_letters(name), lag, differing)

        hubspot_applied = hubspot["applied"] - hubspot["duplicates"]
        alerts_applied, finance_applied = (len({m["key"] for m in some}) for some in (alerts, finance))
        wrong_tables = sum(tables[name] != count for name, count in story.rows.items())
        return [
            row("crm-contacts", "HubSpot", asked, hubspot_applied, hubspot["duplicates"], differing),
            row("billing-alerts", "Slack", story.alerts, alerts_applied, len(alerts) - alerts_applied, 0),
            row("warehouse", "SQLite", EVENTS, tables.total(), None, wrong_tables),
            row("finance-feed", "Slack", story.invoices, finance_applied, len(finance) - finance_applied, 0),
        ]

    def _faults_not_seen(self) -> list[str]:
        """A demo that survives nothing shows nothing: HubSpot must have refused us as it was told to."""
        by_status = self._report("hubspot")["by_status"]
        print(f"HubSpot's own count of its answers: {', '.join(f'{n} x {s}' for s, n in sorted(by_status.items()))}")
        return [] if by_status.get("429") == 3 else ["HubSpot did not answer 429 three times"]

    def _tables(self) -> Counter[str]:
        with sqlite3.connect(f"file:{STATE / 'fakes' / 'sql.sqlite'}?mode=ro", uri=True) as database:
            names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            return Counter({n: database.execute(f'select count(*) from "{n}"').fetchone()[0] for n in names})

    # ---- saying and asking

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:5.1f} s  {text}", flush=True)

    def _say_what_next(self) -> None:
        if not self._keep:
            print("Look around afterwards with: make demo KEEP=1")
            return
        print(
            "The stack and a worker are still up. Try, with .venv/bin in your PATH:\n"
            "  backbone status\n  backbone lag\n  backbone trace user_id=u-0001\n"
            "  backbone deadletter show crm-contacts\n"
            "  backbone event publish accounts.UserUpgraded --data "
            '\'{"user_id": "u-0001", "from_plan": "team", "to_plan": "business", "seats": 3, '
            '"upgraded_at": "2026-05-02T10:00:00Z"}\'\n'
            "  backbone rewind warehouse --to earliest\n"
            "Stop it all: make down"
        )

    def _json(self, *words: str) -> list[dict[str, Any]]:
        return list(json.loads(self._backbone(*words, "--output", "json"))["data"])

    def _backbone(self, *words: str, project: Path = ROOT) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", *words],
            cwd=project, env=_environment(project), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise BackboneError(f"backbone {' '.join(words)} failed:\n{done.stderr.strip()}")
        return done.stdout

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise UnreachableError(f"{what} was not reached within {seconds:.0f} s; see .backbone/demo-worker.log")
            time.sleep(0.3)


def stop_kept_worker() -> None:
    """Stop the worker that ``make demo KEEP=1`` has left, if it still runs."""
    try:
        kept = json.loads(MARKER.read_text()).get("worker")
    except (OSError, ValueError):
        return
    if kept is not None:
        stop(ProcessId(kept["pid"], kept["started"]), grace_s=40)


def _environment(project: Path = ROOT) -> dict[str, str]:
    """This environment for the project's own context, whatever the person has set."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("BACKBONE_")}
    return {**ours, "BACKBONE_PROJECT": str(project), "PYTHONPATH": str(ROOT)}
