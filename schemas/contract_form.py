"""The form of a contract's file: which attributes there are, what kind of value each takes, and a sentence for each.

The one place that knows the attributes: the loader and lint take their names from here, and editors get it as a JSON
Schema. It is plain data, because every service loads contracts and most of an Avro type is no shape of a pydantic model
(a type is a name, a list or an object, and contains types). What an attribute means, and the sentence for what breaks
it, is in ``contract`` and ``lint``; a test holds the two against each other, rule by rule.

Avro lets anybody add attributes: those of other tools have a dot or a dash in their name (``connect.name``,
``java-class``), so that a misspelt one of ours is seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.avsc import NAME_MAX, PRECISION_MAX, PRIMITIVES

PERSONAL_DATA_CLASSES = (
    "email", "phone", "name", "address", "ip", "birth_date", "government_id", "bank", "payment_card", "health",
    "location", "free_text", "other", "none",
)  # fmt: skip
STATUSES = ("draft", "live", "deprecated")
CONSTRAINTS = ("pattern", "minLength", "maxLength", "minimum", "maximum")
PROMISE_TEXT_MAX: Final = 500
EXAMPLES_MAX: Final = 20
EXAMPLE_TEXT_MAX: Final = 1_000
FOREIGN: Final = re.compile(r"[.-]")
"""An attribute of another tool."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """``about``: a sentence for people; ``value``: the JSON Schema of its value."""

    about: str
    value: Mapping[str, Any]
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """An object of the file. ``takes_foreign``: attributes of other tools may stand in it. ``more``: what else its JSON
    Schema says."""

    about: str
    attributes: Mapping[str, Attribute]
    takes_foreign: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """The form as a JSON Schema."""
        return {
            "description": self.about,
            "type": "object",
            "properties": {name: {"description": one.about, **one.value} for name, one in self.attributes.items()},
            "required": [name for name, one in self.attributes.items() if one.is_needed],
            **({"patternProperties": {FOREIGN.pattern: {}}} if self.takes_foreign else {}),
            "additionalProperties": False,
            **self.more,
        }


_NAME = {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", "maxLength": NAME_MAX}
_SIMPLE_NAME = {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": NAME_MAX}
_NAMES = {"type": "array", "items": {"type": "string"}}
_STRING = {"type": "string"}
_NUMBER = {"type": "number"}
_LENGTH = {"type": "number", "minimum": 0}
_TEXT = {"type": "string", "pattern": r"\S"}
_SHORT_TEXT = {"type": "string", "minLength": 1, "maxLength": PROMISE_TEXT_MAX}
_DURATION = {"type": "string", "pattern": "^([0-9]{1,12}(ms|w|d|h|m|s))+$", "maxLength": 60}
_TOPIC = {"type": "string", "pattern": r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$"}
_DIGITS = {"type": "integer", "minimum": 0, "maximum": PRECISION_MAX}
_TYPE_NAME = {"anyOf": [{"enum": list(PRIMITIVES)}, _NAME]}
_OBJECT = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("record", "enum", "fixed", "array", "map", "plain")]}
_UNION = {
    "type": "array", "minItems": 1, "maxItems": 64, "uniqueItems": True, "items": {"anyOf": [_TYPE_NAME, _OBJECT]},
}  # fmt: skip
_TYPE = {"anyOf": [_TYPE_NAME, _UNION, _OBJECT]}
_NO_BYTES = {"enum": ["null", {"type": "null"}]}
_WIDE = {"type": "array", "anyOf": [{"minItems": 3}, {"not": {"contains": _NO_BYTES}}]}
_IS_DECIMAL = {"required": ["logicalType"], "properties": {"logicalType": {"const": "decimal"}}}
_DECIMAL = {"if": _IS_DECIMAL, "then": {"required": ["precision"]}}
_ON_BYTES = {"required": ["type"], "properties": {"type": {"const": "bytes"}}}
_WITHOUT_FORM = {"not": {"enum": ["record", "error", "enum", "fixed", "array", "map"]}}

_ALIASES = Attribute("Former names: old data are read by them.", _NAMES)
_DOC = Attribute("What it is, in a sentence.", _STRING)
_OF_NAMED = {
    "namespace": Attribute("Domain of the name, where it is not that of the event.", _STRING),
    "aliases": _ALIASES,
}
_LOGICAL = {
    "logicalType": Attribute("What the value stands for: timestamp-millis, date, uuid, decimal …", _STRING),
    "precision": Attribute("Digits of a decimal.", _DIGITS),
    "scale": Attribute("How many of them stand behind the point.", _DIGITS),
}


def _type(name: str, about: str) -> dict[str, Attribute]:
    return {"type": Attribute(about, {"const": name}, True)}


PROMISE = Form(
    "What is promised about the event.",
    {
        "topic": Attribute(
            "Its topic: one for each entity (billing.invoices), so that its events stay in order.", _TOPIC, True
        ),
        "key": Attribute(
            "The required string field that records are keyed by; order is kept per key.", _SHORT_TEXT, True
        ),
        "owner": Attribute("The team that answers for it.", _SHORT_TEXT, True),
        "freshness_slo": Attribute("The age at which an undelivered event is late, like 60s.", _DURATION, True),
        "retention": Attribute("How long the topic keeps it, like 30d.", _DURATION, True),
        "entity": Attribute("The field that says what it is about; default: the key.", _SHORT_TEXT),
        "contact": Attribute("Where the owner is reached, like #billing.", _SHORT_TEXT),
        "status": Attribute("draft, live (the default) or deprecated.", {"enum": list(STATUSES)}),
        "replaces": Attribute("The event that this one takes the place of.", _SHORT_TEXT),
        "replaced_by": Attribute("The event that takes its place, once it is deprecated.", _SHORT_TEXT),
        "sunset": Attribute("The last day on which a deprecated event is published, like 2027-03-31.", _SHORT_TEXT),
    },
    takes_foreign=False,
)
FIELD = Form(
    "A field of the event.",
    {
        "name": Attribute("Its name, in snake_case.", _SIMPLE_NAME, True),
        "type": Attribute("Its Avro type; [null, T] is an optional T.", _TYPE, True),
        "doc": Attribute("What it means, in a sentence.", _TEXT, True),
        "default": Attribute(
            "What readers take where old data have no such field; of a union it fits the first type.",
            {"not": {"type": "string", "pattern": r"^[{\[]"}},
        ),
        "personal_data": Attribute(
            "The class of personal data it holds, or none.", {"enum": list(PERSONAL_DATA_CLASSES)}
        ),
        "examples": Attribute(
            "Values as they may be; tests are filled from the first one.",
            {"type": "array", "maxItems": EXAMPLES_MAX, "items": {"maxLength": EXAMPLE_TEXT_MAX}},
        ),
        "pattern": Attribute(
            "A regular expression that a text must contain a match of; ^ and $ for the whole.",
            {"type": "string", "maxLength": 1000},
        ),
        "minLength": Attribute("Characters of a text, at least.", _LENGTH),
        "maxLength": Attribute("Characters of a text, at most.", _LENGTH),
        "minimum": Attribute("The least number.", _NUMBER),
        "maximum": Attribute("The greatest number.", _NUMBER),
        "union_reason": Attribute("Why it may be of more types than null and one.", _TEXT),
        "aliases": _ALIASES,
        "order": Attribute("Avro's sort order.", {"enum": ["ascending", "descending", "ignore"]}),
    },
    more={
        "if": {"required": ["type"], "properties": {"type": _WIDE}},
        "then": {"required": ["union_reason"]},
    },
)
_FIELDS = Attribute("What is said of it.", {"type": "array", "items": {"$ref": "#/$defs/field"}}, True)
CONTRACT = Form(
    "An event: its Avro schema and what is promised about it.",
    {
        **_type("record", "An event is a record."),
        "name": Attribute(
            "What has happened, in the past tense: InvoicePaid. The file has the same name.", _NAME, True
        ),
        "namespace": Attribute("Its domain: billing. The file's folder has the same name.", _NAME, True),
        "doc": Attribute("What happened, in a sentence.", _TEXT, True),
        "backbone": Attribute("What is promised about the event.", {"$ref": "#/$defs/promise"}, True),
        "fields": _FIELDS,
        "aliases": _ALIASES,
    },
)
_RECORD = Form(
    "A record: fields with names.",
    {
        "type": Attribute("A record.", {"enum": ["record", "error"]}, True),
        "name": Attribute("Its name.", _NAME, True),
        "doc": Attribute("What it is, in a sentence.", _TEXT, True),
        "fields": _FIELDS,
        **_OF_NAMED,
    },
)
_ENUM = Form(
    "One of several names.",
    {
        **_type("enum", "One of several names."),
        "name": Attribute("Its name.", _NAME, True),
        "symbols": Attribute(
            "The names.",
            {"type": "array", "minItems": 1, "maxItems": 1000, "uniqueItems": True, "items": _SIMPLE_NAME},
            True,
        ),
        "default": Attribute("The symbol that old readers take for one they do not know.", _STRING),
        "doc": _DOC,
        **_OF_NAMED,
    },
)
_FIXED = Form(
    "So many bytes.",
    {
        **_type("fixed", "So many bytes."),
        "name": Attribute("Its name.", _NAME, True),
        "size": Attribute("How many bytes.", {"type": "integer", "minimum": 0, "maximum": 1 << 20}, True),
        **_LOGICAL,
        "doc": _DOC,
        **_OF_NAMED,
    },
    more=_DECIMAL,
)
_ARRAY = Form(
    "A list.",
    {
        **_type("array", "A list."),
        "items": Attribute("The type of its items.", {**_TYPE, "not": _NO_BYTES}, True),
        "doc": _DOC,
    },
)
_MAP = Form(
    "Values by a text.",
    {**_type("map", "Values by a text."), "values": Attribute("The type of its values.", _TYPE, True), "doc": _DOC},
)
_PLAIN = Form(
    "A type in an object of its own, to say what it stands for.",
    {
        "type": Attribute(
            "A primitive type, or one defined above.",
            {"anyOf": [{"allOf": [_TYPE_NAME, _WITHOUT_FORM]}, _UNION, _OBJECT]},
            True,
        ),
        **_LOGICAL,
        "doc": _DOC,
    },
    more={**_DECIMAL, "not": {"allOf": [_IS_DECIMAL, _ON_BYTES]}},
)
_TYPES: Mapping[str, Form] = {
    "record": _RECORD, "error": _RECORD, "enum": _ENUM, "fixed": _FIXED, "array": _ARRAY, "map": _MAP,
}  # fmt: skip


def form_of(type_: Mapping[str, Any]) -> Form:
    """The form of a type that is an object, below the contract itself."""
    kind = type_["type"]
    return _TYPES.get(kind, _PLAIN) if isinstance(kind, str) else _PLAIN


def form_schema() -> dict[str, Any]:
    """The form of a contract's file as a JSON Schema, draft 2020-12."""
    inner = {"promise": PROMISE, "field": FIELD, **_TYPES, "plain": _PLAIN}
    definitions = {name: form.schema() for name, form in inner.items() if name != "error"}
    return {**CONTRACT.schema(), "$defs": definitions}
