"""The run-time checks of the package's annotations: what jaxtyping's own decorator
checks, in a third of its time.

jaxtyping looks at a function's signature in every call, checks every argument twice, and
builds its checks anew whenever a function inside another is defined. Here they are built
once for each function in the source, when it is first called.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

_jaxtyped = jaxtyping.jaxtyped

# An int may be a float, as PEP 484 says.
checked = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError
    )
)

# What checks the arguments, and what checks the result and returns it.
_Checks = tuple[Callable[..., None], Callable[[Any], Any]]

_checks: dict[tuple[object, ...], _Checks] = {}


def install() -> None:
    """Check every annotation of the package from its first import on."""
    jaxtyping.install_import_hook("unitscope", f"{__name__}.checked")
    # The name that the hook's decorators look up.
    jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]


def jaxtyped(one: Any = None, *, typechecker: Any) -> Any:
    """jaxtyping's decorator of functions and data classes."""
    if one is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if isinstance(one, type):
        own = vars(one).get("__init__")
        if dataclasses.is_dataclass(one) and isinstance(own, FunctionType):
            one.__init__ = _checking(own)  # type: ignore[method-assign]
        return one
    if one.__name__ in ("__enter__", "__exit__"):
        # An interrupt in a check would come between the two halves of a `with`.
        return one
    if any("{" in str(hint) for hint in one.__annotations__.values()):
        # An axis that an argument names: only jaxtyping itself knows how.
        return _jaxtyped(one, typechecker=typechecker)
    return _checking(one)


def _checking(function: FunctionType) -> Callable[..., Any]:
    checks: _Checks | None = None

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checks
        if jaxtyping.config.jaxtyping_disable:
            return function(*arguments, **named)
        if checks is None:
            checks = _checks_of(function)
        check_arguments, check_result = checks
        # One size for each name of an axis, in the arguments and the result.
        with _jaxtyped("context"):
            check_arguments(*arguments, **named)
            return check_result(function(*arguments, **named))

    return called


def _checks_of(function: FunctionType) -> _Checks:
    """The checks of a function, which all that one `def` makes share."""
    key = (function.__module__, function.__qualname__, function.__code__)
    if key not in _checks:
        signature = inspect.signature(function)
        _checks[key] = (
            _arguments_check(function, signature),
            _result_check(function, signature),
        )
    return _checks[key]


def _arguments_check(
    function: FunctionType, signature: inspect.Signature
) -> Callable[..., None]:
    """A function of the same arguments that only checks them."""
    bare = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty
            if parameter.default is parameter.empty
            else None,
        )
        for parameter in signature.parameters.values()
    ]
    scope: dict[str, Any] = {}
    exec(f"def check{inspect.Signature(bare)}: pass", scope)
    check: FunctionType = scope["check"]
    check.__defaults__ = function.__defaults__
    check.__kwdefaults__ = function.__kwdefaults__
    hints = {
        name: _resolved(parameter.annotation, function)
        for name, parameter in signature.parameters.items()
        if parameter.annotation is not parameter.empty
    }
    return _hinted(check, hints, function)


def _result_check(
    function: FunctionType, signature: inspect.Signature
) -> Callable[[Any], Any]:
    """A function that checks a result, and returns it."""

    def check(result):  # type: ignore[no-untyped-def]
        return result

    if signature.return_annotation is signature.empty:
        return check
    hint = _resolved(signature.return_annotation, function)
    return _hinted(check, {"return": hint}, function)


def _hinted(
    check: Callable[..., Any], hints: dict[str, Any], function: FunctionType
) -> Callable[..., Any]:
    """The check that its hints make, under the function's name."""
    check.__annotations__ = hints
    check.__module__ = function.__module__
    check.__name__ = function.__name__
    check.__qualname__ = function.__qualname__
    hinted: Callable[..., Any] = checked(check)
    return hinted


def _resolved(hint: Any, function: FunctionType) -> Any:
    """What an annotation's text means; anything, where only the type checker imports
    its names."""

    def holder() -> None: ...

    holder.__annotations__ = {"it": hint}
    try:
        return typing.get_type_hints(
            holder, function.__globals__, include_extras=True
        )["it"]
    except NameError:
        return Any
