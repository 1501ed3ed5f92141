"""AdaFlow: text-driven editing of long videos with a text-to-image diffusion model, without training."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaflow_core.config import PRESETS, EditConfig, PlanConfig
    from adaflow_core.engine import AdaFlow
    from adaflow_core.errors import AdaFlowError, Stopped
    from adaflow_core.picture.full_size import deliver_edit
    from adaflow_core.progress import Progress
    from adaflow_core.several.engine import TeamEngine
    from adaflow_core.types import EditResult, Plan
    from adaflow_core.version import __version__

# Rounds that OpenMP's threads (GCC's, as in torch's wheels for Linux) wait for each other before they sleep, by default
# 300,000. Where something else runs beside, as a browser does, they wait for one that has no processor: with one busy
# process on two cores an edit took 19 times as long, with this 2.5 times; alone it is 4 % slower. Read when torch is
# first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

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
    "TeamEngine",
    "__version__",
    "deliver_edit",
]

_MODULES = {
    "config": ("PRESETS", "EditConfig", "PlanConfig"),
    "engine": ("AdaFlow",),
    "errors": ("AdaFlowError", "Stopped"),
    "picture.full_size": ("deliver_edit",),
    "progress": ("Progress",),
    "several.engine": ("TeamEngine",),
    "types": ("EditResult", "Plan"),
    "version": ("__version__",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: `--help`, bad arguments and the decoding process must not wait for torch.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
