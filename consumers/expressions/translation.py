"""From Jinja2's syntax tree to a Python expression: an allow-list, in which everything not named here is refused.

The Python tree is built node by node; what a person wrote gets into it only as constants, never as code and never as a
name. There is no attribute access, no call but to the functions of ``filters.py``, no loop and no variable,
so an expression ends, and needs about as much memory as its text and one event.

Alongside, it collects what is known before any event: the shape of the value, the fields read, and the personal-data
classes that travel with it (through every filter, comparison and condition).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from jinja2 import nodes

from consumers.expressions import filter_table, filters, operators, shapes
from consumers.expressions.allowance import allowed_value
from consumers.expressions.comparison import check_comparison
from consumers.expressions.filter_table import FILTERS, Filter, Parameter
from consumers.expressions.narrowing import implied
from consumers.expressions.refusal import RefusedHere, capital, count, listed, offset_of, refuse
from consumers.expressions.shapes import BOOLEAN, INTEGER, NESTED, NUMBER, NUMBERS, TEXT, TIME, UNKNOWN, Shape
from consumers.expressions.values import UNDEFINED
from schemas.contract import Contract
from schemas.findings import did_you_mean

DEPTH_MAX: Final = 50

ENVELOPE: Final[Mapping[str, Shape]] = {
    "id": TEXT, "type": TEXT, "name": TEXT, "source": TEXT, "time": TIME,
    "subject": TEXT.or_null(), "key": TEXT.or_null(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Carried:
    """A field with a personal-data class whose value, or something made of it, is in a result."""

    path: str
    personal_data: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A part that is translated: its Python, and what is known of it. ``path``: it is this place of the payload."""

    python: ast.expr
    shape: Shape
    carried: frozenset[Carried] = frozenset()
    path: tuple[str, ...] | None = None
    lenient: ast.expr | None = None
    """the same, but UNDEFINED in place of an error where there is nothing"""
    omits: bool = False


@dataclass(slots=True)
class Constants:
    """The functions and values that generated code refers to, by the names that we give them."""

    values: dict[str, Any] = field(default_factory=dict)

    def name(self, value: Any) -> ast.expr:
        for name, known in self.values.items():
            if known is value:
                return ast.Name(name, ast.Load())
        name = f"_{len(self.values)}"
        self.values[name] = value
        return ast.Name(name, ast.Load())

    def call(self, function: Callable[..., Any], *arguments: ast.expr) -> ast.expr:
        return ast.Call(self.name(function), list(arguments), [])


class Translator:
    """One expression after another for one event type. ``contract`` None: any field may be read, nothing is known.

    ``present`` are paths known not to be null (from a condition that has already been true); ``allowed`` the
    personal-data classes that may leave, for the filter of that name.
    """

    def __init__(
        self,
        contract: Contract | None,
        constants: Constants,
        *,
        present: frozenset[str] = frozenset(),
        allowed: frozenset[str] = frozenset(),
    ) -> None:
        self._contract = contract
        self._root = UNKNOWN.present() if contract is None else shapes.of_contract(contract)
        self._constants = constants
        self._present = present
        self._allowed = allowed
        self._depth = 0
        self.fields: set[str] = set()

    def translate(self, node: nodes.Expr, *, tail: bool = False) -> Piece:
        """``tail``: the value is used as it is, so ``optional`` may stand here."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            refuse(node, f"This is nested deeper than {DEPTH_MAX} levels.")
        try:
            method = self._METHODS.get(type(node))
            if method is None:
                refuse(node, _why_not(node))
            if tail and isinstance(node, (nodes.CondExpr, nodes.Filter)):
                return method(self, node, tail)
            return method(self, node)
        finally:
            self._depth -= 1

    # -- places ------------------------------------------------------------------------------------------------------

    def _name(self, node: nodes.Name) -> Piece:
        if node.name == "data":
            self.fields.add("")
            return Piece(ast.Name("data", ast.Load()), self._root, self._classes(()), ())
        if node.name == "event":
            refuse(node, "'event' is the envelope: name one of its parts, like event.time.")
        nested = self._root.fields.get(node.name)
        hint = f" Did you mean 'event.{node.name}'?" if node.name in ENVELOPE else ""
        hint = f" Did you mean 'data.{node.name}'?" if nested is not None else hint
        return refuse(node, f"There is no '{node.name}' here: names begin with data or event.{hint}")

    def _access(self, node: nodes.Getattr | nodes.Getitem) -> Piece:
        steps: list[nodes.Getattr | nodes.Getitem] = []
        base: nodes.Expr = node
        while isinstance(base, (nodes.Getattr, nodes.Getitem)):
            steps.append(base)
            base = base.node
            if len(steps) > DEPTH_MAX:
                refuse(node, f"This is nested deeper than {DEPTH_MAX} levels.")
        steps.reverse()
        if isinstance(base, nodes.Name) and base.name == "event":
            return self._envelope(steps)
        if isinstance(base, nodes.Name) and base.name == "data":
            piece = Piece(ast.Name("data", ast.Load()), self._root, path=())
        else:
            piece = self.translate(base)
        fixed: list[ast.expr] | None = []
        start = piece.lenient or piece.python
        carried = piece.carried
        for step in steps:
            piece, key = self._step(piece, step)
            carried |= piece.carried
            if fixed is not None:
                fixed = None if key is None else [*fixed, key]
        if piece.path is not None:
            self.fields.add(".".join(piece.path))
            carried |= self._classes(piece.path)
        lenient = None
        if fixed:
            lenient = self._lenient(start, fixed, piece)
        shape = piece.shape
        if piece.path is not None and ".".join(piece.path) in self._present:
            shape = shape.present()
        return replace(piece, carried=carried, lenient=lenient, shape=shape)

    def _lenient(self, start: ast.expr, keys: list[ast.expr], piece: Piece) -> ast.expr:
        simple = isinstance(start, ast.Name) and start.id == "data" and len(keys) == 1
        if simple and isinstance(keys[0], ast.Constant) and isinstance(keys[0].value, str):
            if not isinstance(piece.python, ast.Subscript):
                return piece.python  # the contract has a default for it: it is always there
            get = ast.Attribute(ast.Name("data", ast.Load()), "get", ast.Load())
            return ast.Call(get, [keys[0], self._constants.name(UNDEFINED)], [])
        return self._constants.call(operators.look_up, start, ast.Tuple(keys, ast.Load()))

    def _step(self, piece: Piece, step: nodes.Getattr | nodes.Getitem) -> tuple[Piece, ast.expr | None]:
        """One ``.name`` or ``[index]``; also the key as Python, None for a slice."""
        shape = piece.shape
        if isinstance(step, nodes.Getattr):
            return self._field(piece, step.attr, step)
        argument = step.arg
        if isinstance(argument, nodes.Const) and isinstance(argument.value, str):
            return self._field(piece, argument.value, step)
        if isinstance(argument, nodes.Slice):
            return self._slice(piece, argument, step), None
        index = self.translate(argument)
        if shape.kind == "record" or piece.path == ():
            refuse(step, "A field is named in full, like data.plan: its name cannot be computed.")
        wanted = {"list": "integer", "text": "integer", "map": "text"}.get(shape.kind)
        if shape.kind != "unknown" and wanted is None:
            refuse(step, f"There is nothing to index: this is {shape.word}.")
        if wanted and index.shape.kind not in ("unknown", wanted):
            refuse(step, f"{shape.word} is indexed by {shapes.words([wanted])}, not by {index.shape.word}.")
        python = self._constants.call(operators.item, piece.python, index.python)
        inner = TEXT if shape.kind == "text" else shape.item or UNKNOWN
        carried = piece.carried | index.carried
        path = piece.path if shape.kind in ("list", "map") else None
        if path is None and piece.path is not None:
            carried |= self._classes(piece.path)
            self.fields.add(".".join(piece.path))
        return Piece(python, inner, carried, path), index.python

    def _slice(self, piece: Piece, cut: nodes.Slice, step: nodes.Node) -> Piece:
        if piece.shape.kind not in ("text", "list", "unknown"):
            refuse(step, f"Only texts and lists can be cut; this is {piece.shape.word}.")
        bounds: list[ast.expr | None] = []
        for bound in (cut.start, cut.stop, cut.step):
            if bound is None:
                bounds.append(None)
                continue
            translated = self.translate(bound)
            if translated.shape.kind not in ("integer", "unknown"):
                refuse(step, f"A text or list is cut at whole numbers, not {translated.shape.word}.")
            bounds.append(translated.python)
        python = ast.Subscript(piece.python, ast.Slice(*bounds), ast.Load())
        return Piece(python, piece.shape.present(), piece.carried, piece.path)

    def _field(self, piece: Piece, name: str, step: nodes.Node) -> tuple[Piece, ast.expr]:
        shape, key = piece.shape, ast.Constant(name)
        if shape.kind == "record":
            inner = shape.fields.get(name)
            if inner is None:
                where = f"{self._contract.name} has" if self._contract and not piece.path else "There is"
                known = [f"{'.'.join(('data', *(piece.path or ())))}.{known}" for known in shape.fields]
                asked = f"{'.'.join(('data', *(piece.path or ())))}.{name}"
                refuse(step, f"{where} no field '{name}'.{did_you_mean(asked, known) or listed(shape.fields)}")
        elif shape.kind == "map":
            inner = shape.item or UNKNOWN
        elif shape.kind == "unknown":
            inner = UNKNOWN
        elif shape.kind == "list":
            refuse(step, f"This is a list: take one of its items first ([0], | first), then '{name}'.")
        else:
            hint = did_you_mean(name, FILTERS) or ""
            refuse(
                step, f"{shape.word.capitalize()} has no '{name}'; what is done to values are filters: '| lower'.{hint}"
            )
        path = None
        if piece.path is not None:
            path = piece.path if shape.kind == "map" else (*piece.path, name)
        python: ast.expr = ast.Subscript(piece.python, key, ast.Load())
        fallback = self._fallback(path) if shape.kind == "record" and path and len(path) == 1 else None
        if fallback is not None:
            # An event written with an older schema has no such field yet; Avro's answer is the default.
            is_there = ast.Compare(key, [ast.In()], [ast.Name("data", ast.Load())])
            python = ast.IfExp(is_there, python, fallback)
        return Piece(python, inner, piece.carried, path), key

    def _fallback(self, path: tuple[str, ...]) -> ast.Constant | None:
        """The contract's default of a field, if it has one that is a plain value."""
        if self._contract is None:
            return None
        for declared in self._contract.schema.get("fields", []):
            if declared.get("name") == path[0] and "default" in declared:
                value = declared["default"]
                kind = shapes.of_avro(self._contract.fields[path[0]].type).kind
                if value is None or (isinstance(value, (str, int, float)) and kind in shapes.PLAIN | {"number"}):
                    return ast.Constant(value)
        return None

    def _envelope(self, steps: Sequence[nodes.Getattr | nodes.Getitem]) -> Piece:
        step = steps[0]
        name: Any = step.attr if isinstance(step, nodes.Getattr) else None
        if isinstance(step, nodes.Getitem) and isinstance(step.arg, nodes.Const):
            name = step.arg.value
        if not isinstance(name, str) or name not in ENVELOPE:
            hint = did_you_mean(str(name), ENVELOPE) if isinstance(name, str) else ""
            refuse(step, f"The envelope has {', '.join(ENVELOPE)}.{hint}")
        python = ast.Attribute(ast.Name("event", ast.Load()), name, ast.Load())
        # The key is a field of the payload, and the subject is by custom what the event is about.
        carried: frozenset[Carried] = frozenset()
        if self._contract is not None and name in ("key", "subject"):
            paths = {self._contract.key} if name == "key" else {self._contract.key, self._contract.entity}
            carried = frozenset().union(*(self._classes(tuple(path.split("."))) for path in paths))
        piece = Piece(python, ENVELOPE[name], carried)
        if f"event.{name}" in self._present:
            piece = replace(piece, shape=piece.shape.present())
        for later in steps[1:]:
            piece, _ = self._step(piece, later)
        return piece

    def _classes(self, path: tuple[str, ...]) -> frozenset[Carried]:
        """What a place of the payload carries: its own class, those above it and those within it."""
        if self._contract is None:
            return frozenset()
        found = set()
        dotted = ".".join(path)
        for known, declared in self._contract.fields.items():
            classed = declared.personal_data
            if classed is None or classed == "none":
                continue
            if not path or known == dotted or known.startswith(f"{dotted}.") or dotted.startswith(f"{known}."):
                found.add(Carried(known, classed))
        return frozenset(found)

    # -- literals ----------------------------------------------------------------------------------------------------

    def _constant(self, node: nodes.Const) -> Piece:
        value = node.value
        if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            refuse(node, "This number does not fit into 64 bits.")
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            refuse(node, "This number is too large.")
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            refuse(node, "This text holds half a character (a surrogate escape).")
        return Piece(ast.Constant(value), shapes.of_constant(value))

    def _list(self, node: nodes.List | nodes.Tuple) -> Piece:
        pieces = [self.translate(part) for part in node.items]
        item = shapes.union([piece.shape for piece in pieces]) if pieces else UNKNOWN
        return Piece(
            ast.List([piece.python for piece in pieces], ast.Load()), Shape("list", item=item), _carried(pieces)
        )

    def _dict(self, node: nodes.Dict) -> Piece:
        keys: list[ast.expr | None] = []
        pieces = []
        fields: dict[str, Shape] = {}
        for pair in node.items:
            if not (isinstance(pair.key, nodes.Const) and isinstance(pair.key.value, str)):
                refuse(pair, "The names of a record are written out, in quotes.")
            keys.append(ast.Constant(pair.key.value))
            pieces.append(self.translate(pair.value))
            fields[pair.key.value] = pieces[-1].shape
        shape = Shape("record", fields=fields)
        return Piece(ast.Dict(keys, [piece.python for piece in pieces]), shape, _carried(pieces))

    # -- operators ---------------------------------------------------------------------------------------------------

    def _binary(self, node: nodes.BinExpr) -> Piece:
        left, right = self.translate(node.left), self.translate(node.right)
        operator = _ARITHMETIC[type(node)]
        for piece in (left, right):
            self._not_null(node, piece, f"'{node.operator}'")
        carried = _carried((left, right))
        kinds = {left.shape.kind, right.shape.kind}
        if isinstance(node, nodes.Add):
            known = "unknown" not in kinds
            fits = kinds <= NUMBERS or kinds == {"text"} or kinds == {"list"}
            if known and not fits:
                refuse(node, f"{left.shape.word} + {right.shape.word} cannot be added; '~' puts texts together.")
            if kinds <= NUMBERS and known:
                return Piece(ast.BinOp(left.python, ast.Add(), right.python), _arithmetic(kinds, node), carried)
            shape = left.shape if known else UNKNOWN.present()
            return Piece(self._constants.call(operators.add, left.python, right.python), shape, carried)
        sides = []
        for piece in (left, right):
            if piece.shape.kind not in NUMBERS | {"unknown"}:
                refuse(node, f"'{node.operator}' works on numbers; this is {piece.shape.word}.")
            known = piece.shape.kind in NUMBERS and not piece.shape.nullable
            sides.append(piece.python if known else self._constants.call(operators.number, piece.python))
        return Piece(ast.BinOp(sides[0], operator(), sides[1]), _arithmetic(kinds, node), carried)

    def _sign(self, node: nodes.Neg | nodes.Pos) -> Piece:
        inner = self.translate(node.node)
        if inner.shape.kind not in NUMBERS | {"unknown"}:
            refuse(node, f"'{node.operator}' works on numbers; this is {inner.shape.word}.")
        self._not_null(node, inner, f"'{node.operator}'")
        operator = ast.USub() if isinstance(node, nodes.Neg) else ast.UAdd()
        python = inner.python if inner.shape.kind in NUMBERS else self._constants.call(operators.number, inner.python)
        return Piece(ast.UnaryOp(operator, python), inner.shape, inner.carried)

    def _not(self, node: nodes.Not) -> Piece:
        inner = self.translate(node.node)
        return Piece(ast.UnaryOp(ast.Not(), inner.python), BOOLEAN, inner.carried)

    def _and_or(self, node: nodes.And | nodes.Or) -> Piece:
        left = self.translate(node.left)
        before = self._present
        if isinstance(node, nodes.And):
            self._present |= implied(node.left)
        right = self.translate(node.right)
        self._present = before
        operator = ast.And() if isinstance(node, nodes.And) else ast.Or()
        shape = shapes.union([left.shape, right.shape])
        return Piece(ast.BoolOp(operator, [left.python, right.python]), shape, _carried((left, right)))

    def _compare(self, node: nodes.Compare) -> Piece:
        left = self.translate(node.expr)
        pieces = [left]
        operators: list[ast.cmpop] = []
        for operand in node.ops:
            right = self.translate(operand.expr)
            check_comparison(operand, operand.op, pieces[-1].shape, right.shape)
            pieces.append(right)
            operators.append(_COMPARISONS[operand.op]())
        rest = [piece.python for piece in pieces[1:]]
        return Piece(ast.Compare(left.python, operators, rest), BOOLEAN, _carried(pieces))

    def _concat(self, node: nodes.Concat) -> Piece:
        return self.mixed([self.translate(part) for part in node.nodes], [offset_of(part) for part in node.nodes])

    def mixed(self, pieces: Sequence[Piece], offsets: Sequence[int]) -> Piece:
        """Several values as one text."""
        for piece, offset in zip(pieces, offsets, strict=True):
            if piece.shape.kind in NESTED | {"bytes"}:
                raise RefusedHere(
                    f"{capital(piece.shape.word)} cannot be put into a text: use '| join' or '| json'.", offset
                )
            if piece.shape.nullable and piece.shape.kind != "unknown":
                raise RefusedHere(f"{_place(piece)} can be null, which is no text: add '| default(\"…\")'.", offset)
        python = self._constants.call(operators.concatenate, *[piece.python for piece in pieces])
        return Piece(python, TEXT, _carried(pieces))

    def _condition(self, node: nodes.CondExpr, tail: bool = False) -> Piece:
        if node.expr2 is None:
            refuse(node, "Say what it is otherwise: 'a if condition else b'.")
        test = self.translate(node.test)
        before = self._present
        self._present = before | implied(node.test)
        then = self.translate(node.expr1, tail=tail)
        self._present = before | implied(node.test, negated=True)
        otherwise = self.translate(node.expr2, tail=tail)
        self._present = before
        lenient = None
        if then.lenient is not None or otherwise.lenient is not None:
            lenient = ast.IfExp(test.python, then.lenient or then.python, otherwise.lenient or otherwise.python)
        return Piece(
            ast.IfExp(test.python, then.python, otherwise.python),
            shapes.union([then.shape, otherwise.shape]),
            _carried((test, then, otherwise)),
            lenient=lenient,
            omits=then.omits or otherwise.omits,
        )

    def _test(self, node: nodes.Test) -> Piece:
        if node.name not in ("none", "defined") or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            hint = " Write 'is none'." if node.name in ("null", "nil", "None", "undefined") else ""
            refuse(node, f"There is no test 'is {node.name}': only 'is none' and 'is defined'.{hint}")
        inner = self.translate(node.node)
        python = inner.lenient or inner.python
        undefined = self._constants.name(UNDEFINED)
        if node.name == "defined":
            return Piece(ast.Compare(python, [ast.IsNot()], [undefined]), BOOLEAN, inner.carried)
        if inner.lenient is None:
            return Piece(ast.Compare(python, [ast.Is()], [ast.Constant(None)]), BOOLEAN, inner.carried)
        return Piece(self._constants.call(operators.is_none, python), BOOLEAN, inner.carried)

    # -- filters -----------------------------------------------------------------------------------------------------

    def _filter(self, node: nodes.Filter, tail: bool = False) -> Piece:
        known = FILTERS.get(node.name)
        if known is None:
            refuse(node, f"There is no filter '{node.name}'.{did_you_mean(node.name, FILTERS) or listed(FILTERS)}")
        if node.node is None:
            refuse(node, "A filter stands behind a value.")
        inner = self.translate(node.node)
        arguments, given = self._arguments(node, known)
        carried = inner.carried | _carried(arguments)
        if node.name == "allowed":
            return self._only_allowed(node, inner)
        if node.name == "optional":
            if not tail:
                refuse(
                    node, "'optional' leaves the whole field out, so it comes last, in a body field of one expression."
                )
            python = self._constants.call(filters.optional, inner.lenient or inner.python)
            return Piece(python, inner.shape.present(), carried, omits=True)
        if node.name == "default":
            replacement = given.get("default_value")
            shape = filter_table.with_default(inner.shape, TEXT if replacement is None else replacement.shape)
            python = self._constants.call(
                filters.default, inner.lenient or inner.python, *[argument.python for argument in arguments]
            )
            return Piece(python, shape, carried)
        self._check_input(node, inner, known)
        function = known.call
        lenient = None
        path = None
        if node.name in ("first", "last"):
            undefined = filters.first_or_undefined if node.name == "first" else filters.last_or_undefined
            lenient = self._constants.call(undefined, inner.python)
            path = inner.path if inner.shape.kind == "list" else None
        python = self._constants.call(function, inner.python, *[argument.python for argument in arguments])
        return Piece(python, known.result(inner.shape), carried, path, lenient)

    def _check_input(self, node: nodes.Filter, inner: Piece, known: Filter) -> None:
        if not known.takes:
            return
        if inner.shape.kind != "unknown" and inner.shape.kind not in known.takes:
            if inner.shape.kind == "null":
                refuse(node, f"'{node.name}' cannot work on null.")
            wanted = shapes.words(known.takes & {"text", "list", "integer", "time"}) or "a number"
            refuse(node, f"'{node.name}' needs {wanted}; this is {inner.shape.word}.")
        self._not_null(node, inner, f"'{node.name}'")

    def _not_null(self, node: nodes.Node, piece: Piece, what: str) -> None:
        if piece.shape.nullable and piece.shape.kind != "unknown":
            refuse(
                node,
                f"{_place(piece)} can be null, and {what} cannot work on null: put '| default(…)' before it, "
                f"or ask {_place(piece)} 'is not none' first.",
            )

    def _arguments(self, node: nodes.Filter, known: Filter) -> tuple[list[Piece], dict[str, Piece]]:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            refuse(node, "Arguments are written out one by one.")
        written: dict[str, nodes.Expr] = {}
        names: list[str] = [parameter.name for parameter in known.parameters]
        if len(node.args) > len(names):
            refuse(node, f"'{node.name}' takes {count(len(names), 'argument')}, not {len(node.args)}.")
        written.update(zip(names, node.args, strict=False))
        for keyword in node.kwargs:
            name = str(keyword.key)  # a Keyword, although Jinja2 declares it a Pair
            if name not in names:
                hint = did_you_mean(name, names) or listed(names)
                refuse(keyword, f"'{node.name}' has no argument '{name}'.{hint}")
            if name in written:
                refuse(keyword, f"The argument '{name}' is given twice.")
            written[name] = keyword.value
        pieces: list[Piece] = []
        given: dict[str, Piece] = {}
        for parameter in known.parameters:
            value = written.get(parameter.name)
            if value is None:
                if parameter.required:
                    refuse(node, f"'{node.name}' needs its argument '{parameter.name}'.")
                pieces.append(Piece(ast.Constant(_default_of(known, parameter)), UNKNOWN))
                continue
            piece = self.translate(value)
            _check_argument(node, value, parameter, piece)
            given[parameter.name] = piece
            pieces.append(piece)
        while pieces and known.parameters[len(pieces) - 1].name not in given:
            pieces.pop()
        return pieces, given

    def _only_allowed(self, node: nodes.Filter, inner: Piece) -> Piece:
        if self._contract is None or inner.path is None or inner.shape.kind not in ("record", "list"):
            refuse(node, "'allowed' works on data, or on a record within it, in a subscription.")
        chosen = allowed_value(self._contract, ".".join(inner.path), inner.shape, self._allowed)
        python = self._constants.call(chosen, inner.python)
        left = frozenset(carried for carried in inner.carried if carried.personal_data in self._allowed)
        return Piece(python, inner.shape, left)

    _METHODS: Mapping[type[nodes.Node], Callable[..., Piece]] = {
        nodes.Name: _name, nodes.Getattr: _access, nodes.Getitem: _access, nodes.Const: _constant,
        nodes.List: _list, nodes.Tuple: _list, nodes.Dict: _dict,
        nodes.Add: _binary, nodes.Sub: _binary, nodes.Mul: _binary, nodes.Div: _binary,
        nodes.FloorDiv: _binary, nodes.Mod: _binary, nodes.Neg: _sign, nodes.Pos: _sign, nodes.Not: _not,
        nodes.And: _and_or, nodes.Or: _and_or, nodes.Compare: _compare, nodes.Concat: _concat,
        nodes.CondExpr: _condition, nodes.Test: _test, nodes.Filter: _filter,
    }  # fmt: skip


_ARITHMETIC: Mapping[type[nodes.Node], type[ast.operator]] = {
    nodes.Add: ast.Add, nodes.Sub: ast.Sub, nodes.Mul: ast.Mult, nodes.Div: ast.Div,
    nodes.FloorDiv: ast.FloorDiv, nodes.Mod: ast.Mod,
}  # fmt: skip
_COMPARISONS: Mapping[str, type[ast.cmpop]] = {
    "eq": ast.Eq, "ne": ast.NotEq, "gt": ast.Gt, "gteq": ast.GtE, "lt": ast.Lt, "lteq": ast.LtE,
    "in": ast.In, "notin": ast.NotIn,
}  # fmt: skip


def _check_argument(node: nodes.Filter, value: nodes.Expr, parameter: Parameter, piece: Piece) -> None:
    if piece.shape.nullable and piece.shape.kind != "unknown" and parameter.kinds:
        refuse(value, f"The argument '{parameter.name}' of '{node.name}' can be null.")
    if parameter.kinds and piece.shape.kind not in parameter.kinds | {"unknown"}:
        words = shapes.words(parameter.kinds)
        refuse(value, f"The argument '{parameter.name}' of '{node.name}' is {words}, not {piece.shape.word}.")
    if not parameter.literal:
        return
    if not isinstance(value, nodes.Const):
        refuse(
            value,
            f"The argument '{parameter.name}' of '{node.name}' is written out: it is checked when the file is read.",
        )
    if parameter.choices and value.value not in parameter.choices:
        hint = did_you_mean(str(value.value), parameter.choices) or listed(parameter.choices)
        refuse(value, f"'{parameter.name}' of '{node.name}' cannot be that.{hint}")
    if parameter.format:
        reason = filter_table.bad_format(str(value.value))
        if reason:
            refuse(value, f"The format of '{node.name}' {reason}.")


def _default_of(known: Filter, parameter: Parameter) -> Any:
    return inspect.signature(known.call).parameters[parameter.name].default


def _arithmetic(kinds: set[Any], node: nodes.BinExpr) -> Shape:
    if isinstance(node, nodes.Div):
        return NUMBER if kinds <= {"integer", "number"} else UNKNOWN.present()
    if kinds == {"integer"}:
        return INTEGER
    return NUMBER if kinds <= {"integer", "number"} else UNKNOWN.present()


def _carried(pieces: Iterable[Piece]) -> frozenset[Carried]:
    return frozenset().union(*(piece.carried for piece in pieces))


def _place(piece: Piece) -> str:
    return "'data." + ".".join(piece.path) + "'" if piece.path else "This"


def _why_not(node: nodes.Node) -> str:
    if isinstance(node, nodes.Call):
        return "Nothing can be called here; what is done to values are filters: 'data.name | upper'."
    if isinstance(node, nodes.Pow):
        return "'**' is not available."
    return "This is not part of the language of subscriptions."
