"""Compatibility modes, as Confluent's registry names them: which versions of a schema are compared with a new one."""

from __future__ import annotations

MODES = (
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE",
)  # fmt: skip
DEFAULT_MODE = "FULL_TRANSITIVE"
