"""The three ways in which publishing fails, sorted by what the caller does next."""

from __future__ import annotations

from schemas.errors import RefusedError, UnreachableError


class EventRejected(RefusedError):
    """It was never written and never will be as it is (schema, size, permission, no such topic): correct the cause.

    ``code`` is Kafka's name of the error (``MSG_SIZE_TOO_LARGE``) or ``CLOSED``.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class PublishUnknown(UnreachableError):
    """It may be in the log or not: publish it again *with the same id* (a duplicate in the log is harmless then).

    ``id`` is the event's id, empty where the error speaks of several events; ``code`` is Kafka's name of the error.
    """

    def __init__(self, message: str, *, id: str = "", code: str = "") -> None:
        super().__init__(message)
        self.id = id
        self.code = code


class Backpressure(UnreachableError):
    """The queue to Kafka stayed full for the whole bounded wait: this send was *not* taken. Slow down and send it
    again later."""
