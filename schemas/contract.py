"""A contract: the promise behind an event type. The .avsc files are the truth; this reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

PERSONAL_DATA_CLASSES = (
    "email", "phone", "name", "address", "ip", "birth_date", "government_id", "bank", "payment_card", "health",
    "location", "free_text", "other", "none",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of an event as its contract states it.

    ``path`` is dotted from the payload's root (``billing_email``, ``lines.sku`` for a field of the records in an
    array); ``type`` is the Avro type as JSON with named types resolved in place; ``personal_data`` is one of
    ``PERSONAL_DATA_CLASSES`` or None where nothing is stated (the same as ``none`` for masking and sending).
    """

    path: str
    type: Any
    doc: str
    optional: bool
    personal_data: str | None = None
    examples: tuple[Any, ...] = ()
    constraints: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What an event type promises. ``schema`` is the .avsc as parsed JSON, custom attributes included;
    ``fields`` maps every dotted path, nested ones too, to its Field."""

    name: str
    topic: str
    key: str
    entity: str
    owner: str
    contact: str
    doc: str
    status: str
    freshness_slo: timedelta
    retention: timedelta
    schema: Mapping[str, Any]
    fields: Mapping[str, Field]
    file: str = ""

    @property
    def subject(self) -> str:
        """The registry's subject by TopicRecordNameStrategy."""
        return f"{self.topic}-{self.name}"


class Contracts(Mapping[str, Contract]):
    """All contracts known here, by full name (``billing.InvoiceCreated``). Immutable."""

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        self._contracts = dict(sorted(contracts.items()))

    def __getitem__(self, name: str) -> Contract:
        return self._contracts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._contracts)

    def __len__(self) -> int:
        return len(self._contracts)

    def topics(self) -> dict[str, list[Contract]]:
        """Contracts by the topic they share."""
        topics: dict[str, list[Contract]] = {}
        for contract in self._contracts.values():
            topics.setdefault(contract.topic, []).append(contract)
        return topics


def load_contracts(folder: Path) -> Contracts:
    """Every ``<domain>/<Name>.avsc`` below ``folder``.

    Raises InputError naming the file and the place for a file that cannot be read or is not a contract.
    """
    raise NotImplementedError(folder)
