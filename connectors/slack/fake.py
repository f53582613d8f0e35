"""Slack's stand-in: chat.postMessage, chat.delete, auth.test, and channels to read (conversations.list, .history,
.replies) of the Web API, as Slack documents them.

What it keeps to: errors are HTTP 200 with ``ok: false`` (token, channel, text, blocks); arguments as JSON with a bearer
token, or as a form; text over 40,000 characters is cut; a ``client_msg_id`` seen before does *not* stop a message,
since Slack promises nothing of the kind; with a ``quota`` order, ``max`` messages per channel and window, then 429 with
Retry-After. Every channel exists but ``#nowhere``; ``#archived`` is archived; ``#members-only`` has not let us in.
A history has the channel's messages newest first, replies not among them, in pages with a cursor, metadata only with
``include_all_metadata``. The list of channels has those that were posted to.

Report: ``messages`` [{channel, text, key}] in order (``?since=n`` from the n-th on; ``channel`` as it was asked for,
``key`` the idempotency key of its metadata; the ``text`` of one that was deleted is null), ``deleted``, ``applied`` and
``effects`` (messages), ``duplicates`` (messages whose key was posted before).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from connectors.fake_server import Reply, Request, json_reply
from connectors.slack.actions import BLOCKS_MAX, TEXT_MAX

CHANNEL_ID = re.compile(r"[CDGU][A-Z0-9]{6,20}\Z")


class SlackFake:
    """One workspace (a ``connectors.fake_server.Vendor``)."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.reset()

    def reset(self) -> None:
        self._messages: list[dict[str, str | None]] = []
        self._stored: list[tuple[str, str, dict[str, Any]]] = []
        """channel, thread ("" for none) and message, oldest first"""
        self._keys: set[str] = set()
        self._duplicates = self._deleted = 0
        self._quota_max: int | None = None
        self._quota_window_s = 1.0
        self._windows: dict[str, tuple[float, int]] = {}

    def order(self, kind: str, parameters: Mapping[str, Any]) -> bool:
        if kind != "quota":
            return False
        self._quota_max = int(parameters["max"])
        self._quota_window_s = parameters["per_ms"] / 1000
        self._windows.clear()
        return True

    def report(self, query: Mapping[str, str]) -> dict[str, Any]:
        since = query.get("since", "0")
        first = int(since) if since.isascii() and since.isdigit() else 0
        count = len(self._messages)
        return {
            "messages": self._messages[first:],
            "applied": count,
            "effects": count,
            "duplicates": self._duplicates,
            "deleted": self._deleted,
        }

    def answer(self, request: Request, partial: Mapping[str, Any] | None) -> Reply:
        method = request.path.removeprefix("/api/")
        arguments = _arguments(request)
        if arguments is None:
            return _refuse("invalid_form_data")
        authorization = request.headers.get("authorization", "")
        token = authorization.removeprefix("Bearer ") if authorization else arguments.get("token")
        if not token:
            return _refuse("not_authed")
        if token != self._token:
            return _refuse("invalid_auth")
        if method == "auth.test":
            team = {"url": "https://fake.slack.example/", "team": "Fake", "team_id": "T0FAKE00", "user": "backbone"}
            return json_reply(200, {"ok": True, "user_id": "U0FAKE00", "bot_id": "B0FAKE00", **team})
        if method == "chat.postMessage":
            return self._post(arguments)
        if method == "chat.delete":
            return self._delete(arguments)
        if method == "conversations.list":
            names = dict.fromkeys(channel for channel, _, _ in self._stored if channel.startswith("#"))
            channels = [{"id": _channel_id(name), "name": name[1:], "is_channel": True} for name in names]
            return _page(channels, "channels", arguments)
        if method in ("conversations.history", "conversations.replies"):
            return self._history(arguments, thread=str(arguments.get("ts", "")) if "replies" in method else "")
        return _refuse("unknown_method")

    def _post(self, arguments: Mapping[str, Any]) -> Reply:
        channel, text, blocks = arguments.get("channel"), arguments.get("text"), arguments.get("blocks")
        if not isinstance(channel, str) or not channel or channel == "#nowhere":
            return _refuse("channel_not_found")
        if not channel.startswith("#") and not CHANNEL_ID.match(channel):
            return _refuse("channel_not_found")
        if channel == "#archived":
            return _refuse("is_archived")
        if channel == "#members-only":
            return _refuse("not_in_channel")
        if not isinstance(text, str):
            text = ""
        if not text and not blocks:
            return _refuse("no_text")
        if isinstance(blocks, str):
            try:
                blocks = json.loads(blocks)
            except ValueError:
                return _refuse("invalid_blocks_format")
        if blocks is not None and not (isinstance(blocks, list) and all(isinstance(block, dict) for block in blocks)):
            return _refuse("invalid_blocks_format")
        if blocks and (len(blocks) > BLOCKS_MAX or not all(isinstance(block.get("type"), str) for block in blocks)):
            return _refuse("invalid_blocks")
        wait_s = self._wait(channel)
        if wait_s:
            return json_reply(429, {"ok": False, "error": "ratelimited"}, (("Retry-After", str(wait_s)),))
        return self._write(channel, text[:TEXT_MAX], arguments)

    def _write(self, channel: str, text: str, arguments: Mapping[str, Any]) -> Reply:
        metadata = arguments.get("metadata")
        if isinstance(metadata, str):
            try:
                metadata = json.loads(metadata)
            except ValueError:
                return _refuse("invalid_metadata_format")
        if metadata is not None and not (
            isinstance(metadata, dict)
            and isinstance(metadata.get("event_type"), str)
            and isinstance(metadata.get("event_payload"), dict)
        ):
            return _refuse("invalid_metadata_schema")
        key = metadata["event_payload"].get("idempotency_key") if metadata else None
        if isinstance(key, str):
            self._duplicates += key in self._keys
            self._keys.add(key)
        self._messages.append({"channel": channel, "text": text, "key": key if isinstance(key, str) else None})
        ts = f"{int(time.time())}.{len(self._messages):06d}"
        message: dict[str, Any] = {"type": "message", "subtype": "bot_message", "text": text, "ts": ts}
        message |= {"bot_id": "B0FAKE000", "username": "backbone"}
        thread = arguments.get("thread_ts")
        stored = message | ({"metadata": metadata} if metadata else {})
        self._stored.append((channel, thread if isinstance(thread, str) else "", stored))
        return json_reply(200, {"ok": True, "channel": _channel_id(channel), "ts": ts, "message": message})

    def _delete(self, arguments: Mapping[str, Any]) -> Reply:
        channel, ts = str(arguments.get("channel", "")), str(arguments.get("ts", ""))
        if not CHANNEL_ID.match(channel):
            return _refuse("channel_not_found")
        for index, (of, _, message) in enumerate(self._stored):
            if _channel_id(of) == channel and message["ts"] == ts:
                del self._stored[index]
                self._deleted += 1
                self._messages[int(ts.partition(".")[2]) - 1]["text"] = None
                return json_reply(200, {"ok": True, "channel": channel, "ts": ts})
        return _refuse("message_not_found")

    def _history(self, arguments: Mapping[str, Any], *, thread: str) -> Reply:
        channel, oldest = str(arguments.get("channel", "")), float(arguments.get("oldest") or 0)
        if not CHANNEL_ID.match(channel):
            return _refuse("channel_not_found")
        whole = str(arguments.get("include_all_metadata", "")).lower() in ("true", "1")
        found = [
            message if whole else {name: value for name, value in message.items() if name != "metadata"}
            for of, its_thread, message in reversed(self._stored)
            if _channel_id(of) == channel and its_thread == thread and float(message["ts"]) >= oldest
        ]
        return _page(found, "messages", arguments)

    def _wait(self, channel: str) -> int:
        """Whole seconds to wait before the next message into the channel; 0 when this one may pass."""
        if self._quota_max is None:
            return 0
        now = time.monotonic()
        ends, count = self._windows.get(channel, (0.0, 0))
        if now >= ends:
            ends, count = now + self._quota_window_s, 0
        if count >= self._quota_max:
            return max(1, math.ceil(ends - now))
        self._windows[channel] = (ends, count + 1)
        return 0


def _arguments(request: Request) -> dict[str, Any] | None:
    if request.headers.get("content-type", "").startswith("application/json"):
        if not request.body:
            return dict(request.query)
        try:
            document = json.loads(request.body)
        except ValueError:
            return None
        return document if isinstance(document, dict) else None
    try:
        return dict(request.query) | dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    except UnicodeDecodeError:
        return None


def _page(items: list[dict[str, Any]], name: str, arguments: Mapping[str, Any]) -> Reply:
    """One page; the cursor is opaque to clients, as Slack's is."""
    first = int(str(arguments.get("cursor") or "next:0").removeprefix("next:"))
    limit = min(1000, int(arguments.get("limit") or 100))
    more = first + limit < len(items)
    document = {"ok": True, name: items[first : first + limit], "has_more": more}
    return json_reply(200, document | {"response_metadata": {"next_cursor": f"next:{first + limit}" if more else ""}})


def _channel_id(channel: str) -> str:
    if not channel.startswith("#"):
        return channel
    letters = "".join(character for character in channel.upper() if character.isascii() and character.isalnum())
    return f"C{letters[:12]:0<8}"


def _refuse(error: str) -> Reply:
    return json_reply(200, {"ok": False, "error": error})
