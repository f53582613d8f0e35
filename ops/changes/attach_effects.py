"""What attaching one subscription means, in sentences and in figures: what it reads and under which contracts, what may
leave, what it catches up with and what that takes, whether everything is kept long enough, who may run it.

Reads the cluster, the registry and some events; changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ops.changes.attach_survey import (
    ERASED,
    EXPIRED,
    REFUSED,
    SENT,
    WAITS,
    Effort,
    Survey,
    effort,
    expires_before,
    look,
)
from ops.changes.plan import JsonValue
from ops.changes.structure import structure
from ops.wording import counted, duration, plain_json
from schemas.errors import BackboneError

if TYPE_CHECKING:
    from connectors.pacing import Quota
    from consumers.subscription import Subscription
    from ops.acls import Binding
    from ops.app import App
    from ops.lag.cluster import Cluster, Place
    from ops.topics import TopicState
    from schemas.contract import Contract

OUTAGE = timedelta(days=3)
"""How long an outage may last before source retention takes events away (delivery.md G10)."""
EXAMPLE_WIDTH = 160
AGES = 8
"""In so many parts of a topic's retention it is asked how many events are older."""


@dataclass(slots=True)
class Effects:
    """``sentences`` for people, ``figures`` the same and more for programs, ``warnings`` what should be looked at, and
    ``severe``: what needs ``--confirm``."""

    sentences: list[str] = field(default_factory=list)
    figures: dict[str, JsonValue] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    severe: str = ""


def contracts(app: App, subscription: Subscription, effects: Effects) -> None:
    """Owner, promise and registered version of every event that is read."""
    rows = [_contract(app, contract) for _, contract in sorted(subscription.contracts.items())]
    effects.figures["contracts"] = rows
    for row in rows:
        known = row["version"] is not None
        version = f"version {row['version']} of the registry" if known else "not registered as it stands here"
        if known and row["newest"] != row["version"]:
            version += f", the newest there is {row['newest']}"
        sunset = f", published until {row['sunset']}" if row["sunset"] else ""
        effects.sentences.append(
            f"contract {row['event']}: {'version not known' if row['registry'] == 'away' else version}, {row['status']}"
            f"{sunset}, of {row['owner']}, promised within {duration(timedelta(seconds=row['freshness_slo_s']))}"
        )
        if not known and row["registry"] != "away":
            effects.warnings.append(
                f"{row['event']} as it stands here is no version of the registry: what producers send may differ. See: "
                f"backbone schema check {row['event']} --registry"
            )
    if any(row["registry"] == "away" for row in rows):
        effects.warnings.append("Which versions are registered is not known: the registry does not say.")


def _contract(app: App, contract: Contract) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = {
        "event": contract.name,
        "topic": contract.topic,
        "owner": contract.owner,
        "status": contract.status,
        "sunset": None if contract.sunset is None else contract.sunset.isoformat(),
        "freshness_slo_s": contract.freshness_slo.total_seconds(),
        "version": None,
        "newest": None,
        "registry": "asked",
    }
    try:
        here, newest = app.registry.lookup(contract.subject, contract.text), app.registry.latest(contract.subject)
    except BackboneError:  # whatever it is: an attach needs no registry, the plan only tells of it
        return row | {"registry": "away"}
    return row | {
        "version": None if here is None else here.version,
        "newest": None if newest is None else newest.version,
    }


def personal_data(subscription: Subscription, effects: Effects) -> None:
    """Which classes may leave and do, and which the events carry that do not."""
    allowed = sorted(subscription.personal_data_allowed)
    carried = {
        one.personal_data
        for contract in subscription.contracts.values()
        for one in contract.fields.values()
        if one.personal_data is not None and one.personal_data != "none"
    }
    kept = sorted(carried - set(allowed))
    routes = {route.place: route for found in subscription.routes.values() for route in found}
    sent = sorted({name for route in routes.values() for classes in route.carried.values() for name in classes})
    effects.figures["personal_data"] = {
        "allowed": allowed, "sent": sent, "kept_back": kept, "purpose": subscription.purpose,
    }  # fmt: skip
    purpose = f", to: {subscription.purpose}" if allowed and subscription.purpose else ""
    stays = f"; kept back: {', '.join(kept)}" if kept else ""
    effects.sentences.append(
        f"personal data that may leave: {', '.join(allowed) if allowed else 'none'}{purpose}{stays}"
    )


def side_by_side(subscription: Subscription, sources: Mapping[str, TopicState], effects: Effects) -> None:
    """That every source and the inbox have one partition count; attach refuses otherwise, so it is said, not asked."""
    count = next(iter(sources.values())).partitions
    topics = [*sources, subscription.inbox_topic]
    effects.figures["co_partitioned"] = {"partitions": count, "topics": topics}
    effects.sentences.append(f"read side by side, {counted(count, 'partition')} each: {', '.join(topics)}")


def connection(app: App, subscription: Subscription, effects: Effects) -> None:
    """What the vendor's structure would have to become; a warning where the connection cannot be used from here (the
    workers may know its credentials)."""
    known = app.context.connections.get(subscription.connection)
    if known is None:
        return
    try:
        settings = known.settings(subscription.connector)
    except BackboneError as error:
        effects.warnings.append(f"{subscription.name} cannot start with what this machine knows: {error}")
        return
    try:
        lines = structure(subscription, settings)
    except BackboneError as error:
        effects.warnings.append(f"What {subscription.connection} would have to become is not known: {error}")
        return
    effects.figures["structure"] = list(lines)
    effects.sentences.extend(f"{subscription.connection} would run: {line}" for line in lines)


# ---- catching up ----------------------------------------------------------------------------------------------------


def catch_up(
    app: App, cluster: Cluster, subscription: Subscription, begin: Mapping[Place, int], effects: Effects
) -> Effort:
    """What lies between the start and the hand-over to live, in events, calls and time."""
    until = {place: max(at, end) for place, end in cluster.ends(list(begin), "committed").items() for at in
             (begin[place],)}  # fmt: skip
    try:
        survey = look(app, subscription, begin, until)
    except BackboneError as error:  # not permitted, deleted meanwhile, away: it may be attached all the same
        survey = Survey(total=sum(until[place] - at for place, at in begin.items()))
        effects.warnings.append(f"What the events would become could not be looked at. {error}")
    known = app.context.connections.get(subscription.connection)
    quota = None if known is None else known.quota
    takes = effort(survey.outcome(SENT), subscription.connector.batch_max, quota)
    effects.figures["catch_up"] = figures(survey, takes, quota, until)
    effects.sentences.extend(sentences(subscription, survey, takes, quota))
    return takes


def figures(survey: Survey, takes: Effort, quota: Quota | None, until: Mapping[Place, int]) -> dict[str, JsonValue]:
    """What is caught up with, for programs. Pure."""
    return {
        "offsets": survey.total,
        "looked_at": survey.looked_at,
        "exact": survey.is_exact,
        "events": survey.events,
        "not_ours": survey.estimate(survey.not_ours),
        "sent": survey.outcome(SENT),
        "expired": survey.outcome(EXPIRED),
        "dead_letters": survey.outcome(REFUSED),
        "erased": survey.outcome(ERASED),
        "by_event": survey.plain(),
        "calls_at_least": takes.calls,
        "seconds": None if takes.seconds is None else round(takes.seconds, 1),
        "background": None if quota is None else quota.background,
        "hand_over_about": {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(until.items())},
    }


def sentences(subscription: Subscription, survey: Survey, takes: Effort, quota: Quota | None) -> Iterator[str]:
    """What is caught up with, for people. Pure."""
    connection = subscription.connection
    if not survey.total:
        yield "nothing is to be caught up with: it is live from the first event"
        return
    if not survey.looked_at:
        yield f"catch-up: {counted(survey.total, 'offset')} before the hand-over to live, which were not looked at"
        return
    about = "" if survey.is_exact else "about "
    looked = "" if survey.is_exact else f" (by a look at {survey.looked_at:,} of them, the oldest and the newest)"
    yield (
        f"catch-up: {counted(survey.total, 'offset')} before the hand-over to live{looked}; {about}"
        f"{counted(survey.events, 'event')} for it, {survey.estimate(survey.not_ours):,} records not"
    )
    for row in survey.plain():
        ends = [
            text
            for name, text in (
                (SENT, f"{row[SENT]:,} would be sent to {connection}"),
                (EXPIRED, f"{row[EXPIRED]:,} skipped, older than expire_after"),
                (REFUSED, counted(row[REFUSED], "dead letter")),
                (ERASED, f"{row[ERASED]:,} skipped, about erased persons"),
                (WAITS, f"{row[WAITS]:,} wait for a schema that the registry does not have"),
            )
            if row[name]
        ]
        name = row["event"] or "of a schema or type that cannot be read"
        yield f"  {about}{row['events']:,} {name}: {', '.join(ends) or 'none is sent'}"
        for example in row["examples"]:
            yield f"    {_shown(example)}"
    calls = f"at least {counted(takes.calls, 'call')} to {connection}"
    if subscription.policies.send == "latest":
        calls = f"{counted(takes.calls, 'call')} to {connection}, fewer where `send: latest` merges"
    if takes.seconds is None:
        yield f"{calls}; no rate is set for {connection}, so as fast as it answers"
    elif quota is not None:
        span = duration(timedelta(seconds=takes.seconds))
        yield f"{calls}: {span} at the background's part of its quota ({quota.background:.0%})"
    crash = "after a crash what was on its way may come twice"
    if subscription.connector.idempotency.kind != "none":
        crash = f"what comes again after a crash has its key, so {connection} does it once"
    yield f"live events go first, order per key holds over the hand-over, nothing is left out; {crash}"


def _shown(example: Mapping[str, Any]) -> str:
    origin = example["origin"]
    if "action" not in example:
        why = f": {example['reason']}" if example.get("reason") else ""
        return f"{origin} {example['outcome'].replace('_', ' ')}{why}"
    body = plain_json(example["body"])
    body = body if len(body) <= EXAMPLE_WIDTH else f"{body[:EXAMPLE_WIDTH]}…"
    late = "" if example["outcome"] == SENT else f" ({example['outcome']})"
    return f"{origin} {example['action']} {example['entity']} {body}{late}"


# ---- retention ------------------------------------------------------------------------------------------------------


def kept_for(state: TopicState) -> timedelta | None:
    """How long a topic keeps its records; None: for ever, by key, or not known."""
    written = state.config.get("retention.ms")
    is_number = written is not None and written.lstrip("-").isdigit()
    if not is_number or int(written or 0) < 0 or "compact" in state.config.get("cleanup.policy", ""):
        return None
    return timedelta(milliseconds=int(written or 0))


def retention(
    cluster: Cluster,
    subscription: Subscription,
    sources: Mapping[str, TopicState],
    begin: Mapping[Place, int],
    takes: Effort,
    effects: Effects,
) -> None:
    """Whether the sources keep their events longer than an outage with its retries, and longer than the catch-up."""
    rows: list[dict[str, JsonValue]] = []
    needed = subscription.policies.retry.within + OUTAGE
    for topic, state in sources.items():
        keeps = kept_for(state)
        row: dict[str, JsonValue] = {
            "topic": topic,
            "keeps_s": None if keeps is None else keeps.total_seconds(),
            "needed_s": needed.total_seconds(),
            "deleted_before_read": None,
        }
        rows.append(row)
        if keeps is None:
            continue
        if keeps < needed:
            effects.warnings.append(
                f"{topic} keeps events for {duration(keeps)} only; an outage of {duration(OUTAGE)} and the retries of "
                f"{subscription.name} need {duration(needed)}."
            )
        of_topic = {place: at for place, at in begin.items() if place[0] == topic}
        if takes.seconds is None or not of_topic:
            continue
        gone = row["deleted_before_read"] = _expiring(cluster, of_topic, keeps.total_seconds(), takes.seconds)
        if gone:
            span = duration(timedelta(seconds=takes.seconds))
            effects.severe = f"about {gone:,} events of {topic} are deleted before they are read"
            effects.warnings.append(
                f"About {counted(gone, 'event')} of {topic} would be deleted before {subscription.name} has read them: "
                f"catching up takes {span}, and {topic} keeps events for {duration(keeps)}. It would stop there. Begin "
                f"later (--from @time), give {subscription.connection} more rate or background, or keep them longer."
            )
    effects.figures["retention"] = rows


def _expiring(cluster: Cluster, begin: Mapping[Place, int], keeps_s: float, takes_s: float) -> int:
    ends = cluster.ends(list(begin), "committed")
    total = sum(max(0, ends[place] - at) for place, at in begin.items())
    if not total or takes_s < keeps_s / AGES / 4:
        return 0  # what could expire meanwhile is less than is worth asking for
    now = datetime.now(UTC).timestamp()
    ages: list[tuple[float, int]] = []
    for part in range(AGES):
        age_s = keeps_s * part / AGES
        found = cluster.at_times(dict.fromkeys(begin, round((now - age_s) * 1000)), "committed")
        older = sum(
            max(0, (ends[place] if found[place][0] < 0 else found[place][0]) - at) for place, at in begin.items()
        )
        ages.append((age_s, older))
    return expires_before(ages, total, keeps_s, takes_s)


# ---- permissions ----------------------------------------------------------------------------------------------------


def permissions(app: App, subscription: Subscription, effects: Effects) -> None:
    """Who may run it, by the cluster's ACLs."""
    from ops.acls import bindings
    from ops.wording import in_context

    try:
        found = bindings(app)
    except BackboneError as error:
        effects.figures["permissions"] = {"known": False, "why": str(error), "allowed": [], "lacking": {}}
        effects.warnings.append(f"Who may run {subscription.name} is not known: {error}")
        return
    figures, sentence, warning = who_may_run(subscription, found)
    effects.figures["permissions"] = figures
    effects.sentences.append(sentence)
    if warning:
        effects.warnings.append(in_context(warning, app.screen.context))


def who_may_run(subscription: Subscription, found: Sequence[Binding] | str) -> tuple[dict[str, JsonValue], str, str]:
    """Figures, a sentence and a warning (empty: none). Pure."""
    from ops.acls import standing
    from ops.permissions import permissions as needed

    if isinstance(found, str):
        open_ = found == "no authorizer"
        why = "the cluster has no authorizer: everybody may do everything" if open_ else (
            "cannot be known: these credentials may not see the cluster's ACLs"
        )  # fmt: skip
        return {"known": open_, "why": why, "allowed": [], "lacking": {}}, f"permissions: {why}", ""
    name = subscription.name
    stands = standing(needed("worker", [], {name: subscription.topics}), found)
    lacking = {} if stands.nearest is None else {stands.nearest[0]: list(stands.nearest[1])}
    figures = {"known": True, "why": "", "allowed": list(stands.allowed), "lacking": lacking}
    if stands.allowed:
        return figures, f"permissions: a worker may run it as {', '.join(stands.allowed)}", ""
    nearest = "" if stands.nearest is None else f" {stands.nearest[0]} lacks {', '.join(stands.nearest[1])}."
    warning = (
        f"Nobody but a super user may run {name}.{nearest} What a worker needs: backbone topic acls worker --principal "
        "User:NAME"
    )
    return figures, "permissions: nobody but a super user may run it", warning
