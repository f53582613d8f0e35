"""The monitor: round after round over every group of the cluster, ours and foreign ones. It changes nothing."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ops.connections import connection_status, users_of
from ops.lag import attached
from ops.lag.measure import LagReader
from ops.monitor.snapshot import Attachment, Snapshot
from ops.watch.logs import logger

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from consumers.control import ControlSnapshot
    from ops.lag.cluster import Cluster
    from ops.monitor.following import Following
    from ops.monitor.history import History
    from schemas.contract import Contracts

EVERY_S = 15.0
READS_MAX = 500
"""Records read in one round to know their age; what has to wait is shown as a bound until its turn."""
SEARCH_S = 6.0
"""So long a round looks for ages; where thousands of positions are new at once the next ones go on."""
STUCK_S = 300.0
"""A round that takes longer is not coming back by itself."""


class Monitor:
    """Measures in a thread of its own from ``start`` to ``close``; ``snapshot`` is the last round's, from any thread.

    ``history`` None: none is kept. ``sentence`` makes one of an error. ``reconciled`` answers how many differences of
    each kind the last reconciling of each subscription found. A round that fails leaves the last snapshot
    standing and says so in ``problem``; the next one comes all the same. What is given is used by that thread alone."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        following: Following,
        contracts: Contracts | None,
        history: History | None,
        sentence: Callable[[Exception], str],
        every_s: float = EVERY_S,
        reconciled: Callable[[], Mapping[str, Mapping[str, int]]] = dict,
    ) -> None:
        self._cluster, self._following, self._contracts = cluster, following, contracts
        self.history, self._sentence, self.every_s = history, sentence, every_s
        self._reconciled = reconciled
        self._rests: Callable[[], bool] = lambda: False
        self._reader = LagReader(cluster, reads_max=READS_MAX, search_s=SEARCH_S)
        self._history_problem = ""
        self._began: float | None = None
        self._renewed: tuple[AdminClient, str, str] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self.snapshot: Snapshot | None = None
        self.problem = ""
        """why the last round failed; empty: it did not"""
        self.is_resting = False
        """another monitor does the work"""

    @property
    def live(self) -> bool:
        """Whether rounds come: None is stuck."""
        began = self._began
        return began is None or time.monotonic() - began < STUCK_S

    @property
    def ready(self) -> bool:
        """Whether there is a snapshot to read."""
        return self.snapshot is not None

    def start(self, rests: Callable[[], bool] = lambda: False) -> None:
        """Begin. ``rests`` is asked before every round, in the monitor's thread: while it answers True another monitor
        does the work, and this one has nothing to show."""
        self._rests = rests
        self._thread.start()

    def renew(self, admin: AdminClient, username: str, password: str) -> None:
        """Authenticate with these from the next round on (SASL PLAIN and SCRAM), and ask by ``admin``, which does. From
        any thread; does not block: only the monitor's thread may speak to its consumers."""
        self._renewed = (admin, username, password)

    def close(self) -> None:
        """End; a round under way is waited for up to 2 s and then left to the end of the process."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
        if self.history is not None:
            self.history.close()

    def round(self) -> Snapshot:
        """One round. Blocks; raises KafkaException and BackboneError where the cluster does not answer."""
        began, now = time.monotonic(), time.time()
        self._following.read(now)
        control, beats = self._following.control(), self._following.beats(now)
        subjects = attached.subjects((), control=control, contracts=self._contracts, cluster=self._cluster)
        groups = self._reader.measure(subjects)
        at = groups[0].at if groups else now
        used = {one.definition.connection for one in control.subscriptions.values() if one.definition is not None}
        seen = {view.name for beat in beats.fresh for view in beat.heartbeat.connections}
        return Snapshot(
            at=at,
            round_s=time.monotonic() - began,
            every_s=self.every_s,
            groups=tuple(groups),
            attached=self._attachments(control),
            letters=self._following.letters(),
            connections=tuple(
                connection_status(
                    name,
                    control=control.connections.get(name),
                    beats=beats.fresh,
                    subscriptions=users_of(name, control.subscriptions),
                )
                for name in sorted(used | seen)
            ),
            workers=len(beats.fresh),
            reconciled={name: one for name, one in self._reconciled().items() if name in control.subscriptions},
        )

    # ---- inside

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._closing.is_set():
                self._began = time.monotonic()
                if (renewed := self._renewed) is not None:
                    self._renewed = None
                    self._cluster.renew(*renewed)
                    self._following.renew(*renewed[1:])
                self.is_resting = self._resting()
                if self.is_resting:
                    self.snapshot, self.problem = None, ""
                else:
                    self._attempt()
                self._began = None
                due = max(due + self.every_s, time.monotonic())
                self._closing.wait(max(0.0, due - time.monotonic()))
        finally:
            self._following.close()

    def _resting(self) -> bool:
        try:
            return self._rests()
        except OSError as error:
            logger().warning("monitor_not_announced", reason=error.strerror)
            return False

    def _attempt(self) -> None:
        try:
            snapshot = self.round()
        except Exception as error:  # noqa: BLE001 - whatever it is: the next round must come, and people must know
            if self._closing.is_set():
                return
            self.problem = self._sentence(error)
            logger().warning("round_failed", problem=self.problem, exc_info=error)
            return
        if self.problem:
            logger().info("rounds_again", seconds=round(snapshot.round_s, 3))
        self.snapshot, self.problem = snapshot, ""
        logger().debug("round", groups=len(snapshot.groups), seconds=round(snapshot.round_s, 3))
        self._keep(snapshot)

    def _keep(self, snapshot: Snapshot) -> None:
        if self.history is None:
            return
        try:
            self.history.add(snapshot.at, snapshot.groups)
        except (sqlite3.Error, OSError) as error:
            problem = str(error)
            if problem != self._history_problem:
                logger().error("history_not_written", file=str(self.history.file), reason=problem)
            self._history_problem = problem
        else:
            if self._history_problem:
                logger().info("history_written_again", file=str(self.history.file))
            self._history_problem = ""

    def _attachments(self, control: ControlSnapshot) -> Mapping[str, Attachment]:
        found = {}
        for name, one in control.subscriptions.items():
            if one.definition is not None:
                head = attached.header(one.definition, self._contracts)
                found[name] = Attachment(head.owner, one.definition.connection, one.definition.version)
        return found
