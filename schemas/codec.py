"""Events to bytes and back: Avro with Confluent's framing, the envelope as CloudEvents headers in binary mode.

Both directions are cheap and never wait, but for the first event of a contract (``Encoder``) and for ``Decoder.load``.
What is refused is refused with a code and a field path, never with a value.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import NAMESPACE_OID, uuid5

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from schemas import avsc
from schemas.checker import Checker, checker, faults, kind
from schemas.contract import Contract
from schemas.envelope import (
    CONTENT_TYPE,
    SCHEMA_ID_HEADER,
    EncodeError,
    arrival,
    framing,
    header,
    header_text,
    header_time,
    time_header,
)
from schemas.errors import InputError, RefusedError
from schemas.event import Event, Record
from schemas.registry import Registry
from schemas.walk import BodyError, Walker, explain, walker
from schemas.write import Write
from schemas.write import writer as compiled_writer

CONTRACTS_MAX = 1000

id_of = id  # ``id`` is an event's id below
_FOREIGN = uuid5(NAMESPACE_OID, "event-backbone")


class SchemaNotRegisteredError(RefusedError):
    """The registry does not know this contract's schema; nothing registers by the way."""


class Encoded(NamedTuple):
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is written and read, in bytes of the whole value."""

    message_max: int = 1 << 20
    bytes_decimal_message_max: int = 64 << 10
    """a decimal on bytes decodes in quadratic time: 1 MiB of it takes 96 s"""


DEFAULT_LIMITS = Limits()


class _Writer(NamedTuple):
    contract: Contract
    prefix: bytes
    type: bytes
    resolved: Any
    write: Write | None
    check: Checker
    parsed: Any


class Encoder:
    """Encodes events of any contract. May be used from any thread."""

    def __init__(self, registry: Registry, limits: Limits = DEFAULT_LIMITS) -> None:
        self._registry = registry
        self._limits = limits
        self._writers: dict[int, _Writer] = {}  # by the contract's identity; each holds its contract, so ids stay

    def prepare(self, contract: Contract) -> None:
        """Look up the contract's schema id now (blocks on the registry) instead of at the first event."""
        self._writer(contract)

    def encode(
        self,
        contract: Contract,
        data: Mapping[str, Any],
        *,
        id: str,
        source: str,
        time: datetime,
        subject: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Encoded:
        """The record of one event. ``data`` holds plain Python values (times with their zone); fields with a default
        may be left out.

        Blocks on the registry for the first event of a contract only. Raises EncodeError, SchemaNotRegisteredError,
        RegistryUnavailableError, RegistryNotAllowedError.
        """
        writer = self._writers.get(id_of(contract)) or self._writer(contract)
        out = bytearray(writer.prefix)
        try:
            fits = writer.write(data, out) if writer.write else _write(writer, data, out)
            key = str(data[contract.key]).encode()
        except Exception:  # noqa: BLE001 - the errors here are of many kinds and hold the data: translated to a field
            fits, key = False, b""
        if not fits:
            raise self._fault(writer, data)
        value = bytes(out)
        if len(value) > self._limits.message_max:
            size = f"{len(value):,} bytes; at most {self._limits.message_max:,} are sent"
            raise EncodeError(f"{contract.name}: the event takes {size}.")
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", header("id", id)),
            ("ce_type", writer.type),
            ("ce_source", header("source", source)),
            ("ce_time", time_header(time)),
            ("content-type", CONTENT_TYPE),
        ]
        if subject is not None:
            headers.append(("ce_subject", header("subject", subject)))
        if correlation_id is not None:
            headers.append(("ce_correlationid", header("correlation_id", correlation_id)))
        if causation_id is not None:
            headers.append(("ce_causationid", header("causation_id", causation_id)))
        if traceparent is not None:
            headers.append(("traceparent", header("traceparent", traceparent)))
        return Encoded(key, value, headers)

    def _writer(self, contract: Contract) -> _Writer:
        found = self._registry.lookup(contract.subject, contract.text)
        if found is None:
            raise SchemaNotRegisteredError(
                f"the schema of {contract.name} is not in the registry (subject {contract.subject}). "
                f"Register it: backbone schema register {contract.name}"
            )
        resolved = avsc.resolved(contract.schema)
        writer = _Writer(
            contract=contract,
            prefix=b"\0" + found.id.to_bytes(4, "big"),
            type=contract.name.encode(),
            resolved=resolved,
            write=compiled_writer(resolved),
            check=checker(resolved),
            parsed=parse_schema(json.loads(contract.text)),
        )
        if len(self._writers) >= CONTRACTS_MAX:
            self._writers.clear()
        self._writers[id_of(contract)] = writer
        return writer

    def _fault(self, writer: _Writer, data: Any) -> EncodeError:
        found = faults(writer.resolved, data) or ["the payload does not fit the schema"]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        return EncodeError(
            f"{writer.contract.name}: {'; '.join(found[:3])}{more}.".replace("..", ".").replace("?.", "?")
        )


def _write(writer: _Writer, data: Any, out: bytearray) -> bool:
    """The way of the shapes that are not compiled: check, then let fastavro write."""
    if not writer.check(data):
        return False
    stream = BytesIO()
    schemaless_writer(stream, writer.parsed, data)
    out += stream.getvalue()
    return True


# --- decode --------------------------------------------------------------------------------------------------------

Code: TypeAlias = Literal[
    "no-value", "too-large", "framing", "schema-refused", "type-mismatch", "incompatible",
    "trailing-bytes", "truncated", "bad-index", "bad-length", "bad-number", "bad-value",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Undecodable:
    """These bytes are no event and never will be. ``detail`` names a field or says what was refused, never data."""

    code: Code
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SchemaWanted:
    """The schema with this id (or GUID) is not in memory yet: ``Decoder.load`` it in a thread and ask again."""

    key: int | str


class _Reader(NamedTuple):
    name: str
    resolved: Any
    walk: Walker
    writer: Any
    reader: Any
    bytes_decimal: bool


_NO_VALUE = Undecodable("no-value", "the record is a tombstone")
_NO_FRAMING = Undecodable("framing", "the value does not begin with a schema id")


class Decoder:
    """Decodes records. ``event_type`` and ``decode`` never block and never raise; ``load`` blocks. May be used from any
    thread.

    ``cluster`` is Kafka's cluster id: part of the identity of records without an envelope. With ``contracts``, data
    written with another version of a known schema is read as the contract states it (defaults filled in, fields it
    does not know left out); without, as it was written.
    """

    def __init__(
        self,
        registry: Registry,
        limits: Limits = DEFAULT_LIMITS,
        *,
        cluster: str = "",
        contracts: Mapping[str, Contract] | None = None,
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._cluster = cluster
        self._contracts = contracts or {}
        self._readers: dict[int | str, _Reader | Undecodable] = {}
        self._texts: dict[bytes, str | None] = {}
        self._lock = threading.Lock()

    def event_type(self, record: Record) -> str | SchemaWanted | Undecodable:
        """The event's type, from its ``ce_type`` header or else its schema's name; the value is not decoded."""
        for name, value in reversed(record.headers):  # the last of a name counts, as in ``decode``
            if name == "ce_type":
                text = None if value is None else self._texts.get(value) or self._text(value)
                if text:
                    return text
                break
        if record.value is None:
            return _NO_VALUE
        key, _ = framing(record.value, None if not record.headers else dict(record.headers).get(SCHEMA_ID_HEADER))
        if key is None:
            return _NO_FRAMING
        reader = self._readers.get(key)
        if reader is None:
            return SchemaWanted(key)
        return reader if isinstance(reader, Undecodable) else reader.name

    def decode(self, record: Record) -> Event | SchemaWanted | Undecodable:
        """The event that the record holds."""
        value = record.value
        if value is None:
            return _NO_VALUE
        size = len(value)
        if size > self._limits.message_max:
            return Undecodable("too-large", f"{size:,} bytes")
        headers = dict(record.headers)
        key, start = framing(value, headers.get(SCHEMA_ID_HEADER) if headers else None)
        if key is None:
            return _NO_FRAMING
        reader = self._readers.get(key)
        if reader is None:
            return SchemaWanted(key)
        if isinstance(reader, Undecodable):
            return reader
        if reader.bytes_decimal and size > self._limits.bytes_decimal_message_max:
            return Undecodable("too-large", f"{size:,} bytes with a decimal on bytes")
        try:
            end = reader.walk(value, start)
            if end != size:
                return self._explained(reader, value, start) if end > size else _trailing(size - end)
            stream = BytesIO(value)
            stream.seek(start)
            data = schemaless_reader(stream, reader.writer, reader.reader)
        except Exception:  # noqa: BLE001 - bytes from anywhere: whatever a library raises means undecodable
            return self._explained(reader, value, start)
        return self._event(record, headers, reader.name, data)

    def _event(
        self, record: Record, headers: Mapping[str, bytes | None], schema_name: str, data: Any
    ) -> Event | Undecodable:
        texts = self._texts
        type_header, source_header = headers.get("ce_type"), headers.get("ce_source")
        type_ = source = None
        if type_header is not None:
            type_ = texts.get(type_header) or self._text(type_header)
        if source_header is not None:
            source = texts.get(source_header) or self._text(source_header)
        if type_ is None:
            type_ = schema_name
        elif type_ != schema_name and type_ in self._contracts:
            return Undecodable("type-mismatch", f"the envelope says {type_}, the schema is {schema_name}"[:300])
        id_ = header_text(headers.get("ce_id"))
        if id_ is None:
            id_ = str(uuid5(_FOREIGN, f"{self._cluster}/{record.topic}/{record.partition}/{record.offset}"))
        key = record.key
        return Event(
            id=id_,
            type=type_,
            source=source or record.topic,
            time=header_time(headers.get("ce_time")) or arrival(record.timestamp),
            subject=header_text(headers.get("ce_subject")),
            key=None if key is None else key.decode("utf-8", "backslashreplace"),
            data=data,
            correlation_id=header_text(headers.get("ce_correlationid")),
            causation_id=header_text(headers.get("ce_causationid")),
            traceparent=header_text(headers.get("traceparent")),
        )

    def load(self, wanted: SchemaWanted) -> None:
        """Fetch a schema into memory. BLOCKS on the registry (a thread, never the event loop). A schema that is no
        Avro, no record or could kill the decoder is remembered as refused: ``decode`` then answers Undecodable.

        Raises SchemaNotFoundError (the registry remembers that for 30 s), RegistryUnavailableError,
        RegistryNotAllowedError; all may heal.
        """
        key = wanted.key
        if key in self._readers:
            return
        try:
            if isinstance(key, int):
                text = self._registry.schema(key)
            else:
                text = self._registry.schema_by_guid(key)
            found = self._reader(text, key)
        except InputError:  # no Avro, or references that lead nowhere: it stays that way
            found = Undecodable("schema-refused", f"schema {key} is not Avro that can be read")
        with self._lock:
            self._readers[key] = found

    def _reader(self, text: str, key: int | str) -> _Reader | Undecodable:
        try:
            schema = avsc.parse(text)
        except avsc.SchemaTextError as error:
            return Undecodable("schema-refused", f"schema {key} cannot be read: {error.problem.rule}")
        refused = avsc.undecodable(schema)
        if refused:
            return Undecodable("schema-refused", f"schema {key}: {refused[0].rule} at {refused[0].path or '/'}"[:300])
        resolved = avsc.resolved(schema)
        if kind(resolved) != "record":
            return Undecodable("schema-refused", f"schema {key} is no record")
        try:
            writer = parse_schema(schema)
            name = resolved["name"]
            contract = self._contracts.get(name)
            reader = None
            if contract is not None and avsc.shape(avsc.resolved(contract.schema)) != avsc.shape(resolved):
                reader = parse_schema(json.loads(contract.text))
            decimals = any(problem.rule == "bytes-decimal" for problem in avsc.problems(schema))
            return _Reader(name, resolved, walker(resolved), writer, reader, decimals)
        except Exception as error:  # noqa: BLE001 - a schema from anywhere that a library stumbles over is refused
            return Undecodable("schema-refused", f"schema {key} cannot be used ({type(error).__name__})")

    def _explained(self, reader: _Reader, value: bytes, start: int) -> Undecodable:
        try:
            error = explain(reader.resolved, value, start)
        except Exception:  # noqa: BLE001 - the explanation of broken bytes must not break
            error = BodyError("bad-value")
        if reader.reader is not None and error.code == "bad-value" and not error.path:
            return Undecodable("incompatible", f"{reader.name}: the version written cannot be read as the contract")
        return Undecodable(error.code, f"field {error.path}" if error.path else "")

    def _text(self, value: bytes) -> str | None:
        """A type or source as text; they are few, so they are kept."""
        if value in self._texts:
            return self._texts[value]
        text = header_text(value)
        if len(self._texts) < 4096:
            self._texts[value] = text
        return text


def _trailing(count: int) -> Undecodable:
    return Undecodable("trailing-bytes", f"{count:,} bytes behind the end")


__all__ = [
    "Code", "Decoder", "EncodeError", "Encoded", "Encoder", "Limits", "SchemaNotRegisteredError", "SchemaWanted",
    "Undecodable",
]  # fmt: skip
