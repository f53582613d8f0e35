"""Slack: messages, one a call, at least once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from connectors.connector import Connector, ConnectorType, Fake, Idempotency, JsonValue, Outcome
from connectors.slack.actions import ACTIONS
from connectors.slack.settings import DEPENDENCY, SlackSettings

__all__ = ["CONNECTOR"]

FAKE_TOKEN = "xoxb-fake-slack-token"


def _open(settings: SlackSettings) -> Connector:
    from connectors.slack.connector import Slack

    return Slack(settings)


def _fake() -> Fake:
    from connectors.fake_server import FakeServer
    from connectors.slack.fake import SlackFake

    return FakeServer(SlackFake(FAKE_TOKEN))


def _fake_settings(url: str, folder: Path) -> dict[str, JsonValue]:
    return {"base_url": f"{url}/api", "token": FAKE_TOKEN}


def _answered(status: int, after: timedelta | None) -> Outcome:
    from connectors.slack.connector import classify
    from connectors.transport import Answer

    headers = {} if after is None else {"Retry-After": f"{after.total_seconds():g}"}
    return classify(Answer(status, headers, b"{}"))


CONNECTOR = ConnectorType(
    name="slack",
    doc="Slack: posts messages to channels. No idempotency there: at least once.",
    idempotency=Idempotency("none"),
    on_unknown="resend",
    batch_max=1,
    actions=ACTIONS,
    settings=SlackSettings,
    open=_open,
    fake=_fake,
    fake_settings=_fake_settings,
    dependency=DEPENDENCY,
    answered=_answered,
    check=True,
    look_up=True,
)
