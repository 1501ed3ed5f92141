"""AdaFlow: text-driven editing of long videos with a text-to-image diffusion model, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaflow_core.config import PRESETS, EditConfig, PlanConfig
from adaflow_core.types import AdaFlowError, EditResult, Plan, Progress, Stopped
from adaflow_core.version import __version__

if TYPE_CHECKING:
    from adaflow_core.engine import AdaFlow

__all__ = [
    "PRESETS",
    "AdaFlow",
    "AdaFlowError",
    "EditConfig",
    "EditResult",
    "Plan",
    "PlanConfig",
    "Progress",
    "Stopped",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # The engine pulls torch's heavier parts in; `--help` and bad arguments must not wait for them.
    if name == "AdaFlow":
        from adaflow_core.engine import AdaFlow

        return AdaFlow
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
