from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from connectors.connector import Delivered, Delivery, LookedUp, Outcome, Rejected, RetryLater, Unavailable, Unknown
from connectors.slack import CONNECTOR
from connectors.slack.actions import MessagePost
from connectors.slack.connector import ERRORS, MEANING, NAMESPACE, Slack, classify, client_msg_id, wire_message
from connectors.transport import Answer, Lost, NotSent
from tests.connectors.conftest import OpenFaked
from tests.connectors.samples import ask, delivery


def message(text: Any = "hello", channel: Any = "#wins", offset: int = 0, **body: Any) -> Delivery:
    return delivery("message.post", "u1", {"channel": channel, "text": text, **body}, offset=offset)


def answer(status: int, document: Any = None, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def said(error: str, **headers: str) -> Answer:
    return answer(200, {"ok": False, "error": error}, **headers)


TABLE: list[tuple[Any, Outcome]] = [
    (answer(200, {"ok": True, "channel": "C1", "ts": "1.2", "message": {}}), Delivered("C1/1.2")),
    (answer(200, {"ok": True}), Unknown("not_understood")),
    (answer(200, {"ok": "true", "channel": "C1", "ts": "1.2"}), Unknown("not_understood")),
    (answer(200, {"ok": False}), Unknown("not_understood")),
    (answer(200, {"ok": False, "error": 7}), Unknown("not_understood")),
    (answer(200, []), Unknown("not_understood")),
    (answer(200, b"ok"), Unknown("not_understood")),
    (answer(202, {"ok": True, "channel": "C1", "ts": "1.2"}), Unknown("not_understood")),
    (said("invalid_auth"), Unavailable("invalid_auth", needs_operator=True)),
    (said("missing_scope"), Unavailable("missing_scope", needs_operator=True)),
    (said("ratelimited"), Unavailable("ratelimited", timedelta(seconds=30), limited=True)),
    (said("ratelimited", Retry_After="3"), Unavailable("ratelimited", timedelta(seconds=3), limited=True)),
    (said("service_unavailable"), Unavailable("service_unavailable")),
    (said("internal_error"), Unknown("internal_error")),
    (said("fatal_error"), Unknown("fatal_error")),
    (said("request_timeout"), RetryLater("request_timeout")),
    (said("channel_not_found"), Rejected("channel_not_found")),
    (said("restricted_action_thread_only_channel"), Rejected("restricted_action")),
    (said("something_new"), RetryLater("vendor_error")),
    (answer(303, b""), Unknown("redirected")),
    (answer(307, b""), Unavailable("redirected", needs_operator=True)),
    (answer(400, b""), Rejected("refused", "400")),
    (answer(401, b""), Unavailable("unauthorized", needs_operator=True)),
    (answer(403, b""), Unavailable("forbidden", needs_operator=True)),
    (answer(408, b""), Unknown("timeout")),
    (answer(410, b""), Unavailable("gone", needs_operator=True)),
    (
        answer(429, {"ok": False, "error": "ratelimited"}),
        Unavailable("rate_limited", timedelta(seconds=30), limited=True),
    ),
    (answer(429, b"", Retry_After="2"), Unavailable("rate_limited", timedelta(seconds=2), limited=True)),
    (answer(503, b""), Unavailable("unavailable")),
    (answer(503, b"", Retry_After="5"), Unavailable("unavailable", timedelta(seconds=5))),
    (answer(500, b""), Unknown("server_error")),
    (answer(502, b""), Unknown("server_error")),
    (answer(504, b""), Unknown("server_error")),
    (NotSent("refused"), Unavailable("refused")),
    (Lost("timeout"), Unknown("timeout")),
]


@pytest.mark.parametrize(("result", "outcome"), TABLE, ids=lambda value: repr(value)[:60])
def test_each_answer_means_what_the_table_says(result: Any, outcome: Outcome) -> None:
    assert classify(result) == outcome


KINDS = {
    "needs_operator": Unavailable,
    "unavailable": Unavailable,
    "retry_later": RetryLater,
    "unknown": Unknown,
    "rejected": Rejected,
}


@pytest.mark.parametrize("error", sorted(MEANING))
def test_each_error_by_name_has_one_meaning(error: str) -> None:
    outcome = classify(said(error))
    assert isinstance(outcome, KINDS[MEANING[error]])
    assert getattr(outcome, "needs_operator", False) == (MEANING[error] == "needs_operator")
    assert sum(error in errors.split() for errors in ERRORS.values()) == 1


@given(
    st.recursive(st.none() | st.booleans() | st.text(), lambda i: st.dictionaries(st.sampled_from(["ok", "error"]), i))
)
def test_whatever_slack_says_there_is_an_outcome(document: Any) -> None:
    assert not isinstance(classify(answer(200, document)), Delivered)


def test_the_key_goes_on_the_wire_as_a_stable_id_and_in_the_metadata() -> None:
    one = message()
    wire = wire_message(one)
    assert isinstance(wire, dict)
    assert wire["client_msg_id"] == client_msg_id(one.idempotency_key)
    assert UUID(wire["client_msg_id"]).version == 5
    assert wire["metadata"]["event_payload"] == {"idempotency_key": one.idempotency_key}
    assert client_msg_id("a" * 64) == "7ebc218e-b29d-5e3f-a1e0-c73e26a05d90"


@given(st.text(alphabet="0123456789abcdef"))
def test_message_ids_are_the_uuids_of_the_standard(key: str) -> None:
    assert client_msg_id(key) == str(uuid5(NAMESPACE, key))


def test_times_and_decimals_go_as_text() -> None:
    wire = wire_message(message(text=Decimal("1.50")))
    assert isinstance(wire, dict)
    assert wire["text"] == "1.50"
    wire = wire_message(message(text=datetime(2026, 11, 20, tzinfo=UTC)))
    assert isinstance(wire, dict)
    assert wire["text"] == "2026-11-20T00:00:00+00:00"


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (message(text=""), "text"),
        (message(text="secret" * 7000), "text"),
        (message(text=7), "text"),
        (message(text=None), "text"),
        (message(channel="wins"), "channel"),
        (message(channel="#Wins"), "channel"),
        (message(channel="#a b"), "channel"),
        (message(blocks=[{}] * 51), "blocks"),
        (message(blocks=[{"secret": float("nan")}]), "blocks"),
        (message(blocks=[{"secret": {1, 2}}]), "blocks"),
        (message(chanel="secret"), "chanel"),
        (message(thread_ts="yesterday"), "thread_ts"),
        (delivery("message.update", "u1", {}), "message.update"),
    ],
)
async def test_a_message_that_slack_cannot_take_is_rejected_without_asking(
    wrong: Delivery, place: str, open_faked: OpenFaked
) -> None:
    connector, control = await open_faked(CONNECTOR)
    (outcome,) = await ask(connector, wrong)
    assert isinstance(outcome, Rejected)
    assert place in outcome.detail
    assert "secret" not in outcome.detail
    assert (await control.report())["calls"] == 0


async def test_messages_stand_in_the_channel_with_their_key(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    one, other = message("one"), message("two", channel="C0123456", offset=1, unfurl_links=False)
    first, second = await ask(connector, one, other)
    assert isinstance(first, Delivered)
    assert isinstance(second, Delivered)
    assert second.reference is not None
    assert second.reference.startswith("C0123456/")
    report = await control.report()
    assert report["messages"] == [
        {"channel": "#wins", "text": "one", "key": one.idempotency_key},
        {"channel": "C0123456", "text": "two", "key": other.idempotency_key},
    ]
    assert report["duplicates"] == 0


async def test_slack_posts_again_what_is_sent_again_and_the_fake_counts_it(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await ask(connector, message())
    await ask(connector, message())
    report = await control.report()
    assert (len(report["messages"]), report["duplicates"]) == (2, 1)
    assert CONNECTOR.idempotency.kind == "none"
    assert CONNECTOR.on_unknown == "resend"


@pytest.mark.parametrize(
    ("channel", "outcome"),
    [
        ("#nowhere", Rejected("channel_not_found")),
        ("#archived", Rejected("is_archived")),
        ("#members-only", Rejected("not_in_channel")),
    ],
)
async def test_a_channel_we_cannot_post_to_is_rejected(open_faked: OpenFaked, channel: str, outcome: Outcome) -> None:
    connector, _ = await open_faked(CONNECTOR)
    assert await ask(connector, message(channel=channel)) == [outcome]


async def test_a_full_channel_pauses_the_connection_as_long_as_slack_says(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await control.misbehave({"kind": "quota", "max": 1, "per_ms": 3000})
    assert isinstance((await ask(connector, message()))[0], Delivered)
    (outcome,) = await ask(connector, message(offset=1))
    assert outcome == Unavailable("rate_limited", timedelta(seconds=3), limited=True)
    assert 0 < connector.pause_until - time.monotonic() <= 3


def test_every_field_of_the_body_says_what_it_is() -> None:
    schema = MessagePost.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
    for example in schema["examples"]:
        MessagePost.model_validate(example)


# -- looking a message up -------------------------------------------------------------------------------------------


async def looked_up(connector: Any, one: Delivery) -> LookedUp:
    found: LookedUp = await connector.look_up(one)
    return found


async def test_a_message_whose_answer_was_lost_is_found_by_its_key_and_another_one_is_not(
    open_faked: OpenFaked,
) -> None:
    connector, control = await open_faked(CONNECTOR)
    await ask(connector, message("first", offset=1))
    await control.misbehave({"kind": "cut_after_effect"})
    assert await ask(connector, message("second", offset=2)) == [Unknown("cut")]
    found = await looked_up(connector, message("second", offset=2))
    assert isinstance(found, Delivered)
    assert found.reference is not None
    assert found.reference.endswith(".000002")
    assert await looked_up(connector, message("second", offset=3)) is None, "the same text, another event"
    assert len((await control.report())["messages"]) == 2, "nothing was posted by looking"


async def test_a_channel_is_found_by_name_once_and_by_id_without_asking(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await ask(connector, message(), message(channel="C0123456789", offset=1))
    for _ in range(2):
        assert isinstance(await looked_up(connector, message()), Delivered)
    calls = (await control.report())["calls"]
    assert calls == 2 + 3, "two messages, one list, two histories"
    assert isinstance(await looked_up(connector, message(channel="C0123456789", offset=1)), Delivered)
    assert (await control.report())["calls"] == calls + 1
    assert await looked_up(connector, message(channel="#never-heard-of")) == Rejected("channel_not_found")


async def test_a_reply_is_looked_for_in_its_thread(open_faked: OpenFaked) -> None:
    connector, _ = await open_faked(CONNECTOR)
    reply = message(channel="C0123456789", thread_ts="1700000000.000001")
    assert await looked_up(connector, reply) is None
    (sent,) = await ask(connector, reply)
    assert await looked_up(connector, reply) == sent
    assert await looked_up(connector, message(channel="C0123456789")) is None, "not in the channel itself"


async def test_a_message_on_a_later_page_is_found(open_faked: OpenFaked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.slack.connector.PAGE", 2)
    connector, control = await open_faked(CONNECTOR)
    for number in range(7):
        await ask(connector, message(channel="C0123456789", offset=number))
    assert isinstance(await looked_up(connector, message(channel="C0123456789", offset=0)), Delivered)
    assert (await control.report())["calls"] == 7 + 4
    monkeypatch.setattr("connectors.slack.connector.PAGES_MAX", 3)
    assert await looked_up(connector, message(channel="C0123456789", offset=0)) == Rejected("look_up_too_long"), (
        "what was not read to its end is not: not there"
    )


async def test_a_limit_met_while_reading_pauses_the_connection(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await control.misbehave({"kind": "status", "status": 429, "headers": {"Retry-After": "7"}})
    found = await looked_up(connector, message(channel="C0123456789"))
    assert found == Unavailable("rate_limited", timedelta(seconds=7), limited=True)
    assert connector.pause_until - time.monotonic() > 5


async def test_a_missing_scope_needs_an_operator(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    await control.misbehave({"kind": "status", "status": 200, "body": {"ok": False, "error": "missing_scope"}})
    found = await looked_up(connector, message(channel="C0123456789"))
    assert found == Unavailable("missing_scope", needs_operator=True)


HISTORY = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "metadata", "event_type", "event_payload", "ts", "response_metadata", "ok"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(history=HISTORY)
@settings(deadline=None)
def test_whatever_a_history_looks_like_it_is_read_without_an_error(history: Any) -> None:
    class Answers:
        async def request(self, *_: Any, **__: Any) -> Answer:
            document = {**history, "ok": True} if isinstance(history, dict) else history
            return answer(200, document)

    connector = Slack(CONNECTOR.settings(token=SecretStr("xoxb-1")))
    connector._transport = Answers()  # type: ignore[assignment]
    found = asyncio.run(looked_up(connector, message(channel="C0123456789")))
    if found is None:
        assert isinstance(history["messages"], list), "a history was read"
    else:
        assert isinstance(found, (Rejected, Unavailable))


def removal(reference: Any, **body: Any) -> Delivery:
    return delivery("message.delete", "u1", {"message": reference, **body})


async def test_a_message_is_deleted_by_what_posting_it_answered_and_twice_is_fine(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    posted, _ = await ask(connector, message("secret"), message("other", offset=1))
    assert isinstance(posted, Delivered)
    assert await ask(connector, removal(posted.reference)) == [Delivered(posted.reference)]
    assert [one["text"] for one in (await control.report())["messages"]] == [None, "other"]
    assert await ask(connector, removal(posted.reference)) == [Delivered(note="was_not_there")]
    assert (await control.report())["deleted"] == 1


@pytest.mark.parametrize("reference", [None, "", "C1", "C1/", "#wins/1.2", "C1/1.2/3", 7, "C1/secret"])
async def test_what_names_no_message_is_refused_without_its_value(open_faked: OpenFaked, reference: Any) -> None:
    connector, control = await open_faked(CONNECTOR)
    (outcome,) = await ask(connector, removal(reference))
    assert isinstance(outcome, Rejected)
    assert "secret" not in outcome.detail
    assert (await control.report())["calls"] == 0


async def test_a_message_that_slack_does_not_let_us_delete_is_refused(open_faked: OpenFaked) -> None:
    connector, control = await open_faked(CONNECTOR)
    for error in ("cant_delete_message", "compliance_exports_prevent_deletion", "channel_not_found"):
        await control.misbehave({"kind": "status", "status": 200, "body": {"ok": False, "error": error}})
        assert await ask(connector, removal("C1234567/1.2")) == [Rejected(error)]


async def test_a_deletion_whose_answer_was_lost_is_asked_again_without_a_look(open_faked: OpenFaked) -> None:
    connector, _ = await open_faked(CONNECTOR)
    assert await connector.look_up(removal("C1234567/1.2")) is None  # type: ignore[attr-defined]
