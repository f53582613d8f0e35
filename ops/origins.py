"""Records at the places that a heartbeat names, as a person may see them: the key is masked by its personal data."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.app import CLUSTER_TIMEOUT_S
from ops.reading import as_record
from schemas.errors import BackboneError
from schemas.event import Origin, Record

if TYPE_CHECKING:
    from ops.app import App
    from schemas.contract import Contracts

NOT_SHOWN = "‹not shown›"
MANY = 25
"""So many records are read at most."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A record that stands somewhere: its event type (None: unknown), its key as it may be shown (None: it has none),
    and when it came, seconds since the epoch."""

    origin: str
    event: str | None
    key: str | None
    at: float

    @property
    def words(self) -> str:
        """``accounts.users/3/17, accounts.UserSignedUp of ‹email›``."""
        of = "" if self.key is None else f" of {self.key}"
        return f"{self.origin}, {self.event or 'unknown event'}{of}"


def parse_origin(text: str) -> Origin | None:
    """``topic/partition/offset``."""
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not topic or not partition.isdecimal() or not offset.isdecimal():
        return None
    return Origin(topic, int(partition), int(offset))


def standing(app: App, origins: Iterable[str], contracts: Contracts | None) -> dict[str, Standing]:
    """The records at these origins, the first ``MANY`` of them; those that are gone, or that we may not read, are not
    in the answer. Reads them one by one without a group; blocks, at most as long as the cluster may be silent."""
    wanted = list(dict.fromkeys(origins))[:MANY]
    places = {text: origin for text in wanted if (origin := parse_origin(text)) is not None}
    records = _read(app, list(places.values())) if places else {}
    return {
        text: Standing(text, event, _key(record, event, contracts), record.timestamp / 1000)
        for text, origin in places.items()
        if (record := records.get(origin)) is not None
        for event in (_event_type(app, record),)
    }


def _read(app: App, origins: list[Origin]) -> dict[Origin, Record]:
    """One partition may be asked for several records, so they are read in rounds, one of each partition at a time."""
    from confluent_kafka import KafkaError, TopicPartition

    # one record of each place is wanted: do not fetch what is behind it
    consumer = app.consumer(
        fetch_message_max_bytes=65_536,
        queued_max_messages_kbytes=1_024,
        fetch_wait_max_ms=10,
        fetch_queue_backoff_ms=10,
    )
    found: dict[Origin, Record] = {}
    deadline = time.monotonic() + CLUSTER_TIMEOUT_S
    left = sorted(origins)
    try:
        while left and time.monotonic() < deadline:
            now = {(origin.topic, origin.partition): origin for origin in reversed(left)}
            left = [origin for origin in left if origin not in now.values()]
            consumer.assign([TopicPartition(*origin) for origin in now.values()])
            while now and time.monotonic() < deadline:
                message = consumer.poll(0.1)
                if message is None:
                    continue
                topic, error = message.topic() or "", message.error()
                if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    now = {place: origin for place, origin in now.items() if place[0] != topic}
                    left = [origin for origin in left if origin.topic != topic]
                    continue
                # another error, and a later record, mean that this one is not there (any more)
                origin = now.pop((topic, message.partition() or 0), None)
                if origin is not None and error is None and message.offset() == origin.offset:
                    found[origin] = as_record(message)
    finally:
        consumer.close()
    return found


def _event_type(app: App, record: Record) -> str | None:
    stated = dict(record.headers).get("ce_type")
    if stated is not None:
        return stated.decode(errors="replace")
    from schemas.codec import SchemaWanted

    try:
        found = app.decoder.event_type(record)
        if isinstance(found, SchemaWanted):
            app.decoder.load(found)
            found = app.decoder.event_type(record)
    except BackboneError:
        return None  # its schema cannot be had: it is shown as unknown
    return found if isinstance(found, str) else None


def _key(record: Record, event: str | None, contracts: Contracts | None) -> str | None:
    if record.key is None:
        return None
    contract = contracts.get(event) if contracts is not None and event is not None else None
    field = contract.fields.get(contract.key) if contract is not None else None
    if field is None:
        return NOT_SHOWN  # nobody says what it is, so it may be anything
    if field.personal_data not in (None, "none"):
        return f"‹{field.personal_data}›"
    try:
        return record.key.decode()
    except UnicodeDecodeError:
        return NOT_SHOWN
