"""``python -m tests.simulation --seed N [-v]`` runs one seed again; ``--seeds 100000`` runs many (the nightly run)."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext

from tests.simulation.history import told
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import run
from tests.simulation.schedule import simulate


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell its history if something is violated")
    parser.add_argument("--seeds", type=int, default=10_000, help="run so many (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="with this mistake switched in")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell the whole history of --seed in any case")
    arguments = parser.parse_args()
    with nullcontext() if arguments.mutant is None else MUTANTS[arguments.mutant].switch():
        if arguments.seed is not None:
            violation, simulation = simulate(arguments.seed)
            whole = arguments.verbose or violation is not None
            say(told(arguments.seed, simulation, violation, whole=whole, mutant=arguments.mutant or ""))
            return violation is not None
        began = time.process_time()
        counts, violated = run(range(arguments.start, arguments.start + arguments.seeds))
    seconds = time.process_time() - began
    for name, count in sorted(counts.items()):
        say(f"{count:>9}  {name}")
    for seed, violation, _ in violated:
        say(f"seed {seed}: {violation.args[0]}: {violation.args[1][:300]}")
    say(f"{arguments.seeds} seeds, {len(violated)} violated, {seconds:.1f} s of CPU")
    return len(violated) > 0


if __name__ == "__main__":
    sys.exit(main())
