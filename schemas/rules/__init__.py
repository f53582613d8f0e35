"""What every rule of contract files means, why it is there, and how to mend what breaks it.

This is the one place for it: lint takes severities from here, ``ops.docs`` writes ops/RULES.md, ``backbone rule show``
reads it to people. A new rule needs an entry in the module of its subject; tests/test_rules.py says what is missing,
runs ``breaks`` through the real check and sees the rule reported, and ``mend`` and sees that it is not.
"""

from schemas.rules.avro import AVRO_RULES
from schemas.rules.compared import COMPARED_RULES
from schemas.rules.ends import END_RULES
from schemas.rules.impact import IMPACT_RULES
from schemas.rules.promise import PROMISE_RULES
from schemas.rules.rule import GOOD_CONTRACT, Frame, Rule
from schemas.rules.values import VALUE_RULES

CONTRACT_RULES: tuple[Rule, ...] = (
    *AVRO_RULES, *PROMISE_RULES, *VALUE_RULES, *END_RULES, *COMPARED_RULES, *IMPACT_RULES,
)  # fmt: skip

__all__ = ["CONTRACT_RULES", "GOOD_CONTRACT", "Frame", "Rule"]
