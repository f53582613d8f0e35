"""Canaries: a value of every class of personal data is put in, and appears nowhere but where it must.

That is: at the vendors, in the source topic, and in the bytes of dead letters. Not in a receipt, a heartbeat, the
control topic, the audit, an inbox, a header, a log line, a metric, a screen, the ledger, a plan, a note or a cache.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from producers.kafka import RecordProducer
from tests.conftest import Stack
from tests.scenarios.privacy import CLASSES, Company, company
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def shop(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[Company]:
    with company(tmp_path, stack, prefix) as made:
        made.backbone("schema", "register", "--apply", "--yes")
        yield made


def found(content: str | bytes, canary: str) -> bool:
    """Whether a canary is in it, in whatever case."""
    text = content if isinstance(content, bytes) else content.encode()
    return canary.encode().lower() in text.lower()


def records(shop: Company, topic: str) -> list[tuple[bytes, bytes]]:
    """Of every record of a topic: its key and headers, and its value."""
    ends = shop.ends(topic)
    consumer = Consumer(
        {"bootstrap.servers": shop.stack.bootstrap, "group.id": f"{shop.name}-canaries", "enable.partition.eof": True}
    )
    everything: list[tuple[bytes, bytes]] = []
    left = {place for place, end in ends.items() if end}
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for _, partition in left])
        while left:
            for message in consumer.consume(500, 1):
                if message.error() is not None:
                    left.discard((topic, message.partition() or 0))
                    continue
                headers = b"|".join(f"{name}={value!r}".encode() for name, value in message.headers() or ())
                everything.append(((message.key() or b"") + b"|" + headers, message.value() or b""))
    finally:
        consumer.close()
    return everything


def undecodable(shop: Company, canary: str) -> None:
    """Bytes that begin as an event does and end in the middle of it, with a canary in them."""
    ((_, value), *_) = records(shop, shop.topic)
    broken = value[:5] + bytes([2 * 40]) + canary.encode()[:20]
    producer = RecordProducer({"bootstrap.servers": shop.stack.bootstrap})
    settled: list[object] = []
    headers = [("ce_type", shop.event.encode()), ("ce_id", b"broken"), ("ce_source", b"test")]
    producer.send(shop.topic, b"broken", broken, headers, on_settled=settled.append)
    eventually(lambda: settled, 20, about="the broken record acked")
    producer.close(10)


def test_personal_data_appears_at_vendors_in_source_topics_and_in_dead_letters_and_nowhere_else(shop: Company) -> None:
    names = list(shop.names.values())
    for name in names:
        shop.backbone("subscription", "attach", name, "--from", "earliest", "--apply", "--yes")
    worker = shop.start_worker(*names, "ledger")
    canary = f"canary{shop.name}"
    good, refused = shop.person(1), shop.person(2)
    refused["the_email"] = f"{canary}p2-email@nodomain"  # the vendor's refusal quotes it
    shop.send(good, refused)
    undecodable(shop, f"{canary}p3")
    question = f"the_email={good['the_email']}"

    def settled() -> bool:
        letters = shop.said("deadletter", "list")
        mine = {row["subscription"]: row["count"] for row in letters if row["subscription"] in names}
        return sum(row["count"] for row in letters if row["subscription"] == shop.names["crm"]) == 2 and (
            mine.keys() == set(names)
        )  # fmt: skip

    eventually(settled, 60, about="what is refused, undecodable and failing, set aside")
    eventually(lambda: shop.said("catalog", "personal-data", "--of", question), 60, about="the row in the ledger")

    # ---- everything that shows something
    for name in names:
        shop.backbone("subscription", "preview", str(shop.folder / "subscriptions" / f"{name}.yaml"))
        shop.backbone("status", name, "--output", "json")
        shop.backbone("deadletter", "show", name)
        for letter in shop.said("deadletter", "show", name):
            shop.backbone("deadletter", "show", name, letter["id"])
    tailed = shop.said("event", "tail", shop.event, "--from", "earliest", "--no-follow")
    shop.backbone("event", "tail", shop.topic, "--from", "earliest", "--no-follow")
    for row in tailed:
        shop.backbone("event", "get", f"{row['topic']}/{row['partition']}/{row['offset']}")
        if row["id"] is not None:
            shop.backbone("trace", row["id"])
            shop.backbone("event", "get", row["id"])
    for words in (
        ("receipt", "list", "--limit", "1000"),
        ("receipt", "list", "--key", question),
        ("trace", f"person_id={good['person_id']}"),
        ("trace", question),
        ("catalog", "personal-data"),
        ("catalog", "personal-data", "--of", f"person_id={good['person_id']}"),
        ("catalog", "show", shop.event),
        ("connection", "list"),
        ("subscription", "list"),
        ("lag", *names),
    ):
        shop.backbone(*words)
        shop.backbone(*words, "--output", "json")
    log = worker.log.read_text()
    health = worker.said("worker_started")[0]["health"]
    metrics = urllib.request.urlopen(f"{health}/metrics", timeout=20).read()
    assert b"backbone_" in metrics

    # ---- and what takes it away again
    plan = shop.said("erase", question)
    assert [row["asked"] for row in plan["rows"]] == ["row.delete"]
    shop.backbone("change", "show", plan["id"])
    done = shop.said("apply", plan["id"], "--confirm", plan["subject"])["after"]
    assert (done["erased"], done["letters_closed"]) == (1, 1)  # the row; and the letter of the failing projection
    shop.backbone("change", "list")
    shop.backbone("receipt", "list", "--change", plan["id"])

    # ---- where it must be: the scanner finds what is there
    source = records(shop, shop.topic)
    for one in (*CLASSES, "nested", "listed"):
        assert any(found(value, f"{canary}p1-{one}") for _, value in source), one
    dead = [value for name in names for _, value in records(shop, f"{name}.dead")]
    assert any(found(value, canary) for value in dead)
    assert found(str(shop.vendor.report()), f"{canary}p1-email")
    assert found(str(shop.chat.report()), f"{canary}p1-name")
    assert found("in the middle CANARY".replace("CANARY", canary.upper()) + " of it", canary)

    # ---- and nowhere else
    leaks = [f"what a command said: {text[:300]}" for text in shop.told if found(text, canary)]
    listed = shop.admin.list_topics(timeout=20).topics
    for topic in (one for one in listed if one.startswith((shop.name, "backbone."))):
        for beside, value in records(shop, topic):
            if found(beside, canary):
                leaks.append(f"a key or header in {topic}")
            if found(value, canary) and topic != shop.topic and not topic.endswith(".dead"):
                leaks.append(f"a value in {topic}")
    worker.stop()
    for path in shop.folder.rglob("*"):
        is_a_vendor = shop.warehouse.parent in path.parents
        if path.is_file() and not is_a_vendor and path.suffix != ".pyc" and found(path.read_bytes(), canary):
            leaks.append(f"the file {path.relative_to(shop.folder)}")
    leaks += [what for what, text in (("the log", log), ("the metrics", metrics)) if found(text, canary)]
    assert leaks == []
    scanned = {path.name for path in shop.folder.rglob("*")}
    assert {"ledger.db", "worker-0.log", f"{plan['id']}.json", f"{plan['id']}.state.json"} <= scanned
