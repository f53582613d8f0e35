"""The ``tests:`` of a subscription, run: real bytes, the real pipeline, the real settle table; simulated time.

The vendor is the script of the test. Nothing is sent, nothing sleeps, and a run gives the same result every time.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, assert_never

from connectors.connector import ConnectorType, Delivered, Delivery, Outcome, Rejected, RetryLater, Unavailable
from connectors.transport import Lost, NotSent, unanswered
from consumers.expressions.values import plain
from consumers.merging import MERGED_MAX, can_merge, merged
from consumers.pipeline import NotOurs, OfErased, Pipeline, Refused, ToDeliver, Wanted
from consumers.settlement import (
    Attempts,
    Finish,
    Halve,
    Hold,
    LookUp,
    PauseConnection,
    SetAside,
    StopConnection,
    decide,
    decide_look_up,
)
from consumers.subscription import Policies, Subscription
from schemas.codec import Decoder, Encoder
from schemas.contract import Contract, Contracts
from schemas.datum import example, from_json
from schemas.duration import parse_duration
from schemas.errors import BackboneError, InputError
from schemas.event import Record
from schemas.findings import did_you_mean
from schemas.registry import Registry, open_registry

STEPS_MAX: Final = 1_000
WHEN: Final = datetime(2026, 5, 1, 12, tzinfo=UTC)
"""The time of a test's events where it does not say one, and the time at which the test begins unless one of its
events is newer: an event with an earlier time has waited since then."""
_PAUSE_S: Final = 30.0
_FAILURES: Final = ("ok", "timeout", "cut", "refused", "busy", "found", "missing")
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Answer:
    """One word of a vendor's script: a status or a failure; ``lasting``: it is repeated for so long."""

    status: int | None = None
    failure: str | None = None
    after: timedelta | None = None
    lasting: timedelta | None = None


_WORD = re.compile(r"(?P<what>[a-z]+|[0-9]{3})(?:\s+after\s+(?P<after>\S+))?(?:\s+for\s+(?P<lasting>\S+))?\Z")


def answer(word: str) -> Answer:
    """What ``429 after 2s``, ``timeout``, ``500 for 20m`` or ``ok`` says. Raises InputError."""
    parts = _WORD.match(word.strip())
    if parts is None:
        raise InputError(
            "A vendor's answer is ok, a status like 429 or 500, or one of timeout, cut, refused, busy, and to a "
            "look-up found or missing; then perhaps 'after 2s' (its Retry-After) or 'for 20m' (so long)."
        )
    what = parts["what"]
    after = parse_duration(parts["after"]) if parts["after"] else None
    lasting = parse_duration(parts["lasting"]) if parts["lasting"] else None
    if what.isdigit():
        if not 200 <= int(what) <= 599:
            raise InputError(f"{what} is no status of an answer.")
        return Answer(status=int(what), after=after, lasting=lasting)
    if what not in _FAILURES:
        raise InputError(f"A vendor does not answer '{what}'.{did_you_mean(what, _FAILURES)}")
    return Answer(failure=what, after=after, lasting=lasting)


def outcome_of(said: Answer, connector: ConnectorType) -> Outcome:
    """What such an answer means for one delivery alone: as the connector says, else as HTTP does."""
    match said.failure:
        case "ok":
            return Delivered()
        case "timeout":
            return unanswered(Lost("timeout"))
        case "cut":
            return unanswered(Lost("cut"))
        case "refused":
            return unanswered(NotSent("refused"))
        case "busy":
            return Unavailable("busy", said.after, scope="entity")
        case "found" | "missing":
            raise InputError(f"'{said.failure}' answers a look-up, and none is asked here.")
    status = said.status or 200
    if connector.answered is not None and status >= 300:
        return connector.answered(status, said.after)
    if status < 300:
        return Delivered()
    if status in (401, 403, 410) or status < 400:
        return Unavailable(f"http_{status}", needs_operator=True)
    if status in (429, 502, 503, 504):
        return Unavailable(f"http_{status}", said.after)
    if status in (409, 423) or status >= 500:
        return RetryLater(f"http_{status}", said.after)
    return Rejected(f"http_{status}")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one event of a test."""

    event: str
    outcome: str
    attempts: int
    reason: str = ""
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test's end; ``differences`` are sentences, none if it passed."""

    subscription: str
    test: str
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.differences


def rehearse(subscription: Subscription, contracts: Contracts) -> list[Verdict]:
    """Run every test of the file. Blocks for some milliseconds; raises nothing that a test could cause."""
    registry = open_registry(f"memory://rehearsal-{next(_names)}")
    decoder = Decoder(registry, contracts=contracts)
    pipeline = Pipeline(subscription, decoder)
    return [_verdict(subscription, test, contracts, registry, decoder, pipeline) for test in subscription.tests]


def _verdict(
    subscription: Subscription,
    test: Mapping[str, Any],
    contracts: Contracts,
    registry: Registry,
    decoder: Decoder,
    pipeline: Pipeline,
) -> Verdict:
    try:
        results = list(_results(subscription, test, contracts, registry, decoder, pipeline))
    except BackboneError as error:
        return Verdict(subscription.name, test["name"], (str(error),))
    return Verdict(subscription.name, test["name"], tuple(differences(test["expect"], results)))


def _results(
    subscription: Subscription,
    test: Mapping[str, Any],
    contracts: Contracts,
    registry: Registry,
    decoder: Decoder,
    pipeline: Pipeline,
) -> Iterator[Result]:
    script = deque(answer(word) for word in test.get("vendor", []))
    records = [_record(given, index, contracts[given["event"]], registry) for index, given in enumerate(test["given"])]
    begins = max(WHEN.timestamp(), *(record.timestamp / 1000 for record in records))
    ours: list[_Ours] = []
    for given, record in zip(test["given"], records, strict=True):
        if pipeline.route(record) is False:
            continue
        projection = pipeline.project(record)
        while isinstance(projection, Wanted):
            decoder.load(projection.schema)
            projection = pipeline.project(record)
        if not isinstance(projection, NotOurs | OfErased):  # nobody is erased in a test
            age = begins - record.timestamp / 1000
            ours.append(_Ours(given["event"], (record.topic, record.key), projection, age))
    results: dict[int, Result] = {}
    for members in _groups(ours, subscription):
        results |= _settled([ours[index] for index in members], members, subscription, script)
    for index in range(len(ours)):
        yield results[index]


@dataclass(frozen=True, slots=True)
class _Ours:
    """One event of the test that is for this subscription; ``age`` in seconds when the test begins."""

    event: str
    lane: tuple[str, bytes | None]
    projection: Refused | ToDeliver
    age: float

    def expires_in(self, policies: Policies) -> float | None:
        return None if policies.expire_after is None else policies.expire_after.total_seconds() - self.age


def _groups(ours: Sequence[_Ours], subscription: Subscription) -> list[list[int]]:
    """Which events are asked of the vendor together, by their places: with ``send: latest`` neighbours of a lane that
    are about the same thing (all events of a test wait at once), else each alone. In the order of their first."""
    groups: list[list[int]] = []
    last: dict[tuple[str, bytes | None], list[int]] = {}
    for index, one in enumerate(ours):
        group = last.get(one.lane)
        if group is not None and _merges(ours[group[-1]], one, subscription) and len(group) < MERGED_MAX:
            group.append(index)
        else:
            groups.append([index])
            last[one.lane] = groups[-1]
    return groups


def _merges(older: _Ours, newer: _Ours, subscription: Subscription) -> bool:
    if subscription.policies.send != "latest":
        return False
    if not isinstance(older.projection, ToDeliver) or not isinstance(newer.projection, ToDeliver):
        return False
    if any((left := one.expires_in(subscription.policies)) is not None and left <= 0 for one in (older, newer)):
        return False
    action = subscription.connector.actions[newer.projection.delivery.action]
    return action.upsert and can_merge(older.projection.delivery, newer.projection.delivery, action)


def _settled(
    members: Sequence[_Ours], places: Sequence[int], subscription: Subscription, script: deque[Answer]
) -> dict[int, Result]:
    """What came of the events of one group, by their places."""
    newest = members[-1]
    deliveries = []
    for one in members:
        if isinstance(one.projection, Refused):
            rejected = one.projection.rejected
            return {places[0]: Result(one.event, one.projection.kind, 0, f"{rejected.reason}: {rejected.detail}")}
        deliveries.append(one.projection.delivery)
    carrier = merged(deliveries, subscription.connector.actions[deliveries[-1].action])
    came = _delivered(carrier, newest, subscription, script)
    if len(members) > 1 and came.outcome == "rejected":  # one of them may be to blame: each is asked alone
        alone = zip(members, places, deliveries, strict=True)
        return {place: _delivered(delivery, one, subscription, script) for one, place, delivery in alone}
    older = {
        place: replace(came, event=one.event, outcome="merged" if came.outcome == "delivered" else came.outcome)
        for one, place in zip(members, places, strict=True)
    }
    return older | {places[-1]: came}


def _record(given: Mapping[str, Any], index: int, contract: Contract, registry: Registry) -> Record:
    """The event as Kafka would have it."""
    data = {**example(contract), **from_json(contract, given.get("data", {}))}
    registry.register(contract.subject, contract.text)
    moment = WHEN
    if "time" in given:
        try:
            moment = datetime.fromisoformat(given["time"])
        except ValueError:
            raise InputError(f"given[{index}].time is no time like 2026-05-01T12:00:00Z.") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        encoded = Encoder(registry).encode(
            contract, data, id=given.get("id", f"event-{index + 1}"), source=given.get("source", "test"), time=moment,
            subject=given.get("subject"),
        )  # fmt: skip
    except BackboneError as error:
        raise InputError(f"given[{index}]: {error}") from None
    headers: tuple[tuple[str, bytes | None], ...] = tuple(encoded.headers)
    milliseconds = int(moment.timestamp() * 1000)
    return Record(contract.topic, 0, index, encoded.key, encoded.value, headers, milliseconds)


def _delivered(delivery: Delivery, of: _Ours, subscription: Subscription, script: deque[Answer]) -> Result:
    """One delivery against the script, on a clock that only waiting moves."""
    attempts, now = Attempts(), 0.0
    event, policies = of.event, subscription.policies
    expires = of.expires_in(policies)
    ends: float | None = None
    asking = False
    for _ in range(STEPS_MAX):
        if expires is not None and now >= expires and not asking:
            return Result(event, "expired", attempts.count, delivery=delivery)
        if asking:
            found = Delivered() if _found(script) else None
            decision = decide_look_up(found, attempts, policies, now=now, random=lambda: 0.5)
        else:
            said = script[0] if script else Answer(failure="ok")
            if said.lasting is None or (ends is not None and now >= ends):
                if script:
                    script.popleft()
                if said.lasting is not None:
                    ends = None
                    continue
            elif ends is None:
                ends = now + said.lasting.total_seconds()
            outcome = outcome_of(said, subscription.connector)
            decision = decide(
                outcome, attempts, policies, now=now, alone=True, others_succeed=True, random=lambda: 0.5
            )  # fmt: skip
        asking = isinstance(decision, LookUp)
        match decision:
            case Finish():
                name = type(decision.outcome).__name__.lower()
                return Result(event, name, attempts.count, delivery=delivery)
            case SetAside():
                return Result(event, decision.outcome, attempts.count, decision.reason, delivery)
            case Hold() | LookUp():
                now += max(decision.seconds, 0.001)
            case PauseConnection():
                now += _PAUSE_S if decision.seconds is None else max(decision.seconds, 0.001)
            case StopConnection():
                return Result(event, "waiting", attempts.count, decision.reason, delivery)
            case Halve():
                return Result(event, "rejected", attempts.count, decision.rejected.reason, delivery)
            case _:
                assert_never(decision)
    return Result(event, "waiting", attempts.count, "it never ends", delivery)


def _found(script: deque[Answer]) -> bool:
    """What the vendor says to a look-up: the next word if it is one for that, else that it is not there."""
    return bool(script) and script[0].failure in ("found", "missing") and script.popleft().failure == "found"


# -- what was expected ----------------------------------------------------------------------------------------------


def differences(expected: Sequence[Mapping[str, Any]], results: Sequence[Result]) -> Iterator[str]:
    """A sentence for every place where what came is not what was expected."""
    if len(expected) != len(results):
        came = ", ".join(_summary(result) for result in results) or "none"
        yield f"expect: {len(expected)} events should be ours, {len(results)} were: {came}."
        return
    for index, (wanted, result) in enumerate(zip(expected, results, strict=True)):
        place = f"expect[{index}]"
        delivery = result.delivery
        for name in ("event", "outcome", "attempts"):
            if name in wanted and wanted[name] != getattr(result, name):
                because = f" ({result.reason})" if result.reason else ""
                yield f"{place}.{name}: expected {wanted[name]}, got {getattr(result, name)}{because}."
        if "reason" in wanted and wanted["reason"] not in result.reason:
            yield f"{place}.reason: expected {wanted['reason']}, got {result.reason or 'none'}."
        if delivery is None:
            if any(name in wanted for name in ("action", "entity", "body", "without")):
                yield f"{place}: nothing was asked of the vendor: {result.outcome} ({result.reason})."
            continue
        for name in ("action", "entity"):
            if name in wanted and wanted[name] != getattr(delivery, name):
                yield f"{place}.{name}: expected {_shown(wanted[name])}, got {_shown(getattr(delivery, name))}."
        body = plain(dict(delivery.body))
        yield from _differences(f"{place}.body", wanted.get("body", {}), body)
        for path in wanted.get("without") or []:
            if _has(body, path):
                yield f"{place}.body has '{path}', which it should not."


def _differences(place: str, wanted: Any, found: Any) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name, value in wanted.items():
            if name not in found:
                has = ", ".join(found) or "nothing"
                yield f"{place} has no '{name}'; it has {has}.{did_you_mean(str(name), map(str, found))}"
            else:
                yield from _differences(f"{place}.{name}", value, found[name])
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(f"{place}[{index}]", one, other)
    elif wanted != found or isinstance(wanted, bool) != isinstance(found, bool):
        yield f"{place}: expected {_shown(wanted)}, got {_shown(found)}."


def _has(body: Any, path: str) -> bool:
    for step in path.split("."):
        if not isinstance(body, Mapping) or step not in body:
            return False
        body = body[step]
    return True


def _summary(result: Result) -> str:
    asked = f" -> {result.delivery.action} of {result.delivery.entity}" if result.delivery else f" ({result.reason})"
    return f"{result.event} {result.outcome}{asked}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
