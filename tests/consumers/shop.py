"""A small company for the tests of subscriptions: two events, one connector, and a way to write a file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from connectors.connector import Action, ConnectorType, Idempotency
from consumers.subscription import Subscription, check_subscription
from schemas.contract import Contract, Contracts, contract_from_schema
from schemas.event import Event, Record
from schemas.findings import Finding


def _contract(name: str, key: str, fields: list[dict[str, Any]], **promise: str) -> Contract:
    domain, _, short = name.rpartition(".")
    return contract_from_schema(
        {
            "type": "record",
            "name": short,
            "namespace": domain,
            "doc": "Something happened.",
            "backbone": {
                "topic": f"{domain}.things",
                "key": key,
                "owner": "team-a",
                "freshness_slo": "60s",
                "retention": "7d",
                **promise,
            },
            "fields": fields,
        }
    )


ADDRESS = {
    "type": "record",
    "name": "Address",
    "fields": [
        {"name": "city", "type": "string", "doc": "City.", "personal_data": "address"},
        {"name": "country", "type": "string", "doc": "Country."},
    ],
}
LINE = {
    "type": "record",
    "name": "Line",
    "fields": [
        {"name": "sku", "type": "string", "doc": "Article."},
        {"name": "note", "type": ["null", "string"], "default": None, "doc": "Note.", "personal_data": "free_text"},
    ],
}
ORDERED = _contract(
    "shop.Ordered",
    "order_id",
    [
        {"name": "order_id", "type": "string", "doc": "Id.", "examples": ["o-1"]},
        {"name": "email", "type": "string", "doc": "Address.", "personal_data": "email", "examples": ["ana@x.org"]},
        {"name": "nick", "type": ["null", "string"], "default": None, "doc": "Name.", "personal_data": "name"},
        {"name": "coupon", "type": ["null", "string"], "default": None, "doc": "Coupon.", "examples": ["SPRING"]},
        {"name": "total_minor", "type": "long", "doc": "Total.", "examples": [1250]},
        {"name": "weight", "type": "double", "default": 0.5, "doc": "Weight."},
        {"name": "paid", "type": "boolean", "default": False, "doc": "Paid."},
        {"name": "currency", "type": "string", "doc": "Currency.", "examples": ["EUR"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "doc": "When."},
        {"name": "due", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None, "doc": "Due."},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "doc": "Tags.", "examples": [["a", "b"]]},
        {"name": "lines", "type": {"type": "array", "items": LINE}, "doc": "Lines."},
        {"name": "address", "type": ["null", ADDRESS], "default": None, "doc": "Where to."},
        {"name": "labels", "type": {"type": "map", "values": "string"}, "doc": "Labels.", "examples": [{"k": "v"}]},
        {"name": "raw", "type": ["null", "bytes"], "default": None, "doc": "Bytes."},
    ],
)
CANCELLED = _contract(
    "shop.Cancelled",
    "order_id",
    [
        {"name": "order_id", "type": "string", "doc": "Id.", "examples": ["o-1"]},
        {"name": "reason", "type": "string", "doc": "Why.", "examples": ["late"]},
    ],
)
MOVED = _contract(
    "depot.Moved",
    "box_id",
    [
        {"name": "box_id", "type": "string", "doc": "Id.", "examples": ["b-1"]},
        {"name": "order_id", "type": "string", "doc": "Of the order.", "examples": ["o-1"]},
    ],
)
ORDERED_V2 = _contract(
    "shop.OrderedV2",
    "order_id",
    [{"name": "order_id", "type": "string", "doc": "Id.", "examples": ["o-1"]}],
    replaces="shop.Ordered",
)
ORDERED_V3 = _contract(
    "shop.OrderedV3",
    "order_id",
    [{"name": "order_id", "type": "string", "doc": "Id.", "examples": ["o-1"]}],
    replaces="shop.OrderedV2",
)
MAILED = _contract(
    "shop.Mailed",
    "email",
    [{"name": "email", "type": "string", "doc": "Address.", "personal_data": "email", "examples": ["ana@x.org"]}],
)
CONTRACTS = Contracts({one.name: one for one in (ORDERED, CANCELLED, MOVED, ORDERED_V2, MAILED)})
THREE_VERSIONS = Contracts({**CONTRACTS, ORDERED_V3.name: ORDERED_V3})


class NotePut(BaseModel):
    """Puts a note."""

    model_config = ConfigDict(extra="forbid")
    title: Annotated[str, Field(max_length=20, pattern=r"^[^!]*$")] = Field(description="Its title.")
    stage: Literal["new", "done"] | None = Field(None, description="Stage.")
    amount: int | None = Field(None, description="Amount.")
    weight: float | None = Field(None, description="Weight.")
    urgent: bool | None = Field(None, description="Urgent.")
    when: datetime | None = Field(None, description="When, as a time.")
    told: str | None = Field(None, description="When, as text.")
    tags: list[str] | None = Field(None, description="Tags.")
    extra: dict[str, Any] | None = Field(None, description="Anything.")
    count: int = Field(0, description="Never null.")


class Ping(BaseModel):
    """Pings, with anything."""

    model_config = ConfigDict(extra="allow")


def _never(*_: Any) -> Any:
    raise AssertionError("a connector is never opened here")


NOTES = ConnectorType(
    name="notes",
    doc="Notes.",
    idempotency=Idempotency("upsert"),
    on_unknown="resend",
    batch_max=10,
    actions={
        "note.put": Action(name="note.put", body=NotePut, upsert=True),
        "ping": Action(name="ping", body=Ping, upsert=False),
    },
    settings=Ping,
    open=_never,
    fake=None,
    fake_settings=_never,
)
CONNECTIONS: Mapping[str, ConnectorType] = {"notes": NOTES}

HEAD = "description: A test.\nowner: team-a\nconnection: notes\n"
DATA: Mapping[str, Any] = {
    "order_id": "o-1",
    "email": "Ana@X.org",
    "nick": None,
    "coupon": None,
    "total_minor": 1250,
    "weight": 0.5,
    "paid": True,
    "currency": "EUR",
    "at": datetime(2026, 5, 1, 12, tzinfo=UTC),
    "due": None,
    "tags": ["a", "b"],
    "lines": [{"sku": "S1", "note": "for Ana"}, {"sku": "S2", "note": None}],
    "address": None,
    "labels": {"k": "v"},
    "raw": None,
}


def event(type_: str = "shop.Ordered", **data: Any) -> Event:
    """An event of the shop; other fields are those of DATA."""
    return Event(
        id="e-1",
        type=type_,
        source="shop",
        time=datetime(2026, 5, 1, 12, 30, tzinfo=UTC),
        subject=None,
        key="o-1",
        data={**DATA, **data},
    )


def record(value: bytes | None = b"x", offset: int = 7) -> Record:
    return Record("shop.things", 3, offset, b"o-1", value, (), 1_777_636_800_000)


def checked(
    folder: Path, text: str, name: str = "notes-test", **more: Any
) -> tuple[Subscription | None, list[Finding]]:
    """The verdict on a file with this text."""
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return check_subscription(path, **{"contracts": CONTRACTS, "connections": CONNECTIONS, **more})


def loaded(folder: Path, text: str, **more: Any) -> Subscription:
    """The subscription of a text that has no error."""
    subscription, findings = checked(folder, text, **more)
    assert subscription is not None, findings
    return subscription


def route(body: str, event: str = "shop.Ordered", more: str = "") -> str:
    """A file with one route whose body is written in YAML's flow style."""
    return f"{HEAD}{more}routes:\n  - event: {event}\n    action: note.put\n    body: {body}\n"
