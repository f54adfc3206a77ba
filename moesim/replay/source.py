"""The source of one module that numba can compile and cache: functions gathered from where they are written.

numba caches a function on disk by the file that it stands in and does not see changes of what that file imports. So
everything that an entry point calls is written into one file, whose name carries a hash of its content.

Two things change on the way. Names get their module's name in front, so that a policy's ``_before`` and a structure's
``_before`` can stand side by side. And indices become unsigned: an array then needs no test for an index from the
end, which costs a quarter of the time. Compiled functions must therefore not index from the end with a variable
(``state[-1]`` stays what it is); the tests run every policy on lists that refuse it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from moesim.errors import PolicyError

_HEAD = '"""Generated from {origin}; safe to delete."""\n\nimport numpy as np\nfrom numba import njit\n'


def module_source(
    entries: Iterable[FunctionType], stand_ins: Mapping[str, Any], place_of_stand_ins: str, origin: str
) -> str:
    """A module with ``entries``, compiled and cached, and with all that they call, compiled into them.

    Args:
        entries: functions to call from Python; their names in the module are their own.
        stand_ins: by name, what to call in place of a function of the module ``place_of_stand_ins``.
        origin: for the docstring.

    Raises:
        PolicyError: a function that can't be compiled from its source, with the reason.
    """
    gatherer = _Gatherer(stand_ins, place_of_stand_ins)
    for entry in entries:
        gatherer.add(entry, entry.__name__, "@njit(cache=CACHE, nogil=True)")
    parts = [_HEAD.format(origin=origin), *gatherer.sources(), ""]
    return "\n\n".join(parts)


class _Gatherer:
    """Functions found so far, by the name that each has in the generated module."""

    def __init__(self, stand_ins: Mapping[str, Any], place_of_stand_ins: str):
        self._stand_ins, self._place = stand_ins, place_of_stand_ins
        self._names: dict[Callable[..., Any], str] = {}
        self._found: list[tuple[FunctionType, str]] = []

    def add(self, function: FunctionType, name: str, decorator: str) -> str:
        self._names[function] = name
        self._found.append((function, decorator))
        return name

    def sources(self) -> Iterable[str]:
        for function, decorator in self._found:  # grows meanwhile
            yield f"{decorator}\n{self._source(function)}"

    def _source(self, function: FunctionType) -> str:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        except (OSError, TypeError, SyntaxError):
            raise _refusal(function, "has no source text that can be read") from None
        if not isinstance(tree, ast.FunctionDef):
            raise _refusal(function, "is not a plain function")
        tree = _Rewriter(self, function).visit(tree)
        tree.name, tree.decorator_list = self._names[function], []
        return ast.unparse(ast.fix_missing_locations(tree))

    def name_of(self, found: Any, user: FunctionType, name: str) -> ast.expr:
        """What stands for a global of ``user`` in the generated module."""
        if isinstance(found, FunctionType):
            if found.__module__ == self._place and found.__name__ in self._stand_ins:
                found = self._stand_ins[found.__name__]
            if found not in self._names:
                self.add(found, f"{found.__module__.rpartition('.')[2]}_{found.__name__.lstrip('_')}", "@njit")
                if list(self._names.values()).count(self._names[found]) > 1:
                    self._names[found] += f"_{len(self._names)}"
            return ast.Name(self._names[found], ast.Load())
        if isinstance(found, ModuleType) and found.__name__ == "numpy":
            return ast.Name("np", ast.Load())
        if isinstance(found, (bool, int, float)):
            return ast.Constant(found)
        raise _refusal(user, f"uses {name!r}, which is neither a number, a plain function nor numpy")


class _Rewriter(ast.NodeTransformer):
    """Rewrites one function: global names, unsigned indices, no annotations, no docstrings."""

    def __init__(self, gatherer: _Gatherer, function: FunctionType):
        self._gatherer, self._function = gatherer, function

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:  # noqa: N802 (the visitor's protocol)
        node.returns = None
        for argument in node.args.args:
            argument.annotation = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign:  # noqa: N802
        assert node.value is not None
        return ast.Assign([self.visit(node.target)], self.visit(node.value))

    def visit_Name(self, node: ast.Name) -> ast.expr:  # noqa: N802
        name, function = node.id, self._function
        if isinstance(node.ctx, ast.Store) or name in function.__code__.co_varnames:
            return node
        if name not in function.__globals__:
            return node  # a builtin
        return self._gatherer.name_of(function.__globals__[name], function, name)

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:  # noqa: N802
        self.generic_visit(node)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if not any(isinstance(part, ast.Slice) for part in parts):
            indices = [part if _is_constant(part) else _unsigned(part) for part in parts]
            node.slice = ast.Tuple(indices, ast.Load()) if len(indices) > 1 else indices[0]
        return node


def _is_constant(index: ast.expr) -> bool:
    return isinstance(index, ast.Constant) or (
        isinstance(index, ast.UnaryOp) and isinstance(index.operand, ast.Constant)
    )


def _unsigned(index: ast.expr) -> ast.expr:
    cast = ast.Attribute(ast.Name("np", ast.Load()), "uint64", ast.Load())
    return ast.Call(cast, [index], [])


def _refusal(function: FunctionType, reason: str) -> PolicyError:
    place = f"{function.__module__}.{function.__qualname__}"
    error = PolicyError.of(place, f"can't be compiled: it {reason}", "`moesim run` simulates it uncompiled")
    assert isinstance(error, PolicyError)
    return error
