"""``backbone event``: publish events by hand or from a file, follow them, look at one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ops.app import App, screen_options
from schemas.errors import (
    BackboneError,
    InputError,
    NotAllowedError,
    NotFoundError,
    PartlyDoneError,
    RefusedError,
    UnreachableError,
)

if TYPE_CHECKING:
    from ops.publishing import Done
    from producers.publisher import Acknowledgement
    from schemas.contract import Contract

SOURCE = "backbone/cli"


@click.group()
def event() -> None:
    """Publish and read events."""


@event.command()
@click.argument("event_type", metavar="TYPE")
@click.option("--data", metavar="JSON", help="The payload of one event, a JSON object.")
@click.option("--file", "path", metavar="PATH", help="JSON lines, one payload a line; - for standard input.")
@click.option("--source", default=SOURCE, show_default=True, help="Who says it; part of the event's identity.")
@click.option("--id", "identity", metavar="ID", help="With --data: the event's id; the same id is the same event.")
@click.option("--repeatable", is_flag=True, help="With --file: ids made of line number and content, so that publishing "
              "the file again is harmless.")  # fmt: skip
@click.option("--from-line", type=click.IntRange(1), default=1, metavar="N", help="With --file: begin at this line.")
@click.option("--dry-run", is_flag=True, help="Check everything, publish nothing.")
@click.option("--yes", is_flag=True, help="Do not ask in a production context.")
@screen_options
@click.pass_obj
def publish(
    app: App,
    event_type: str,
    data: str | None,
    path: str | None,
    source: str,
    identity: str | None,
    repeatable: bool,
    from_line: int,
    dry_run: bool,
    yes: bool,
) -> None:
    """Publish one event (--data) or many (--file).

    TYPE is an event's name, billing.InvoiceCreated or InvoiceCreated. Times are ISO 8601 (2026-05-01T09:30:00Z),
    dates 2026-05-31, decimals and UUIDs text, bytes base64. A file is checked whole before its first event is
    published; standard input is checked line by line. Publishing stops at the first line that fails and says how to
    go on.

    JSON: event, topic, and of one event id, partition, offset; of a file published, seconds, rate.
    """
    if (data is None) == (path is None):
        raise InputError("Give either --data or --file.")
    if identity is not None and path is not None:
        raise InputError("--id is for one event; for a file there is --repeatable.")
    if data is not None and (repeatable or from_line > 1):
        raise InputError("--repeatable and --from-line are for a file.")
    from ops.event_log import contract_of

    contract = contract_of(app, event_type)
    if data is not None:
        _publish_one(app, contract, data, source=source, identity=identity, dry_run=dry_run, yes=yes)
    else:
        assert path is not None
        _publish_file(app, contract, path, source, repeatable=repeatable, first=from_line, dry_run=dry_run, yes=yes)


def _publish_one(
    app: App, contract: Contract, text: str, *, source: str, identity: str | None, dry_run: bool, yes: bool
) -> None:
    from ops.publishing import by_cause, parse_object
    from schemas.datum import from_json

    try:
        data = from_json(contract, parse_object(text))
    except InputError as error:
        raise InputError(f"--data: {str(error).rstrip('.')}.") from None
    _cluster_has(app, contract)
    try:
        app.encoder.encode(contract, data, id=identity or "check", source=source, time=_now())
    except InputError as error:
        raise InputError(f"--data: {error}") from None
    if dry_run:
        app.screen.document(
            "event.checked",
            {"event": contract.name, "valid": 1},
            lambda _: f"The event fits {contract.name}. Nothing was published (--dry-run).",
        )
        return
    _ask(app, f"Publish {contract.name} to {contract.topic}?", yes)
    future = app.publisher().publish_data(contract, data, source=source, id=identity)
    try:
        ack: Acknowledgement = future.result(_WITHIN_S)
    except TimeoutError:
        raise UnreachableError(
            f"Kafka has not confirmed the event within {_WITHIN_S:.0f} s; it may be in the log or not. "
            "Publish it again with the same --id, or look for it: backbone event tail"
        ) from None
    except BackboneError as error:
        raise by_cause(error) from None
    found = {"event": contract.name, "topic": ack.topic, "partition": ack.partition, "offset": ack.offset, "id": ack.id}
    app.screen.document(
        "event.published", found, lambda _: f"{ack.topic}/{ack.partition}/{ack.offset}  {contract.name}  {ack.id}"
    )


def _publish_file(
    app: App, contract: Contract, path: str, source: str, *, repeatable: bool, first: int, dry_run: bool, yes: bool
) -> None:
    from ops.files import named_file
    from ops.publishing import Interrupted, LineError, check_line, publish_lines, read_lines

    can_be_read_twice = path != "-" and named_file(Path(path)).is_file()  # a pipe cannot
    _cluster_has(app, contract)
    app.encoder.prepare(contract)
    total: int | None = None
    if can_be_read_twice or dry_run:
        total = 0
        try:
            with _opened(path) as stream:
                for line in read_lines(stream, contract, from_line=first):
                    check_line(app.encoder, contract, line)
                    total += 1
        except LineError as error:
            raise InputError(f"{error} Nothing was published.") from None
        if total == 0:
            raise InputError(f"{path} holds no event{f' from line {first:,} on' if first > 1 else ''}.")
        if dry_run:
            app.screen.document(
                "event.checked",
                {"event": contract.name, "valid": total},
                lambda _: f"{_events(total)} of {contract.name}, all valid. Nothing was published (--dry-run).",
            )
            return
    _ask(app, f"Publish {_events(total)} of {contract.name} to {contract.topic}?", yes)
    began = time.monotonic()
    with app.screen.progress(total) as progress, _opened(path) as stream:
        try:
            done = publish_lines(
                app.publisher(),
                contract,
                read_lines(stream, contract, from_line=first),
                source=source,
                is_repeatable=repeatable,
                advance=progress.advance,
            )
        except Interrupted as interrupted:
            done = interrupted.done
            app.interrupted = f"Interrupted: {_events(done.acked)} published. Go on with --from-line {done.next_line}"
            raise
    if done.failures:
        raise _broken_off(done, first)
    if done.acked == 0:
        raise InputError(f"{'Standard input' if path == '-' else path} holds no event.")
    seconds = max(time.monotonic() - began, 1e-6)
    found = {
        "event": contract.name,
        "topic": contract.topic,
        "published": done.acked,
        "seconds": round(seconds, 3),
        "rate": round(done.acked / seconds),
    }
    app.screen.document(
        "event.published",
        found,
        lambda _: f"{_events(done.acked)} of {contract.name} published to {contract.topic} ({found['rate']:,}/s)",
    )


def _broken_off(done: Done, first: int) -> BackboneError:
    """What to say of a file that was not published to its end: what stands in the log, and how to go on."""
    number, error = done.failures[0]
    sentence = str(error) if str(error).startswith("Line ") else f"Line {number:,}: {error}"
    if len(done.failures) > 1:
        others = ", ".join(f"{line:,}" for line, _ in done.failures[1:6])
        more = ", …" if len(done.failures) > 6 else ""
        sentence += f" {len(done.failures) - 1:,} more failed too (line {others}{more})."
    if done.acked == 0:
        is_certain = not any(isinstance(one, UnreachableError) for _, one in done.failures)
        kind = next((kind for kind in _KINDS if isinstance(error, kind)), RefusedError)
        return kind(f"{sentence} Nothing was published." if is_certain else sentence)
    if done.next_line is None and done.acked == number - first and done.failures[-1][0] - number < len(done.failures):
        advice = f"Go on with --from-line {number}"  # all before it stands there, nothing after it
    elif done.next_line is None or done.next_line > number:
        rest = "" if done.next_line is None else f", then go on with --from-line {done.next_line}"
        advice = f"Publish what failed by itself{rest}."
    elif isinstance(error, UnreachableError):
        advice = f"Go on with --from-line {done.next_line}"
    else:
        advice = f"Correct it and go on with --from-line {done.next_line}"
    return PartlyDoneError(f"{sentence} {_events(done.acked)} published and acknowledged. {advice}")


@event.command()
@click.argument("name", metavar="TOPIC|EVENT")
@click.option("--from", "start", default="latest", show_default=True, metavar="POSITION",
              help="earliest latest 1234 @14:00 @-2h; +10 counts from the beginning, -1000 from the end.")  # fmt: skip
@click.option("--max", "at_most", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--no-follow", is_flag=True, help="End at what is the end now.")
@click.option("--key", metavar="KEY", help="Only records with this key.")
@click.option("--where", metavar="EXPR", help='Only events for which it is true: "data.total_minor > 100000".')
@screen_options
@click.pass_obj
def tail(
    app: App, name: str, start: str, at_most: int | None, no_follow: bool, key: str | None, where: str | None
) -> None:
    """Show events as they come, payloads masked by their personal-data classes. Ctrl-C ends it.

    TOPIC may name partitions, billing.invoices:0,3-5; EVENT is an event type, whose topic is read. Reads by assignment:
    no group, nothing is committed.

    JSON: topic, partition, offset, arrived, type, id, source, time, key, data, bytes, problem.
    """
    from ops.event_log import decoded, follow, holds, places_of, row, starts_at
    from ops.screen import Column
    from schemas.event import Event

    contract, places = places_of(app, name)
    starts = starts_at(app, start, places)
    condition = None if where is None else holds(where, contract)
    wanted_key = None if key is None else key.encode()

    def rows() -> Iterator[dict[str, Any]]:
        count = 0
        for record in follow(app, starts, until_end=no_follow):
            if wanted_key is not None and record.key != wanted_key:
                continue
            found = decoded(app, record)
            if contract is not None and (not isinstance(found, Event) or found.type != contract.name):
                continue
            if condition is not None and not (isinstance(found, Event) and condition(found)):
                continue
            count += 1
            app.interrupted = f"Stopped after {_events(count)[:-5]}."
            yield row(app, record, found)
            if count == at_most:
                return

    app.interrupted = "Stopped; nothing came."
    columns = [Column("arrived"), Column("topic"), Column("type"), Column("key"), Column("data"), Column("problem")]
    app.screen.stream("event", rows(), columns, line=_line)


@event.command()
@click.argument("place", metavar="TOPIC/P/OFFSET|ID")
@click.option(
    "--in", "where", metavar="TOPIC|EVENT", help="With an ID: look only here; default: every contract's topic."
)
@click.option("--from", "start", metavar="POSITION",
              help="With an ID: look from here; default: when a UUIDv7 was made, else @-24h.")  # fmt: skip
@click.option("--scan-max", type=click.IntRange(1), default=100_000, show_default=True, metavar="N",
              help="With an ID: look at so many records at most.")  # fmt: skip
@screen_options
@click.pass_obj
def get(app: App, place: str, where: str | None, start: str | None, scan_max: int) -> None:
    """Show one event: by its place (billing.invoices/3/17 or billing.invoices:3:17), or by its id.

    By id, records are read until it is found, --scan-max of them at most. The payload is masked by its personal-data
    classes.

    JSON: as of tail, and subject, correlation_id, causation_id, traceparent where there are any.
    """
    from ops.event_log import decoded, find, read_one, row

    origin = _origin(place)
    if origin is not None:
        record = read_one(app, *origin)
        found = decoded(app, record)
    else:
        record, found = find(app, place, where=where, start=start, scan_max=scan_max)
    app.screen.document("event", row(app, record, found), _in_full)


_WITHIN_S = 130.0
_KINDS = (InputError, NotAllowedError, NotFoundError, RefusedError, UnreachableError)


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _events(count: int | None) -> str:
    """``1 event``, ``2,000 events``; with a verb where something was done to them."""
    return "events" if count is None else "1 event" if count == 1 else f"{count:,} events"


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    from ops.files import file_error, named_file

    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = named_file(Path(path)).open("rb")
    except OSError as error:
        raise file_error(error, path) from None
    with stream:
        yield stream


def _ask(app: App, question: str, yes: bool) -> None:
    if app.context.production and not app.screen.confirm(question, yes=yes):
        raise RefusedError("Nothing was published.")


def _cluster_has(app: App, contract: Contract) -> None:
    """Say at once what Kafka's client would say after its timeouts."""
    from ops.reading import partition_count

    try:
        partition_count(app, contract.topic)
    except NotFoundError:
        raise NotFoundError(
            f"The cluster has no topic '{contract.topic}'. Create it: backbone schema register {contract.name}"
        ) from None


def _origin(text: str) -> tuple[str, int, int] | None:
    import re

    found = re.fullmatch(r"([A-Za-z0-9._-]{1,249})([/:])(\d{1,6})\2(\d{1,18})", text, re.ASCII)
    return None if found is None else (found[1], int(found[3]), int(found[4]))


def _line(row: Any) -> str:
    from ops.screen import plain_json, shown

    place = f"{row['topic']}/{row['partition']}/{row['offset']}"
    if row["problem"] is not None:
        return f"{shown(row['arrived'])}  {place}  {row['problem']} ({row['bytes'] or 0:,} bytes)"
    return f"{shown(row['arrived'])}  {place}  {row['type']}  {row['key'] or '-'}  {plain_json(row['data'])}"


def _in_full(row: Any) -> str:
    from ops.screen import plain_json, shown

    envelope = {"place": f"{row['topic']}/{row['partition']}/{row['offset']}", **row}
    for name in ("topic", "partition", "offset", "data"):
        envelope.pop(name)
    lines = [f"{name:<14}  {shown(value)}" for name, value in envelope.items() if value is not None]
    return "\n".join([*lines, plain_json(row["data"], indent=2)] if row["data"] is not None else lines)
