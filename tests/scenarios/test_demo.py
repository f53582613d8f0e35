"""``make demo`` in a copy of the project: the whole story, with its own verdict."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.demo.story import tell
from ops.demo.table import Row, judge

ROOT = Path(__file__).resolve().parents[2]
RIGHT = Row("crm-contacts", "HubSpot", 10, 10, 3, 1, 0, 0)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project as a clone would have it, with the programs that are already here."""
    for folder in ("schemas", "producers", "connectors", "consumers", "ops"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "backbone.toml", tmp_path)
    (tmp_path / ".backbone").mkdir()
    (tmp_path / ".backbone" / "artifacts").symlink_to(ROOT / ".backbone" / "artifacts")
    return tmp_path


@pytest.mark.timeout(300)
def test_the_demo_tells_its_story_and_every_vendor_agrees(stack: object, copy: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-m", "ops.demo"], cwd=copy, env=environment, capture_output=True, text=True, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\S+) +(HubSpot|Slack|SQLite) +([\d,]+) +([\d,]+) +\S+ +(\d+) +(\d+) +(\d+) +(\d+)$",
                      done.stdout, re.MULTILINE)  # fmt: skip
    assert [row[0] for row in rows] == ["crm-contacts", "billing-alerts", "warehouse", "finance-feed"]
    for _, _, expected, applied, dead, lag, lost, wrong in rows:
        assert expected == applied
        assert (lag, lost, wrong) == ("0", "0", "0")
        assert int(dead) <= 1
    assert not (copy / ".backbone" / "demo.json").exists(), "the demo leaves nothing behind"


def test_the_same_seed_tells_the_same_story_and_another_one_another() -> None:
    def told(seed: int) -> list[dict[str, object]]:
        return [event.model_dump() for event in tell(seed, 200).events]

    assert told(7) == told(7) != told(8)
    assert len(tell(7, 200).events) == 200


def test_the_right_table_is_right() -> None:
    assert judge(2000, 2000, [RIGHT]) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"applied": 9}, "applied 9 of 10"),
        ({"applied": 11}, "applied 11 of 10"),
        ({"lag": 4}, "lag 4"),
        ({"lag": None}, "not caught up"),
        ({"dead_letters": 0}, "0 dead letters"),
        ({"dead_letters": 2}, "2 dead letters"),
        ({"differing": 1}, "not as the story says"),
    ],
)
def test_a_wrong_table_is_called_wrong(changed: dict[str, int | None], said: str) -> None:
    wrong = judge(2000, 2000, [dataclasses.replace(RIGHT, **changed)])  # type: ignore[arg-type]
    assert any(said in sentence for sentence in wrong)


def test_an_event_that_was_not_acknowledged_is_called_wrong() -> None:
    assert judge(2000, 1999, [RIGHT]) == ["1999 of 2000 events were acknowledged"]
