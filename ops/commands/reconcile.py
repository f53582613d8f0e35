"""``backbone reconcile run | show | repair``: what was published, delivered and is at the vendor, held side by side."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from ops.changes.run import change_options
from ops.screen import Column

if TYPE_CHECKING:
    from ops.reconcile.result import Result

KINDS = (
    "receipt_missing", "letter_missing", "unaccounted", "overcounted", "missing", "different", "extra",
)  # fmt: skip
SHOWN = 20
ROWS = [
    Column("kind"), Column("count"), Column("what"), Column("fields"), Column("expected"), Column("found"),
    Column("reference", "VENDOR'S ID"), Column("why"),
]  # fmt: skip
PLAN = [Column("action"), Column("about"), Column("difference"), Column("things"), Column("events")]
STAGES = {
    "delivered": "delivered",
    "merged": "merged into a newer one",
    "expired": "skipped: too old",
    "erased": "skipped: of an erased person",
    "superseded": "skipped: newer values were there",
    "discarded": "discarded by a person",
    "dead": "open dead letter",
    "not_ours": "not for this subscription",
    "waiting": "waiting to be delivered",
    "twice": "published a second time",
    "not_known": "older than the ledger",
    "receipt_missing": "nothing says what became of it",
    "letter_missing": "dead letter that is not there",
}


@click.group(no_args_is_help=True)
def reconcile() -> None:
    """Hold side by side what was published, what the ledger says, and what the vendor has."""


@reconcile.command()
@click.argument("name")
@click.option("--from", "start", default="earliest", show_default=True, metavar="POSITION",
              help="From here: earliest 1234 -1000 @time; - counts from the committed position.")  # fmt: skip
@click.option("--to", "end", metavar="POSITION", help="Up to here, without it, and without asking the vendor.")
@click.option("--vendor/--no-vendor", default=None, help="Ask the vendor what it has; default: where it can be asked.")
@click.option("--extra/--no-extra", default=True, show_default=True,
              help="Also list everything of ours at the vendor, to find what is too much there.")  # fmt: skip
@screen_options
@click.pass_obj
def run(app: App, name: str, start: str, end: str | None, vendor: bool | None, extra: bool) -> None:
    """Count what became of every record of NAME, and compare the vendor's state with what it should have.

    It reads and changes nothing; exit 3 if something differs. The topics are read without a group; the vendor is asked
    page by page, as background and with a part of the quota. What newer events are about, or what an open dead letter
    may have changed, is not judged. The result is kept on this machine; values that carry a personal-data class are
    masked.

    JSON: id, subscription, version, published, holes, stages (records by what became of them), differences (by kind),
    vendor, places (one a partition), said, rows (the first differences).
    """
    from ops.changes.attach_plan import attached_named
    from ops.positions import parse_position
    from ops.reconcile.run import reconcile as reconciled

    now = datetime.now(UTC)
    begin, until = parse_position(start, now), None if end is None else parse_position(end, now)
    app.interrupted = "Interrupted. Nothing was changed and nothing stored."
    result = reconciled(app, attached_named(app.control(), name), begin, until, vendor=vendor, extra=extra)
    app.interrupted = ""
    _shown(app, result, (), SHOWN)


@reconcile.command()
@click.argument("which", metavar="[ID|NAME]", required=False)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only such; may be repeated.")
@click.option("--limit", type=click.IntRange(0, 1_000_000), default=100, show_default=True, help="At most so many.")
@screen_options
@click.pass_obj
def show(app: App, which: str | None, kinds: tuple[str, ...], limit: int) -> None:
    """The result ID, the last one of the subscription NAME, or the last of all, with its differences.

    Exit 3 if something differed. JSON: as reconcile run.
    """
    from ops.reconcile.result import ResultStore

    _shown(app, ResultStore.of(app).named(which), kinds, limit)


@reconcile.command()
@click.argument("which", metavar="ID|NAME")
@click.option("--rate", metavar="N/s", help="At most so many a second; default: as the workers take them.")
@click.option("--wait", type=click.FloatRange(0, 3600), default=30.0, show_default=True, metavar="SECONDS",
              help="Report when nothing has come of any event for so long.")  # fmt: skip
@change_options
@screen_options
@click.pass_obj
def repair(
    app: App, which: str, rate: str | None, wait: float, apply: bool, yes: bool, reason: str | None, confirm: str | None
) -> None:
    """Deliver again what the vendor lacks, or has otherwise, by the result ID or the last one of NAME (a change).

    The events that said the newest values of what differs go through the inbox, behind live ones and with their part of
    the quota, each with those fields alone and under an idempotency key of its own. What newer events are about by then
    is left out. What is too much at the vendor stays there: a person decides.
    """
    from ops.changes import run_change
    from ops.changes.repair_plan import repair_plan
    from ops.changes.steering import parse_rate
    from ops.reconcile.result import ResultStore

    result = ResultStore.of(app).named(which)
    plan = repair_plan(app, result, rate=0.0 if rate is None else parse_rate(rate), wait_s=wait)
    run_change(app, plan, apply=apply, yes=yes, reason=reason, confirm=confirm, columns=PLAN)


# ---- inside ---------------------------------------------------------------------------------------------------------


def _shown(app: App, result: Result, kinds: tuple[str, ...], limit: int) -> None:
    """Show a result. Raises CheckFailedError where something differs."""
    from dataclasses import asdict
    from itertools import islice

    from ops.reconcile.result import ResultStore
    from schemas.errors import CheckFailedError

    rows = [one.plain() for one in islice(ResultStore.of(app).rows(result, kinds), limit)]  # type: ignore[arg-type]
    for row in rows:
        del row["subject"]
    hidden = {"salt", "rows_sha256", "read_to"}
    data = {name: value for name, value in asdict(result).items() if name not in hidden}
    data |= {"from": data.pop("begin"), "to": data.pop("end"), "agrees": result.agrees, "rows": rows}
    app.screen.document("reconcile", data, lambda found: _drawn(app, found))
    for sentence in _advice(result):
        app.screen.say(sentence)
    if not result.agrees:
        found = ", ".join(f"{count:,} {kind}" for kind, count in result.differences.items() if count)
        raise CheckFailedError(f"{result.subscription} does not agree: {found} ({result.id}).")


def _drawn(app: App, data: dict[str, Any]) -> list[Any]:
    from ops.wording import counted, shown

    where = f"from {data['from']}" if data["to"] is None else f"from {data['from']} to {data['to']}"
    parts: list[Any] = [
        f"{data['id']}  {data['subscription']}@{data['version']}, {where}, looked at {shown(data['at'])}",
        f"{counted(data['published'], 'record')} published ({data['holes']:,} offsets without one), "
        f"{data['proved']:,} of them counted by the workers, too",
        app.screen.table(
            [{"records": data["stages"][stage], "became": words} for stage, words in STAGES.items()
             if data["stages"][stage]],
            [Column("records"), Column("became")],
        ),
    ]  # fmt: skip
    parts += [f"{sentence}." for sentence in data["said"]]
    parts += _of_vendor(data)
    if data["rows"]:
        parts += ["", app.screen.table([_row(row) for row in data["rows"]], ROWS)]
        total = sum(data["differences"].values())
        if total > sum(row["count"] for row in data["rows"]):
            parts.append(f"{total:,} in all: backbone reconcile show {data['id']} --limit 100000")
    return parts


def _of_vendor(data: dict[str, Any]) -> list[str]:
    from ops.wording import counted

    vendor, name = data["vendor"], data["connection"]
    if not vendor["compared"]:
        return [f"{name} was not compared: {vendor['why']}."]
    lines = [f"{name}: {counted(vendor['entities'], 'thing')} asked for, {vendor['equal']:,} as expected."]
    unknown = [
        f"{vendor[field]:,} {words}"
        for field, words in (
            ("in_motion", "with events on their way"), ("open_letter", "behind an open dead letter"),
            ("erased", "erased for a person"), ("unreadable", "that the vendor cannot be asked for"),
        )
        if vendor[field]
    ]  # fmt: skip
    if unknown:
        lines.append(f"Not judged: {', '.join(unknown)}.")
    if vendor["extra_why"] is not None:
        lines.append(f"What is too much there is not known: {vendor['extra_why']}.")
    else:
        lines.append(f"{counted(vendor['listed'], 'thing')} of ours are there.")
    older = vendor["before"] + vendor["others"]
    if older:
        lines.append(
            f"{counted(older, 'thing')} there may come from events that were not read (deleted, or of another "
            "subscription), so nobody can say whether they are too much."
        )
    return lines


def _row(row: dict[str, Any]) -> dict[str, Any]:
    from ops.wording import plain_json

    if row["topic"] is not None:
        at = f"{row['topic']}/{row['partition']}/{row['start']}"
        what = at if row["end"] == row["start"] + 1 else f"{at} to {row['end']}"
    else:
        what = " ".join(part for part in (row["action"], row["about"], row["entity"]) if part)
    fields = row["fields"]
    return {
        "kind": row["kind"],
        "count": row["count"],
        "what": what,
        "fields": [field["name"] for field in fields],
        "expected": ", ".join(plain_json(field["expected"]) for field in fields) or None,
        "found": ", ".join(plain_json(field["found"]) for field in fields) or None,
        "reference": row["reference"],
        "why": row["why"],
    }


def _advice(result: Result) -> list[str]:
    name, differences = result.subscription, result.differences
    found = ["Nothing was changed."]
    if result.repairable:
        found.append(f"Deliver again what is missing or different: backbone reconcile repair {result.id}")
    if differences["receipt_missing"]:
        found.append(
            "Of some events nothing says what became of them. Send them again, under their first keys: "
            f"backbone replay {name} --from earliest --only missing"
        )
    if differences["letter_missing"]:
        found.append(
            f"Dead letters are gone from {name}.dead. Send their events again: "
            f"backbone replay {name} --from earliest --only failed"
        )
    if differences["unaccounted"] or differences["overcounted"]:
        found.append(
            "The counts of some committed ranges are not those of the topic: see which with "
            f"backbone reconcile show {result.id} --kind unaccounted --kind overcounted"
        )
    if differences["extra"]:
        found.append(
            "What is too much at the vendor is never deleted by this. Look there by the vendor's id: delete it by "
            "hand, or publish the event that it lacks."
        )
    return found
