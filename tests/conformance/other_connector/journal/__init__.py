"""Journal: one line of JSON a delivery, at the end of a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from connectors.connector import Action, Connector, ConnectorType, Idempotency, JsonValue


class Line(BaseModel):
    """Writes a line."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    text: str = Field(max_length=1000, description="What the line says.")


class JournalSettings(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    path: Path = Field(description="The file that lines are added to.")


def _open(settings: JournalSettings) -> Connector:
    from journal.connector import Journal

    return Journal(settings.path)


def _fake_settings(url: str, folder: Path) -> dict[str, JsonValue]:
    folder.mkdir(parents=True, exist_ok=True)
    return {"path": str(folder / "journal.jsonl")}


CONNECTOR = ConnectorType(
    name="journal",
    doc="Journal: lines in a file. The same line may be there twice after a crash.",
    idempotency=Idempotency("none"),
    on_unknown="resend",
    batch_max=10,
    actions={"line.add": Action(name="line.add", body=Line, upsert=False)},
    settings=JournalSettings,
    open=_open,
    fake=None,
    fake_settings=_fake_settings,
)
