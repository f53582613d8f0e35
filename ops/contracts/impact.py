"""Who would be hurt by a change of contracts: what differs, joined with who reads it here.

A registry cannot know this: a field with a default may be removed by every rule of Avro, and the mapping that sends it
to a vendor sends nothing from then on. What somebody reads is not removed, renamed or retyped: it is refused with the
names of those who read it. A mapping that is changed in the same commit reads it no longer, and then it may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ops.catalog.readers import Reader, overlaps, readers_of
from ops.contracts.former import Former
from schemas.contract import Contract, Contracts
from schemas.difference import Difference, differences
from schemas.findings import Finding, Severity

if TYPE_CHECKING:
    from consumers.subscription import Subscription
    from ops.app import App


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One subscription file and what it reads. ``stops``: why it could not be loaded with the contracts as they are
    now (then ``readers`` is what it reads of them as they were); None: it is loaded."""

    subscription: Subscription
    readers: tuple[Reader, ...]
    stops: Finding | None = None

    @property
    def who(self) -> str:
        return f"{self.subscription.name} ({self.subscription.owner})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """An event and what it was, newest knowledge of each kind (git, registry). ``now`` None: its file is gone."""

    name: str
    file: str
    now: Contract | Former | None
    formers: tuple[Former, ...]
    differing: tuple[tuple[Difference, str], ...] = field(default=())
    """each difference with the formers it is seen against, in words"""


def changed(name: str, file: str, now: Contract | Former | None, formers: Sequence[Former]) -> Changed:
    """The differences of an event from each of its formers, one that is seen against several said once."""
    said: dict[str, tuple[Difference, list[str]]] = {}
    for one in formers:
        for difference in differences(one.schema, now.schema) if now is not None else ():
            said.setdefault(f"{difference.path}: {difference}", (difference, []))[1].append(one.said)
    return Changed(
        name=name,
        file=file,
        now=now,
        formers=tuple(formers),
        differing=tuple((difference, " and ".join(names)) for difference, names in said.values()),
    )


def readings(app: App, old: Contracts, new: Contracts) -> list[Reading]:
    """Every subscription file here, with what it reads; of events that are gone, what it read of the old ones. A file
    that is wrong with the old contracts too is left out and said on the screen. Executes the tests of files with
    projections."""
    from consumers.subscription import check_subscription

    gone = set(old) - set(new)
    found = []
    for name, path in app.subscription_files().items():
        now, findings = check_subscription(path, contracts=new, connections=app.connection_types)
        then = None
        if now is None or gone:
            then, _ = check_subscription(path, contracts=old, connections=app.connection_types)
        loaded = now or then
        if loaded is None:
            app.screen.warn(f"{path} has errors and is left out: backbone subscription check {name}")
            continue
        readers = readers_of(app, loaded, new if now is not None else old)
        if now is not None and then is not None:
            readers += [reader for reader in readers_of(app, then, old) if reader.event in gone]
        stops = None if now is not None else next(one for one in findings if one.severity == "error")
        found.append(Reading(subscription=loaded, readers=tuple(readers), stops=stops))
    return found


def impact(changes: Iterable[Changed], read: Sequence[Reading]) -> list[Finding]:
    """What these changes do to those who read the events. Pure."""
    findings = [finding for one in changes for finding in _of(one, read)]
    for reading in read:
        if reading.stops is not None:
            message = f"{reading.who} could not be loaded any more: {reading.stops.message}"
            findings.append(
                Finding(
                    file=reading.stops.file,
                    path=reading.stops.path,
                    line=reading.stops.line,
                    rule="subscription-breaks",
                    message=message,
                )
            )
    return findings


def deprecated_readers(contract: Contract, read: Sequence[Reading]) -> list[Finding]:
    """Who still reads an event that has an end, one warning with all their names."""
    who = [one.who for one in read if contract.name in one.subscription.routes]
    if contract.status != "deprecated" or not who:
        return []
    until = f"ends on {contract.sunset}" if contract.sunset else "is deprecated"
    instead = f": read {contract.replaced_by} instead" if contract.replaced_by else ""
    message = f"it {until} and is still read by {listed(who)}{instead}."
    return [Finding(file=contract.file, path="/backbone/sunset", rule="deprecated-read", message=message,
                    severity="warning")]  # fmt: skip


def _of(one: Changed, read: Sequence[Reading]) -> Iterator[Finding]:
    mine = [(reading, reader) for reading in read for reader in reading.readers if reader.event == one.name]
    if one.now is None:
        said = " and ".join(former.said for former in one.formers)
        if mine:
            who = listed([reading.who for reading, _ in mine])
            message = f"{one.name} was in {said} and has no file any more, and is read by {who}."
            yield Finding(file=one.file, path="", rule="event-read", message=message)
        else:
            message = f"{one.name} was in {said} and has no file any more; nobody here reads it."
            yield Finding(file=one.file, path="", rule="impact", message=message, severity="notice")
        return
    for difference, since in one.differing:
        yield from _difference(one, difference, since, mine)


def _difference(
    one: Changed, difference: Difference, since: str, mine: Sequence[tuple[Reading, Reader]]
) -> Iterator[Finding]:
    what = f"since {since} {difference}"
    touching = [(reading, reader) for reading, reader in mine if reader.touches(difference.path)]
    who = listed([reads(reader, difference.path) for _, reader in touching])
    everybody = listed([reading.who for reading, _ in mine])
    match difference.kind:
        case "removed" | "renamed" | "retyped" if touching:
            yield _finding(one, difference, "field-read", f"{what}, and it is read by {who}.", "error")
        case "removed" | "renamed" | "retyped":
            yield _finding(one, difference, "impact", f"{what}; nobody here reads it.", "notice")
        case "promise" if difference.what in ("topic", "key") and mine:
            because = (
                "their workers go on in the old topic"
                if difference.what == "topic"
                else "events of one thing would be in two partitions, and their order is lost"
            )
            message = f"{what}, and the event is read by {everybody}: {because}."
            yield _finding(one, difference, "promise-read", message, "error")
        case "promise" if difference.what in ("topic", "key"):
            yield _finding(one, difference, "impact", f"{what}; nobody here reads the event.", "notice")
        case "promise" if difference.what == "entity" and mine:
            message = f"{what}: vendors know what {everybody} delivered by the old one, unless the routes say it."
            yield _finding(one, difference, "impact", message, "warning")
        case "symbols" | "loosened" if touching:
            message = f"{what}: look whether the mapping of {who} can take it."
            yield _finding(one, difference, "impact", message, "warning")
        case "tightened":
            message = f"{what}: other values are rejected at publishing; who reads it is not harmed."
            yield _finding(one, difference, "impact", message, "notice")
        case "personal_data" if difference.after is not None:
            yield from _personal(one, difference, what, touching)


def _personal(
    one: Changed, difference: Difference, what: str, touching: Sequence[tuple[Reading, Reader]]
) -> Iterator[Finding]:
    denied = [
        (reading, reader)
        for reading, reader in touching
        if difference.after not in reading.subscription.personal_data_allowed
    ]
    # a mapping that lets ``allowed`` pick its fields leaves this one out; all others break
    broken = [pair for pair in denied if pair[0].stops is not None or pair[1].how != "parsed"]
    silent = [pair for pair in denied if pair not in broken and _sends(pair[1], difference.path)]
    if broken:
        who = listed([reads(reader, difference.path) for _, reader in broken])
        names = listed([reading.subscription.name for reading, _ in broken])
        message = f"{what}, and it is read by {who}, not allowed there: add it to personal_data.allow of {names}."
        yield _finding(one, difference, "personal-data-read", message, "error")
    if silent:
        who = listed([reads(reader, difference.path) for _, reader in silent])
        yield _finding(one, difference, "impact", f"{what}: it would be left out of what {who} sends.", "warning")


def _sends(reader: Reader, path: str) -> bool:
    """Whether it reaches the vendor; a condition only looks at it."""
    return any(
        place != "where" and any(overlaps(one, path) for one in fields) for place, fields in reader.reads.items()
    )


def _finding(one: Changed, difference: Difference, rule: str, message: str, severity: Severity) -> Finding:
    return Finding(file=one.file, path=difference.path, rule=rule, message=message, severity=severity)


def reads(reader: Reader, path: str) -> str:
    """Who a reader is and where what it reads goes: ``crm-contacts (team-revops: body.coupon)``."""
    if reader.how == "parsed":
        whole = any("" in fields for fields in reader.reads.values())
        places = [place for place, fields in reader.reads.items() if any(overlaps(one, path) for one in fields)]
        where = "all of it" if whole else ", ".join(sorted(places))
    else:
        files = ", ".join(reader.projections)
        if reader.how == "recorded":
            events = f"{reader.events:,} event{'s' if reader.events != 1 else ''}"
            where = f"{files}, seen in {events}, last on {reader.on}"
        else:
            where = f"{files}, which nobody has run: it may read anything it is allowed"
    return f"{reader.subscription} ({reader.owner}: {where})"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, each once."""
    once = list(dict.fromkeys(names))
    return " and ".join([", ".join(once[:-1]), once[-1]] if len(once) > 1 else once)
