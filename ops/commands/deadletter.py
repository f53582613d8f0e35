"""``backbone deadletter list | show``: events that were set aside, and why. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.commands.lag import age_text
from ops.screen import Column
from ops.wording import counted
from schemas.errors import CheckFailedError, NotFoundError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.deadletters import OpenLetter

CAUSES = [
    Column("subscription"),
    Column("fingerprint", "CAUSE"),
    Column("count"),
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

    JSON: one row a cause with subscription, fingerprint, count, outcome, reason, detail, events, versions, first_at,
    last_at, oldest_seconds, newest_id.
    """
    from ops import deadletters

    names = [name] if name is not None else _known(app)
    there = deadletters.dead_topics(app, names)
    if name is not None and not there:
        raise _unknown(app, name)
    letters = _read(app, there, keep_values=False)
    now = datetime.now(UTC)
    chosen = deadletters.matching(letters, cause)
    rows = [deadletters.summary(found, now) for found in deadletters.by_cause(chosen)]
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

    Payloads are decoded and masked by their personal-data classes.
    """
    from ops import deadletters

    if not deadletters.dead_topics(app, [name]):
        raise _unknown(app, name)
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
    if len(chosen) > limit:
        app.screen.warn(f"Only {limit:,} of {len(chosen):,} are shown; more with --limit.")


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
