"""Whether a datum, an event's payload as plain Python values, fits its schema; and if not, which field does not.

``checker`` compiles a schema once to one Python function that says yes or no in a few microseconds; only when it says
no does ``faults`` walk the datum to name the field. Neither ever repeats a value: what they say may be logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, TypeAlias
from uuid import UUID

from schemas import avsc, pattern
from schemas.avsc import shown
from schemas.findings import did_you_mean

Checker: TypeAlias = Callable[[Any], bool]

FAULTS_MAX = 20
_INT = (-(1 << 31), (1 << 31) - 1)
_LONG = (-(1 << 63), (1 << 63) - 1)

_PYTHON: Mapping[str, tuple[str, str]] = {
    # logical type -> (the test of a value v, what a person is told is expected)
    "timestamp-millis": ("isinstance({v}, datetime) and {v}.tzinfo is not None", "a time with its zone"),
    "timestamp-micros": ("isinstance({v}, datetime) and {v}.tzinfo is not None", "a time with its zone"),
    "local-timestamp-millis": ("isinstance({v}, datetime) and {v}.tzinfo is None", "a time without a zone"),
    "local-timestamp-micros": ("isinstance({v}, datetime) and {v}.tzinfo is None", "a time without a zone"),
    "date": ("isinstance({v}, date) and not isinstance({v}, datetime)", "a date"),
    "time-millis": ("isinstance({v}, time) and {v}.tzinfo is None", "a time of day"),
    "time-micros": ("isinstance({v}, time) and {v}.tzinfo is None", "a time of day"),
    "uuid": ("isinstance({v}, UUID)", "a UUID"),
    "decimal": ("isinstance({v}, Decimal)", "a decimal number"),
}
_CARRIERS = {
    "timestamp-millis": "long", "timestamp-micros": "long", "local-timestamp-millis": "long",
    "local-timestamp-micros": "long", "date": "int", "time-millis": "int", "time-micros": "long", "uuid": "string",
}  # fmt: skip
_PLAIN: Mapping[str, tuple[str, str]] = {
    "null": ("{v} is None", "nothing (null)"),
    "boolean": ("({v} is True or {v} is False)", "true or false"),
    "int": (f"type({{v}}) is int and {_INT[0]} <= {{v}} <= {_INT[1]}", "a whole number of 32 bits"),
    "long": (f"type({{v}}) is int and {_LONG[0]} <= {{v}} <= {_LONG[1]}", "a whole number of 64 bits"),
    "float": ("(type({v}) is float or type({v}) is int) and -3.5e38 < {v} < 3.5e38", "a number"),
    "double": ("(type({v}) is float or type({v}) is int) and -1.8e308 < {v} < 1.8e308", "a number"),
    "bytes": ("isinstance({v}, bytes)", "bytes"),
    "string": ("isinstance({v}, str)", "text"),
}
_NAMES = {
    "datetime": datetime, "date": date, "time": time, "UUID": UUID, "Decimal": Decimal, "Mapping": Mapping,
}  # fmt: skip


def logical(type_: Any) -> str | None:
    """The logical type in force; one on a wrong carrier is ignored, as the Avro specification asks."""
    if not isinstance(type_, Mapping):
        return None
    name = type_.get("logicalType")
    if name == "decimal":
        return "decimal" if type_["type"] in ("bytes", "fixed") else None
    return name if isinstance(name, str) and _CARRIERS.get(name) == type_["type"] else None


def kind(type_: Any) -> str:
    """``record``, ``array``, ``union``, ``string`` ...: the kind of a resolved type, logical types left aside."""
    if isinstance(type_, list):
        return "union"
    found = type_ if isinstance(type_, str) else type_["type"]
    return "record" if found == "error" else str(found)


class Tests:
    """Writes tests of values as Python source; ``scope`` holds what the source needs. One function per record, because
    records repeat; everything else is in line."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = dict(_NAMES)
        self.functions: dict[int, str] = {}
        self.source: list[str] = []
        self.count = 0

    def name(self, value: Any) -> str:
        self.count += 1
        name = f"k{self.count}"
        self.scope[name] = value
        return name

    def record(self, type_: Mapping[str, Any]) -> str:
        known = self.functions.get(id(type_))
        if known:
            return known
        self.count += 1
        name = self.functions[id(type_)] = f"record{self.count}"
        keys = self.name(frozenset(one["name"] for one in type_["fields"]))
        lines = [f"def {name}(d):", f" if not (isinstance(d, Mapping) and d.keys() <= {keys}): return False"]
        for one in type_["fields"]:
            field, v = one["name"], f"d[{one['name']!r}]"
            test = self.test(one["type"], "v", one)
            if test == "True":
                continue
            if "default" in one:
                lines += [f" if {field!r} in d:", f"  v = {v}", f"  if not ({test}): return False"]
            else:
                lines += [f" v = {v}", f" if not ({test}): return False"]
        self.source += [*lines, " return True"]
        return name

    def test(self, type_: Any, v: str, one: Mapping[str, Any]) -> str:
        what = kind(type_)
        if what == "union":
            rest, nullable = avsc.without_null(type_)
            if nullable:
                return f"{v} is None or ({self.test(rest, v, one)})"
            return " or ".join(f"({self.test(branch, v, one)})" for branch in type_)
        if what == "record":
            return f"{self.record(type_)}({v})"
        if what == "array" or what == "map":
            self.count += 1
            inner = f"v{self.count}"
            test = self.test(type_["items" if what == "array" else "values"], inner, {})
            if what == "array":
                return f"isinstance({v}, (list, tuple)) and all([{test} for {inner} in {v}])"
            keys = f"all([isinstance({inner}, str) for {inner} in {v}])"
            return f"isinstance({v}, Mapping) and {keys} and all([{test} for {inner} in {v}.values()])"
        if what == "enum":
            return f"isinstance({v}, str) and {v} in {self.name(frozenset(type_['symbols']))}"
        tests = [self.leaf(type_, what).format(v=v), *self.constraints(what, one, v)]
        return " and ".join(tests)

    def leaf(self, type_: Any, what: str) -> str:
        name = logical(type_)
        if name == "decimal":
            bound = self.name((type_["precision"], type_.get("scale", 0)))
            self.scope["fits"] = fits_decimal
            return f"isinstance({{v}}, Decimal) and fits({{v}}, *{bound})"
        if name is not None:
            return _PYTHON[name][0]
        if what == "fixed":
            return f"isinstance({{v}}, bytes) and len({{v}}) == {type_['size']}"
        return _PLAIN[what][0]

    def constraints(self, what: str, one: Mapping[str, Any], v: str) -> Iterator[str]:
        if what == "string":
            low, high = one.get("minLength", 0), one.get("maxLength")
            if low and high is not None:
                yield f"{low!r} <= len({v}) <= {high!r}"
            elif low or high is not None:
                yield f"len({v}) >= {low!r}" if high is None else f"len({v}) <= {high!r}"
            if "pattern" in one:
                yield f"{self.name(pattern.compiled(one['pattern']))}({v})"
        elif what in ("int", "long", "float", "double") and "minimum" in one:
            yield f"{v} >= {one['minimum']!r}"
        if what in ("int", "long", "float", "double") and "maximum" in one:
            yield f"{v} <= {one['maximum']!r}"


def fits_decimal(value: Decimal, precision: int, scale: int) -> bool:
    """Whether the number can be written exactly with so many digits, ``scale`` of them behind the point."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):  # NaN, Infinity
        return False
    return -exponent <= scale and (value == 0 or len(digits) + exponent + scale <= precision)


def checker(schema: Any) -> Checker:
    """A function that says whether a datum fits the *resolved* schema, constraints included: no missing or unknown
    field, no text for a number, no time without a zone. It may also raise KeyError or TypeError for "no"."""
    compiler = Tests()
    test = compiler.test(schema, "d", {})
    source = "\n".join([*compiler.source, "def check(d):", f" return {test}"])
    exec(compile(source, "<checker>", "exec"), compiler.scope)
    check: Checker = compiler.scope["check"]
    return check


def faults(schema: Any, datum: Any, most: int = FAULTS_MAX) -> list[str]:
    """What is wrong with a datum, one clause per field with its dotted path and never a value, at most ``most``; empty
    when it fits the *resolved* schema."""
    return list(islice(_faults(schema, datum, "", {}), most))


def _faults(type_: Any, value: Any, path: str, one: Mapping[str, Any]) -> Iterator[str]:
    what = kind(type_)
    place = f"field {path}" if path else "the payload"
    if what == "union":
        rest, nullable = avsc.without_null(type_)
        if nullable and value is None:
            return
        if nullable:
            yield from _faults(rest, value, path, one)
        elif not checker(type_)(value):
            yield f"{place} fits none of its types"
    elif what == "record":
        if not isinstance(value, Mapping):
            yield f"{place} must be an object with fields, not {seen(value)}"
            return
        names = [field["name"] for field in type_["fields"]]
        for name in value:
            if name not in names:
                yield f"{join(path, name)} is no field of {type_['name']}.{did_you_mean(str(name), names)}"
        for field in type_["fields"]:
            inner = join(path, field["name"])
            if field["name"] in value:
                yield from _faults(field["type"], value[field["name"]], inner, field)
            elif "default" not in field:
                yield f"field {inner} is missing"
    elif what == "array":
        if not isinstance(value, list | tuple):
            yield f"{place} must be a list, not {seen(value)}"
            return
        for index, item in enumerate(value):
            yield from _faults(type_["items"], item, f"{path}[{index}]", {})
    elif what == "map":
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            yield f"{place} must be an object with text keys, not {seen(value)}"
            return
        for item in value.values():  # a key may be personal data: it is not named
            yield from _faults(type_["values"], item, f"{path}.*", {})
    elif what == "enum":
        if not isinstance(value, str) or value not in type_["symbols"]:
            symbols = ", ".join(type_["symbols"][:12]) + (" ..." if len(type_["symbols"]) > 12 else "")
            yield f"{place} must be one of {symbols}"
    else:
        yield from _leaf_faults(type_, what, value, place, one)


@lru_cache(maxsize=1024)
def _compiled(test: str) -> Any:
    return compile(test, "<leaf>", "eval")


def _leaf_faults(type_: Any, what: str, value: Any, place: str, one: Mapping[str, Any]) -> Iterator[str]:
    compiler = Tests()
    test = compiler.leaf(type_, what).format(v="v")
    if not eval(_compiled(test), compiler.scope, {"v": value}):
        name = logical(type_)
        if name == "decimal" and isinstance(value, Decimal):
            yield f"{place} must fit {type_['precision']} digits with {type_.get('scale', 0)} behind the point"
        elif what == "fixed" and name is None:
            yield f"{place} must be {type_['size']} bytes, not {seen(value)}"
        else:
            expected = _PYTHON[name][1] if name else _PLAIN[what][1]
            found = "out of range" if type(value) is int and what in ("int", "long") else seen(value)
            yield f"{place} must be {expected}, not {found}"
        return
    if what == "string" and isinstance(value, str):
        low, high = one.get("minLength", 0), one.get("maxLength")
        if len(value) < low:
            yield f"{place} must have at least {low} characters"
        if high is not None and len(value) > high:
            yield f"{place} must have at most {high} characters"
        if "pattern" in one and not pattern.compiled(one["pattern"])(value):
            yield f"{place} must look like {one['pattern']}"
        if not _is_unicode(value):
            yield f"{place} holds half a character (a lone surrogate) and cannot be written as UTF-8"
    if what in ("int", "long", "float", "double") and type(value) in (int, float):
        if "minimum" in one and value < one["minimum"]:
            yield f"{place} must be at least {one['minimum']}"
        if "maximum" in one and value > one["maximum"]:
            yield f"{place} must be at most {one['maximum']}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def join(path: str, name: Any) -> str:
    """A field's dotted path below another."""
    step = name if isinstance(name, str) and len(name) <= 60 else shown(name)
    return f"{path}.{step}" if path else step


def seen(value: Any) -> str:
    """What kind of value it is, for a sentence; never the value."""
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}
    names |= {list: "a list", tuple: "a list", dict: "an object", bytes: "bytes"}
    names |= {datetime: "a time" if getattr(value, "tzinfo", None) else "a time without a zone", date: "a date"}
    return names.get(type(value), type(value).__name__)
