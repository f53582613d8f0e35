"""A contract: the promise behind an event type. The .avsc files are the truth; this reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from schemas import avsc
from schemas import pattern as patterns
from schemas.avsc import Problem, shown
from schemas.contract_form import CONSTRAINTS, PERSONAL_DATA_CLASSES, PROMISE, PROMISE_TEXT_MAX, STATUSES
from schemas.duration import parse_duration
from schemas.errors import InputError
from schemas.findings import FINDINGS_MAX, did_you_mean

FILE_MAX = 256 << 10

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_NEEDED = {
    "topic": "no-topic",
    "key": "no-key",
    "owner": "no-owner",
    "freshness_slo": "no-freshness-slo",
    "retention": "no-retention",
}
"""What a promise must say, with the rule for what it does not."""
_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of an event as its contract states it.

    ``path`` is dotted from the payload's root (``billing_email``, ``lines.sku`` for a field of the records in an
    array); ``type`` is the Avro type as JSON with named types resolved in place; ``personal_data`` is one of
    ``PERSONAL_DATA_CLASSES`` or None where nothing is stated (the same as ``none`` for masking and sending).
    """

    path: str
    type: Any
    doc: str
    optional: bool
    personal_data: str | None = None
    examples: tuple[Any, ...] = ()
    constraints: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What an event type promises. ``schema`` is the .avsc as parsed JSON, custom attributes included;
    ``fields`` maps every dotted path, nested ones too, to its Field."""

    name: str
    topic: str
    key: str
    entity: str
    owner: str
    contact: str
    doc: str
    status: str
    freshness_slo: timedelta
    retention: timedelta
    schema: Mapping[str, Any]
    fields: Mapping[str, Field]
    file: str = ""

    @property
    def subject(self) -> str:
        """The registry's subject by TopicRecordNameStrategy."""
        return f"{self.topic}-{self.name}"

    @property
    def domain(self) -> str:
        """The name without its last part: ``billing`` of ``billing.InvoiceCreated``."""
        return self.name.rpartition(".")[0]

    @property
    def replaces(self) -> str | None:
        """The event in the same topic that this one takes the place of; both are published until its sunset."""
        return self._promised("replaces")

    @property
    def replaced_by(self) -> str | None:
        """The event in the same topic that takes the place of this deprecated one."""
        return self._promised("replaced_by")

    @property
    def sunset(self) -> date | None:
        """The last day on which this deprecated event is published."""
        written = self._promised("sunset")
        return None if written is None else date.fromisoformat(written)

    def _promised(self, name: str) -> str | None:
        written = self.schema.get("backbone", {}).get(name)
        return str(written) if written else None

    @property
    def text(self) -> str:
        """The schema as it is sent to a registry: one line, the same for the same schema."""
        return json.dumps(self.schema, ensure_ascii=False, separators=(",", ":"))


class Contracts(Mapping[str, Contract]):
    """All contracts known here, by full name (``billing.InvoiceCreated``). Immutable."""

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        self._contracts = dict(sorted(contracts.items()))

    def __getitem__(self, name: str) -> Contract:
        return self._contracts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._contracts)

    def __len__(self) -> int:
        return len(self._contracts)

    def topics(self) -> dict[str, list[Contract]]:
        """Contracts by the topic they share."""
        topics: dict[str, list[Contract]] = {}
        for contract in self._contracts.values():
            topics.setdefault(contract.topic, []).append(contract)
        return topics


def contract_from_schema(schema: Mapping[str, Any], file: str = "") -> Contract:
    """The contract that a parsed .avsc states. ``file`` is named in errors and kept.

    Raises InputError with the first place that keeps it from being a contract; ``lint`` tells all of them.
    """
    found = contract_problems(schema)
    if found:
        raise _not_a_contract(found, file)
    return checked_contract(schema, file)


def checked_contract(schema: Mapping[str, Any], file: str = "") -> Contract:
    """The same of a schema in which ``contract_problems`` has found nothing."""
    promise = schema["backbone"]
    whole = avsc.resolved(schema)
    return Contract(
        name=whole["name"],
        topic=promise["topic"],
        key=promise["key"],
        entity=promise.get("entity", promise["key"]),
        owner=promise["owner"],
        contact=promise.get("contact", ""),
        doc=str(schema.get("doc", "")),
        status=promise.get("status", "live"),
        freshness_slo=parse_duration(promise["freshness_slo"]),
        retention=parse_duration(promise["retention"]),
        schema=schema,
        fields={found.path: found for found in _fields(whole, "")},
        file=file,
    )


def load_contracts(folder: Path) -> Contracts:
    """Every ``<domain>/<Name>.avsc`` below ``folder``.

    Raises InputError naming the file and the place for a file that cannot be read or is not a contract.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of contracts.")
    return _load(sorted(folder.rglob("*.avsc")))


@cache
def engine_contracts() -> Contracts:
    """The engine's own events (``schemas/backbone``)."""
    return _load(sorted((Path(__file__).parent / "backbone").glob("*.avsc")))


def _load(files: Iterable[Path]) -> Contracts:
    contracts: dict[str, Contract] = {}
    for file in files:
        contract = load_contract(file)
        twin = contracts.setdefault(contract.name, contract)
        if twin is not contract:
            raise InputError(f"{file}: {contract.name} is defined in {twin.file} too; an event has one file.")
    return Contracts(contracts)


def load_contract(file: Path) -> Contract:
    """The contract in one .avsc file. Raises InputError naming the file and the place."""
    schema = avsc.parse(read_bytes(file), str(file))
    if not isinstance(schema, dict):
        raise InputError(f"{file}: a contract is one Avro record, a JSON object.")
    return contract_from_schema(schema, str(file))


def read_bytes(file: Path) -> bytes:
    """The file's bytes, at most ``FILE_MAX``. Raises InputError for a file that cannot be read or is too large."""
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_MAX + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or 'input/output error'}).") from None
    if len(text) > FILE_MAX:
        raise InputError(f"{file}: a contract of more than {FILE_MAX >> 10} kB is not read.")
    return text


def _not_a_contract(found: list[Problem], file: str) -> InputError:
    first = found[0]
    place = " ".join(part for part in (file, first.path) if part)
    more = f" ({len(found) - 1} more: backbone schema check)" if len(found) > 1 else ""
    more = f"{more} [{first.rule}]"
    return InputError(f"{place}: {first.message}{more}" if place else f"{first.message}{more}")


def contract_problems(schema: Mapping[str, Any]) -> list[Problem]:
    """What keeps a parsed .avsc from being a contract, at most ``FINDINGS_MAX``; empty: ``contract_from_schema`` takes
    it."""
    found = avsc.undecodable(schema)
    return found or promise_problems(schema)


def promise_problems(schema: Mapping[str, Any]) -> list[Problem]:
    """The part of ``contract_problems`` that looks at what is promised; the schema has no structural problem."""
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        return [Problem("/type", "not-a-record", "a contract is an Avro record.")]
    return list(islice(chain(_promise_problems(schema), _fields_problems(schema)), FINDINGS_MAX))


def _fields_problems(schema: Mapping[str, Any]) -> Iterator[Problem]:
    weight = 0
    for record, path in _records_with_paths(schema, ""):
        for index, one in enumerate(record["fields"]):
            place = f"{path}/fields/{index}"
            found = list(_attribute_problems(one, place))
            yield from found
            if isinstance(one.get("pattern"), str) and not found:
                weight += patterns.weight(one["pattern"])
                if weight > 4 * patterns.WEIGHT_MAX:
                    message = "all patterns of this event together are too much to be run on every one; write fewer."
                    yield Problem(f"{place}/pattern", "bad-pattern", message)
                    return


def _promise_problems(schema: Mapping[str, Any]) -> Iterator[Problem]:
    if "." not in avsc.full_name(schema):
        yield Problem("/namespace", "no-namespace", "an event needs a 'namespace', its domain (billing).")
    promise = schema.get("backbone")
    if not isinstance(promise, Mapping):
        yield Problem(
            "/backbone", "no-promise", "a contract needs 'backbone': topic, key, owner, freshness_slo, retention."
        )
        return
    known = tuple(PROMISE.attributes)
    for name, value in promise.items():
        if name not in known:
            yield Problem(
                "/backbone" + avsc.pointer(name),
                "unknown-attribute",
                f"{shown(name)} is not known here.{did_you_mean(str(name), known)}",
            )
        elif not isinstance(value, str) or len(value) > PROMISE_TEXT_MAX:
            yield Problem(f"/backbone/{name}", "bad-attribute", "a text is expected here.")
    for name, rule in _NEEDED.items():
        if not promise.get(name):
            yield Problem(f"/backbone/{name}", rule, f"a contract needs {shown(name)}.")
    topic = promise.get("topic")
    if isinstance(topic, str) and topic and not is_topic(topic):
        yield Problem("/backbone/topic", "bad-topic", "a topic is at most 249 letters, digits and . _ -")
    if promise.get("status", "live") not in STATUSES:
        yield Problem("/backbone/status", "bad-status", f"the status is one of {', '.join(STATUSES)}.")
    sunset = promise.get("sunset")
    if isinstance(sunset, str) and sunset and not _is_day(sunset):
        yield Problem("/backbone/sunset", "bad-sunset", "the sunset is a day that exists, like 2027-03-31.")
    for name in ("freshness_slo", "retention"):
        try:
            if isinstance(promise.get(name), str) and promise[name]:
                parse_duration(promise[name])
        except InputError as error:
            yield Problem(f"/backbone/{name}", "bad-duration", str(error))
    fields = {one["name"]: one for one in schema["fields"]}
    for name, rule in (("key", "bad-key"), ("entity", "bad-entity")):
        path = promise.get(name)
        if isinstance(path, str) and path and path not in fields:
            hint = did_you_mean(path, fields)
            yield Problem(f"/backbone/{name}", rule, f"there is no field {shown(path)}.{hint}")
        elif isinstance(path, str) and path and not _string_like(fields[path]["type"]):
            yield Problem(f"/backbone/{name}", rule, f"the {name} must be a required string field.")


def is_topic(name: str) -> bool:
    """Whether Kafka takes it as a topic's name."""
    return _TOPIC.match(name) is not None


def _is_day(text: str) -> bool:
    """Whether it is a day as ISO 8601 writes it with dashes: Python would take other forms, other languages not."""
    try:
        return _DAY.match(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _string_like(type_: Any) -> bool:
    return bool(type_ == "string" or (isinstance(type_, Mapping) and type_.get("type") == "string"))


def _attribute_problems(one: Mapping[str, Any], path: str) -> Iterator[Problem]:
    stated = one.get("personal_data")
    if "personal_data" in one and stated not in PERSONAL_DATA_CLASSES:
        hint = did_you_mean(stated, PERSONAL_DATA_CLASSES) if isinstance(stated, str) else ""
        message = f"the personal-data class is one of {', '.join(PERSONAL_DATA_CLASSES)}.{hint}"
        yield Problem(f"{path}/personal_data", "bad-personal-data", message)
    if not isinstance(one.get("doc", ""), str):
        yield Problem(f"{path}/doc", "bad-attribute", "a text is expected here.")
    if not isinstance(one.get("examples", []), list):
        yield Problem(f"{path}/examples", "bad-attribute", "a list is expected here.")
    for name in ("minLength", "maxLength", "minimum", "maximum"):
        value = one.get(name, 0)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (name.endswith("Length") and not value >= 0)
        ):
            yield Problem(f"{path}/{name}", "bad-constraint", "a number is expected here.")
    if "pattern" in one:
        yield from _pattern_problems(one["pattern"], f"{path}/pattern")


def _pattern_problems(pattern: Any, path: str) -> Iterator[Problem]:
    if not isinstance(pattern, str) or len(pattern) > patterns.TEXT_MAX:
        yield Problem(path, "bad-pattern", "a regular expression of at most 1,000 characters is expected here.")
        return
    if re.search(r"\(\?(=|!|<[=!]|P=)|\\[1-9]", pattern):
        message = "looking ahead or back and referring back are not understood everywhere; write it without."
        yield Problem(path, "bad-pattern", message)
        return
    if patterns.weight(pattern) > patterns.WEIGHT_MAX:
        message = "its repetitions, written out, are too many to be run on every event; use 'maxLength' for the length."
        yield Problem(path, "bad-pattern", message)
        return
    try:
        patterns.compiled(pattern)
    except ValueError:
        yield Problem(path, "bad-pattern", "it is not a regular expression.")


def _records_with_paths(schema: Any, path: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every record where it is defined, with its JSON pointer. The schema has no structural problem."""
    if isinstance(schema, list):
        for index, branch in enumerate(schema):
            yield from _records_with_paths(branch, f"{path}/{index}")
    elif isinstance(schema, Mapping):
        if schema["type"] in ("record", "error"):
            yield schema, path
            for index, one in enumerate(schema["fields"]):
                yield from _records_with_paths(one["type"], f"{path}/fields/{index}/type")
        elif schema["type"] == "array":
            yield from _records_with_paths(schema["items"], f"{path}/items")
        elif schema["type"] == "map":
            yield from _records_with_paths(schema["values"], f"{path}/values")
        elif not isinstance(schema["type"], str):
            yield from _records_with_paths(schema["type"], f"{path}/type")


def _fields(type_: Any, prefix: str) -> Iterator[Field]:
    """The fields below a resolved type: of a record, of the records in an array, of the values of a map (``.*``)."""
    type_, _ = avsc.without_null(type_)
    if isinstance(type_, list):
        return
    if not isinstance(type_, Mapping):
        return
    if type_["type"] == "array":
        yield from _fields(type_["items"], prefix)
    elif type_["type"] == "map":
        yield from _fields(type_["values"], f"{prefix}.*" if prefix else "*")
    elif type_["type"] in ("record", "error"):
        for one in type_["fields"]:
            path = f"{prefix}.{one['name']}" if prefix else one["name"]
            _, optional = avsc.without_null(one["type"])
            yield Field(
                path=path,
                type=one["type"],
                doc=one.get("doc", ""),
                optional=optional,
                personal_data=one.get("personal_data"),
                examples=tuple(one.get("examples", ())),
                constraints={name: one[name] for name in CONSTRAINTS if name in one},
            )
            yield from _fields(one["type"], path)


def example(contract: Contract) -> dict[str, Any]:
    """A whole payload made of the contract's examples; see ``schemas.datum.example``."""
    from schemas.datum import example as made

    return made(contract)
