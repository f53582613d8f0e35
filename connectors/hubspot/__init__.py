"""HubSpot: contacts, by batch upsert on a unique property."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from connectors.connector import Connector, ConnectorType, Delivery, Fake, Idempotency, JsonValue, Outcome
from connectors.hubspot.actions import ACTIONS, actions_for
from connectors.hubspot.settings import DEPENDENCY, HubSpotSettings, api
from schemas.event import Origin

__all__ = ["CONNECTOR"]

FAKE_TOKEN = "fake-hubspot-token"
FAKE_OAUTH = {
    "client_id": "fake-client-id",
    "client_secret": "fake-client-secret",
    "refresh_token": "fake-refresh-token",
}
"""The fake takes either."""


def _open(settings: HubSpotSettings) -> Connector:
    from connectors.hubspot.connector import HubSpot

    return HubSpot(settings)


def _fake() -> Fake:
    from connectors.fake_server import FakeServer
    from connectors.hubspot.fake import HubSpotFake

    return FakeServer(HubSpotFake(FAKE_TOKEN, FAKE_OAUTH))


def _fake_settings(url: str, folder: Path) -> dict[str, JsonValue]:
    return {"base_url": url, "token": FAKE_TOKEN}


def _answered(status: int, after: timedelta | None) -> Outcome:
    from connectors.hubspot.connector import classify
    from connectors.transport import Answer

    headers = {} if after is None else {"Retry-After": f"{after.total_seconds():g}"}
    alone = Delivery(action="contact.upsert", entity="-", idempotency_key="", sequence=Origin("-", 0, 0), body={})
    return classify(Answer(status, headers, b"{}"), [alone], "-")[0]


CONNECTOR = ConnectorType(
    name="hubspot",
    doc="HubSpot CRM: keeps contacts in step, up to 100 in a call, matched by a unique property of your own.",
    idempotency=Idempotency("upsert"),
    on_unknown="resend",
    batch_max=100,
    actions=ACTIONS,
    settings=HubSpotSettings,
    open=_open,
    fake=_fake,
    fake_settings=_fake_settings,
    dependency=DEPENDENCY,
    answered=_answered,
    actions_for=actions_for,
    api=api,
    check=True,
    read_back=True,
    list_ours=True,
)
