"""The ledger as a connector: a batch of receipts is one transaction, in one worker thread.

What a database's error means here, where nothing may be lost and nobody may be held up: the lanes of the ledger wait.
Away or locked: Unavailable, the connection pauses. Disk full, no rights, tables gone: a person must act, so the
connection stops, is said, and is probed once a minute. Only a receipt that can never be written is set aside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, SecretStr
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from connectors.connector import (
    Action,
    Connector,
    ConnectorType,
    Delivered,
    Delivery,
    Idempotency,
    JsonValue,
    Outcome,
    Rejected,
    RetryLater,
    Unavailable,
    Unknown,
)
from connectors.sql.errors import classify
from ops.ledger.database import open_engine, parse_address
from ops.ledger.store import Store, range_row, receipt_row

RECEIPT, RANGE = "receipt.record", "range.record"
TIMEOUT_S = 20.0


class Fields(RootModel[dict[str, Any]]):
    """The fields of the event, as its contract has them."""


class LedgerSettings(BaseModel):
    """``url`` has the password in it, and SQLite's file as an absolute path."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    url: SecretStr


class LedgerConnector:
    """Writes receipts and ranges (a ``connectors.connector.Connector``). The database's client blocks, so it lives in
    a thread of its own; ``deliver`` waits for it, at most ``TIMEOUT_S``."""

    def __init__(self, store: Store) -> None:
        self.pause_until = 0.0
        self._store = store
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._closed = False

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Write the batch, all of it or nothing."""
        if self._closed:
            return [Unavailable("closed")] * len(batch)
        work: Future[Outcome] = self._executor.submit(self._write, batch)
        try:
            return [await asyncio.wait_for(asyncio.wrap_future(work), TIMEOUT_S)] * len(batch)
        except TimeoutError:
            # what can still be cancelled stood behind another batch: nothing of it was written
            return [Unavailable("busy") if work.cancel() else Unknown("timeout")] * len(batch)

    async def close(self) -> None:
        """Close the database, after the batch in hand. Waits at most ``TIMEOUT_S``."""
        if self._closed:
            return
        self._closed = True
        closed = self._executor.submit(self._store.close)
        self._executor.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(closed)], timeout=TIMEOUT_S)

    def _write(self, batch: Sequence[Delivery]) -> Outcome:
        try:
            if batch[0].action == RANGE:
                self._store.put_ranges([range_row(one.body) for one in batch])
            else:
                self._store.put_receipts([receipt_row(one.body, one.sequence) for one in batch])
        except DBAPIError as error:
            return _outcome(error, alone=len(batch) == 1)
        except (StatementError, UnicodeError, ValueError, OverflowError):
            # a value that the driver could not even bind
            return Rejected("refused", "unbindable", scope="delivery" if len(batch) == 1 else "call")
        except SQLAlchemyError as error:
            return Unavailable(f"database_{type(error).__name__}")
        return Delivered()


def _outcome(error: DBAPIError, *, alone: bool) -> Outcome:
    found = classify(error, committing=False, alone=alone)
    match found:
        case Unavailable("out_of_resources"):
            return Unavailable("disk_full", needs_operator=True)
        case Rejected("schema"):
            return Unavailable("no_ledger", needs_operator=True)
        case Unavailable(needs_operator=True):
            return found
        case Unavailable() | RetryLater():
            return Unavailable(found.reason, found.after)
        case _:
            return found


def _open(settings: LedgerSettings) -> Connector:
    address = parse_address(settings.url.get_secret_value(), root=Path("/"), place="ledger")
    return LedgerConnector(Store(open_engine(address, writes=True)))


def _no_fake(_url: str, _folder: Path) -> dict[str, JsonValue]:
    raise NotImplementedError("the ledger is a database of our own in every context")


TYPE = ConnectorType(
    name="ledger",
    doc="The backbone's own ledger: receipts as rows.",
    idempotency=Idempotency("upsert"),
    on_unknown="resend",
    batch_max=1000,
    actions={name: Action(name=name, body=Fields, upsert=True) for name in (RECEIPT, RANGE)},
    settings=LedgerSettings,
    open=_open,
    fake=None,
    fake_settings=_no_fake,
)
