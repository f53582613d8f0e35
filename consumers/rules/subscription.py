"""Rules of a subscription's file: its names, its routes, and what its expressions may do."""

from __future__ import annotations

from consumers.rules.yaml_traps import route_text
from schemas.rules import Rule

_GOOD = route_text('{channel: "#paid", text: "{{ data.invoice_id }} is paid"}')


def _contact(body: str, rest: str = "") -> str:
    return (
        "connection: hubspot\npersonal_data: {purpose: To know our users., allow: [email]}\nroutes:\n"
        f"  - event: accounts.UserSignedUp\n    action: contact.upsert\n    body: {body}{rest}"
    )


_CONTACT = _contact('{email: "{{ data.email }}"}')
_TEST = "tests:\n  - name: a payment is told\n    given: [{event: billing.InvoicePaid%s}]\n%s    expect: [{%s}]"

SUBSCRIPTION_FILE_RULES: tuple[Rule, ...] = (
    Rule(
        id="file",
        means="There is no such file, or it cannot be read.",
        why="A check that looked at nothing must not look like one that found nothing.",
        breaks="backbone subscription check crm-contact.yaml, where the file is crm-contacts.yaml.",
        mend="Name a file that is there and that you may read.",
        frame="situation",
    ),
    Rule(
        id="name",
        means="The file's name is no name for a subscription: lower-case letters and digits with single dashes.",
        why="It is the name of the Kafka group and of the subscription's topics, for good.",
        breaks="CRM Contacts.yaml, or a reserved name like ledger.yaml.",
        mend="Call it crm-contacts.yaml.",
        frame="situation",
    ),
    Rule(
        id="empty",
        means="The file is empty.",
        why="A subscription says at least what it does, whose it is, and what it reads.",
        breaks="# to be done",
        mend="\n".join(
            (
                "description: Tells finance about payments.",
                "owner: team-finance",
                "connection: slack",
                _GOOD,
            )
        ),
        frame="file",
        in_editor=True,
    ),
    Rule(
        id="missing",
        means="Something that every subscription or route needs is not there.",
        why="The sentence says what it is for.",
        breaks="routes:\n  - event: billing.InvoicePaid",
        mend=_GOOD,
        frame="part",
    ),
    Rule(
        id="unknown-name",
        means="A name is not one of those that can stand here.",
        why="A misspelt policy would have no effect, and nobody would know.",
        breaks="policies: {expires_after: 1h}",
        mend="policies: {expire_after: 1h}",
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="form",
        means="A value is of the wrong kind: a number for a text, a text for a list, too long, too many.",
        why="The sentence says what is expected.",
        breaks="policies: {on_unknown: again}",
        mend="policies: {on_unknown: resend}",
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="too-much",
        means="Compiled for every event that is read, the routes are more than 100,000 characters.",
        why="Each worker compiles them when it starts, and again when the subscription changes.",
        breaks="A route for '*' with two thousand fields in its body.",
        mend="Divide the routes among several subscriptions, or send '{{ data | allowed }}' as a whole.",
        frame="situation",
    ),
    Rule(
        id="connection",
        means="backbone.toml has no connection of this name.",
        why="The connection is the account at the vendor; it decides which actions there are.",
        breaks="connection: slak",
        mend="connection: slack",
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="event",
        means="There is no event of this name, it stands there twice, or a wildcard fits none.",
        why="A subscription to a misspelt event would be quiet for ever.",
        breaks=_GOOD.replace("InvoicePaid", "InvoicePayed"),
        mend=_GOOD,
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="successor-left-out",
        means="A wildcard meets an event and the one that replaces it; it goes on reading the old one.",
        why="Both are published for a time, so reading both would deliver twice; which one is a person's decision.",
        breaks="'billing.*' is read, and billing.InvoicePaidV2 replaces billing.InvoicePaid.",
        mend="Name billing.InvoicePaidV2 in a route: the wildcard leaves the old one out then.",
        frame="situation",
        severity="warning",
    ),
    Rule(
        id="replaced",
        means="An event and the one that replaces it are both read.",
        why="While services publish both, everything would be delivered twice.",
        breaks="A subscription reads billing.InvoiceCreated and billing.InvoiceCreatedV2, which replaces it.",
        mend="Read the new one alone.",
        frame="situation",
    ),
    Rule(
        id="unreachable",
        means="A route above takes every event of this one.",
        why="The first fitting route wins, so this one never does anything.",
        breaks=f"{_GOOD}\n  - event: billing.InvoicePaid\n    action: message.post\n"
        '    body: {channel: "#all", text: Paid.}',
        mend=route_text('{channel: "#big", text: Paid.}', "data.paid_minor > 100_000")
        + '\n  - event: billing.InvoicePaid\n    action: message.post\n    body: {channel: "#all", text: Paid.}',
        frame="part",
    ),
    Rule(
        id="action",
        means="The connection's vendor cannot be asked this.",
        why="backbone catalog show CONNECTION lists what it can be asked.",
        breaks=_GOOD.replace("message.post", "message.send"),
        mend=_GOOD,
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="body-field",
        means="The action has no such field, or needs one that is not there.",
        why="The vendor would refuse the call, or ignore the field in silence.",
        breaks=route_text('{chanel: "#paid", text: Paid.}'),
        mend=route_text('{channel: "#paid", text: Paid.}'),
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="expression",
        means="An expression cannot be read, or uses what is not available: an unknown field, filter or sign.",
        why="It would fail at the first event; the sentence says at which character.",
        breaks=route_text('{channel: "#paid", text: "{{ data.invoice }} is paid"}'),
        mend=_GOOD,
        frame="part",
    ),
    Rule(
        id="type",
        means="A value is of another type than what it is for: a condition that is no true or false, a null.",
        why="It would be refused by the vendor, for some events only.",
        breaks=route_text('{channel: "#paid", text: "{{ data.reference }}"}'),
        mend=route_text('{channel: "#paid", text: "{{ data.reference | default(\'no reference\') }}"}'),
        frame="part",
    ),
    Rule(
        id="entity",
        means="The entity is empty.",
        why="Every delivery is about something at the vendor: it is what order and merging go by.",
        breaks=f'{_GOOD}\n    entity: " "',
        mend=f'{_GOOD}\n    entity: "{{{{ data.invoice_id }}}}"',
        frame="part",
    ),
    Rule(
        id="personal-data",
        means="The route sends a personal-data class that the subscription does not allow, or allows one that is none.",
        why="Nothing personal leaves by accident: what may leave is named, with its purpose.",
        breaks=_contact('{email: "{{ data.email }}", firstname: "{{ data.name | optional }}"}'),
        mend=_CONTACT,
        frame="part",
    ),
    Rule(
        id="projection",
        means="The Python projection cannot be used: no such file or function, not here, or an error in it.",
        why="A worker runs exactly the file that was attached, so it is read and hashed now.",
        breaks="connection: hubspot\nroutes:\n"
        "  - {event: accounts.UserEmailChanged, projection: crm_contacts.py:emailchanged}",
        mend="connection: hubspot\nroutes:\n"
        "  - {event: accounts.UserEmailChanged, projection: crm_contacts.py:email_changed}",
        frame="part",
    ),
    Rule(
        id="policy",
        means="A policy is not possible with this connector or these actions.",
        why="'send: latest' merges upserts; 'look_up' needs a vendor that can be asked what it has.",
        breaks="policies: {send: latest}",
        mend=f"policies: {{send: latest}}\n{_CONTACT}",
        frame="part",
    ),
    Rule(
        id="duration",
        means="A duration is not a whole number with a unit, like 60s, 5m, 1h or 30d, or is longer than 30d.",
        why="A number alone would be seconds to one reader and milliseconds to another.",
        breaks="policies: {slo: 5 minutes}",
        mend="policies: {slo: 5m}",
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="order",
        means="One action is fed from several topics or keys.",
        why="Order is kept per key of a topic: an older value from one can arrive behind a newer one from the other.",
        breaks=_contact(
            '{email: "{{ data.email }}"}',
            "\n  - event: billing.InvoicePaid\n    action: contact.upsert\n"
            '    entity: "{{ data.account_id }}"\n    body: {plan: paid}',
        ),
        mend=_CONTACT,
        frame="part",
        severity="warning",
    ),
    Rule(
        id="field",
        means="A test gives a field that the event does not have.",
        why="The test would show something else than it says.",
        breaks=_TEST % (", data: {invoice: INV-1}", "", "action: message.post"),
        mend=_TEST % (", data: {invoice_id: INV-1}", "", "action: message.post"),
        frame="part",
    ),
    Rule(
        id="vendor",
        means="A test's answer of the vendor is none of ok, a status, timeout, cut, refused, found, missing.",
        why="The answers are a script: each is played once, in order.",
        breaks=_TEST % ("", "    vendor: [broken]\n", "action: message.post"),
        mend=_TEST % ("", "    vendor: [500, ok]\n", "action: message.post, attempts: 2"),
        frame="part",
    ),
)
