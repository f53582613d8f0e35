"""The plan of a redrive: which letters are sent again, in which order, and what is left where it is and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ops.changes import letters
from ops.changes.attach_plan import attached_named
from ops.changes.letters import LETTERS_MAX, REDRIVES_MAX, Choice, chunk_name, chunks
from ops.changes.orders import grown_topics, inbox_partitions, standing_json, waiting_in_inbox
from ops.changes.plan import Plan, new_plan
from ops.changes.staleness import Guard, Verdict, attached_subscription, guarded_actions
from ops.dead_topic import DeadTopic, Standing
from ops.lag.cluster import Cluster
from ops.wording import are, counted, duration
from schemas.errors import NotFoundError, RefusedError

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.subscription import Policies
    from ops.app import App

SEVERE_LETTERS = 10_000
JUDGED_MAX = 2_000
"""So many letters are looked at for the plan; more are looked at chunk by chunk when it is applied."""
FOLLOW = "what was parked meanwhile"
OUTCOME = "see what came of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriving:
    """How letters are sent again. ``rate`` a second, 0: no limit. ``again``: also letters that failed after
    ``REDRIVES_MAX`` redrives, and such that wait in the inbox already. ``wait_s``: how long nothing may come of any
    before the report is made."""

    rate: float = 0.0
    allow_stale: bool = False
    again: bool = False
    wait_s: float = 30.0


def redrive_plan(app: App, name: str, choice: Choice, how: Redriving, *, undoes: str = "") -> Plan:
    """Resolve what was named to letters by their origins. Blocks; changes nothing. Raises NotFoundError for what is not
    there, RefusedError where nothing is left to redrive or the ledger cannot tell what is stale."""
    attached = attached_named(app.control(), name)
    assert attached.definition is not None
    inbox = inbox_partitions(app, name)
    dead = DeadTopic(app, name)
    dead.refresh()
    chosen = letters.choose(dead.open, choice, name)
    summary: list[str] = []
    chosen = _without_worn_out(chosen, how, name, summary)
    chosen = _without_gone(app, chosen, name, summary)
    policies = _policies(app, attached)
    # one that cannot be loaded here is taken to park: taking what is parked along changes nothing where nothing is
    parking = policies is None or policies.on_dead_letter == "park_key"
    if parking:
        complete = letters.with_parked(chosen, dead.open)
        if len(complete) > len(chosen):
            summary.append(f"with {counted(len(complete) - len(chosen), 'letter')} parked behind them")
        chosen = complete
    if not how.again:
        chosen = _without_waiting(app, chosen, dead, name, summary)
    if len(chosen) > LETTERS_MAX:
        summary.append(f"the first {LETTERS_MAX:,} of {len(chosen):,}; redrive the others afterwards")
        chosen = chosen[:LETTERS_MAX]
    if not chosen:
        raise RefusedError(f"Nothing is left to redrive of {name}: {'; '.join(summary)}. Nothing was changed.")
    if behind := letters.overtaking(chosen, dead.open):
        then = "parked again" if parking else "sent all the same, they overtake it"
        summary.append(f"{are(behind, 'letter')} behind an older one of the same key that is not chosen: {then}")
    summary += _expired(policies, chosen, how)
    summary += _stale(app, attached, dead, chosen, how)
    summary += running(app, attached)
    grown = grown_topics(app, attached)
    if grown:
        summary.append(f"{', '.join(grown)} has more partitions than at attach: events go where their keys go now")
    ranges = chunks(len(chosen), how.rate)
    pace = f", {how.rate:g} a second" if how.rate else ""
    calls = _calls(app, attached, len(chosen))
    title = f"redrive {counted(len(chosen), 'dead letter')} of {name}"
    return new_plan(
        app,
        kind="redrive",
        subject=name,
        title=title,
        rows=letters.causes(chosen),
        summary=[f"{are(len(chosen), 'event')} delivered again to {name} alone{pace}{calls}", *summary],
        steps=[*(chunk_name(*one) for one in ranges), *([FOLLOW] if parking else []), OUTCOME],
        preconditions={"version": attached.definition.version},
        before={"open": len(dead.open)},
        after={"sent": len(chosen)},
        details={
            "letters": [standing_json(one) for one in chosen],
            "chunks": [list(one) for one in ranges],
            "rate": how.rate,
            "allow_stale": how.allow_stale,
            "again": how.again,
            "wait_s": how.wait_s,
            "inbox_partitions": inbox,
            "grown": grown,
            "parking": parking,
        },
        severe=f"more than {SEVERE_LETTERS:,} events are delivered" if len(chosen) > SEVERE_LETTERS else "",
        undoes=undoes,
    )


# ---- what is left where it is ---------------------------------------------------------------------------------------


def _without_worn_out(chosen: list[Standing], how: Redriving, name: str, summary: list[str]) -> list[Standing]:
    worn = [one for one in chosen if one.letter.redrives >= REDRIVES_MAX]
    if not worn or how.again:
        return chosen
    summary.append(
        f"{are(len(worn), 'letter')} left out after {REDRIVES_MAX} redrives that failed; "
        f"mend what is wrong (backbone deadletter show {name}), then add --again"
    )
    return [one for one in chosen if one.letter.redrives < REDRIVES_MAX]


def _without_gone(app: App, chosen: list[Standing], name: str, summary: list[str]) -> list[Standing]:
    """Letters whose bytes were too large for the dead topic are read at their origin, as long as it is there."""
    omitted = [one for one in chosen if one.letter.omitted is not None]
    if not omitted:
        return chosen
    places = {one.letter.origin[:2] for one in omitted}
    starts = Cluster(app.admin(), app.consumer).starts(places)
    gone = {
        one.letter.origin
        for one in omitted
        if one.letter.origin.offset < starts.get(one.letter.origin[:2], one.letter.origin.offset + 1)
    }
    if gone:
        summary.append(
            f"{counted(len(gone), 'letter')} cannot be redriven: the bytes were too large for {name}.dead, and are "
            "deleted at their origin by now; they stay open until they are discarded"
        )
    return [one for one in chosen if one.letter.origin not in gone]


def _without_waiting(
    app: App, chosen: list[Standing], dead: DeadTopic, name: str, summary: list[str]
) -> list[Standing]:
    """Letters that an earlier redrive has sent and that wait in the inbox are on their way already."""
    waiting = waiting_in_inbox(app, name, dead.open)
    changes = sorted({waiting[one.letter.origin] for one in chosen if one.letter.origin in waiting})
    if changes:
        count = sum(one.letter.origin in waiting for one in chosen)
        summary.append(f"{are(count, 'letter')} in the inbox already, by {', '.join(changes)}, and left out")
    return [one for one in chosen if one.letter.origin not in waiting]


def _policies(app: App, attached: AttachedSubscription) -> Policies | None:
    """What is in force; None where the subscription cannot be loaded here."""
    try:
        return attached_subscription(app, attached).policies
    except RefusedError:
        return None


def _expired(policies: Policies | None, chosen: Sequence[Standing], how: Redriving) -> list[str]:
    """What is older than the policy takes ends as expired also when it is redriven."""
    if policies is None or policies.expire_after is None or how.allow_stale:
        return []
    oldest = (datetime.now(UTC) - policies.expire_after).timestamp() * 1000
    old = sum(one.letter.timestamp < oldest for one in chosen)
    if not old:
        return []
    return [
        f"{are(old, 'event')} older than expire_after ({duration(policies.expire_after)}): they end as expired "
        "and their letters are closed, unless they are sent with --allow-stale"
    ]


def _stale(
    app: App, attached: AttachedSubscription, dead: DeadTopic, chosen: Sequence[Standing], how: Redriving
) -> list[str]:
    """What the plan says of staleness. Raises RefusedError where it cannot be known."""
    if how.allow_stale:
        return ["sent however old they are (--allow-stale): newer values at the vendor may be overwritten"]
    subscription = attached_subscription(app, attached)
    guard = Guard(app, subscription)
    guard.check()  # also where too many are chosen to look at: better refused now than halfway
    if len(chosen) > JUDGED_MAX:
        return (
            [f"what newer deliveries have sent since is left out, {letters.CHUNK} letters at a time"]
            if guarded_actions(subscription)
            else []
        )
    found = guard.judge(letter for letter in dead.full(chosen).values() if letter.omitted is None)
    return _in_words(list(found.values()), attached)


def _in_words(verdicts: Sequence[Verdict], attached: AttachedSubscription) -> list[str]:
    count = {kind: sum(one.kind == kind for one in verdicts) for kind in ("stale", "superseded", "refused", "not_ours")}
    version = attached.definition.version if attached.definition is not None else ""
    said = []
    if count["stale"]:
        said.append(f"{are(count['stale'], 'event')} sent without fields that newer deliveries have sent since")
    if count["superseded"]:
        said.append(f"{are(count['superseded'], 'event')} superseded: newer deliveries have sent all of it")
    if count["refused"]:
        said.append(
            f"{counted(count['refused'], 'event')} would be refused again by {attached.name}@{version} itself: attach "
            "a version that can take them first"
        )
    if count["not_ours"]:
        said.append(f"{are(count['not_ours'], 'event')} taken by no route any more: their letters are closed")
    return said


def running(app: App, attached: AttachedSubscription) -> list[str]:
    """What a plan says where nobody would deliver what it sends to the inbox."""
    if attached.state.state != "running":
        return [
            f"{attached.name} is {attached.state.state}: what is sent waits in its inbox until: "
            f"backbone subscription resume {attached.name}"
        ]
    if not is_run(app, attached.name):
        return [f"nobody runs {attached.name} now: what is sent waits in its inbox until: backbone run"]
    return []


def is_run(app: App, name: str) -> bool:
    """Whether a process is a member of the subscription's group."""
    from ops.changes.group_positions import described

    return bool(described(app, name).members)


def _calls(app: App, attached: AttachedSubscription, count: int) -> str:
    assert attached.definition is not None
    connection = attached.definition.connection
    try:
        connector = app.connection_types.get(connection)
    except NotFoundError:
        connector = None
    if connector is None:
        return ""
    return f" -> at least {counted(-(-count // connector.batch_max), 'call')} to {connection}"
