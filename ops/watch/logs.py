"""Log lines: one JSON object a line for machines, coloured words for a person at a terminal.

Lines of other libraries pass through the same form. An exception is logged as its type and the places it came
through, never with its text: that may quote what it was given, and payloads do not belong in logs.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LINES_MAX: Final = 100
"""Sampled kinds of line write at most this many a second; the next line says how many were left out."""
REPEAT_S: Final = 30.0
"""A line of the Kafka client, or of the exporter of spans, that differs in numbers only is written this often; the next
says how many there were."""
REPEATERS: Final = ("kafka", "backbone.kafka", "opentelemetry")
_SHAPES_MAX: Final = 200
_NUMBER: Final = re.compile(r"\d+")


class LineBudget:
    """At most ``per_second`` lines in each second; what was left out is counted and handed to the next line.

    Thread-safe. ``now`` is any monotonic clock's seconds."""

    def __init__(self, per_second: int = LINES_MAX) -> None:
        self._per_second = per_second
        self._second = -1
        self._written = 0
        self._left_out = 0
        self._lock = Lock()

    def take(self, now: float | None = None) -> int | None:
        """None: leave this line out. A number: write it, and say that so many were left out before it."""
        second = int(monotonic() if now is None else now)
        with self._lock:
            if second != self._second:
                self._second, self._written = second, 0
            if self._written >= self._per_second:
                self._left_out += 1
                return None
            self._written += 1
            left_out, self._left_out = self._left_out, 0
            return left_out


class OnceInAWhile(logging.Filter):
    """Lets a line of the Kafka client pass once in ``REPEAT_S``: librdkafka writes one for every attempt of every
    connection, a hundred a second while the cluster is away; an exporter one for every batch. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(REPEATERS):
            return True
        message = record.getMessage()
        shape = (record.name, _NUMBER.sub("#", message))
        now = self._clock()
        with self._lock:
            written, left_out = self._seen.get(shape, (-REPEAT_S, 0))
            if now - written < REPEAT_S:
                self._seen[shape] = (written, left_out + 1)
                return False
            if len(self._seen) >= _SHAPES_MAX:
                self._seen.clear()
            self._seen[shape] = (now, 0)
        if left_out:
            record.msg, record.args = f"{message} (and {left_out} lines like it since)", ()
        return True


def configure(
    json: bool | None = None,
    *,
    level: str = "info",
    stream: TextIO | None = None,
    clock: Callable[[], float] = monotonic,
) -> None:
    """Send this process's log lines to ``stream`` (standard error by default) from now on.

    ``json`` None: JSON unless the stream is a terminal. ``level``: debug, info, warning, error, critical; lower lines
    cost almost nothing. ``clock`` is any monotonic one, for what is written once in a while. May be called again;
    loggers made before follow. Writing blocks while the stream does.
    """
    out = sys.stderr if stream is None else stream
    as_json = not out.isatty() if json is None else json
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json, key="time"),
        _exception_without_text,
        _when_and_what_first,
    ]
    last: Processor
    if as_json:
        last = structlog.processors.JSONRenderer(serializer=_one_line)
    else:
        last = structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=24, timestamp_key="time")
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    handler.addFilter(OnceInAWhile(clock))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    # other libraries' lines below warning are theirs to debug, not an operator's to read
    root.setLevel(max(number, logging.WARNING))


def logger() -> FilteringBoundLogger:
    """The logger of this process: ``logger().info("event_in_words", subscription=…)``. Thread-safe."""
    bound: FilteringBoundLogger = structlog.get_logger()
    return bound


def _one_line(content: Any, default: Callable[[Any], Any], **_: Any) -> str:
    return json.dumps(content, default=default, ensure_ascii=False, separators=(",", ":"))


def _when_and_what_first(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    first = {name: line.pop(name) for name in ("time", "level", "event") if name in line}
    return first | dict(line)


def _exception_without_text(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    given = line.pop("exc_info", None)
    line.pop("stack_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        line["error"] = f"{type(error).__module__}.{type(error).__qualname__}"
        frames = traceback.extract_tb(error.__traceback__)[-8:]
        line["at"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return line
