"""A small event of the tests' own, on any topic: its contract, and a model such as ``schema generate`` writes."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from schemas.contract import Contract, contract_from_schema


def contract_on(topic: str, **promise: str) -> Contract:
    """``demo.NoteWritten`` on that topic."""
    return contract_from_schema(
        {
            "type": "record",
            "name": "NoteWritten",
            "namespace": "demo",
            "doc": "A note was written.",
            "backbone": {
                "topic": topic, "key": "note_id", "owner": "team", "freshness_slo": "60s", "retention": "1d", **promise,
            },
            "fields": [
                {"name": "note_id", "type": "string", "doc": "Its id.", "minLength": 1},
                {"name": "text", "type": "string", "doc": "What it says.", "personal_data": "free_text"},
                {"name": "count", "type": "long", "doc": "A number.", "minimum": 0, "default": 0},
                {
                    "name": "parts",
                    "doc": "Its parts.",
                    "default": [],
                    "type": {
                        "type": "array",
                        "items": {
                            "type": "record",
                            "name": "Part",
                            "doc": "One.",
                            "fields": [{"name": "word", "type": "string", "doc": "A word."}],
                        },
                    },
                },
            ],
        }
    )  # fmt: skip


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    word: str


class Note(BaseModel):
    """Subclassed by ``note_model`` with its contract."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    contract: ClassVar[Contract]
    note_id: str
    text: str
    count: int = 0
    parts: list[Part] = []


def note_model(contract: Contract) -> type[Note]:
    return type("NoteWritten", (Note,), {"contract": contract, "__module__": __name__})


def note(id: str = "n-1", **values: Any) -> dict[str, Any]:
    return {"note_id": id, "text": "hello", **values}
