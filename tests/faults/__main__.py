"""``make faults``: the fault matrix on a real broker, with real workers and a checker over what was written down.

Every row: inject, hold, heal, converge within 60 s, verdict. What each invariant says: ``tests/faults/checker.py``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime

from tests.faults import broker_rows, data_rows, machine_rows, process_rows, replay_rows, report, vendor_rows
from tests.faults.act import Act
from tests.faults.broker import ROOT, Broker
from tests.faults.row import ACTS, Row, Verdict

FOLDER = ROOT / ".backbone" / "faults"
ROWS: tuple[Row, ...] = (
    *vendor_rows.ROWS, *process_rows.ROWS, *broker_rows.ROWS, *data_rows.ROWS, *machine_rows.ROWS,
    *replay_rows.ROWS,
)  # fmt: skip
IN_TURN = frozenset({3})
"""Acts whose rows all fault the same thing: one after the other."""


def main() -> int:
    words = (__doc__ or "").split("\n", 2)
    parser = argparse.ArgumentParser(prog="make faults", description=words[0])
    parser.add_argument("--act", type=int, choices=ACTS, help="only this act")
    parser.add_argument("--row", action="append", metavar="NAME", help="only this row (may be given again)")
    parser.add_argument("--seed", type=int, default=1, help="of every random moment (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    given = parser.parse_args()
    if unknown := set(given.row or ()) - {row.name for row in ROWS}:
        parser.error(f"no row is called {', '.join(sorted(unknown))}; the rows: {' '.join(row.name for row in ROWS)}")
    chosen = [row for row in ROWS if given.act in (None, row.act) and (not given.row or row.name in given.row)]
    if given.list:
        for row in chosen:
            print(f"{row.act}  {row.name:20} {row.fault}")
        return 0
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way everything that was started is stopped

    def say(sentence: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {sentence}", file=sys.stderr, flush=True)

    commit = report.commit()
    loads = [0.0]
    verdicts = _run(chosen, given.seed, say, loads)
    result = report.Result(
        at=datetime.now(UTC),
        seed=given.seed,
        commit=commit,
        seconds=time.monotonic() - begun,
        load=max(loads),
        verdicts=verdicts,
    )
    print(report.table(result))
    whole = given.act is None and not given.row
    if whole:
        report.write(result)
        say(f"written: {report.FILE.relative_to(ROOT)}")
    say(f"journals and logs: {FOLDER.relative_to(ROOT)}")
    if whole and not (sum(v.duplicates for v in verdicts) and sum(v.letters for v in verdicts)):
        say("I12: a whole run without one duplicate or without one dead letter has tested nothing")
        return 1
    return 0 if all(verdict.verdict != "broken" for verdict in verdicts) else 1


def _run(rows: list[Row], seed: int, say: report.Say, loads: list[float]) -> list[Verdict]:
    shutil.rmtree(FOLDER, ignore_errors=True)
    verdicts: dict[str, Verdict] = {}
    broker = Broker(FOLDER / "broker", seed=seed)
    try:
        broker.start()
        say(f"Kafka and the registry are up ({broker.bootstrap})")
        for number, subject in ACTS.items():
            here = []
            for row in rows:
                if row.act != number:
                    continue
                reason = row.missing()
                if reason or row.run is None:
                    verdicts[row.name] = Verdict(row=row, verdict="not run", broken=(reason,))
                else:
                    here.append(row)
            if here:
                say(f"act {number}: {subject} ({', '.join(row.name for row in here)})")
                act = Act(here, broker, FOLDER / f"act-{number}", seed=seed, in_turn=number in IN_TURN, say=say)
                judged = act.run()
                loads.append(os.getloadavg()[0])
                for verdict in judged:
                    verdicts[verdict.row.name] = verdict
                    say(f"{verdict.row.name}: {verdict.verdict} {'; '.join(verdict.broken)}")
    finally:
        broker.close()
    return [verdicts[row.name] for row in rows]


if __name__ == "__main__":
    sys.exit(main())
