"""What a redrive would overwrite: asked of a real ledger, filled with receipts as the runtime writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.changes.staleness import Verdict
from schemas.event import Record
from tests.conftest import Stack
from tests.ops.rows import Rows, new_rows

pytestmark = pytest.mark.integration


@pytest.fixture
def rows(tmp_path: Path, stack: Stack, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    monkeypatch.setenv("BACKBONE_PROJECT", str(tmp_path))
    with new_rows(tmp_path, stack, prefix) as made:
        yield made


def test_of_an_old_upsert_what_newer_deliveries_have_sent_since_is_left_out(rows: Rows) -> None:
    created = rows.record("billing.InvoiceCreated", 3, total_minor=100)
    rows.delivered(rows.record("billing.InvoicePaid", 2))  # older: what it sent is overwritten, as it always was
    rows.delivered(rows.record("billing.InvoicePaid", 9, invoice_id="INV-2"))
    assert rows.verdict(created) == Verdict("fresh")
    rows.delivered(rows.record("billing.InvoicePaid", 7))
    assert rows.verdict(created) == Verdict("stale", ("state",))
    rows.delivered(rows.record("billing.InvoiceCreated", 8, total_minor=200))
    assert rows.verdict(created) == Verdict("superseded", ("state", "total"))
    draft = rows.record("billing.InvoiceCreated", 3, total_minor=0)  # another table of the same entity
    assert rows.verdict(draft) == Verdict("fresh")
    other = rows.record("billing.InvoiceCreated", 0, partition=2, total_minor=100)
    assert rows.verdict(other) == Verdict("fresh")  # nothing was sent since it was set aside


def test_what_may_have_been_sent_counts_as_sent(rows: Rows) -> None:
    rows.delivered(rows.record("billing.InvoicePaid", 7), outcome="unknown")
    assert rows.verdict(rows.record("billing.InvoiceCreated", 3)).kind == "stale"


def test_what_the_map_refuses_or_does_not_take_any_more_is_told_apart(rows: Rows) -> None:
    assert rows.verdict(rows.record("billing.InvoiceCreated", 3, total_minor=13)).kind == "not_ours"
    undecodable = Record(rows.project.invoices, 1, 4, b"k", b"no bytes of ours", (), 1_777_000_000_000)
    assert rows.verdict(undecodable).kind == "refused"
