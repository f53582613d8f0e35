"""Publishing a file of events: JSON lines in, acknowledgements counted, and a way to go on when it breaks off."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final

from schemas import avsc
from schemas.datum import from_json_value
from schemas.errors import BackboneError, InputError, NotAllowedError, NotFoundError, UnreachableError

if TYPE_CHECKING:
    from producers.publisher import Acknowledgement, Publisher
    from schemas.codec import Encoder
    from schemas.contract import Contract

LINE_BYTES_MAX: Final = 4 << 20
"""JSON of an event of 1 MiB takes less, escapes and all but the strangest included"""
UNDER_WAY_MAX: Final = 10_000
SETTLED_WITHIN_S: Final = 130.0
"""Kafka's client settles every send within 120 s; a little more, so that its answer is the one shown."""

_LINES = uuid.uuid5(uuid.NAMESPACE_OID, "event-backbone lines")


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a file: its line number from 1, and the payload as the contract wants it."""

    number: int
    data: Mapping[str, Any]
    text: bytes

    def repeatable_id(self, contract: Contract, source: str) -> str:
        """The same id for the same line of the same file, so that publishing it again is harmless."""
        digest = hashlib.sha256(self.text).hexdigest()
        return str(uuid.uuid5(_LINES, f"{contract.name}\n{source}\n{self.number}\n{digest}"))


@dataclass(frozen=True, slots=True)
class Done:
    """How far a file came. ``failures`` are lines without an acknowledgement, with why; ``next_line`` is the first
    that was not handed over because of them (None: the file was read to its end)."""

    acked: int
    failures: tuple[tuple[int, BackboneError], ...] = ()
    next_line: int | None = None


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises InputError saying what is wrong and where, without quoting it."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise InputError(f"it is not JSON: {error.msg} at {place}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        reasons = {UnicodeDecodeError: "it is not UTF-8 text", RecursionError: "it is nested too deeply"}
        reason = str(error) if isinstance(error, _NotJsonError) else reasons.get(type(error), "a number is too large")
        raise InputError(reason) from None
    if not isinstance(found, dict):
        raise InputError("an event is a JSON object with its fields")
    return found


def read_lines(stream: IO[bytes], contract: Contract, *, from_line: int = 1) -> Iterator[Line]:
    """The events of JSON lines; blank lines count but are passed over. Raises LineError."""
    number, payload = 0, avsc.resolved(contract.schema)
    while text := _line(stream, number + 1):
        number += 1
        if number < from_line or not text.strip():
            continue
        try:
            found = parse_object((text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text).strip())
            data = from_json_value(payload, found, "")
        except InputError as error:
            several = "; one event stands on one line" if text.strip() in (b"{", b"[") else ""
            raise LineError(number, f"{str(error).rstrip('.')}{several}.") from None
        yield Line(number, data, text)


def _line(stream: IO[bytes], number: int) -> bytes:
    try:
        text = stream.readline(LINE_BYTES_MAX + 1)
    except OSError as error:
        raise LineError(number, f"it cannot be read ({error.strerror or 'input/output error'}).") from None
    if len(text) > LINE_BYTES_MAX:
        raise LineError(number, f"it is longer than {LINE_BYTES_MAX >> 20} MiB; one event stands on one line.")
    return text


def check_line(encoder: Encoder, contract: Contract, line: Line) -> None:
    """Raises LineError if the event does not fit its contract. Publishes nothing."""
    try:
        encoder.encode(contract, line.data, id="check", source="check", time=datetime.now(UTC))
    except InputError as error:
        raise LineError(line.number, str(error)) from None


def publish_lines(
    publisher: Publisher,
    contract: Contract,
    lines: Iterator[Line],
    *,
    source: str,
    is_repeatable: bool,
    advance: Callable[[int], None],
) -> Done:
    """Publish lines in order, at most ``UNDER_WAY_MAX`` without an answer, and stop at the first that fails.

    A line that cannot be read counts as failed. ``advance`` is told of acknowledgements as they are counted. Ctrl-C
    passes through as ``Interrupted`` with what was done. Blocks.
    """
    under_way: deque[tuple[int, Future[Acknowledgement]]] = deque()
    failures: list[tuple[int, BackboneError]] = []
    acked, line_number, next_line = 0, 0, 0

    def settle(*, leave: int, timeout_s: float = SETTLED_WITHIN_S) -> None:
        nonlocal acked
        while under_way and (len(under_way) > leave or under_way[0][1].done()):
            number, future = under_way.popleft()
            try:
                future.result(timeout_s)
            except BackboneError as error:
                failures.append((number, by_cause(error)))
            except TimeoutError:
                failures.append((number, UnreachableError("Kafka has not confirmed it; it may be in the log or not.")))
            else:
                acked += 1
                advance(1)

    try:
        try:
            for line in lines:
                line_number = line.number
                identity = line.repeatable_id(contract, source) if is_repeatable else None
                future = publisher.publish_data(contract, line.data, source=source, id=identity)
                under_way.append((line.number, future))
                # what does not fit its contract is known at once: nothing after it is published
                refused = future.done() and future.exception(0) is not None
                settle(leave=0 if refused else UNDER_WAY_MAX)
                if failures:
                    next_line = line_number if refused else line_number + 1
                    break
            else:
                settle(leave=0)
                return Done(acked, tuple(failures))
        except BackboneError as error:
            # a line that cannot be read, or one that was not taken (the queue stays full, the registry is away)
            broken = error.number if isinstance(error, LineError) else line_number
            settle(leave=0)
            return Done(acked, (*failures, (broken, error)), broken)
        settle(leave=0)
        return Done(acked, tuple(failures), next_line)
    except KeyboardInterrupt:
        settle(leave=0, timeout_s=5.0)
        raise Interrupted(Done(acked, tuple(failures), line_number + 1)) from None


def by_cause(error: BackboneError) -> BackboneError:
    """A publish that was rejected as the error that says what to do, with its exit code."""
    if isinstance(error.__cause__, BackboneError):
        return error.__cause__
    match getattr(error, "code", ""):
        case "TOPIC_AUTHORIZATION_FAILED" | "CLUSTER_AUTHORIZATION_FAILED":
            return NotAllowedError(str(error))
        case "UNKNOWN_TOPIC_OR_PART" | "_UNKNOWN_TOPIC":
            return NotFoundError(str(error))
    return error


class LineError(InputError):
    """A line of a file is no event of its contract; the message names line and field."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"Line {number:,}: {message}")
        self.number = number


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a file was being published."""

    def __init__(self, done: Done) -> None:
        super().__init__()
        self.done = done


class _NotJsonError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotJsonError("a key stands twice in one object; one of them would silently win")
    return found


def _no_constant(name: str) -> Any:
    raise _NotJsonError(f"{name} is not JSON")
