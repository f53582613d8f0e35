"""The ledger as a connector and as the built-in subscription: real batches, a real full disk, a real lock."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.connector import Delivered, Delivery, Outcome, Rejected, Unavailable
from consumers.pipeline import Pipeline, ToDeliver
from ops.ledger.connector import RANGE, RECEIPT, LedgerConnector
from ops.ledger.database import open_engine
from ops.ledger.query import Ledger, Wanted
from ops.ledger.store import Store
from ops.ledger.subscription import subscription
from schemas.codec import Decoder, Encoder
from schemas.contract import engine_contracts
from schemas.event import Origin, Record
from schemas.registry import open_registry
from tests.connectors.postgresql import postgresql, programs
from tests.ops.ledgers import KEY, NOW, address_of, open_store, receipt

TOPIC = "backbone.deliveries"
RANGE_FIELDS = {
    "range": "crm accounts.users/0/0", "subscription": "crm", "subscription_version": "1", "topic": "accounts.users",
    "partition": 0, "from_offset": 0, "to_offset": 9, "delivered": 9, "at": NOW,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(address_of(tmp_path))


@pytest.fixture
async def connector(store: Store) -> AsyncIterator[LedgerConnector]:
    connector = LedgerConnector(store)
    yield connector
    await connector.close()


def delivery(number: int = 0, action: str = RECEIPT, **changed: Any) -> Delivery:
    body = receipt(number, **changed) if action == RECEIPT else RANGE_FIELDS | changed
    return Delivery(
        action=action, entity=str(number), idempotency_key="0", sequence=Origin(TOPIC, 0, number), body=body
    )


def limited(store: Store, *, pages: int) -> None:
    """A disk that has room for so many more pages (SQLite says "database or disk is full" all the same)."""
    with store._engine.connect() as connection:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {used + pages}")


def kinds(outcomes: Sequence[Outcome]) -> set[type[Outcome]]:
    return {type(one) for one in outcomes}


async def test_a_batch_is_written_and_every_delivery_confirmed(connector: LedgerConnector, tmp_path: Path) -> None:
    outcomes = await connector.deliver([delivery(n) for n in range(1000)])
    assert len(outcomes) == 1000
    assert kinds(outcomes) == {Delivered}
    assert await connector.deliver([delivery(0, RANGE)]) == [Delivered()]
    ledger = Ledger(address_of(tmp_path), lambda: KEY)
    assert len(ledger.find(Wanted(subscription="crm"), limit=2000)) == 1000
    ledger.close()


async def test_a_full_disk_stops_the_ledger_and_it_goes_on_when_there_is_room(
    connector: LedgerConnector, store: Store, tmp_path: Path
) -> None:
    limited(store, pages=4)
    full = await connector.deliver([delivery(n) for n in range(1000)])
    assert set(full) == {Unavailable("disk_full", needs_operator=True)}
    ledger = Ledger(address_of(tmp_path), lambda: KEY)
    assert ledger.find(Wanted(), limit=5) == [], "half a batch was written"
    limited(store, pages=4000)
    assert kinds(await connector.deliver([delivery(n) for n in range(1000)])) == {Delivered}
    ledger.close()


async def test_a_locked_file_is_away_for_a_moment_and_uses_no_attempt(tmp_path: Path) -> None:
    address = address_of(tmp_path)
    open_store(address).close()
    connector = LedgerConnector(Store(open_engine(address, writes=True, wait_s=0.1)))
    other = open_engine(address, writes=True)
    with other.begin() as connection:
        connection.execute(sa.text("DELETE FROM ranges"))
        assert await connector.deliver([delivery()]) == [Unavailable("locked", timedelta(seconds=1))]
    assert await connector.deliver([delivery()]) == [Delivered()]
    await connector.close()
    other.dispose()


async def test_tables_that_somebody_dropped_stop_the_ledger_and_set_no_receipt_aside(
    connector: LedgerConnector, tmp_path: Path
) -> None:
    other = open_engine(address_of(tmp_path), writes=True)
    with other.begin() as connection:
        connection.execute(sa.text("DROP TABLE receipts"))
    other.dispose()
    assert await connector.deliver([delivery(), delivery(1)]) == [Unavailable("no_ledger", needs_operator=True)] * 2


async def test_a_receipt_that_can_never_be_written_is_rejected_and_others_are_not(connector: LedgerConnector) -> None:
    impossible = delivery(1, attempts=1 << 70)
    (whole, _) = await connector.deliver([delivery(0), impossible])
    assert isinstance(whole, Rejected)
    assert whole.scope == "call"
    (alone,) = await connector.deliver([impossible])
    assert isinstance(alone, Rejected)
    assert alone.scope == "delivery"
    assert await connector.deliver([delivery(0)]) == [Delivered()]


async def test_a_closed_ledger_writes_nothing(store: Store) -> None:
    connector = LedgerConnector(store)
    await connector.close()
    await connector.close()
    assert await connector.deliver([delivery()]) == [Unavailable("closed")]


@pytest.mark.parametrize(
    ("event", "action", "entity"),
    [
        ("backbone.DeliverySettled", RECEIPT, f"{3:064x}"),
        ("backbone.RangeSettled", RANGE, "crm accounts.users/0/0"),
    ],
)
async def test_the_built_in_subscription_makes_a_row_of_each_receipt_and_range(
    connector: LedgerConnector, event: str, action: str, entity: str
) -> None:
    """With a key as long as a foreign producer likes: it would have become a dead letter of the ledger."""
    contracts = engine_contracts()
    registry = open_registry("memory://ledger")
    for contract in contracts.values():
        registry.register(contract.subject, json.dumps(contract.schema))
    encoded = Encoder(registry).encode(
        contracts[event],
        receipt(3, record_key="k" * 100_000) if action == RECEIPT else RANGE_FIELDS,
        id="r-1",
        source="crm",
        time=NOW,
    )
    record = Record(TOPIC, 2, 40, encoded.key, encoded.value, tuple(encoded.headers), 0)
    decoder = Decoder(registry, contracts=contracts)
    pipeline = Pipeline(subscription(), decoder)
    wanted = pipeline.project(record)
    if not isinstance(wanted, ToDeliver):
        decoder.load(wanted.schema)  # type: ignore[union-attr]
        wanted = pipeline.project(record)
    assert isinstance(wanted, ToDeliver)
    assert (wanted.delivery.action, wanted.delivery.entity) == (action, entity)
    assert await connector.deliver([wanted.delivery]) == [Delivered()]


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL server here")
async def test_a_database_that_is_away_keeps_the_receipts_waiting_and_loses_none() -> None:
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as server:
        address = address_of(Path("/"), server.url)
        connector = LedgerConnector(open_store(address))
        assert await connector.deliver([delivery(0)]) == [Delivered()]
        server.stop()
        assert await connector.deliver([delivery(1)]) == [Unavailable("unreachable")]
        server.start()
        assert await connector.deliver([delivery(1)]) == [Delivered()]
        ledger = Ledger(address, lambda: KEY)
        assert [one.event_id for one in ledger.find(Wanted(), limit=9)] == ["e-1", "e-0"]
        ledger.close()
        await connector.close()
