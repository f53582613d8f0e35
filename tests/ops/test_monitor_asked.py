"""What commands make of a monitor's answers: good ones are taken, of all others they measure themselves and say why."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.app import App
from ops.lag.cluster import Member
from ops.lag.measure import PartitionLag
from ops.lag.rows import group_document
from ops.lag.rules import Trend
from ops.monitor.sampled import day, remembered, sampled
from ops.monitor.snapshot import GROUP, HISTORY, envelope
from tests.ops.test_monitor_history import group, partition

NAME = "crm/contacts ☃"


class Answering:
    """A server that answers every path with ``text``; ``paths`` were asked."""

    def __init__(self) -> None:
        self.text, self.paths = "", list[str]()
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answering.paths.append(self.path)
                body = answering.text.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture(scope="module")
def monitor() -> Iterator[Answering]:
    found = Answering()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def app(monitor: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    (tmp_path / "backbone.toml").write_text(
        '[project]\nname = "acme"\nschemas = "s"\nsubscriptions = "t"\n'
        f'[contexts.prod]\nmonitor = "{monitor.url}"\nkafka."bootstrap.servers" = "127.0.0.1:1"\n'
    )
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    app = App()
    app.choose_context("prod")
    app.screen.verbose = True
    yield app
    app.close()


def document(age_s: float = 6.0, context: str = "prod", schema: str = GROUP, warning: str = "") -> str:
    measured = replace(group(NAME), at=time.time() - age_s)
    pace = {"every_seconds": 15.0, "round_seconds": 0.5}
    return envelope(
        schema, context, json.dumps(group_document(measured) | pace), warnings=(warning,) if warning else ()
    )


def test_a_good_answer_is_taken_with_its_age(monitor: Answering, app: App) -> None:
    monitor.text = document()
    found = sampled(app, [NAME])
    assert found is not None
    assert found.groups[NAME].lag == 10
    assert found.words == "Sampled 6s ago by the monitor."
    assert unquote(monitor.paths[-1]) == f"/api/v1/groups/{NAME}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (document(age_s=36_600.0), "The monitor's last round is 10h"),  # the suite itself may take minutes to come here
        (document(context="test"), "is not one of this context, so this is measured now."),
        (envelope(GROUP, "prod", '{"group": "g"}'), "in a way that this version does not know"),
        (envelope(GROUP, "prod", "[]"), "in a way that this version does not know"),
        ("<html>", "does not answer"),
        ("", "does not answer"),
        ("[]", ""),
        (document(schema="backbone.error/v1"), ""),
    ],
)
def test_any_other_answer_is_left_and_why_is_said_to_who_asks_for_more(
    monitor: Answering, app: App, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    monitor.text = text
    assert sampled(app, [NAME]) is None
    assert said in capsys.readouterr().err


def test_that_its_last_round_failed_is_a_warning(monitor: Answering, app: App) -> None:
    monitor.text = document(warning="The monitor's last round failed: …")
    assert sampled(app, [NAME]) is not None
    assert sampled(app, [NAME]) is not None
    assert app.screen.warnings == ["The monitor's last round failed: …"]


STUCK = partition(0, status="STALLED", reason="It stands at 90 for 18m.")
TREND = Trend(consumed_per_s=2.0, produced_per_s=1.0, seconds=600.0)


def merged(now: PartitionLag, before: PartitionLag, members: tuple[Member, ...] = ()) -> tuple[str, str]:
    """Status and reason of a partition that is measured now and was sampled before."""
    fresh = replace(group("g", now), members=members)
    found = remembered(fresh, replace(group("g", before), trend=TREND))
    assert found.trend == TREND
    assert (found.lag, found.members) == (fresh.lag, fresh.members)
    return found.partitions[0].status, found.partitions[0].reason


def test_what_stands_where_it_stood_is_what_the_monitor_saw_of_it_and_what_moved_is_not() -> None:
    assert merged(partition(0), STUCK) == ("STALLED", "It stands at 90 for 18m.")
    assert merged(partition(0, committed=91), STUCK) == ("OK", "")
    assert merged(partition(0, end=90), STUCK) == ("OK", ""), "there is nothing to wait for any more"
    assert merged(partition(1), STUCK) == ("OK", ""), "another partition"
    assert merged(partition(0, status="DATA_LOSS", reason="now"), STUCK) == ("DATA_LOSS", "now")


def test_that_nobody_reads_is_over_when_somebody_does() -> None:
    alone = partition(0, status="NO_MEMBERS", reason="Nobody.")
    assert merged(partition(0), alone) == ("NO_MEMBERS", "Nobody.")
    assert merged(partition(0), alone, members=(Member("c", "h", ()),)) == ("OK", "")


def test_a_transaction_that_hangs_is_over_when_it_ends() -> None:
    hanging = partition(0, end=90, last_stable=90, uncommitted=10, status="BLOCKED_TXN", reason="It hangs.")
    assert merged(replace(hanging, status="OK", reason=""), hanging) == ("BLOCKED_TXN", "It hangs.")
    assert merged(partition(0, end=100, last_stable=100), hanging) == ("OK", "")


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["groups", "points", "every_seconds", "round_seconds", "group", "sampled_at"]),
                        inner, max_size=4)))  # fmt: skip
def test_whatever_stands_in_an_answer_is_an_answer_or_none(data: Any) -> None:
    import contextlib
    import io

    from ops.monitor import sampled as asking

    app = App()
    told = [json.loads(envelope(schema, "local", json.dumps(data))) for schema in (GROUP, HISTORY)]
    answers = iter([told[0]["data"], told[0]["data"], told[1]["data"]])
    ask = asking._ask
    asking._ask = lambda *_: next(answers)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            assert sampled(app, ["g"]) is None
            assert sampled(app) is None or data is not None
            assert day(app, "g") is None or data is not None
    finally:
        asking._ask = ask
