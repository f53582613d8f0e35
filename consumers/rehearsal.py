"""The ``tests:`` of a subscription, run: real bytes, the real pipeline, the real settle table; simulated time.

The vendor is the script of the test. Nothing is sent, nothing sleeps, and a run gives the same result every time.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, assert_never

from connectors.connector import ConnectorType, Delivered, Delivery, Outcome, Rejected, RetryLater, Unavailable
from connectors.transport import Lost, NotSent, unanswered
from consumers.expressions.values import plain
from consumers.pipeline import NotOurs, Pipeline, Refused, ToDeliver, Wanted
from consumers.settlement import Attempts, Finish, Halve, Hold, PauseConnection, SetAside, StopConnection, decide
from consumers.subscription import Subscription
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
"""The time of a test's events where it does not say one."""
_PAUSE_S: Final = 30.0
_FAILURES: Final = ("ok", "timeout", "cut", "refused", "busy")
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
            "A vendor's answer is ok, a status like 429 or 500, or one of timeout, cut, refused, busy; "
            "then perhaps 'after 2s' (its Retry-After) or 'for 20m' (so long)."
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
    for index, given in enumerate(test["given"]):
        record = _record(given, index, contracts[given["event"]], registry)
        routed = pipeline.route(record)
        if routed is False:
            continue
        projection = pipeline.project(record)
        while isinstance(projection, Wanted):
            decoder.load(projection.schema)
            projection = pipeline.project(record)
        match projection:
            case NotOurs():
                continue
            case Refused():
                reason = f"{projection.rejected.reason}: {projection.rejected.detail}"
                yield Result(given["event"], projection.kind, 0, reason)
            case ToDeliver():
                yield _delivered(projection, subscription, script)
            case _:
                assert_never(projection)


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


def _delivered(projection: ToDeliver, subscription: Subscription, script: deque[Answer]) -> Result:
    """One delivery against the script, on a clock that only waiting moves."""
    attempts, now, ends = Attempts(), 0.0, None
    delivery, event = projection.delivery, projection.event.type
    for _ in range(STEPS_MAX):
        said = script[0] if script else Answer(failure="ok")
        if said.lasting is None or (ends is not None and now >= ends):
            if script:
                script.popleft()
            if said.lasting is not None:
                ends = None
                continue
        elif ends is None:
            ends = now + said.lasting.total_seconds()
        decision = decide(
            outcome_of(said, subscription.connector), attempts, subscription.policies,
            now=now, alone=True, others_succeed=True, random=lambda: 0.5,
        )  # fmt: skip
        match decision:
            case Finish():
                outcome = type(decision.outcome).__name__.lower()
                return Result(event, outcome, attempts.count, delivery=delivery)
            case SetAside():
                return Result(event, decision.outcome, attempts.count, decision.reason, delivery)
            case Hold():
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
