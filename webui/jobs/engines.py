"""The loaded models of one device."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from adaflow_core.progress import Monitor, Progress, Report, Stop

if TYPE_CHECKING:
    from adaflow_core import AdaFlow
    from webui.jobs.safety import SafetyChecker

_MOST_LOADED = 2  # the page's own model and one that a visitor chose


class Engines:
    """The most recently used engines, each on `gpus` GPUs, in the precision `dtype`.

    `public`: load each checkpoint's safety checker as well, if it has one.
    """

    def __init__(self, device: str, public: bool = False, gpus: int = 1, dtype: str = "auto") -> None:
        self.device, self.public, self.gpus, self.dtype = device, public, gpus, dtype
        self._loaded: OrderedDict[str, tuple[AdaFlow, SafetyChecker | None]] = OrderedDict()
        self._loading = threading.Lock()

    def get(self, model: str) -> AdaFlow | None:
        """The engine of a model, or None if it is not loaded."""
        pair = self._loaded.get(model)
        return pair and pair[0]

    def load(
        self, model: str, report: Report | None = None, stop: Stop | None = None
    ) -> tuple[AdaFlow, SafetyChecker | None]:
        """A model's engine and safety checker. The first call loads them: seconds, or minutes with a download."""
        if report is not None:
            report(Progress("load", 0, 1, 0.0))
        with self._loading:
            if model not in self._loaded:
                # Imported here so that the page does not wait for it to start.
                from webui.jobs.safety import load_safety_checker

                if len(self._loaded) >= _MOST_LOADED:
                    self._make_room()
                checker = load_safety_checker(model, self.device, Monitor(report, stop)) if self.public else None
                self._loaded[model] = self._make(model, report, stop), checker
            self._loaded.move_to_end(model)
            return self._loaded[model]

    def _make_room(self) -> None:
        """Free the least recently used models before the next one is loaded."""
        import torch

        while len(self._loaded) >= _MOST_LOADED:
            self._loaded.popitem(last=False)
        gc.collect()  # fused modules lie in cycles of references
        torch.cuda.empty_cache()  # does nothing where no GPU is in use

    def _make(self, model: str, report: Report | None, stop: Stop | None) -> AdaFlow:
        from adaflow_core import AdaFlow

        if self.gpus == 1:
            return AdaFlow.from_pretrained(model, device=self.device, dtype=self.dtype, progress=report, stop=stop)
        from adaflow_core.several.engine import TeamEngine

        return TeamEngine.of(model, self.gpus, device=self.device, dtype=self.dtype, progress=report, stop=stop)
