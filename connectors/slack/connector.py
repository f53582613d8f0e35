"""Slack messages: one chat.postMessage (or chat.delete) a delivery, every answer classified.

``classify`` as a table. The first fitting line decides; Slack says most of its errors with HTTP 200 (by name: ERRORS).

=====================================================  =============================================================
answer                                                 outcome
=====================================================  =============================================================
200 {"ok": true, "ts": …}                              Delivered(reference = channel/ts)
200 {"ok": false}, error is "needs_operator"           Unavailable(the error, needs_operator): token, scope, workspace
200 {"ok": false}, error is "unavailable"              Unavailable(the error), Retry-After if given
200 {"ok": false}, error is "retry_later"              RetryLater(the error): nothing was done
200 {"ok": false}, error is "unknown"                  Unknown(the error): "some aspect of the operation succeeded"
200 {"ok": false}, error "rejected", restricted_*      Rejected(the error)
200 {"ok": false}, any other error                     RetryLater(vendor_error): new to us, so neither given up nor
                                                       asked for ever
200 anything else, other 2xx                           Unknown(not_understood)
303                                                    Unknown(redirected)
other 3xx                                              Unavailable(redirected, needs_operator)
401 / 403 / 410                                        Unavailable(unauthorized / forbidden / gone, needs_operator)
408                                                    Unknown(timeout)
429                                                    Unavailable(rate_limited), Retry-After or 30 s
other 4xx                                              Rejected(refused)
503                                                    Unavailable(unavailable), Retry-After if given
other 5xx                                              Unknown(server_error): behind a 500, 502 or 504 the message
                                                       may stand in the channel
no answer                                              connectors.transport.unanswered
=====================================================  =============================================================

chat.delete is answered in the same way; ``message_not_found`` is Delivered(note = was_not_there).

A 429 holds the whole connection, not the channel alone: Slack does not say whether the channel or the workspace is
over its limit, and a lane is a key of ours, not a channel. Were it the entity's, the fourth refusal in a row would
count as an attempt and a burst into one channel would end among the dead letters.

The key goes along twice, though Slack promises nothing for it: as ``client_msg_id`` (UUIDv5) and in the message's
metadata, where a person or a look-up finds the message.

``look_up`` reads the channel's history of the two days before now, newest first, and looks for that metadata (scope
channels:history; groups:history for private ones). A name (``#wins``) is found by conversations.list once and kept.
What it cannot read to the end of the window, for a limit, a missing scope or too many messages, is never "not there":

==============================================  ==================================================================
what the history says                           look_up
==============================================  ==================================================================
a message with the delivery's key               Delivered(reference = channel/ts)
the whole window, and none                      None: it is sent again
the window is longer than 20 pages of 200       Rejected(look_up_too_long): a person looks
channel_not_found, is_archived, not_in_channel  Rejected(the error)
no answer, limits, errors of theirs             Unavailable: asked again
missing_scope, token                            Unavailable(the error, needs_operator)
==============================================  ==================================================================

A message in a thread is not in the channel's history, so its thread is read instead (conversations.replies).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from urllib.parse import urlencode
from uuid import UUID

from pydantic import ValidationError

from connectors.connector import (
    Delivered,
    Delivery,
    JsonValue,
    LookedUp,
    Outcome,
    Rejected,
    RetryLater,
    Skipped,
    Unavailable,
    Unknown,
)
from connectors.slack.actions import MessageDelete, MessagePost
from connectors.slack.settings import SlackSettings
from connectors.transport import Answer, Result, Transport, as_json, pause_until, retry_after, unanswered

NAMESPACE = UUID("6f1d1c2e-7c56-5b0a-9d0e-2f6a4f0d7b11")
"""Of our client_msg_ids. Never change it: the same key must give the same id for ever."""
_NAMESPACE = NAMESPACE.bytes

_check = MessagePost.__pydantic_validator__.validate_python

METADATA_TYPE = "event_backbone_delivery"

ERRORS: Mapping[str, str] = {
    "needs_operator": """access_denied account_inactive deprecated_endpoint ekm_access_denied enterprise_is_restricted
        invalid_auth method_deprecated missing_scope no_permission not_allowed_token_type not_authed org_login_required
        team_access_not_granted token_expired token_revoked two_factor_setup_required""",
    "unavailable": "accesslimited rate_limited ratelimited service_unavailable team_added_to_org",
    "retry_later": "external_channel_migrating request_timeout",
    "unknown": "duplicate_channel_not_found duplicate_message_not_found fatal_error internal_error",
    "rejected": """as_user_not_supported attachment_payload_limit_exceeded blocked_from_dms cannot_reply_to_message
        cant_delete_message channel_not_found compliance_exports_prevent_deletion invalid_arg_name
        invalid_arguments invalid_array_arg invalid_attachments invalid_blocks invalid_blocks_format
        invalid_charset invalid_form_data invalid_metadata_format invalid_metadata_schema invalid_post_type
        is_archived is_inactive markdown_text_conflict message_limit_exceeded message_not_found
        messages_tab_disabled metadata_must_be_sent_from_app metadata_too_large missing_post_type
        msg_blocks_too_long msg_too_long no_text not_in_channel slack_connect_canvas_sharing_blocked
        slack_connect_file_link_sharing_blocked team_not_found thread_locked too_many_attachments
        too_many_contact_cards user_not_found""",
}
"""What Slack says with ``ok: false``, by what it means for the delivery."""

MEANING: Mapping[str, str] = {error: meaning for meaning, errors in ERRORS.items() for error in errors.split()}
GONE = Rejected("message_not_found")
RATE_WAIT = timedelta(seconds=30)
LOOK_BACK = timedelta(days=2)
"""How old a message may be that a look-up finds: longer than any retry of an Unknown takes."""
PAGES_MAX = 20
PAGE = 200
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}

STATUS: Mapping[int, Outcome] = {
    303: Unknown("redirected"),
    401: Unavailable("unauthorized", needs_operator=True),
    403: Unavailable("forbidden", needs_operator=True),
    408: Unknown("timeout"),
    410: Unavailable("gone", needs_operator=True),
    429: Unavailable("rate_limited", RATE_WAIT, limited=True),
    503: Unavailable("unavailable"),
}


_Page: TypeAlias = Mapping[str, Any]
_Matter: TypeAlias = Rejected | Unavailable | Unknown | RetryLater


class Slack:
    """One app in one workspace (a ``connectors.connector.Connector`` that also ``Checks`` and ``LooksUp``)."""

    __slots__ = ("_channels", "_transport", "pause_until")

    def __init__(self, settings: SlackSettings) -> None:
        self.pause_until = 0.0
        self._channels: dict[str, str] = {}
        self._transport = Transport(
            settings.base_url,
            headers={
                "Authorization": f"Bearer {settings.token.get_secret_value()}",
                "Content-Type": "application/json; charset=utf-8",
            },
            timeout_s=settings.timeout_s,
            connections=settings.connections,
        )

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Post or delete each message, one call after the other (``batch_max`` is 1)."""
        return [
            await (self._delete(delivery) if delivery.action == "message.delete" else self._post(delivery))
            for delivery in batch
        ]

    async def check(self) -> Outcome:
        """Ask whose token it is (auth.test)."""
        page = await self._read("auth.test", {})
        return Delivered(str(page.get("team_id", ""))[:40] or None) if isinstance(page, Mapping) else page

    async def look_up(self, delivery: Delivery) -> LookedUp:
        """Look for the message in the channel or thread it was meant for; the table is on top of this module."""
        if delivery.action == "message.delete":
            return None  # deleting again does no harm
        message = wire_message(delivery)
        if isinstance(message, Rejected):
            return message
        channel = await self._channel_id(message["channel"])
        if not isinstance(channel, str):
            return channel
        asked: dict[str, Any] = {"channel": channel, "include_all_metadata": "true", "limit": PAGE}
        asked["oldest"] = f"{time.time() - LOOK_BACK.total_seconds():.6f}"
        method = "conversations.history"
        if "thread_ts" in message:
            method, asked["ts"] = "conversations.replies", message["thread_ts"]
        async for page in self._pages(method, asked):
            if not isinstance(page, Mapping):
                return page
            if not isinstance(page.get("messages"), list):
                return Unavailable("not_understood")
            for one in _list(page, "messages"):
                if _key_of(one) == delivery.idempotency_key:
                    return Delivered(f"{channel}/{one.get('ts', '')}"[:100])
        return None

    async def close(self) -> None:
        await self._transport.close()

    async def _channel_id(self, channel: str) -> str | Rejected | Unavailable:
        """A channel's id; a name is looked for in the list of channels."""
        if not channel.startswith("#"):
            return channel
        if (known := self._channels.get(channel)) is not None:
            return known
        asked = {"types": "public_channel,private_channel", "limit": 1000, "exclude_archived": "true"}
        async for page in self._pages("conversations.list", asked):
            if not isinstance(page, Mapping):
                return page
            for one in _list(page, "channels"):
                if one.get("name") == channel[1:] and isinstance(one.get("id"), str):
                    self._channels[channel] = str(one["id"])
                    return self._channels[channel]
        return Rejected("channel_not_found")

    async def _pages(self, method: str, asked: Mapping[str, Any]) -> AsyncIterator[_Page | Rejected | Unavailable]:
        """The pages of a list; the last item may be why there are no more than these."""
        cursor = ""
        for _ in range(PAGES_MAX):
            page = await self._read(method, {**asked, "cursor": cursor} if cursor else asked)
            if isinstance(page, Unknown | RetryLater):
                page = Unavailable(page.reason)  # reading again does no harm
            yield page
            metadata = page.get("response_metadata") if isinstance(page, Mapping) else None
            cursor = str(metadata.get("next_cursor") or "") if isinstance(metadata, Mapping) else ""
            if not cursor:
                return
        yield Rejected("look_up_too_long")

    async def _read(self, method: str, asked: Mapping[str, Any]) -> _Page | _Matter:
        """Call a method that changes nothing: its answer, or what is the matter."""
        body = urlencode(asked).encode()
        result = await self._transport.request("POST", f"/{method}", body=body, headers=_FORM)
        document = result.json() if isinstance(result, Answer) and result.status == 200 else None
        if isinstance(document, Mapping) and document.get("ok") is True:
            return document
        outcome = classify(result)
        if isinstance(outcome, Unavailable):
            self.pause_until = pause_until(self.pause_until, outcome.after)
        return Unknown("not_understood") if isinstance(outcome, Delivered | Skipped) else outcome

    async def _post(self, delivery: Delivery) -> Outcome:
        message = wire_message(delivery)
        if isinstance(message, Rejected):
            return message
        try:
            json.dumps(message.get("blocks"), allow_nan=False)
            wire = as_json(message)
        except (TypeError, ValueError, RecursionError):
            return Rejected("invalid_body", "blocks: holds what JSON cannot say")
        return await self._ask("/chat.postMessage", wire)

    async def _delete(self, delivery: Delivery) -> Outcome:
        try:
            message = MessageDelete.model_validate(dict(delivery.body), strict=True)
        except ValidationError as error:
            return _invalid(error)
        channel, _, ts = message.message.partition("/")
        outcome = await self._ask("/chat.delete", as_json({"channel": channel, "ts": ts}))
        return Delivered(note="was_not_there") if outcome == GONE else outcome

    async def _ask(self, path: str, body: bytes) -> Outcome:
        result = await self._transport.request("POST", path, body=body)
        outcome = classify(result)
        if isinstance(outcome, Unavailable):
            self.pause_until = pause_until(self.pause_until, outcome.after)
        return outcome


def _list(page: _Page, name: str) -> list[Mapping[str, Any]]:
    found = page.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _key_of(message: Mapping[str, Any]) -> str | None:
    """The idempotency key in a message's metadata, if it is one of ours."""
    metadata = message.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("event_type") != METADATA_TYPE:
        return None
    payload = metadata.get("event_payload")
    key = payload.get("idempotency_key") if isinstance(payload, Mapping) else None
    return key if isinstance(key, str) else None


def client_msg_id(idempotency_key: str) -> str:
    """The same for the same key, for ever: its UUIDv5 (RFC 9562 5.5), written without the cost of a UUID object."""
    digits = hashlib.sha1(_NAMESPACE + idempotency_key.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def wire_message(delivery: Delivery) -> dict[str, Any] | Rejected:
    """The JSON that chat.postMessage takes."""
    if delivery.action != "message.post":
        return Rejected("unknown_action", delivery.action[:100])
    body = {name: _text(value) for name, value in delivery.body.items()}
    try:
        _check(body, strict=True)  # strict: what passes is what was given
    except ValidationError as error:
        return _invalid(error)
    return {
        **{name: value for name, value in body.items() if value is not None},
        "client_msg_id": client_msg_id(delivery.idempotency_key),
        "metadata": {
            "event_type": METADATA_TYPE,
            "event_payload": {"idempotency_key": delivery.idempotency_key},
        },
    }


def _invalid(error: ValidationError) -> Rejected:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # an unknown field's name is the author's, a known one's is ours; types are pydantic's: none is data
    return Rejected("invalid_body", f"{'.'.join(map(str, first['loc']))[:200]}: {first['type']}")


def _text(value: JsonValue) -> JsonValue:
    """Times, decimals and ids leave as text (JSON has no such types); everything else as it is."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, UUID)) else value


def classify(result: Result) -> Outcome:
    """What an answer means; the table is on top of this module."""
    if not isinstance(result, Answer):
        return unanswered(result)
    status = result.status
    if status == 200:
        return _said(result, result.json())
    if (known := STATUS.get(status)) is not None:
        return _waiting(known, result) if isinstance(known, Unavailable) and not known.needs_operator else known
    if 300 <= status < 400:
        return Unavailable("redirected", needs_operator=True)
    if 400 <= status < 500:
        return Rejected("refused", str(status))
    return Unknown("server_error" if status >= 500 else "not_understood")


def _said(answer: Answer, document: Any) -> Outcome:
    if not isinstance(document, dict):
        return Unknown("not_understood")
    if document.get("ok") is True:
        channel, ts = document.get("channel"), document.get("ts")
        if isinstance(channel, str) and isinstance(ts, str):
            return Delivered(f"{channel}/{ts}")
        return Unknown("not_understood")
    error = document.get("error")
    if document.get("ok") is not False or not isinstance(error, str):
        return Unknown("not_understood")
    match MEANING.get(error):
        case "needs_operator":
            return Unavailable(error, needs_operator=True)
        case "unavailable":
            limited = "limited" in error
            return _waiting(Unavailable(error, RATE_WAIT if limited else None, limited=limited), answer)
        case "retry_later":
            return RetryLater(error)
        case "unknown":
            return Unknown(error)
        case "rejected":
            return Rejected(error)
    if error.startswith("restricted_action"):
        return Rejected("restricted_action")
    return RetryLater("vendor_error")


def _waiting(known: Unavailable, answer: Answer) -> Unavailable:
    after = retry_after(answer.headers)
    return known if after is None else replace(known, after=after)
