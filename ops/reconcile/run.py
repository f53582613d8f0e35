"""``backbone reconcile run``: counts, the ledger against the topics, and the vendor's state against the expected one.
Reads; what it found is kept on this machine.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ops.changes.rewind_plan import chosen_places
from ops.changes.staleness import attached_subscription
from ops.lag.cluster import Cluster, Place
from ops.positions import Position, resolve
from ops.reconcile.asking import Asking, read_back_problem
from ops.reconcile.comparison import Difference, Window, of_ledger
from ops.reconcile.counting import STAGES, Account
from ops.reconcile.reading import Read, Reading, Spans, subject_of
from ops.reconcile.result import Result, ResultStore, VendorState
from ops.reconcile.vendor import Vendor
from ops.wording import counted
from schemas.errors import BackboneError, InputError, RefusedError

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Subscription
    from ops.app import App

SPOOL_BYTES: Final = 8 << 20
"""Differences held in memory before they go into a file without a name."""


def reconcile(
    app: App, attached: AttachedSubscription, begin: Position, end: Position | None, *, vendor: bool | None, extra: bool
) -> Result:
    """Look at everything and keep what was found. ``vendor``: whether the vendor is asked (None: where it can be);
    ``extra``: whether also for what is too much there. Blocks as long as it takes.

    Raises RefusedError where there is no ledger, or nothing to look at; InputError for what cannot be asked; and what
    reading a topic, the ledger or a vendor raises. Then nothing was stored."""
    assert attached.definition is not None
    if vendor and end is not None:
        raise InputError("The vendor is as it is now, so it cannot be compared up to an earlier place: leave out --to.")
    subscription = attached_subscription(app, attached)
    asking, why = (None, "not asked for") if vendor is False or end is not None else _asking(app, subscription, vendor)
    spans, said = _spans(app, attached, begin, end)
    if not spans.total:
        raise RefusedError(f"{attached.name} has no record from {begin}, so there is nothing to reconcile.")
    reading = Reading(app, attached, subscription, spans, folds=asking is not None)
    with app.screen.progress(spans.total, "records") as progress:
        read = reading.run(progress)
    try:
        return _Comparing(app, attached, subscription, spans, reading, read).result(
            asking, why, begin, end, said, extra=extra
        )
    finally:
        read.expected.close()


def _asking(app: App, subscription: Subscription, vendor: bool | None) -> tuple[Asking | None, str]:
    """The vendor, ready to be asked; None and why not, where nobody insists."""
    why = read_back_problem(subscription.connector)
    if why:
        if vendor:
            raise RefusedError(f"{why[0].upper()}{why[1:]}. Without it: --no-vendor")
        return None, why
    try:
        return Asking(app, subscription.connection, subscription.connector), ""
    except BackboneError as error:
        if vendor:
            raise
        app.screen.warn(f"The vendor's state is not compared: {error}")
        return None, str(error)


def _spans(app: App, attached: AttachedSubscription, begin: Position, end: Position | None) -> tuple[Spans, list[str]]:
    """The offsets to look at, from where the subscription began on, and what a person should know of them."""
    from ops.changes.replay_plan import behind_of

    assert attached.definition is not None
    cluster = Cluster(app.admin(), app.consumer)
    places = chosen_places(cluster, attached.name, set(attached.definition.topics), (), ours=True)
    behind = behind_of(app, attached, places)
    stands = {place: spans[0][1] if spans else 0 for place, spans in behind.items()}
    starts, ends = cluster.starts(places), cluster.ends(places, "committed")
    froms = resolve(cluster, begin, places, committed=stands, isolation="committed")
    tos = None if end is None else resolve(cluster, end, places, committed=stands, isolation="committed")
    ledger = app.ledger()
    known = ledger.known_from(attached.name) if ledger.exists else {}
    gone = before = 0
    found: dict[Place, tuple[int, int]] = {}
    for place in places:
        low, high = froms[place].offset, ends[place] if tos is None else tos[place].offset
        start = attached.starts.get(place)
        # what it never had to read is no event of it; a rewind may have taken it there all the same
        own = 0 if start is None else min(start.offset, known.get(place, start.offset))
        if begin.kind == "earliest":
            gone += max(0, starts[place] - own)
            before += max(0, min(own, high) - low)
        low = max(low, own)
        found[place] = (low, max(low, high))
    said = []
    if gone:
        said.append(f"{counted(gone, 'offset')} deleted from the topics by retention: nothing can be said of them")
    if before:
        said.append(f"{counted(before, 'offset')} from before the subscription began: not its own")
    return Spans(found), said


class _Comparing:
    """From what was read to a result."""

    def __init__(
        self,
        app: App,
        attached: AttachedSubscription,
        subscription: Subscription,
        spans: Spans,
        reading: Reading,
        read: Read,
    ) -> None:
        self._app, self._attached, self._subscription = app, attached, subscription
        self._spans, self._reading, self._read = spans, reading, read
        self._store = ResultStore.of(app)
        self._id = self._store.new_id()
        self._salt = secrets.token_hex(16)
        self._vendor = VendorState()
        self._read_to = {place: high for place, (_, high) in spans.places.items()}

    def result(
        self, asking: Asking | None, why: str, begin: Position, end: Position | None, said: list[str], *, extra: bool
    ) -> Result:
        assert self._attached.definition is not None
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            if asking is None:
                self._vendor.why = why
            else:
                vendor = self._vendor_with(lambda one: spool.write(json.dumps(one.plain()).encode() + b"\n"))
                self._vendor = vendor.state
                asyncio.run(vendor.compare(asking, extra=extra))
            spool.seek(0)
            differences, digest = self._store.write_rows(self._id, self._rows(spool, asking is not None))
        accounts = self._read.accounts
        stages = _summed(accounts.values())
        self._say(said, stages, accounts)
        result = Result(
            id=self._id,
            subscription=self._attached.name,
            version=self._attached.definition.version,
            connection=self._attached.definition.connection,
            at=datetime.now(UTC),
            begin=str(begin),
            end=None if end is None else str(end),
            published=sum(one.published for one in accounts.values()),
            holes=sum(one.holes for one in accounts.values()),
            stages=stages,
            proved=sum(one.proved for one in accounts.values()),
            uncounted=sum(one.uncounted for one in accounts.values()),
            unwanted=sum(one.unwanted for one in accounts.values()),
            places=[_place_row(place, one) for place, one in sorted(accounts.items())],
            differences=differences,
            vendor=self._vendor,
            said=said,
            read_to=[(*place, high) for place, high in sorted(self._read_to.items())],
            salt=self._salt,
            rows_sha256=digest,
        )
        self._store.save(result)
        return result

    def _vendor_with(self, keep: Callable[[Difference], object]) -> Vendor:
        """The comparison with what was read, and with other attached subscriptions of the same connection."""
        mine = self._attached.definition
        assert mine is not None
        others = {
            name: frozenset(one.definition.topics)
            for name, one in self._app.control().subscriptions.items()
            if name != self._attached.name
            and one.definition is not None
            and one.definition.connection == mine.connection
        }
        window = Window(
            spans=self._spans.places,
            whole=all(low == 0 for low, _ in self._spans.places.values()),
            since=self._read.first_at,
            readers=frozenset(topic for topics in others.values() for topic in topics),
        )
        return Vendor(
            self._subscription,
            self._read.expected,
            self._app.ledger(),
            window,
            others=others,
            salt=self._salt,
            keep=keep,
        )

    # ---- together ---------------------------------------------------------------------------------------------------

    def _rows(self, spool: Any, is_asked: bool) -> Iterator[Difference]:
        """What does not add up, then what differs at the vendor, but for what something was on its way to meanwhile."""
        for place, account in sorted(self._read.accounts.items()):
            for found in sorted(account.findings, key=lambda one: (one.start, one.end)):
                yield of_ledger(place, found)
        if not is_asked:
            return
        cluster = Cluster(self._app.admin(), self._app.consumer)
        ends = cluster.ends(list(self._spans.places), "committed")
        newer = Spans({place: (high, max(high, ends[place])) for place, (_, high) in self._spans.places.items()})
        touched = {subject_of(key, self._salt) for key in self._reading.touched(newer)}
        for line in spool:
            content = json.loads(line)
            if content["subject"] in touched:
                self._vendor.in_motion += 1
                continue
            yield Difference(**content | {"fields": tuple(content["fields"]), "send": tuple(content["send"])})

    def _say(self, said: list[str], stages: Mapping[str, int], accounts: Mapping[Place, Account]) -> None:
        if stages["not_known"]:
            said.append(
                f"{counted(stages['not_known'], 'record')} older than the ledger: whether delivered is not known"
            )
        if stages["twice"]:
            said.append(f"{counted(stages['twice'], 'record')} published a second time: the receipt is about the other")
        unwanted = sum(one.unwanted for one in accounts.values())
        if unwanted:
            said.append(f"{counted(unwanted, 'record')} with a receipt that the attached version asks nothing for")
        uncounted = sum(one.uncounted for one in accounts.values())
        if uncounted:
            said.append(
                f"{counted(uncounted, 'record')} in no whole range that workers counted (a rewind, the edge of what "
                "was asked for, or older than the ledger): told by receipts alone"
            )


def _summed(accounts: Iterable[Account]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in accounts:
        total.update(one.stages)
    return {stage: total[stage] for stage in STAGES}


def _place_row(place: Place, one: Account) -> dict[str, Any]:
    return {
        "topic": place[0], "partition": place[1], "from": one.low, "to": one.high, "published": one.published,
        "holes": one.holes, **{stage: one.stages[stage] for stage in STAGES}, "proved": one.proved,
        "uncounted": one.uncounted, "unwanted": one.unwanted,
    }  # fmt: skip
