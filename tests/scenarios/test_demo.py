"""``make demo``: what it leaves, and its verdict. The whole story is run in ``test_readme.py``."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from ops.demo import demo
from ops.demo.demo import Demo
from ops.demo.story import tell
from ops.demo.table import Row, judge
from schemas.errors import RefusedError

RIGHT = Row("crm-contacts", "HubSpot", 10, 10, 3, 1, 0, 0)


@pytest.mark.parametrize(
    ("keep", "succeeded", "stays"), [(False, True, False), (True, False, False), (True, True, True)]
)
def test_what_the_demo_started_ends_with_it_unless_it_succeeded_and_is_to_be_kept(
    keep: bool, succeeded: bool, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo itself runs in ``test_readme.py``, to be kept; what else differs without KEEP=1 is its end."""
    data, marker = tmp_path / "local" / "kafka", tmp_path / "demo.json"
    monkeypatch.setattr(demo, "STATE", tmp_path)
    monkeypatch.setattr(demo, "MARKER", marker)
    run = Demo(keep=keep)
    data.mkdir(parents=True)
    marker.write_text("{}")
    run._owns_stack, run._succeeded = True, succeeded
    run._worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    run._service = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], text=True)
    try:
        run.end()
        assert run._service.poll() is not None
        assert (run._worker.poll() is None) == stays
        assert (data.exists(), marker.exists()) == (stays, stays)
        assert not run._folder.exists()
    finally:
        for process in (run._worker, run._service):
            process.kill()
            process.wait()


def test_a_stack_that_is_not_the_demos_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "local" / "kafka"
    data.mkdir(parents=True)
    monkeypatch.setattr(demo, "STATE", tmp_path)
    monkeypatch.setattr(demo, "MARKER", tmp_path / "demo.json")
    run = Demo(keep=False)
    with pytest.raises(RefusedError, match="the demo begins from nothing"):
        run.run()
    run.end()
    assert data.exists()


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
