"""One act on the broker: company, vendors, publishers, sampler and workers; its rows beside each other or in turn."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from confluent_kafka import TopicPartition

from ops.local.state import read_json
from tests.faults.broker import ROOT, Broker
from tests.faults.cluster import DELIVERIES, ends, read_receipts
from tests.faults.company import Company
from tests.faults.members import Member, Members, start_worker
from tests.faults.row import Row, Running, Verdict, judge
from tests.faults.scene import START_MAX_S, Group, Publishing, Scene
from tests.waiting import eventually

SHARED_WORKERS = 2
STARTING_MAX = 3
DRAIN_MAX_S = 120.0
"""How long the rest may take when nothing is published any more. What did not converge in its time is waited for as
well: a loss is judged by what was drained in the end."""


class Act:
    """Runs some rows once. ``folder`` keeps every journal and log of it."""

    def __init__(
        self, rows: Sequence[Row], broker: Broker, folder: Path, *, seed: int, in_turn: bool, say: Callable[[str], None]
    ) -> None:
        self._rows, self._broker, self._folder, self._say = rows, broker, folder, say
        self._seed, self._in_turn = seed, in_turn
        self._journals = folder / "journals"
        self._journals.mkdir(parents=True)
        plans = [plan for row in rows for plan in row.plans]
        self._plans = {plan.name: plan for plan in plans}
        self._company = Company(folder, broker, list(self._plans.values()))
        self._members = Members()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starting = threading.Semaphore(STARTING_MAX)
        self._publishing = {
            topic.name: Publishing(topic, self._journals / f"{topic.name}.ledger")
            for topic in {plan.topic for plan in plans}
        }

    def run(self) -> list[Verdict]:
        begun = time.monotonic()
        try:
            running = self._set_up()
            self._say(f"set up in {time.monotonic() - begun:.0f} s: {len(self._plans)} groups")
            self._act(running)
            self._wind_down(running)
            return [judge(one) for one in running]
        finally:
            self._close()

    # ---- set-up

    def _set_up(self) -> list[Running]:
        urls = self._start_vendors()
        self._company.write(urls)
        self._company.prepare()
        self._receipts_from = ends(self._broker.bootstrap, DELIVERIES)
        # A ledger begins at the earliest receipt: those of earlier acts would fill the small disk it is given.
        old = [TopicPartition(*place, end) for place, end in self._receipts_from.items() if end]
        for deleted in self._broker.admin.delete_records(old).values() if old else ():
            deleted.result(30)
        groups = {
            name: Group(
                plan,
                self._company,
                self._members,
                self._publishing[plan.topic.name],
                self._journals,
                urls.get(name, ""),
            )
            for name, plan in self._plans.items()
        }
        self._start_sampler()
        shared = [name for name, plan in self._plans.items() if plan.shared]
        for _ in range(SHARED_WORKERS if shared else 0):
            member = start_worker(self._company, shared, "consumer", self._journals, self._members)
            for name in shared:
                groups[name].members.append(member)
        return [
            Running(row, Scene([groups[plan.name] for plan in row.plans], self._broker, self._company,
                               random.Random(f"{self._seed} {row.name}"), self._said_by(row)))
            for row in self._rows
        ]  # fmt: skip

    def _said_by(self, row: Row) -> Callable[[str], None]:
        return lambda words: self._say(f"{row.name}: {words}")

    def _start_vendors(self) -> dict[str, str]:
        wanted = [plan for plan in self._plans.values() if plan.connector != "sql"]
        if not wanted:
            return {}
        state = self._folder / "vendors.json"
        words = [f"--vendor={plan.name}={plan.connector}" for plan in wanted]
        self._spawn("tests.faults.vendors", "--state", str(state), "--journals", str(self._journals), *words)
        eventually(state.exists, 20, about="the vendors")
        return dict(read_json(state))

    def _start_sampler(self) -> None:
        words = [f"--group={plan.name}={plan.topic.name}" for plan in self._plans.values()]
        where = ["--bootstrap", self._broker.bootstrap, "--journals", str(self._journals)]
        self._spawn("tests.faults.sampler", *where, *words)

    def _spawn(self, module: str, *words: str) -> None:
        self._processes.append(subprocess.Popen([sys.executable, "-m", module, *words], cwd=ROOT))

    # ---- the rows

    def _act(self, running: Sequence[Running]) -> None:
        if self._in_turn:
            for it in running:
                self._publish(it.scene.groups)
                self._one(it)
                self._drain(it.scene.groups)
                self._leave([member for group in it.scene.groups for member in group.members])
            return
        groups = [group for it in running for group in it.scene.groups]
        self._publish(groups)
        threads = [threading.Thread(target=self._one, args=(it,)) for it in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._drain(groups)

    def _one(self, it: Running) -> None:
        it.run(lambda: self._start_workers(it.scene.groups))
        self._say(f"{it.row.name}: done after {it.seconds:.0f} s")

    def _start_workers(self, groups: Sequence[Group]) -> None:
        for group in groups:
            for _ in range(0 if group.plan.shared else group.plan.workers):
                with self._starting:  # all at once they would take a minute each
                    member = group.start_worker()
                    started = partial(member.worker.said, "worker_started")
                    eventually(started, START_MAX_S, poll_s=0.1, about=f"a worker of {group.name}")

    def _publish(self, groups: Sequence[Group]) -> None:
        for topic in {group.plan.topic for group in groups}:
            if topic.rate:
                self._publishing[topic.name].start(self._company)

    def _drain(self, groups: Sequence[Group]) -> None:
        """No more events; everything in the log comes to its end."""
        for name in {group.plan.topic.name for group in groups}:
            self._publishing[name].stop()
        until = time.monotonic() + DRAIN_MAX_S
        left = {group.name: group.lag() for group in groups}
        while any(left.values()) and time.monotonic() < until:
            time.sleep(0.3)
            left = {group.name: group.lag() if left[group.name] else 0 for group in groups}
        for group in groups:
            if left[group.name]:
                group.converged_s = None
        behind = ", ".join(f"{name} lacks {lag}" for name, lag in left.items() if lag)
        self._say(behind or "everything published has come to its end")

    def _wind_down(self, running: Sequence[Running]) -> None:
        """The workers leave in an orderly way, and what was written down is read."""
        self._leave(self._members.all)
        self._say("the workers have left")
        time.sleep(0.5)  # two rounds of the sampler: it also sees the commits of the leaving
        groups = [group for it in running for group in it.scene.groups]
        receipts = read_receipts(self._broker, self._receipts_from)
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda group: group.history(receipts.get(group.name)), groups)
            histories = dict(zip((group.name for group in groups), found, strict=True))
        for it in running:
            it.histories = {group.name: histories[group.name] for group in it.scene.groups}

    def _leave(self, members: Sequence[Member]) -> None:
        def one(member: Member) -> None:
            if member.worker.process.poll() is not None:
                return
            member.look()
            try:
                member.worker.stop()
            except subprocess.TimeoutExpired:
                self._say(f"{member.worker.log.name} did not leave within 60 s")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, members))

    def _close(self) -> None:
        self._members.close()
        for publishing in self._publishing.values():
            if publishing.process is not None and publishing.process.poll() is None:
                publishing.process.kill()
                publishing.process.wait(10)
        for process in self._processes:
            process.terminate()
            process.wait(20)
