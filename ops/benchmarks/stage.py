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

from consumers import receipts
from ops.benchmarks.site import Site
from ops.local.fakes import read_fakes
from schemas.codec import Decoder, Encoded, Encoder
from schemas.contract import Contract, engine_contracts, load_contracts
from schemas.models.billing import InvoiceCreated, InvoiceLine
from schemas.registry import open_registry

EVENTS = Path(__file__).resolve().parents[2] / "schemas" / "events"
KEYS = 2_000


class Stage:
    """Blocking; made once a run."""

    def __init__(self, folder: Path, bootstrap: str, registry_url: str) -> None:
        self.folder, self.bootstrap, self.registry_url = folder, bootstrap, registry_url
        self.site = Site(bootstrap, registry_url)
        self.contracts = load_contracts(EVENTS)
        self.registry = open_registry(registry_url)
        for contract in (*self.contracts.values(), *engine_contracts().values()):
            self.registry.register(contract.subject, contract.text)
        self.site.topic(receipts.TOPIC)
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

    def topic(self, name: str, partitions: int = 12) -> str:
        """A topic, new if there is none of that name yet."""
        return self.site.topic(name, partitions)

    def fill(self, topic: str, count: int, *, distinct: int | None = None, keys: int = KEYS) -> None:
        """Write so many invoices, over ``keys`` accounts; ``distinct`` ones of them, again and again."""
        from producers.kafka import RecordProducer

        encoder, producer, failed = self.encoder(), RecordProducer({"bootstrap.servers": self.bootstrap}), []
        now = datetime.now(UTC)
        kept: list[Encoded] = []
        for number in range(count):
            if distinct is None or number < distinct:
                data = invoice(number, keys).model_dump()
                encoded = encoder.encode(self.contract, data, id=f"bench-{number}", source="billing", time=now)
                if distinct is not None:
                    kept.append(encoded)
            else:
                encoded = kept[number % distinct]
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
        if self._vendors is not None:
            self._vendors.terminate()
            self._vendors.wait(20)


def invoice(number: int, keys: int = KEYS) -> InvoiceCreated:
    """An invoice of 17 fields and 3 lines, about 400 bytes in Avro."""
    lines = [
        InvoiceLine(
            sku=f"SEAT-{n}", description=f"Team plan, April 2026, line {n}", quantity=n + 1, unit_price_minor=2_900,
            total_minor=2_900 * (n + 1),
        )
        for n in range(3)
    ]  # fmt: skip
    return InvoiceCreated(
        invoice_id=f"INV-{number}", account_id=f"acc-{number % keys}", billing_email=f"billing-{number}@example.org",
        customer_name="Example Ltd", country="DE", currency="EUR", total_minor=17_400, tax_minor=2_778,
        discount_minor=0, issued_at=datetime(2026, 5, 1, 6, tzinfo=UTC), purchase_order=f"PO-{number}", lines=lines,
        coupon=None,
    )  # fmt: skip
