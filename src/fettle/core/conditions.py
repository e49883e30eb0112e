"""Known constraints: expressions over parameters, parsed against a whitelist and never run as Python code.

Allowed: parameter names and dotted paths, numbers, strings, True, False, None, + - * / // % **, comparisons
(chains, `in` and `not in` a tuple or list), and, or, not, min, max, abs. An expression that mentions an inactive
parameter does not apply. One that divides by zero or overflows does not hold.
"""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import SpaceError

MAX_LENGTH = 500
MAX_DEPTH = 25
MAX_EXPONENT = 64

_Node = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """`text` over the parameters `names` (full paths)."""

    text: str
    names: tuple[str, ...]
    _test: _Node

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether flat, canonical params satisfy it."""
        if not all(name in params for name in self.names):
            return True
        try:
            return bool(self._test(params))
        except (ArithmeticError, ValueError):
            return False
        except TypeError as error:
            raise SpaceError(f"where {self.text!r}: {error}") from error


def compile_condition(text: str, known: Collection[str], prefix: str = "") -> Condition:
    """Parse an expression whose names are relative to `prefix`; raises SpaceError."""
    parser = _Parser(text, known, prefix)
    test = parser.node(_parse(text), 0)
    if not parser.names:
        raise SpaceError(f"where {text!r} mentions no parameter", f"known: {', '.join(known)}")
    return Condition(text, tuple(dict.fromkeys(parser.names)), test)


def names_in(text: str) -> set[str]:
    """The (relative) parameter names that an expression mentions."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.Attribute | ast.Name):
            found.add(ast.unparse(node))
            return
        for child in ast.iter_child_nodes(node):
            if not (isinstance(node, ast.Call) and child is node.func):
                walk(child)

    walk(_parse(text))
    return found


def _parse(text: str) -> ast.expr:
    if not isinstance(text, str) or not text.strip():
        raise SpaceError(f"where: expected an expression, got {text!r}", 'write where=["workers * threads <= 4"]')
    if len(text) > MAX_LENGTH:
        raise SpaceError(f"where: an expression of {len(text)} characters, at most {MAX_LENGTH} are allowed")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpaceError(f"where {text!r}: not an expression", 'write where=["workers * threads <= 4"]') from error


def _numbers(*values: Any) -> None:
    for value in values:
        if not isinstance(value, int | float):
            raise TypeError(f"expected a number, got {value!r}; compare text with ==, != or in")


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > MAX_EXPONENT:
        raise OverflowError("exponent too large")
    return math.pow(base, exponent)  # never a huge integer, never a complex number


def _numeric(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*values: Any) -> Any:
        _numbers(*values)
        return function(*values)

    return checked


_BINARY: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _numeric(operator.add),
    ast.Sub: _numeric(operator.sub),
    ast.Mult: _numeric(operator.mul),
    ast.Div: _numeric(operator.truediv),
    ast.FloorDiv: _numeric(operator.floordiv),
    ast.Mod: _numeric(operator.mod),
    ast.Pow: _numeric(_power),
}
_UNARY: dict[type[ast.AST], Callable[..., Any]] = {
    ast.USub: _numeric(operator.neg),
    ast.UAdd: _numeric(operator.pos),
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: _numeric(operator.lt),
    ast.LtE: _numeric(operator.le),
    ast.Gt: _numeric(operator.gt),
    ast.GtE: _numeric(operator.ge),
    ast.In: lambda value, group: value in group,
    ast.NotIn: lambda value, group: value not in group,
}
_CALLS: dict[str, Callable[..., Any]] = {"min": _numeric(min), "max": _numeric(max), "abs": _numeric(abs)}


class _Parser:
    """Turns a syntax tree into nested functions, and gathers the names that it meets."""

    def __init__(self, text: str, known: Collection[str], prefix: str) -> None:
        self.text = text
        self.known = known
        self.prefix = prefix
        self.names: list[str] = []

    def refuse(self, what: str) -> SpaceError:
        allowed = "arithmetic, comparisons, and, or, not, in, min, max, abs over parameters, numbers and strings"
        return SpaceError(f"where {self.text!r}: {what}", f"allowed are {allowed}")

    def node(self, tree: ast.AST, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self.refuse(f"nested more than {MAX_DEPTH} deep")
        depth += 1
        match tree:
            case ast.Constant(value=value) if value is None or isinstance(value, str | int | float):
                return lambda params: value
            case ast.Name() | ast.Attribute():
                return self.name(tree)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                function, a, b = _BINARY[type(op)], self.node(left, depth), self.node(right, depth)
                return lambda params: function(a(params), b(params))
            case ast.UnaryOp(op=unary, operand=operand) if type(unary) in _UNARY:
                single, inner = _UNARY[type(unary)], self.node(operand, depth)
                return lambda params: single(inner(params))
            case ast.BoolOp(op=joint, values=values):
                parts = [self.node(value, depth) for value in values]
                if isinstance(joint, ast.And):
                    return lambda params: all(part(params) for part in parts)
                return lambda params: any(part(params) for part in parts)
            case ast.Compare():
                return self.comparison(tree, depth)
            case ast.Call(func=ast.Name(id=called), args=args, keywords=[]) if called in _CALLS and args:
                call, arguments = _CALLS[called], [self.node(argument, depth) for argument in args]
                if (called == "abs") != (len(arguments) == 1):
                    raise self.refuse(f"{called}() takes {'one number' if called == 'abs' else 'two numbers or more'}")
                return lambda params: call(*(argument(params) for argument in arguments))
        raise self.refuse(f"{ast.unparse(tree)!r} is not allowed")

    def comparison(self, tree: ast.Compare, depth: int) -> _Node:
        sides = [self.node(tree.left, depth)]
        tests = []
        for op, side in zip(tree.ops, tree.comparators, strict=True):
            if type(op) not in _COMPARE:
                raise self.refuse("`is` is not allowed, use ==")
            if isinstance(op, ast.In | ast.NotIn):
                if not isinstance(side, ast.Tuple | ast.List):
                    raise self.refuse("`in` needs a tuple or list")
                sides.append(self.group(side, depth))
            else:
                sides.append(self.node(side, depth))
            tests.append(_COMPARE[type(op)])

        def compare(params: Mapping[str, Any]) -> bool:
            left = sides[0](params)
            for test, side in zip(tests, sides[1:], strict=True):
                right = side(params)
                if not test(left, right):
                    return False
                left = right
            return True

        return compare

    def group(self, side: ast.Tuple | ast.List, depth: int) -> _Node:
        members = [self.node(member, depth + 1) for member in side.elts]
        return lambda params: tuple(member(params) for member in members)

    def name(self, tree: ast.AST) -> _Node:
        root = tree
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name):
            raise self.refuse(f"{ast.unparse(tree)!r} is not allowed")
        full = self.prefix + ast.unparse(tree)
        if full not in self.known:
            here = [name.removeprefix(self.prefix) for name in self.known if name.startswith(self.prefix)]
            raise SpaceError(
                f"where {self.text!r}: unknown parameter {ast.unparse(tree)!r}", f"known: {', '.join(here) or 'none'}"
            )
        self.names.append(full)
        return lambda params: params[full]
