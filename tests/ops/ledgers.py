"""Ledgers for tests: the two databases, and receipts as the runtime writes them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import sqlalchemy as sa

from ops.ledger.database import Address, open_engine, parse_address, prepare
from ops.ledger.store import Store, receipt_row
from schemas.event import Origin
from tests.connectors.postgresql import postgresql, programs

NewAddress: TypeAlias = Callable[[], Address]
"""Makes the address of a new, empty database."""
NOW = datetime(2026, 5, 1, 12, 0, 0, 123_000, tzinfo=UTC)
KEY = b"0123456789abcdef0123456789abcdef"


def receipt(number: int = 0, **changed: Any) -> dict[str, Any]:
    """The fields of a DeliverySettled: event ``e-<number>`` at offset ``number``, delivered."""
    usual: dict[str, Any] = {
        "event_id": f"e-{number}", "event_source": "shop", "event_type": "accounts.UserSignedUp", "event_time": NOW,
        "origin_topic": "accounts.users", "origin_partition": 0, "origin_offset": number,
        "subscription": "crm", "subscription_version": "3f9a2c", "connection": "hubspot",
        "action": "contact.upsert", "entity": "u-1", "entity_hashed": False, "idempotency_key": f"{number:064x}",
        "revision": "", "outcome": "delivered", "reason": None, "reference": "501", "reference_hashed": False,
        "attempts": 1, "first_at": NOW, "last_at": NOW + timedelta(seconds=number), "change_id": None,
        "change_kind": None, "redrives": 0, "trace_id": None, "fields_sent": ["user_id", "email"],
        "personal_data_sent": ["email"], "body_fields": ["email", "plan"], "body_sha256": "0" * 64, "about": "",
        "merged_into": None, "record_key": "u-1", "record_key_hashed": False, "event_subject": "u-1",
        "event_subject_hashed": False,
    }  # fmt: skip
    return usual | changed


def row(offset: int, number: int = 0, **changed: Any) -> dict[str, Any]:
    """That receipt's row, standing at ``offset`` of partition 0 of the topic of receipts."""
    return receipt_row(receipt(number, **changed), Origin("backbone.deliveries", 0, offset))


def address_of(folder: Path, url: str = "sqlite:///ledger.db") -> Address:
    return parse_address(url, root=folder, place="contexts.test.ledger")


def open_store(address: Address) -> Store:
    """A ledger that is ready, to write."""
    prepare(address, cluster="cluster-1", begin_anew=lambda: None)
    return Store(open_engine(address, writes=True))


def databases() -> list[Any]:
    """The kinds of databases, as a fixture's params; PostgreSQL where the machine has it."""
    missing = pytest.mark.skipif(programs() is None, reason="no PostgreSQL server here")
    return ["sqlite", pytest.param("postgresql", marks=missing)]


@contextmanager
def new_addresses(kind: str, folder: Path) -> Iterator[NewAddress]:
    """Databases of one kind, on one server."""
    numbers = itertools.count()
    if kind == "sqlite":
        yield lambda: address_of(folder, f"sqlite:///{next(numbers)}.db")
        return
    with ExitStack() as stack:
        # a folder that PostgreSQL's own user can reach
        server = stack.enter_context(postgresql(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        maker = sa.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
        stack.callback(maker.dispose)

        def make() -> Address:
            name = f"ledger_{next(numbers)}"
            with maker.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
            return address_of(Path("/"), server.url.rpartition("/")[0] + f"/{name}")

        yield make
