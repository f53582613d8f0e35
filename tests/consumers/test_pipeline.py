"""One record through the pipeline: whose it is, what is asked, and that nothing in it ever raises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connector import Rejected
from consumers.erased import Erased, ErasedPerson, key_id, mark_of
from consumers.pipeline import NotOurs, OfErased, Pipeline, Refused, ToDeliver, Wanted, idempotency_key
from schemas.codec import SchemaWanted, Undecodable
from schemas.event import Event, Record
from tests.consumers.shop import HEAD, checked, event, loaded, record, route

TEXT = route("{title: '{{ data.currency }}', amount: '{{ data.total_minor }}'}").replace(
    "    action", "    where: data.total_minor > 10\n    action"
)


class Decoded:
    """Stands for the codec: says what the test wants it to say."""

    def __init__(self, event: Event | SchemaWanted | Undecodable, type_: str | SchemaWanted | Undecodable) -> None:
        self.event, self.type = event, type_

    def event_type(self, record: Record) -> str | SchemaWanted | Undecodable:
        return self.type

    def decode(self, record: Record) -> Event | SchemaWanted | Undecodable:
        return self.event


def pipeline(folder: Path, said: Any, text: str = TEXT, type_: Any = "shop.Ordered") -> Pipeline:
    return Pipeline(loaded(folder, text), Decoded(said, type_))


def test_an_event_becomes_a_delivery(tmp_path: Path) -> None:
    projection = pipeline(tmp_path, event()).project(record())
    assert isinstance(projection, ToDeliver)
    delivery = projection.delivery
    assert (delivery.action, delivery.entity, delivery.body) == ("note.put", "o-1", {"title": "EUR", "amount": 1250})
    assert str(delivery.sequence) == "shop.things/3/7"
    assert len(delivery.idempotency_key) == 64


def test_whether_a_record_is_ours_is_told_without_decoding_it(tmp_path: Path) -> None:
    assert pipeline(tmp_path, event()).route(record()) is True
    assert pipeline(tmp_path, event()).route(record(value=None)) is False
    assert pipeline(tmp_path, event(), type_="shop.Cancelled").route(record()) is False
    wanted = SchemaWanted(7)
    assert pipeline(tmp_path, event(), type_=wanted).route(record()) is wanted
    unreadable = Undecodable("no-framing", "")
    assert pipeline(tmp_path, event(), type_=unreadable).route(record()) is True


def test_what_no_route_takes_is_not_ours(tmp_path: Path) -> None:
    assert isinstance(pipeline(tmp_path, event(total_minor=1)).project(record()), NotOurs)
    assert isinstance(pipeline(tmp_path, event("shop.Cancelled")).project(record()), NotOurs)
    assert isinstance(pipeline(tmp_path, event()).project(record(value=None)), NotOurs)


def test_the_first_fitting_route_wins(tmp_path: Path) -> None:
    text = f"""{HEAD}routes:
  - {{event: shop.Ordered, where: data.total_minor > 1000, action: note.put, body: {{title: large}}}}
  - {{event: shop.Ordered, where: data.total_minor > 10, action: note.put, body: {{title: middling}}}}
  - {{event: shop.Ordered, action: note.put, body: {{title: small}}}}
"""
    for total, title in ((5_000, "large"), (50, "middling"), (5, "small")):
        projection = pipeline(tmp_path, event(total_minor=total), text).project(record())
        assert isinstance(projection, ToDeliver)
        assert projection.delivery.body == {"title": title}


def test_a_schema_not_in_memory_is_wanted_and_undecodable_bytes_are_refused(tmp_path: Path) -> None:
    wanted = SchemaWanted(7)
    assert pipeline(tmp_path, wanted).project(record()) == Wanted(wanted)
    refused = pipeline(tmp_path, Undecodable("trailing", "3 bytes")).project(record())
    assert refused == Refused(Rejected("trailing", "3 bytes"), "undecodable", "shop.Ordered")
    unknown = pipeline(tmp_path, Undecodable("no-framing", ""), type_=Undecodable("no-framing", "")).project(record())
    assert isinstance(unknown, Refused)
    assert unknown.event_type == ""


@pytest.mark.parametrize(
    ("body", "data", "detail"),
    [
        ("{title: '{{ data.lines[5].sku }}'}", {}, "routes[0] body.title: missing"),
        ("{title: x, told: '{{ data.address.country }}'}", {}, "routes[0] body.told: null_or_wrong_type"),
        (
            "{title: x, amount: '{{ data.total_minor // (data.total_minor - 5) }}'}",
            {"total_minor": 5},
            "routes[0] body.amount: division_by_zero",
        ),
        ("{title: '{{ data.currency }}'}", {"currency": "x" * 70_000}, "routes[0] body.title: too_large"),
        ("{title: '{{ data.currency }}'}", {"currency": "SECRET" * 9}, "routes[0] body.title: string_too_long"),
        ("{title: '{{ data.currency }}'}", {"currency": "a!"}, "routes[0] body.title: string_pattern_mismatch"),
        ("{title: '{{ data.currency }}'}", {"currency": None}, "routes[0] body.title: string_type"),
        ("{title: x, weight: '{{ data.weight }}'}", {"weight": float("nan")}, "routes[0] body.weight: out_of_range"),
        ("{title: x, tags: '{{ data.tags }}'}", {"tags": ["x"] * 1_001}, "routes[0] body.tags: too_large"),
        ("{title: x, extra: {a: '{{ data.tags }}'}}", {"tags": ["x" * 70_000]}, "routes[0] body.extra: too_large"),
        ("{title: x}", {"order_id": ""}, "routes[0] entity: missing"),
        ("{title: x}", {"order_id": None}, "routes[0] entity: missing"),
        ("{title: x}", {"order_id": "x" * 1_025}, "routes[0] entity: too_large"),
    ],
)
def test_a_projection_that_fails_is_refused_with_code_and_place_and_no_value(
    tmp_path: Path, body: str, data: dict[str, Any], detail: str
) -> None:
    projection = pipeline(tmp_path, event(**data), route(body)).project(record())
    assert projection == Refused(Rejected("projection", detail), "rejected", "shop.Ordered")


def test_a_condition_that_fails_is_refused_too(tmp_path: Path) -> None:
    text = TEXT.replace("data.total_minor > 10", "data.address.country == 'DE'")
    projection = pipeline(tmp_path, event(), text).project(record())
    assert isinstance(projection, Refused)
    assert projection.rejected.detail == "routes[0] where: null_or_wrong_type"


@pytest.mark.parametrize(
    ("returns", "detail"),
    [
        ("1 / 0", "ZeroDivisionError at code.py:3"),
        ("event.data['email'].nothing", "KeyError at code.py:3"),
        ("deeper(event)", "RecursionError at code.py:5"),
        ("wrong()", "ValueError at code.py:7"),
        ("quit_now()", "SystemExit at code.py:10"),
        ("'text'", "projection: returned something else than Projected or None"),
        ("Projected(action='note.get', entity='x', body={})", "action: unknown"),
        ("Projected(action=None, entity='x', body={})", "projection: action and entity must be text"),
        ("Projected(action='note.put', entity=5, body={})", "projection: action and entity must be text"),
        ("Projected(action='note.put', entity='x', body=None)", "projection: the body must be a mapping with names"),
        ("Projected(action='note.put', entity='x', body={'title': object()})", "body.title: wrong_type"),
        (
            "Projected(action='note.put', entity='x', body={'tiltle': 'x'})",
            "body.title: missing, body.tiltle: extra_forbidden",
        ),
        ("Projected(action='note.put', entity='x', body={'title': 'x' * 70000})", "body.title: too_large"),
    ],
)
def test_any_exception_and_any_nonsense_of_a_python_projection_is_refused(
    tmp_path: Path, returns: str, detail: str
) -> None:
    source = f"""from consumers.subscription import Projected
def f(event):
    return {returns}
def deeper(event):
    return deeper(event)
def wrong():
    raise ValueError("SECRET")
def quit_now():
    import sys
    sys.exit(1)
"""
    (tmp_path / "code.py").write_text(source)
    text = f"{HEAD}routes: [{{event: shop.Ordered, projection: 'code.py:f'}}]\n"
    projection = pipeline(tmp_path, event(), text).project(record())
    assert projection == Refused(Rejected("projection", f"routes[0] {detail}"), "rejected", "shop.Ordered")


def test_none_of_a_python_projection_means_not_ours(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def f(event): return None")
    text = f"{HEAD}routes: [{{event: shop.Ordered, projection: 'code.py:f'}}]\n"
    assert isinstance(pipeline(tmp_path, event(), text).project(record()), NotOurs)


def test_the_key_is_the_same_in_every_attempt_and_another_for_another_subscription_or_action(tmp_path: Path) -> None:
    def key(name: str, text: str = TEXT) -> str:
        subscription, _ = checked(tmp_path, text, name=name)
        assert subscription is not None
        projection = Pipeline(subscription, Decoded(event(), "shop.Ordered")).project(record(offset=len(name)))
        assert isinstance(projection, ToDeliver)
        return projection.delivery.idempotency_key

    assert key("one") == key("one", TEXT.replace("> 10", "> 11"))
    assert len({key("one"), key("two"), key("one", route("{}").replace("note.put", "ping"))}) == 3


parts = st.text(st.characters(codec="utf-8"), max_size=4)


@given(st.tuples(parts, parts, parts), st.tuples(parts, parts, parts))
def test_different_identities_have_different_keys(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    def key(identity: tuple[str, str, str]) -> str:
        made = event(identity[1])
        made.source, made.id = identity[0], identity[2]
        return idempotency_key(made, "")

    assert (key(one) == key(other)) == (one == other)


@pytest.mark.parametrize("broken", [lambda: 1 / 0])
def test_nothing_of_the_pipeline_raises_when_a_body_model_does(tmp_path: Path, broken: Callable[[], Any]) -> None:
    made = pipeline(tmp_path, event())
    made._checks["note.put"] = lambda body: broken()
    projection = made.project(record())
    assert isinstance(projection, Refused)
    assert projection.rejected.detail == "routes[0] body: ZeroDivisionError"


def test_of_an_erased_person_nothing_is_projected_not_even_what_cannot_be_decoded(tmp_path: Path) -> None:
    key = b"an installation key"
    erased = Erased(key)
    subscription = loaded(tmp_path, TEXT)

    def project(said: Any, key_bytes: bytes | None = b"o-1") -> Any:
        one = replace(record(), key=key_bytes)
        return Pipeline(subscription, Decoded(said, "shop.Ordered"), erased).project(one)

    broken = Undecodable("truncated", "")
    assert isinstance(project(event()), ToDeliver)
    assert isinstance(project(broken), Refused)
    at = "2999-01-01T00:00:00.000+00:00"
    person = ErasedPerson(field="order_id", events=(), at=at, change="ch-1", key_id=key_id(key))
    erased.put(mark_of("order_id", "o-1", key), person)
    of_erased = project(event())
    assert isinstance(of_erased, OfErased)
    assert (of_erased.event_type, of_erased.event) == ("shop.Ordered", event())
    assert project(broken) == OfErased(None, "shop.Ordered")  # it is recognised by its key
    assert isinstance(project(broken, None), Refused)
    assert isinstance(project(broken, b"o-2"), Refused)
    assert isinstance(project(event(order_id="o-2")), ToDeliver)
