from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connector import JsonValue, Unavailable, Unknown
from connectors.exchanges import note_exchanges
from connectors.transport import (
    WAIT_MAX,
    Answer,
    Lost,
    NotSent,
    Transport,
    as_json,
    pause_until,
    retry_after,
    unanswered,
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve, **limits: float) -> AsyncIterator[Transport]:
    """A transport to a server that does as it likes with each connection."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, as these tests want it to
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = {"timeout_s": 5.0, **limits}
    transport = Transport(f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer canary"}, **settings)  # type: ignore[arg-type]
    try:
        yield transport
    finally:
        await transport.close()
        server.close()


def answering(raw: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return serve


async def forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def with_body(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *headers, b"Content-Length: %d" % len(body), b"", body])


async def test_an_answer_comes_back_whole_whatever_its_status() -> None:
    raw = b'HTTP/1.1 503 Away\r\nretry-after: 7\r\nContent-Length: 11\r\n\r\n{"a": "ok"}'
    async with served(answering(raw)) as transport:
        answer = await transport.request("POST", "/x", body=b"{}")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.json(), answer.headers.get("RETRY-AFTER")) == (503, {"a": "ok"}, "7")
    assert "ok" not in repr(answer)


async def test_a_refused_connection_is_not_sent() -> None:
    async with served(forever) as transport:
        base = transport._base
    later = Transport(base, headers={})
    assert await later.request("POST", "/x") == NotSent("refused")
    await later.close()


async def test_a_name_that_does_not_exist_is_not_sent() -> None:
    transport = Transport("https://backbone.invalid", headers={}, timeout_s=5)
    assert (await transport.request("POST", "/x")) in (NotSent("dns"), NotSent("connect_timeout"))
    await transport.close()


async def test_a_server_that_does_not_speak_tls_is_not_sent_a_request() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome, I am no TLS\r\n" * 10)
        await writer.drain()

    async with served(plain) as known:
        transport = Transport(known._base.replace("http:", "https:"), headers={}, timeout_s=5)
        assert await transport.request("POST", "/x") == NotSent("tls")
        await transport.close()


async def test_a_certificate_that_nobody_vouches_for_is_not_sent_a_request(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(10))
        writer.close()

    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
    transport = Transport(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", headers={}, timeout_s=5)
    assert await transport.request("POST", "/x") == NotSent("tls")
    assert seen == []
    await transport.close()
    server.close()


def self_signed(folder: Path) -> Path:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "self-signed.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


async def test_silence_is_lost_when_the_total_deadline_passes() -> None:
    async with served(forever, timeout_s=0.2) as transport:
        assert await transport.request("POST", "/x") == Lost("timeout")


async def test_a_body_that_drips_does_not_outlive_the_total_deadline() -> None:
    """Other clients' timeouts are between bytes: with 1 s they still waited after 8."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with served(drip, timeout_s=0.4) as transport:
        start = time.monotonic()
        assert await transport.request("POST", "/x") == Lost("timeout")
        assert time.monotonic() - start < 3


async def test_headers_that_drip_do_not_outlive_the_total_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async with served(drip, timeout_s=0.4) as transport:
        assert await transport.request("POST", "/x") == Lost("timeout")


async def test_a_cut_answer_is_lost() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    async with served(answering(raw)) as transport:
        assert await transport.request("POST", "/x") == Lost("cut")
    async with served(answering(b"")) as transport:
        assert await transport.request("POST", "/x") == Lost("cut")
    async with served(answering(b"nonsense\r\n\r\n")) as transport:
        assert await transport.request("POST", "/x") == Lost("cut")


async def test_a_post_is_never_sent_twice_behind_the_callers_back() -> None:
    """aiohttp repeats idempotent methods on a connection that died; for a POST nobody can know whether it was read."""
    seen = 0

    async def once_then_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while True:
            await reader.readuntil(b"\r\n\r\n")
            seen += 1
            if seen == 2:
                return
            writer.write(with_body(b"{}"))

    async with served(once_then_gone) as transport:
        assert isinstance(await transport.request("POST", "/x"), Answer)
        assert await transport.request("POST", "/x") == Lost("cut")
        assert seen == 2
        assert isinstance(await transport.request("POST", "/x"), Answer)


async def test_connections_closed_by_the_vendor_while_idle_fail_no_request() -> None:
    closed = asyncio.Event()

    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(with_body(b"{}"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with served(answer_and_close) as transport:
        for _ in range(20):
            closed.clear()
            assert isinstance(await transport.request("POST", "/x"), Answer)
            await closed.wait()
            await asyncio.sleep(0)


async def test_a_gzip_answer_is_read() -> None:
    async with served(answering(with_body(gzip.compress(b'{"a": 1}'), b"Content-Encoding: gzip"))) as transport:
        answer = await transport.request("POST", "/x")
        assert isinstance(answer, Answer)
        assert answer.json() == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "lost"),
    [
        (with_body(b" " * 2001), "too_large"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n", "cut"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"3e8\r\n" + b"x" * 1000 + b"\r\n") * 5,
            "too_large",
        ),
        (with_body(gzip.compress(b" " * 1_000_000, mtime=0), b"Content-Encoding: gzip"), "too_large"),
        (with_body(gzip.compress(b" " * 100, mtime=0)[:-9], b"Content-Encoding: gzip"), "cut"),
        (with_body(b"not gzip", b"Content-Encoding: gzip"), "unreadable"),
        (with_body(b"zzz", b"Content-Encoding: br"), "unreadable"),
    ],
)
async def test_an_answer_too_large_or_unreadable_is_lost(raw: bytes, lost: str) -> None:
    async with served(answering(raw), body_max=2000) as transport:
        assert await transport.request("POST", "/x") == Lost(lost)  # type: ignore[arg-type]


async def test_redirects_are_not_followed() -> None:
    raw = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with served(answering(raw)) as transport:
        answer = await transport.request("POST", "/x")
    assert isinstance(answer, Answer)
    assert answer.status == 302


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with served(answering(with_body(b"{}"))) as transport:
        assert isinstance(await transport.request("POST", "/x"), Answer)


async def test_closing_twice_is_fine_and_later_requests_are_not_sent() -> None:
    async with served(answering(with_body(b"{}"))) as transport:
        assert isinstance(await transport.request("POST", "/x"), Answer)
        await transport.close()
        await transport.close()
        assert await transport.request("POST", "/x") == NotSent("closed")


async def test_cookies_of_one_answer_are_not_sent_with_the_next_request() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(with_body(b"{}", b"Set-Cookie: who=me"))

    async with served(serve) as transport:
        await transport.request("POST", "/x")
        await transport.request("POST", "/x")
    assert len(heads) == 2
    assert b"Cookie" not in heads[1]


def test_not_sent_is_unavailable_and_lost_is_unknown() -> None:
    assert unanswered(NotSent("dns")) == Unavailable("dns")
    assert unanswered(Lost("cut")) == Unknown("cut")


NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "5"}, 5),
        ({"Retry-After": " 5 "}, 5),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "٥"}, None),
        ({"Retry-After": "9" * 400}, 3600),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}, 30),
        ({"Retry-After": format_datetime(NOW - timedelta(seconds=30), usegmt=True)}, 0),
        ({"Retry-After": "Fri, 20 Nov 2099 12:00:00 GMT"}, 3600),
        ({"Retry-After": "Fri, 20 Nov 2026 12:00:09 GMT", "Date": "Fri, 20 Nov 2026 12:00:02 GMT"}, 7),
        ({"Retry-After": "Fri, 20 Nov 99999 12:00:09 GMT"}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == (None if seconds is None else timedelta(seconds=seconds))


@given(st.text(), st.text())
def test_any_retry_after_is_a_bounded_wait_or_none(value: str, date: str) -> None:
    wait = retry_after({"Retry-After": value, "Date": date})
    assert wait is None or timedelta(0) <= wait <= WAIT_MAX


@given(st.binary())
def test_any_body_is_json_or_none(body: bytes) -> None:
    Answer(200, {}, body).json()


def test_an_answer_that_is_nested_too_deeply_is_no_json() -> None:
    assert Answer(200, {}, b"[" * 100_000).json() is None


def test_half_a_surrogate_pair_in_an_answer_does_not_make_it_unreadable() -> None:
    """Vendors in Java cut texts in the middle of an emoji; the quick parser refuses such an answer."""
    assert Answer(400, {}, b'{"message": "too long: \\ud83d"}').json() == {"message": "too long: \ud83d"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_sent_as_json_reads_back_the_same(document: JsonValue) -> None:
    assert json.loads(as_json(document)) == document


def test_half_a_surrogate_pair_can_be_sent() -> None:
    assert json.loads(as_json({"cut": "\ud83d"})) == {"cut": "\ud83d"}


def test_a_pause_is_only_ever_made_longer() -> None:
    later = time.monotonic() + 100
    assert pause_until(later, None) == later
    assert pause_until(later, timedelta(seconds=1)) == later
    assert pause_until(later, timedelta(seconds=1000)) > later


async def test_who_wants_to_know_is_told_what_went_over_the_wire_and_nobody_else_is() -> None:
    raw = with_body(b'{"a": 1}', b"Connection: close")
    async with served(answering(raw)) as transport:
        await transport.request("POST", "/unseen", body=b"{}")
        noted = note_exchanges()
        await transport.request("POST", "/contacts?limit=1", body=b"{}")
        await transport.request("GET", "/contacts/ada%40example.org", template="/contacts/{id}")
        await transport.request("POST", "/token", body=b"refresh_token=canary", secret=True)
    assert [
        (one.method, one.endpoint, one.sent_bytes, one.status, one.received_bytes, one.failed) for one in noted
    ] == [
        ("POST", "/contacts", 2, 200, 8, ""),
        ("GET", "/contacts/{id}", 0, 200, 8, ""),
        ("POST", "/token", 20, 200, 8, ""),
    ]
    assert [one.answer is None for one in noted] == [False, False, True]
    assert "ada" not in repr(noted)
    assert "canary" not in repr(noted)


async def test_a_request_without_an_answer_is_noted_too_also_one_that_is_given_up() -> None:
    noted = note_exchanges()
    async with served(forever, timeout_s=0.1) as transport:
        await transport.request("POST", "/slow", body=b"{}")
        task = asyncio.create_task(transport.request("POST", "/left", body=b"{}"))
        while len(noted) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [(one.endpoint, one.status, one.failed) for one in noted] == [
        ("/slow", None, "timeout"), ("/left", None, "unfinished"),
    ]  # fmt: skip
