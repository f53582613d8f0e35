"""``backbone deadletter``: events that were set aside and why; and what people do with them, each a change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ops.app import App, screen_options
from ops.changes import change_options
from ops.commands.lag import age_text
from ops.screen import Column
from ops.wording import counted
from schemas.errors import CheckFailedError, InputError, NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.deadletters import OpenLetter

CAUSES = [
    Column("subscription"),
    Column("fingerprint", "CAUSE"),
    Column("count"),
    Column("parked"),
    Column("outcome"),
    Column("reason"),
    Column("events"),
    Column("oldest_seconds", "OLDEST", age_text),
    Column("detail"),
]
LETTERS = [
    Column("id"),
    Column("event"),
    Column("outcome"),
    Column("reason"),
    Column("fingerprint", "CAUSE"),
    Column("attempts"),
    Column("last_at"),
    Column("detail"),
]
FOREIGN = [
    Column("id"),
    Column("writer", "BY WHAT"),
    Column("origin"),
    Column("exception"),
    Column("cause"),
    Column("by"),
    Column("stage"),
    Column("arrived"),
]
CHANGED = [
    Column("event"),
    Column("count"),
    Column("outcome"),
    Column("reason"),
    Column("fingerprint", "CAUSE"),
    Column("redrives"),
    Column("oldest"),
]
F = TypeVar("F", bound=Callable[..., Any])


def _choice_options(command: F) -> F:
    """``ID.. --cause --key --all --rate``: which letters, and how fast."""
    for decorate in (
        click.option("--rate", metavar="N/s", help="At most so many a second."),
        click.option("--all", "all_", is_flag=True, help="Every open dead letter of NAME."),
        click.option("--key", metavar="KEY", help="Those of this record key."),
        click.option("--cause", metavar="CAUSE", help="Those with this fingerprint, reason or outcome."),
        click.argument("ids", metavar="[ID]..", nargs=-1),
        click.argument("name"),
    ):
        command = decorate(command)
    return command


@click.group(no_args_is_help=True)
def deadletter() -> None:
    """Dead letters: events set aside with their reason. They stay open until a person closes them."""


@deadletter.command("list")
@click.argument("name", required=False)
@click.option("--cause", metavar="CAUSE", help="Only this fingerprint, reason or outcome.")
@click.option("--fail-on", is_flag=True, help="Exit 3 if any open dead letter is found.")
@screen_options
@click.pass_obj
def list_(app: App, name: str | None, cause: str | None, fail_on: bool) -> None:
    """What went wrong: open dead letters grouped by cause, of one subscription or of all.

    PARKED are the letters that wait behind these for their key. JSON: one row a cause with subscription, fingerprint,
    count, parked, outcome, reason, detail, events, versions, first_at, last_at, oldest_seconds, newest_id.
    """
    from ops import deadletters

    names = [name] if name is not None else _known(app)
    there = deadletters.dead_topics(app, names)
    if name is not None and not there:
        raise _unknown(app, name)
    letters = _read(app, there, keep_values=False)
    now = datetime.now(UTC)
    chosen = deadletters.matching(letters, cause)
    parked = deadletters.parked_behind(letters)
    rows = [deadletters.summary(found, now, parked) for found in deadletters.by_cause(chosen)]
    app.screen.rows("deadletters", rows, CAUSES, empty="There are no open dead letters.")
    if rows:
        app.screen.say(
            f"Look at them: backbone deadletter show {rows[0]['subscription']} --cause {rows[0]['fingerprint']}"
        )
    if fail_on and rows:
        raise CheckFailedError(f"{counted(len(chosen), 'open dead letter')}.")


@deadletter.command()
@click.argument("name")
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--cause", metavar="CAUSE", help="Only this fingerprint, reason or outcome.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many, oldest first.")
@screen_options
@click.pass_obj
def show(app: App, name: str, id_: str | None, cause: str | None, limit: int) -> None:
    """The open dead letters of NAME, or the one with ID (TOPIC/PARTITION/OFFSET) in full.

    Payloads are decoded and masked by their personal-data classes. NAME may also be a dead-letter topic of Kafka
    Connect or Spring: where its records come from and which exception they name is shown, never its message.
    """
    from ops import deadletters

    if not deadletters.dead_topics(app, [name]):
        _show_foreign(app, name, id_, cause, limit)
        return
    letters = _read(app, [name], keep_values=id_ is not None)
    if id_ is not None:
        found = next((letter for letter in letters if letter.id == id_), None)
        if found is None:
            known = [letter.id for letter in letters]
            raise NotFoundError(
                f"{name} has no open dead letter '{id_}'.{did_you_mean(id_, known)} "
                f"See them: backbone deadletter show {name}"
            )
        app.screen.document("deadletter", deadletters.in_full(app, found), title=f"{name} · {id_}")
        return
    chosen = deadletters.matching(letters, cause)
    app.screen.rows(
        "deadletter_letters",
        [_row(found) for found in chosen[:limit]],
        LETTERS,
        empty="There are no open dead letters.",
    )
    if chosen:
        which = f"--cause {cause}" if cause is not None else "--cause CAUSE"
        app.screen.say(f"When it is mended: backbone deadletter redrive {name} {which}")
    if len(chosen) > limit:
        app.screen.warn(f"Only {limit:,} of {len(chosen):,} are shown; more with --limit.")


@deadletter.command()
@_choice_options
@click.option("--again", is_flag=True, help="Also letters that failed after 3 redrives, or wait in the inbox.")
@click.option("--allow-stale", is_flag=True, help="Send all of it, however old, without asking the ledger.")
@click.option(
    "--wait", type=click.FloatRange(0, 3600), default=30.0, show_default=True, metavar="SECONDS",
    help="Report when nothing has come of any letter for so long.",
)  # fmt: skip
@change_options
@screen_options
@click.pass_obj
def redrive(
    app: App, name: str, ids: tuple[str, ...], cause: str | None, key: str | None, all_: bool, rate: str | None,
    again: bool, allow_stale: bool, wait: float, apply: bool, yes: bool, reason: str | None, confirm: str | None,
) -> None:  # fmt: skip
    """Deliver dead letters of NAME again, to NAME alone, in the order of their keys (a change).

    What is wrong must be mended first. Of an upsert, fields that newer deliveries have sent since are left out: the
    ledger knows them. Where keys are parked, what waits behind the letters comes along. Every attempt carries the
    idempotency key of the first.
    """
    from ops.changes import run_change
    from ops.changes.letters import Choice
    from ops.changes.redrive_plan import Redriving, redrive_plan
    from ops.changes.steering import parse_rate

    how = Redriving(
        rate=0.0 if rate is None else parse_rate(rate), allow_stale=allow_stale, again=again, wait_s=wait
    )  # fmt: skip
    plan = redrive_plan(app, name, Choice(ids=ids, cause=cause, key=key, all=all_), how)
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=CHANGED)


@deadletter.command()
@_choice_options
@change_options
@screen_options
@click.pass_obj
def discard(
    app: App, name: str, ids: tuple[str, ...], cause: str | None, key: str | None, all_: bool, rate: str | None,
    apply: bool, yes: bool, reason: str | None, confirm: str | None,
) -> None:  # fmt: skip
    """Close dead letters of NAME without delivering them (a change). Needs --confirm NAME; it cannot be taken back.

    A key that was parked behind them alone goes on.
    """
    from ops.changes import run_change
    from ops.changes.discard import discard_plan
    from ops.changes.letters import Choice
    from ops.changes.steering import parse_rate

    choice = Choice(ids=ids, cause=cause, key=key, all=all_)
    plan = discard_plan(app, name, choice, rate=0.0 if rate is None else parse_rate(rate))
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=CHANGED)


@deadletter.command("set-aside")
@click.argument("name")
@click.argument("place", metavar="TOPIC:PARTITION")
@click.argument("offset", type=click.IntRange(0))
@change_options
@screen_options
@click.pass_obj
def set_aside(
    app: App, name: str, place: str, offset: int, apply: bool, yes: bool, reason: str | None, confirm: str | None
) -> None:
    """Make the record that NAME is stuck on a dead letter, so that its partition moves on (a change).

    Workers of NAME leave for some seconds and come back. undo redrives the letter.
    """
    from ops.changes import run_change
    from ops.changes.set_aside import parse_place, set_aside_plan

    plan = set_aside_plan(app, name, parse_place(place, offset))
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm)


def _show_foreign(app: App, topic: str, id_: str | None, cause: str | None, limit: int) -> None:
    """A topic of somebody else's dead letters. Raises NotFoundError where there is no such topic, or nothing in it is
    one."""
    from ops.foreign_letters import foreign_letters
    from ops.reading import partition_count

    try:
        partition_count(app, topic)
    except NotFoundError:
        raise _unknown(app, topic) from None
    if id_ is not None:
        raise InputError(f"{topic} is no subscription of ours. Look at one of its records: backbone event get {id_}")
    rows: list[dict[str, Any]] = []
    others = 0
    for record, letter in foreign_letters(app, topic):
        if letter is None:
            others += 1
        elif cause is None or cause in (letter.exception, letter.cause, letter.by, letter.stage):
            told = {name: getattr(letter, name) or None for name in letter.__slots__}
            rows.append({"id": str(record.origin), "arrived": record.time} | told)
    if not rows and cause is None:
        hint = f" It has {counted(others, 'record')} of another kind." if others else ""
        raise NotFoundError(
            f"'{topic}' is no subscription, and no record of this topic has the headers of a dead letter of Kafka "
            f"Connect or Spring.{hint}"
        )
    rows.sort(key=lambda row: row["arrived"])
    app.screen.rows("deadletter_foreign", rows[:limit], FOREIGN, empty=f"Nothing in {topic} has the cause '{cause}'.")
    if len(rows) > limit:
        app.screen.warn(f"Only {limit:,} of {len(rows):,} are shown; more with --limit.")
    if others:
        app.screen.warn(f"{counted(others, 'record')} of {topic} have no such headers and are not shown.")


def _row(found: OpenLetter) -> dict[str, Any]:
    letter = found.letter
    return {
        "id": found.id,
        "event": found.event,
        "outcome": letter.outcome,
        "reason": letter.reason,
        "detail": letter.detail,
        "fingerprint": letter.fingerprint,
        "attempts": letter.attempts,
        "first_at": letter.first_at,
        "last_at": letter.last_at,
        "redrives": letter.redrives,
        "version": letter.version,
    }


def _read(app: App, names: Sequence[str], *, keep_values: bool) -> list[OpenLetter]:
    from ops import deadletters

    letters: list[OpenLetter] = []
    for name, found in deadletters.open_letters(app, names, keep_values=keep_values).items():
        letters += found.letters
        if found.foreign:
            app.screen.warn(
                f"{found.foreign:,} live records of {name}.dead are no dead letters of ours and are not shown."
            )
    return letters


def _known(app: App) -> list[str]:
    control = app.control()
    return sorted({*control.subscriptions, *control.detached})


def _unknown(app: App, name: str) -> NotFoundError:
    known = _known(app)
    if name in known:
        return NotFoundError(f"The topic {name}.dead does not exist. Create it: backbone subscription attach {name}")
    return NotFoundError(f"There is no subscription '{name}'.{did_you_mean(name, known)}")
