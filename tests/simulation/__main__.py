"""``python -m tests.simulation --seed N [-v]`` runs one seed again; ``--seeds N`` runs many."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.history import told
from tests.simulation.schedule import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and say what happened")
    parser.add_argument("--seeds", type=int, default=10_000, help="run so many (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell the whole history of --seed")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        violation, simulation = simulate(arguments.seed)
        print(told(arguments.seed, simulation, violation, whole=arguments.verbose or violation is not None))
        return violation is not None
    began = time.process_time()
    counts: Counter[str] = Counter()
    failed = 0
    for seed in range(arguments.start, arguments.start + arguments.seeds):
        violation, simulation = simulate(seed)
        counts.update(simulation.checker.counts)
        if violation is not None:
            failed += 1
            print(f"seed {seed}: {violation.args[0]}: {violation.args[1][:300]}")
    seconds = time.process_time() - began
    for name, count in sorted(counts.items()):
        print(f"{count:>9}  {name}")
    print(f"{arguments.seeds} seeds, {failed} failed, {seconds / arguments.seeds * 1000:.2f} ms of CPU a seed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
