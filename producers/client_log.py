"""The log of Kafka's client, kept from raising into it."""

from __future__ import annotations

import contextlib
import logging
from typing import Any


class ClientLog:
    """Takes what librdkafka and its callbacks have to say into a logger. It never raises: an exception inside a
    callback of the client throws away records already fetched and reports still to come."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def log(self, level: int, text: str, *arguments: Any, exc_info: bool = False) -> None:
        with contextlib.suppress(Exception):  # the log is what failed: there is nowhere left to say so
            self._logger.log(level, text, *arguments, exc_info=exc_info)

    def warning(self, text: str, *arguments: Any) -> None:
        self.log(logging.WARNING, text, *arguments)

    def error(self, text: str, *arguments: Any, exc_info: bool = False) -> None:
        self.log(logging.ERROR, text, *arguments, exc_info=exc_info)
