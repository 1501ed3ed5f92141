"""The loaded models of one device."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from adaflow_core.progress import Monitor
from webui.jobs.queue import Report, Stop

if TYPE_CHECKING:
    from adaflow_core import AdaFlow
    from webui.jobs.safety import SafetyChecker

_MOST_LOADED = 2  # the page's own model and one that a visitor chose


class Engines:
    """The most recently used engines. `public`: each with its checkpoint's safety checker, if it has one."""

    def __init__(self, device: str, public: bool = False) -> None:
        self.device, self.public = device, public
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
        with self._loading:
            if model not in self._loaded:
                # Imported here: the page starts without waiting for it.
                from adaflow_core import AdaFlow
                from webui.jobs.safety import load_safety_checker

                while len(self._loaded) >= _MOST_LOADED:  # frees memory before the next model is loaded
                    self._loaded.popitem(last=False)
                checker = load_safety_checker(model, self.device, Monitor(report, stop)) if self.public else None
                engine = AdaFlow.from_pretrained(model, device=self.device, progress=report, stop=stop)
                self._loaded[model] = engine, checker
            self._loaded.move_to_end(model)
            return self._loaded[model]
