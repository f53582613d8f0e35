"""Credentials that change while a worker runs: looked at again and again, taken without a restart where that can be.

What is read is compared, not a file's time: it holds for a file that is written anew, for Kubernetes' swap of a
symbolic link, and for a secret of the vault alike. What cannot be read, or is no credential, is said and changes
nothing: what was there stays in use, until the place is right again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ops.secrets.lookup import Secrets
from schemas.errors import BackboneError

LOOK_S = 2.0
"""How often the places are looked at."""

Say: TypeAlias = Callable[[str, str], None]
"""Hears (what it is, sentence) once for each thing that is worth a log line; an empty sentence: it was taken."""


@dataclass(slots=True, eq=False)
class Use:
    """Something that was opened with credentials. Not frozen: ``now`` follows what was taken.

    ``read`` looks them up anew; it blocks, is called in a thread, and raises BackboneError where they cannot be had or
    are none. ``expiry(now)`` is when they end, in seconds since the epoch, under the name ``label``; it may block.
    ``take(before, after)`` is called on the event loop when they differ; it does not block, and answers why
    a restart is needed, or nothing."""

    name: str
    read: Callable[[], Any]
    take: Callable[[Any, Any], str]
    now: Any = field(repr=False)
    label: str = ""
    expiry: Callable[[Any], float | None] = lambda _: None


class Rotation:
    """Made and used on the event loop. ``every_s``: how often it looks."""

    def __init__(self, secrets: Secrets, say: Say, *, every_s: float = LOOK_S) -> None:
        self._secrets, self._say, self._every_s = secrets, say, every_s
        self._uses: dict[str, Use] = {}
        self._unread: dict[str, str] = {}
        self._restarts: dict[str, str] = {}

    def watch(self, use: Use) -> None:
        """From the next look on; one of the same name takes its place."""
        self._uses[use.name] = use

    @property
    def said(self) -> Sequence[str]:
        """A sentence for each credential that was replaced and could not be taken, as of the last look."""
        found = sorted((*self._unread.items(), *self._restarts.items()))
        return [f"{name[:1].upper()}{name[1:]}: {sentence}" for name, sentence in found]

    def expiries(self) -> dict[str, float]:
        """When what is in use ends, by label, where that is known. From any thread; blocks on reading files."""
        found: dict[str, float] = {}
        for use in list(self._uses.values()):
            ends = use.expiry(use.now)
            if ends is not None:
                found[use.label] = min(ends, found.get(use.label, ends))
        return found

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except Exception:  # a worker that looks no more would run into credentials that have ended
                logging.getLogger("backbone").error("looking at credentials failed", exc_info=True)

    async def look(self) -> None:
        """Renew what is leased, read everything anew, and let those take it whose credentials differ."""
        away = await asyncio.to_thread(self._secrets.refresh)
        self._tell(self._unread, "the vault", " ".join(f"{one} {KEPT}" for one in away))
        for use in list(self._uses.values()):
            try:
                after = await asyncio.to_thread(use.read)
                if after != use.now:
                    self._tell(self._restarts, use.name, use.take(use.now, after))
                    use.now = after
                    if use.name not in self._restarts:
                        self._say(use.name, "")
            except BackboneError as error:
                self._tell(self._unread, use.name, f"{error} {KEPT}")
            else:
                self._unread.pop(use.name, None)

    def _tell(self, kept: dict[str, str], name: str, sentence: str) -> None:
        if not sentence:
            kept.pop(name, None)
        elif kept.get(name) != sentence:
            kept[name] = sentence
            self._say(name, sentence)


KEPT = "What it was opened with stays in use."
