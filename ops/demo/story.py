"""A seeded business story: people sign up, upgrade, change their address; accounts are invoiced and pay. Pure.

Beside the events it says what every vendor must hold in the end, worked out from the events alone, so that the demo
can compare the vendors' own counts with it.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from schemas.models.accounts import UserEmailChanged, UserSignedUp, UserUpgraded
from schemas.models.billing import InvoiceCreated, InvoiceLine, InvoicePaid, InvoiceVoided

BusinessEvent: TypeAlias = UserSignedUp | UserUpgraded | UserEmailChanged | InvoiceCreated | InvoicePaid | InvoiceVoided

PLANS = ("starter", "team", "business", "enterprise")
LARGE_MINOR = 1_000_000
_FIRST = ("Ana", "Ben", "Chioma", "Dmitri", "Elif", "Farid", "Grace", "Hana", "Ivo", "Júlia", "Kofi", "Lena")
_LAST = ("Moreno", "Okafor", "Novak", "Yilmaz", "Haddad", "Lindqvist", "Tanaka", "Silva", "Weber", "Rossi")
_DAY_ONE = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)


@dataclass(slots=True)
class _User:
    user_id: str
    email: str
    plan: str
    moves: int = 0


@dataclass(slots=True)
class Story:
    """The events in the order they happen, with what must come of them."""

    events: list[BusinessEvent] = field(default_factory=list)
    contacts: dict[str, dict[str, str]] = field(default_factory=dict)
    """per user what HubSpot must hold: only the properties the story decides"""
    rows: Counter[str] = field(default_factory=Counter)
    """rows per warehouse table"""
    upgrades: int = 0
    large_invoices: int = 0
    invoices: int = 0

    @property
    def alerts(self) -> int:
        """Messages that billing-alerts must post."""
        return self.upgrades + self.large_invoices


def tell(seed: int, length: int) -> Story:
    """The story of that seed, exactly ``length`` events long; the same seed tells the same story."""
    chance = random.Random(seed)
    story = Story()
    users: list[_User] = []
    open_invoices: list[InvoiceCreated] = []
    now = _DAY_ONE
    while len(story.events) < length:
        now += timedelta(seconds=chance.randint(1, 600))
        draw = chance.random()
        if draw < 0.3 or len(users) < 20:
            users.append(_sign_up(story, chance, len(users) + 1, now))
        elif draw < 0.45:
            _upgrade(story, chance, chance.choice(users), now)
        elif draw < 0.55:
            _change_email(story, chance.choice(users), now)
        elif draw < 0.85 or not open_invoices:
            open_invoices.append(_invoice(story, chance, chance.choice(users), now))
        else:
            _close_invoice(story, chance, open_invoices.pop(chance.randrange(len(open_invoices))), now)
    return story


def _sign_up(story: Story, chance: random.Random, number: int, now: datetime) -> _User:
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    staff = chance.random() < 0.04
    user = _User(f"u-{number:04d}", f"{first}.{last}.{number}@Example.org", "internal" if staff else "starter")
    story.events.append(
        UserSignedUp(
            user_id=user.user_id,
            email=user.email,
            name=f"{first} {last}" if chance.random() < 0.8 else None,
            plan=user.plan,
            country=chance.choice(("DE", "ES", "US", "BR", "JP")),
            signed_up_at=now,
        )
    )
    story.rows["user_signed_up"] += 1
    if not staff:  # crm-contacts leaves our own staff out
        story.contacts[user.user_id] = {"email": user.email.lower()}
    return user


def _upgrade(story: Story, chance: random.Random, user: _User, now: datetime) -> None:
    if user.plan not in PLANS[:-1]:
        return
    to_plan = PLANS[PLANS.index(user.plan) + 1]
    story.events.append(
        UserUpgraded(
            user_id=user.user_id, from_plan=user.plan, to_plan=to_plan, seats=chance.randint(1, 50), upgraded_at=now
        )
    )
    user.plan = to_plan
    story.contacts[user.user_id]["plan"] = to_plan
    story.rows["user_upgraded"] += 1
    story.upgrades += 1


def _change_email(story: Story, user: _User, now: datetime) -> None:
    if user.plan == "internal":
        return
    user.moves += 1
    new = user.email.replace("@", f"+{user.moves}@", 1) if user.moves == 1 else _next(user)
    story.events.append(UserEmailChanged(user_id=user.user_id, old_email=user.email, new_email=new, changed_at=now))
    user.email = new
    story.contacts[user.user_id]["email"] = new.lower()
    story.rows["user_email_changed"] += 1


def _next(user: _User) -> str:
    return user.email.replace(f"+{user.moves - 1}@", f"+{user.moves}@", 1)


def _invoice(story: Story, chance: random.Random, user: _User, now: datetime) -> InvoiceCreated:
    story.invoices += 1
    large = chance.random() < 0.06
    total = chance.randint(LARGE_MINOR, 9 * LARGE_MINOR) if large else chance.randint(900, 90_000)
    seats = InvoiceLine(
        sku="SEAT", description=f"{user.plan} plan, one month", quantity=1, unit_price_minor=total, total_minor=total
    )
    invoice = InvoiceCreated(
        invoice_id=f"INV-{story.invoices:05d}",
        account_id=f"a-{user.user_id[2:]}",
        billing_email=user.email,
        currency=chance.choice(("EUR", "USD")),
        total_minor=total,
        issued_at=now,
        lines=[seats],
    )
    story.events.append(invoice)
    story.rows["invoice_created"] += 1
    story.large_invoices += invoice.total_minor >= LARGE_MINOR
    return invoice


def _close_invoice(story: Story, chance: random.Random, invoice: InvoiceCreated, now: datetime) -> None:
    if chance.random() < 0.85:
        story.events.append(
            InvoicePaid(
                invoice_id=invoice.invoice_id,
                account_id=invoice.account_id,
                currency=invoice.currency,
                paid_minor=invoice.total_minor,
                paid_at=now,
            )
        )
        story.rows["invoice_paid"] += 1
    else:
        story.events.append(
            InvoiceVoided(
                invoice_id=invoice.invoice_id, account_id=invoice.account_id, reason="duplicate", voided_at=now
            )
        )
        story.rows["invoice_voided"] += 1
