"""What is wrong with a contract before anybody relies on it, and which foreign schemas are not decoded at all.

Rules are data where they can be: each finding carries a stable id, the JSON pointer of its place and one sentence that
says what to do. Nothing here raises for what stands in a file, however broken or hostile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from schemas import avsc
from schemas.avsc import Problem, shown
from schemas.checker import checker, faults, kind
from schemas.contract import Contract, checked_contract, promise_problems, read_bytes
from schemas.contract_form import CONTRACT, EXAMPLE_TEXT_MAX, EXAMPLES_MAX, FIELD, FOREIGN, Form, form_of
from schemas.datum import from_json_value
from schemas.errors import InputError
from schemas.findings import FINDINGS_MAX, Finding, did_you_mean
from schemas.replacement import replacement_problems
from schemas.rules import CONTRACT_RULES

WARNINGS = frozenset(rule.id for rule in CONTRACT_RULES if rule.severity == "warning")

_PERSONAL_WORDS = {
    "email": "email", "mail": "email", "phone": "phone", "mobile": "phone", "name": "name", "firstname": "name",
    "lastname": "name", "surname": "name", "address": "address", "street": "address", "iban": "bank", "ip": "ip",
    "birth": "birth_date", "birthday": "birth_date", "birthdate": "birth_date", "dob": "birth_date",
}  # fmt: skip
"""A word of a field's name that lets one expect personal data, and the class it would probably be."""

_PAST_WORDS = """
    sent paid made built left won lost sold bought kept begun done gone taken given written seen chosen frozen shown
    grown drawn withdrawn held put set reset read split cut met found bound told run spent sought taught caught hit
    shut known broken spoken stolen driven forgotten hidden risen fallen upset quit lent bent dealt felt meant slept
    swept wept stood understood
"""
_PAST = frozenset(_PAST_WORDS.split())
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def lint(contract: Contract | Path | Mapping[str, Any], file: str = "") -> list[Finding]:
    """Everything to say about one contract, errors first: a loaded one, a file, or a parsed .avsc (then ``file`` is its
    name). Blocks for reading a file only. Never raises."""
    if isinstance(contract, Contract):
        return _found(contract.schema, file or contract.file)
    if isinstance(contract, Path):
        file = str(contract)
        try:
            schema = avsc.parse(read_bytes(contract))
        except avsc.SchemaTextError as error:
            return _findings(file, [error.problem])
        except InputError as error:
            return _findings(file, [Problem("", "unreadable", str(error).removeprefix(f"{file}: "))])
        return _found(schema, file)
    return _found(contract, file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linted:
    """One file, read and parsed once: what is to be said of it alone, and its contract if it is one."""

    file: Path
    findings: tuple[Finding, ...]
    contract: Contract | None = None


def lint_file(file: Path) -> Linted:
    """One ``.avsc`` file. Blocks for reading it. Never raises."""
    try:
        schema = avsc.parse(read_bytes(file))
    except InputError:
        return Linted(file=file, findings=tuple(lint(file)))
    structural, promised = _contract_problems(schema)
    found = _findings(str(file), [*structural, *promised, *_further_problems(schema, structural, promised, str(file))])
    fits = not promised and all(problem.rule == "bytes-decimal" for problem in structural)
    return Linted(file=file, findings=tuple(found), contract=checked_contract(schema, str(file)) if fits else None)


def lint_folder(folder: Path) -> list[Finding]:
    """Everything to say about every ``.avsc`` below a folder, and about the contracts side by side. Never raises."""
    linted = [lint_file(file) for file in sorted(folder.rglob("*.avsc"))]
    if not linted:
        message = "there is no .avsc file below this folder."
        return _findings(str(folder), [Problem("", "no-contracts", message)])
    beside = side_by_side(one.contract for one in linted if one.contract is not None)
    return [finding for one in linted for finding in (*one.findings, *beside.get(str(one.file), ()))]


def side_by_side(contracts: Iterable[Contract], today: date | None = None) -> dict[str, list[Finding]]:
    """What is wrong between these contracts, by file: two files of one event, two keys in one topic, and replacements
    that the two do not agree on. ``today`` (default: UTC's) decides which sunset has passed."""
    found: dict[str, list[Finding]] = {}
    names: dict[str, Contract] = {}
    keys: dict[str, Contract] = {}
    for one in contracts:
        problems = []
        twin = names.setdefault(one.name, one)
        if twin is not one:
            message = f"{one.name} is defined in {twin.file} too; an event has one file."
            problems.append(Problem("/name", "duplicate-name", message))
        first = keys.setdefault(one.topic, one)
        if first.key != one.key:
            message = (
                f"{first.name} is keyed by {first.key} in the same topic; without one key their order is not kept."
            )
            problems.append(Problem("/backbone/key", "key-differs", message))
        found[one.file] = _findings(one.file, problems)
    now = today or datetime.now(UTC).date()
    for one in names.values():
        found[one.file] += _findings(one.file, replacement_problems(one, names, now))
    return found


def _findings(file: str, problems: Iterable[Problem]) -> list[Finding]:
    found = [
        Finding(
            file=file,
            path=problem.path,
            rule=problem.rule,
            message=problem.message,
            severity="warning" if problem.rule in WARNINGS else "error",
        )
        for problem in problems
    ]
    return sorted(found, key=lambda one: one.severity == "warning")


def _found(schema: Any, file: str) -> list[Finding]:
    structural, promised = _contract_problems(schema)
    return _findings(file, [*structural, *promised, *_further_problems(schema, structural, promised, file)])


def _contract_problems(schema: Any) -> tuple[list[Problem], list[Problem]]:
    """What is structurally wrong, and what of the promise; of that nothing can be said of what is not a schema."""
    if not isinstance(schema, Mapping):
        return [], [Problem("", "not-a-record", "a contract is one Avro record, a JSON object.")]
    structural = avsc.problems(schema)
    broken = any(problem.rule != "bytes-decimal" for problem in structural)
    return structural, [] if broken else promise_problems(schema)


def _further_problems(schema: Any, structural: list[Problem], promised: list[Problem], file: str) -> Iterator[Problem]:
    """What a contract of ours has to keep beyond being one."""
    if any(problem.rule != "bytes-decimal" for problem in structural):
        return
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        return
    yield from _event_problems(schema)
    yield from _name_problems(schema)
    yield from islice(_type_problems(schema, ""), FINDINGS_MAX)
    whole = avsc.resolved(schema)
    if not any(problem.rule in ("bad-attribute", "bad-constraint", "bad-pattern") for problem in promised):
        yield from islice(_value_problems(whole, "", set()), FINDINGS_MAX)  # constraints that can be relied on
    if file.endswith(".avsc"):
        yield from _place_problems(Path(file), whole["name"])


def _event_problems(schema: Mapping[str, Any]) -> Iterator[Problem]:
    if not _is_text(schema.get("doc")):
        yield Problem("/doc", "no-doc", "an event needs a 'doc': one sentence that says what happened.")
    words = _WORDS.findall(re.sub(r"V[0-9]+\Z", "", schema["name"].rpartition(".")[2]))
    if not any(word.lower().endswith("ed") or word.lower() in _PAST for word in words):
        message = f"an event is named after what has happened (UserSignedUp, InvoicePaid), not {shown(schema['name'])}."
        yield Problem("/name", "not-past-tense", message)
    promise = schema.get("backbone")
    if not isinstance(promise, Mapping):
        return
    if not promise.get("contact"):
        yield Problem("/backbone/contact", "no-contact", "say where the owner is reached ('contact').")
    key = promise.get("key")
    for index, one in enumerate(schema["fields"]):
        if one["name"] == key and one.get("personal_data") not in (None, "none"):
            message = "the key is personal data and stands in every record's key; key by an id instead."
            yield Problem(f"/fields/{index}/personal_data", "personal-key", message)


def _name_problems(schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Names of types that differ only in case."""
    types: dict[str, str] = {}
    for type_, path in _types(schema, ""):
        if "name" in type_:
            twin = types.setdefault(type_["name"].lower(), type_["name"])
            if twin != type_["name"]:
                message = f"{shown(type_['name'])} differs from {shown(twin)} only in case."
                yield Problem(f"{path}/name", "case-clash", message)


def _types(type_: Any, path: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every type that is an object, where it stands, the schema itself first."""
    if isinstance(type_, list):
        for index, branch in enumerate(type_):
            yield from _types(branch, f"{path}/{index}")
    elif isinstance(type_, Mapping):
        yield type_, path
        if type_["type"] in ("record", "error"):
            for index, one in enumerate(type_["fields"]):
                yield from _types(one["type"], f"{path}/fields/{index}/type")
        for part in ("items", "values"):
            if part in type_:
                yield from _types(type_[part], f"{path}/{part}")
        if not isinstance(type_["type"], str):
            yield from _types(type_["type"], f"{path}/type")


def _attribute_problems(type_: Mapping[str, Any], path: str, form: Form) -> Iterator[Problem]:
    """Attributes that nobody knows: misspelt ones of ours would have no effect."""
    known = form.attributes
    for name in type_:
        if name not in known and not FOREIGN.search(name):
            message = f"{shown(name)} is not known here.{did_you_mean(name, known)}"
            if not message.endswith("?"):
                message += " Attributes of other tools have a dot or a dash in their name."
            yield Problem(path + avsc.pointer(name), "unknown-attribute", message)


def _type_problems(schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
    count = 0
    for type_, here in _types(schema, path):
        yield from _attribute_problems(type_, here, form_of(type_) if here else CONTRACT)
        if type_["type"] not in ("record", "error"):
            continue
        if here and not _is_text(type_.get("doc")):
            yield Problem(f"{here}/doc", "no-doc", f"the record {shown(type_['name'])} needs a 'doc'.")
        names: dict[str, str] = {}
        for index, one in enumerate(type_["fields"]):
            place = f"{here}/fields/{index}"
            count += 1
            twin = names.setdefault(one["name"].lower(), one["name"])
            if twin != one["name"]:
                message = f"{shown(one['name'])} differs from {shown(twin)} only in case."
                yield Problem(f"{place}/name", "case-clash", message)
            yield from _field_problems(one, place)
    if count > avsc.FIELDS_MAX:
        message = f"{count} fields are more than {avsc.FIELDS_MAX}; this is more than one event."
        yield Problem("/fields", "too-many-fields", message)


def _field_problems(one: Mapping[str, Any], place: str) -> Iterator[Problem]:
    yield from _attribute_problems(one, place, FIELD)
    if not _is_text(one.get("doc")):
        message = f"the field {shown(one['name'])} needs a 'doc': one sentence that says what it means."
        yield Problem(f"{place}/doc", "no-doc", message)
    if "personal_data" not in one:
        for word in _WORDS.findall(one["name"]):
            guess = _PERSONAL_WORDS.get(word.lower())
            if guess:
                message = (
                    f"{shown(one['name'])} sounds like personal data; say which "
                    f'("personal_data": "{guess}") or that it is none ("personal_data": "none").'
                )
                yield Problem(f"{place}/personal_data", "personal-data-unsaid", message)
                break
    type_ = one["type"]
    if isinstance(type_, list):
        rest, nullable = avsc.without_null(type_)
        if (isinstance(rest, list) or not nullable) and not _is_text(one.get("union_reason")):
            message = "a union wider than null and one type is hard to read everywhere; split it or say 'union_reason'."
            yield Problem(f"{place}/type", "wide-union", message)


def _value_problems(type_: Any, path: str, seen: set[int]) -> Iterator[Problem]:
    """Defaults and examples of a *resolved* type that do not fit; a type used twice is looked at once."""
    if isinstance(type_, list):
        for index, branch in enumerate(type_):
            yield from _value_problems(branch, f"{path}/{index}", seen)
        return
    if not isinstance(type_, Mapping) or id(type_) in seen:
        return
    seen.add(id(type_))
    for part in ("items", "values"):
        if part in type_:
            yield from _value_problems(type_[part], f"{path}/{part}", seen)
    if type_["type"] not in ("record", "error"):
        return
    for index, one in enumerate(type_["fields"]):
        place = f"{path}/fields/{index}"
        if "default" in one and not _default_fits(one["type"], one["default"]):
            message = "the default does not fit the type; in a union it must fit the first one."
            yield Problem(f"{place}/default", "bad-default", message)
        elif isinstance(one.get("default"), str) and one["default"][:1] in ("{", "["):
            message = "a text that looks like JSON is refused as a default by some registries (Apicurio); use another."
            yield Problem(f"{place}/default", "json-like-default", message)
        examples = one.get("examples", [])
        if len(examples) > EXAMPLES_MAX:
            message = f"a field has at most {EXAMPLES_MAX} examples; the first one is used most."
            yield Problem(f"{place}/examples", "bad-example", message)
            continue
        for number, example in enumerate(examples):
            if isinstance(example, str) and len(example) > EXAMPLE_TEXT_MAX:
                message = f"an example has at most {EXAMPLE_TEXT_MAX:,} characters."
                yield Problem(f"{place}/examples/{number}", "bad-example", message)
                continue
            fault = _example_fault(one, example)
            if fault:
                yield Problem(f"{place}/examples/{number}", "bad-example", f"the example does not fit: {fault}.")
        yield from _value_problems(one["type"], f"{place}/type", seen)


def _default_fits(type_: Any, value: Any) -> bool:
    what = kind(type_)
    if what == "union":
        return _default_fits(type_[0], value)
    if what == "record":
        if not isinstance(value, Mapping):
            return False
        fields = {one["name"]: one for one in type_["fields"]}
        return all(
            _default_fits(one["type"], value[name]) if name in value else "default" in one
            for name, one in fields.items()
        )
    if what == "array":
        return isinstance(value, list) and all(_default_fits(type_["items"], item) for item in value)
    if what == "map":
        return isinstance(value, Mapping) and all(_default_fits(type_["values"], item) for item in value.values())
    if what in ("bytes", "fixed"):
        fits = isinstance(value, str) and all(ord(letter) < 256 for letter in value)
        return fits and (what == "bytes" or len(value) == type_["size"])
    if what == "enum":
        return value in type_["symbols"]
    try:
        return checker(what)(value)  # the carrier: the default of a time is its number
    except TypeError:
        return False


def _example_fault(one: Mapping[str, Any], example: Any) -> str:
    try:
        value = from_json_value(one["type"], example, one["name"])
    except InputError as error:
        return str(error).rstrip(".")
    found = faults({"type": "record", "name": "Example", "fields": [one]}, {one["name"]: value}, most=1)
    return found[0].rstrip(".") if found else ""


def _place_problems(file: Path, name: str) -> Iterator[Problem]:
    domain, _, short = name.rpartition(".")
    if (file.parent.name, file.name) != (domain.rpartition(".")[2], f"{short}.avsc"):
        wanted = f"{domain.rpartition('.')[2]}/{short}.avsc"
        yield Problem("", "file-place", f"{name} is looked for in {wanted}; one event a file, in its domain's folder.")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
