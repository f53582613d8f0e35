"""Deliveries to try a connector with, and orders to its fake."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from connectors.connector import Connector, ConnectorType, Delivery, Outcome
from connectors.transport import Answer, Transport
from schemas.event import Origin


def delivery(action: str, entity: str, body: Mapping[str, Any], *, offset: int = 0, partition: int = 0) -> Delivery:
    """A delivery with a key of its own per entity and offset."""
    key = hashlib.sha256(f"{action}|{entity}|{partition}/{offset}".encode()).hexdigest()
    return Delivery(
        action=action,
        entity=entity,
        idempotency_key=key,
        sequence=Origin("accounts.users", partition, offset),
        body=body,
    )


def example(connector_type: ConnectorType, number: int = 0) -> Delivery:
    """A valid delivery for any connector, from the example that the body of its first action shows to people."""
    action = next(iter(connector_type.actions.values()))
    examples = action.body.model_json_schema()["examples"]
    body = {name: value for name, value in examples[0].items() if name != "email"}
    return delivery(action.name, f"e{number}", body, offset=number)


async def ask(connector: Connector, *deliveries: Delivery) -> list[Outcome]:
    """Deliver, and hold the promise: one outcome for each."""
    outcomes = list(await connector.deliver(deliveries))
    assert len(outcomes) == len(deliveries)
    return outcomes


class FakeControl:
    """The control paths of a fake, by HTTP as anybody uses them."""

    def __init__(self, url: str) -> None:
        self._transport = Transport(url, headers={}, body_max=1 << 26)

    async def close(self) -> None:
        await self._transport.close()

    async def misbehave(self, *orders: Mapping[str, Any]) -> Any:
        import json

        answer = await self._transport.request("POST", "/__fake__/misbehave", body=json.dumps(orders).encode())
        assert isinstance(answer, Answer)
        assert answer.status == 200, answer.body
        return answer.json()

    async def report(self, query: str = "") -> dict[str, Any]:
        answer = await self._transport.request("GET", f"/__fake__/report{query}")
        assert isinstance(answer, Answer)
        document = answer.json()
        assert isinstance(document, dict)
        return document

    async def reset(self) -> None:
        assert isinstance(await self._transport.request("POST", "/__fake__/reset"), Answer)
