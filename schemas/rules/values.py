"""Rules of what the values of a field may be, and of the personal data among them."""

from __future__ import annotations

from schemas.rules.rule import Rule

VALUE_RULES: tuple[Rule, ...] = (
    Rule(
        id="personal-data-unsaid",
        means="A field's name sounds like personal data, and the contract does not say whether it is.",
        why="What has a class is masked on screens and leaves to vendors only where it is allowed.",
        breaks='{"name": "payer_email", "type": "string", "doc": "Where the receipt goes."}',
        mend='{"name": "payer_email", "type": "string", "doc": "Where the receipt goes.", "personal_data": "email"}',
        frame="field",
    ),
    Rule(
        id="bad-personal-data",
        means="The personal-data class is none that the backbone knows.",
        why="Masking, allowing and the data map go by these classes alone.",
        breaks='{"name": "payer_email", "type": "string", "doc": "Where the receipt goes.", "personal_data": "mail"}',
        mend='{"name": "payer_email", "type": "string", "doc": "Where the receipt goes.", "personal_data": "email"}',
        frame="field",
        in_editor=True,
    ),
    Rule(
        id="bad-constraint",
        means="minLength, maxLength, minimum or maximum is no number.",
        why="Events are checked against it before they are sent.",
        breaks='{"name": "amount_minor", "type": "long", "doc": "What was paid, in cents.", "minimum": "0"}',
        mend='{"name": "amount_minor", "type": "long", "doc": "What was paid, in cents.", "minimum": 0}',
        frame="field",
        in_editor=True,
    ),
    Rule(
        id="bad-pattern",
        means="The pattern is no regular expression, looks around or refers back, or repeats too much.",
        why="It is run on every event, by engines of several languages, and none may be kept busy by it.",
        breaks='{"name": "currency", "type": "string", "doc": "ISO 4217.", "pattern": "^(?=[A-Z])[A-Z]{3}$"}',
        mend='{"name": "currency", "type": "string", "doc": "ISO 4217.", "pattern": "^[A-Z]{3}$"}',
        frame="field",
    ),
    Rule(
        id="bad-default",
        means="The default does not fit the type; of a union it must fit the first one.",
        why="Readers fill it in where old data have no such field; one that does not fit breaks them all.",
        breaks='{"name": "note", "type": ["string", "null"], "default": null, "doc": "What the payer wrote."}',
        mend='{"name": "note", "type": ["null", "string"], "default": null, "doc": "What the payer wrote."}',
        frame="field",
    ),
    Rule(
        id="json-like-default",
        means="A text that begins with { or [ is the default.",
        why="Some registries (Apicurio) take it for JSON and refuse the schema.",
        breaks='{"name": "note", "type": "string", "default": "{}", "doc": "What the payer wrote."}',
        mend='{"name": "note", "type": "string", "default": "", "doc": "What the payer wrote."}',
        frame="field",
        in_editor=True,
    ),
    Rule(
        id="bad-example",
        means="An example does not fit its field, is longer than 1,000 characters, or there are more than 20.",
        why="Tests of subscriptions are filled from the first example, and people copy it.",
        breaks="""{"name": "paid_on", "doc": "When.", "examples": ["yesterday"],
 "type": {"type": "int", "logicalType": "date"}}""",
        mend="""{"name": "paid_on", "doc": "When.", "examples": ["2026-05-31"],
 "type": {"type": "int", "logicalType": "date"}}""",
        frame="field",
    ),
)
