"""Texts that want to break whoever reads them: one corpus for each kind of file that people hand us."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tests.conftest import ROOT

CONTRACT: Final[dict[str, Any]] = json.loads((ROOT / "schemas/events/billing/InvoicePaid.avsc").read_text())
SUBSCRIPTION: Final = (ROOT / "consumers/subscriptions/crm-contacts.yaml").read_text()
PROJECT: Final = (ROOT / "backbone.toml").read_text()

LIMIT = 256 << 10
"""What each reader takes at most, in bytes."""


def contracts() -> Iterator[tuple[str, bytes]]:
    yield from _encodings(json.dumps(CONTRACT))
    for name, change in _CONTRACT_CHANGES.items():
        schema = copy.deepcopy(CONTRACT)
        change(schema)
        yield name, json.dumps(schema).encode()
    good = json.dumps(CONTRACT)
    for word in ("1e999", "-1e999", "NaN", "Infinity", "9" * 4_000, "9" * 5_000, "0." + "9" * 50_000, "1e-99999"):
        for place in ("minimum", "default", "examples"):
            value = f"[{word}]" if place == "examples" else word
            field = f'{{"name": "n", "doc": "N.", "type": "double", "{place}": {value}}}'
            yield f"the number {word[:12]} as {place}", good.replace('"fields": [', f'"fields": [{field}, ', 1).encode()
    yield (
        "many keys, the last one twice",
        ("{" + ",".join(f'"k{n}":1' for n in range(22_000)) + ',"k21999":1}').encode(),
    )
    yield "brackets", b"[" * LIMIT
    yield "braces", b'{"a":' * (LIMIT // 5)
    yield "deep but closed", (b"[" * 900) + (b"]" * 900)
    yield "types in types", b'{"type":' * 800 + b'"string"' + b"}" * 800
    yield "unions in unions", good.replace('"type": "string"', '"type": ' + "[" * 500 + "]" * 500, 1).encode()


def _field(**attributes: Any) -> Callable[[dict[str, Any]], None]:
    def change(schema: dict[str, Any]) -> None:
        schema["fields"].append({"name": "extra", "type": "string", "doc": "Something.", **attributes})

    return change


def _attribute(**attributes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda schema: schema.update(attributes)


def _promise(**attributes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda schema: schema["backbone"].update(attributes)


def _nested(levels: int, value: Any = "x") -> Any:
    for _ in range(levels):
        value = [value]
    return value


def _doubling(levels: int, length: int = 1) -> Callable[[dict[str, Any]], None]:
    """Two fields of a type that has two fields of a type …: small in the text, and exponential when written out."""

    def change(schema: dict[str, Any]) -> None:
        for level in range(levels):
            inner: Any = "int" if level == 0 else f"L{level - 1}"
            names = [f"{side}{'x' * length}" for side in ("a", "b")]
            fields = [{"name": name, "type": inner, "doc": "N."} for name in names]
            record = {"type": "record", "name": f"L{level}", "doc": "L.", "fields": fields}
            schema["fields"].append({"name": f"l{level}", "type": record, "doc": "L."})

    return change


def _symbols() -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": [f"S{n}" for n in range(1000)]}


_EXPLOSIVE = ("(a+)+$", "(a|a)*$", "(a|aa)+$", "(.*)*x", "(.*a){20}", "((a{0,20}){0,20}){0,20}b", r"(\w{0,900}x)*y",
              "(a?){500}a{500}", "(a{1000}){1000}", "(?i)(é|É|e)*z", "^" + "(a*)*" * 100 + "$", "[" * 1000,
              "(" * 400 + ")" * 400, "a{99999999999}", r"(\p{L}{100}){9}", "a{1,0}", "(?P<x>a)(?P<x>b)",
              "\\")  # fmt: skip
_TIMES = ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "99999-01-01", "2026-05-01T00:00:00+99:99", "",
          "2026-02-30T00:00:00Z", "T", "2026-W53-7T00:00:00Z", "9" * 9_999, "\x00", "\ud800", "٢٠٢٦-٠٥-٠١")  # fmt: skip

_CONTRACT_CHANGES: Mapping[str, Callable[[dict[str, Any]], None]] = {
    **{f"the pattern {p[:20]!r} against an example": _field(pattern=p, examples=["a" * 40 + "!"]) for p in _EXPLOSIVE},
    **{f"the pattern {p[:20]!r} against a long one": _field(pattern=p, examples=["a" * 200_000]) for p in _EXPLOSIVE},
    **{f"the pattern {p[:20]!r} against many": _field(pattern=p, examples=["a" * 900] * 270) for p in _EXPLOSIVE},
    **{
        f"the time {time[:12]!r} as {name}": _field(type={"type": kind, "logicalType": name}, examples=[time])
        for time in _TIMES
        for kind, name in (("long", "timestamp-millis"), ("long", "local-timestamp-micros"), ("int", "date"),
                           ("int", "time-millis"), ("string", "uuid"))
    },
    **{
        f"the decimal {text[:12]!r}": _field(
            type={"type": "fixed", "size": 8, "name": "D", "logicalType": "decimal", "precision": 9, "scale": 2},
            examples=[text],
        )
        for text in ("1e999999999", "-1e-999999999", "NaN", "sNaN", "Infinity", "9" * 200_000, "1_0", "\x00")
    },
    "a field of 100,000 characters": _field(name="x" * 100_000),
    "names that double": _doubling(14),
    "long names that double": _doubling(12, 9_000),
    "names of 200 that double": _doubling(13, 199),
    "5,000 fields": lambda schema: schema["fields"].extend({"name": f"f{n}", "type": "int"} for n in range(5_000)),
    "9,000 empty fields": lambda schema: schema["fields"].extend({} for _ in range(9_000)),
    "names that are nearly the key": lambda schema: (
        schema["fields"].extend({"name": "ab" * 90 + str(n), "type": "int", "doc": "N."} for n in range(900)),
        schema["backbone"].update(key="ba" * 90),
    )[0],
    "9,000 attributes of the promise": _promise(**{f"topik{n}": "x" for n in range(9_000)}),
    "9,000 attributes of the record": _attribute(**{f"atribute{n}": "x" for n in range(9_000)}),
    "long attributes": _promise(**{("topic" * 9_000) + str(n): "x" for n in range(4)}),
    "a deep default": _field(default=_nested(850)),
    "a deep example": _field(examples=_nested(850)),
    "a deep class": _field(personal_data=_nested(850)),
    "a deep status": _promise(status=_nested(850)),
    "a deep doc": _attribute(doc=_nested(850)),
    "a deep pattern": _field(pattern=_nested(850)),
    "examples with unknown names": _field(
        type={"type": "record", "name": "R", "doc": "R.", "fields": [
            {"name": "ab" * 20 + str(n), "type": "int", "doc": "N.", "default": 0} for n in range(400)]},
        examples=[{"ba" * 20 + str(n): 1 for n in range(2_000)}],
    ),
    "1,000 symbols in 400 fields": lambda schema: schema["fields"].extend(
        {"name": f"f{n}", "type": _symbols() if n == 0 else "E", "doc": "N."} for n in range(400)),
    "a union of everything": _field(type=["null", "boolean", "int", "long", "float", "double", "bytes", "string"] * 20),
    "a union of 4,000": _field(type=[{"type": "fixed", "name": f"F{n}", "size": n} for n in range(4_000)]),
    "a huge fixed": _field(type={"type": "fixed", "name": "F", "size": 10**18}),
    "an array of arrays of nulls": _field(type={"type": "array", "items": {"type": "array", "items": "null"}}),
    "surrogates": _attribute(name="\ud800", doc="\udfff", **{"\ud800": 1}),
    "control characters": _promise(**{"a\u0000\n\u001b[2J": "x", "topic": "\u0000"}),
    "a duration of digits": _promise(retention="9" * 200_000 + "d", freshness_slo="1s" * 100_000),
    "a duration of zeros": _promise(retention="000000000000d" * 4),
    "null everywhere": lambda schema: schema.update(dict.fromkeys(schema)),
    "lists everywhere": lambda schema: schema.update({name: [] for name in schema}),
    "no name": lambda schema: schema.pop("name"),
    "a tall tower of wrappers": _field(type={"type": {"type": {"type": {"type": "string"}}}}),
    "a deep class in a deep union": _field(type=["null", {"type": "array", "items": _nested(20, "string")}]),
}  # fmt: skip


def subscriptions() -> Iterator[tuple[str, bytes]]:
    yield from _encodings(SUBSCRIPTION)
    head = "description: x\nowner: x\nconnection: warehouse\n"
    route = 'action: row.upsert\n    entity: "{{ event.id }}"\n    body: {table: "t", row: '

    def routes(count: int, body: str, event: str = '["accounts.*", "billing.*"]') -> str:
        one = f"  - event: {event}\n    where: event.id == 'NUMBER'\n    {route}{body}}}\n"
        return head + "routes:\n" + "".join(one.replace("NUMBER", str(number)) for number in range(count))

    field = "a%d: '{{ event.id }}'"
    yield "9,000 expressions", routes(1, "{" + ", ".join(field % n for n in range(9_000)) + "}").encode()
    yield "9,000 constants", routes(1, "{" + ", ".join(f"a{n}: x{n}" for n in range(9_000)) + "}").encode()
    yield "200 routes of all events", routes(200, "'{{ data | allowed }}'").encode()
    yield (
        "200 routes of all events with texts",
        routes(200, "{" + ", ".join(field % n for n in range(20)) + "}").encode(),
    )
    yield (
        "20,000 unknown events",
        (
            head
            + "routes:\n  - event: ["
            + ",".join(f"billing.Invoic{n}" for n in range(12_000))
            + f"]\n    {route}{{}}}}\n"
        ).encode(),
    )
    yield (
        "20,000 known events",
        (
            head + "routes:\n  - event: [" + ",".join(["billing.InvoicePaid"] * 12_000) + f"]\n    {route}{{}}}}\n"
        ).encode(),
    )
    yield (
        "20,000 wildcards",
        (head + "routes:\n  - event: [" + ",".join(["'billing.*'"] * 15_000) + f"]\n    {route}{{}}}}\n").encode(),
    )
    yield (
        "20,000 wildcards of nothing",
        (
            head
            + "routes:\n  - event: ["
            + ",".join(f"'bling{n}.*'" for n in range(15_000))
            + f"]\n    {route}{{}}}}\n"
        ).encode(),
    )
    yield "12,000 unknown names", (SUBSCRIPTION + "".join(f"ownr{n}: x\n" for n in range(12_000))).encode()
    yield (
        "a test with 10,000 unknown fields",
        (
            SUBSCRIPTION + "\n  - name: x\n    expect: []\n    given: [{event: "
            "accounts.UserSignedUp, data: {" + ", ".join(f"emial{n}: x" for n in range(10_000)) + "}}]\n"
        ).encode(),
    )
    yield (
        "500 tests with 20 events",
        (
            SUBSCRIPTION
            + "".join(
                f"\n  - name: x{n}\n    expect: []\n    given: ["
                + ", ".join(["{event: accounts.UserSignedUpp}"] * 10)
                + "]"
                for n in range(400)
            )
        ).encode(),
    )
    yield (
        "20,000 answers of the vendor",
        (
            SUBSCRIPTION + "\n  - name: x\n    expect: []\n    given: [{event: "
            "accounts.UserSignedUp}]\n    vendor: [" + ", ".join(["nonsense"] * 15_000) + "]\n"
        ).encode(),
    )
    yield (
        "9,000 classes",
        SUBSCRIPTION.replace(
            "allow: [email, name]", "allow: [" + ", ".join(f"emial{n}" for n in range(9_000)) + "]"
        ).encode(),
    )
    for name, expression in {
        "a power of powers": "{{ 9 ** 9 ** 9 ** 9 }}",
        "a text a billion times": "{{ 'a' * 1000000000 }}",
        "a list a billion times": "{{ [1] * 1000000000 }}",
        "a huge number": "{{ " + "9" * 3_900 + " }}",
        "a number of many digits": "{{ 1" + "0" * 3_000 + " * 1" + "0" * 800 + " }}",
        "parentheses": "{{ " + "(" * 1_900 + "1" + ")" * 1_900 + " }}",
        "signs": "{{ " + "-" * 3_900 + "1 }}",
        "nots": "{{ " + "not " * 900 + "1 }}",
        "sums": "{{ " + "1+" * 1_900 + "1 }}",
        "joins": "{{ " + "'a'~" * 900 + "'a' }}",
        "ands": "{{ " + "data.email and " * 250 + "1 }}",
        "filters": "{{ data.email" + "|lower" * 500 + " }}",
        "attributes": "{{ data" + ".email" * 500 + " }}",
        "indexes": "{{ data" + "[0]" * 900 + " }}",
        "conditions": "{{ " + "1 if 1 else " * 300 + "1 }}",
        "brackets": "{{ " + "[" * 1_900 + "]" * 1_900 + " }}",
        "a replacement that grows": "{{ 'a' | replace('', '" + "b" * 999 + "')" + " | replace('', 'bbbb')" * 40 + " }}",
        "1,000 expressions in a text": "{{1}}" * 800,
        "half an expression": "{{" * 1_900,
        "a statement": "{% for x in y %}" * 200,
        "a comment": "{#" * 1_900,
        "escapes": "{{ '" + "\\\\x41" * 500 + "' }}",
        "a name of no language": "{{ data.\u202e\u0000é }}",
        "text of 200,000": "x" * 200_000,
        "expression of 200,000": "{{ " + "1 + " * 50_000 + " 1 }}",
        "times": "{{ event.time | date('%Y' ) | datetime | date | slug | snake | hash }}",
        "a format of formats": "{{ event.time | date('" + "%Y" * 1_900 + "') }}",
    }.items():  # fmt: skip
        yield f"expression: {name}", routes(1, json.dumps(expression), "accounts.UserSignedUp").encode()
        where = routes(1, "{}", "accounts.UserSignedUp").replace("event.id == '0'", json.dumps(expression.strip("{} ")))
        yield f"condition: {name}", where.encode()
    for name, text in {
        "brackets": "[" * 100_000, "braces": "{" * 4_999, "pairs": "[]" * 2_400, "dashes": "- " * 100_000,
        "deep": "\n".join(" " * n + "a:" for n in range(650)), "values": "a:\n" * 80_000,
        "one key": "k" * 200_000 + ": 1",
        "laughs": "a: &a [x,x]\n" + "\n".join(f"b{n}: &b{n} [*a,*a]" for n in range(100)), "nul": "a: \x00",
        "documents": "---\n" * 50_000, "quotes": "'\n" * 50_000, "numbers": "a: " + "9" * 200_000,
        "infinities": "a: [.inf, .nan, 1e999, 0x" + "f" * 9_999 + "]", "dates": "a: 9999-99-99T99:99:99Z",
        "merges": "<<: {a: 1}\n" * 9_000, "long lines": "a: " + " # x" * 60_000,
    }.items():  # fmt: skip
        yield name, text.encode()


def projects() -> Iterator[tuple[str, bytes]]:
    yield from _encodings(PROJECT)
    start = '[project]\nname = "acme"\nschemas = "schemas/events"\nsubscriptions = "consumers/subscriptions"\n'

    for name, text in {
        "a number of 5,000 digits": "x = " + "9" * 5_000,
        "a number of 250,000 digits": "x = " + "9" * 250_000,
        "numbers without end": "x = [inf, nan, 1e999, -1e-999, 0x" + "f" * 9_999 + "]",
        "a key of 100,000 parts": ".".join("a" * 100_000) + " = 1",
        "a key of 4,000 parts": ".".join("a" * 4_000) + " = 1",
        "a header of 100,000 parts": "[" + ".".join("a" * 100_000) + "]",
        "a header of 4,000 parts": "[contexts.a.kafka." + ".".join("a" * 4_000) + "]\na = 1",
        "connections of 900 parts": "[connections.a]\nconnector = 'sql'\n" + ".".join("a" * 900) + " = 1",
        "an inline table of 9,000 parts": "x = {" + ".".join("a" * 9_000) + " = 1}",
        "keys in quotes": '"a"."b".' * 20_000 + "c = 1",
        "keys with blanks": "a . " * 30_000 + "c = 1",
        "arrays": "x = " + "[" * 200_000,
        "arrays that are closed": "x = " + "[" * 900 + "]" * 900,
        "inline tables": "x = " + "{a = " * 900 + "1" + "}" * 900,
        "tables": "".join(f"[contexts.a{n}]\n" for n in range(12_000)),
        "arrays of tables": "[[contexts]]\n" * 18_000,
        "connections": "".join(f"[connections.a{n}]\nconnector = 'sql'\n" for n in range(6_000)),
        "connections of nobody": "".join(f"[contexts.x.connections.hubspt{n}]\n" for n in range(6_000)),
        "contexts of contexts": "".join(f"[contexts.a.fakes]\na{n} = 1\n" for n in range(9_000)),
        "unknown settings": "".join(f"[contexts.a{n}]\nproductoin = true\n" for n in range(6_000)),
        "a string without end": "x = '" + "a" * 250_000,
        "strings": "x = [" + "'a'," * 60_000 + "]",
        "quotes": "x = " + "'''\n" * 60_000,
        "comments": "# x\n" * 60_000,
        "newlines": "\n" * 250_000,
        "equal signs": "=" * 250_000,
        "dates": "x = [9999-99-99, 2026-02-30T25:61:61Z, 0000-00-00, 24:00:00, 2026-01-01T00:00:00+99:99]",
        "a key with control characters": '"a\\n\\u001b[2J" = 1',
        "a name with control characters": '[contexts."a\\n\\u0000b"]\nproductoin = 1',
        "a folder with a NUL": '[contexts.local]\nregistry.ca_file = "a\\u0000b"',
        "a file with a NUL": '[contexts.local]\nkafka."sasl.password" = "file:a\\u0000b"',
        "a variable with a NUL": '[contexts.local]\nregistry.token = "env:a\\u0000=b"',
        "an address that is none": '[contexts.local]\nregistry.url = "http://[x"\nledger = "x://["',
        "a fake at no address": '[contexts.local]\nfakes.slack = "http://[::1"',
        "rates": "".join(
            f"[connections.a{n}]\nconnector = 'slack'\nrate = '9999999999999999999/{n}s'\n" for n in range(99)
        ),
        "a rate of digits": "[connections.a]\nconnector = 'slack'\nrate = '" + "9" * 200_000 + "/s'",
        "durations": "[connections.a]\nconnector = 'slack'\ncircuit_open = '" + "9" * 200_000 + "s'",
        "properties": "[connections.a]\nconnector = 'hubspot'\ncustom_properties = [" + "'a'," * 50_000 + "]",
        "a property that is a table": "[connections.a]\nconnector = 'hubspot'\ncustom_properties = {a = 1}",
        "a long value": "[contexts.a]\nledger = '" + "a:" * 100_000 + "'",
        "passwords in addresses": "[contexts.a]\nledger = '" + "a://" * 60_000 + "'",
        "queries": "[contexts.a]\nledger = 'a://" + "?&" * 100_000 + "'",
        "too long": "# " + "x" * 2_000_000,
    }.items():  # fmt: skip
        yield name, (start + text if not text.startswith("x = ") else start + "[contexts.a.kafka]\n" + text).encode()
        yield f"{name}, on top", text.encode()


def _encodings(text: str) -> Iterator[tuple[str, bytes]]:
    yield "as it is", text.encode()
    yield "nothing", b""
    yield "a byte order mark", text.encode("utf-8-sig")
    yield "two byte order marks", b"\xef\xbb\xbf" + text.encode("utf-8-sig")
    yield "utf-16", text.encode("utf-16")
    yield "utf-32", text.encode("utf-32")
    yield "latin-1", text.encode() + "é".encode("latin-1")
    yield "a lone surrogate", text.encode() + "\ud800".encode("utf-8", "surrogatepass")
    yield "NULs", b"\x00" * LIMIT
    yield "a NUL in the middle", text.encode()[:99] + b"\x00" + text.encode()[99:]
    yield "cut in the middle", text.encode()[: len(text) // 2]
    yield "twice", text.encode() * 2
    yield "old line ends", text.replace("\n", "\r").encode()
    yield "letters", b"a" * LIMIT
    yield "more than is read", text.encode() + b" " * (3 << 20)


CORPUS: Mapping[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "contract": contracts,
    "subscription": subscriptions,
    "project": projects,
    "misbehaving": lambda: iter(
        [("well", b""), ("raise", b"raise"), ("eat", b"eat"), ("spin", b"spin"), ("never", b"")]
    ),
}
