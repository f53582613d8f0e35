"""The whole path: consume, decode, project, ask a vendor's fake in another process (or a database), settle, commit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from ops.benchmarks.delivery import Job, deliver
from ops.benchmarks.jobs import HUBSPOT_JOB, LANES_JOB, SLACK_JOB, SQL_JOB
from ops.benchmarks.measure import Line, Round, interleaved
from ops.benchmarks.peering import Peers
from ops.benchmarks.stage import Stage

COUNT = 20_000


def lane_lines(stage: Stage, rounds: int) -> list[Line]:
    """The lanes alone: consume, order by key, 256 in flight at a vendor of 20 ms in this process, commit."""
    topic = filled(stage)
    return interleaved(
        rounds, [("lanes only, 256 in flight, vendor 20 ms", lambda: _ours(stage, LANES_JOB, topic), 11_000)]
    )


def lines(stage: Stage, rounds: int) -> list[Line]:
    """One delivery a call, with and without receipts, at a vendor that takes 20 ms and at one that answers at once;
    what people use beside them."""
    topic = filled(stage)
    job = dataclasses.replace(SLACK_JOB, url=stage.vendors()["slack"])
    recorded = dataclasses.replace(job, receipts=True)
    place = Peers.of(stage, job.url, topic)
    found = []
    for milliseconds, targets in ((20, (4_000, 5_000)), (0, (None, None))):
        stage.vendor_latency("slack", milliseconds)
        ours = [
            (f"whole path with receipts, vendor {milliseconds} ms", lambda: _ours(stage, recorded, topic), targets[0]),
            (f"whole path without receipts, vendor {milliseconds} ms", lambda: _ours(stage, job, topic), targets[1]),
        ]
        found += interleaved(rounds, [*ours, *(place.subjects() if milliseconds else [])])
    return found


def batch_lines(stage: Stage, rounds: int) -> list[Line]:
    """Many deliveries a call: HubSpot's 100 contacts, and 1,000 rows a transaction in a SQLite file."""
    topic = filled(stage)
    stage.vendor_latency("hubspot", 20)
    hubspot = dataclasses.replace(HUBSPOT_JOB, url=stage.vendors()["hubspot"], receipts=True)

    def rows() -> Round:
        with TemporaryDirectory(dir=stage.folder) as folder:
            return _ours(stage, dataclasses.replace(SQL_JOB, folder=Path(folder), receipts=True), topic)

    return interleaved(
        rounds,
        [
            ("with receipts, HubSpot, 100 contacts a call, 20 ms", lambda: _ours(stage, hubspot, topic), None),
            ("with receipts, SQLite file, 1,000 rows a transaction", rows, None),
        ],
    )


def _ours(stage: Stage, job: Job, topic: str) -> Round:
    return uvloop.run(deliver(job, stage.site, topic, COUNT))


def filled(stage: Stage) -> str:
    """The topic of ``COUNT`` invoices, filled when it is first asked for."""
    name = "billing.invoices.bench"
    if not stage.site.partitions(name):
        stage.fill(stage.topic(name), COUNT)
    return name
