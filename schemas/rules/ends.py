"""Rules of events that end and of those that take their place."""

from __future__ import annotations

from schemas.rules.rule import Rule

_PROMISE = (
    '{"topic": "billing.payments", "key": "payment_id", "owner": "team-billing", "contact": "#billing", '
    '"freshness_slo": "60s", "retention": "30d", '
)

END_RULES: tuple[Rule, ...] = (
    Rule(
        id="bad-sunset",
        means="The sunset is no day.",
        why="Everybody who still reads the event plans by it; it is written so that every language reads it alike.",
        breaks=_PROMISE + '"status": "deprecated", "sunset": "next spring"}',
        mend=_PROMISE + '"status": "deprecated", "sunset": "2099-03-31"}',
        frame="promise",
    ),
    Rule(
        id="no-sunset",
        means="A deprecated event does not say until when it is published.",
        why="Whoever reads it has to know how long there is time to change.",
        breaks='"status": "deprecated" without a "sunset".',
        mend="backbone schema deprecate EVENT --sunset DATE --replaced-by NEW_EVENT",
        frame="situation",
    ),
    Rule(
        id="not-deprecated",
        means="The event has a sunset or a successor, and is not deprecated.",
        why="Readers are told of an end by the status; an end that only half of the contract knows is missed.",
        breaks='"status": "live" beside a "sunset".',
        mend='Write "status": "deprecated", or take the sunset out.',
        frame="situation",
    ),
    Rule(
        id="sunset-passed",
        means="The last day on which the event is published has passed.",
        why="A contract that nobody keeps any more looks like one that somebody keeps.",
        breaks="Its sunset was yesterday.",
        mend="Take its file away once nobody publishes and reads it, or give it a later day.",
        frame="situation",
        severity="warning",
    ),
    Rule(
        id="replaces",
        means="What the event says it replaces is not there, is in another topic, or is the event itself.",
        why="Both are published for a time, in one topic and under one key, so that a reader can change over in order.",
        breaks='"replaces" names an event of another topic.',
        mend="Give the new event the topic and the key of the old one.",
        frame="situation",
    ),
    Rule(
        id="replaced-by",
        means="What the event says it is replaced by is not there, or does not say that it replaces this one.",
        why="Readers follow it to the new event; the two have to agree.",
        breaks='"replaced_by" names PaymentReceivedV2, which has no "replaces".',
        mend="backbone schema deprecate EVENT --sunset DATE --replaced-by NEW_EVENT writes both.",
        frame="situation",
    ),
    Rule(
        id="not-announced",
        means="An event replaces another one that says nothing of it.",
        why="Those who read the old one are told by its contract.",
        breaks="PaymentReceivedV2 replaces PaymentReceived, which is live.",
        mend="backbone schema deprecate EVENT --sunset DATE --replaced-by NEW_EVENT",
        frame="situation",
        severity="warning",
    ),
    Rule(
        id="deprecated-read",
        means="An event that ends is still read.",
        why="From its sunset on its readers get nothing any more, and nobody would notice.",
        breaks="A route reads an event whose contract is deprecated.",
        mend="Read the event that replaces it; both are published until the sunset.",
        frame="situation",
        severity="warning",
    ),
)
