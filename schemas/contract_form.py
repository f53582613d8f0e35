"""The form of a contract's file: which attributes there are, what kind of value each takes, and a sentence for each.

The one place that knows the attributes: the loader and lint take their names from here, and editors get it as a JSON
Schema. What an attribute means, and the sentence for what breaks it, is in ``contract`` and ``lint``; a test holds the
two against each other, rule by rule. Avro lets anybody add attributes: those of other tools have a dot or a dash in
their name (``connect.name``, ``java-class``), so that a misspelt one of ours is seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from schemas.avsc import NAME_MAX, PRECISION_MAX, PRIMITIVES

PERSONAL_DATA_CLASSES = (
    "email", "phone", "name", "address", "ip", "birth_date", "government_id", "bank", "payment_card", "health",
    "location", "free_text", "other", "none",
)  # fmt: skip
STATUSES = ("draft", "live", "deprecated")
CONSTRAINTS = ("pattern", "minLength", "maxLength", "minimum", "maximum")
PROMISE_TEXT_MAX: Final = 500
FOREIGN: Final = re.compile(r"[.-]")
"""An attribute of another tool."""


def _form(**more: Any) -> ConfigDict:
    return ConfigDict(
        extra="forbid", defer_build=True, json_schema_extra={"patternProperties": {FOREIGN.pattern: {}}, **more}
    )


_FORM_REF: Final = "$form"
"""Stands for a reference to a form in what pydantic writes out: types contain types."""

_NAME = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z_][A-Za-z0-9_]*)*$", "maxLength": NAME_MAX}
_SIMPLE_NAME = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": NAME_MAX}
_TEXT = {"type": "string", "pattern": "\\S"}
_SHORT_TEXT = {"type": "string", "minLength": 1, "maxLength": PROMISE_TEXT_MAX}
_DURATION = {"type": "string", "pattern": "^([0-9]{1,12}(ms|w|d|h|m|s))+$", "maxLength": 60}
_TOPIC = {"type": "string", "pattern": "^(?!\\.{1,2}$)[A-Za-z0-9._-]{1,249}$"}
_TYPE_NAME = {"anyOf": [{"enum": list(PRIMITIVES)}, _NAME], "description": "A primitive type, or one defined above."}
_OBJECTS = ("NestedRecordForm", "EnumForm", "FixedForm", "ArrayForm", "MapForm", "PlainForm")
_OBJECT = {"anyOf": [{_FORM_REF: name} for name in _OBJECTS]}
_UNION = {
    "type": "array", "minItems": 1, "maxItems": 64, "uniqueItems": True,
    "items": {"anyOf": [_TYPE_NAME, _OBJECT]}, "description": "One of several types; [null, T] is an optional T.",
}  # fmt: skip
_TYPE = {"anyOf": [_TYPE_NAME, _UNION, _OBJECT]}
_NO_BYTES = {"enum": ["null", {"type": "null"}]}
_WIDE = {
    "type": "array",
    "anyOf": [{"minItems": 3}, {"not": {"contains": _NO_BYTES}}],
}
_BYTES_DECIMAL = {
    "required": ["type", "logicalType"],
    "properties": {"type": {"const": "bytes"}, "logicalType": {"const": "decimal"}},
}
_DECIMAL = {
    "if": {"required": ["logicalType"], "properties": {"logicalType": {"const": "decimal"}}},
    "then": {"required": ["precision"]},
}

Name = Annotated[str, WithJsonSchema(_NAME)]
Text = Annotated[str, WithJsonSchema(_TEXT)]
ShortText = Annotated[str, WithJsonSchema(_SHORT_TEXT)]
Duration = Annotated[str, WithJsonSchema(_DURATION)]
Type = Annotated[Any, WithJsonSchema(_TYPE)]

_ALIASES = Field(None, description="Former names: old data are read by them.")
_NAMESPACE = Field(None, description="Domain of the name, where it is not that of the event.")
_LOGICAL = Field(None, description="What the value stands for: timestamp-millis, date, uuid, decimal …")
_PRECISION = Field(None, ge=0, le=PRECISION_MAX, description="Digits of a decimal.")
_SCALE = Field(None, ge=0, le=PRECISION_MAX, description="How many of them stand behind the point.")


class PromiseForm(BaseModel):
    """What is promised about the event."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    topic: Annotated[str, WithJsonSchema(_TOPIC)] = Field(
        description="Its topic: one for each entity (billing.invoices), so that its events stay in order."
    )
    key: ShortText = Field(description="The required string field that records are keyed by; order is kept per key.")
    owner: ShortText = Field(description="The team that answers for it.")
    freshness_slo: Duration = Field(description="The age at which an undelivered event is late, like 60s.")
    retention: Duration = Field(description="How long the topic keeps it, like 30d.")
    entity: ShortText | None = Field(None, description="The field that says what it is about; default: the key.")
    contact: ShortText | None = Field(None, description="Where the owner is reached, like #billing.")
    status: Literal[STATUSES] | None = Field(  # type: ignore[valid-type]
        None, description="draft, live (the default) or deprecated."
    )
    replaces: ShortText | None = Field(None, description="The event that this one takes the place of.")
    sunset: ShortText | None = Field(None, description="The date after which it is not published any more.")


class FieldForm(BaseModel):
    """A field of the event."""

    model_config = _form(
        allOf=[
            {
                "if": {"required": ["type"], "properties": {"type": _WIDE}},
                "then": {"required": ["union_reason"]},
            }
        ]
    )
    name: Annotated[str, WithJsonSchema(_SIMPLE_NAME)] = Field(description="Its name, in snake_case.")
    type: Type = Field(description="Its Avro type.")
    doc: Text = Field(description="What it means, in a sentence.")
    default: Annotated[Any, WithJsonSchema({"not": {"type": "string", "pattern": "^[{\\[]"}})] = Field(
        None, description="What readers take where old data have no such field; of a union it fits the first type."
    )
    personal_data: Literal[PERSONAL_DATA_CLASSES] | None = Field(  # type: ignore[valid-type]
        None, description="The class of personal data it holds, or none."
    )
    examples: list[Any] | None = Field(
        None, max_length=20, description="Values as they may be; tests are filled from the first one."
    )
    pattern: Annotated[str, WithJsonSchema({"type": "string", "maxLength": 1000})] | None = Field(
        None, description="A regular expression that a text must contain a match of; ^ and $ for the whole."
    )
    minLength: int | float | None = Field(None, ge=0, description="Characters of a text, at least.")
    maxLength: int | float | None = Field(None, ge=0, description="Characters of a text, at most.")
    minimum: int | float | None = Field(None, description="The least number.")
    maximum: int | float | None = Field(None, description="The greatest number.")
    union_reason: Text | None = Field(None, description="Why it may be of more types than null and one.")
    aliases: list[str] | None = _ALIASES
    order: Literal["ascending", "descending", "ignore"] | None = Field(None, description="Avro's sort order.")


class NestedRecordForm(BaseModel):
    """A record: fields with names."""

    model_config = _form()
    type: Literal["record", "error"] = Field(description="A record.")
    name: Name = Field(description="Its name.")
    doc: Text = Field(description="What it is, in a sentence.")
    fields: list[FieldForm] = Field(description="Its fields.")
    namespace: str | None = _NAMESPACE
    aliases: list[str] | None = _ALIASES


class ContractForm(BaseModel):
    """An event: its Avro schema and what is promised about it."""

    model_config = _form()
    type: Literal["record"] = Field(description="An event is a record.")
    name: Name = Field(description="What has happened, in the past tense: InvoicePaid. The file has the same name.")
    namespace: Name = Field(description="Its domain: billing. The file's folder has the same name.")
    doc: Text = Field(description="What happened, in a sentence.")
    backbone: PromiseForm = Field(description="What is promised about the event.")
    fields: list[FieldForm] = Field(description="What is said of it.")
    aliases: list[str] | None = _ALIASES


class EnumForm(BaseModel):
    """One of several names."""

    model_config = _form()
    type: Literal["enum"] = Field(description="One of several names.")
    name: Name = Field(description="Its name.")
    symbols: Annotated[
        list[str],
        WithJsonSchema(
            {"type": "array", "minItems": 1, "maxItems": 1000, "uniqueItems": True,
             "items": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}}
        ),
    ] = Field(description="The names.")  # fmt: skip
    default: str | None = Field(None, description="The symbol that old readers take for one they do not know.")
    doc: str | None = Field(None, description="What it is, in a sentence.")
    namespace: str | None = _NAMESPACE
    aliases: list[str] | None = _ALIASES


class FixedForm(BaseModel):
    """So many bytes."""

    model_config = _form(**_DECIMAL)
    type: Literal["fixed"] = Field(description="So many bytes.")
    name: Name = Field(description="Its name.")
    size: int = Field(ge=0, le=1 << 20, description="How many bytes.")
    logicalType: str | None = _LOGICAL
    precision: int | None = _PRECISION
    scale: int | None = _SCALE
    doc: str | None = Field(None, description="What it is, in a sentence.")
    namespace: str | None = _NAMESPACE
    aliases: list[str] | None = _ALIASES


class ArrayForm(BaseModel):
    """A list."""

    model_config = _form()
    type: Literal["array"] = Field(description="A list.")
    items: Annotated[Any, WithJsonSchema({**_TYPE, "not": _NO_BYTES})] = Field(description="The type of its items.")
    doc: str | None = Field(None, description="What it is, in a sentence.")


class MapForm(BaseModel):
    """Values by a text."""

    model_config = _form()
    type: Literal["map"] = Field(description="Values by a text.")
    values: Type = Field(description="The type of its values.")
    doc: str | None = Field(None, description="What it is, in a sentence.")


class PlainForm(BaseModel):
    """A primitive type with what it stands for, or a type in an object of its own."""

    model_config = _form(**_DECIMAL, **{"not": _BYTES_DECIMAL})
    type: Annotated[
        Any,
        WithJsonSchema(
            {"anyOf": [{"allOf": [_TYPE_NAME, {"not": {"enum": ["record", "error", "enum", "fixed", "array", "map"]}}]},
                       _UNION, _OBJECT]}
        ),
    ] = Field(description="A primitive type, or one defined above.")  # fmt: skip
    logicalType: str | None = _LOGICAL
    precision: int | None = _PRECISION
    scale: int | None = _SCALE
    doc: str | None = Field(None, description="What it is, in a sentence.")


FORMS: tuple[type[BaseModel], ...] = (
    ContractForm, PromiseForm, FieldForm, NestedRecordForm, EnumForm, FixedForm, ArrayForm, MapForm, PlainForm,
)  # fmt: skip
_BY_TYPE: Mapping[str, type[BaseModel]] = {
    "record": NestedRecordForm, "error": NestedRecordForm, "enum": EnumForm, "fixed": FixedForm, "array": ArrayForm,
    "map": MapForm,
}  # fmt: skip


def form_schema() -> dict[str, Any]:
    """The form as a JSON Schema, draft 2020-12. What is left out is left out: null is no value of an attribute."""
    from pydantic.json_schema import models_json_schema

    _, whole = models_json_schema([(form, "validation") for form in FORMS])
    definitions = _plain(whole["$defs"])
    return {**definitions.pop("ContractForm"), "$defs": definitions}


def _plain(node: Any) -> Any:
    """Without pydantic's titles and nulls, and with references in place of the names of forms."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, dict):
        return node
    if _FORM_REF in node:
        return {"$ref": f"#/$defs/{node[_FORM_REF]}"}
    out = {key: _plain(value) for key, value in node.items() if not (key in ("title", "default") and _is_ours(value))}
    if {"type": "null"} in out.get("anyOf", ()):
        branches = [one for one in out.pop("anyOf") if one != {"type": "null"}]
        return {**out, **(branches[0] if len(branches) == 1 else {"anyOf": branches})}
    return out


def _is_ours(value: Any) -> bool:
    """Whether a title or default is one that pydantic has written, and not a property of that name."""
    return not isinstance(value, dict)


def attributes(form: type[BaseModel]) -> tuple[str, ...]:
    return tuple(form.model_fields)


def form_of(type_: Mapping[str, Any]) -> type[BaseModel]:
    """The form of a type that is an object, below the contract itself."""
    kind = type_["type"]
    return _BY_TYPE.get(kind, PlainForm) if isinstance(kind, str) else PlainForm
