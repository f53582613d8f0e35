"""What the benchmarks deliver: invoices to Slack, accounts to HubSpot, rows to a database, and lanes only."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from connectors.connector import Delivered, Delivery, Outcome
from connectors.hubspot import CONNECTOR as HUBSPOT
from connectors.slack import CONNECTOR as SLACK
from connectors.sql import CONNECTOR as SQL
from consumers.pipeline import ToDeliver
from consumers.subscription import Subscription
from ops.benchmarks.delivery import Job
from schemas.event import Event, Record

SLACK_JOB = Job(
    """\
description: Every invoice as a message.
owner: team-bench
connection: slack
routes:
  - event: billing.InvoiceCreated
    action: message.post
    body:
      channel: "#bench"
      text: "Invoice {{ data.invoice_id }}: {{ data.total_minor | money(data.currency) }}"
""",
    SLACK,
)
HUBSPOT_JOB = Job(
    """\
description: The billing address of every account.
owner: team-bench
connection: hubspot
personal_data: {purpose: A benchmark with made-up people., allow: [email]}
routes:
  - event: billing.InvoiceCreated
    action: contact.upsert
    entity: "{{ data.account_id }}"
    body: {email: "{{ data.billing_email | lower }}", country: "{{ data.country }}"}
""",
    HUBSPOT,
)
SQL_JOB = Job(
    """\
description: Every invoice as a row.
owner: team-bench
connection: sql
routes:
  - event: billing.InvoiceCreated
    action: row.upsert
    entity: "{{ event.source }}/{{ event.type }}/{{ event.id }}"
    body: {table: "{{ event.name | snake }}", row: "{{ data | allowed }}"}
""",
    SQL,
)

LANES_S = 0.02


class Late:
    """A vendor in this process that takes 20 ms for every call and costs next to nothing."""

    def __init__(self) -> None:
        self.pause_until = 0.0

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        await asyncio.sleep(LANES_S)
        return [Delivered()] * len(batch)

    async def close(self) -> None:
        """Nothing is open."""


class Undecoded:
    """Takes the pipeline's place where only the lanes are measured: a delivery a record, nothing decoded."""

    def __init__(self, subscription: Subscription) -> None:
        ((self._route,),) = subscription.routes.values()

    def route(self, _record: Record) -> bool:
        return True

    def project(self, record: Record, _revision: str = "") -> ToDeliver:
        event = Event(
            id=str(record.offset), type="billing.InvoiceCreated", source="billing", time=record.time, subject=None,
            key=None, data={},
        )  # fmt: skip
        delivery = Delivery(
            action="message.post", entity=str(record.offset), idempotency_key=str(record.offset),
            sequence=record.origin, body={},
        )  # fmt: skip
        return ToDeliver(event, delivery, self._route)


LANES_JOB = dataclasses.replace(
    SLACK_JOB, kind=dataclasses.replace(SLACK, open=lambda _: Late()), url="http://127.0.0.1:9", reader=Undecoded
)
