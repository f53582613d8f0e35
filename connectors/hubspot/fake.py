"""HubSpot's stand-in: contacts with batch upsert, batch read, read and list, as HubSpot documents them.

What it keeps to: a bearer token, a fixed one or an access token issued for the refresh token and not expired (401
otherwise); upsert by a unique property, the same input twice is one contact;
at most 100 inputs, no id twice (400); property values are strings (400 for the call); e-mail addresses lower-cased,
valid and unique; lifecycle stages known and never backwards (200 with the old stage); per-item errors beside results
(207 in v3, 200 in dated versions) that name the trace id; quota headers on every answer and 429 with policyName.

Report: ``contacts`` {entity: properties} (``?contacts=0`` leaves them out), ``applied`` (upserts done), ``effects``
(contacts), ``duplicates`` (upserts with a trace id applied before), ``refreshes`` (access tokens issued),
``applications`` [[entity, trace id], ...] in order (``?since=n`` from the n-th on).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from connectors.fake_server import Reply, Request, json_reply
from connectors.hubspot.actions import LIFECYCLE_STAGES

UPSERT = re.compile(r"/crm/(?:v3/objects|objects/20\d\d-\d\d)/contacts/batch/upsert\Z")
GDPR_DELETE = re.compile(r"/crm/(?:v3/objects|objects/20\d\d-\d\d)/contacts/gdpr-delete\Z")
BATCH_READ = re.compile(r"/crm/(?:v3/objects|objects/20\d\d-\d\d)/contacts/batch/read\Z")
CONTACTS = re.compile(r"/crm/(?:v3/objects|objects/20\d\d-\d\d)/contacts(?:/([^/]+))?\Z")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+\Z")
BATCH_MAX = 100
CORRELATION = "00000000-0000-4000-8000-000000000000"


@dataclass(slots=True)
class Contact:
    id: str
    properties: dict[str, str]
    created: str
    updated: str
    entity: str


class HubSpotFake:
    """One account's contacts (a ``connectors.fake_server.Vendor``)."""

    def __init__(self, token: str, oauth: Mapping[str, str] | None = None) -> None:
        """``oauth``: the client_id, client_secret and refresh_token that get an access token; None: none does."""
        self._token, self._oauth = token, oauth
        self.reset()

    def reset(self) -> None:
        self._expires: dict[str, float] = {}
        self._token_seconds = 1800.0
        self._refreshes = 0
        self._by_id: dict[str, Contact] = {}
        self._by_unique: dict[tuple[str, str], Contact] = {}
        self._applications: list[tuple[str, str]] = []
        self._traces: set[str] = set()
        self._made = self._erased = 0
        self._blocked: set[str] = set()
        self._duplicates = 0
        self._quota_max = 1_000_000
        self._quota_window_s = 10.0
        self._window_ends = 0.0
        self._window_calls = 0
        self._daily = 0

    def order(self, kind: str, parameters: Mapping[str, Any]) -> bool:
        if kind == "tokens":
            self._token_seconds = parameters["seconds"]
            self._expires.clear()
            return True
        if kind != "quota":
            return False
        self._quota_max = int(parameters["max"])
        self._quota_window_s = parameters["per_ms"] / 1000
        self._window_ends = 0.0
        return True

    def report(self, query: Mapping[str, str]) -> dict[str, Any]:
        since = query.get("since", "0")
        first = int(since) if since.isascii() and since.isdigit() else 0
        document: dict[str, Any] = {
            "applied": len(self._applications),
            "effects": len(self._by_id),
            "duplicates": self._duplicates,
            "refreshes": self._refreshes,
            "erased": self._erased,
            "applications": self._applications[first:],
        }
        if query.get("contacts") != "0":
            document["contacts"] = {contact.entity: contact.properties for contact in self._by_id.values()}
        return document

    def answer(self, request: Request, partial: Mapping[str, Any] | None) -> Reply:
        if request.path == "/oauth/v1/token":
            return self._issue(request)
        if not self._is_authorized(request.headers.get("authorization", "").removeprefix("Bearer ")):
            return _error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
        headers, left = self._count()
        if left < 0:
            body = {
                "status": "error",
                "message": "You have reached your ten_secondly_rolling limit.",
                "correlationId": CORRELATION,
                "category": "RATE_LIMITS",
                "policyName": "TEN_SECONDLY_ROLLING",
            }
            return json_reply(429, body, headers)
        reply = self._route(request, partial)
        reply.headers += headers
        return reply

    def _is_authorized(self, token: str) -> bool:
        return token == self._token or time.monotonic() < self._expires.get(token, 0.0)

    def _issue(self, request: Request) -> Reply:
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        if request.method != "POST" or form.pop("grant_type", None) != "refresh_token":
            return json_reply(400, {"status": "BAD_GRANT_TYPE", "message": "missing or unknown grant type"})
        if self._oauth is None or form != self._oauth:
            known = self._oauth is not None and form.get("client_id") == self._oauth["client_id"]
            wrong = "BAD_REFRESH_TOKEN" if known else "BAD_CLIENT_ID"
            return json_reply(400, {"status": wrong, "message": "missing or invalid", "correlationId": CORRELATION})
        self._refreshes += 1
        token = f"fake-access-token-{self._refreshes}"
        self._expires[token] = time.monotonic() + self._token_seconds
        answer = {"token_type": "bearer", "access_token": token, "refresh_token": self._oauth["refresh_token"]}
        return json_reply(200, answer | {"expires_in": int(self._token_seconds)})

    def _count(self) -> tuple[tuple[tuple[str, str], ...], int]:
        now = time.monotonic()
        if now >= self._window_ends:
            self._window_ends = now + self._quota_window_s
            self._window_calls = 0
        self._window_calls += 1
        self._daily += 1
        left = self._quota_max - self._window_calls
        return (
            ("X-HubSpot-RateLimit-Max", str(self._quota_max)),
            ("X-HubSpot-RateLimit-Remaining", str(max(left, 0))),
            ("X-HubSpot-RateLimit-Interval-Milliseconds", str(int(self._quota_window_s * 1000))),
            ("X-HubSpot-RateLimit-Daily", "1000000000"),
            ("X-HubSpot-RateLimit-Daily-Remaining", str(1_000_000_000 - self._daily)),
        ), left

    def _route(self, request: Request, partial: Mapping[str, Any] | None) -> Reply:
        path = request.path
        if UPSERT.match(path):
            return self._upsert(request, partial) if request.method == "POST" else _error(405, "", "POST only")
        if BATCH_READ.match(path):
            return self._batch_read(request) if request.method == "POST" else _error(405, "", "POST only")
        if GDPR_DELETE.match(path):
            return self._purge(request) if request.method == "POST" else _error(405, "", "POST only")
        if path == "/account-info/v3/details" and request.method == "GET":
            account = {"portalId": 62515, "accountType": "STANDARD", "timeZone": "UTC", "companyCurrency": "EUR"}
            return json_reply(200, account | {"additionalCurrencies": [], "uiDomain": "app.hubspot.example"})
        found = CONTACTS.match(path)
        if found and request.method == "GET":
            return self._list(request) if found[1] is None else self._read(found[1], request)
        return _error(404, "OBJECT_NOT_FOUND", "Unable to find the resource")

    # -- batch upsert -------------------------------------------------------------------------------------------

    def _upsert(self, request: Request, partial: Mapping[str, Any] | None) -> Reply:
        inputs = _inputs(request.body)
        if isinstance(inputs, Reply):
            return inputs
        now = _now()
        results: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        to_fail = int(partial["fail"]) if partial else 0
        for item in inputs:
            if partial is not None and len(errors) < to_fail:
                errors.append(_item_error(item, str(partial["category"]), "Made to fail.", str(partial["named"])))
                continue
            applied = self._apply(item, now)
            (results if isinstance(applied, dict) else errors).append(
                applied if isinstance(applied, dict) else _item_error(item, *applied)
            )
        document: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}
        if errors:
            document |= {"numErrors": len(errors), "errors": errors}
        return json_reply(207 if errors and "/v3/" in request.path else 200, document)

    def _apply(self, item: Mapping[str, Any], now: str) -> dict[str, Any] | tuple[str, str]:
        """Write one input; the result item, or category and message of its error."""
        properties: dict[str, str] = dict(item["properties"])
        id_property: str = item.get("idProperty") or "hs_object_id"
        value: str = item["id"].lower() if id_property == "email" else item["id"]
        contact = self._by_unique.get((id_property, value))
        if contact is None and id_property == "hs_object_id":
            return "OBJECT_NOT_FOUND", "Could not get some CONTACT objects, they may be deleted or not exist."
        if properties.get("email"):
            email = properties["email"] = properties["email"].lower()
            if not EMAIL.match(email):
                return "VALIDATION_ERROR", f"Property values were not valid: Email address {email} is invalid"
            if email in self._blocked:
                return "VALIDATION_ERROR", f"Property values were not valid: {email} was blocked by a GDPR deletion"
            owner = self._by_unique.get(("email", email))
            if owner is not None and owner is not contact:
                return "CONFLICT", f"Contact already exists. Existing ID: {owner.id}"
        stage = properties.get("lifecyclestage")
        if stage and stage not in LIFECYCLE_STAGES:
            return "VALIDATION_ERROR", f"Property values were not valid: {stage} was not one of the allowed options"
        new = contact is None
        if contact is None:
            self._made += 1
            number = str(self._made + 100)
            contact = Contact(number, {id_property: value, "hs_object_id": number}, now, now, value)
            self._by_id[number] = contact
            self._by_unique["hs_object_id", number] = contact
            self._by_unique[id_property, value] = contact
        held = contact.properties
        old_stage = held.get("lifecyclestage")
        if stage and old_stage and LIFECYCLE_STAGES.index(stage) < LIFECYCLE_STAGES.index(old_stage):
            properties["lifecyclestage"] = old_stage
        if "email" in properties:
            if held.get("email"):
                self._by_unique.pop(("email", held["email"]), None)
            if properties["email"]:
                self._by_unique["email", properties["email"]] = contact
        held.update(properties)
        contact.updated = now
        trace = item.get("objectWriteTraceId") or ""
        self._applications.append((contact.entity, trace))
        if trace and trace in self._traces:
            self._duplicates += 1
        self._traces.add(trace)
        result = {
            "id": contact.id,
            "new": new,
            "properties": held,
            "createdAt": contact.created,
            "updatedAt": now,
            "archived": False,
        }
        if trace:
            result["objectWriteTraceId"] = trace
        return result

    # -- erasing ------------------------------------------------------------------------------------------------

    def _purge(self, request: Request) -> Reply:
        """The GDPR deletion of one contact. An e-mail address that no contact has is blocked from then on."""
        try:
            document = json.loads(request.body)
            name, one = document.get("idProperty") or "hs_object_id", document["objectId"]
        except (ValueError, TypeError, KeyError, AttributeError):
            return _error(400, "VALIDATION_ERROR", "Some required fields were not set: [objectId]")
        if not isinstance(one, str):
            return _error(400, "VALIDATION_ERROR", "Invalid input JSON")
        contact = self._by_unique.get((name, one.lower() if name == "email" else one))
        if contact is None:
            if name == "email":
                self._blocked.add(one.lower())
                return Reply(204, b"")
            return _error(404, "OBJECT_NOT_FOUND", "Object not found.")
        del self._by_id[contact.id]
        self._by_unique = {key: held for key, held in self._by_unique.items() if held is not contact}
        self._erased += 1
        return Reply(204, b"")

    # -- reading ------------------------------------------------------------------------------------------------

    def _batch_read(self, request: Request) -> Reply:
        try:
            document = json.loads(request.body)
            ids = [str(item["id"]) for item in document["inputs"]]
            names = [str(name) for name in document.get("properties", [])]
        except (ValueError, TypeError, KeyError, AttributeError):
            return _error(400, "VALIDATION_ERROR", "Invalid input JSON")
        if len(ids) > BATCH_MAX:
            return _error(400, "VALIDATION_ERROR", f"The maximum batch size is {BATCH_MAX}")
        name = document.get("idProperty") or "hs_object_id"
        found = [self._by_unique.get((name, one)) for one in ids]
        missing = [one for one, contact in zip(ids, found, strict=True) if contact is None]
        now = _now()
        results = [_selected(contact, names) for contact in found if contact is not None]
        answer: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}
        if missing:
            error = {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some CONTACT objects, they may be deleted or not exist.",
                "context": {"ids": missing},
            }
            answer |= {"numErrors": 1, "errors": [error]}
        return json_reply(207 if missing else 200, answer)

    def _read(self, one: str, request: Request) -> Reply:
        contact = self._by_unique.get((request.query.get("idProperty", "hs_object_id"), one))
        if contact is None:
            return _error(404, "OBJECT_NOT_FOUND", "Object not found.")
        return json_reply(200, _public(contact))

    def _list(self, request: Request) -> Reply:
        limit, after = request.query.get("limit", "10"), request.query.get("after", "0")
        if not (limit.isdigit() and after.isdigit() and 1 <= int(limit) <= BATCH_MAX):
            return _error(400, "VALIDATION_ERROR", "limit is 1 to 100")
        first, end = int(after), int(after) + int(limit)
        contacts = list(self._by_id.values())
        names = [name for name in request.query.get("properties", "").split(",") if name]
        document: dict[str, Any] = {"results": [_selected(contact, names) for contact in contacts[first:end]]}
        if end < len(contacts):
            document["paging"] = {"next": {"after": str(end), "link": f"?after={end}"}}
        return json_reply(200, document)


def _inputs(body: bytes) -> list[dict[str, Any]] | Reply:
    """The inputs of an upsert, or the 400 that HubSpot answers to the call as a whole."""
    try:
        document = json.loads(body)
    except ValueError:
        return _error(400, "VALIDATION_ERROR", "Invalid input JSON")
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or not inputs:
        return _error(400, "VALIDATION_ERROR", "inputs is required")
    if len(inputs) > BATCH_MAX:
        return _error(400, "VALIDATION_ERROR", f"The maximum batch size is {BATCH_MAX}")
    seen = set()
    for item in inputs:
        if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not item["id"]:
            return _error(400, "VALIDATION_ERROR", "Some required fields were not set: [id]")
        properties = item.get("properties")
        if not isinstance(properties, dict):
            return _error(400, "VALIDATION_ERROR", "Some required fields were not set: [properties]")
        for name, value in properties.items():
            if not isinstance(value, str):
                detail = {"message": "is not a string", "code": "INVALID_TYPE", "context": {"propertyName": [name]}}
                return _error(400, "VALIDATION_ERROR", "Invalid input JSON", errors=[detail])
        same = (item.get("idProperty"), item["id"])
        if same in seen:
            return _error(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input")
        seen.add(same)
    return inputs


def _item_error(item: Mapping[str, Any], category: str, message: str, named: str = "trace") -> dict[str, Any]:
    error: dict[str, Any] = {"status": "error", "category": category, "message": message}
    if named == "ids":
        error["context"] = {"ids": [item["id"]]}
    elif named == "trace" and item.get("objectWriteTraceId"):
        error["context"] = {"objectWriteTraceId": [item["objectWriteTraceId"]]}
    return error


def _error(status: int, category: str, message: str, *, errors: list[dict[str, Any]] | None = None) -> Reply:
    document: dict[str, Any] = {"status": "error", "message": message, "correlationId": CORRELATION}
    if category:
        document["category"] = category
    if errors:
        document["errors"] = errors
    return json_reply(status, document)


def _public(contact: Contact) -> dict[str, Any]:
    return {
        "id": contact.id,
        "properties": contact.properties,
        "createdAt": contact.created,
        "updatedAt": contact.updated,
        "archived": False,
    }


def _selected(contact: Contact, names: Sequence[str]) -> dict[str, Any]:
    """The contact with the properties that were asked for, null where it has none, and those that HubSpot always
    gives."""
    always = {"hs_object_id": contact.id, "createdate": contact.created, "lastmodifieddate": contact.updated}
    asked = {name: contact.properties.get(name) for name in names}
    return _public(contact) | {"properties": asked | always}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
