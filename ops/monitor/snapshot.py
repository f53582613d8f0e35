"""What one round of the monitor found: groups, open dead letters, connections. Plain data, and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ops.connections import ConnectionStatus, as_row
from ops.lag.measure import GroupLag
from ops.lag.rows import at_text, group_document, rounded
from ops.wording import plain_json

SNAPSHOT = "backbone.monitor/v1"
GROUP = "backbone.monitor_group/v1"
HISTORY = "backbone.monitor_history/v1"


@dataclass(frozen=True, slots=True)
class Letters:
    """The open dead letters of a subscription; ``oldest_at`` seconds since the epoch, None without any."""

    open: int
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class Attachment:
    """What an attached subscription is, for labels that join: who owns it and where it delivers to."""

    owner: str
    connection: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One round. ``at``: when the cluster was read, seconds since the epoch; ``round_s``: how long that took."""

    at: float
    round_s: float
    every_s: float
    groups: tuple[GroupLag, ...]
    attached: Mapping[str, Attachment] = field(default_factory=dict)
    letters: Mapping[str, Letters] = field(default_factory=dict)
    connections: tuple[ConnectionStatus, ...] = ()
    workers: int = 0
    reconciled: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, GroupLag]:
        return {group.name: group for group in self.groups}

    @cached_property
    def groups_json(self) -> str:
        """The groups as a JSON list: made once, however often it is asked for."""
        return plain_json([group_document(group) for group in self.groups])

    def head(self) -> dict[str, Any]:
        """The snapshot without its groups, as documented in ``backbone monitor --help``."""
        return {
            "sampled_at": at_text(self.at),
            "round_seconds": rounded(self.round_s),
            "every_seconds": self.every_s,
            "workers": self.workers,
            "deadletters": [
                {
                    "subscription": name,
                    "open": letters.open,
                    "oldest_at": None if letters.oldest_at is None else at_text(letters.oldest_at),
                    "oldest_seconds": None
                    if letters.oldest_at is None
                    else rounded(max(0.0, self.at - letters.oldest_at)),
                }
                for name, letters in sorted(self.letters.items())
            ],
            "connections": [as_row(status) for status in self.connections],
        }


def envelope(schema: str, context: str, data: str, *, warnings: tuple[str, ...] = ()) -> str:
    """A document as the command line writes them; ``data`` is JSON already."""
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    head = json.dumps({"schema": schema, "context": context, "at": at}, ensure_ascii=False)[:-1]
    return f'{head}, "data": {data}, "warnings": {json.dumps(list(warnings), ensure_ascii=False)}}}'


def refusal(context: str, code: int, message: str) -> str:
    """The document of an error: like the command line's, with its exit code."""
    error = json.dumps({"code": code, "message": message}, ensure_ascii=False)
    return f'{envelope("backbone.error/v1", context, "null")[:-1]}, "error": {error}}}'
