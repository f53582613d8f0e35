"""What a condition says about null: which places are certainly there where it is true."""

from __future__ import annotations

from jinja2 import nodes


def implied(node: nodes.Node, *, negated: bool = False) -> frozenset[str]:
    """The paths that are certainly not null where the condition is true (``negated``: where it is false)."""
    if isinstance(node, nodes.Not):
        return implied(node.node, negated=not negated)
    if isinstance(node, nodes.Test) and node.name == "none":
        return _path_of(node.node) if negated else frozenset()
    if isinstance(node, (nodes.And, nodes.Or)):
        if isinstance(node, nodes.Or) == negated:
            return implied(node.left, negated=negated) | implied(node.right, negated=negated)
        return implied(node.left, negated=negated) & implied(node.right, negated=negated)
    if negated:
        return frozenset()
    if isinstance(node, nodes.Compare) and len(node.ops) == 1:
        operand = node.ops[0]
        literal = isinstance(operand.expr, nodes.Const) and operand.expr.value is not None
        if literal and operand.op in ("eq", "gt", "gteq", "lt", "lteq"):
            return _path_of(node.expr)
        if operand.op == "in" and isinstance(operand.expr, (nodes.List, nodes.Tuple)):
            values = operand.expr.items
            if all(isinstance(value, nodes.Const) and value.value is not None for value in values):
                return _path_of(node.expr)
    return _path_of(node)


def _path_of(node: nodes.Node) -> frozenset[str]:
    names: list[str] = []
    while isinstance(node, nodes.Getattr):
        names.append(node.attr)
        node = node.node
    if isinstance(node, nodes.Name) and names:
        path = ".".join(reversed(names))
        return frozenset({path if node.name == "data" else f"{node.name}.{path}"})
    return frozenset()
