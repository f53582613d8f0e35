"""HubSpot contacts: one batch upsert a call, every answer classified item by item.

``classify`` as a table. The first fitting line of each part decides.

The whole call (no answer: ``connectors.transport.unanswered``):

=================================  ====================================================  ===========================
status                             outcome of every delivery                             note
=================================  ====================================================  ===========================
200, 201, 207 with JSON            per item, below
any other 2xx, 2xx without JSON    Unknown(not_understood)
303                                Unknown(redirected)                                   it may have been acted on
other 3xx                          Unavailable(redirected, needs_operator)               never followed
401                                Unavailable(unauthorized, needs_operator)             after one refresh where the
                                                                                         connection has one
403 / 410                          Unavailable(forbidden / gone, needs_operator)
408                                Unknown(timeout)
409                                RetryLater(conflict); in a batch Rejected(scope=call)  one alone may poison a batch
423                                Unavailable(locked, entity), 2 s or Retry-After
429                                Unavailable(rate_limited), Retry-After or policyName  10 s rolling, 1 s, daily 15 min
477                                Unavailable(migrating), Retry-After or 1 min
other 4xx                          Rejected(refused), in a batch scope=call              the runtime halves
502 503 504 521 522 523 524        Unavailable(unavailable), Retry-After if given
other 5xx                          Unknown(server_error)                                 an upsert: sent again
=================================  ====================================================  ===========================

Each item of a 200, 201 or 207:

=============================================  =====================================================================
found                                          outcome
=============================================  =====================================================================
a result with its trace id (or unique value)   Delivered(reference = HubSpot's id); note lifecyclestage_kept when
                                               HubSpot kept a later stage than the one sent (it never goes back)
an error that names it (trace id or id)        by category: RATE_LIMITS Unavailable(entity); CONFLICT, 5xx-like and
                                               unheard-of categories RetryLater; the others Rejected
nothing, and an error names nobody             alone: by that error's category; in a batch Rejected(scope=call)
nothing, and no error left                     Unknown(no_result)
=============================================  =====================================================================

An erasure asks twice: which contacts have these values of the unique property (batch read), then, one by one, for the
GDPR deletion of each by HubSpot's own id (by another property HubSpot would block an e-mail address it does not know):

=============================================  =====================================================================
answer                                         outcome
=============================================  =====================================================================
batch read names it among what it lacks        Delivered(note = was_not_there)
batch read does not name it at all             Unknown(no_result)
batch read: anything but 200 and 207           as for a whole call, above
deletion: 204                                  Delivered(reference = HubSpot's id)
deletion: anything else                        as for a whole call of one delivery; those after it in the batch are
                                               not asked now: Unavailable(not_asked, entity)
=============================================  =====================================================================

A refresh of the token that is refused (any other 4xx) is Unavailable(refresh_refused, needs_operator).

HubSpot's messages quote values, so none is kept: ``detail`` holds codes, property names and the correlation id.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from connectors.connector import (
    Delivered,
    Delivery,
    Kept,
    Listed,
    Outcome,
    Page,
    Rejected,
    RetryLater,
    Unavailable,
    Unknown,
)
from connectors.hubspot.actions import ERASE, LIFECYCLE_STAGES, PROPERTY
from connectors.hubspot.settings import HubSpotSettings
from connectors.token import Fresh, Tokens
from connectors.transport import Answer, Result, Transport, as_json, pause_until, retry_after, unanswered

STATUS: Mapping[int, Outcome] = {
    303: Unknown("redirected"),
    401: Unavailable("unauthorized", needs_operator=True),
    403: Unavailable("forbidden", needs_operator=True),
    408: Unknown("timeout"),
    410: Unavailable("gone", needs_operator=True),
    423: Unavailable("locked", timedelta(seconds=2), scope="entity"),
    429: Unavailable("rate_limited", timedelta(seconds=10), limited=True),
    477: Unavailable("migrating", timedelta(minutes=1), limited=True),
    **dict.fromkeys((502, 503, 504, 521, 522, 523, 524), Unavailable("unavailable")),
}
POLICY_WAITS: Mapping[str, timedelta] = {
    "TEN_SECONDLY_ROLLING": timedelta(seconds=10),
    "SECONDLY": timedelta(seconds=1),
    "DAILY": timedelta(minutes=15),
}
LOCK_WAIT_MIN = timedelta(seconds=2)
PERMANENT = frozenset(
    {
        "VALIDATION_ERROR",
        "OBJECT_NOT_FOUND",
        "OBJECT_ALREADY_EXISTS",
        "BAD_REQUEST",
        "INVALID_EMAIL",
        "INVALID_OPTION",
        "INVALID_INTEGER",
        "INVALID_LONG",
        "INVALID_DATE",
        "PROPERTY_DOESNT_EXIST",
        "READ_ONLY_VALUE",
    }
)
"""Categories of an item's error that will not heal by asking again."""

NOT_ASKED = Unavailable("not_asked", scope="entity", limited=True)
PURGE_PATH = "/crm/v3/objects/contacts/gdpr-delete"
"""Documented under this version alone."""
LIST_PAGE = 100
CHECK_PATH = "/account-info/v3/details"
TOKEN_PATH = "/oauth/v1/token"
TOKEN = re.compile(r"[!-~]{1,4096}\Z")
TOKEN_SECONDS_MAX = 86_400.0
NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?\Z")
CODE = re.compile(r"[A-Z][A-Z0-9_]{1,63}\Z")
CORRELATION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class HubSpot:
    """One HubSpot account (a ``connectors.connector.Connector`` that also ``Checks``)."""

    __slots__ = ("_answered", "_contacts", "_oauth", "_seconds", "_tokens", "_transport", "_unique", "pause_until")

    def __init__(self, settings: HubSpotSettings) -> None:
        self.pause_until = 0.0
        self._answered: Mapping[str, str] = {}
        self._unique = settings.unique_property
        self._contacts, self._seconds = settings.contacts_path, settings.timeout_s
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._tokens: Tokens | None = None
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token.get_secret_value()}"
        else:
            self._oauth, self._tokens = settings, Tokens(self._fetch_token)
        self._transport = Transport(
            settings.base_url, headers=headers, timeout_s=settings.timeout_s, connections=settings.connections
        )

    @property
    def quota_used(self) -> float | None:
        """How much of HubSpot's rolling window is used, 0..1, as its last answer said; None when it did not."""
        most = self._answered.get("X-HubSpot-RateLimit-Max", "")
        left = self._answered.get("X-HubSpot-RateLimit-Remaining", "")
        if not (_is_count(most) and _is_count(left)) or int(most) == 0:
            return None
        return min(1.0, max(0.0, 1 - int(left) / int(most)))

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Upsert the contacts of the batch in one call, or erase them in one call and one more for each."""
        if batch[0].action == ERASE:
            return await self._erase(batch)
        refused: dict[int, Outcome] = {}
        asked: list[Delivery] = []
        inputs: list[dict[str, Any]] = []
        for index, delivery in enumerate(batch):
            properties = wire_properties(delivery)
            if isinstance(properties, Rejected):
                refused[index] = properties
                continue
            asked.append(delivery)
            inputs.append(
                {
                    "id": delivery.entity,
                    "idProperty": self._unique,
                    "properties": properties,
                    "objectWriteTraceId": delivery.idempotency_key,
                }
            )
        if not inputs:
            return [refused[index] for index in range(len(batch))]
        body = as_json({"inputs": inputs})
        result = await self._request("POST", f"{self._contacts}/batch/upsert", body)
        answered: Iterator[Outcome] = iter(
            [result] * len(asked) if isinstance(result, Unavailable) else classify(result, asked, self._unique)
        )
        if not refused:
            return list(answered)
        return [refused[index] if index in refused else next(answered) for index in range(len(batch))]

    async def _erase(self, batch: Sequence[Delivery]) -> list[Outcome]:
        wrong = Rejected("invalid_body", "an erasure has no body and an entity")
        if any(delivery.body or not delivery.entity for delivery in batch):
            return [wrong if delivery.body or not delivery.entity else NOT_ASKED for delivery in batch]
        began = time.monotonic()
        asked = {
            "idProperty": self._unique,
            "properties": [self._unique],
            "inputs": [{"id": delivery.entity} for delivery in batch],
        }
        result = await self._request("POST", f"{self._contacts}/batch/read", as_json(asked))
        if isinstance(result, Unavailable):
            return [result] * len(batch)
        found = classify_read(result, batch, self._unique)
        outcomes: list[Outcome] = []
        goes_on = True
        for one in found:
            if isinstance(one, str):
                # every call is bounded, all of them together are not: what is left is asked for another time
                goes_on = goes_on and time.monotonic() - began < self._seconds / 2
                outcome = await self._purge(one) if goes_on else NOT_ASKED
                goes_on = goes_on and isinstance(outcome, Delivered)
            else:
                outcome = one
            outcomes.append(outcome)
        return outcomes

    async def _purge(self, number: str) -> Outcome:
        """Delete one contact for good, by HubSpot's own id."""
        result = await self._request("POST", PURGE_PATH, as_json({"objectId": number}))
        if isinstance(result, Unavailable):
            return result
        if not isinstance(result, Answer):
            return unanswered(result)
        return Delivered(number) if result.status == 204 else _whole_call(result, result.json(), alone=True)

    async def read_back(self, wanted: Sequence[Delivery]) -> Sequence[Kept | Rejected | None] | Unavailable:
        """The contacts as HubSpot has them, in one call."""
        wired = [wire_properties(delivery) for delivery in wanted]
        names = sorted({name for one in wired if not isinstance(one, Rejected) for name in one})
        asked = {
            "properties": sorted({self._unique, *names}),
            "propertiesWithHistory": [],
            "idProperty": self._unique,
            "inputs": [
                {"id": delivery.entity}
                for delivery, one in zip(wanted, wired, strict=True)
                if not isinstance(one, Rejected)
            ],
        }
        if not asked["inputs"]:
            return [one for one in wired if isinstance(one, Rejected)]
        result = await self._request("POST", f"{self._contacts}/batch/read", as_json(asked))
        if isinstance(result, Unavailable):
            return result
        return classify_kept(result, wanted, wired, self._unique)

    async def list_ours(self, about: Mapping[str, Any], after: str) -> Page | Unavailable:
        """A page of the account's contacts, those that have our unique property."""
        query = {"limit": str(LIST_PAGE), "properties": self._unique, "archived": "false"}
        if after:
            query["after"] = after
        result = await self._request("GET", f"{self._contacts}?{urlencode(query)}", None, self._contacts)
        return result if isinstance(result, Unavailable) else classify_listed(result, self._unique)

    async def check(self) -> Outcome:
        """Ask for the account's own details: any credential that works may."""
        result = await self._request("GET", CHECK_PATH, None)
        if isinstance(result, Unavailable):
            return result
        if not isinstance(result, Answer):
            return unanswered(result)
        document = result.json()
        if result.status == 200:
            account = document.get("portalId") if isinstance(document, dict) else None
            return Unknown("not_understood") if account is None else Delivered(str(account)[:40])
        return _whole_call(result, document, alone=True)

    async def close(self) -> None:
        if self._tokens is not None:
            await self._tokens.close()
        await self._transport.close()

    async def _request(
        self, method: str, path: str, body: bytes | None, template: str | None = None
    ) -> Result | Unavailable:
        """Ask with a token that works; after a 401 once more with a new one. Unavailable: there is no token."""
        if self._tokens is None:
            result = await self._transport.request(method, path, body=body, template=template)
        else:
            token = await self._tokens.current()
            if isinstance(token, Unavailable):
                return token
            result = await self._transport.request(method, path, body=body, headers=_bearer(token), template=template)
            if isinstance(result, Answer) and result.status == 401:
                token = await self._tokens.renew(token)
                if isinstance(token, Unavailable):
                    return token
                result = await self._transport.request(
                    method, path, body=body, headers=_bearer(token), template=template
                )
        if isinstance(result, Answer):
            self._answered = result.headers
            self.pause_until = pause_until(self.pause_until, quota_wait(result))
        return result

    async def _fetch_token(self) -> Fresh | Unavailable:
        """An access token for the refresh token (HubSpot: 30 minutes)."""
        secret, refresh = self._oauth.client_secret, self._oauth.refresh_token
        assert secret is not None
        assert refresh is not None
        form = {
            "grant_type": "refresh_token",
            "client_id": self._oauth.client_id,
            "client_secret": secret.get_secret_value(),
            "refresh_token": refresh.get_secret_value(),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        wire = urlencode(form).encode()
        result = await self._transport.request("POST", TOKEN_PATH, body=wire, headers=headers, secret=True)
        return classify_token(result)


# -- what is sent -------------------------------------------------------------------------------------------------


def wire_properties(delivery: Delivery) -> dict[str, str] | Rejected:
    """The properties as HubSpot takes them: every value a string, null as "" (which clears)."""
    if delivery.action != "contact.upsert":
        return Rejected("unknown_action", delivery.action[:100])
    if not delivery.entity:
        return Rejected("invalid_body", "entity is empty")
    properties = {}
    for name, value in delivery.body.items():
        if not isinstance(name, str) or not PROPERTY.match(name):
            return Rejected("invalid_body", "a property name is not HubSpot's form")
        text = wire_value(value)
        if text is None:
            return Rejected("invalid_body", f"{name} is not text, a number, a truth value, a time or a list of them")
        properties[name] = text
    return properties


def wire_value(value: object) -> str | None:
    """A value in HubSpot's text form; None when it has none. Times are UTC; several values join by ``;``."""
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if abs(value) < 1 << 63 else None
        case float():
            return repr(value) if math.isfinite(value) else None
        case Decimal():
            return format(value, "f") if value.is_finite() and abs(value.adjusted()) < 100 else None
        case datetime():
            moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
        case list() | tuple():
            parts = [None if item is None or isinstance(item, (list, tuple)) else wire_value(item) for item in value]
            return None if None in parts else ";".join(part for part in parts if part is not None)
        case _:
            return None


def _bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


# -- what comes back ----------------------------------------------------------------------------------------------


def classify(result: Result, asked: Sequence[Delivery], unique_property: str) -> list[Outcome]:
    """One outcome per delivery asked, in order; the table is on top of this module."""
    if not isinstance(result, Answer):
        return [unanswered(result)] * len(asked)
    document = result.json()
    if result.status in (200, 201, 207):
        if not isinstance(document, dict) or not isinstance(document.get("results", []), list):
            return [Unknown("not_understood")] * len(asked)
        return _items(document, asked, unique_property)
    return [_whole_call(result, document, alone=len(asked) == 1)] * len(asked)


def classify_read(result: Result, asked: Sequence[Delivery], unique_property: str) -> list[str | Outcome]:
    """Of each delivery whose contact was looked for: HubSpot's id of it, or what came of the question."""
    if not isinstance(result, Answer):
        return [unanswered(result)] * len(asked)
    document = result.json()
    if result.status not in (200, 207):
        return [_whole_call(result, document, alone=len(asked) == 1)] * len(asked)
    if not isinstance(document, dict) or not isinstance(document.get("results"), list):
        return [Unknown("not_understood")] * len(asked)
    numbers: dict[str, str] = {}
    for item in document["results"]:
        properties = item.get("properties") if isinstance(item, dict) else None
        if isinstance(properties, dict) and isinstance(item.get("id"), str):
            numbers[str(properties.get(unique_property))] = item["id"]
    missing = _not_found(document)
    gone = Delivered(note="was_not_there")
    return [numbers.get(one.entity) or (gone if one.entity in missing else Unknown("no_result")) for one in asked]


def _not_read(result: Result) -> Unavailable:
    """Why there is nothing to read in an answer."""
    outcome = unanswered(result) if not isinstance(result, Answer) else _whole_call(result, result.json(), alone=True)
    if isinstance(outcome, Unavailable):
        return outcome
    return Unavailable(getattr(outcome, "reason", "not_understood"))  # asking again does no harm


def classify_kept(
    result: Result,
    wanted: Sequence[Delivery],
    wired: Sequence[Mapping[str, str] | Rejected],
    unique_property: str,
) -> list[Kept | Rejected | None] | Unavailable:
    """What HubSpot has of each contact that was asked for; ``wired`` is what the deliveries would send."""
    document = result.json() if isinstance(result, Answer) and result.status in (200, 207) else None
    if not isinstance(document, dict) or not isinstance(document.get("results"), list):
        return _not_read(result)
    there: dict[str, Mapping[str, Any]] = {}
    for item in document["results"]:
        properties = item.get("properties") if isinstance(item, dict) else None
        if isinstance(properties, dict) and isinstance(properties.get(unique_property), str):
            there[properties[unique_property]] = item
    missing = _not_found(document)
    found: list[Kept | Rejected | None] = []
    for delivery, one in zip(wanted, wired, strict=True):
        item = there.get(delivery.entity, {})
        if isinstance(one, Rejected):
            found.append(one)
        elif item:
            pairs = {name: kept_value(name, delivery.body[name], sent, item["properties"].get(name))
                     for name, sent in one.items()}  # fmt: skip
            reference = item.get("id")
            found.append(
                Kept(
                    {name: asked for name, (asked, _) in pairs.items()},
                    {name: held for name, (_, held) in pairs.items()},
                    reference if isinstance(reference, str) else None,
                )
            )
        else:
            found.append(None if delivery.entity in missing else Rejected("no_result"))
    return found


def kept_value(name: str, value: object, sent: str, found: object) -> tuple[str, str]:
    """A value as it was sent and as HubSpot has it, the same text where HubSpot only writes it otherwise."""
    held = found if isinstance(found, str) else ""
    if name == "email":
        return sent.lower(), held.lower()
    if name == "lifecyclestage" and sent in LIFECYCLE_STAGES and held in LIFECYCLE_STAGES:
        # a later stage stays as it is, as HubSpot documents: that is what was asked
        return (held, held) if LIFECYCLE_STAGES.index(sent) <= LIFECYCLE_STAGES.index(held) else (sent, held)
    same = False
    match value:
        case bool():
            same = held.lower() == sent
        case int() | float() | Decimal():
            same = _is_number(held) and Decimal(held) == Decimal(sent)
        case datetime():
            moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
            same = _milliseconds(held) == int(moment.timestamp() * 1000)
        case date():
            midnight = datetime(value.year, value.month, value.day, tzinfo=UTC)
            same = held == sent or _milliseconds(held) == int(midnight.timestamp() * 1000)
        case list() | tuple():
            same = sorted(held.split(";")) == sorted(sent.split(";"))
    return (held, held) if same else (sent, held)


def _is_number(text: str) -> bool:
    return NUMBER.match(text) is not None


def _milliseconds(text: str) -> int | None:
    """A time as HubSpot writes it: ISO 8601, or milliseconds since the epoch."""
    if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 16:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else int(moment.timestamp() * 1000)


def classify_listed(result: Result, unique_property: str) -> Page | Unavailable:
    """The contacts of a page that have the unique property, and where the list goes on."""
    document = result.json() if isinstance(result, Answer) and result.status == 200 else None
    if not isinstance(document, dict) or not isinstance(document.get("results"), list):
        return _not_read(result)
    found = []
    for item in document["results"]:
        properties = item.get("properties") if isinstance(item, dict) else None
        entity = properties.get(unique_property) if isinstance(properties, dict) else None
        if isinstance(entity, str) and entity:
            made = _milliseconds(str(item.get("createdAt", "")))
            reference = item.get("id")
            found.append(
                Listed(
                    entity,
                    reference if isinstance(reference, str) else None,
                    made_at=None if made is None else datetime.fromtimestamp(made / 1000, UTC),
                )
            )
    paging = document.get("paging")
    next_ = paging.get("next") if isinstance(paging, dict) else None
    after = next_.get("after") if isinstance(next_, dict) else None
    return Page(found, after if isinstance(after, str) and after else None)


def _not_found(document: Mapping[str, Any]) -> set[str]:
    """The ids of a batch read that no contact has."""
    missing: set[str] = set()
    errors = document.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict) and error.get("category") == "OBJECT_NOT_FOUND":
            context = error.get("context")
            ids = context.get("ids") if isinstance(context, dict) else None
            missing.update(one for one in (ids if isinstance(ids, list) else []) if isinstance(one, str))
    return missing


def _whole_call(answer: Answer, document: Any, *, alone: bool) -> Outcome:
    status = answer.status
    if status == 409:
        return RetryLater("conflict") if alone else Rejected("conflict", _detail(document), scope="call")
    if (known := STATUS.get(status)) is not None:
        if isinstance(known, Unavailable) and not known.needs_operator:
            return _waiting(known, answer, document)
        return known
    if 300 <= status < 400:
        return Unavailable("redirected", needs_operator=True)
    if 400 <= status < 500:
        return Rejected("refused", f"{status} {_detail(document)}".strip(), scope="delivery" if alone else "call")
    return Unknown("server_error" if status >= 500 else "not_understood")


def _waiting(known: Unavailable, answer: Answer, document: Any) -> Unavailable:
    after = retry_after(answer.headers)
    if after is None:
        after = known.after
        if answer.status == 429 and isinstance(document, dict):
            after = POLICY_WAITS.get(str(document.get("policyName", "")).upper(), after)
    elif answer.status == 423:
        after = max(after, LOCK_WAIT_MIN)
    return replace(known, after=after)


def classify_token(result: Result) -> Fresh | Unavailable:
    """What the answer to a refresh means. Nothing of ours was sent yet: it is a token or Unavailable, never Unknown."""
    if not isinstance(result, Answer):
        return Unavailable(f"token_{result.reason}")
    document = result.json()
    if result.status == 200:
        said = document if isinstance(document, dict) else {}
        token, seconds = said.get("access_token"), said.get("expires_in")
        if isinstance(token, str) and TOKEN.match(token) and isinstance(seconds, (int, float)) and seconds > 0:
            return Fresh(token, min(float(seconds), TOKEN_SECONDS_MAX))
        return Unavailable("token_not_understood")
    if result.status in (429, 477) or result.status >= 500:
        known = STATUS[429] if result.status < 500 else Unavailable("token_unavailable")
        assert isinstance(known, Unavailable)
        return _waiting(known, result, document)
    return Unavailable("refresh_refused", needs_operator=True)


def quota_wait(answer: Answer) -> timedelta | None:
    """How long the connection should pause after this answer, by its status and its quota headers.

    With no call left in a rolling window, a tenth of the window frees about a tenth of it when calls came evenly; when
    they did not, the 429 that follows says so and waits the whole window. Nothing left of the day: 15 minutes.
    """
    headers = answer.headers
    if answer.status in (429, 477, 503):
        waiting = _whole_call(answer, answer.json() if answer.status == 429 else None, alone=True)
        return waiting.after if isinstance(waiting, Unavailable) else None
    if headers.get("X-HubSpot-RateLimit-Daily-Remaining") == "0":
        return POLICY_WAITS["DAILY"]
    if headers.get("X-HubSpot-RateLimit-Remaining") == "0":
        window = headers.get("X-HubSpot-RateLimit-Interval-Milliseconds", "")
        window_ms = int(window) if _is_count(window) else 10_000
        return timedelta(milliseconds=min(window_ms / 10, 60_000))
    return None


def _items(document: Mapping[str, Any], asked: Sequence[Delivery], unique_property: str) -> list[Outcome]:
    results: dict[str, Mapping[str, Any]] = {}
    for item in document.get("results", ()):
        if isinstance(item, dict):
            name = item.get("objectWriteTraceId")
            if not isinstance(name, str):
                properties = item.get("properties")
                name = properties.get(unique_property) if isinstance(properties, dict) else None
            if isinstance(name, str):
                results[name] = item
    errors: dict[str, Mapping[str, Any]] = {}
    nameless: list[Mapping[str, Any]] = []
    listed = document.get("errors") or ()
    for error in listed if isinstance(listed, list) else ():
        if isinstance(error, dict):
            names = list(_named(error))
            errors.update(dict.fromkeys(names, error))
            if not names:
                nameless.append(error)
    outcomes: list[Outcome] = []
    for delivery in asked:
        key, entity = delivery.idempotency_key, delivery.entity
        result = results.get(key) or results.get(entity)
        error = errors.get(key) or errors.get(entity)
        if error is not None:
            outcomes.append(_item_error(error))
        elif result is not None:
            outcomes.append(_delivered(result, delivery))
        elif nameless and len(asked) == 1:
            outcomes.append(_item_error(nameless[0]))
        elif nameless:
            # Somebody of this batch was refused and we are not told who: alone, the answer can only mean the one.
            outcomes.append(Rejected("refused", _detail(nameless[0]), scope="call"))
        else:
            outcomes.append(Unknown("no_result"))
    return outcomes


def _named(error: Mapping[str, Any]) -> Iterator[str]:
    """Trace ids and ids that an error names; one error may cover many items, or none."""
    yield from _strings(error.get("objectWriteTraceId"))
    context = error.get("context")
    if isinstance(context, dict):
        for name in ("objectWriteTraceId", "objectWriteTraceIds", "ids", "id"):
            yield from _strings(context.get(name))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))


def _item_error(error: Mapping[str, Any]) -> Outcome:
    category = error.get("category")
    if category in ("RATE_LIMITS", "RATE_LIMIT"):
        return Unavailable("rate_limited", POLICY_WAITS["SECONDLY"], scope="entity")
    if category == "CONFLICT":
        return RetryLater("conflict")
    if isinstance(category, str) and category in PERMANENT:
        return Rejected("refused", _detail(error))
    return RetryLater("vendor_error")


def _delivered(result: Mapping[str, Any], delivery: Delivery) -> Delivered:
    reference = result.get("id")
    sent = delivery.body.get("lifecyclestage")
    note = None
    if sent in LIFECYCLE_STAGES:
        properties = result.get("properties")
        kept = properties.get("lifecyclestage", sent) if isinstance(properties, dict) else sent
        note = None if kept == sent else "lifecyclestage_kept"
    return Delivered(str(reference) if isinstance(reference, (str, int)) else None, note)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12


def _detail(document: Any) -> str:
    """Codes, property names and the correlation id of HubSpot's error; nothing it quotes from what was sent."""
    if not isinstance(document, dict):
        return ""
    parts: list[str] = []
    inner = document.get("errors")
    for error in (document, *(inner[:5] if isinstance(inner, list) else ())):
        if not isinstance(error, dict):
            continue
        for name in ("category", "subCategory", "code"):
            value = error.get(name)
            if isinstance(value, str) and CODE.match(value):
                parts.append(value)
        context = error.get("context")
        places = [error.get("in")]
        if isinstance(context, dict):
            places.extend(_strings(context.get("propertyName")))
        parts.extend(f"property={place}" for place in places if isinstance(place, str) and PROPERTY.match(place))
    correlation = document.get("correlationId")
    if isinstance(correlation, str) and CORRELATION.match(correlation):
        parts.append(f"correlation={correlation}")
    return " ".join(dict.fromkeys(parts))[:1000]
