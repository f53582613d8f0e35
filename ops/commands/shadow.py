"""``backbone subscription shadow``: a new version over past events, compared with what was sent. Nothing is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.screen import Column

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Subscription
    from ops.ledger.query import Ledger

BY_EVENT = [
    Column("event"), Column("events"), Column("same"), Column("different"), Column("would_send"),
    Column("would_not_send"), Column("not_compared"),
]  # fmt: skip
DAYS = 7


@click.group()
def verbs() -> None:
    """Only a holder: the verb stands in the group ``subscription``."""


@verbs.command()
@click.argument("file", metavar="FILE|NAME")
@click.option(
    "--days", type=click.IntRange(1, 3_650), metavar="N", help=f"The events of so many days; default: {DAYS}."
)
@click.option("--from", "start", metavar="POSITION",
              help="From here instead: earliest 1234 -1000 @time; - counts from the committed position.")  # fmt: skip
@click.option("--to", "end", metavar="POSITION", help="Up to here, without it; default: where it stands live.")
@click.option("--max", "events_max", type=click.IntRange(1), metavar="N", help="End after so many events.")
@click.option("--max-different", metavar="SHARE", help="Exit 3 if more of the compared events differ: 0.1%.")
@screen_options
@click.pass_obj
def shadow(
    app: App, file: str, days: int | None, start: str | None, end: str | None, events_max: int | None,
    max_different: str | None,
) -> None:  # fmt: skip
    """Run a new version over past events and compare what it would send with what was sent.

    No vendor is asked, nothing is written to Kafka. What was sent is known from the receipts of the ledger; which
    fields differ, from the attached version made again. Without a ledger the attached version alone is compared.
    Values that carry a personal-data class are masked.
    """
    from consumers.subscription import load_subscription
    from ops.changes.attach_plan import subscription_path
    from ops.changes.replay_plan import ranges_behind
    from ops.changes.rewind_plan import chosen_places
    from ops.lag.cluster import Cluster
    from ops.positions import parse_position, utc
    from ops.shadow.comparison import Shadow, Versions, compare_past
    from ops.shadow.tally import Tally, parse_share
    from schemas.errors import CheckFailedError, InputError, RefusedError

    if days is not None and start is not None:
        raise InputError("Give --days or --from: both say where to begin.")
    share_max = None if max_different is None else parse_share(max_different)
    now = datetime.now(UTC)
    begin = parse_position(f"@-{days or DAYS}d" if start is None else start, now)
    until = None if end is None else parse_position(end, now)
    path = subscription_path(app, file)
    new = load_subscription(path, contracts=app.contracts, connections=app.connection_types)
    attached = _attached(app, new.name, file)
    assert attached.definition is not None
    old, ledger = _basis(app, attached)
    cluster = Cluster(app.admin(), app.consumer)
    places = chosen_places(cluster, new.name, set(attached.definition.topics), (), ours=True)
    ranges = ranges_behind(app, cluster, attached, places, begin, until)
    total = sum(one.count for one in ranges)
    if not total:
        notes = "; ".join(dict.fromkeys(one.note for one in ranges if one.note))
        raise RefusedError(
            f"{new.name} has no event behind it from {begin}{f' to {until}' if until else ''}"
            f"{f' ({notes})' if notes else ''}, so there is nothing to compare."
        )
    for one in ranges:
        if one.note and one.spans:
            app.screen.say(f"{one.place[0]}/{one.place[1]}: {one.note}.")
    for words in _apart(attached, old, new):
        app.screen.say(words)
    tally = Tally()
    compared = Shadow(app, Versions(attached, old, new), ledger)
    spans = {one.place: one.spans for one in ranges if one.spans}
    at = begin.written if begin.time is None else f"@{utc(begin.time)}"
    report = _Report(app, attached, new, ledger is not None, old is not None, at, total)
    try:
        with app.screen.progress(total, "records") as progress:
            compare_past(app, compared, spans, progress, tally=tally, events_max=events_max)
    except KeyboardInterrupt:
        report.show(tally, complete=False, share_max=share_max)
        app.interrupted = f"Ended after {tally.records:,} of {total:,} records; what stands above is of those."
        raise
    is_whole = events_max is None or tally.events < events_max
    report.show(tally, complete=is_whole, share_max=share_max)
    if not is_whole:
        app.screen.say(f"Ended after {tally.records:,} of {total:,} records (--max {events_max:,}).")
    report.advise(path, tally)
    if share_max is None:
        return
    share = tally.share
    if share is None:
        raise CheckFailedError(f"No event could be compared, so nobody can tell whether {max_different} differ.")
    if share > share_max:
        from ops.shadow.tally import percent

        raise CheckFailedError(
            f"{percent(share):g}% of {tally.compared:,} compared events differ; at most {max_different} may."
        )


def _attached(app: App, name: str, file: str) -> AttachedSubscription:
    from schemas.errors import NotFoundError
    from schemas.findings import did_you_mean

    found = app.control().subscriptions
    if name not in found:
        raise NotFoundError(
            f"No subscription '{name}' is attached, so nothing was sent that could be compared."
            f"{did_you_mean(name, found)} Show what it would make: backbone subscription preview {file}"
        )
    return found[name]


def _basis(app: App, attached: AttachedSubscription) -> tuple[Subscription | None, Ledger | None]:
    """The attached version as it can be made again, and the ledger; what is missing of both is said. Raises
    RefusedError where both are."""
    from ops.changes.staleness import attached_subscription
    from schemas.errors import RefusedError

    old, ledger, no_ledger = None, None, ""
    try:
        ledger = app.ledger()
    except RefusedError as error:
        no_ledger = str(error)
    if ledger is not None and not ledger.exists:
        ledger, no_ledger = None, "The ledger is empty: no worker has written to it yet."
    try:
        old = attached_subscription(app, attached)
    except RefusedError as error:
        if ledger is None:
            raise RefusedError(f"There is nothing to compare with. {no_ledger} {error}") from None
        app.screen.warn(f"Only names of fields and hashes can be compared: {error}")
    if ledger is None:
        app.screen.warn(f"Compared with what the attached version makes, not with what was sent. {no_ledger}")
    return old, ledger


def _apart(attached: AttachedSubscription, old: Subscription | None, new: Subscription) -> list[str]:
    """What differs between the versions beside what is asked of the vendor."""
    from dataclasses import asdict

    assert attached.definition is not None
    words = []
    if attached.definition.version == new.version:
        words.append(f"{new.name}@{new.version} is the version that is attached.")
    if attached.definition.connection != new.connection:
        words.append(f"It sends to {new.connection}, no longer to {attached.definition.connection}.")
    topics = sorted(set(new.topics) - set(attached.definition.topics))
    if topics:
        words.append(f"Not looked at: {', '.join(topics)}, which the attached version does not read.")
    if old is not None and old.policies != new.policies:
        before, after = asdict(old.policies), asdict(new.policies)
        names = ", ".join(name for name in after if before[name] != after[name])
        words.append(f"Policies that are not the same, and are not compared: {names}.")
    return words


class _Report:
    """The run as a document, and as a person reads it."""

    def __init__(
        self, app: App, attached: AttachedSubscription, new: Subscription, has_ledger: bool, has_old: bool, begin: str,
        total: int,
    ) -> None:  # fmt: skip
        assert attached.definition is not None
        self._app, self._begin, self._has_ledger = app, begin, has_ledger
        self._head = {
            "subscription": new.name,
            "attached": attached.definition.version,
            "version": new.version,
            "compared_with": "receipts" if has_ledger else "attached version",
            "fields_known": has_old,
            "from": begin,
            "offsets": total,
        }

    def show(self, tally: Any, *, complete: bool, share_max: Any) -> None:
        from ops.shadow.tally import percent

        data = {
            **self._head,
            "complete": complete,
            "records": tally.records,
            "events": tally.events,
            "compared": tally.compared,
            "different_percent": None if tally.share is None else percent(tally.share),
            "max_different_percent": None if share_max is None else float(share_max * 100),
            "by_event": tally.by_event(),
            "differences": tally.by_place(),
            "not_compared": dict(tally.why),
        }
        self._app.screen.document("subscription.shadow", data, self._drawn)

    def _drawn(self, data: Any) -> list[Any]:
        from ops.shadow.difference import CAUSES
        from ops.shadow.tally import NOT_COMPARED
        from ops.wording import counted

        if not data["events"]:
            return [f"{counted(data['records'], 'record')} read, none of them for {data['subscription']}"]
        share = "none could be compared" if data["compared"] == 0 else f"{data['different_percent']:g}% differ"
        parts: list[Any] = [
            f"{data['subscription']}@{data['version']} against {data['compared_with']} of @{data['attached']}: "
            f"{counted(data['events'], 'event')}, {data['compared']:,} compared, {share}",
            self._app.screen.table(data["by_event"], BY_EVENT),
        ]
        if data["differences"]:
            rows = [
                {
                    "event": (one["event"] or "?").rpartition(".")[2],
                    "result": one["result"].replace("_", " "),
                    "place": one["place"],
                    "cause": CAUSES[one["cause"]],
                    "events": one["events"],
                    "share": f"{one['share']:g}%",
                    "example": _example(one["examples"][0]),
                }
                for one in data["differences"]
            ]
            columns = [Column(name) for name in ("event", "result", "place", "cause", "events", "share", "example")]
            parts += ["", self._app.screen.table(rows, columns)]
        if data["not_compared"]:
            parts += [
                "",
                *(f"{counted(count, 'event')} {NOT_COMPARED[why]}" for why, count in data["not_compared"].items()),
            ]
        return parts

    def advise(self, path: Any, tally: Any) -> None:
        name, screen = self._head["subscription"], self._app.screen
        screen.say("No vendor was asked and nothing was written.")
        if self._head["version"] != self._head["attached"]:
            screen.say(f"Switch to it: backbone subscription attach {path} (and back: attach the old file so)")
        if self._has_ledger and tally.count("different"):
            again = f"backbone replay {name} --from {self._begin} --only changed"
            screen.say(f"Once it is attached, send again what would be sent otherwise: {again}")


def _example(one: Any) -> str:
    from ops.wording import plain_json

    if one["was"] is None and one["now"] is None:
        return str(one["origin"])
    return f"{one['origin']}: {plain_json(one['was'])} -> {plain_json(one['now'])}"
