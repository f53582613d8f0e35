"""What the consuming side states (``consumers/facts.py``), turned into metrics and log lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.connector import Delivered, Outcome
from connectors.exchanges import Exchange
from consumers import facts
from ops.watch import metrics
from ops.watch.logs import LineBudget, logger
from ops.watch.tally import Deliveries
from schemas.traceparent import trace_id_of

Kind = TypeVar("Kind", bound=Counter | Histogram)


class Observation:
    """An observer: call it with every fact. It counts in ``registry`` (one of its own by default) and logs.

    Quick (about 1 µs a settled delivery), thread-safe, and never raises: a fact it
    cannot take is counted nowhere and logged once a second at most. Log lines go where ``ops.watch.logs.configure``
    says.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        of = self.registry
        self._reasons = metrics.Reasons()
        self._deliveries = Deliveries()
        of.register(self._deliveries)
        self._held = _Children(metrics.counter(metrics.DELIVERIES_HELD, of).labels)
        self._calls = _Children(metrics.counter(metrics.CALLS, of).labels)
        self._call_seconds = _Children(metrics.histogram(metrics.CALL_SECONDS, of).labels)
        self._not_kept = _Children(metrics.counter(metrics.CALLS_NOT_KEPT, of).labels)
        self._not_ours = _Children(metrics.counter(metrics.NOT_OURS, of).labels)
        self._dead_letters = _Children(metrics.counter(metrics.DEAD_LETTERS, of).labels)
        self._letters_closed = _Children(metrics.counter(metrics.DEAD_LETTERS_CLOSED, of).labels)
        self._receipts = _Children(metrics.counter(metrics.RECEIPTS, of).labels)
        self._rebalances = _Children(metrics.counter(metrics.REBALANCES, of).labels)
        self._not_drained = _Children(metrics.counter(metrics.NOT_DRAINED, of).labels)
        self._commit_failures = _Children(metrics.counter(metrics.COMMIT_FAILURES, of).labels)
        self._slow = _Children(metrics.counter(metrics.SLOW_PROJECTIONS, of).labels)
        self._connection_state = metrics.states(metrics.CONNECTION_STATE, of)
        self._subscription_state = metrics.states(metrics.SUBSCRIPTION_STATE, of)
        self._partitions = metrics.gauge(metrics.PARTITIONS, of)
        self._lanes_held = metrics.gauge(metrics.LANES_HELD, of)
        self._oldest = metrics.gauge(metrics.OLDEST_UNFINISHED, of)
        self._keys_parked = metrics.gauge(metrics.KEYS_PARKED, of)
        self._quotas = _Quotas()
        of.register(self._quotas)
        self._connections: set[str] = set()
        self._owned: dict[str, set[tuple[str, int]]] = {}
        self._log = logger()
        self._delivered_lines = LineBudget()
        self._failed_lines = LineBudget()
        self._parked_lines = LineBudget()
        self._slow_lines = LineBudget(5)
        self._fault_lines = LineBudget(1)
        self._takes: dict[type, Callable[[Any], None]] = {
            facts.DeliverySettled: self._delivery_settled,
            facts.DeliveryHeld: self._delivery_held,
            facts.RecordsNotOurs: self._records_not_ours,
            facts.CallMade: self._call_made,
            facts.DeadLettered: self._dead_lettered,
            facts.DeadLetterClosed: self._dead_letter_closed,
            facts.KeyParked: self._key_parked,
            facts.KeyUnparked: self._key_unparked,
            facts.ReceiptsWritten: self._receipts_written,
            facts.ConnectionPaused: self._connection_paused,
            facts.ConnectionOpened: self._connection_opened,
            facts.ConnectionHalfOpen: self._connection_half_open,
            facts.ConnectionHeld: self._connection_held,
            facts.ConnectionStopped: self._connection_stopped,
            facts.ConnectionResumed: self._connection_resumed,
            facts.SubscriptionStarted: self._subscription_started,
            facts.SubscriptionNotStarted: self._subscription_not_started,
            facts.SubscriptionStopped: self._subscription_stopped,
            facts.SubscriptionLeft: self._subscription_left,
            facts.CaughtUp: self._caught_up,
            facts.PastFolded: self._past_folded,
            facts.PastSent: self._past_sent,
            facts.PartitionsAssigned: self._partitions_assigned,
            facts.PartitionsRevoked: self._partitions_revoked,
            facts.CommitFailed: self._commit_failed,
            facts.SlowProjection: self._slow_projection,
        }

    def __call__(self, fact: facts.Fact) -> None:
        """Take one fact in, from any thread."""
        try:
            self._takes[type(fact)](fact)
        except Exception as error:  # noqa: BLE001  an observer must not end what it observes
            if (left_out := self._fault_lines.take()) is not None:
                self._log.error("fact_not_taken", fact=type(fact).__name__, exc_info=error, left_out=left_out)

    def follow(
        self,
        subscription: str,
        *,
        lanes_held: Callable[[], int],
        oldest_s: Callable[[], float],
        keys_parked: Callable[[], int] | None = None,
    ) -> None:
        """Ask these on every scrape (in the scraping thread, so they must be quick and thread-safe): how many lanes
        are held, how old in seconds the oldest unfinished record is (0: none), and how many keys are parked."""
        self._lanes_held.labels(subscription).set_function(lanes_held)
        self._oldest.labels(subscription).set_function(oldest_s)
        if keys_parked is not None:
            self._keys_parked.labels(subscription).set_function(keys_parked)

    def follow_connection(self, connection: str, *, quota_used: Callable[[], float | None]) -> None:
        """Show this connection from now on (closed until a fact says otherwise), and ask on every scrape, like
        ``follow``, which part of its quota is used; None: it is not known, and no series is shown."""
        self._connection_state.labels(connection)
        self._connections.add(connection)
        self._quotas.of[connection] = quota_used

    def calls_not_kept(self, connection: str, reason: str, count: int) -> None:
        """So many calls are missing in the call log."""
        self._not_kept.of(connection, reason).inc(count)

    def _delivery_settled(self, fact: facts.DeliverySettled) -> None:
        # the one fact that comes for every event: see ops/watch/tally.py
        outcome, age_s = fact.outcome, fact.age_seconds
        is_delivered = type(outcome) is Delivered
        word, reason = ("delivered", "") if is_delivered else (outcome_word(outcome), self._reason(outcome))
        self._deliveries.add(
            (fact.subscription, fact.connection, fact.action, fact.event, word, reason),
            fact.seconds,
            age_s if age_s > 0 else 0.0,
        )
        if not is_delivered:
            self._log.debug(
                "delivery_settled",
                subscription=fact.subscription,
                action=fact.action,
                event_type=fact.event,
                outcome=word,
                reason=reason,
                attempts=fact.attempts,
            )

    def _delivery_held(self, fact: facts.DeliveryHeld) -> None:
        self._held.of(
            fact.subscription, fact.connection, fact.action, outcome_word(fact.outcome), self._reason(fact.outcome)
        ).inc()

    def _records_not_ours(self, fact: facts.RecordsNotOurs) -> None:
        self._not_ours.of(fact.subscription).inc(fact.count)

    def _call_made(self, fact: facts.CallMade) -> None:
        outcome = word_of(fact.outcome)
        self._calls.of(fact.connection, fact.action, outcome).inc()
        self._call_seconds.of(fact.connection).observe(fact.seconds)
        if fact.connection not in self._connections:
            # so that a connection that never had trouble shows as closed instead of not at all
            self._connections.add(fact.connection)
            self._connection_state.labels(fact.connection)
        delivered = fact.outcome in ("Delivered", "NotThere")
        left_out = (self._delivered_lines if delivered else self._failed_lines).take()
        if left_out is None:
            return
        line: dict[str, Any] = {
            "subscription": fact.subscription,
            "connection": fact.connection,
            "action": fact.action,
            "outcome": outcome,
            "deliveries": fact.deliveries,
            "seconds": round(fact.seconds, 4),
            "attempt": fact.attempt,
            "idempotency_key": fact.idempotency_key,
            "trace_id": trace_id_of(fact.traceparent),
            **_over_http(fact.exchanges),
        }
        if fact.is_look_up:
            line["look_up"] = True
        if left_out:
            line["left_out"] = left_out
        (self._log.info if delivered else self._log.warning)("vendor_called", **line)

    def _dead_lettered(self, fact: facts.DeadLettered) -> None:
        reason = self._reasons.label(fact.reason)
        self._dead_letters.of(fact.subscription, fact.outcome, reason).inc()
        if fact.outcome == "parked":
            # as many as its key has events: the error is the letter that they wait for
            if (left_out := self._parked_lines.take()) is not None:
                self._log.info("event_parked", subscription=fact.subscription, origin=fact.origin, left_out=left_out)
            return
        self._log.error(
            "dead_lettered",
            subscription=fact.subscription,
            event_type=fact.event,
            origin=fact.origin,
            outcome=fact.outcome,
            reason=reason,
        )

    def _dead_letter_closed(self, fact: facts.DeadLetterClosed) -> None:
        self._letters_closed.of(fact.subscription, fact.how).inc()
        self._log.info("dead_letter_closed", subscription=fact.subscription, origin=fact.origin, how=fact.how)

    def _key_parked(self, fact: facts.KeyParked) -> None:
        # by its origin: what the key is may be personal data
        self._log.warning("key_parked", subscription=fact.subscription, origin=fact.origin)

    def _key_unparked(self, fact: facts.KeyUnparked) -> None:
        self._log.info("key_unparked", subscription=fact.subscription, origin=fact.origin)

    def _receipts_written(self, fact: facts.ReceiptsWritten) -> None:
        self._receipts.of(fact.subscription).inc(fact.count)

    def _connection_opened(self, fact: facts.ConnectionOpened) -> None:
        self._connection_state.labels(fact.connection).state("open")
        self._log.warning(
            "connection_opened", connection=fact.connection, reason=fact.reason, seconds=round(fact.seconds, 1)
        )

    def _connection_half_open(self, fact: facts.ConnectionHalfOpen) -> None:
        self._connection_state.labels(fact.connection).state("half_open")
        self._log.info("connection_half_open", connection=fact.connection)

    def _connection_held(self, fact: facts.ConnectionHeld) -> None:
        self._connection_state.labels(fact.connection).state("paused")
        self._log.warning("connection_held", connection=fact.connection, reason=fact.reason)

    def _connection_paused(self, fact: facts.ConnectionPaused) -> None:
        self._connection_state.labels(fact.connection).state("paused")
        self._log.warning(
            "connection_paused", connection=fact.connection, reason=fact.reason, seconds=round(fact.seconds, 1)
        )

    def _connection_stopped(self, fact: facts.ConnectionStopped) -> None:
        self._connection_state.labels(fact.connection).state("stopped")
        self._log.critical("connection_stopped", connection=fact.connection, reason=fact.reason)

    def _connection_resumed(self, fact: facts.ConnectionResumed) -> None:
        self._connection_state.labels(fact.connection).state("closed")
        self._log.info("connection_resumed", connection=fact.connection)

    def _subscription_started(self, fact: facts.SubscriptionStarted) -> None:
        self._subscription_state.labels(fact.subscription).state("running")
        self._log.info("subscription_started", subscription=fact.subscription, version=fact.version)

    def _subscription_not_started(self, fact: facts.SubscriptionNotStarted) -> None:
        self._subscription_state.labels(fact.subscription).state("not_started")
        self._log.error("subscription_not_started", subscription=fact.subscription, reason=fact.reason)

    def _subscription_stopped(self, fact: facts.SubscriptionStopped) -> None:
        self._subscription_state.labels(fact.subscription).state("stopped")
        self._log.critical("subscription_stopped", subscription=fact.subscription, reason=fact.reason)

    def _subscription_left(self, fact: facts.SubscriptionLeft) -> None:
        self._subscription_state.labels(fact.subscription).state("left")
        self._own(fact.subscription, set())
        self._log.info("subscription_left", subscription=fact.subscription, reason=fact.reason)

    def _caught_up(self, fact: facts.CaughtUp) -> None:
        partition = "/".join(map(str, fact.place))
        self._log.info("caught_up", subscription=fact.subscription, partition=partition, handed_over_at=fact.until)

    def _past_folded(self, fact: facts.PastFolded) -> None:
        partition = "/".join(map(str, fact.place))
        self._log.info(
            "past_folded", subscription=fact.subscription, partition=partition, events=fact.events,
            deliveries=fact.deliveries,
        )  # fmt: skip

    def _past_sent(self, fact: facts.PastSent) -> None:
        partition = "/".join(map(str, fact.place))
        self._log.info(
            "past_sent", subscription=fact.subscription, partition=partition, deliveries=fact.deliveries,
            unfolded=fact.unfolded,
        )  # fmt: skip

    def _partitions_assigned(self, fact: facts.PartitionsAssigned) -> None:
        self._rebalances.of(fact.subscription).inc()
        self._own(fact.subscription, self._owned.get(fact.subscription, set()) | set(fact.partitions))
        self._log.info("partitions_assigned", subscription=fact.subscription, partitions=in_short(fact.partitions))

    def _partitions_revoked(self, fact: facts.PartitionsRevoked) -> None:
        self._own(fact.subscription, self._owned.get(fact.subscription, set()) - set(fact.partitions))
        if not fact.drained:
            self._not_drained.of(fact.subscription).inc()
        (self._log.info if fact.drained else self._log.warning)(
            "partitions_revoked",
            subscription=fact.subscription,
            partitions=in_short(fact.partitions),
            drained=fact.drained,
        )

    def _commit_failed(self, fact: facts.CommitFailed) -> None:
        reason = self._reasons.label(fact.reason)
        self._commit_failures.of(fact.subscription, reason).inc()
        self._log.warning("commit_failed", subscription=fact.subscription, reason=reason)

    def _slow_projection(self, fact: facts.SlowProjection) -> None:
        self._slow.of(fact.subscription, fact.event).inc()
        if (left_out := self._slow_lines.take()) is not None:
            self._log.warning(
                "slow_projection",
                subscription=fact.subscription,
                event_type=fact.event,
                seconds=round(fact.seconds, 3),
                left_out=left_out,
            )

    def _own(self, subscription: str, partitions: set[tuple[str, int]]) -> None:
        # facts of one subscription come from one thread, so nobody else replaces the set meanwhile
        self._owned[subscription] = partitions
        self._partitions.labels(subscription).set(len(partitions))

    def _reason(self, outcome: Outcome) -> str:
        return "" if type(outcome) is Delivered else self._reasons.label(getattr(outcome, "reason", ""))


def told_to(*observers: facts.Observer) -> facts.Observer:
    """One observer that tells each of these, in this order. None of them may raise."""
    if len(observers) == 1:
        return observers[0]

    def tell(fact: facts.Fact) -> None:
        for observe in observers:
            observe(fact)

    return tell


class _Quotas(Collector):
    """The gauge of used quotas. A connection whose quota is not known has no series: 0 would be a lie, and NaN would
    spoil sums."""

    def __init__(self) -> None:
        self.of: dict[str, Callable[[], float | None]] = {}

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for connection, quota_used in list(self.of.items()):
            used = quota_used()
            if used is not None:
                family.add_metric([connection], used)
        return [family]

    @staticmethod
    def _family() -> GaugeMetricFamily:
        metric = metrics.QUOTA_USED
        return GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)


class _Children(Generic[Kind]):
    """A metric with its label children at hand: a dictionary look-up instead of the library's validation and lock."""

    __slots__ = ("_children", "_make")

    def __init__(self, make: Callable[..., Kind]) -> None:
        self._make = make
        self._children: dict[tuple[str, ...], Kind] = {}

    def of(self, *labels: str) -> Kind:
        child = self._children.get(labels)
        if child is None:
            # two threads may both come here: the library gives both the same child
            child = self._children[labels] = self._make(*labels)
        return child


def in_short(partitions: Iterable[tuple[str, int]]) -> str:
    """Topic-partitions for a line of text: ``accounts.users:0-5,7 billing.invoices:0``."""
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    return " ".join(f"{topic}:{','.join(_runs(numbers))}" for topic, numbers in topics.items())


def _runs(numbers: list[int]) -> list[str]:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first}" if first == last else f"{first}-{last}" for first, last in runs]


def _over_http(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    """What a log line says of the exchanges of a call: of the last one where it went and how it ended, the bytes of
    all. A vendor that is not asked by HTTP has none of it."""
    if not exchanges:
        return {}
    last = exchanges[-1]
    said: dict[str, Any] = {"method": last.method, "endpoint": last.endpoint, "status": last.status}
    if last.failed:
        said["failed"] = last.failed
    said["sent_bytes"] = sum(one.sent_bytes for one in exchanges)
    said["received_bytes"] = sum(one.received_bytes for one in exchanges)
    if len(exchanges) > 1:
        said["requests"] = len(exchanges)
    return said


_WORDS: dict[str, str] = {}


def outcome_word(outcome: Outcome) -> str:
    """``retry_later`` for RetryLater, as metrics, log lines and spans say it."""
    return word_of(type(outcome).__name__)


def word_of(name: str) -> str:
    """The same of the class's name."""
    word = _WORDS.get(name)
    if word is None:
        word = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
        if len(_WORDS) < 100:
            _WORDS[name] = word
    return word
