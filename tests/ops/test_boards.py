"""The Grafana boards: they parse, name only metrics that there are, and Prometheus understands what they ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.watch.metrics import (
    CALLS,
    CALLS_NOT_KEPT,
    METRICS,
    MONITOR_METRICS,
    MONITOR_SUCCESS,
    NOT_OURS,
    PARTITIONS,
    RECEIPTS,
    TOPIC_START,
)
from tests.conftest import ROOT
from tests.ops.test_alerts import checked, metrics_named, promtool, unknown_metrics

BOARDS = sorted((ROOT / "ops/watch/boards").glob("*.json"))
boards = pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def expressions(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def test_there_is_a_technical_and_a_business_board() -> None:
    assert [path.stem for path in BOARDS] == ["business", "operations"]


@boards
def test_a_board_names_only_metrics_that_there_are(path: Path) -> None:
    board = read(path)
    asked = [*expressions(board), *(variable["query"] for variable in board["templating"]["list"])]
    assert asked
    assert unknown_metrics(asked) == set()


@boards
def test_every_panel_asks_something_of_the_provisioned_source_and_lies_on_no_other(path: Path) -> None:
    (source,) = yaml.safe_load((ROOT / "ops/watch/grafana.yml").read_text())["datasources"]
    board = read(path)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}
            assert panel["targets"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


@boards
def test_a_variable_that_a_panel_uses_is_defined(path: Path) -> None:
    board = read(path)
    used = set(re.findall(r"\$(\w+)", " ".join(expressions(board)))) - {"1"}
    assert used == {variable["name"] for variable in board["templating"]["list"]}


def test_only_these_metrics_are_on_no_board() -> None:
    """What is measured and shown nowhere is not looked at."""
    shown = {name for path in BOARDS for name in metrics_named(expressions(read(path)))}
    bare = {re.sub(r"_bucket$", "", name) for name in shown}
    left = {metric.name for metric in (*METRICS, *MONITOR_METRICS)} - bare
    assert left == {
        one.name for one in (TOPIC_START, MONITOR_SUCCESS, CALLS, CALLS_NOT_KEPT, NOT_OURS, PARTITIONS, RECEIPTS)
    }


@promtool
@boards
def test_prometheus_understands_every_question(path: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"board:question:{number}", "expr": re.sub(r"\$(group|connection)", ".*", expr)}
        for number, expr in enumerate(expressions(read(path)))
    ]
    file = tmp_path / "questions.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    checked("check", "rules", str(file))
