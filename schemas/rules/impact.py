"""Rules of what a change of contracts does to those who read the event (`backbone schema check --base REVISION`)."""

from __future__ import annotations

from schemas.rules.rule import Rule

IMPACT_RULES: tuple[Rule, ...] = (
    Rule(
        id="field-read",
        means="A field that somebody reads was removed, renamed or given another type.",
        why="Avro may allow it, where there is a default; the mapping would send nothing from then on, in silence.",
        breaks="'coupon' is removed, and crm-contacts sends it.",
        mend="Change the mapping in the same commit, or make a new event beside this one.",
        frame="situation",
    ),
    Rule(
        id="promise-read",
        means="The topic or the key of an event that somebody reads was changed.",
        why="Its readers would go on in the old topic; with another key the order of what belongs together is lost.",
        breaks="The topic of an event with readers becomes another one.",
        mend="Make a new event in the new topic, and move the readers one by one.",
        frame="situation",
    ),
    Rule(
        id="personal-data-read",
        means="A field that somebody reads has a personal-data class now that this subscription does not allow.",
        why="The subscription would be refused at its next start: nothing leaves that nobody has allowed.",
        breaks='\'name\' of an event becomes "personal_data": "name", and a route sends it.',
        mend="Add the class to personal_data.allow of the subscription, with its purpose, or take the field out of it.",
        frame="situation",
    ),
    Rule(
        id="event-read",
        means="The file of an event that somebody reads is gone.",
        why="The subscription could not be loaded any more.",
        breaks="An .avsc file is deleted, and a route reads its event.",
        mend="Deprecate it first, and delete it when nobody reads it.",
        frame="situation",
    ),
    Rule(
        id="subscription-breaks",
        means="A subscription that could be loaded before the change cannot be loaded after it.",
        why="Its workers would stop with the next version of the project.",
        breaks="A field becomes optional, and a route needs it.",
        mend="Change the subscription in the same commit; the finding names its file and line.",
        frame="situation",
    ),
    Rule(
        id="impact",
        means="Readers should know of a change: a warning where they should look, a notice where nobody is hurt.",
        why="Who changes an event sees whom to ask, also where nothing is refused.",
        breaks="An enum gets one more symbol, and a route reads it.",
        mend="Look at the mapping that is named; nothing has to be changed for the check to pass.",
        frame="situation",
        severity="warning",
    ),
)
