"""A monitor's rounds over a large simulated cluster, in a process of its own so that its memory is only theirs.

``python -m tests.ops.monitor_scale ROUNDS`` prints one JSON line: CPU seconds of the slowest round, all of them, peak
memory and what else a round costs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest

from ops.benchmarks.memory import peak_mib
from ops.lag.cluster import Cluster
from ops.lag.measure import LagReader, Subject
from ops.monitor.history import History
from ops.monitor.monitor import EVERY_S, READS_MAX, SEARCH_S
from ops.monitor.snapshot import Snapshot
from ops.watch.group_metrics import GroupMetrics
from tests.ops.simulated_cluster import Time, large

GROUPS, PARTITIONS, TOPICS = 1_000, 12, 200


def main(rounds: int) -> dict[str, Any]:
    began = peak_mib()
    clock = Time()
    cluster = large(clock, groups=GROUPS, partitions=PARTITIONS, topics=TOPICS)
    simulated = peak_mib()
    view = Cluster(cast(Any, cluster), cast(Any, cluster.consumer))
    reader = LagReader(view, reads_max=READS_MAX, search_s=SEARCH_S, clock=clock, monotonic=clock)
    cpu: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "history.db")
        for _ in range(rounds):
            start = time.process_time()
            groups = reader.measure([Subject(name=name) for name in view.group_names()])
            snapshot = Snapshot(at=clock.now, round_s=0.0, every_s=EVERY_S, groups=tuple(groups))
            history.add(snapshot.at, snapshot.groups)
            cpu.append(time.process_time() - start)
            clock.now += EVERY_S
        history.close()
        kept = sum(file.stat().st_size for file in Path(folder).iterdir())
    start = time.process_time()
    registry = CollectorRegistry()
    registry.register(GroupMetrics(cast(Any, SimpleNamespace(snapshot=snapshot))))
    scraped = len(generate_latest(registry))
    scrape_s = time.process_time() - start
    start = time.process_time()
    document = len(snapshot.groups_json)
    return {
        "groups": len(groups),
        "partitions": sum(len(group.partitions) for group in groups),
        "rounds": rounds,
        "first_round_cpu_s": round(cpu[0], 2),
        "slowest_round_cpu_s": round(max(cpu), 2),
        "last_round_cpu_s": round(cpu[-1], 2),
        "requests": cluster.requests,
        "scrape_cpu_s": round(scrape_s, 2),
        "scrape_bytes": scraped,
        "json_cpu_s": round(time.process_time() - start, 2),
        "json_bytes": document,
        "history_bytes": kept,
        "before_mib": round(began),
        "simulated_mib": round(simulated),
        "peak_mib": round(peak_mib()),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]))) + "\n")
