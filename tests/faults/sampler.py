"""The commit sampler of a fault run, a process that is never faulted: every 100 ms the committed offsets of each group,
written down where they changed.

``python -m tests.faults.sampler --bootstrap … --journals DIR --group NAME=TOPIC..`` samples until SIGTERM. It asks by a
consumer a group that never joins: the admin client's own call can end the process with a SIGSEGV while a coordinator
moves or loads (librdkafka 2.16.1). A broker that does not answer is waited for.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.history import Journal

EVERY_S = 0.1
ANSWER_MAX_S = 5.0


def sample(bootstrap: str, group: str, topic: str, journal: Journal, ended: threading.Event) -> None:
    """Ask again and again until ``ended``."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    places: list[TopicPartition] = []
    known: dict[int, int] = {}
    try:
        while not ended.wait(EVERY_S):
            at = time.monotonic_ns()
            try:
                if not places:
                    partitions = consumer.list_topics(topic, timeout=ANSWER_MAX_S).topics[topic].partitions
                    places = [TopicPartition(topic, number) for number in partitions]
                    continue
                answers = consumer.committed(places, ANSWER_MAX_S)
            except KafkaException as error:
                journal.write("unanswered", error=error.args[0].name(), asked=at)
                continue
            for tp in answers:
                if tp.error is None and tp.offset >= 0 and known.get(tp.partition) != tp.offset:
                    known[tp.partition] = tp.offset
                    journal.write("committed", asked=at, topic=topic, partition=tp.partition, offset=tp.offset)
    finally:
        consumer.close()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sampler")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--journals", type=Path, required=True)
    parser.add_argument("--group", action="append", required=True, metavar="NAME=TOPIC")
    given = parser.parse_args(arguments)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's own process decides
    threads = []
    for one in given.group:
        group, topic = one.split("=", 1)
        journal = Journal(given.journals / f"{group}.commits")
        threads.append(threading.Thread(target=sample, args=(given.bootstrap, group, topic, journal, ended)))
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)  # signals are taken by the main thread between joins


if __name__ == "__main__":
    main(sys.argv[1:])
