"""The health check of containers: ``python -m ops.local.asks URL`` ends with 0 if the URL answers 200, else with 1."""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

ANSWER_MAX_S = 4.0


def answers(url: str) -> bool:
    """Whether it answers 200 in time. Follows no redirect and no proxy."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_MAX_S)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
