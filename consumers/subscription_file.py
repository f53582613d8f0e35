"""The form of a subscription's file: which names there are, and what kind of value each takes. Meaning comes later.

The same models make the JSON Schema for editors, so every field has its sentence here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from consumers.yaml_file import Node
from schemas.findings import Finding, did_you_mean

_FORM = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)
Line = Annotated[str, Field(min_length=1, max_length=500)]
Text = Annotated[str, Field(min_length=1, max_length=4_000)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_words(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in value]


_SPAN = "([0-9]{1,12}(ms|w|d|h|m|s))+"
Span = Annotated[Line, WithJsonSchema({"type": "string", "pattern": f"^{_SPAN}$"})]
SpanOrNever = Annotated[Line, WithJsonSchema({"type": "string", "pattern": f"^({_SPAN}|never)$"})]

_EVENT_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_WORDS_SCHEMA = {"type": "array", "items": {"type": ["string", "integer"]}}


class RetryForm(BaseModel):
    """A delivery that keeps failing is set aside when both have been reached."""

    model_config = _FORM
    attempts: int | None = Field(None, ge=1, le=100, description="At least so many attempts (default 5).")
    within: Span | None = Field(None, description="For at least so long, like 15m (the default).")


class PoliciesForm(BaseModel):
    """How deliveries are made; `backbone subscription check -v` prints what is in force and from where."""

    model_config = _FORM
    send: Literal["every", "latest"] | None = Field(
        None,
        description="every: each event is delivered (the default); latest: waiting upserts of one entity merge "
        "field by field, the newest value wins.",
    )
    slo: Span | None = Field(
        None, description="The age at which an undelivered event is late, like 5m; default: the contract's."
    )
    expire_after: SpanOrNever | None = Field(
        None, description="What is older is not sent any more, like 1h; never (the default): it stays due."
    )
    retry: RetryForm | None = Field(None, description="How long a failing delivery is repeated.")
    on_unknown: Literal["resend", "hold", "look_up"] | None = Field(
        None,
        description="When the vendor's answer is lost: resend, hold (set aside for a person), or look_up (ask the "
        "vendor whether it is there); default: the connector's.",
    )
    on_dead_letter: Literal["continue", "park_key"] | None = Field(
        None,
        description="continue: later events of the same key go on; park_key: they are set aside behind it until it is "
        "redriven or discarded. Default: park_key where an action's order matters.",
    )
    weight: int | None = Field(
        None, ge=1, le=100, description="Its part of the connection's quota, against that of others (default 1)."
    )


class PersonalDataForm(BaseModel):
    """Without this, nothing that has a personal-data class leaves."""

    model_config = _FORM
    purpose: Text = Field(description="Why these data are sent, in a sentence.")
    allow: list[Line] = Field(min_length=1, description="The personal-data classes that may be sent.")


class RouteForm(BaseModel):
    """For which event, under which condition, what the vendor is asked. The first fitting route wins."""

    model_config = _FORM
    event: Annotated[list[Line], BeforeValidator(_as_list), WithJsonSchema(_EVENT_SCHEMA)] = Field(
        min_length=1, description="An event type, or several; 'billing.*' stands for all of that domain."
    )
    where: Text | None = Field(None, description="An expression (no braces): data.plan != 'internal'.")
    action: Line | None = Field(None, description="What the vendor is asked; see backbone catalog show CONNECTION.")
    entity: Text | None = Field(
        None, description='What it is about at the vendor, like "{{ data.user_id }}"; default: the contract\'s entity.'
    )
    body: dict[str, Any] | None = Field(
        None, description='The action\'s fields: texts as they are, expressions as "{{ data.email | lower }}".'
    )
    projection: Line | None = Field(
        None, description="file.py:function beside this file, in place of action, entity and body."
    )


class GivenForm(BaseModel):
    """An event of a test; what is not said comes from the contract's examples."""

    model_config = _FORM
    event: Line = Field(description="Its type.")
    data: dict[str, Any] = Field(default_factory=dict, description="Fields that differ from the examples.")
    id: Line | None = Field(None, description="Its id.")
    source: Line | None = Field(None, description="Who published it.")
    time: Line | None = Field(None, description="When it happened, like 2026-05-01T12:00:00Z.")
    subject: Line | None = Field(None, description="Its CloudEvents subject.")


class ExpectForm(BaseModel):
    """What is to come of an event; what is not said may be anything."""

    model_config = _FORM
    event: Line | None = Field(None, description="The type of the event that it comes from.")
    action: Line | None = Field(None, description="The action asked.")
    entity: str | None = Field(None, description="What it is about.")
    body: dict[str, Any] | None = Field(None, description="Fields of the body; a subset is enough.")
    without: list[Line] | None = Field(None, description="Fields that the body must not have.")
    outcome: (
        Literal["delivered", "rejected", "undecodable", "exhausted", "unknown", "waiting", "expired", "merged"] | None
    ) = Field(None, description="What came of it in the end.")
    attempts: int | None = Field(None, ge=0, description="How many attempts were counted.")
    reason: Line | None = Field(None, description="The dead letter's reason.")


class TestForm(BaseModel):
    """One test: events given, the vendor's answers, and what is expected."""

    __test__ = False  # not a test class of pytest
    model_config = _FORM
    name: Line = Field(description="What it shows, as a sentence.")
    given: list[GivenForm] = Field(min_length=1, description="The events, in order.")
    vendor: Annotated[list[Line], BeforeValidator(_as_words), WithJsonSchema(_WORDS_SCHEMA)] = Field(
        default_factory=list,
        description="The vendor's answers in order: ok, 429 after 2s, 500, 400, timeout, cut, refused, and to a "
        "look-up found or missing; then ok.",
    )
    expect: list[ExpectForm] = Field(description="One for every event that is ours, in order; [] for none.")


class SubscriptionForm(BaseModel):
    """A subscription of the event backbone: who reads which events, and what a vendor is asked for each of them."""

    model_config = _FORM
    description: Text = Field(description="What it does, in a sentence.")
    owner: Line = Field(description="The team that answers for it.")
    connection: Line = Field(description="A connection of backbone.toml.")
    personal_data: PersonalDataForm | None = Field(None, description="What personal data may leave, and why.")
    policies: PoliciesForm | None = Field(None, description="How deliveries are made; all optional.")
    routes: list[RouteForm] = Field(min_length=1, max_length=200, description="The map: the first fitting route wins.")
    tests: list[TestForm] | None = Field(
        None, max_length=500, description="Run by backbone subscription test and by pytest."
    )


def read_form(root: Node, file: str) -> tuple[SubscriptionForm | None, list[Finding]]:
    """The form of a file, or every place where it is not one."""
    if not isinstance(root.value, dict):
        return None, [Finding(file=file, path="", rule="form", message="This is not a subscription.", line=root.line)]
    try:
        return SubscriptionForm.model_validate(root.data()), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=True)
        # a name that is misspelled is not missing as well
        misspelled = {(place := tuple(one["loc"]))[:-1]: place[-1] for one in found if one["type"] == "extra_forbidden"}
        return None, [
            _finding(one, root, file)
            for one in found[:100]
            if one["type"] != "missing"
            or not did_you_mean(str(misspelled.get(tuple(one["loc"])[:-1], "")), [str(one["loc"][-1])])
        ]


def _finding(error: Any, root: Node, file: str) -> Finding:
    place = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known(place[:-1])
        hint = did_you_mean(str(place[-1]), known) or f" There is: {', '.join(known)}."
        message, rule = f"There is no '{_short(place[-1])}' here.{hint}", "unknown-name"
    elif error["type"] == "missing":
        message, rule = f"'{_short(place[-1])}' is missing.", "missing"
        info = _model(place[:-1])
        if info is not None and str(place[-1]) in info.model_fields:
            message += f" {info.model_fields[str(place[-1])].description or ''}"
        place = place[:-1]
    else:
        message, rule = _sentence(error), "form"
    return Finding(file=file, path=dotted(place), rule=rule, message=message.strip(), line=root.line_of(place))


def _sentence(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_type":
        return "This must be a text: put quotes around it."
    if kind in ("int_type", "int_from_float"):
        return "This must be a whole number."
    if kind in ("list_type", "dict_type", "model_type", "model_attributes_type"):
        wanted = "a list ('- …' on lines of their own, or [ … ])" if kind == "list_type" else "names with values"
        return f"This must be {wanted}."
    if kind == "literal_error":
        return f"This must be one of: {context.get('expected', '')}."
    if kind == "string_too_short":
        return "This is empty."
    if kind == "string_too_long":
        return f"This is longer than {context.get('max_length')} characters."
    if kind == "too_short":
        return "This is empty."
    if kind == "too_long":
        return f"There are more than {context.get('max_length')} of them."
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = "at least" if kind == "greater_than_equal" else "at most"
        return f"This must be {bound} {context.get('ge', context.get('le'))}."
    return str(error["msg"])[:200].rstrip(".") + "."


def dotted(place: tuple[str | int, ...]) -> str:
    """``routes[0].body.email``"""
    written = ""
    for step in place:
        written += f"[{step}]" if isinstance(step, int) else f"{'.' if written else ''}{_short(step)}"
    return written


def _model(place: tuple[str | int, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = SubscriptionForm
    for step in place:
        if isinstance(step, int):
            continue
        info = model.model_fields.get(step) if model is not None else None
        model = None if info is None else _model_in(info.annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def _known(place: tuple[str | int, ...]) -> Mapping[str, Any]:
    model = _model(place)
    return {} if model is None else model.model_fields


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= 60 else f"{text[:60]}…"
