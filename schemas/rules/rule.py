"""A rule: the page behind the id in square brackets that every finding ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Frame: TypeAlias = Literal["file", "record", "promise", "field", "part", "situation"]
"""How an example stands in a file.

``file``: it is the whole file. ``record``: attributes that replace those of an otherwise good contract;
``promise``: its "backbone"; ``field``: one more field of it. ``part``: keys of a YAML or TOML file whose other needed
keys are there.
``situation``: no text alone breaks it; ``breaks`` and ``mend`` are sentences.
"""

GOOD_CONTRACT: Final = """{"type": "record", "name": "PaymentReceived", "namespace": "billing",
 "doc": "A payment arrived.",
 "backbone": {"topic": "billing.payments", "key": "payment_id", "owner": "team-billing", "contact": "#billing",
              "freshness_slo": "60s", "retention": "30d"},
 "fields": [{"name": "payment_id", "type": "string", "doc": "Our number of the payment.", "examples": ["PAY-7"]}]}"""
"""The contract that examples of the frames ``record``, ``promise`` and ``field`` are put into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``id`` is stable and unique over all kinds of files. ``means``: what was found; ``why`` it matters; ``breaks``
    and ``mend``: the shortest example and the same put right. ``in_editor``: the generated JSON Schema finds it too,
    while the file is written."""

    id: str
    means: str
    why: str
    breaks: str
    mend: str
    frame: Frame
    severity: Literal["error", "warning"] = "error"
    in_editor: bool = False
