"""``make bench``: what it costs, side by side with what people use, in one run. Reported as it is.

Every rate is a median of interleaved rounds on this machine. CPU is that of the whole measured process, librdkafka's
threads included; the vendor's fake and the broker are processes of their own and not in it. The events are invoices of
17 fields with 3 lines, 395 bytes in Avro, over 2,000 keys in 12 partitions; up to 256 deliveries are in flight and the
order of a key is kept. Whole path is what `backbone run` does: consume, decode, project, call the vendor over HTTP,
settle, count and log, write receipts, commit. Lanes only leaves out decoding, HTTP, metrics and receipts; its vendor is
in the same process. The peers decode with fastavro and call the same vendor (the libraries with aiohttp); FastStream
handles one event of a process after the other, for that is how it acknowledges after the work.
A vendor that is stalled takes calls and never answers. While a second process joins, the vendor refuses connections.
Contracts are checked by a process of its own, its start counted; five subscriptions read three fifths of them.
A process starts with what `backbone run` imports, and with a subscription that needs no control topic.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ops import local
from ops.benchmarks import codec, contracts, expressions, folding, path, report, stalls
from ops.benchmarks.measure import HEADINGS, Line, row
from ops.benchmarks.stage import Stage
from ops.watch import logs

FOLDER = Path(__file__).resolve().parents[2] / ".backbone"
PARTS = (
    "expressions",
    "contracts",
    "codec",
    "lanes",
    "path",
    "batches",
    "isolation",
    "joining",
    "start",
    "memory",
    "fold",
)


def main() -> int:
    words = (__doc__ or "").split("\n", 2)
    parser = argparse.ArgumentParser(prog="make bench", description=words[0])
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of each line (default: %(default)s)")
    parser.add_argument("only", nargs="*", choices=[*PARTS, []], default=[], help="parts to run (default: all)")
    arguments = parser.parse_args()
    wanted, rounds = set(arguments.only) or set(PARTS), arguments.rounds
    shown: list[Line] = []
    loads = [os.getloadavg()[0]]
    failed: list[str] = []

    def show(lines: Iterable[Line]) -> None:
        for line in lines:
            shown.append(line)
            loads.append(os.getloadavg()[0])
            print(row(line.cells()), flush=True)

    logs.configure(True, stream=open(os.devnull, "w"))  # noqa: SIM115 - lines are made as ever, for as long as it runs
    print(f"{report.machine()}\n{report.versions()}\n\n{row(HEADINGS)}", flush=True)
    if "expressions" in wanted:
        show(expressions.lines())
    if "contracts" in wanted:
        show(contracts.lines(rounds))
    if wanted - {"expressions", "contracts"}:
        folder = FOLDER / "bench"
        started = local.up(folder, artifacts=FOLDER / "artifacts", parts=("kafka", "registry"), sustained=True)
        stage = Stage(folder, started.address.kafka, started.address.registry)
        try:
            steps: dict[str, Callable[[], Iterable[Line]]] = {
                "codec": lambda: codec.lines(stage, rounds),
                "lanes": lambda: path.lane_lines(stage, rounds),
                "path": lambda: path.lines(stage, rounds),
                "batches": lambda: path.batch_lines(stage, rounds),
                "isolation": lambda: stalls.isolation_lines(stage, path.filled(stage), rounds),
                "joining": lambda: stalls.join_lines(stage, path.filled(stage), rounds),
                "start": lambda: [stalls.start_line(stage, path.filled(stage), rounds)],
                "memory": lambda: [stalls.memory_line(stage)],
                "fold": lambda: folding.lines(stage),
            }
            for name, step in steps.items():
                if name in wanted:
                    try:
                        show(step())
                    except Exception as error:  # noqa: BLE001 - the others are measured all the same, and it is said
                        failed.append(f"{name}: {type(error).__name__} {error}".strip())
                        print(f"({failed[-1]})", flush=True)
        finally:
            stage.close()
            local.reset(folder)
    if wanted == set(PARTS):
        report.write(shown, rounds, loads, words[2].strip(), failed)
        print(f"\nWritten: {report.FILE}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
