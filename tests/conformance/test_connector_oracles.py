"""Oracles that we did not write: the vendors' own clients talk to our fakes, and judge what our connectors send.

Our connector and our fake could agree with each other and both be wrong; these cannot be talked into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from connectors.connector import Connector, ConnectorType, Delivered, Delivery, Fake
from connectors.fake_server import FakeServer, Reply, Request, json_reply
from connectors.hubspot import CONNECTOR as HUBSPOT
from connectors.hubspot import FAKE_OAUTH as HUBSPOT_OAUTH
from connectors.hubspot import FAKE_TOKEN as HUBSPOT_TOKEN
from connectors.hubspot.connector import PURGE_PATH
from connectors.slack import CONNECTOR as SLACK
from connectors.slack import FAKE_TOKEN as SLACK_TOKEN
from tests.connectors.samples import FakeControl, delivery

SPECS = Path(__file__).parents[2].parent / "shared" / "vendor-specs"


class Recorder:
    """A vendor that writes down what it is sent (a ``connectors.fake_server.Vendor``)."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def answer(self, request: Request, partial: Mapping[str, Any] | None) -> Reply:
        self.requests.append(request)
        return json_reply(200, {})

    def order(self, kind: str, parameters: Mapping[str, Any]) -> bool:
        return False

    def report(self, query: Mapping[str, str]) -> dict[str, Any]:
        return {}

    def reset(self) -> None:
        self.requests.clear()


async def recorded(connector_type: ConnectorType, *deliveries: Delivery) -> Request:
    """The one request that a connector makes of these deliveries."""
    recorder = Recorder()
    server = FakeServer(recorder)
    url = await server.start()
    connector: Connector = connector_type.open(
        connector_type.settings(**connector_type.fake_settings(url, Path()), **V3.get(connector_type.name, {}))
    )
    await connector.deliver(deliveries)
    await connector.close()
    await server.stop()
    (request,) = recorder.requests
    return request


V3: Mapping[str, Mapping[str, str]] = {"hubspot": {"api_version": "v3"}}
"""HubSpot's client knows the legacy paths only."""


@pytest.fixture
async def hubspot_url() -> AsyncIterator[str]:
    async for url in _served(HUBSPOT):
        yield url


@pytest.fixture
async def slack_url() -> AsyncIterator[str]:
    async for url in _served(SLACK):
        yield url


async def _served(connector_type: ConnectorType) -> AsyncIterator[str]:
    assert connector_type.fake is not None
    fake: Fake = connector_type.fake()
    yield await fake.start()
    await fake.stop()


CONTACT = delivery("contact.upsert", "u1", {"email": "Ana@x.org", "firstname": None, "plan": "pro"})
MESSAGE = delivery(
    "message.post",
    "u1",
    {"channel": "#wins", "text": "hello", "blocks": [{"type": "divider"}], "unfurl_links": False, "thread_ts": "1.2"},
)


MESSAGE_ALONE = delivery("message.post", "u1", {"channel": "#wins", "text": "hello"})


# -- HubSpot's client -----------------------------------------------------------------------------------------------


def hubspot_batch(url: str, token: str = HUBSPOT_TOKEN) -> Any:
    contacts = pytest.importorskip("hubspot.crm.contacts", reason="HubSpot's client is not installed")
    configuration = contacts.Configuration(host=url)
    configuration.access_token = token
    return contacts, contacts.BatchApi(contacts.ApiClient(configuration))


def hubspot_input(contacts: Any, **fields: Any) -> Any:
    one = contacts.SimplePublicObjectBatchInputUpsert
    return contacts.BatchInputSimplePublicObjectBatchInputUpsert(inputs=[one(**fields)])


async def test_hubspots_client_would_send_what_our_connector_sends() -> None:
    contacts, api = hubspot_batch("http://127.0.0.1:1")
    theirs = hubspot_input(
        contacts,
        id="u1",
        id_property="backbone_id",
        properties={"email": "Ana@x.org", "firstname": "", "plan": "pro"},
        object_write_trace_id=CONTACT.idempotency_key,
    )
    request = await recorded(HUBSPOT, CONTACT)
    assert json.loads(request.body) == api.api_client.sanitize_for_serialization(theirs)
    source = inspect.getsource(type(api).upsert_with_http_info)
    assert f'"{request.path}"' in source
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"


async def test_hubspots_client_reads_what_our_fake_answers(hubspot_url: str) -> None:
    contacts, api = hubspot_batch(hubspot_url)

    def work() -> None:
        first = api.upsert(hubspot_input(contacts, id="u1", id_property="backbone_id", properties={"email": "a@x.org"}))
        assert (first.status, first.results[0].id, first.results[0].new) == ("COMPLETE", "101", True)
        again = api.upsert(hubspot_input(contacts, id="u1", id_property="backbone_id", properties={"city": "Graz"}))
        assert (again.results[0].id, again.results[0].new) == ("101", False)
        assert again.results[0].properties["email"] == "a@x.org"
        wrong = api.upsert(
            hubspot_input(
                contacts, id="u2", id_property="backbone_id", properties={"email": "no"}, object_write_trace_id="t1"
            )
        )
        assert wrong.num_errors == 1
        assert wrong.errors[0].category == "VALIDATION_ERROR"
        assert wrong.errors[0].context == {"objectWriteTraceId": ["t1"]}
        basic = contacts.BasicApi(api.api_client)
        assert basic.get_by_id("u1", id_property="backbone_id").properties["city"] == "Graz"
        assert [one.id for one in basic.get_page(limit=1).results] == ["101"]

    await asyncio.to_thread(work)


async def test_hubspots_client_erases_as_our_connector_does(hubspot_url: str) -> None:
    contacts, api = hubspot_batch(hubspot_url)
    settings = HUBSPOT.settings(**HUBSPOT.fake_settings(hubspot_url, Path()))
    connector: Connector = HUBSPOT.open(settings)
    basic = contacts.BasicApi(api.api_client)
    theirs = contacts.PublicGdprDeleteInput(object_id="101")
    assert api.api_client.sanitize_for_serialization(theirs) == {"objectId": "101"}
    assert f'"{PURGE_PATH}"' in inspect.getsource(contacts.BasicApi)
    await connector.deliver([CONTACT])
    await asyncio.to_thread(basic.purge, theirs)
    (outcome,) = await connector.deliver([delivery("contact.erase", "u1", {})])
    await connector.close()
    assert outcome == Delivered(note="was_not_there")


async def test_hubspots_client_reads_back_and_lists_as_our_connector_does(hubspot_url: str) -> None:
    contacts, api = hubspot_batch(hubspot_url)
    connector: Any = HUBSPOT.open(HUBSPOT.settings(**HUBSPOT.fake_settings(hubspot_url, Path())))
    theirs = contacts.BatchReadInputSimplePublicObjectId(
        id_property="backbone_id", inputs=[contacts.SimplePublicObjectId(id=one) for one in ("u1", "u2")],
        properties=["backbone_id", "email", "firstname", "plan"], properties_with_history=[],
    )  # fmt: skip
    other = delivery("contact.upsert", "u2", {"plan": "pro"})
    recorder = Recorder()
    server = FakeServer(recorder)
    url = await server.start()
    recorded_by: Any = HUBSPOT.open(HUBSPOT.settings(**HUBSPOT.fake_settings(url, Path())))
    await recorded_by.read_back([CONTACT, other])
    await recorded_by.list_ours({}, "7")
    await recorded_by.close()
    await server.stop()
    asked, listed = recorder.requests
    assert json.loads(asked.body) == api.api_client.sanitize_for_serialization(theirs)
    assert asked.path == "/crm/objects/2026-03/contacts/batch/read"
    assert "contacts/batch/read" in inspect.getsource(type(api).read_with_http_info)
    known = inspect.getsource(contacts.BasicApi.get_page_with_http_info)
    assert set(listed.query) == {"limit", "after", "properties", "archived"}
    assert all(f'"{name}"' in known for name in listed.query)

    await connector.deliver([CONTACT])
    kept, missing = await connector.read_back([CONTACT, other])

    def work() -> None:
        found = api.read(theirs)
        assert found.results[0].properties["email"] == kept.found["email"]
        assert found.results[0].id == kept.reference
        assert found.errors[0].context == {"ids": ["u2"]}
        (only,) = contacts.BasicApi(api.api_client).get_page(limit=1, properties=["backbone_id"]).results
        assert only.properties["backbone_id"] == "u1"

    await asyncio.to_thread(work)
    assert missing is None
    assert [one.entity for one in (await connector.list_ours({}, "")).found] == ["u1"]
    await connector.close()


async def test_hubspots_client_understands_our_fakes_errors(hubspot_url: str) -> None:
    contacts, api = hubspot_batch(hubspot_url)
    _, stranger = hubspot_batch(hubspot_url, token="wrong")
    control = FakeControl(hubspot_url)
    await control.misbehave({"kind": "quota", "max": 1})

    def refused(batch: Any, properties: dict[str, Any]) -> Any:
        with pytest.raises(contacts.exceptions.ApiException) as caught:
            batch.upsert(hubspot_input(contacts, id="u1", id_property="backbone_id", properties=properties))
        return caught.value.status, json.loads(caught.value.body)["category"]

    assert await asyncio.to_thread(refused, stranger, {}) == (401, "INVALID_AUTHENTICATION")
    assert await asyncio.to_thread(refused, api, {"email": 7}) == (400, "VALIDATION_ERROR")
    assert await asyncio.to_thread(refused, api, {}) == (429, "RATE_LIMITS")
    await control.close()


async def test_hubspots_client_gets_an_access_token_from_our_fake_that_works_there(hubspot_url: str) -> None:
    oauth = pytest.importorskip("hubspot.oauth", reason="HubSpot's client is not installed")
    tokens = oauth.TokensApi(oauth.ApiClient(oauth.Configuration(host=hubspot_url)))

    def work() -> None:
        issued = tokens.create(grant_type="refresh_token", **HUBSPOT_OAUTH)
        assert (issued.token_type, issued.expires_in) == ("bearer", 1800)
        contacts, api = hubspot_batch(hubspot_url, issued.access_token)
        assert api.upsert(hubspot_input(contacts, id="u1", id_property="backbone_id", properties={})).status
        with pytest.raises(oauth.ApiException) as caught:
            tokens.create(grant_type="refresh_token", **{**HUBSPOT_OAUTH, "refresh_token": "wrong"})
        assert caught.value.status == 400

    await asyncio.to_thread(work)


async def test_hubspots_client_would_ask_for_a_token_as_our_connector_does() -> None:
    oauth = pytest.importorskip("hubspot.oauth", reason="HubSpot's client is not installed")
    recorder = Recorder()
    server = FakeServer(recorder)
    url = await server.start()
    connector = HUBSPOT.open(HUBSPOT.settings(base_url=url, **HUBSPOT_OAUTH))
    await connector.deliver([CONTACT])

    def work() -> None:
        with contextlib.suppress(oauth.ApiException, ValueError, TypeError):  # the recorder answers {}
            oauth.TokensApi(oauth.ApiClient(oauth.Configuration(host=url))).create(
                grant_type="refresh_token", **HUBSPOT_OAUTH
            )

    await asyncio.to_thread(work)
    await connector.close()
    await server.stop()
    ours, theirs = recorder.requests
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert dict(parse_qsl(ours.body.decode())) == dict(parse_qsl(theirs.body.decode()))


# -- Slack's client -------------------------------------------------------------------------------------------------


def slack_client(url: str, token: str = SLACK_TOKEN) -> Any:
    sdk = pytest.importorskip("slack_sdk", reason="Slack's client is not installed")
    return sdk.WebClient(token=token, base_url=f"{url}/api/", retry_handlers=[])


async def test_slacks_client_reads_what_our_fake_answers_and_takes_our_arguments(slack_url: str) -> None:
    ours = json.loads((await recorded(SLACK, MESSAGE)).body)
    client = slack_client(slack_url)

    def work() -> None:
        assert client.auth_test()["ok"] is True
        posted = client.chat_postMessage(**ours)
        assert posted["ok"] is True
        assert posted["message"]["text"] == "hello"
        known = set(inspect.signature(client.chat_postMessage).parameters)
        assert set(ours) - known == {"client_msg_id"}, "only this one is undocumented"

    await asyncio.to_thread(work)
    control = FakeControl(slack_url)
    messages = (await control.report())["messages"]
    await control.close()
    assert messages == [{"channel": "#wins", "text": "hello", "key": MESSAGE.idempotency_key}]


async def test_slacks_client_reads_channels_and_their_messages_as_our_look_up_does(slack_url: str) -> None:
    client = slack_client(slack_url)

    def work() -> None:
        for number in range(5):
            metadata = {"event_type": "t", "event_payload": {"n": number}}
            client.chat_postMessage(channel="#wins", text=f"m{number}", metadata=metadata)
        (channel,) = client.conversations_list(types="public_channel")["channels"]
        assert channel["name"] == "wins"
        history = client.conversations_history(channel=channel["id"], include_all_metadata=True, limit=2)
        pages = [list(page["messages"]) for page in history]  # the client turns one object over page by page
        assert [len(page) for page in pages] == [2, 2, 1]
        messages = [message for page in pages for message in page]
        assert [message["metadata"]["event_payload"]["n"] for message in messages] == [4, 3, 2, 1, 0]
        plain = client.conversations_history(channel=channel["id"])["messages"]
        assert all("metadata" not in message for message in plain)
        known = set(inspect.signature(client.conversations_history).parameters)
        assert {"channel", "include_all_metadata", "limit", "oldest", "cursor"} <= known

    await asyncio.to_thread(work)


async def test_slacks_client_deletes_what_our_connector_posted_and_ours_what_it_posted(slack_url: str) -> None:
    client = slack_client(slack_url)
    connector: Connector = SLACK.open(SLACK.settings(**SLACK.fake_settings(slack_url, Path())))

    def work() -> str:
        (ours,) = client.conversations_history(channel="CWINS0000")["messages"]
        assert client.chat_delete(channel="CWINS0000", ts=ours["ts"])["ts"] == ours["ts"]
        theirs = client.chat_postMessage(channel="#wins", text="theirs")
        return f"{theirs['channel']}/{theirs['ts']}"

    await connector.deliver([MESSAGE_ALONE])
    reference = await asyncio.to_thread(work)
    (outcome,) = await connector.deliver([delivery("message.delete", "u1", {"message": reference})])
    await connector.close()
    assert outcome == Delivered(reference)


async def test_slacks_client_sends_what_our_connector_sends() -> None:
    ours = await recorded(SLACK, MESSAGE)
    recorder = Recorder()
    server = FakeServer(recorder)
    url = await server.start()

    def work() -> None:
        from slack_sdk.errors import SlackApiError

        with pytest.raises(SlackApiError):  # the recorder answers {}: that is no ok
            slack_client(url).chat_postMessage(**json.loads(ours.body))

    await asyncio.to_thread(work)
    await server.stop()
    (theirs,) = recorder.requests
    assert (theirs.method, theirs.path) == (ours.method, ours.path)
    assert json.loads(theirs.body) == json.loads(ours.body)
    for name in ("authorization", "content-type"):
        assert theirs.headers[name].replace("; ", ";").lower() == ours.headers[name].replace("; ", ";").lower()


async def test_slacks_client_understands_our_fakes_errors(slack_url: str) -> None:
    client = slack_client(slack_url)
    control = FakeControl(slack_url)
    await control.misbehave({"kind": "quota", "max": 1, "per_ms": 60_000})

    def refused(client: Any, **arguments: Any) -> Any:
        from slack_sdk.errors import SlackApiError

        with pytest.raises(SlackApiError) as caught:
            client.chat_postMessage(**arguments)
        return caught.value.response

    def work() -> None:
        assert refused(client, channel="#nowhere", text="x")["error"] == "channel_not_found"
        assert refused(slack_client(slack_url, "xoxb-wrong"), channel="#a", text="x")["error"] == "invalid_auth"
        client.chat_postMessage(channel="#a", text="x")
        limited = refused(client, channel="#a", text="x")
        assert (limited.status_code, limited["error"]) == (429, "ratelimited")
        assert 1 <= int(limited.headers["Retry-After"]) <= 60

    await asyncio.to_thread(work)
    await control.close()


# -- Slack's OpenAPI ------------------------------------------------------------------------------------------------

SINCE_2021 = {"metadata", "client_msg_id"}
"""Arguments that the description of 2021 does not know: the first came in 2022, the second is undocumented."""


@pytest.fixture(scope="module")
def slack_openapi() -> dict[str, Any]:
    file = SPECS / "slack_web_openapi_v2.2021.json"
    if not file.exists():
        pytest.skip("the vendor specs are not beside this checkout (../shared/vendor-specs)")
    document = json.loads(file.read_bytes())
    assert isinstance(document, dict)
    return document


async def test_slacks_openapi_knows_every_field_that_our_connector_sends(slack_openapi: dict[str, Any]) -> None:
    request = await recorded(SLACK, MESSAGE)
    operation = slack_openapi["paths"][request.path.removeprefix("/api")]["post"]
    assert request.headers["content-type"].split(";")[0] in operation["consumes"]
    parameters = {one["name"]: one for one in operation["parameters"]}
    sent = json.loads(request.body)
    assert set(sent) - set(parameters) == SINCE_2021
    required = {name for name, one in parameters.items() if one.get("required") and one["in"] == "formData"}
    assert required <= set(sent)
    types = {"string": str, "boolean": bool}
    for name in set(sent) & set(parameters):
        if name != "blocks" and name not in ("unfurl_links",):  # JSON bodies carry these as they are, forms as text
            assert isinstance(sent[name], types[parameters[name]["type"]]), name


async def test_slacks_openapi_recognises_our_fakes_answers(slack_openapi: dict[str, Any], slack_url: str) -> None:
    import jsonschema

    client = slack_client(slack_url)

    def asked(**arguments: Any) -> Any:
        from slack_sdk.errors import SlackApiError

        try:
            return client.chat_postMessage(**arguments).data
        except SlackApiError as error:
            return error.response.data

    good = await asyncio.to_thread(asked, channel="#wins", text="hello")
    responses = slack_openapi["paths"]["/chat.postMessage"]["post"]["responses"]
    for answer, schema in (
        (good, responses["200"]["schema"]),
        (await asyncio.to_thread(asked, channel="#nowhere", text="x"), responses["default"]["schema"]),
        (await asyncio.to_thread(asked, channel="#archived", text="x"), responses["default"]["schema"]),
    ):
        jsonschema.Draft4Validator({**schema, "definitions": slack_openapi["definitions"]}).validate(answer)
