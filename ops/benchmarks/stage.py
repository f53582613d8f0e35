"""Where benchmarks play: a Kafka and a registry of their own, topics, and a vendor's fake in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from ops.local.fakes import read_fakes
from schemas.codec import Decoder, Encoder
from schemas.contract import Contract, engine_contracts, load_contracts
from schemas.models.billing import InvoiceCreated, InvoiceLine
from schemas.registry import open_registry

EVENTS = Path(__file__).resolve().parents[2] / "schemas" / "events"
KEYS = 2_000


class Stage:
    """Blocking; made once a run."""

    def __init__(self, folder: Path, bootstrap: str, registry_url: str) -> None:
        self.folder, self.bootstrap, self.registry_url = folder, bootstrap, registry_url
        self.contracts = load_contracts(EVENTS)
        self.registry = open_registry(registry_url)
        for contract in self.contracts.values():
            self.registry.register(contract.subject, json.dumps(contract.schema))
        self._admin: AdminClient | None = AdminClient({"bootstrap.servers": bootstrap})
        self._vendors: subprocess.Popen[bytes] | None = None

    @property
    def contract(self) -> Contract:
        return self.contracts["billing.InvoiceCreated"]

    def encoder(self) -> Encoder:
        encoder = Encoder(self.registry)
        encoder.prepare(self.contract)
        return encoder

    def decoder(self) -> Decoder:
        """As ``backbone run`` makes it."""
        return Decoder(self.registry, contracts={**self.contracts, **engine_contracts()})

    def exists(self, topic: str) -> bool:
        assert self._admin is not None
        return topic in self._admin.list_topics(timeout=10).topics

    def topic(self, name: str, partitions: int = 12) -> str:
        """A topic, new if there is none of that name yet."""
        if not self.exists(name):
            assert self._admin is not None
            new = NewTopic(name, partitions, 1, config={"message.timestamp.type": "LogAppendTime"})
            self._admin.create_topics([new])[name].result(30)
        return name

    def fill(self, topic: str, count: int) -> None:
        """Write so many invoices, over ``KEYS`` accounts."""
        from producers.kafka import RecordProducer

        encoder, producer, failed = self.encoder(), RecordProducer({"bootstrap.servers": self.bootstrap}), []
        now = datetime.now(UTC)
        for number in range(count):
            data = invoice(number).model_dump()
            encoded = encoder.encode(self.contract, data, id=f"bench-{number}", source="billing", time=now)
            producer.send(
                topic, encoded.key, encoded.value, encoded.headers,
                on_settled=lambda answer: None if hasattr(answer, "offset") else failed.append(answer),
            )  # fmt: skip
        if producer.flush(60) or failed:
            raise RuntimeError("the benchmark's topic could not be filled")
        producer.close(5)

    def vendors(self) -> Mapping[str, str]:
        """The fakes' addresses by connector; started when first asked for."""
        state = self.folder / "fakes.json"
        if self._vendors is None:
            state.unlink(missing_ok=True)
            self._vendors = subprocess.Popen([sys.executable, "-m", "ops.local.vendors", "--state", str(state)])
        until = time.monotonic() + 20
        while not state.exists():
            if time.monotonic() > until or self._vendors.poll() is not None:
                raise RuntimeError("the vendors' fakes did not start")
            time.sleep(0.05)
        fakes: Any = read_fakes(state)
        return {name: str(url) for name, url in (fakes.urls if hasattr(fakes, "urls") else fakes).items()}

    def vendor_latency(self, connector: str, milliseconds: float) -> None:
        """From now on every answer of that fake takes so long; what it remembers is forgotten."""
        url = self.vendors()[connector]
        for path, body in (
            ("reset", b""),
            ("misbehave", json.dumps([{"kind": "latency", "ms": milliseconds}]).encode()),
        ):
            request = urllib.request.Request(f"{url}/__fake__/{path}", body, method="POST")
            urllib.request.urlopen(request, timeout=20).read()

    def close(self) -> None:
        self._admin = None  # before the broker goes: the client would complain
        if self._vendors is not None:
            self._vendors.terminate()
            self._vendors.wait(20)


def invoice(number: int) -> InvoiceCreated:
    """An invoice of 17 fields and 3 lines, about 400 bytes in Avro."""
    lines = [
        InvoiceLine(
            sku=f"SEAT-{n}", description=f"Team plan, April 2026, line {n}", quantity=n + 1, unit_price_minor=2_900,
            total_minor=2_900 * (n + 1),
        )
        for n in range(3)
    ]  # fmt: skip
    return InvoiceCreated(
        invoice_id=f"INV-{number}", account_id=f"acc-{number % KEYS}", billing_email=f"billing-{number}@example.org",
        customer_name="Example Ltd", country="DE", currency="EUR", total_minor=17_400, tax_minor=2_778,
        discount_minor=0, issued_at=datetime(2026, 5, 1, 6, tzinfo=UTC), purchase_order=f"PO-{number}", lines=lines,
        coupon=None,
    )  # fmt: skip
