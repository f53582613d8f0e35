"""Writing receipts to ``backbone.deliveries``: each is acked, or the subscription learns that it cannot be written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from consumers.receipts import RANGE, SETTLED, TOPIC, RangeSettled, Receipt, ReceiptForm
from consumers.sender import Producer, Sender, Settled
from consumers.settlement import backoff
from schemas.errors import BackboneError, UnreachableError

if TYPE_CHECKING:
    from schemas.codec import Encoder
    from schemas.contract import Contract

SOURCE = "backbone"


class ReceiptWriter:
    """The receipts of one subscription. Lives on one event loop, which it never blocks: the schemas' ids are looked up
    in a thread, and what is written before they are known waits (its offsets wait with it).

    ``contracts`` are the engine's. ``ids`` makes an id for each record."""

    def __init__(
        self,
        form: ReceiptForm,
        *,
        encoder: Encoder,
        contracts: Mapping[str, Contract],
        producer: Producer,
        ids: Callable[[], str],
        chance: Callable[[], float],
    ) -> None:
        self._form, self._encoder, self._sender, self._ids, self._chance = form, encoder, Sender(producer), ids, chance
        self._settled_contract, self._range_contract = contracts[SETTLED], contracts[RANGE]
        self._loop = asyncio.get_running_loop()
        self._ready = False
        self._failed: str | None = None
        self._early: deque[tuple[Contract, dict[str, Any], Settled]] = deque()
        self._preparing: asyncio.Task[None] | None = None

    def write(self, receipt: Receipt, settled: Settled) -> None:
        """Write it; ``settled`` is called on the loop with None when it is acked, else with why it cannot be."""
        self._write(self._settled_contract, self._form.settled(receipt), settled)

    def write_range(self, settled_range: RangeSettled, settled: Settled) -> None:
        """The same for a range."""
        at = datetime.now(UTC).timestamp()
        self._write(self._range_contract, self._form.settled_range(settled_range, at), settled)

    def close(self) -> None:
        """Nothing more is looked up. What was handed to Kafka is answered as ever."""
        if self._preparing is not None:
            self._preparing.cancel()

    def _write(self, contract: Contract, data: dict[str, Any], settled: Settled) -> None:
        if self._ready:
            self._send(contract, data, settled)
        elif self._failed is not None:
            self._loop.call_soon(settled, self._failed)
        else:
            self._early.append((contract, data, settled))
            if self._preparing is None:
                self._preparing = self._loop.create_task(self._prepare())

    async def _prepare(self) -> None:
        failures = 0
        while not self._ready and self._failed is None:
            try:
                await asyncio.to_thread(self._encoder.prepare, self._settled_contract)
                await asyncio.to_thread(self._encoder.prepare, self._range_contract)
                self._ready = True
            except UnreachableError:
                # the registry's failure is never an event's: receipts wait, and so do their offsets
                await asyncio.sleep(backoff(failures, self._chance))
                failures += 1
            except BackboneError as error:
                self._failed = str(error).rstrip(".")
        early, self._early = self._early, deque()
        for contract, data, settled in early:
            self._write(contract, data, settled)

    def _send(self, contract: Contract, data: dict[str, Any], settled: Settled) -> None:
        encoded = self._encoder.encode(contract, data, id=self._ids(), source=SOURCE, time=datetime.now(UTC))
        self._sender.send(TOPIC, encoded.key, encoded.value, encoded.headers, settled=settled)
