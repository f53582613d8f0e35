from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.hubspot import CONNECTOR
from connectors.misbehaviour import KINDS, read_misbehaviours
from connectors.transport import Answer, Lost, NotSent, Transport
from tests.connectors.conftest import OpenFaked
from tests.waiting import eventually_async


async def raw(url: str, request: bytes) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(1 << 16), 5)
    writer.close()
    return answer


@pytest.fixture
async def url(open_faked: OpenFaked) -> str:
    _, control = await open_faked(CONNECTOR)
    return control._transport._base


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /__fake__/report HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /__fake__/nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"X" * 70_000, b"431"),
        (b"POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n", b"100"),
        (b"POST /__fake__/misbehave HTTP/1.1\r\nContent-Length: 1\r\n\r\n[", b"400"),
    ],
)
async def test_it_speaks_http_also_to_those_who_do_not(url: str, request_bytes: bytes, status: bytes) -> None:
    assert (await raw(url, request_bytes)).split(b" ")[1] == status


async def test_two_requests_in_one_packet_get_two_answers_in_order(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /a HTTP/1.1\r\n\r\nGET /__fake__/report HTTP/1.1\r\n\r\n")
    first = await reader.readuntil(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 401")
    async with asyncio.timeout(5):
        assert b'"calls": 1' in await reader.readuntil(b'"calls": 1')
    writer.close()


@pytest.mark.parametrize(
    ("orders", "complaint"),
    [
        ({}, "a JSON list"),
        ([1], r"\[0\].kind"),
        ([{"kind": "sing"}], r"\[0\].kind"),
        ([{"kind": "stall"}, {"kind": "stall", "seconds": 1}], r"\[1\].seconds"),
        ([{"kind": "late", "seconds": -1}], "seconds"),
        ([{"kind": "late", "seconds": "1"}], "seconds"),
        ([{"kind": "stall", "times": 0}], "times"),
        ([{"kind": "status", "status": 99}], "status"),
        ([{"kind": "status", "headers": "x"}], "headers"),
        ([{"kind": "bomb", "bytes": 1e12}], "bytes"),
    ],
)
def test_orders_that_cannot_be_are_named(orders: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_misbehaviours(orders)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(sorted(KINDS)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "times", "seconds", "status", "headers"]), inner)
        ),
    )
)
def test_any_json_is_orders_or_a_sentence(document: Any) -> None:
    try:
        orders = read_misbehaviours(document)
    except ValueError:
        return
    assert all(order.kind in KINDS and order.times >= 1 for order in orders)


BODY = json.dumps({"inputs": [{"id": "u1", "idProperty": "backbone_id", "properties": {}}]}).encode()
PATH = "/crm/v3/objects/contacts/batch/upsert"


@pytest.mark.parametrize(
    ("order", "result", "applied"),
    [
        ({"kind": "status", "status": 418, "body": "tea"}, 418, 0),
        ({"kind": "stall"}, Lost("timeout"), 0),
        ({"kind": "stall_after_effect"}, Lost("timeout"), 1),
        ({"kind": "cut"}, Lost("cut"), 0),
        ({"kind": "cut", "at": "start"}, Lost("cut"), 0),
        ({"kind": "cut_after_effect"}, Lost("cut"), 1),
        ({"kind": "cut_after_effect", "at": "start"}, Lost("cut"), 1),
        ({"kind": "slow_body"}, Lost("timeout"), 1),
        ({"kind": "bomb"}, Lost("too_large"), 1),
        ({"kind": "late", "seconds": 30}, Lost("timeout"), 1),
        ({"kind": "late", "seconds": 0.1}, 200, 1),
        ({"kind": "partial"}, 207, 0),
    ],
)
async def test_each_misbehaviour_acts_or_not_as_its_table_says(
    open_faked: OpenFaked, order: dict[str, Any], result: Any, applied: int
) -> None:
    _, control = await open_faked(CONNECTOR)
    await control.misbehave(order)
    headers = {"Authorization": "Bearer fake-hubspot-token"}
    client = Transport(control._transport._base, headers=headers, timeout_s=0.4)
    got = await client.request("POST", PATH, body=BODY)
    assert (got.status if isinstance(got, Answer) else got) == result
    assert (await control.report())["applied"] == applied
    # only the one call was ordered to go wrong
    got = await client.request("POST", PATH, body=BODY)
    assert isinstance(got, Answer)
    assert got.status == 200
    await client.close()


async def test_away_refuses_connections_at_once_and_comes_back_on_the_same_port(open_faked: OpenFaked) -> None:
    _, control = await open_faked(CONNECTOR)
    await control.misbehave({"kind": "away", "seconds": 0.3})
    client = Transport(control._transport._base, headers={})

    async def refused() -> bool:
        return await client.request("GET", "/x") == NotSent("refused")

    async def back() -> bool:
        return isinstance(await client.request("GET", "/x"), Answer)

    await eventually_async(refused, 5)
    await eventually_async(back, 5)
    await client.close()


async def test_a_vendor_that_is_well_again_keeps_what_it_has(open_faked: OpenFaked) -> None:
    _, control = await open_faked(CONNECTOR)
    client = Transport(control._transport._base, headers={"Authorization": "Bearer fake-hubspot-token"})
    await client.request("POST", PATH, body=BODY)
    await control.misbehave({"kind": "status", "times": 1_000}, {"kind": "stall", "times": 5})
    refused = await client.request("POST", PATH, body=BODY)
    assert isinstance(refused, Answer)
    assert refused.status == 503
    await control.misbehave({"kind": "well"})
    got = await client.request("POST", PATH, body=BODY)
    assert isinstance(got, Answer)
    assert got.status == 200
    report = await control.report()
    assert (report["queued"], report["applied"], report["effects"]) == (0, 2, 1)
    await client.close()


async def test_latency_and_reset(open_faked: OpenFaked) -> None:
    _, control = await open_faked(CONNECTOR)
    await control.misbehave({"kind": "latency", "ms": 50}, {"kind": "stall", "times": 5})
    client = Transport(control._transport._base, headers={})
    await control.reset()
    await control.misbehave({"kind": "latency", "ms": 50})
    start = time.monotonic()
    assert isinstance(await client.request("GET", "/x"), Answer)
    assert time.monotonic() - start >= 0.05
    assert (await control.report())["by_status"] == {"401": 1}
    await client.close()


async def test_stopping_twice_is_fine_also_while_away() -> None:
    assert CONNECTOR.fake is not None
    fake = CONNECTOR.fake()
    url = await fake.start()
    client = Transport(url, headers={})
    await client.request("POST", "/__fake__/misbehave", body=b'[{"kind": "away", "seconds": 60}]')

    async def refused() -> bool:
        return await client.request("GET", "/x") == NotSent("refused")

    await eventually_async(refused, 5)
    await fake.stop()
    await fake.stop()
    await client.close()
