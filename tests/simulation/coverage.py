"""What has to have happened in every half of the seeds: a simulation that never gets somewhere proves nothing of it."""

from __future__ import annotations

HAPPENED = (
    # processes and the group
    "kill", "freeze", "expelled", "rebalance", "commit refused", "zombie seen", "effect of a zombie",
    # the vendor
    "vendor away", "throttled", "answer lost", "late effect", "partial", "busy", "call refused", "credentials revoked",
    "looked up",
    # topics and the log
    "refused", "hole", "range", "runs committed",
    # people
    "redrive", "discarded", "replay", "paused", "resumed", "mended",
    # an attach
    "caught up with", "caught up with as live", "handed over", "catch-up bounded",
    # what became of events
    "receipt delivered", "receipt skipped merged", "receipt skipped expired", "receipt skipped superseded",
    "receipt skipped discarded", "receipt rejected", "receipt undecodable", "receipt exhausted", "receipt unknown",
    "receipt parked", "merged call", "folds", "folded", "folded call",
    # and what our code said
    "KeyParked", "KeyUnparked", "SubscriptionStopped", "DeliveryHeld",
)  # fmt: skip
