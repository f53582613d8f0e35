"""What a database can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from connectors.connector import Action

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
"""Names of tables and columns: what every database takes, at most 63 characters (PostgreSQL's limit)."""

RESERVED = "backbone_"
"""Columns that begin so are ours."""


class RowUpsert(BaseModel):
    """Writes a row; the route's ``entity`` is its key, so the same event again is the same row. Columns that are left
    out stay as they are. A late, older write never overwrites a newer one of the same partition.

    The table and its columns are made when they are missing, by the type of their first value; nothing is ever
    dropped or narrowed. Nested values become JSON columns; times are UTC."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"table": "invoice_created", "row": {"invoice_id": "inv-1", "lines": [1, 2]}}]},
    )

    table: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(description="The table's name: letters, digits and _.")
    row: dict[str, Any] = Field(
        description="Column names and values: text, numbers, truth values, times, bytes, and lists and maps of them. "
        "Names that begin with backbone_ are ours."
    )


class RowDelete(BaseModel):
    """Deletes the row whose key is the route's ``entity``; one that is not there any more, or a table that is not,
    counts as deleted. An older delete never takes a row that a later event of the same partition has written.
    ``backbone erase`` asks for it; a route may, too."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"table": "invoice_created"}]},
    )

    table: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(description="The table's name: letters, digits and _.")


DELETE = "row.delete"
ACTIONS: Mapping[str, Action] = {
    "row.upsert": Action(
        name="row.upsert", body=RowUpsert, upsert=True, about=("table",), fields_in="row", erased_by=DELETE
    ),
    DELETE: Action(name=DELETE, body=RowDelete, upsert=False, about=("table",)),
}
