"""What is wrong with a contract before anybody relies on it, and which foreign schemas are not decoded at all."""

from __future__ import annotations

from typing import Any

from schemas import avsc
from schemas.findings import Finding


def lint_foreign(schema: Any, file: str = "") -> list[Finding]:
    """Why data of this parsed schema is not decoded: shapes that kill or stall a decoder, and what is no Avro at all.
    Empty: bounded to decode. Never raises."""
    return [
        Finding(file=file, path=problem.path, rule=problem.rule, message=problem.message)
        for problem in avsc.problems(schema)
        if problem.rule != "bytes-decimal"
    ]
