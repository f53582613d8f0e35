"""``make bench``: what it costs, side by side with what people use, in one run. Reported as it is.

Every rate is a median of interleaved rounds on this machine. CPU is that of the whole measured process, librdkafka's
threads included; the vendor's fake and the broker are processes of their own and not in it. The events are invoices of
17 fields with 3 lines, 395 bytes in Avro, over 2,000 keys in 12 partitions. Whole path is what `backbone run` does:
consume, decode, project, call the vendor over HTTP, settle, count and log, commit.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ops import local
from ops.benchmarks import codec, expressions, path, report
from ops.benchmarks.measure import HEADINGS, Line, row
from ops.benchmarks.stage import Stage

FOLDER = Path(__file__).resolve().parents[2] / ".backbone"
PARTS = ("expressions", "codec", "path", "batches", "memory")


def main() -> int:
    words = (__doc__ or "").split("\n", 2)
    parser = argparse.ArgumentParser(prog="make bench", description=words[0])
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of each line (default: %(default)s)")
    parser.add_argument("only", nargs="*", choices=[*PARTS, []], default=[], help="parts to run (default: all)")
    arguments = parser.parse_args()
    wanted, rounds = set(arguments.only) or set(PARTS), arguments.rounds
    shown: list[Line] = []
    loads = [os.getloadavg()[0]]

    def show(lines: Iterable[Line]) -> None:
        for line in lines:
            shown.append(line)
            loads.append(os.getloadavg()[0])
            print(row(line.cells()), flush=True)

    print(f"{report.machine()}\n{report.versions()}\n\n{row(HEADINGS)}", flush=True)
    if "expressions" in wanted:
        show(expressions.lines())
    if wanted - {"expressions"}:
        folder = FOLDER / "bench"
        started = local.up(folder, artifacts=FOLDER / "artifacts", parts=("kafka", "registry"), sustained=True)
        stage = Stage(folder, started.address.kafka, started.address.registry)
        try:
            if "codec" in wanted:
                show(codec.lines(stage, rounds))
            if "path" in wanted:
                show(path.lines(stage, rounds))
            if "batches" in wanted:
                show(path.batch_lines(stage, rounds))
            if "memory" in wanted:
                show([path.memory_line(stage)])
        finally:
            stage.close()
            local.reset(folder)
    if wanted == set(PARTS):
        report.write(shown, rounds, loads, words[2].strip())
        print(f"\nWritten: {report.FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
