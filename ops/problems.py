"""A problem as people see it, and the case that problems are found in. Pure data; ``ops/diagnosis.py`` finds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ops.wording import duration

if TYPE_CHECKING:
    from consumers.control import AttachedSubscription
    from consumers.heartbeat import Held, SubscriptionView
    from ops.connections import ConnectionStatus
    from ops.deadletters import Found
    from ops.lag.attached import Header
    from ops.lag.measure import GroupLag
    from ops.origins import Standing
    from ops.watch.heartbeats import Beat
    from schemas.contract import Contract

Kind: TypeAlias = Literal[
    "stopped", "connection_stopped", "records_lost", "no_position", "topic_missing", "dead_topic_missing",
    "cannot_run", "nobody_reads", "circuit_open", "connection_held", "behind", "partitions_unread", "key_held",
    "age_unknown", "not_measured", "credentials", "connection_paused", "quota", "slow_projection", "keys_parked",
    "dead_letters", "catching_up", "not_read_yet", "reads_ending", "paused", "asked_to_leave", "not_seen", "no_worker",
    "stalled", "at_risk", "transaction_open",
]  # fmt: skip

WORST_FIRST: tuple[Kind, ...] = (
    "stopped", "connection_stopped", "records_lost", "no_position", "topic_missing", "dead_topic_missing", "cannot_run",
    "at_risk", "nobody_reads", "circuit_open", "stalled", "transaction_open", "behind", "partitions_unread", "key_held",
    "age_unknown", "not_measured", "credentials", "connection_paused", "quota", "slow_projection", "keys_parked",
    "dead_letters", "catching_up", "not_read_yet", "reads_ending", "connection_held", "paused", "asked_to_leave",
    "not_seen", "no_worker",
)  # fmt: skip

HOLDING: Mapping[Kind, str] = {
    "stopped": "stopped",
    "paused": "paused",
    "asked_to_leave": "a change",
    "cannot_run": "cannot run",
    "nobody_reads": "no worker",
    "connection_stopped": "connection stopped",
    "connection_held": "connection paused by a person",
    "circuit_open": "open circuit",
    "connection_paused": "waits for the vendor",
    "quota": "vendor quota",
    "key_held": "held key",
    "keys_parked": "parked key",
    "slow_projection": "slow projection",
    "catching_up": "catching up",
}
"""Problems that keep events from being delivered now, in the words of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, or that a person should know. ``subject`` is a subscription, a connection or a topic;
    ``cause`` a sentence; ``age_s`` since when, where that is known; ``command`` the next thing to type.

    The rest is there where it says something: ``subscriptions`` that it concerns (of a connection), the ``origin`` of
    the oldest record that is held, its ``key`` (masked) and how many records ``waiting`` behind it; ``until`` when it
    ends by itself, and ``eta_s`` the seconds until level."""

    kind: Kind
    subject: str
    cause: str
    age_s: float | None
    owner: str
    command: str
    subscriptions: tuple[str, ...] = ()
    origin: str | None = None
    key: str | None = None
    waiting: int | None = None
    until: datetime | None = None
    eta_s: float | None = None

    def concerns(self, subscription: str) -> bool:
        return self.subject == subscription or subscription in self.subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What living workers say of one subscription. ``is_blind``: it has members, and none of them is heard;
    ``silent_s``: for how long nobody was (None: nobody ever was)."""

    views: tuple[tuple[Beat, SubscriptionView], ...] = ()
    is_blind: bool = False
    silent_s: float | None = None

    @property
    def records_per_s(self) -> float | None:
        """Finished by all of them together; None without any."""
        return sum(view.records_per_s for _, view in self.views) if self.views else None

    @property
    def folding(self) -> str:
        """How far the past is folded (``attach --fold``); empty when it is not, or not any more."""
        read, to_read = (sum(getattr(view, f"fold_{n}") for _, view in self.views) for n in ("read", "to_read"))
        sent, to_send = (sum(getattr(view, f"fold_{n}") for _, view in self.views) for n in ("sent", "to_send"))
        if not to_read:
            return ""
        if read < to_read:
            return f"folding the past: {read:,} of {to_read:,} offsets read, {sent:,} deliveries sent"
        return f"sending what was folded: {sent:,} of {to_send:,} deliveries"

    @property
    def held(self) -> list[Held]:
        """The keys that are held, as far as they are named, the oldest first."""
        return sorted((one for _, view in self.views for one in view.held), key=lambda one: one.since)

    @property
    def parked(self) -> list[Held]:
        return sorted((one for _, view in self.views for one in view.parked), key=lambda one: one.since)

    @property
    def held_total(self) -> int:
        return sum(max(view.held_total, len(view.held)) for _, view in self.views)

    @property
    def parked_keys(self) -> int:
        return sum(max(view.parked_keys, len(view.parked)) for _, view in self.views)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything known of one attached subscription. ``dead`` None: it has no dead topic. ``standing``: records that
    the workers named, by their origin. ``produced_per_s``: offsets written of late in what it reads, where asked."""

    attached: AttachedSubscription
    header: Header
    group: GroupLag
    dead: Found | None
    not_read_yet: tuple[str, ...]
    ending: tuple[Contract, ...] = ()
    """deprecated events among those it reads"""
    sight: Sight = Sight()
    connection: ConnectionStatus | None = None
    standing: Mapping[str, Standing] = field(default_factory=dict)
    produced_per_s: float | None = None

    @property
    def catch_up_left(self) -> int:
        """Offsets before the hand-over position of its attach that are not committed yet."""
        untils = {place: start.until for place, start in self.attached.starts.items() if start.until is not None}
        return sum(
            max(0, untils.get((one.topic, one.partition), 0) - one.offsets.counted_from)
            for one in self.group.partitions
        )

    @property
    def catch_up_s(self) -> float | None:
        """Seconds until it is handed over to live, by the pace of its workers; None where that is not known."""
        pace = self.sight.records_per_s
        return self.catch_up_left / pace if pace else None

    @property
    def eta_s(self) -> float | None:
        """Seconds until level, by the pace of its workers, or of its group over the last minutes where that is known;
        None where it is unknown or does not get closer."""
        pace = (self.sight.records_per_s or 0.0) - (self.produced_per_s or 0.0)
        if self.produced_per_s is None or pace <= 0:
            return self.group.eta_s
        return self.group.lag / pace


def problem(case: Case, kind: Kind, cause: str, command: str, age_s: float | None = None, **more: Any) -> Problem:
    """A problem of this case's subscription."""
    return Problem(
        kind=kind,
        subject=case.attached.name,
        cause=cause,
        age_s=None if age_s is None else round(age_s, 3),
        owner=case.header.owner,
        command=command,
        **more,
    )


def worst_first(problems: Iterable[Problem]) -> list[Problem]:
    """By kind, then by age, the oldest first."""
    return sorted(problems, key=lambda one: (WORST_FIRST.index(one.kind), -(one.age_s or 0), one.subject))


def since_s(at: str, now: datetime) -> float | None:
    """Seconds from a written time (UTC where it does not say) to now; None for what is no time."""
    try:
        then = datetime.fromisoformat(at)
    except ValueError:
        return None
    return max(0.0, (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds())


def as_text(problem: Problem) -> str:
    """A problem for people: three lines, the last is what to type."""
    age = "" if problem.age_s is None else f"  {duration(timedelta(seconds=problem.age_s))}"
    owner = f"  {problem.owner}" if problem.owner else ""
    title = problem.kind.replace("_", " ").upper()
    return f"{title}  {problem.subject}{age}{owner}\n    {problem.cause}\n    -> {problem.command}"
