"""Reading the parts' logs: their ends, and what is added from now on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

FOLLOW_POLL_S = 0.2
TAIL_MAX_BYTES = 1_000_000
MARK = "---- started by backbone local up at"


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log (of its last MB); empty when there is no log yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_MAX_BYTES))
            return [_text(line) for line in deque(file, maxlen=lines)]
    except FileNotFoundError:
        return []


def append_mark(path: Path) -> None:
    """Note in the log that a new run begins here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{MARK} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n")


def since_mark(path: Path, lines: int) -> list[str]:
    """The last lines of the latest run."""
    found = tail(path, lines)
    starts = [place for place, line in enumerate(found) if line.startswith(MARK)]
    return found[starts[-1] + 1 :] if starts else found


def follow(logs: Mapping[str, Path], lines: int) -> Iterator[tuple[str, str]]:
    """The last lines of every log, then each line as it is written, with the log's name. Never ends by itself.

    A log that does not exist yet, or is replaced by a new one, is read from its beginning.
    """
    positions = {name: _size(path) for name, path in logs.items()}
    for name, path in logs.items():
        for line in tail(path, lines):
            yield name, line
    while True:
        for name, path in logs.items():
            if _size(path) < positions[name]:
                positions[name] = 0
            for written in _since(path, positions[name]):
                positions[name] += len(written)
                yield name, _text(written)
        time.sleep(FOLLOW_POLL_S)


def _since(path: Path, position: int) -> list[bytes]:
    """Whole lines after ``position``: a line that is still being written comes next time."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            content = file.read(TAIL_MAX_BYTES)
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    if not whole and len(content) == TAIL_MAX_BYTES:
        whole = content  # a line longer than that is handed out in pieces
    return whole.splitlines(keepends=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r\n")
