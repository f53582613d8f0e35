"""The publisher of a fault run, a process that is never faulted: so many events a second, and a ledger of what came of
each publish (acked, or unknown and sent again under the same id).

``python -m tests.faults.publisher --bootstrap … --registry … --events DIR --ledger FILE --event NAME=KEYS..``
publishes until SIGTERM, then waits for what is open. An event's id is ``<key>/<number>``; its number grows with every
event of its key. A key whose earlier event is unknown waits until that one is resolved, as the outbox relay does it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from producers import Acknowledgement, Backpressure, KafkaPublisher, PublisherSettings, PublishUnknown
from schemas.contract import Contract, load_contracts
from tests.faults.history import Journal

SOURCE = "faults"
CANARY_EMAIL = "canary-7f3a@personal.example"
"""Personal data in every event; it must appear in no log, metric or header."""


class Stream:
    """The events of one contract: an endless round over its keys."""

    def __init__(self, contract: Contract, keys: int, times: int, publisher: KafkaPublisher, ledger: Journal) -> None:
        self._contract, self._times, self._publisher, self._ledger = contract, times, publisher, ledger
        self._round = deque(f"{contract.topic}-{number}" for number in range(keys))
        self._numbers = dict.fromkeys(self._round, 0)
        self._open: dict[str, tuple[int, list[Future[Acknowledgement]]]] = {}

    def publish_next(self) -> None:
        """One event of the next key; a key that waits for the answer of its last one is passed over."""
        self._round.rotate(-1)
        key = self._round[0]
        self._resolve(key)
        if key in self._open:
            return
        self._numbers[key] += 1
        number = self._numbers[key]
        self._ledger.write("planned", event=f"{key}/{number}", key=key, topic=self._contract.topic)
        self._send(key, number)

    def _send(self, key: str, number: int) -> None:
        data = {"thing_id": key, "number": number, "email": CANARY_EMAIL}
        futures: list[Future[Acknowledgement]] = []
        for _ in range(self._times):
            try:
                future = self._publisher.publish_data(self._contract, data, source=SOURCE, id=f"{key}/{number}")
            except Backpressure as error:
                future = Future()
                future.set_exception(error)
            futures.append(future)
        self._open[key] = (number, futures)

    def _resolve(self, key: str) -> None:
        """Look at the answers to the key's last event, if they are there: acked, or again under the same id."""
        number, futures = self._open.get(key, (0, []))
        if not futures or not all(future.done() for future in futures):
            return
        del self._open[key]
        event = f"{key}/{number}"
        again = False
        for future in futures:
            error = future.exception()
            if error is None:
                topic, partition, offset, _ = future.result()
                self._ledger.write("acked", event=event, topic=topic, partition=partition, offset=offset)
            elif isinstance(error, PublishUnknown | Backpressure):
                self._ledger.write("unknown", event=event, error=type(error).__name__)
                again = True
            else:
                raise error
        if again:
            self._send(key, number)

    def finish(self, until: float) -> None:
        """Resolve what is open, until nothing is or time is up."""
        while self._open and time.monotonic() < until:
            for key in list(self._open):
                self._resolve(key)
            time.sleep(0.05)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.publisher")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--events", type=Path, required=True, help="folder of the contracts")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--event", required=True)
    parser.add_argument("--keys", type=int, default=60)
    parser.add_argument("--times", type=int, default=1, help="publish each event so often, under the same id")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    given = parser.parse_args(arguments)
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's own process decides
    contract = load_contracts(given.events)[given.event]
    settings = PublisherSettings.model_validate(
        {"kafka": {"bootstrap.servers": given.bootstrap}, "registry": {"url": given.registry}}
    )
    ledger = Journal(given.ledger)
    with KafkaPublisher(settings) as publisher:
        stream = Stream(contract, given.keys, given.times, publisher, ledger)
        begun, sent = time.monotonic(), 0
        while not ended:
            due = int((time.monotonic() - begun) * given.rate)
            if due - sent > given.rate:  # it was held up: no burst of everything that was missed
                begun, sent, due = time.monotonic(), 0, 0
            for _ in range(due - sent):
                stream.publish_next()
            sent = due
            time.sleep(0.01)
        stream.finish(time.monotonic() + 150)
    ledger.write("ended")


if __name__ == "__main__":
    main(sys.argv[1:])
