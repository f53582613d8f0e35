"""A version of a subscription beside the one that runs: what it would have made of past events. Nothing is sent."""
