"""Events as people see them: read by assignment (nothing is committed, no group is joined), decoded, masked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ops.app import CLUSTER_TIMEOUT_S
from ops.lag.cluster import Cluster
from ops.reading import as_record, partition_count
from schemas.errors import BackboneError, InputError, NotFoundError, UnreachableError
from schemas.findings import did_you_mean

if TYPE_CHECKING:
    from ops.app import App
    from ops.positions import Place
    from schemas.codec import Undecodable
    from schemas.contract import Contract, Contracts
    from schemas.event import Event, Record

NOT_SHOWN: Final = "‹not shown›"


def contract_of(app: App, name: str) -> Contract:
    """The contract of an event named in full or by its last part. Raises NotFoundError with a suggestion, InputError
    where the last part is that of several."""
    contracts = app.contracts
    if name in contracts:
        return contracts[name]
    same = [full for full in contracts if full.rpartition(".")[2] == name]
    if len(same) == 1:
        return contracts[same[0]]
    if same:
        raise InputError(f"'{name}' may be {' or '.join(same)}; give the full name.")
    hint = did_you_mean(name, [*contracts, *(full.rpartition(".")[2] for full in contracts)])
    raise NotFoundError(f"There is no event '{name}'.{hint} {_known(contracts)}")


def _known(contracts: Contracts) -> str:
    names = sorted(contracts)
    return f"There are: {', '.join(names[:10])}{f' and {len(names) - 10} more' if len(names) > 10 else ''}."


def places_of(app: App, name: str) -> tuple[Contract | None, list[Place]]:
    """The partitions that ``TOPIC``, ``TOPIC:0,3-5`` or an event means, and the event's contract. Raises InputError,
    NotFoundError with a suggestion."""
    from ops.positions import parse_topic

    topic, chosen = parse_topic(name)
    topics = app.contracts.topics()
    contract = None
    if chosen is None and topic not in topics:
        try:
            contract = contract_of(app, topic)
            topic = contract.topic
        except NotFoundError:
            pass  # a topic of the cluster that no contract names
    try:
        count = partition_count(app, topic)
    except NotFoundError:
        known = [*topics, *app.contracts]
        raise NotFoundError(f"There is no topic or event '{topic}'.{did_you_mean(topic, known)}") from None
    missing = [partition for partition in chosen or () if partition >= count]
    if missing:
        raise NotFoundError(f"The topic '{topic}' has no partition {missing[0]}; it has {count}, numbered from 0.")
    return contract, [(topic, partition) for partition in (range(count) if chosen is None else chosen)]


def starts_at(app: App, text: str, places: list[Place]) -> dict[Place, int]:
    """The offsets that a position written by a person means; ``+10`` counts from the beginning, ``-10`` from the end.
    Raises InputError."""
    from ops.positions import parse_position, resolve

    position = parse_position(text, datetime.now(UTC))
    cluster = Cluster(app.admin(), app.consumer)
    base: dict[Place, int] = {}
    if position.kind == "relative":
        base = cluster.ends(places, "committed") if position.offset < 0 else cluster.starts(places)
    found = resolve(cluster, position, places, committed=base, isolation="committed")
    if position.time is not None:
        app.screen.detail(f"from {position}")
    for (topic, partition), one in found.items():
        if one.note and position.kind == "offset":
            app.screen.warn(f"{topic}/{partition}: {one.note}.")
    return {place: one.offset for place, one in found.items()}


def follow(app: App, starts: Mapping[Place, int], *, until_end: bool) -> Iterator[Record]:
    """Records from the given offsets on, as they come; for ever, or to the ends of now. In order within a partition.

    Blocks. Raises what Kafka's errors mean; UnreachableError if the cluster is silent while there must be an answer.
    """
    from confluent_kafka import KafkaError, TopicPartition

    # at the end of a log the broker holds a fetch back for so long, in case something comes
    consumer = app.consumer(fetch_wait_max_ms=20 if until_end else 500)
    consumer.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in starts.items()])
    ended: set[Place] = set()
    heard = time.monotonic()
    while not (until_end and len(ended) == len(starts)):
        records: list[Record] = []
        for message in consumer.consume(500, 0.2):
            heard = time.monotonic()
            error = message.error()
            if error is None:
                records.append(as_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add((message.topic() or "", message.partition() or 0))
            else:
                raise app.reading_error(error, message.topic() or "")
        if all(record.timestamp_type == "append" for record in records):
            records.sort(key=lambda record: record.timestamp)  # the broker's time never falls within a partition
        yield from records
        if len(ended) < len(starts) and time.monotonic() - heard > CLUSTER_TIMEOUT_S:
            raise app.unreachable()


def read_one(app: App, topic: str, partition: int, offset: int) -> Record:
    """The record at one place. Raises NotFoundError saying what the log holds."""
    count = partition_count(app, topic)
    if partition >= count:
        raise NotFoundError(f"The topic '{topic}' has no partition {partition}; it has {count}, numbered from 0.")
    place = (topic, partition)
    cluster = Cluster(app.admin(), app.consumer)
    start, end = cluster.starts([place])[place], cluster.ends([place], "committed")[place]
    if start <= offset < end:
        for record in follow(app, {place: offset}, until_end=True):
            if record.offset == offset:
                return record
            break
        raise NotFoundError(
            f"There is no record at {topic}/{partition}/{offset}: it was compacted away, or is a transaction's marker."
        )
    holds = "is empty" if start >= end else f"holds {start:,} to {end - 1:,}"
    raise NotFoundError(f"There is no record at {topic}/{partition}/{offset}: the partition {holds}.")


def find(
    app: App, identity: str, *, where: str | None, start: str | None, scan_max: int
) -> tuple[Record, Event | Undecodable | BackboneError]:
    """The record of the event with this id, looked for from ``start`` on in the topic or event ``where`` (None: in
    every contract's topic). Raises NotFoundError saying how much was looked at."""
    from ops.positions import utc
    from schemas.event import Event

    if where is not None:
        places = places_of(app, where)[1]
    else:
        places = [place for topic in app.contracts.topics() for place in _places_of_topic(app, topic)]
        if not places:
            raise NotFoundError("The cluster has none of the contracts' topics: nothing was published yet.")
    made = made_at(identity)
    # made just before it was published; a minute for clocks that differ
    text = start or ("@-24h" if made is None else f"@{utc(made - timedelta(minutes=1))}")
    wanted, scanned = identity.encode(), 0
    for record in follow(app, starts_at(app, text, places), until_end=True):
        if scanned == scan_max:
            raise NotFoundError(
                f"No event '{identity}' among the first {scan_max:,} records from {text}; "
                "look further with --scan-max, nearer with --from, or in one place with --in."
            )
        scanned += 1
        stated = dict(record.headers).get("ce_id")
        if stated is not None and stated != wanted:
            continue
        # a record without an envelope has an id too: it is made of its place when it is decoded
        found = decoded(app, record)
        if stated == wanted or (isinstance(found, Event) and found.id == identity):
            return record, found
    hint = "" if start is not None else " Look from further back: --from earliest"
    raise NotFoundError(f"There is no event '{identity}' in the {scanned:,} records from {text}.{hint}")


def made_at(event_id: str) -> datetime | None:
    """When an id was made, if it is a UUIDv7."""
    try:
        parsed = UUID(event_id)
    except ValueError:
        return None
    if parsed.version != 7:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=parsed.int >> 80)


def decoded(app: App, record: Record) -> Event | Undecodable | BackboneError:
    """The event in a record, its schema fetched if need be; what is wrong with it otherwise."""
    from schemas.codec import SchemaWanted

    found = app.decoder.decode(record)
    if isinstance(found, SchemaWanted):
        try:
            app.decoder.load(found)
        except UnreachableError:
            raise
        except BackboneError as error:
            return error
        found = app.decoder.decode(record)
    assert not isinstance(found, SchemaWanted)
    return found


def holds(text: str, contract: Contract | None) -> Callable[[Event], bool]:
    """Whether an expression is true of an event; what cannot be said of one (a field it does not have, null compared)
    is not. Raises ExpressionError."""
    from consumers.expressions import ExpressionFailed, compile_expression

    expression = compile_expression(text, contract)

    def is_true(event: Event) -> bool:
        try:
            return bool(expression.evaluate(event))
        except ExpressionFailed:
            return False

    return is_true


def row(app: App, record: Record, found: Event | Undecodable | BackboneError) -> dict[str, Any]:
    """A record for people: the envelope, and the payload masked by its personal-data classes. A record that is no event
    has ``problem``, and of its bytes only the number."""
    from schemas.codec import Undecodable

    shown: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "arrived": record.time if record.timestamp >= 0 else None,
        "type": None,
        "id": None,
        "source": None,
        "time": None,
        "key": None if record.key is None else NOT_SHOWN,
        "data": None,
        "bytes": None if record.value is None else len(record.value),
        "problem": None,
    }
    if isinstance(found, Undecodable):
        detail = f": {found.detail}" if found.detail else ""
        shown["problem"] = "tombstone" if record.value is None else f"undecodable, {found.code}{detail}"
        return shown
    if isinstance(found, BackboneError):
        shown["problem"] = str(found)
        return shown
    return shown | _event(app, found)


def _event(app: App, found: Event) -> dict[str, Any]:
    from schemas.datum import to_json
    from schemas.masking import mask

    contract = app.contracts.get(found.type) or app.engine_contracts.get(found.type)
    is_plain = _is_plain(contract, "" if contract is None else contract.key)
    subject_is_plain = _is_plain(contract, "" if contract is None else contract.entity)
    extra = {
        name: value
        for name, value in (
            ("subject", found.subject and (found.subject if subject_is_plain else NOT_SHOWN)),
            ("correlation_id", found.correlation_id),
            ("causation_id", found.causation_id),
            ("traceparent", found.traceparent),
        )
        if value is not None
    }
    return {
        "type": found.type,
        "id": found.id,
        "source": found.source,
        "time": found.time,
        "key": found.key if is_plain or found.key is None else NOT_SHOWN,
        "data": to_json(mask(contract, found.data)),
        **extra,
    }


def _is_plain(contract: Contract | None, name: str) -> bool:
    """Whether the value of a field may be shown; what no contract knows may not."""
    field = None if contract is None else contract.fields.get(name)
    return field is not None and field.personal_data in (None, "none")


def _places_of_topic(app: App, topic: str) -> list[Place]:
    try:
        return [(topic, partition) for partition in range(partition_count(app, topic))]
    except NotFoundError:
        return []  # a contract whose topic was not created yet
