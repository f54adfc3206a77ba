"""The source of one module that numba can compile and cache: functions gathered from where they are written.

numba caches a function on disk by the file that it stands in and does not see changes of what that file imports. So
everything that an entry point calls is written into one file, whose name carries a hash of its content.

Four things change on the way. Names get their module's name in front, so that a policy's ``_before`` and a structure's
``_before`` can stand side by side. A parameter that is annotated with a dataclass of arrays becomes one parameter for
each array that the function needs: numba is several times slower with arrays inside an object. And indices become
unsigned: an array then needs no test for an index from the end, which costs a quarter of the time. Compiled functions
must therefore not index from the end with a variable (``state[-1]`` stays what it is); the tests run every policy on
lists that refuse it. And what a function without arguments that returns a constant decides is decided here, so that
what does not come up is not compiled.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from moesim.errors import CompileError

_HEAD = '"""Generated from {origin}; safe to delete."""\n\nimport numpy as np\nfrom numba import njit\n'
# Nobody calls inner functions from Python: no wrappers. Where it is quick, they are inlined: a call passes every array.
_ENTRY = "@njit(cache=CACHE, nogil=True, _nrt=False{more})"
_CALLED = "@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False{more})"
_INLINE = "@njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False{more})"
#: For code that moesim's tests have not run: an index outside of an array raises, instead of writing somewhere.
_CHECKED = ", boundscheck=True"


def module_source(
    entries: Sequence[FunctionType],
    stand_ins: Mapping[str, Any],
    place_of_stand_ins: str,
    origin: str,
    called: Collection[str] = (),
    *,
    checked: bool = False,
) -> str:
    """A module with ``entries``, compiled and cached, and with all that they call, compiled into them.

    Args:
        entries: functions to call from Python; their names in the module are their own.
        stand_ins: by name, what to call in place of a function of the module ``place_of_stand_ins``.
        origin: for the docstring.
        called: modules whose functions are called; those of others are inlined.
        checked: whether an index outside of its array raises IndexError.

    Raises:
        CompileError: a function that can't be compiled from its source, with the reason.
    """
    gatherer = _Gatherer(stand_ins, place_of_stand_ins, called, _CHECKED if checked else "")
    return "\n\n".join([_HEAD.format(origin=origin), *gatherer.sources(entries), ""])


class _Function:
    """A function's syntax tree, pruned, and which of its parameters are dataclasses of arrays.

    Args:
        decided: what a function without arguments always returns, None where that is not known.
    """

    def __init__(self, function: FunctionType, decided: Callable[[FunctionType], Any]):
        self.function = function
        tree = _Pruner(self.resolve, decided).visit(_tree(function))
        self.tree = tree
        self.parameters = [argument.arg for argument in tree.args.args]
        #: Of each parameter that is a dataclass of arrays: all its arrays.
        self.arrays = {
            argument.arg: [field.name for field in fields(kind)]
            for argument in tree.args.args
            if isinstance(argument.annotation, ast.Name)
            and is_dataclass(kind := function.__globals__.get(argument.annotation.id))
        }

    def resolve(self, name: str) -> Any:
        """What a name means here, None for the function's own names and for builtins."""
        return None if name in self.function.__code__.co_varnames else self.function.__globals__.get(name)

    def expands(self, expression: ast.expr) -> bool:
        """Whether it is a parameter that becomes several."""
        return isinstance(expression, ast.Name) and expression.id in self.arrays


def _tree(function: FunctionType) -> ast.FunctionDef:
    """A function's syntax tree, without its docstring; a copy, to be changed."""
    copy: ast.FunctionDef = _copied(_parsed(function))
    return copy


def _copied(node: Any) -> Any:
    """A copy of a syntax tree without places in the source: ``deepcopy`` takes ten times as long."""
    if isinstance(node, list):
        return [_copied(part) for part in node]
    if not isinstance(node, ast.AST):
        return node
    return type(node)(**{field: _copied(getattr(node, field)) for field in node._fields if hasattr(node, field)})


@cache
def _parsed(function: FunctionType) -> ast.FunctionDef:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        raise _refusal(function, "has no source text that can be read") from None
    if not isinstance(tree, ast.FunctionDef):
        raise _refusal(function, "is not a plain function")
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:] or [ast.Pass()]
    return tree


class _Pruner(ast.NodeTransformer):
    """Takes away what is decided already: branches on functions that always return the same."""

    def __init__(self, resolve: Callable[[str], Any], decided: Callable[[FunctionType], Any]):
        self._resolve, self._decided = resolve, decided

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        callee = self._resolve(node.func.id) if isinstance(node.func, ast.Name) and not node.args else None
        value = self._decided(callee) if isinstance(callee, FunctionType) else None
        return node if value is None else ast.Constant(value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        is_decided = isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant)
        return ast.Constant(not node.operand.value) if is_decided else node  # type: ignore[attr-defined]

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        goes_on = isinstance(node.op, ast.And)  # True goes on through "and", False through "or"
        values = [value for value in node.values if not _is(value, goes_on)]
        if any(_is(value, not goes_on) for value in values[:1]):
            return ast.Constant(not goes_on)
        if len(values) < 2:
            return values[0] if values else ast.Constant(goes_on)
        node.values = values
        return node

    def visit_If(self, node: ast.If) -> ast.If | list[ast.stmt]:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        node.body = node.body or [ast.Pass()]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node


def _is(expression: ast.expr, value: bool) -> bool:
    return isinstance(expression, ast.Constant) and expression.value is value


class _Gatherer:
    """Collects functions from the entries on, and gives each a name of its own."""

    def __init__(self, stand_ins: Mapping[str, Any], place_of_stand_ins: str, called: Collection[str], more: str):
        self._stand_ins, self._place, self._called, self._more = stand_ins, place_of_stand_ins, called, more
        self._names: dict[FunctionType, str] = {}
        self._functions: dict[FunctionType, _Function] = {}
        self._needed: dict[FunctionType, dict[str, list[str]]] = {}

    def sources(self, entries: Sequence[FunctionType]) -> Iterator[str]:
        """Every function's source, the entries first."""
        self._names.update((entry, entry.__name__) for entry in entries)
        done = 0
        while done < len(self._names):
            function, name = list(self._names.items())[done]
            here, is_entry = self.function(function), done < len(entries)
            tree = _Rewriter(self, here, here.arrays if is_entry else self.needs(function)).visit(_copied(here.tree))
            tree.name, tree.decorator_list = name, []
            decorator = _ENTRY if is_entry else _CALLED if function.__module__ in self._called else _INLINE
            decorator = decorator.format(more=self._more)
            yield f"{decorator}\n{ast.unparse(ast.fix_missing_locations(tree))}"
            done += 1

    def function(self, function: FunctionType) -> _Function:
        """A function, read once."""
        if function not in self._functions:
            self._functions[function] = _Function(function, self._decided)
        return self._functions[function]

    def _decided(self, function: FunctionType) -> Any:
        """What a function without arguments always returns; None where it takes some, or does more."""
        function = self._in_place_of(function)
        if function.__code__.co_argcount or function.__module__ != self._place:
            return None
        (*_, last) = _tree(function).body
        return last.value.value if isinstance(last, ast.Return) and isinstance(last.value, ast.Constant) else None

    def _in_place_of(self, function: FunctionType) -> FunctionType:
        stands_in = function.__module__ == self._place
        found: FunctionType = self._stand_ins.get(function.__name__, function) if stands_in else function
        return found

    def needs(self, function: FunctionType) -> dict[str, list[str]]:
        """Of each parameter that is a dataclass of arrays: the arrays that are needed, in the dataclass's order."""
        if function in self._needed:
            return self._needed[function]
        here = self.function(function)
        found: dict[str, set[str]] = {parameter: set() for parameter in here.arrays}
        for node in ast.walk(here.tree):
            if isinstance(node, ast.Attribute) and here.expands(node.value):
                assert isinstance(node.value, ast.Name)
                found[node.value.id].add(node.attr)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                callee = here.resolve(node.func.id)
                for place, argument in enumerate(node.args):
                    if isinstance(argument, ast.Name) and here.expands(argument):
                        assert isinstance(callee, FunctionType)
                        found[argument.id].update(self.needs(callee)[self.function(callee).parameters[place]])
        in_order = {name: [array for array in here.arrays[name] if array in found[name]] for name in found}
        return self._needed.setdefault(function, in_order)

    def name_of(self, found: Any, user: FunctionType, name: str) -> ast.expr:
        """What stands for a global of ``user`` in the generated module."""
        if isinstance(found, FunctionType):
            found = self._in_place_of(found)
            if found not in self._names:
                plain = f"{found.__module__.rpartition('.')[2]}__{found.__name__.lstrip('_')}"
                self._names[found] = plain if plain not in self._names.values() else f"{plain}_{len(self._names)}"
            return ast.Name(self._names[found], ast.Load())
        if isinstance(found, ModuleType) and found.__name__ == "numpy":
            return ast.Name("np", ast.Load())
        if isinstance(found, (bool, int, float)):
            return ast.Constant(found)
        raise _refusal(user, f"uses {name!r}, which is neither a number, a plain function nor numpy")


class _Rewriter(ast.NodeTransformer):
    """Rewrites one function: names, parameters that become several, unsigned indices, no annotations."""

    def __init__(self, gatherer: _Gatherer, function: _Function, arrays: Mapping[str, list[str]]):
        self._gatherer, self._function, self._arrays = gatherer, function, arrays

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        expanded = [_several(name, self._arrays) for name in self._function.parameters]
        node.args.args = [ast.arg(name) for names in expanded for name in names]
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign:
        assert node.value is not None
        return ast.Assign([self.visit(node.target)], self.visit(node.value))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        found = self._function.resolve(node.id)
        if isinstance(node.ctx, ast.Store) or found is None:
            return node
        return self._gatherer.name_of(found, self._function.function, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if self._function.expands(node.value):
            assert isinstance(node.value, ast.Name)
            return ast.Name(f"{node.value.id}__{node.attr}", node.ctx)
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        callee = self._function.resolve(node.func.id) if isinstance(node.func, ast.Name) else None
        arguments: list[ast.expr] = []
        for place, argument in enumerate(node.args):
            if isinstance(argument, ast.Name) and self._function.expands(argument):
                assert isinstance(callee, FunctionType)
                gatherer = self._gatherer
                needed = gatherer.needs(callee)[gatherer.function(callee).parameters[place]]
                arguments += [ast.Name(f"{argument.id}__{name}", ast.Load()) for name in needed]
            else:
                visited = self.visit(argument)
                arguments.append(_plain(visited) if isinstance(callee, FunctionType) else visited)
        return ast.Call(self.visit(node.func), arguments, [self.visit(keyword) for keyword in node.keywords])

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        self.generic_visit(node)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if not any(isinstance(part, ast.Slice) for part in parts):
            indices = [part if _is_constant(part) else _unsigned(part) for part in parts]
            node.slice = ast.Tuple(indices, ast.Load()) if len(indices) > 1 else indices[0]
        return node


def _several(parameter: str, arrays: Mapping[str, list[str]]) -> list[str]:
    return [f"{parameter}__{name}" for name in arrays[parameter]] if parameter in arrays else [parameter]


def _is_constant(index: ast.expr) -> bool:
    return isinstance(index, ast.Constant) or (
        isinstance(index, ast.UnaryOp) and isinstance(index.operand, ast.Constant)
    )


def _plain(argument: ast.expr) -> ast.expr:
    """An argument whose type is not its value: numba would compile the function anew for each constant."""
    if not _is_constant(argument):
        return argument
    value = ast.literal_eval(argument)
    kind = "bool_" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float64"
    return ast.Call(ast.Attribute(ast.Name("np", ast.Load()), kind, ast.Load()), [argument], [])


def _unsigned(index: ast.expr) -> ast.expr:
    cast = ast.Attribute(ast.Name("np", ast.Load()), "uint64", ast.Load())
    return ast.Call(cast, [index], [])


def _refusal(function: FunctionType, reason: str) -> CompileError:
    place = f"{function.__module__}.{function.__qualname__}"
    error = CompileError.of(place, f"can't be compiled: it {reason}", "`moesim run` simulates it uncompiled")
    assert isinstance(error, CompileError)
    return error
