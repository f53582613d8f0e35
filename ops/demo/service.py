"""A small service that knows nothing of vendors: it publishes its business events and checks every answer.

``python -m ops.demo.service --seed 7 --events 2000 --per-second 150``; Kafka and the registry come from the
environment, as in any service. The last line of its output is a JSON document with what was acknowledged.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from concurrent.futures import Future

from ops.demo.story import BusinessEvent, tell
from producers import Acknowledgement, Publisher, PublishUnknown
from schemas.errors import BackboneError

UNCONFIRMED_MAX = 500


def main() -> int:
    parser = argparse.ArgumentParser(description="Publish the demo's story.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--per-second", type=int, default=150)
    arguments = parser.parse_args()
    try:
        acked = publish(arguments.seed, arguments.events, arguments.per_second)
    except BackboneError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"acked": acked}))
    return 0


def publish(seed: int, length: int, per_second: int) -> int:
    """Publish the story at that pace; answers how many events were acknowledged, or raises the first refusal."""
    events = tell(seed, length).events
    unconfirmed: deque[tuple[int, Future[Acknowledgement]]] = deque()
    acked = 0
    began = time.monotonic()
    with Publisher.from_env() as publisher:
        for number, event in enumerate(events):
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))  # the pace of the business
            unconfirmed.append((number, _send(publisher, seed, number, event)))
            if len(unconfirmed) >= UNCONFIRMED_MAX:
                acked += _confirm(publisher, seed, *unconfirmed.popleft(), events)
        while unconfirmed:
            acked += _confirm(publisher, seed, *unconfirmed.popleft(), events)
    return acked


def _send(publisher: Publisher, seed: int, number: int, event: BusinessEvent) -> Future[Acknowledgement]:
    # The id is the service's own, so publishing an event again is the same event to everybody.
    return publisher.publish(event, source=event.contract.name.partition(".")[0], id=f"story-{seed}-{number}")


def _confirm(
    publisher: Publisher, seed: int, number: int, future: Future[Acknowledgement], events: list[BusinessEvent]
) -> int:
    while True:
        try:
            future.result(timeout=150)
        except PublishUnknown:
            future = _send(publisher, seed, number, events[number])
        else:
            return 1


if __name__ == "__main__":
    sys.exit(main())
