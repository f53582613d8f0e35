"""``make bench``: what it costs, side by side with what people use, in one run. Reported as it is.

Every figure is a median of interleaved rounds on this machine, with the CPU time of the whole process beside it
(librdkafka's threads included, the vendor's fake and the broker not).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ops import local
from ops.benchmarks import codec, expressions, path
from ops.benchmarks.measure import HEADING, Result
from ops.benchmarks.stage import Stage

FOLDER = Path(__file__).resolve().parents[2] / ".backbone"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("only", nargs="*", choices=["expressions", "codec", "path", "memory", []], default=[])
    arguments = parser.parse_args()
    wanted = set(arguments.only) or {"expressions", "codec", "path", "memory"}
    if "expressions" in wanted:
        print("expressions, ns a call (target: 300 a field, 1,000 a filter)")
        for line in expressions.lines():
            print(line)
    if wanted - {"expressions"}:
        folder = FOLDER / "bench"
        started = local.up(folder, artifacts=FOLDER / "artifacts", parts=("kafka", "registry"))
        stage = Stage(folder, started.address.kafka, started.address.registry)
        try:
            print(f"\n{HEADING}")
            if "codec" in wanted:
                _show(codec.results(stage, arguments.rounds))
            if "path" in wanted:
                _show(path.results(stage, arguments.rounds))
            if "memory" in wanted:
                print(f"\n{path.memory_line(stage)}")
        finally:
            stage.close()
            local.reset(folder)
    return 0


def _show(results: list[Result]) -> None:
    for result in results:
        print(result.line(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
