"""ops/watch/alerts.yml proved by Prometheus' own promtool: of every alert, when it fires and when it does not.

A scenario gives what a Prometheus would have scraped and names all alerts that then fire: one too many fails as well.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ops.cli import cli
from ops.watch.metrics import METRICS, MONITOR_METRICS
from tests.conftest import ROOT

RULES = ROOT / "ops/watch/alerts.yml"
RUNBOOK = ROOT / "ops/watch/runbook.md"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
PROMTOOL = shutil.which("promtool")
promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: the package prometheus)")

SEES = 'backbone_monitor_last_success_timestamp_seconds{instance="a"}'
DEAD = 'backbone_deadletter_records_total{subscription="crm", outcome="rejected", reason="%s"}'
ENDED = 'backbone_deliveries_total{subscription="crm", connection="hubspot", action="contact.upsert", %s}'
HELD = 'backbone_deliveries_held_total{subscription="crm", connection="hubspot", action="contact.upsert", %s}'
FOUND = 'backbone_reconcile_difference{subscription="crm", kind="%s", instance="a"}'
CIRCUIT = 'backbone_connection_state{connection="hubspot", backbone_connection_state="%s"}'
STATE = 'backbone_subscription_state{subscription="crm", backbone_subscription_state="%s"}'
DELIVERED, REJECTED = 'outcome="delivered", reason=""', 'outcome="rejected", reason="bad_email"'
RETRIED, AWAY = 'outcome="retry_later", reason="http_500"', 'outcome="unavailable", reason="http_503"'


CREDENTIAL = 'backbone_credential_expiry_timestamp_seconds{connection="hubspot", instance="%s"}'
API = 'backbone_vendor_api_sunset_timestamp_seconds{connection="hubspot"}'
DAY = 24 * 3600


@dataclass(frozen=True)
class Scenario:
    """``series``: samples by series, one every 15 s in Prometheus' own notation; ``firing``: all that fires ``at``."""

    what: str
    series: Mapping[str, str]
    at: str
    firing: set[str] = field(default_factory=set)
    alone: bool = False
    """the monitor is part of what happens; else one looks every 15 s"""


def partition(name: str, *, number: int = 0, group: str = "crm", instance: str = "a") -> str:
    labels = f'group="{group}", topic="accounts.users", partition="{number}", instance="{instance}"'
    return f"{name}{{{labels}}}"


def lag(
    age: str, *, waiting: str = "5x999", committed: str = "0+10x999", members: str = "3x999", ours: bool = True
) -> dict[str, str]:
    """One partition of one group; promised is a minute."""
    found = {
        partition("backbone_group_lag_seconds"): age,
        partition("backbone_group_lag"): waiting,
        partition("backbone_group_committed_offset"): committed,
        'backbone_group_members{group="crm", instance="a"}': members,
    }
    if ours:
        found['backbone_group_slo_seconds{group="crm", topic="accounts.users", instance="a"}'] = "60x1999"
    return found


def ends(high: str, stable: str) -> dict[str, str]:
    name = 'backbone_topic_end_offset{topic="accounts.users", partition="0", kind="%s"}'
    return {name % "high_watermark": high, name % "last_stable": stable}


def calls(*, quick: int, slow: int) -> dict[str, str]:
    """So many calls each 15 s that took 0.2 s, and that took 4 s."""
    name = 'backbone_vendor_call_seconds_bucket{connection="hubspot", le="%s"}'
    every = f"0+{quick + slow}x200"
    return {name % "0.25": f"0+{quick}x200", name % "2.0": f"0+{quick}x200", name % "5.0": every, name % "+Inf": every}


SCENARIOS = [
    # late
    Scenario("a constant small lag that is worked on is nothing", lag("2x999"), "70m"),
    Scenario("late for 52 s, as in a rebalance, is nothing", lag("1x40 80x3 1x999"), "11m30s"),
    Scenario("late for 8 min in an hour is within the objective", lag("1x40 300x31 1x999"), "19m"),
    Scenario("late for 10 min pages", lag("1x40 300x60"), "21m", {"BackboneGroupLateFastBurn"}),
    Scenario("a new group that is late from its first minute does not page at once", lag("300x60"), "5m"),
    Scenario("ten minutes after it was level again nothing pages", lag("1x40 300x60 0x999"), "36m"),
    Scenario(
        "2 minutes late of every 15, for three hours, pages by the long windows",
        lag("0x51 90x7 " * 12),
        "3h",
        {"BackboneGroupLateFastBurn"},
    ),
    Scenario(
        "late for 50 min and level for 40 is a ticket: more than 1 % of three days",
        lag("0x39 90x199 0x160"),
        "100m",
        {"BackboneGroupLateSlowBurn"},
    ),
    Scenario(
        "late for 40 min and level for 40 is no ticket: less than 1 % of three days", lag("0x39 90x159 0x160"), "90m"
    ),
    Scenario("a foreign group promises nothing, so it is never late", lag("9000x999", ours=False), "70m"),
    Scenario(
        "what a blind monitor goes on showing is not taken for late",
        lag("1x10 300x4 1x999")
        | {
            partition("backbone_group_lag_seconds", instance="b"): "300x999",
            'backbone_monitor_last_success_timestamp_seconds{instance="b"}': "0x999",
        },
        "40m",
    ),
    # what ends some day
    Scenario(
        "a credential of one worker that ends in 13 days",
        {CREDENTIAL % "a": f"{13 * DAY}x40", CREDENTIAL % "b": f"{400 * DAY}x40"},
        "9m",
        {"BackboneCredentialExpires"},
    ),
    Scenario("one that has ended", {CREDENTIAL % "a": "60x40"}, "9m", {"BackboneCredentialExpires"}),
    Scenario("a credential that ends in 15 days", {CREDENTIAL % "a": f"{15 * DAY}x40"}, "9m"),
    Scenario("an API version that ends in 89 days", {API: f"{89 * DAY}x40"}, "9m", {"BackboneVendorApiEnds"}),
    Scenario("an API version that ends in 91 days", {API: f"{91 * DAY}x40"}, "9m"),
    # nobody reads, stands still, grows
    Scenario(
        "nobody reads what waits: paged after five minutes",
        lag("1x40", committed="7x40", members="0x40"),
        "9m",
        {"BackboneGroupNoMembers"},
    ),
    Scenario("nobody for two minutes is a restart", lag("1x40", members="3x8 0x8 3x40"), "4m"),
    Scenario("nobody, and nothing waits", lag("0x40", waiting="0x40", committed="7x40", members="0x40"), "9m"),
    Scenario(
        "a foreign group that somebody left over wakes nobody",
        lag("900x200", committed="7x200", members="0x200", ours=False),
        "40m",
    ),
    Scenario(
        "stuck at one record with members",
        lag("0+15x80", committed="7x80", ours=False),
        "16m",
        {"BackboneGroupStalled"},
    ),
    Scenario("one slow record of four minutes", lag("1x999", committed="7x16 8x16 9x16 10x16"), "16m"),
    Scenario("only a transaction marker is left: lag 1 for ever, age 0", lag("0x999", committed="7x999"), "40m"),
    Scenario("drained and quiet", lag("0x999", waiting="0x999", committed="7x999"), "40m"),
    Scenario(
        "a second monitor that has just begun has seen no commit, the first one has",
        lag("1x99") | {partition("backbone_group_committed_offset", instance="b"): "_x30 300x20"},
        "12m",
    ),
    Scenario(
        "more comes than is worked off",
        lag("301+1x99", waiting="1000+60x99", ours=False),
        "20m",
        {"BackboneBacklogGrowing"},
    ),
    Scenario("a backlog that shrinks", lag("900-5x99", waiting="9000-60x99", ours=False), "20m"),
    Scenario("a backlog that grows for a minute", lag("301x99", waiting="100x60 100+50x4 300x9", ours=False), "18m"),
    Scenario("more in flight, but nothing old", lag("3x99", waiting="1000+60x99"), "20m"),
    # lost
    Scenario(
        "retention deleted what was not read",
        lag("5x99") | {partition("backbone_group_lost_records_total"): "0x20 512x40"},
        "8m",
        {"BackboneGroupDataLoss"},
    ),
    Scenario(
        "lost once, an hour ago", lag("5x999") | {partition("backbone_group_lost_records_total"): "0x9 5x400"}, "1h"
    ),
    Scenario(
        "a left-over foreign group loses what nobody wants",
        lag("5x99", members="0x99", ours=False) | {partition("backbone_group_lost_records_total"): "0x20 512x40"},
        "8m",
    ),
    Scenario(
        "two hours until retention takes it",
        lag("5x99") | {partition("backbone_group_retention_margin_seconds"): "7200x99"},
        "15m",
        {"BackboneGroupRetentionRisk"},
    ),
    Scenario(
        "two hours of margin, and nothing waits",
        lag("0x99", waiting="0x99") | {partition("backbone_group_retention_margin_seconds"): "7200x99"},
        "15m",
    ),
    Scenario(
        "a day until retention takes it",
        lag("5x99") | {partition("backbone_group_retention_margin_seconds"): "86400x99"},
        "15m",
    ),
    Scenario(
        "a transaction that hangs",
        ends("100+9x200", "100x200"),
        "31m",
        {"BackboneTopicBlockedByTransaction"},
    ),
    Scenario("transactions that end", ends("109+9x200", "100+9x200"), "40m"),
    Scenario("no transaction at all on a quiet topic", ends("100x200", "100x200"), "40m"),
    # workers
    Scenario(
        "seven rebalances in ten minutes",
        {'backbone_rebalances_total{subscription="crm", instance="a"}': "1x20 1+1x9 10x40"},
        "10m",
        {"BackboneRebalanceStorm"},
    ),
    Scenario(
        "one rebalance of ten workers",
        {f'backbone_rebalances_total{{subscription="crm", instance="{n}"}}': "1x20 2x40" for n in range(10)},
        "10m",
    ),
    Scenario("stopped", {STATE % "stopped": "0x8 1x20"}, "5m", {"BackboneSubscriptionStopped"}),
    Scenario("running, paused by a person", {STATE % "stopped": "0x99", STATE % "left": "0x9 1x90"}, "20m"),
    Scenario(
        "it cannot run here for a quarter of an hour",
        {STATE % "not_started": "1x99"},
        "15m",
        {"BackboneSubscriptionNotStarted"},
    ),
    Scenario("it could not run for two minutes", {STATE % "not_started": "1x8 0x99"}, "15m"),
    # connections
    Scenario(
        "two in a hundred are rejected",
        {ENDED % DELIVERED: "0+98x80", ENDED % REJECTED: "0+2x80"},
        "15m",
        {"BackboneDeliveriesFailing"},
    ),
    Scenario(
        "all attempts fail and none ends",
        {ENDED % DELIVERED: "500x80", HELD % RETRIED: "0+4x80"},
        "15m",
        {"BackboneDeliveriesFailing"},
    ),
    Scenario(
        "twenty failures at once, the first of their kind",
        {ENDED % DELIVERED: "0+10x80", HELD % RETRIED: "_x44 20x20"},
        "13m",
        {"BackboneDeliveriesFailing"},
    ),
    Scenario("two in a thousand are rejected", {ENDED % DELIVERED: "0+499x80", ENDED % REJECTED: "0+1x80"}, "15m"),
    Scenario("one of a few failed", {ENDED % DELIVERED: "0+1x80", ENDED % REJECTED: "0x40 1x40"}, "15m"),
    Scenario("a vendor that asks for quiet fails nothing", {ENDED % DELIVERED: "0+9x80", HELD % AWAY: "0+9x80"}, "15m"),
    Scenario("calls that take 4 s, two in a hundred", calls(quick=98, slow=2), "20m", {"BackboneVendorSlow"}),
    Scenario("calls that take 4 s, two in a thousand", calls(quick=998, slow=2), "20m"),
    Scenario(
        "nine tenths of the quota",
        {'backbone_quota_used_ratio{connection="hubspot", instance="a"}': "0.9x99"},
        "20m",
        {"BackboneQuotaNearlyUsed"},
    ),
    Scenario(
        "all of the quota for a minute",
        {'backbone_quota_used_ratio{connection="hubspot", instance="a"}': "0.5x60 1x4 0.5x20"},
        "17m",
    ),
    Scenario(
        "an open circuit that tries a call now and then",
        {CIRCUIT % "open": "0x9 " + "1x2 0x0 " * 12, CIRCUIT % "half_open": "0x9 " + "0x2 1x0 " * 12},
        "10m",
        {"BackboneCircuitOpen"},
    ),
    Scenario("open for a minute", {CIRCUIT % "open": "0x9 1x4 0x60", CIRCUIT % "half_open": "0x80"}, "10m"),
    Scenario("credentials are refused", {CIRCUIT % "stopped": "0x8 1x20"}, "5m", {"BackboneConnectionStopped"}),
    Scenario("paused by a person", {CIRCUIT % "stopped": "0x40", CIRCUIT % "paused": "1x40"}, "10m"),
    # dead letters
    Scenario("eleven at once, the first ones", {DEAD % "bad_email": "_x20 11x40"}, "8m", {"BackboneDeadLetterGrowing"}),
    Scenario("one every two minutes", {DEAD % "bad_email": "0+0.125x200"}, "30m"),
    Scenario("one every ten seconds", {DEAD % "bad_email": "0+1.5x99"}, "20m", {"BackboneDeadLetterGrowing"}),
    Scenario("five of each of two causes", {DEAD % "bad_email": "_x20 5x40", DEAD % "gone": "_x20 5x40"}, "8m"),
    Scenario("a hundred of last week", {DEAD % "bad_email": "100x200"}, "40m"),
    Scenario(
        "a hundred events that wait for a parked key",
        {'backbone_deadletter_records_total{subscription="crm", outcome="parked", reason="key_parked"}': "_x20 100x40"},
        "8m",
    ),
    Scenario(
        "open since yesterday",
        {'backbone_deadletter_oldest_seconds{subscription="crm", instance="a"}': "86000+15x999"},
        "70m",
        {"BackboneDeadLetterForgotten"},
    ),
    Scenario(
        "opened this morning",
        {'backbone_deadletter_oldest_seconds{subscription="crm", instance="a"}': "9000+15x999"},
        "70m",
    ),
    # reconciling
    Scenario(
        "the last reconciling found something",
        {FOUND % "missing": "2x99", FOUND % "extra": "0x99"},
        "20m",
        {"BackboneReconcileDifference"},
    ),
    Scenario("what it found is mended", {FOUND % "missing": "2x20 0x99", FOUND % "extra": "0x99"}, "20m"),
    # the monitor
    Scenario("no monitor at all", {}, "5m", {"BackboneMonitorStale"}, alone=True),
    Scenario(
        "the only monitor is blind: that pages, and what it last knew does not",
        lag("1x9 300x300", committed="7x300") | ends("109x300", "100x300") | {SEES: "0+15x9 135x300"},
        "60m",
        {"BackboneMonitorStale"},
        alone=True,
    ),
    Scenario(
        "one of two monitors is blind",
        {SEES: "0x100", 'backbone_monitor_last_success_timestamp_seconds{instance="b"}': "0+15x100"},
        "20m",
        alone=True,
    ),
]


def checked(*arguments: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def unit_tests(folder: Path, test: Mapping[str, Any]) -> str:
    document = {"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [{"interval": "15s", **test}]}
    file = folder / "scenario.yml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


@promtool
def test_the_rules_are_rules() -> None:
    checked("check", "rules", str(RULES))
    checked("check", "config", str(ROOT / "ops/watch/prometheus.yml"))


@promtool
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.what)
def test_what_fires(scenario: Scenario, tmp_path: Path) -> None:
    series = {**({} if scenario.alone else {SEES: "0+15x2000"}), **scenario.series}
    asked = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": scenario.at,
        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(scenario.firing)],
    }
    given = [{"series": name, "values": values} for name, values in series.items()]
    checked("test", "rules", unit_tests(tmp_path, {"input_series": given, "promql_expr_test": [asked]}))


@promtool
def test_an_alert_says_who_what_and_what_to_type(tmp_path: Path) -> None:
    given = [{"series": STATE % "stopped", "values": "1x40"}, {"series": SEES, "values": "0+15x40"}]
    alert = {
        "exp_labels": {"severity": "page", "subscription": "crm"},
        "exp_annotations": {
            "summary": "crm has stopped and does not go on by itself.",
            "runbook": "backbone status crm",
            "runbook_url": "ops/watch/runbook.md#backbonesubscriptionstopped",
        },
    }
    asked = {"eval_time": "5m", "alertname": "BackboneSubscriptionStopped", "exp_alerts": [alert]}
    checked("test", "rules", unit_tests(tmp_path, {"input_series": given, "alert_rule_test": [asked]}))


def test_every_alert_is_shown_firing_and_quiet() -> None:
    assert {name for scenario in SCENARIOS for name in scenario.firing} == set(ALERTS)
    assert any(not scenario.firing for scenario in SCENARIOS)


def test_scenarios_are_of_series_that_we_publish() -> None:
    tables = {metric.name: metric for metric in (*METRICS, *MONITOR_METRICS)}
    for scenario in SCENARIOS:
        for series in scenario.series:
            name, _, labels = series.removesuffix("}").partition("{")
            metric = tables[name.removesuffix("_bucket")]
            given = set(re.findall(r"(\w+)=", labels)) - {"instance"}
            own = {"histogram": {"le"}, "states": {name}}.get(metric.kind, set())
            assert own <= given <= {*metric.labels, *own}, series


def expressions() -> Iterator[str]:
    return (rule["expr"] for group in GROUPS for rule in group["rules"])


def metrics_named(texts: Iterable[str]) -> set[str]:
    """What PromQL asks of us: metrics, and what alerts.yml records."""
    return {found for text in texts for found in re.findall(r"(?:[a-z_]+:)?backbone_[a-z0-9_]+(?::[a-z0-9_]+)?", text)}


def unknown_metrics(texts: Iterable[str]) -> set[str]:
    """Those that are in no table, are no part of a histogram of a table, and are not recorded."""
    known = set(RECORDED)
    for metric in (*METRICS, *MONITOR_METRICS):
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        known |= {metric.name + part for part in parts}
    return metrics_named(texts) - known


def test_rules_name_only_metrics_that_there_are() -> None:
    assert unknown_metrics(expressions()) == set()
    assert unknown_metrics(["rate(backbone_deliverys_total[5m])", "backbone_delivery_seconds"]) != set()


def test_what_is_recorded_is_used() -> None:
    boards = " ".join(path.read_text() for path in (ROOT / "ops/watch/boards").glob("*.json"))
    assert {name for name in RECORDED if name not in metrics_named([*expressions(), boards])} == set()


def test_the_states_that_rules_ask_for_exist() -> None:
    states = {metric.name: metric.states for metric in (*METRICS, *MONITOR_METRICS) if metric.kind == "states"}
    asked = re.findall(r"(backbone_\w+)\{\1=~?\"([^\"]+)\"", " ".join(expressions()))
    assert asked
    for name, wanted in asked:
        assert set(wanted.split("|")) <= set(states[name])


def test_the_long_windows_are_divided_by_the_samples_they_hold() -> None:
    (recording,) = [group for group in GROUPS if group["name"] == "backbone-recording"]
    assert recording["interval"] == "30s"
    spans = {"m": 60, "h": 3600, "d": 86400}
    for rule in recording["rules"]:
        if window := re.search(r"ratio(\d+)([mhd])$", rule["record"]):
            seconds = int(window[1]) * spans[window[2]]
            assert rule["expr"].endswith(f"[{window[1]}{window[2]}]) / {seconds // 30}")


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_alert_has_its_section_of_the_runbook_and_every_section_its_alert() -> None:
    assert list(sections()) == list(ALERTS)
    for name, rule in ALERTS.items():
        said = rule["annotations"]
        assert set(said) == {"summary", "runbook", "runbook_url"}
        assert said["runbook_url"] == f"ops/watch/runbook.md#{name.lower()}"
        assert said["runbook"].startswith("backbone ")
        assert set(rule["labels"]) == {"severity"}


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_all_that_a_woken_person_needs(name: str) -> None:
    text = sections()[name]
    for word in ("Means", "First look", "Likely causes", "Do", "Wake"):
        assert f"- **{word}**: " in text
    shown = ALERTS[name]["annotations"]["runbook"].split(" {{")[0]
    assert shown in text, f"the runbook of {name} begins with another command than the alert names"


def commands() -> list[str]:
    named = [rule["annotations"]["runbook"] for rule in ALERTS.values()]
    return sorted({*named, *re.findall(r"`(backbone [^`]+)`", " ".join(RUNBOOK.read_text().split()))})


@pytest.mark.parametrize("line", commands())
def test_a_command_that_a_woken_person_is_told_exists_with_its_options(line: str) -> None:
    command: click.Command = cli
    words = iter(line.split()[1:])
    while isinstance(command, click.Group):
        word = next(words, "")
        found = command.get_command(click.Context(command), word)
        if found is None:
            pytest.fail(f"There is no command '{word}'.")
        command = found
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
