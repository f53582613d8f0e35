"""What Slack can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from connectors.connector import Action

TEXT_MAX = 40_000
"""Slack cuts off what is longer without saying so: it is refused before."""

BLOCKS_MAX = 50


class MessagePost(BaseModel):
    """Posts a message. Slack has no idempotency: after a lost answer the message may be posted twice (``on_unknown:
    resend``, the default here) or is set aside for a person (``hold``). Slack takes about one message a second per
    channel; more of them wait, none is lost."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"channel": "#wins", "text": "u1 moved to PRO"}]},
    )

    channel: Annotated[str, Field(pattern=r"^(#[^\s#A-Z]{1,80}|[CDGU][A-Z0-9]{6,20})$")] = Field(
        description="Channel to post to: '#name' (put quotes around it: # begins a comment in YAML) or its id."
    )
    text: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)] = Field(
        description="The message, in Slack's mrkdwn. Best under 4,000 characters. With blocks: what notifications show."
    )
    blocks: Annotated[list[dict[str, Any]], Field(max_length=BLOCKS_MAX)] | None = Field(
        None, description="Block Kit blocks, at most 50."
    )
    thread_ts: Annotated[str, Field(pattern=r"^[0-9]{1,12}\.[0-9]{1,9}$")] | None = Field(
        None, description="Timestamp of the message to reply to."
    )
    unfurl_links: bool | None = Field(None, description="Whether links show a preview.")


class MessageDelete(BaseModel):
    """Deletes a message that this app has posted; one that is not there any more counts as deleted. Replies in its
    thread stay. ``backbone erase`` asks for it, with the reference that posting it has left in the receipt."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"message": "C0WINS000/1767225600.000001"}]},
    )

    message: Annotated[str, Field(pattern=r"^[CDGU][A-Z0-9]{1,20}/[0-9]{1,12}\.[0-9]{1,9}$")] = Field(
        description="Which message: the channel's id and the message's timestamp, as message.post answers them."
    )


ACTIONS: Mapping[str, Action] = {
    "message.post": Action(name="message.post", body=MessagePost, upsert=False, erased_by="message.delete"),
    "message.delete": Action(name="message.delete", body=MessageDelete, upsert=False, by_reference="message"),
}
