"""A model's payload for the encoder is what pydantic's dump says, only quicker."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_serializer

from producers.payload import payload
from schemas.contract import example, load_contracts
from tests.conftest import ROOT


class Part(BaseModel):
    word: str


class Whole(BaseModel):
    part: Part
    maybe: Part | None
    parts: list[Part]
    named: dict[str, list[Part]]
    anything: Any


class Renamed(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    class_: str = Field(alias="class")


class Written(BaseModel):
    size: int

    @field_serializer("size")
    def _text(self, size: int) -> str:
        return f"{size} kB"


class Outer(BaseModel):
    inner: list[Renamed]


PART = Part(word="a")


@pytest.mark.parametrize(
    "model",
    [
        PART,
        Whole(part=PART, maybe=None, parts=[PART, PART], named={"x": [PART]}, anything=[PART]),
        Renamed.model_validate({"class": "x"}),
        Written(size=3),
        Outer.model_validate({"inner": [{"class": "x"}]}),
    ],
    ids=lambda model: type(model).__name__,
)
def test_it_is_what_pydantic_dumps(model: BaseModel) -> None:
    assert payload(model) == model.model_dump()
    assert payload(model) == model.model_dump(), "the second time comes from the plan"


def test_the_companys_generated_models_give_their_examples_back() -> None:
    for contract in load_contracts(ROOT / "schemas" / "events").values():
        module = import_module(f"schemas.models.{contract.domain}")
        data = example(contract)
        model = getattr(module, contract.name.rpartition(".")[2]).model_validate(data)
        assert payload(model) == model.model_dump() == data
