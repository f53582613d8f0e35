"""Every metric, in one file: name, kind, labels and what it means. Nothing else creates one, but for the names of other
exporters (``ops/watch/compat.py``).

Base units; labels from a short fixed list; no member, key, id or URL is ever a label. ``reason`` comes from closed
sets of ours and of the connectors; ``Reasons`` keeps a faulty one from growing without bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram

from ops.lag.rules import SEVERITY, Status

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60)
"""Buckets for what takes as long as a call: the 2 s of the alert and the 20 s of the total deadline are bounds."""

AGES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600)
"""Buckets for how old an event is: from at once to a week of backlog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. A counter's ``name`` is written with its ``_total``, as Prometheus shows it."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "states"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    states: tuple[str, ...] = ()


DELIVERIES = Metric(
    name="backbone_deliveries_total",
    kind="counter",
    labels=("subscription", "connection", "action", "event", "outcome", "reason"),
    meaning="Deliveries that came to their end: delivered, skipped (reason: merged, expired and so on) or rejected "
    "(its dead letter is written). `event` is a type that the subscription reads, empty where it cannot be told.",
)
DELIVERIES_HELD = Metric(
    name="backbone_deliveries_held_total",
    kind="counter",
    labels=("subscription", "connection", "action", "outcome", "reason"),
    meaning="Times an attempt did not end a delivery and it waits in its lane: to be retried, vendor away, unknown.",
)
DELIVERY_SECONDS = Metric(
    name="backbone_delivery_seconds",
    kind="histogram",
    labels=("connection",),
    meaning="From a delivery's first attempt to its end, retries and waiting included.",
    buckets=SECONDS,
)
CALLS = Metric(
    name="backbone_vendor_calls_total",
    kind="counter",
    labels=("connection", "action", "outcome"),
    meaning="Calls to vendors, by the worst outcome in the call.",
)
CALL_SECONDS = Metric(
    name="backbone_vendor_call_seconds",
    kind="histogram",
    labels=("connection",),
    meaning="How long one call to a vendor takes.",
    buckets=SECONDS,
)
EVENT_AGE = Metric(
    name="backbone_event_age_seconds",
    kind="histogram",
    labels=("subscription",),
    meaning="How old an event was when its delivery ended, from the record's timestamp.",
    buckets=AGES,
)
NOT_OURS = Metric(
    name="backbone_records_not_ours_total",
    kind="counter",
    labels=("subscription",),
    meaning="Records read that no route of the subscription is for.",
)
DEAD_LETTERS = Metric(
    name="backbone_deadletter_records_total",
    kind="counter",
    labels=("subscription", "outcome", "reason"),
    meaning="Dead letters written and acknowledged.",
)
DEAD_LETTERS_CLOSED = Metric(
    name="backbone_deadletter_closed_total",
    kind="counter",
    labels=("subscription", "outcome"),
    meaning="Open dead letters that were closed: delivered after all, discarded, of a person who was erased, or "
    "superseded by newer events.",
)
RECEIPTS = Metric(
    name="backbone_receipts_total",
    kind="counter",
    labels=("subscription",),
    meaning="Receipts written and acknowledged.",
)
KEYS_PARKED = Metric(
    name="backbone_keys_parked",
    kind="gauge",
    labels=("subscription",),
    meaning="Keys with an open dead letter whose later events wait for it (`on_dead_letter: park_key`).",
)
QUOTA_USED = Metric(
    name="backbone_quota_used_ratio",
    kind="gauge",
    labels=("connection",),
    meaning="Part that is used of this process's share of the connection's rate, or of the vendor's own quota, 0 to 1; "
    "absent where neither is known.",
)
CONNECTION_STATE = Metric(
    name="backbone_connection_state",
    kind="states",
    labels=("connection",),
    meaning="closed: calls are made; open: the circuit breaker keeps them back; half_open: it tries one at a time; "
    "paused: the vendor asked us to wait or is away, or a person paused it; stopped: a person must act.",
    states=("closed", "open", "half_open", "paused", "stopped"),
)
CALLS_NOT_KEPT = Metric(
    name="backbone_calls_not_kept_total",
    kind="counter",
    labels=("connection", "reason"),
    meaning="Calls that the call log could not keep (`call_log`): behind (more came than is written), not_written (the "
    "disk, the file). Deliveries do not depend on it.",
)
CREDENTIAL_EXPIRY = Metric(
    name="backbone_credential_expiry_timestamp_seconds",
    kind="gauge",
    labels=("connection",),
    meaning="When the credentials of a connection (of `kafka` and `registry`, too) end: what certificates and tokens "
    "say, or `credential_expires`; leases of the vault while their renewal fails. Absent where nothing says when.",
)
API_SUNSET = Metric(
    name="backbone_vendor_api_sunset_timestamp_seconds",
    kind="gauge",
    labels=("connection",),
    meaning="When the vendor ends the version of its API that a connection asks (`backbone connection list`).",
)
SUBSCRIPTION_STATE = Metric(
    name="backbone_subscription_state",
    kind="states",
    labels=("subscription",),
    meaning="Of this process: running; left: out of its group in an orderly way; not_started: it cannot run here, "
    "tried again; stopped: does not go on by itself.",
    states=("running", "left", "not_started", "stopped"),
)
PARTITIONS = Metric(
    name="backbone_partitions_assigned",
    kind="gauge",
    labels=("subscription",),
    meaning="Partitions this process reads for the subscription now.",
)
REBALANCES = Metric(
    name="backbone_rebalances_total",
    kind="counter",
    labels=("subscription",),
    meaning="Assignments of partitions to this process.",
)
NOT_DRAINED = Metric(
    name="backbone_revocations_not_drained_total",
    kind="counter",
    labels=("subscription",),
    meaning="Partitions taken away before the calls in flight had ended: their deliveries may happen twice.",
)
COMMIT_FAILURES = Metric(
    name="backbone_commit_failures_total",
    kind="counter",
    labels=("subscription", "reason"),
    meaning="Commits the broker refused or did not answer.",
)
SLOW_PROJECTIONS = Metric(
    name="backbone_slow_projections_total",
    kind="counter",
    labels=("subscription", "event"),
    meaning="Projections that held up the whole process for more than 50 ms.",
)
LANES_HELD = Metric(
    name="backbone_lanes_held",
    kind="gauge",
    labels=("subscription",),
    meaning="Keys whose oldest delivery failed or waits, so that their later events wait behind it.",
)
OLDEST_UNFINISHED = Metric(
    name="backbone_oldest_unfinished_seconds",
    kind="gauge",
    labels=("subscription",),
    meaning="Age of the oldest record this process has read and not finished; 0 if there is none.",
)

METRICS: tuple[Metric, ...] = (
    DELIVERIES, DELIVERIES_HELD, DELIVERY_SECONDS, CALLS, CALL_SECONDS, EVENT_AGE, NOT_OURS, DEAD_LETTERS,
    DEAD_LETTERS_CLOSED, RECEIPTS, CONNECTION_STATE, QUOTA_USED, CALLS_NOT_KEPT, CREDENTIAL_EXPIRY, API_SUNSET,
    SUBSCRIPTION_STATE, PARTITIONS, REBALANCES, NOT_DRAINED, COMMIT_FAILURES, SLOW_PROJECTIONS, LANES_HELD, KEYS_PARKED,
    OLDEST_UNFINISHED,
)  # fmt: skip
"""Those of a worker."""


# ---- a monitor's

_WORST_FIRST: tuple[Status, ...] = tuple(sorted(SEVERITY, key=SEVERITY.__getitem__, reverse=True))
_PARTITION = ("group", "topic", "partition")
GROUP_LAG = Metric(
    name="backbone_group_lag",
    kind="gauge",
    labels=_PARTITION,
    meaning="Offsets between a group's position and the end of the log, as the group reads it (offsets, not messages).",
)
GROUP_LAG_SECONDS = Metric(
    name="backbone_group_lag_seconds",
    kind="gauge",
    labels=_PARTITION,
    meaning="Age of the first record that the group has not processed; 0: there is none, absent: it is not known.",
)
GROUP_COMMITTED = Metric(
    name="backbone_group_committed_offset",
    kind="gauge",
    labels=_PARTITION,
    meaning="The committed position; absent: nothing is committed.",
)
GROUP_LOST = Metric(
    name="backbone_group_lost_records_total",
    kind="counter",
    labels=_PARTITION,
    meaning="Records that retention deleted before the group read them, since the monitor started.",
)
GROUP_MARGIN = Metric(
    name="backbone_group_retention_margin_seconds",
    kind="gauge",
    labels=_PARTITION,
    meaning="Time until retention deletes the group's next record, at the earliest; absent: nothing says when.",
)
GROUP_STATUS = Metric(
    name="backbone_group_status",
    kind="states",
    labels=("group",),
    meaning="What the worst of its partitions is: late, stuck, unread, at risk, losing records (`backbone lag`).",
    states=_WORST_FIRST,
)
GROUP_MEMBERS = Metric(name="backbone_group_members", kind="gauge", labels=("group",), meaning="Members of the group.")
GROUP_SLO = Metric(
    name="backbone_group_slo_seconds",
    kind="gauge",
    labels=("group", "topic"),
    meaning="The age of its oldest undelivered event that a subscription promises; absent for foreign groups.",
)
TOPIC_END = Metric(
    name="backbone_topic_end_offset",
    kind="gauge",
    labels=("topic", "partition", "kind"),
    meaning="The end of the log (of topics that a group reads): `high_watermark`, and `last_stable`, before the first "
    "open transaction.",
)
TOPIC_START = Metric(
    name="backbone_topic_start_offset",
    kind="gauge",
    labels=("topic", "partition"),
    meaning="The first offset that retention has left.",
)
DEAD_OPEN = Metric(
    name="backbone_deadletter_open",
    kind="gauge",
    labels=("subscription",),
    meaning="Open dead letters.",
)
DEAD_OLDEST = Metric(
    name="backbone_deadletter_oldest_seconds",
    kind="gauge",
    labels=("subscription",),
    meaning="Age of the oldest open dead letter; 0 without any.",
)
SUBSCRIPTION_INFO = Metric(
    name="backbone_subscription_info",
    kind="gauge",
    labels=("subscription", "owner", "connection", "version"),
    meaning="1 for each attached subscription: who owns it and where it delivers to.",
)
RECONCILE_DIFFERENCE = Metric(
    name="backbone_reconcile_difference",
    kind="gauge",
    labels=("subscription", "kind"),
    meaning="What the last `backbone reconcile run` on the monitor's machine found that does not agree, by kind; "
    "absent where there was none.",
)
MONITOR_SUCCESS = Metric(
    name="backbone_monitor_last_success_timestamp_seconds",
    kind="gauge",
    labels=(),
    meaning="When the monitor last read the whole cluster; absent before it first did.",
)
MONITOR_ROUND = Metric(
    name="backbone_monitor_round_seconds",
    kind="gauge",
    labels=(),
    meaning="How long its last round took.",
)

MONITOR_METRICS: tuple[Metric, ...] = (
    GROUP_LAG, GROUP_LAG_SECONDS, GROUP_COMMITTED, GROUP_LOST, GROUP_MARGIN, GROUP_STATUS, GROUP_MEMBERS, GROUP_SLO,
    TOPIC_END, TOPIC_START, DEAD_OPEN, DEAD_OLDEST, SUBSCRIPTION_INFO,
    RECONCILE_DIFFERENCE, MONITOR_SUCCESS, MONITOR_ROUND,
)  # fmt: skip
"""Those of a monitor: of groups, their topics and dead letters, and of itself. Groups that went away have no series,
and what is not known has none either: NaN and -1 spoil sums."""


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """The metric as a Prometheus counter in ``registry``."""
    return Counter(metric.name, metric.meaning, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """The metric as a Prometheus gauge in ``registry``."""
    return Gauge(metric.name, metric.meaning, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """The metric as a Prometheus histogram in ``registry``."""
    return Histogram(metric.name, metric.meaning, metric.labels, buckets=metric.buckets, registry=registry)


def states(metric: Metric, registry: CollectorRegistry) -> Enum:
    """The metric as one 0/1 series per state in ``registry``."""
    return Enum(metric.name, metric.meaning, metric.labels, states=list(metric.states), registry=registry)


_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,60}")


class Reasons:
    """The reasons seen so far, at most ``limit``; what is not a short word or comes after that becomes ``other``.

    A connector of another package may put anything into a reason; a label must stay a small set whatever it does.
    Thread-safe.
    """

    def __init__(self, limit: int = 200) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._lock = Lock()

    def label(self, reason: str) -> str:
        """``reason`` itself, or ``other``."""
        if reason in self._known:
            return reason
        if not _WORD.fullmatch(reason):
            return "other" if reason else ""
        with self._lock:
            if reason in self._known or len(self._known) < self._limit:
                self._known.add(reason)
                return reason
        return "other"
