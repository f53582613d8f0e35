"""``backbone local``: Kafka, the registry and the vendors' fakes as child processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.app import App, screen_options
from ops.screen import Column
from schemas.errors import RefusedError

if TYPE_CHECKING:
    from ops.local import PartStatus

PARTS = ("kafka", "registry", "vendors")
COLUMNS = [
    Column("part"),
    Column("state"),
    Column("address"),
    Column("pid", show=str),
    Column("memory_mib", "MIB"),
]


@click.group(no_args_is_help=True)
def local() -> None:
    """Kafka, the registry and a fake of every vendor on this machine, without containers.

    They run on after the command ends, keep their data and ports in .backbone/, and are what the context 'local'
    talks to.
    """


@local.command()
@screen_options
@click.pass_obj
def up(app: App) -> None:
    """Start what is not running, and wait until it answers."""
    from ops import local as stack

    folder = _folder(app)
    started = stack.up(folder, say=app.screen.say)
    if started.started:
        app.screen.say(f"started {_list(started.started)} in {started.seconds:.1f} s")
    else:
        app.screen.say("everything is running already")
    _show(app, folder)


@local.command()
@screen_options
@click.pass_obj
def down(app: App) -> None:
    """Stop everything; the data stays."""
    from ops import local as stack

    folder = _folder(app)
    stopped = stack.down(folder)
    app.screen.say(f"stopped {_list(stopped)}" if stopped else "nothing was running")
    _show(app, folder)


@local.command()
@screen_options
@click.pass_obj
def status(app: App) -> None:
    """What runs, where, and how much memory it takes."""
    _show(app, _folder(app))


@local.command()
@click.argument("part", type=click.Choice(PARTS), required=False)
@click.option("--follow", is_flag=True, help="Go on with every new line until Ctrl-C.")
@click.option("--lines", type=click.IntRange(0, 100_000), default=40, show_default=True, help="Last lines of each log.")
@screen_options
@click.pass_obj
def logs(app: App, part: str | None, follow: bool, lines: int) -> None:
    """What PART has said; everything when no part is named."""
    from ops import local as stack
    from ops.local import log

    folder = _folder(app)
    files: dict[str, Path] = {name: stack.logs(folder, name) for name in stack.PARTS if part in (None, name)}

    def rows() -> Iterator[dict[str, str]]:
        if follow:
            for name, line in log.follow(files, lines):
                yield {"part": name, "line": line}
        else:
            for name, path in files.items():
                for line in log.tail(path, lines):
                    yield {"part": name, "line": line}

    def words(row: object) -> str:
        assert isinstance(row, dict)
        return str(row["line"]) if part else f"{row['part']:<8} {row['line']}"

    if not app.screen.stream("local.log", rows(), [Column("part"), Column("line")], line=words):
        app.screen.say("nothing was said: " + ", ".join(str(path) for path in files.values()))


@local.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@screen_options
@click.pass_obj
def reset(app: App, yes: bool) -> None:
    """Stop everything and throw its data away: topics, schemas, positions, the fakes' databases."""
    from ops import local as stack

    folder = _folder(app)
    question = f"Throw away all topics, schemas and positions of the local stack in {folder}?"
    if not app.screen.confirm(question, yes=yes):
        raise RefusedError("Nothing was thrown away.")
    stopped = stack.reset(folder)
    app.screen.say((f"stopped {_list(stopped)}; " if stopped else "") + "all data of the local stack is gone")
    _show(app, folder)


def _folder(app: App) -> Path:
    # whatever context is chosen in the environment: this is about the machine's own stack, and says so
    app.screen.context = "local"
    return app.project.root / ".backbone"


def _show(app: App, folder: Path) -> None:
    from ops import local as stack

    found = stack.status(folder)
    app.screen.rows("local", [_row(part) for part in found], COLUMNS)
    for part in found:
        if part.state == "ended":
            app.screen.warn(f"{part.part} has ended by itself or was killed; see 'backbone local logs {part.part}'.")


def _row(part: PartStatus) -> dict[str, object]:
    return {
        "part": part.part,
        "state": part.state,
        "address": part.address,
        "pid": part.pid,
        "memory_mib": part.memory_mib,
        "log": str(part.log),
    }


def _list(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
