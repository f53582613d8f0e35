"""Setting promises in the text of a contract's file, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.edit import with_promises
from schemas.errors import InputError
from tests.conftest import ROOT
from tests.schemas.arbitrary import json_values


def test_a_promise_that_stands_there_is_changed_in_its_place() -> None:
    text = '{"name": "A",\n "backbone": {"topic": "t", "status" : "live"},\n "fields": []}\n'
    assert with_promises(text, {"status": "deprecated"}) == text.replace("live", "deprecated")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": "1", "b": "2"}', '{"a": "1", "b": "2", "sunset": "x"}'),
        ('{"a":"1","b":"2"}', '{"a":"1","b":"2","sunset":"x"}'),
        ('{\n    "a": "1",\n    "b": "2"\n  }', '{\n    "a": "1",\n    "b": "2",\n    "sunset": "x"\n  }'),
        ('{\r\n\t"a": "1",\r\n\t"b": "2"}', '{\r\n\t"a": "1",\r\n\t"b": "2",\r\n\t"sunset": "x"}'),
        ('{"a": "1"}', '{"a": "1", "sunset": "x"}'),
        ("{}", '{"sunset": "x"}'),
    ],
)
def test_a_new_promise_is_laid_out_like_those_before_it(before: str, after: str) -> None:
    around = '{"doc": "{\\"backbone\\": 1}", "backbone": %s, "fields": [{"backbone": {}}]}'
    assert with_promises(around % before, {"sunset": "x"}) == around % after


@pytest.mark.parametrize("path", sorted((ROOT / "schemas" / "events").rglob("*.avsc")), ids=lambda path: path.stem)
def test_of_a_shipped_contract_only_its_promise_changes(path: Any) -> None:
    text = path.read_bytes().decode()
    wanted = {"status": "deprecated", "sunset": "2027-03-31", "replaced_by": "a.B"}
    after = with_promises(text, wanted)
    changed = json.loads(text)
    changed["backbone"] |= wanted
    assert json.loads(after) == changed
    assert list(json.loads(after)) == list(json.loads(text))
    assert with_promises(after, wanted) == after
    assert len(set(after.splitlines()) - set(text.splitlines())) <= 2


@given(
    st.dictionaries(st.text(max_size=8), json_values(), max_size=4),
    st.dictionaries(st.text(max_size=8), json_values(), max_size=4),
    st.dictionaries(st.sampled_from(["status", "sunset", "é\u2028"]), st.text(max_size=12), min_size=1),
    st.sampled_from([None, 1, 2, "\t"]),
    st.booleans(),
)
def test_whatever_the_file_holds_the_promises_are_set_and_the_rest_is_as_it_was(
    around: dict[str, Any], promise: dict[str, Any], wanted: dict[str, str], indent: Any, ascii_only: bool
) -> None:
    whole = {**around, "backbone": promise}
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
    expected = {**whole, "backbone": {**promise, **wanted}}
    assert json.loads(with_promises(text, wanted)) == expected
    assert json.loads(with_promises("\ufeff" + text, wanted).removeprefix("\ufeff")) == expected


@pytest.mark.parametrize("text", ["{}", "[]", "5", '{"backbone": 5}', '{"backbone": []}', '"backbone"'])
def test_a_text_without_promises_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="no 'backbone' object"):
        with_promises(text, {"status": "live"})
