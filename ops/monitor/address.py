"""Where the monitor of a context answers: as backbone.toml says, else what one that runs here has left in .backbone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.local.process import ProcessId, identify, running

if TYPE_CHECKING:
    from ops.settings import Context


def folder(context: Context) -> Path:
    """Where the monitor keeps its things in a project."""
    return context.project.root / ".backbone" / "monitor"


def address(context: Context) -> str | None:
    """The URL to ask, without a slash at its end; None: nobody has said that one runs."""
    if context.table.monitor is not None:
        return context.table.monitor.rstrip("/")
    found = _read(_file(context))
    return None if found is None else found["url"]


def claim(context: Context, host: str, port: int, *, over: bool = False) -> bool:
    """Have this process found at ``host:port`` from now on, unless another one that lives is; whether it is found.
    ``over``: in place of whoever is. Raises OSError where it cannot be written."""
    file, mine = _file(context), _mine(host, port)
    found = _read(file)
    if found == mine:
        return True
    if not over and found is not None and running(ProcessId(found["pid"], found["started"])):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(mine), encoding="utf-8")
    fresh.replace(file)
    return True


def withdraw(context: Context, host: str, port: int) -> None:
    """Be found no longer."""
    file = _file(context)
    if _read(file) == _mine(host, port):
        file.unlink(missing_ok=True)


def _mine(host: str, port: int) -> dict[str, Any]:
    me = identify(os.getpid())
    return {
        "url": f"http://{_reachable(host)}:{port}",
        "pid": os.getpid(),
        "started": "" if me is None else me.started,
    }


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {"url": str(found["url"]), "pid": int(found["pid"]), "started": str(found["started"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(context: Context) -> Path:
    return folder(context) / f"{context.name}.json"


def _reachable(host: str) -> str:
    """An address that takes all interfaces is none to connect to."""
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]", "": "127.0.0.1"}.get(host, host)
