"""Every killer of decoders is refused by its rule or code: at the check, at registration, at the first use of a foreign
schema, and in decoding. Nothing of it reaches a decoder that could die."""

from __future__ import annotations

import json
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest

from schemas import avsc
from schemas.codec import Decoder, SchemaWanted, Undecodable
from schemas.event import Record
from schemas.lint import lint
from schemas.registry import open_registry
from tests.conftest import ROOT
from tests.ops.projects import make_project
from tests.schemas.killers import KILLERS, Killer, foreign_schema, own_event

GOOD: dict[str, Any] = json.loads((ROOT / "schemas" / "events" / "accounts" / "UserErased.avsc").read_text())
BY_SCHEMA = [killer for killer in KILLERS if killer.rule is not None]


@pytest.mark.parametrize("killer", BY_SCHEMA, ids=lambda killer: killer.name)
def test_the_check_refuses_it_in_an_event_of_ours(killer: Killer) -> None:
    assert killer.rule in {one.rule for one in lint(own_event(killer, GOOD)) if one.severity == "error"}


@pytest.mark.parametrize("killer", BY_SCHEMA, ids=lambda killer: killer.name)
def test_registration_refuses_it_before_anything_is_asked(tmp_path: Path, prefix: str, killer: Killer) -> None:
    project = make_project(tmp_path, prefix)
    file = tmp_path / "schemas" / "events" / "accounts" / "UserErased.avsc"
    file.write_text(json.dumps(own_event(killer, json.loads(file.read_text()))))
    result = project.run("schema", "register", "accounts.UserErased", "--apply", "--yes")
    assert result.exit_code in (2, 3, 6), result.output
    assert "UserErased" in result.stderr
    found = project.document("schema", "check", str(file), code=3)["data"]
    assert killer.rule in {row["rule"] for row in found}


@pytest.mark.parametrize("killer", KILLERS, ids=lambda killer: killer.name)
def test_a_foreign_schema_is_refused_where_the_schema_is_the_danger(killer: Killer) -> None:
    found = {one.rule for one in avsc.undecodable(foreign_schema(killer, "foreign.Strange"))}
    assert found == ({killer.rule} if killer.rule and killer.is_foreign_refused else set())


@pytest.mark.parametrize("killer", KILLERS, ids=lambda killer: killer.name)
def test_a_foreign_record_of_it_is_undecodable_with_its_code(killer: Killer) -> None:
    text = json.dumps(foreign_schema(killer, "foreign.Strange"))

    class Careless:
        """A registry that took it, as real ones do."""

        def schema(self, id: int) -> str:
            return text

    decoder = Decoder(Careless())  # type: ignore[arg-type]
    decoder.load(SchemaWanted(1))
    answer = decoder.decode(Record("t", 0, 0, None, b"\0" + struct.pack(">I", 1) + killer.body, (), 0))
    assert isinstance(answer, Undecodable)
    assert answer.code == killer.code
    if killer.code == "schema-refused":
        assert killer.rule is not None
        assert killer.rule in answer.detail


def test_our_own_registries_take_it_as_others_do_so_that_the_decoder_is_what_protects() -> None:
    registry = open_registry(f"memory://{uuid.uuid4()}")
    killer = next(killer for killer in KILLERS if killer.name == "a decimal of a mebibyte on bytes")
    assert registry.register("any", json.dumps(foreign_schema(killer, "foreign.Strange"))).id
