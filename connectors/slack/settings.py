"""The settings of a Slack connection, and what we depend on there."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field

from connectors.settings import SETTINGS, BaseUrl, Connections, Credential, Timeout


class SlackSettings(BaseModel):
    """One Slack app in one workspace."""

    model_config = SETTINGS

    token: Credential = Field(
        description="Bot token (xoxb-…) with the scope chat:write; `on_unknown: look_up` needs channels:history and "
        "channels:read as well (groups:… for private channels)."
    )
    base_url: BaseUrl = Field("https://slack.com/api", description="Where Slack answers.")
    timeout_s: Timeout = Field(20.0, description="Seconds for a whole call.")
    connections: Connections = Field(256, description="Connections kept open at most.")


DEPENDENCY: Mapping[str, str] = {
    "vendor": "Slack",
    "api": "Web API: chat.postMessage, chat.delete",
    "version": "unversioned",
    "docs": "https://docs.slack.dev/reference/methods/chat.postMessage",
    "quota": "about 1 message a second per channel, several hundred a minute per workspace",
    "sla": "none for API calls on most plans; slack-status.com",
    "criticality": "people are told later; nothing else depends on it",
    "fallback": "lanes wait; old messages can expire",
    "owner": "the subscription's owner",
}
"""The manifest of connectors.md rule 9."""
