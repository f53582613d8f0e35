"""The only outgoing HTTP of the delivery side: bounded in time and size, and its failures are values.

What libraries do not give (measured: facts.md) and this does:

- The deadline is total: connecting, sending, headers and the last byte of the body. A body that drips in is cut off.
- The answer is at most ``body_max`` bytes *after* decompression; a gzip bomb stops there.
- A redirect is never followed (it comes back as the Answer it is), environment proxies are ignored, TLS is verified.
- What went wrong comes back as ``NotSent`` (the vendor cannot have seen it) or ``Lost`` (it may have): that is the
  difference between Unavailable and Unknown. aiohttp's exceptions are translated here, once.

Idle connections are kept for 15 s, less than any vendor's own limit, so a connection is rarely closed under a request.
When that race is lost all the same, a POST is *not* repeated behind the caller's back (nobody can know whether it was
read): it is ``Lost("cut")``, and the runtime sends it again with the same key or holds it, as the policy says.
A connection that the vendor closes while idle leaves the pool at once; it fails no request.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

from pydantic_core import from_json, to_json

from connectors.connector import JsonValue, Unavailable, Unknown
from connectors.deadlines import Deadlines
from connectors.exchanges import Exchange, noted_exchanges

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

WAIT_MAX = timedelta(hours=1)
"""Longest wait taken from a vendor's word; after it one call asks again."""

KEEP_ALIVE_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, whatever its status. ``headers`` are read without regard to case. The body is not shown
    in its repr: it may carry personal data."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> JsonValue:
        """The parsed body, or None when it is not JSON (never raises)."""
        try:
            return from_json(self.body)
        except ValueError:
            pass  # the slow parser knows more: half a surrogate pair (a text cut by a vendor in Java), other encodings
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def as_json(document: JsonValue) -> bytes:
    """A document of text, finite numbers, truth values, None, lists and dictionaries as JSON in UTF-8."""
    try:
        return to_json(document)  # 3 us where the standard library takes 15, once an event
    except ValueError:  # half a surrogate pair, which the standard library escapes
        return json.dumps(document).encode()


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request did not leave: the vendor cannot have acted on it."""

    reason: Literal["refused", "dns", "tls", "connect_timeout", "closed"]


@dataclass(frozen=True, slots=True)
class Lost:
    """The request (or part of it) left, and no whole answer came back: the vendor may have acted on it."""

    reason: Literal["timeout", "cut", "too_large", "unreadable"]


Result: TypeAlias = Answer | NotSent | Lost


def unanswered(result: NotSent | Lost) -> Unavailable | Unknown:
    """What it means for the deliveries of a call that it came back without an answer."""
    match result:
        case NotSent(reason):
            return Unavailable(reason)
        case Lost(reason):
            return Unknown(reason)
        case _:
            assert_never(result)


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> timedelta | None:
    """How long the vendor asks to be left alone (``Retry-After``, RFC 9110 10.2.3: seconds or an HTTP date), between
    0 and ``WAIT_MAX``; None when it does not say or cannot be read. A date counts from the answer's own ``Date``, so
    a vendor's wrong clock does no harm; without one from ``now``."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(timedelta(seconds=min(float(text), WAIT_MAX.total_seconds())), WAIT_MAX)
    until = _http_date(text)
    if until is None:
        return None
    start = _http_date(headers.get("Date", "")) or now or datetime.now(UTC)
    return min(max(until - start, timedelta(0)), WAIT_MAX)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def pause_until(current: float, after: timedelta | None) -> float:
    """The later of the pause in force and one that starts now (both times of ``time.monotonic()``)."""
    return current if after is None else max(current, time.monotonic() + after.total_seconds())


class Transport:
    """Requests to one vendor over one pool of connections. Make and use it on one event loop.

    ``headers`` go with every request (the credential among them: they appear in no repr and no message).
    ``timeout_s`` bounds each request wholly; ``connect_s`` bounds waiting for a free connection and connecting.
    ``connections`` is the pool's size: allow at least as many as calls in flight.
    """

    __slots__ = ("_base", "_body_max", "_connect_s", "_connections", "_deadlines", "_headers", "_session", "_urls")

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float = 20.0,
        connect_s: float = 5.0,
        body_max: int = 1 << 20,
        connections: int = 256,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._headers = dict(headers)
        self._deadlines = Deadlines(timeout_s)
        # Below the total, so that a timeout while connecting is known to be one: nothing was sent.
        self._connect_s = min(connect_s, timeout_s * 0.8)
        self._body_max = body_max
        self._connections = connections
        self._session: aiohttp.ClientSession | Literal["closed"] | None = None
        self._urls: dict[str, URL] = {}

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        template: str | None = None,
        secret: bool = False,
    ) -> Result:
        """Ask once, for ``path`` below the base URL, and say what came back. Bounded by ``timeout_s``; raises nothing
        but cancellation. ``headers`` go before the transport's own.

        A path is remembered, and stands in logs and traces: put what differs from call to call into the body. Where a
        vendor wants it in the path, ``template`` is what is written down instead (``/contacts/{id}``). ``secret``: the
        bodies are credentials, which nobody is shown."""
        noted = noted_exchanges()
        if noted is None:
            return await self._ask(method, path, body, headers, template is None)
        endpoint = path.partition("?")[0] if template is None else template
        exchange = Exchange(method, endpoint, self._base, 0 if body is None else len(body))
        noted.append(exchange)  # before it ends: also who gives it up tells of it
        began = time.perf_counter()
        result = await self._ask(method, path, body, headers, template is None)
        exchange.seconds = time.perf_counter() - began
        if isinstance(result, Answer):
            exchange.status, exchange.failed, exchange.received_bytes = result.status, "", len(result.body)
            exchange.answer = None if secret else result
        else:
            exchange.failed = result.reason
        return result

    async def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, is_fixed: bool
    ) -> Result:
        import aiohttp

        session = self._session
        if session == "closed":
            return NotSent("closed")
        if session is None:
            session = self._session = self._open()
        url = self._urls.get(path)
        if url is None:
            from yarl import URL

            url = URL(self._base + path, encoded=True)
            if is_fixed:
                self._urls[path] = url
        try:
            with self._deadlines.bound():
                payload = None if body is None else aiohttp.BytesPayload(body)
                response = await session.request(method, url, data=payload, headers=headers, allow_redirects=False)
                try:
                    return await self._read(response)
                finally:
                    # closes a connection whose body was not read to its end, returns any other to the pool
                    response.release() if response.content.at_eof() else response.close()
        except TimeoutError as error:
            return NotSent("connect_timeout") if isinstance(error, aiohttp.ConnectionTimeoutError) else Lost("timeout")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
            return NotSent("tls")
        except aiohttp.ClientConnectorDNSError:
            return NotSent("dns")
        except aiohttp.ClientConnectorError:
            return NotSent("refused")
        except (aiohttp.ClientError, OSError):
            # ServerDisconnected, ClientPayload, a malformed head, a reset while writing: some of it may have arrived
            return Lost("cut")

    async def close(self) -> None:
        """Close every connection. May be called twice; later requests are ``NotSent("closed")``."""
        session, self._session = self._session, "closed"
        if session is not None and session != "closed":
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=30, ssl=True
            ),
            # Only what can be decoded here with a bound; brotli and zstd bombs are never asked for.
            headers={"Accept-Encoding": "gzip", "User-Agent": "event-backbone", **self._headers},
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    async def _read(self, response: aiohttp.ClientResponse) -> Result:
        content, bound = response.content, self._body_max
        body = await content.readany()
        if len(body) > bound:
            return Lost("too_large")
        if not content.at_eof():
            chunks, size = [body], len(body)
            while chunk := await content.readany():
                size += len(chunk)
                if size > bound:
                    return Lost("too_large")
                chunks.append(chunk)
            body = b"".join(chunks)
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            if encoding not in ("gzip", "x-gzip"):
                return Lost("unreadable")
            inflated = _inflate(body, bound)
            if isinstance(inflated, Lost):
                return inflated
            body = inflated
        return Answer(response.status, response.headers, body)


def _inflate(body: bytes, bound: int) -> bytes | Lost:
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(body, bound + 1)
    except zlib.error:
        return Lost("unreadable")
    if len(plain) > bound:
        return Lost("too_large")
    return plain if inflater.eof else Lost("cut")
