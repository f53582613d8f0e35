"""Kafka, the registry and the vendors' fakes as child processes of nobody: started by ``up``, stopped by ``down``."""

from ops.local.stack import Address, PartStatus, down, logs, reset, status, up

__all__ = ["Address", "PartStatus", "down", "logs", "reset", "status", "up"]
