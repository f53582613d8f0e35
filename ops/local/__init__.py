"""Kafka, the registry and the vendors' fakes as child processes of nobody: started by ``up``, stopped by ``down``."""

from ops.local.stack import PARTS, Address, Part, PartStatus, Started, down, logs, reset, status, up

__all__ = ["PARTS", "Address", "Part", "PartStatus", "Started", "down", "logs", "reset", "status", "up"]
