"""Files of subscriptions: what is loaded, and everything that is refused, with line, place and what to do."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.subscription import SubscriptionError, load_subscription, load_text
from schemas.findings import Finding
from tests.consumers.shop import CONNECTIONS, CONTRACTS, HEAD, THREE_VERSIONS, checked, event, loaded, route

GOOD = f"""{HEAD}personal_data: {{purpose: To test., allow: [email]}}
policies: {{slo: 2m, retry: {{attempts: 3, within: 1m}}, on_unknown: hold}}
routes:
  - event: shop.Ordered
    where: data.total_minor > 100
    action: note.put
    entity: "order/{{{{ data.order_id }}}}"
    body:
      title: "{{{{ data.email | lower }}}}"
      stage: new
      amount: "{{{{ data.total_minor }}}}"
      told: "{{{{ data.at }}}}"
      when: "{{{{ data.at }}}}"
      tags: ["{{{{ data.currency }}}}", "{{{{ data.coupon | optional }}}}"]
      extra: {{coupon: "{{{{ data.coupon | optional }}}}", paid: "{{{{ data.paid }}}}"}}
  - event: shop.Cancelled
    action: note.put
    body: {{title: "{{{{ data.reason }}}}"}}
"""


def test_a_good_file_is_loaded_with_its_policies_and_compiled_routes(tmp_path: Path) -> None:
    subscription = loaded(tmp_path, GOOD)
    assert subscription.name == "notes-test"
    assert set(subscription.routes) == {"shop.Cancelled", "shop.Ordered"}
    assert subscription.topics == ("shop.things",)
    assert subscription.dead_topic == "notes-test.dead"
    assert subscription.policies.slo == timedelta(minutes=2)
    assert subscription.policies.retry.attempts == 3
    assert subscription.policies.on_unknown == "hold"
    assert subscription.policy_sources["slo"] == "this file"
    (ordered,) = subscription.routes["shop.Ordered"]
    assert ordered.fits is not None
    assert ordered.fits(event())
    assert not ordered.fits(event(total_minor=1))
    projected = ordered.project(event())
    assert projected is not None
    assert projected.entity == "order/o-1"
    assert projected.body == {
        "title": "ana@x.org",
        "stage": "new",
        "amount": 1250,
        "told": "2026-05-01T12:00:00Z",
        "when": event().data["at"],
        "tags": ["EUR"],
        "extra": {"paid": True},
    }
    assert ordered.fields_read == {"total_minor", "order_id", "email", "at", "currency", "coupon", "paid"}
    assert ordered.carried == {"body.title": frozenset({"email"})}
    (cancelled,) = subscription.routes["shop.Cancelled"]
    made = cancelled.project(event("shop.Cancelled", reason="late"))
    assert made is not None
    assert made.entity == "o-1"


def finding(findings: list[Finding]) -> Finding:
    errors = [one for one in findings if one.severity == "error"]
    assert errors, findings
    return errors[0]


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def tests(text: str) -> str:
    return f"{GOOD}tests: [{text}]"


tests.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "path", "line", "words"),
    [
        (edited("owner:", "ownr:"), "ownr", 2, "Did you mean 'owner'"),
        (edited("owner: team-a\n", ""), "", 1, "'owner' is missing"),
        (edited("connection: notes", "connection: note"), "connection", 3, "Did you mean 'notes'"),
        (edited("allow: [email]", "allow: [mail]"), "personal_data.allow[0]", 4, "Did you mean 'email'"),
        (edited("allow: [email]", "alow: [email]"), "personal_data.alow", 4, "Did you mean 'allow'"),
        (edited("slo: 2m", "slo: 2 minutes"), "policies.slo", 5, "whole number with a unit"),
        (edited("slo: 2m", "slo: 0s"), "policies.slo", 5, "more than nothing"),
        (edited("attempts: 3", "attempts: 0"), "policies.retry.attempts", 5, "at least 1"),
        (edited("attempts: 3", "attempts: three"), "policies.retry.attempts", 5, "whole number"),
        (edited("slo: 2m", "send: newest"), "policies.send", 5, "one of"),
        (edited("slo: 2m", "expire_after: soon"), "policies.expire_after", 5, "whole number with a unit"),
        (edited("slo: 2m", "on_dead_letter: park"), "policies.on_dead_letter", 5, "one of"),
        (edited("slo: 2m", "weight: 0"), "policies.weight", 5, "at least 1"),
        (edited("slo: 2m", "weight: 101"), "policies.weight", 5, "at most 100"),
        (edited("on_unknown: hold", "on_unknown: look_up"), "policies.on_unknown", 5, "cannot look up"),
        (edited("on_unknown: hold", "on_unknown: drop"), "policies.on_unknown", 5, "one of"),
        (edited("event: shop.Ordered", "event: shop.Orderd"), "routes[0].event", 7, "Did you mean 'shop.Ordered"),
        (edited("event: shop.Ordered", "event: Ordered"), "routes[0].event", 7, "Did you mean 'shop.Ordered'"),
        (edited("event: shop.Ordered", "event: shp.*"), "routes[0].event", 7, "Did you mean 'shop.*'"),
        (edited("event: shop.Ordered", "event: backbone.*"), "routes[0].event", 7, "one by one"),
        (edited("event: shop.Ordered", "event: 'shop.Or*'"), "routes[0].event", 7, "alone behind a domain"),
        (edited("event: shop.Ordered", "event: [shop.Ordered, shop.Ordered]"), "routes[0].event[1]", 7, "twice"),
        (edited("data.total_minor > 100", "data.total > 100"), "routes[0].where", 8, "data.total_minor"),
        (edited("data.total_minor > 100", '"{{ data.paid }}"'), "routes[0].where", 8, "leave the braces out"),
        (edited("data.total_minor > 100", "data.order_id"), "routes[0].where", 8, "true or false"),
        (edited("where:", "were:"), "routes[0].were", 8, "Did you mean 'where'"),
        (edited("action: note.put", "action: note.putt"), "routes[0].action", 9, "Did you mean 'note.put'"),
        (edited("    action: note.put\n", ""), "routes[0]", 7, "needs an action"),
        (edited("      title:", "      titel:"), "routes[0].body.titel", 12, "Did you mean 'title'"),
        (edited("| lower", "| lowr"), "routes[0].body.title", 12, "Did you mean 'lower'"),
        (edited("stage: new", "stage: newish"), "routes[0].body.stage", 13, "should be 'new' or 'done'"),
        (edited("stage: new", "stage: 5"), "routes[0].body.stage", 13, "should be"),
        (edited('"{{ data.total_minor }}"', '"{{ data.order_id }}"'), "routes[0].body.amount", 14, "a whole number is"),
        (edited('"{{ data.total_minor }}"', '"x{{ data.order_id }}"'), "routes[0].body.amount", 14, "gives text"),
        (edited("stage: new", "count: null"), "routes[0].body.count", 13, "valid integer"),
        (edited("stage: new", 'urgent: "{{ data.weight }}"'), "routes[0].body.urgent", 13, "true or false is wanted"),
        (edited("allow: [email]", "allow: [name]"), "routes[0].body.title", 12, "personal data of the class email"),
        (
            edited('"{{ data.reason }}"', '"{{ data.reason | optional }}"'),
            "routes[1].body.title",
            21,
            "cannot be left out",
        ),
        (edited('title: "{{ data.reason }}"', "stage: new"), "routes[1].body", 21, "needs 'title'"),
        (edited("order/{{ data.order_id }}", "{{ data.coupon }}"), "routes[0].entity", 10, "can be null"),
        (edited("order/{{ data.order_id }}", "{{ data.tags }}"), "routes[0].entity", 10, "text or a number"),
        (edited("order/{{ data.order_id }}", "{{ data.nope }}"), "routes[0].entity", 10, "no field 'nope'"),
        (
            edited("event: shop.Cancelled", "event: shop.Ordered\n    where: 'data.total_minor  > 100'"),
            "routes[1]",
            19,
            "No event ever comes here",
        ),
        (
            edited("    where: data.total_minor > 100\n", "").replace("shop.Cancelled", "shop.Ordered"),
            "routes[1]",
            18,
            "No event ever comes here",
        ),
        (
            edited("event: shop.Cancelled", "event: shop.OrderedV2").replace("data.reason", "data.order_id"),
            "routes",
            6,
            "which replaces it",
        ),
        (tests("{name: t, given: [{event: shop.Orderd}], expect: []}"), "tests[0].given[0].event", 22, "shop.Ordered"),
        (
            tests("{name: t, given: [{event: shop.Ordered, data: {totl: 1}}], expect: []}"),
            "tests[0].given[0].data.totl",
            22,
            "no field 'totl'",
        ),
        (
            tests("{name: t, given: [{event: shop.Ordered}], vendor: [tiemout], expect: []}"),
            "tests[0].vendor[0]",
            22,
            "Did you mean 'timeout'",
        ),
        (
            tests("{name: t, given: [{event: shop.Ordered}], expect: [{action: note.get}]}"),
            "tests[0].expect[0].action",
            22,
            "note.put",
        ),
        (tests("{name: t, given: [], expect: []}"), "tests[0].given", 22, "empty"),
    ],
)
def test_what_is_wrong_is_named_with_line_place_and_what_to_do(
    tmp_path: Path, text: str, path: str, line: int, words: str
) -> None:
    subscription, findings = checked(tmp_path, text)
    assert subscription is None
    first = finding(findings)
    assert (first.path, first.line) == (path, line), [str(one) for one in findings]
    assert words in first.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ledger", "reserved"),
        ("run", "reserved"),
        ("Crm", "lower-case"),
        ("crm_contacts", "lower-case"),
        ("crm--x", "lower-case"),
        ("a" * 101, "lower-case"),
    ],
)
def test_names_that_cannot_be_groups_are_refused(tmp_path: Path, name: str, words: str) -> None:
    _, findings = checked(tmp_path, GOOD, name=name)
    assert words in finding(findings).message


def test_files_that_are_not_there_or_no_yaml_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text(GOOD)
    with pytest.raises(SubscriptionError, match=r"no such file.*notes\.yaml"):
        load_subscription(tmp_path / "note.yaml", contracts=CONTRACTS, connections=CONNECTIONS)
    with pytest.raises(SubscriptionError, match=r"ends in \.yaml"):
        load_subscription(tmp_path / "notes.yml", contracts=CONTRACTS, connections=CONNECTIONS)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(SubscriptionError, match="cannot be read"):
        load_subscription(tmp_path / "folder.yaml", contracts=CONTRACTS, connections=CONNECTIONS)
    for text, words in (("", "empty"), ("# only\n", "empty"), ("- a\n", "not a subscription"), ("text", "not a")):
        assert words in finding(checked(tmp_path, text)[1]).message


def test_the_error_holds_every_finding_and_no_input_value() -> None:
    text = route("{title: '{{ data.nope }}', stage: SECRET-VALUE-4711}")
    with pytest.raises(SubscriptionError) as refused:
        load_text("notes-test", text, contracts=CONTRACTS, connections=CONNECTIONS, folder=Path())
    assert refused.value.exit_code == 2
    assert len(refused.value.findings) == 2
    assert "SECRET-VALUE" not in str(refused.value.findings)


def test_personal_data_is_denied_by_default_wherever_it_travels(tmp_path: Path) -> None:
    for body in (
        "{title: '{{ data.email }}'}",
        "{title: 'Hello {{ data.email | hash }}'}",
        "{title: \"{{ 'a' if data.nick else 'b' }}\"}",
        "{title: x, extra: {deep: ['{{ data.address.city | default(1) }}']}}",
        "{title: x, extra: '{{ data }}'}",
        "{title: x, extra: '{{ data.lines[0] }}'}",
        "{title: x, told: '{{ data | json }}'}",
    ):
        found = finding(checked(tmp_path, route(body))[1])
        assert found.rule == "personal-data", body
        assert "does not allow" in found.message
    keyed = route("{title: x}", "shop.Mailed")
    assert finding(checked(tmp_path, keyed)[1]).path == "routes[0].entity"
    keyed = keyed.replace("    body", "    entity: '{{ event.key }}'\n    body")
    assert finding(checked(tmp_path, keyed)[1]).path == "routes[0].entity"
    loaded(tmp_path, route("{title: x, extra: '{{ data | allowed }}'}"))
    loaded(tmp_path, route("{title: '{{ data.email }}'}", more="personal_data: {purpose: x, allow: [email]}\n"))
    loaded(tmp_path, route("{title: x}", more="").replace("    action", "    where: data.email == 'a'\n    action"))


def test_wildcards_stand_for_the_events_known_or_frozen_and_never_for_the_backbones(tmp_path: Path) -> None:
    text = route("{title: '{{ data.order_id }}'}", "['*']").replace("'*'", "'depot.*', shop.Cancelled")
    assert set(loaded(tmp_path, text).routes) == {"depot.Moved", "shop.Cancelled"}
    frozen = loaded(tmp_path, text, events=["shop.Cancelled"])
    assert set(frozen.routes) == {"shop.Cancelled"}
    wide = route("{title: '{{ event.name }}', extra: '{{ data | allowed }}'}", "'*'")
    _, findings = checked(tmp_path, wide)
    assert finding(findings).rule in ("replaced", "personal-data")


def test_the_backbones_own_events_are_read_by_their_full_names(tmp_path: Path) -> None:
    text = route("{title: '{{ event.name }}'}", "backbone.ChangeApplied")
    assert set(loaded(tmp_path, text).routes) == {"backbone.ChangeApplied"}


def test_a_subscription_that_reads_nothing_any_more_is_refused(tmp_path: Path) -> None:
    _, findings = checked(tmp_path, route("{title: '{{ event.id }}'}", "'shop.*'"), events=["shop.Gone"])
    assert "reads no event" in finding(findings).message


def test_a_finding_of_some_events_of_a_route_names_them(tmp_path: Path) -> None:
    text = route("{title: '{{ data.reason }}'}", "[shop.Cancelled, depot.Moved]")
    found = finding(checked(tmp_path, text)[1])
    assert found.message.startswith("depot.Moved: ")


def test_an_entity_fed_from_two_topics_is_a_warning(tmp_path: Path) -> None:
    text = route("{title: x}", "[shop.Cancelled, depot.Moved]").replace(
        "    body", "    entity: '{{ data.order_id }}'\n    body"
    )
    subscription, findings = checked(tmp_path, text)
    assert subscription is not None
    assert [(one.severity, one.rule) for one in findings] == [("warning", "order")]
    assert "depot.things (by box_id) and shop.things (by order_id)" in findings[0].message
    for harmless in (text.replace("data.order_id", "event.id"), text.replace("note.put", "ping")):
        assert checked(tmp_path, harmless)[1] == []


def test_a_condition_frees_the_body_from_null(tmp_path: Path) -> None:
    text = route("{title: '{{ data.coupon | upper }}'}")
    assert "can be null" in finding(checked(tmp_path, text)[1]).message
    loaded(tmp_path, text.replace("    action", "    where: data.coupon is not none\n    action"))


def test_the_version_counts_what_it_does_not_what_is_said_about_it(tmp_path: Path) -> None:
    version = loaded(tmp_path, GOOD).version
    assert len(version) == 6
    same = GOOD.replace("A test.", "Other words.").replace("team-a", "team-b") + "# comment\ntests: []\n"
    assert loaded(tmp_path, same).version == version
    assert loaded(tmp_path, GOOD.replace("> 100", "> 101")).version != version
    assert loaded(tmp_path, GOOD.replace("slo: 2m", "slo: 3m")).version != version


PYTHON = f"{HEAD}routes: [{{event: shop.Ordered, projection: 'code.py:f'}}]\n"
IMPORTS = "from consumers.subscription import Projected\n"


def python(folder: Path, source: str, text: str = PYTHON, **more: Any) -> Any:
    (folder / "code.py").write_text(source)
    return checked(folder, text, **more)


def test_a_python_projection_is_loaded_from_beside_the_file_and_counts_in_the_version(tmp_path: Path) -> None:
    source = f"{IMPORTS}def f(event):\n    return Projected(action='note.put', entity='x', body={{'title': 't'}})\n"
    first, _ = python(tmp_path, source)
    assert first.routes["shop.Ordered"][0].project(event()).entity == "x"
    second, _ = python(tmp_path, source + "# changed\n")
    assert first.version != second.version
    assert set(first.projection_hashes) == {"code.py"}
    wanted = {"code.py": first.projection_hashes["code.py"]}
    with pytest.raises(SubscriptionError, match="not the file that was attached"):
        load_text(
            "notes-test", PYTHON, contracts=CONTRACTS, connections=CONNECTIONS, folder=tmp_path, projections=wanted
        )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def ff(event): ...", "Did you mean 'ff'"),
        ("f = 3", "no function 'f'"),
        ("def f(): ...", "one argument"),
        ("def f(a, b): ...", "one argument"),
        ("async def f(event): ...", "plain function"),
        ("def f(event): yield 1", "plain function"),
        ("def f(event:", "not Python: line 1"),
        ("x = 1\nraise ValueError('SECRET')", "cannot be executed: ValueError in line 2"),
        ("import sys\nsys.exit(0)", "cannot be executed: SystemExit in line 2"),
        ("import nowhere_to_be_found", "ModuleNotFoundError in line 1"),
        ("\x00", "not Python"),
    ],
)
def test_what_is_wrong_with_a_projection_file_is_a_finding(tmp_path: Path, source: str, words: str) -> None:
    found = finding(python(tmp_path, source)[1])
    assert words in found.message
    assert found.path == "routes[0].projection"
    assert "SECRET" not in found.message


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("code.py", "file.py:function"),
        ("../code.py:f", "file.py:function"),
        ("/etc/passwd:f", "file.py:function"),
        ("cod.py:f", "Did you mean 'code.py'"),
        ("link.py:f", "leads out of the folder"),
    ],
)
def test_projections_stand_beside_the_file_and_nowhere_else(tmp_path: Path, reference: str, words: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside.py").write_text("def f(event): ...")
    (folder / "link.py").symlink_to(tmp_path / "outside.py")
    found = finding(python(folder, "def f(event): ...", PYTHON.replace("code.py:f", reference))[1])
    assert words in found.message


def test_a_route_has_a_projection_or_an_action_not_both(tmp_path: Path) -> None:
    text = PYTHON.replace("projection:", "action: note.put, projection:")
    assert "in place of 'action'" in finding(python(tmp_path, "def f(event): ...", text)[1]).message


def test_a_python_projection_sees_only_what_may_leave(tmp_path: Path) -> None:
    source = (
        f"{IMPORTS}def f(event):\n    return Projected(action='ping', entity='x', body={{'all': dict(event.data)}})\n"
    )
    allowed = PYTHON.replace("routes:", "personal_data: {purpose: x, allow: [name]}\nroutes:")
    subscription, _ = python(tmp_path, source, allowed)
    seen = subscription.routes["shop.Ordered"][0].project(event(nick="Ana", unknown=1)).body["all"]
    assert seen["nick"] == "Ana"
    assert seen["at"] == event().data["at"]
    assert seen["lines"] == [{"sku": "S1"}, {"sku": "S2"}]
    assert not {"email", "unknown"} & seen.keys()


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=10),
        st.sampled_from(["shop.Ordered", "note.put", "{{ data.email }}", "{{ x", "shop.*", "code.py:f", "5m"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
KEYS = ["description", "owner", "connection", "personal_data", "policies", "routes", "tests", "extra"]
ROUTE_KEYS = ["event", "where", "action", "entity", "body", "projection", "extra"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
    st.dictionaries(st.sampled_from(ROUTE_KEYS), values, max_size=3),
    st.integers(0, 2_000),
)
def test_no_file_however_broken_gives_a_traceback_or_takes_long(
    tmp_path: Path, top: dict[str, Any], inside: dict[str, Any], cut: int
) -> None:
    began = time.process_time()
    document = yaml.safe_load(GOOD)
    document["routes"][0].update(inside)
    document.update(top)
    text = yaml.safe_dump(document, allow_unicode=True)
    for written in (text, GOOD[: cut % len(GOOD)] + GOOD[cut % len(GOOD) + 1 :]):
        subscription, findings = checked(tmp_path, written)
        assert subscription is not None or findings
        for one in findings:
            assert str(one)
    assert time.process_time() - began < 2


def test_a_wildcard_reads_one_of_an_event_and_its_successor(tmp_path: Path) -> None:
    """The day a second version was added, every subscription with a wildcard could not be loaded any more."""
    text = """description: A test.
owner: team-a
connection: notes
routes:
  - event: "shop.*"
    action: note.put
    entity: "{{ event.id }}"
    body: {title: "{{ event.id }}"}
"""
    subscription, findings = checked(tmp_path, text)
    assert subscription is not None
    assert "shop.Ordered" in subscription.routes
    assert "shop.OrderedV2" not in subscription.routes
    assert [(one.rule, one.severity) for one in findings if "OrderedV2" in one.message] == [
        ("successor-left-out", "warning")
    ]
    moved = text.replace("routes:\n", "routes:\n  - {event: shop.OrderedV2, action: note.put, body: {title: x}}\n")
    subscription, findings = checked(tmp_path, moved)
    assert subscription is not None, findings
    assert "shop.OrderedV2" in subscription.routes
    assert "shop.Ordered" not in subscription.routes
    assert findings == []


@pytest.mark.parametrize(
    ("named", "read", "left_out"),
    [
        ((), "shop.Ordered", ["shop.OrderedV2", "shop.OrderedV3"]),
        (("shop.OrderedV2",), "shop.OrderedV2", ["shop.OrderedV3"]),
        (("shop.OrderedV3",), "shop.OrderedV3", ["shop.OrderedV2"]),
    ],
)
def test_a_wildcard_reads_one_of_three_versions(
    tmp_path: Path, named: tuple[str, ...], read: str, left_out: list[str]
) -> None:
    """With the third left out of the loop the second was, and the third was read beside the first; and one that named
    the third read the first as well: every order came twice."""
    routes = "".join(f"  - {{event: {one}, action: note.put, body: {{title: x}}}}\n" for one in named)
    text = f"""description: A test.
owner: team-a
connection: notes
routes:
{routes}  - event: "shop.*"
    action: note.put
    entity: "{{{{ event.id }}}}"
    body: {{title: "{{{{ event.id }}}}"}}
"""
    subscription, findings = checked(tmp_path, text, contracts=THREE_VERSIONS)
    assert subscription is not None, findings
    assert [name for name in subscription.routes if name.startswith("shop.Ordered")] == [read]
    assert [one.message.split()[0] for one in findings if one.rule == "successor-left-out"] == left_out
    assert {one.severity for one in findings} <= {"warning"}


def test_the_first_and_the_third_version_are_not_read_both(tmp_path: Path) -> None:
    text = """description: A test.
owner: team-a
connection: notes
routes:
  - {event: [shop.Ordered, shop.OrderedV3], action: note.put, entity: "{{ event.id }}", body: {title: x}}
"""
    subscription, findings = checked(tmp_path, text, contracts=THREE_VERSIONS)
    assert subscription is None
    assert "Both shop.Ordered and shop.OrderedV3, which replaces it, are read" in findings[0].message
