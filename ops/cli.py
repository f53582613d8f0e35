"""The command ``backbone``: its table of commands, and how every error becomes one sentence and an exit code.

Only click and the standard library are imported here; a command's module is imported when it is used. ``main`` is
the console script; ``cli`` is the click command that tests invoke.

Exit codes: 0 done · 1 unexpected · 2 usage · 3 checked, and the answer is no · 4 not allowed · 5 not found ·
6 refused · 7 partly done · 8 unreachable · 130 interrupted · 141 the reader of our output went away.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from ops.app import App
from ops.screen import Screen, requested_output, silence_stdout
from schemas.errors import BackboneError
from schemas.findings import did_you_mean


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is found (``module:attribute``) and what it says in its group's help; a group of our own has
    ``verbs``, whose places may be ``module:group.verb``."""

    place: str
    summary: str
    verbs: Mapping[str, Entry] | None = None


def _verb(module: str, group: str, verb: str, summary: str) -> Entry:
    return Entry(f"ops.commands.{module}:{group}.{verb}", summary)


SUBSCRIPTION = {
    "list": _verb("subscription", "subscription", "list", "The files here and what is attached of them."),
    "new": _verb("subscription", "subscription", "new", "Write the file of a new subscription."),
    "check": _verb("subscription", "subscription", "check", "Find what is wrong in files."),
    "test": _verb("subscription", "subscription", "test", "Run the tests that stand in files."),
    "preview": _verb("subscription", "subscription", "preview", "Show what real events would become; send nothing."),
    "shadow": _verb("shadow", "verbs", "shadow", "Compare a new version with what was sent; send nothing."),
    "attach": _verb("attach", "verbs", "attach", "Start files, or new versions of them (a change)."),
    "detach": _verb("attach", "verbs", "detach", "End a subscription (a change)."),
    "pause": _verb("attach", "verbs", "pause", "Let it rest; its place is kept."),
    "resume": _verb("attach", "verbs", "resume", "Let it run on after a pause or a stop."),
}

CATALOG = {
    "list": Entry("ops.commands.catalog:list_", "Events, connections or subscriptions, one a line."),
    "show": Entry("ops.commands.catalog:show", "Everything about one of them, or about a field or an action."),
    "search": Entry("ops.commands.catalog:search", "Find something by words."),
    "lineage": Entry("ops.commands.catalog_lineage:lineage", "Which field goes to which field of which vendor."),
    "dependencies": Entry("ops.commands.catalog_lineage:dependencies", "What needs what, and what breaks without it."),
    "personal-data": Entry("ops.commands.data_map:personal_data", "Which personal data goes where, and what for."),
    "export": Entry("ops.commands.catalog_export:export", "Write the catalogue as AsyncAPI or as web pages."),
}

SECTIONS: dict[str, dict[str, Entry]] = {
    "What is going on": {
        "status": Entry("ops.commands.status:status", "What is wrong now, worst first."),
        "lag": Entry("ops.commands.lag:lag", "How far any Kafka group is behind."),
        "monitor": Entry("ops.commands.monitor:monitor", "Watch every group, with a day's history and metrics."),
        "trace": Entry("ops.commands.trace:trace", "What became of one event, or of one business key."),
        "receipt": Entry("ops.commands.receipt:receipt", "How deliveries ended."),
        "deadletter": Entry("ops.commands.deadletter:deadletter", "Events that were set aside; redrive them."),
        "doctor": Entry("ops.commands.doctor:doctor", "Check everything this needs, and say what to do."),
    },
    "Say what is said, and say it": {
        "schema": Entry("ops.commands.schema:schema", "Check, compare, generate and register contracts."),
        "event": Entry("ops.commands.event:event", "Publish and read events."),
        "topic": Entry("ops.commands.topic:topic", "Topics here, and what the contracts want."),
        "catalog": Entry("", "What there is, who uses it, and where every field goes.", verbs=CATALOG),
    },
    "Bring events to vendors": {
        "subscription": Entry("", "Write, check, attach and pause subscriptions.", verbs=SUBSCRIPTION),
        "run": Entry("ops.commands.run:run", "Run the attached subscriptions."),
        "connection": Entry("ops.commands.connection:connection", "Accounts at vendors: state, check, pause."),
    },
    "Change, and change back": {
        "replay": Entry("ops.commands.replay:replay", "Deliver past events again, to one subscription (a change)."),
        "rewind": Entry("ops.commands.rewind:rewind", "Read again from an earlier place (a change)."),
        "reconcile": Entry("ops.commands.reconcile:reconcile", "Compare topics, ledger and vendor; repair (a change)."),
        "erase": Entry("ops.commands.erase:erase", "Have vendors erase what they got about a person (a change)."),
        "apply": Entry("ops.commands.apply:apply", "Do a planned change."),
        "undo": Entry("ops.commands.undo:undo", "Take a change back."),
        "change": Entry("ops.commands.change:change", "Changes: planned, running and done."),
    },
    "Set up": {
        "init": Entry("ops.commands.init:init", "Write a new project."),
        "local": Entry("ops.commands.local:local", "Kafka, registry and fake vendors on this machine."),
        "context": Entry("ops.commands.context:context", "The places this can talk to."),
        "editor": Entry("ops.commands.editor:editor", "Completion and checks of files for your editor."),
        "rule": Entry("ops.commands.rule:rule", "What the ids at the ends of findings mean."),
        "completion": Entry("ops.commands.completion:completion", "Completion of commands for your shell."),
    },
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries and imports one only when it is used."""

    def __init__(self, sections: Mapping[str, Mapping[str, Entry]], **settings: Any) -> None:
        super().__init__(**settings)
        self._sections = sections
        self._entries = {name: entry for section in sections.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        if entry.verbs is not None:
            return LazyGroup({"Commands": entry.verbs}, name=cmd_name, help=entry.summary, no_args_is_help=True)
        found = _imported(cmd_name, entry.place)
        if ctx.resilient_parsing:  # the shell asks what may come next
            from ops.completing import attach

            attach(found, " ".join([*_words(ctx), cmd_name]))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._entries and not name.startswith("-"):
            raise click.UsageError(f"There is no command '{name}'.{did_you_mean(name, self._entries)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in section.items()])


def _words(ctx: click.Context) -> list[str]:
    """How the group is called, without ``backbone``."""
    return [] if ctx.parent is None else [*_words(ctx.parent), ctx.info_name or ""]


def _imported(name: str, place: str) -> click.Command:
    module_name, _, path = place.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            raise BackboneError(f"The command '{name}' is not part of this installation.") from None
        missing = error.name or "a module"
        raise BackboneError(
            f"The command '{name}' needs {missing}, which cannot be imported. "
            "Install the locked dependencies: pip install -r requirements.lock"
        ) from error
    for part in path.split("."):
        found = found.commands.get(part) if isinstance(found, click.Group) else getattr(found, part, None)
        if found is None:
            raise BackboneError(f"The command '{name}' is not part of this installation.")
    assert isinstance(found, click.Command)
    return found


class _ReaderGoneError(Exception):
    """stdout's reader closed it (``| head``); click would make exit code 1 of it."""


class Root(LazyGroup):
    """The command itself: turns what a command raises into one sentence on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error

    def main(  # type: ignore[override]  # it always ends the process, like click's own in standalone mode
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        arguments = list(sys.argv[1:] if args is None else args)
        app = App()
        app.screen.output = requested_output(arguments)
        extra.pop("standalone_mode", None)
        try:
            code = self._run(app, arguments, prog_name or "backbone", extra)
        finally:
            app.close()
        sys.exit(code)

    def _run(self, app: App, arguments: list[str], prog_name: str, extra: dict[str, Any]) -> int:
        try:
            result = super().main(arguments, prog_name, standalone_mode=False, obj=app, **extra)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
        except click.exceptions.NoArgsIsHelpError as error:
            return _help(app.screen, error)
        except click.UsageError as error:
            return _usage(app.screen, error)
        except click.ClickException as error:
            app.screen.error(error.exit_code, error.format_message())
            return error.exit_code
        except BackboneError as error:
            app.screen.error(error.exit_code, app.sentence(error))
            return error.exit_code
        except (click.Abort, KeyboardInterrupt, EOFError):
            app.screen.error(130, app.interrupted)
            return 130
        except _ReaderGoneError:
            silence_stdout()
            return 141
        except Exception as error:  # noqa: BLE001  (the door to the person: nothing may pass it as a traceback)
            return _unexpected(app, error)


def _help(screen: Screen, error: click.exceptions.NoArgsIsHelpError) -> int:
    is_root = error.ctx is not None and error.ctx.parent is None
    if is_root and screen.output == "table":
        click.echo(error.message)
        return 0
    if screen.output == "table":
        click.echo(error.message, err=True)
        return 2
    screen.error(2, "A command is missing; backbone --help lists them.")
    return 2


def _usage(screen: Screen, error: click.UsageError) -> int:
    sentence = error.format_message()
    if error.ctx is not None:
        sentence += f" See: {error.ctx.command_path} --help"
    screen.error(2, sentence)
    return 2


def _unexpected(app: App, error: Exception) -> int:
    from ops.settings import is_debugging

    translated = app.translated(error)
    if translated is not None:
        app.screen.error(translated.exit_code, str(translated))
        code = translated.exit_code
    else:
        # the message may quote what was read (payloads, secrets): only the kind of the error and its place are shown
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
        app.screen.error(
            1,
            f"Something unexpected happened ({type(error).__name__}{place}). "
            "Run it again with BACKBONE_DEBUG=1 to see where, and report it.",
        )
        code = 1
    if is_debugging():
        traceback.print_exception(error)
    return code


def _chosen_context(ctx: click.Context, _: click.Parameter, name: str | None) -> None:
    if name is not None and ctx.resilient_parsing:
        from ops.completing import CONTEXT

        ctx.meta[CONTEXT] = name
    elif name is not None:
        ctx.ensure_object(App).choose_context(name)


def _contexts(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
    from ops.completing import completed

    return completed(("context",), incomplete, "local")


cli = Root(
    SECTIONS,
    name="backbone",
    help="Canonical business events over Kafka, brought into vendor systems in order, nothing lost, all accounted for.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[
        click.Option(
            ["-c", "--context"],
            envvar="BACKBONE_CONTEXT",
            metavar="NAME",
            expose_value=False,
            callback=_chosen_context,
            shell_complete=_contexts,
            help="The context of backbone.toml to talk to; default: local.",
        ),
    ],
)


def main() -> None:
    """The console script; ends the process with the exit code."""
    cli.main()


if __name__ == "__main__":
    main()
