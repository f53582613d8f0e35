"""Names for the shell's completion: what a person may write in a place, read from files. Nothing is asked elsewhere.

Subscriptions, events, topics, connections and contexts stand in the project; changes in ``.backbone/changes``, groups
in the monitor's history. What commands see of the cluster they leave in ``.backbone/names`` (``remember``), so that
names are known that stand in no file: changes of other machines, what others have attached, foreign topics.

Which argument takes which names is the table ``TAKES``; ``tests/ops/test_completing.py`` holds every argument of every
command against it. Imports are light: this runs on every press of the key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from ops.project_place import project_file
from schemas.errors import NotFoundError

if TYPE_CHECKING:
    from ops.app import App

CONTEXT: Final = "event_backbone.context"
"""Where a context that was named on the line is kept (``click.Context.meta``)."""
NAMES_MAX: Final = 1_000
_FILE_MAX: Final = 1 << 20

SUBSCRIPTION: Final = ("subscription",)
SUBSCRIPTION_FILE: Final = ("subscription", "file")
CHANGE, CONNECTION, EVENT, TOPIC = ("change",), ("connection",), ("event",), ("topic",)

TAKES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("apply", "change_id"): CHANGE,
    ("undo", "change_id"): CHANGE,
    **{(f"change {verb}", "change_id"): CHANGE
       for verb in ("show", "approve", "watch", "pause", "resume", "cancel", "throttle")},
    ("receipt list", "change"): CHANGE,
    **{(command, "name"): SUBSCRIPTION
       for command in ("replay", "deadletter redrive", "deadletter discard", "deadletter set-aside",
                       "subscription detach", "subscription pause", "subscription resume")},
    ("receipt list", "subscription"): SUBSCRIPTION,
    **{(f"deadletter {verb}", "name"): ("subscription", "topic") for verb in ("list", "show")},
    ("deadletter set-aside", "place"): TOPIC,
    **{(f"subscription {verb}", "files"): SUBSCRIPTION_FILE for verb in ("check", "test", "attach")},
    **{(f"subscription {verb}", "file"): SUBSCRIPTION_FILE for verb in ("preview", "shadow")},
    ("run", "names"): ("subscription", "built-in"),
    ("rewind", "name"): ("subscription", "group"),
    ("lag", "names"): ("subscription", "group"),
    ("reconcile run", "name"): SUBSCRIPTION,
    **{(f"reconcile {verb}", "which"): ("result", "subscription") for verb in ("show", "repair")},
    ("status", "name"): SUBSCRIPTION,
    **{(f"connection {verb}", "name"): CONNECTION for verb in ("show", "pause", "resume")},
    ("connection check", "names"): CONNECTION,
    ("connection calls", "name"): CONNECTION,
    ("subscription new", "connection"): CONNECTION,
    ("catalog personal-data", "connection"): CONNECTION,
    **{(f"catalog {verb}", "name"): ("event", "subscription", "connection", "topic")
       for verb in ("show", "lineage", "dependencies")},
    ("event publish", "event_type"): EVENT,
    ("event tail", "name"): ("event", "topic"),
    ("event get", "place"): TOPIC,
    ("subscription new", "event"): EVENT,
    ("schema register", "events"): EVENT,
    ("schema deprecate", "event"): EVENT,
    ("schema deprecate", "replaced_by"): EVENT,
    ("catalog personal-data", "event"): EVENT,
    ("replay", "types"): EVENT,
    ("replay", "topics"): TOPIC,
    ("rewind", "topics"): TOPIC,
    ("topic list", "names"): TOPIC,
    ("topic acls", "roles"): ("role",),
    ("rule show", "name"): ("rule",),
    ("context show", "name"): ("context",),
    ("erase", "question"): ("field",),
    ("trace", "question"): ("field",),
    ("catalog personal-data", "of"): ("field",),
    ("receipt list", "key"): ("field",),
    ("schema check", "files"): ("file",),
    ("schema diff", "old"): ("event", "file"),
    ("schema diff", "new"): ("event", "file"),
    ("event publish", "path"): ("file",),
    ("init", "folder"): ("dir",),
}  # fmt: skip
"""Which names an argument or option takes: by the command's words and the parameter's name."""


class Names(click.ParamType[str]):
    """A text whose possible values the shell is told."""

    name = "text"

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return completed(self.kinds, incomplete, str(ctx.meta.get(CONTEXT) or "local"))


def attach(command: click.Command, words: str) -> None:
    """Have a command (and those below it) complete names. ``words``: how it is called, without ``backbone``."""
    for param in command.params:
        kinds = ("context",) if param.name == "context" else TAKES.get((words, param.name or ""))
        if kinds is not None:
            param.type = Names(kinds)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            attach(inner, f"{words} {name}")


def completed(kinds: Iterable[str], incomplete: str, context: str) -> list[CompletionItem]:
    """What may stand where ``incomplete`` was typed. Never raises: a project that is broken has no names."""
    project = Project.here(context)
    items: dict[str, CompletionItem] = {}
    for kind in kinds:
        if kind in ("file", "dir"):
            items[incomplete] = CompletionItem(incomplete, type=kind)
        elif project is not None or kind in ("role", "rule"):
            found = SOURCES[kind](project)  # type: ignore[arg-type]  # those two need no project
            items |= {name: CompletionItem(name) for name in found if name.startswith(incomplete)}
    return list(items.values())


class Project:
    """What files say of a project: ``root`` its folder, ``content`` its backbone.toml as it parses."""

    def __init__(self, root: Path, content: Mapping[str, Any], context: str) -> None:
        self.root, self.content, self.context = root, content, context

    @classmethod
    def here(cls, context: str) -> Project | None:
        import tomllib

        try:
            file = project_file()
            return cls(file.parent, tomllib.loads(file.read_text(encoding="utf-8")), context)
        except (NotFoundError, OSError, ValueError):  # whoever runs the command is told
            return None

    def setting(self, name: str) -> str:
        table = self.content.get("project")
        found = table.get(name) if isinstance(table, dict) else None
        return found if isinstance(found, str) else ""

    def tables(self, name: str) -> list[str]:
        found = self.content.get(name)
        return list(found) if isinstance(found, dict) else []

    def contracts(self) -> Iterator[Mapping[str, Any]]:
        """The event files, as they parse."""
        folder = self.root / (self.setting("schemas") or "schemas/events")
        for path in sorted(folder.rglob("*.avsc"))[:NAMES_MAX] if folder.is_dir() else ():
            found = _json(path)
            if isinstance(found, dict) and isinstance(found.get("name"), str):
                yield found

    def remembered(self, kind: str) -> list[str]:
        """What a command saw of the cluster last."""
        found = _json(_file(self.root, self.context))
        names = found.get(kind) if isinstance(found, dict) else None
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _subscriptions(project: Project) -> list[str]:
    folder = project.root / (project.setting("subscriptions") or "consumers/subscriptions")
    return sorted({*(path.stem for path in folder.glob("*.yaml")), *project.remembered("subscription")})


def _changes(project: Project) -> list[str]:
    """The newest first; those of other machines as they were seen last."""
    folder = project.root / ".backbone" / "changes" / project.context
    files = [path for path in folder.glob("ch-*.json") if path.stem.count(".") == 0]
    here = [path.stem for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)]
    return list(dict.fromkeys([*here, *project.remembered("change")]))


def _results(project: Project) -> list[str]:
    """Of reconciling, the newest first."""
    files = (project.root / ".backbone" / "reconcile" / project.context).glob("rc-*.json")
    return [path.stem for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)]


def _events(project: Project) -> list[str]:
    here = {".".join(filter(None, (one.get("namespace"), one["name"]))) for one in project.contracts()}
    return sorted({*here, *project.remembered("event")})


def _topics(project: Project) -> list[str]:
    promises = [one["backbone"] for one in project.contracts() if isinstance(one.get("backbone"), dict)]
    here = {one["topic"] for one in promises if isinstance(one.get("topic"), str)}
    return sorted({*here, *project.remembered("topic")})


def _groups(project: Project) -> list[str]:
    """Of the monitor's history, if one runs here."""
    import sqlite3

    file = project.root / ".backbone" / "monitor" / f"{project.context}.db"
    found: set[str] = set(project.remembered("group"))
    if file.is_file():
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0.1)) as db:
            found |= {str(name) for (name,) in db.execute("SELECT DISTINCT name FROM series LIMIT ?", (NAMES_MAX,))}
    return sorted(found)


def _fields(project: Project) -> list[str]:
    """``field=`` of what events are keyed by or are about, and of personal data."""
    found: set[str] = set()
    for one in project.contracts():
        promise = one["backbone"] if isinstance(one.get("backbone"), dict) else {}
        found |= {promise[name] for name in ("key", "entity") if isinstance(promise.get(name), str)}
        fields = one["fields"] if isinstance(one.get("fields"), list) else []
        found |= {str(field.get("name")) for field in fields if isinstance(field, dict) and "personal_data" in field}
    return sorted(f"{name}=" for name in found)


def _roles(_: Project) -> list[str]:
    from ops.permissions import ROLES

    return list(ROLES)


def _rules(_: Project) -> list[str]:
    from ops.rules import RULES

    return sorted(RULES)


SOURCES: Final[Mapping[str, Callable[[Project], list[str]]]] = {
    "subscription": _subscriptions,
    "change": _changes,
    "result": _results,
    "event": _events,
    "topic": _topics,
    "group": _groups,
    "connection": lambda project: sorted(project.tables("connections")),
    "context": lambda project: sorted({"local", *project.tables("contexts")}),
    "field": _fields,
    "built-in": lambda _: ["ledger", "monitor"],
    "role": _roles,
    "rule": _rules,
}


def remember(app: App, kind: str, names: Iterable[str], *, whole: bool = False) -> None:
    """Leave what was seen of the cluster for completion, in this project and context; ``whole``: there is no more of
    that kind. It is a convenience: where it cannot be written (a project that is mounted read-only) nothing is said."""
    file = _file(app.project.root, app.screen.context)
    before = _json(file)
    kept = before if isinstance(before, dict) else {}
    earlier = kept.get(kind) if isinstance(kept.get(kind), list) and not whole else None
    seen = list(dict.fromkeys([*names, *(earlier or [])]))[:NAMES_MAX]
    if kept.get(kind) == seen:
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(kept | {kind: seen}), encoding="utf-8")
        temporary.replace(file)


def _file(root: Path, context: str) -> Path:
    return root / ".backbone" / "names" / f"{context}.json"


def _json(file: Path) -> Any:
    """What a file holds; None for what is none."""
    try:
        with file.open("rb") as opened:
            return json.loads(opened.read(_FILE_MAX))
    except (OSError, ValueError, RecursionError):
        return None
