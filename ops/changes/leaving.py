"""Our workers leave a group for a moment, because its positions can be set only while nobody is in it.

The request carries the moment it ends (``LEAVE_MAX``), so that workers return even if the machine of the person who
asked dies in between.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from consumers.control import ControlRecord, Leave, leave_record, timestamp
from ops.changes.group_positions import described
from ops.changes.rewind_plan import members_in_words
from schemas.errors import BackboneError, RefusedError

if TYPE_CHECKING:
    from ops.app import App

LEAVE_MAX = timedelta(minutes=5)
EMPTY_WITHIN_S = 60.0
"""Workers drain for up to 25 s before they leave; one that was killed is noticed by its session's end, 45 s."""


def ask_to_leave(app: App, name: str, change_id: str) -> None:
    """Return when nobody is in the group any more. Raises RefusedError if somebody stays; then, and whatever else
    happens here (Ctrl-C too), the workers are let back in, because nothing was changed yet."""
    with coming_back_on(BaseException, app, name):
        until = timestamp(datetime.now(UTC) + LEAVE_MAX)
        write(app, [leave_record(name, Leave(change=change_id, until=until))])
        deadline = time.monotonic() + EMPTY_WITHIN_S
        while (group := described(app, name)).members:
            if time.monotonic() > deadline:
                raise RefusedError(
                    f"{name} still has members after {EMPTY_WITHIN_S:.0f} s: "
                    f"{members_in_words(group.members)}. They are no workers of this backbone, or they hang. "
                    "Nothing was changed."
                )
            time.sleep(0.2)  # a group cannot be waited for, only asked


def let_back(app: App, name: str) -> None:
    """The workers may come back."""
    write(app, [leave_record(name, None)])


@contextlib.contextmanager
def coming_back_on(kind: type[BaseException], app: App, name: str) -> Iterator[None]:
    """Let the workers back in when it ends with such an error. With RefusedError it was refused as a whole, and they
    may go on where they were; half done they stay away until the request runs out, so that the person can go on or
    take it back before anything is read from the new places."""
    try:
        yield
    except kind:
        with contextlib.suppress(BackboneError):  # they come back by themselves when the request has run out
            let_back(app, name)
        raise


def write(app: App, records: Iterable[ControlRecord]) -> None:
    """Write to ``backbone.control``, nothing where there is nothing to write."""
    from ops.control import write_control

    if wanted := list(records):
        write_control(app, wanted)
