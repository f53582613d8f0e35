"""Watching a process: metrics, log lines, health. ``Observation`` takes the facts, ``serve`` shows them."""
