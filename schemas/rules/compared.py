"""Rules of what is compared: a contract with its earlier versions, with the registry, and with what is made of it."""

from __future__ import annotations

from schemas.rules.rule import Rule

COMPARED_RULES: tuple[Rule, ...] = (
    Rule(
        id="incompatible",
        means="Data of an earlier version cannot be read with this one, or data of this one with an earlier one.",
        why="Replays read old data with new readers, and readers not deployed yet read new data with old ones.",
        breaks="A field without a default is added to an event that is registered.",
        mend='Give it a default. What cannot be compatible is a new event (PaymentReceivedV2, "replaces" the old one).',
        frame="situation",
    ),
    Rule(
        id="registry-disagrees",
        means="The registry's own check and ours come to different verdicts; an error where the registry refuses.",
        why="The registry may have another compatibility mode, or a bug: it is better seen here than at registration.",
        breaks="The subject's mode in the registry is BACKWARD; ours is FULL_TRANSITIVE.",
        mend="Set the mode of the registry to FULL_TRANSITIVE; where it refuses what is right, ask its operators.",
        frame="situation",
        severity="warning",
    ),
    Rule(
        id="models-not-current",
        means="The generated models are not what the contracts say.",
        why="Services are type-checked against the models; old ones hide a change until production.",
        breaks="A field was added to a contract, and the models were not written again.",
        mend="Write them: backbone schema generate",
        frame="situation",
    ),
)
