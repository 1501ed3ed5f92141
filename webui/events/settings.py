"""Settings among the parameters of an event's handler."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from webui.components.settings import EDIT, PLAN

Handler = TypeVar("Handler", bound=Callable[..., Any])
ALL = (*PLAN, *EDIT)
FORECAST = ("steps", "injection_attention", "guidance")  # settings of the edit that a plan's forecast needs


def named(*names: str) -> Callable[[Handler], Handler]:
    """A handler whose last parameter is `*shown` takes what these settings show, by these names in the API."""

    def name(handler: Handler) -> Handler:
        own = [p for p in signature(handler).parameters.values() if p.kind is not Parameter.VAR_POSITIONAL]
        taken = [Parameter(each, Parameter.POSITIONAL_OR_KEYWORD) for each in names]
        handler.__signature__ = Signature([*own, *taken])  # type: ignore[attr-defined]
        return handler

    return name
