"""A person is erased: vendors delete what they got, replays skip the person, and what cannot be done is said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.changes import erase
from schemas.errors import UnreachableError
from tests.conftest import Stack
from tests.scenarios.privacy import Company, company
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def shop(tmp_path: Path, stack: Stack, prefix: str) -> Iterator[Company]:
    with company(tmp_path, stack, prefix) as made:
        made.backbone("schema", "register", "--apply", "--yes")
        yield made


def attach(shop: Company, *short: str, start: str = "earliest") -> list[str]:
    names = [shop.names[one] for one in short]
    for name in names:
        shop.backbone("subscription", "attach", name, "--from", start, "--apply", "--yes")
    return names


def rows(shop: Company) -> list[str]:
    if not shop.warehouse.exists():
        return []
    with sqlite3.connect(shop.warehouse) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'people'").fetchall():
            return []
        return [one for (one,) in database.execute("SELECT person_id FROM people ORDER BY 1")]


def texts(shop: Company) -> list[str]:
    return [one["text"] for one in shop.chat.report()["messages"] if one["text"] is not None]


def people(shop: Company) -> list[str]:
    return sorted(shop.vendor.report()["contacts"])


def test_vendors_erase_what_they_got_and_nobody_sends_it_again(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    names = attach(shop, "crm", "chat", "store")
    shop.start_worker(*names, "ledger")
    one, two = shop.person(1), shop.person(2)
    shop.send(one, {**one, "number": 2}, two)
    eventually(lambda: len(texts(shop)) == 3 and len(people(shop)) == 2 and len(rows(shop)) == 2, 60)
    question = f"person_id={one['person_id']}"

    def received() -> list[dict[str, Any]]:
        return shop.said("catalog", "personal-data", "--of", question)

    eventually(lambda: len(received()) == 4, 60, about="two messages, a contact and a row in the ledger")
    (contact,) = [row for row in received() if row["connection"] == "hubspot"]
    assert (contact["count"], contact["region"], contact["sub_processor"]) == (2, "EU", "HubSpot Ireland Ltd")
    assert contact["personal_data"] == ["address", "email"]

    plan = shop.said("erase", question)
    assert one["person_id"] not in plan["title"]
    asked = {(row["vendor"], row["asked"]) for row in plan["rows"]}
    assert asked == {("hubspot", "contact.erase"), ("slack", "message.delete"), ("warehouse", "row.delete")}
    assert [row["entity"] for row in plan["rows"] if row["vendor"] == "warehouse"] == ["‹hashed›"]
    shop.backbone("apply", plan["id"], code=6)  # severe: not without --confirm
    assert len(people(shop)) == 2
    done = shop.said("apply", plan["id"], "--confirm", plan["subject"])["after"]
    assert (done["erased"], done["failed"], done["waiting"], done["by_hand"]) == (4, 0, 0, [])
    assert people(shop) == rows(shop) == [two["person_id"]]
    assert len(texts(shop)) == 1
    assert shop.vendor.report()["erased"] == 1

    receipts = shop.said("receipt", "list", "--change", plan["id"])
    assert {(one["action"], one["outcome"], one["change_kind"]) for one in receipts} == {
        (action, "delivered", "erase") for action in ("contact.erase", "message.delete", "row.delete")
    }
    assert {row["erased_at"] is not None for row in received()} == {True}
    again = shop.said("erase", question)
    assert {row["asked"] for row in again["rows"]} == {"erased already"}
    assert again["after"]["asked"] == 0
    # read again from the beginning: nobody comes back
    shop.backbone("rewind", names[0], "--to", "earliest", "--apply", "--yes")
    eventually(lambda: shop.said("receipt", "list", "--subscription", names[0], "--cause", "erased"), 60)
    assert people(shop) == [two["person_id"]]
    shop.send({**one, "number": 3})  # the person came back
    eventually(lambda: len(people(shop)) == 2, 60)

    # another person; a vendor that nobody asks any more; and a cut when all is written and nothing is noted
    shop.backbone("subscription", "detach", names[1], "--apply", "--yes", "--confirm", names[1])
    plan = shop.said("erase", f"person_id={two['person_id']}")
    by_hand = {row["vendor"]: row["asked"] for row in plan["rows"] if "by hand" in row["asked"]}
    assert by_hand == {"slack": "by hand: the subscription is not attached, so nobody would ask"}
    shop.vendor.misbehave({"kind": "status", "status": 400})
    with monkeypatch.context() as patch:
        patch.setattr(erase, "send_acked", cut_after(erase.send_acked))
        shop.backbone("apply", plan["id"], "--confirm", plan["subject"], code=7)
    done = shop.said("apply", plan["id"], "--confirm", plan["subject"], code=7)["after"]
    assert (done["erased"], done["failed"], done["waiting"]) == (1, 1, 0)
    assert [one["connection"] for one in done["by_hand"]] == ["slack"]
    assert "must be erased by hand: slack (message.post)" in shop.told[-1]
    assert f"1 erasure failed and is a dead letter of {names[0]}" in shop.told[-1]
    assert len(shop.said("receipt", "list", "--change", plan["id"])) == 2  # the cut asked for nothing twice
    again = shop.said("deadletter", "redrive", names[0], "--all", "--apply", "--yes")["after"]
    assert (again["sent"], again["closed"]) == (1, 1)
    assert shop.vendor.report()["erased"] == 2
    shop.backbone("undo", plan["id"], "--yes", code=6)


def cut_after(send: Any) -> Any:
    """Everything is written and acknowledged, and then the process is gone."""

    def cut(app: Any, records: Any) -> int:
        send(app, records)
        raise UnreachableError("The process was cut.")

    return cut


def test_what_cannot_be_erased_is_refused_with_what_to_do(shop: Company) -> None:
    # which of the two depends on whether other tests have left receipts in this cluster
    told = backbone_error(shop, "erase", "person_id=u-secret")
    assert "no worker has written to it yet" in told or "Does a worker run with it?" in told
    assert "FIELD=VALUE" in refusal(shop, "erase", "u-secret", code=2)
    assert "Did you mean 'person_id'?" in refusal(shop, "erase", "person=u-secret", code=5)
    assert "lies inside another field" in refusal(shop, "erase", "home.street=u-secret", code=2)
    file = shop.folder / "backbone.toml"
    file.write_text(file.read_text().replace('connections = "fake"', "", 1))
    assert "needs installation_key" in refusal(shop, "erase", "person_id=u-secret", code=2)
    assert not [text for text in shop.told if "u-secret" in text]


def backbone_error(shop: Company, *words: str) -> str:
    """The sentence of a command that ends with 6 or 8."""
    result = shop.invoke(*words)
    assert result.exit_code in (6, 8), result.output
    return result.stderr


def refusal(shop: Company, *words: str, code: int) -> str:
    shop.backbone(*words, code=code)
    return shop.told[-1]
