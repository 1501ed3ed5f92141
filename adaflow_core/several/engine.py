"""The engine on several GPUs of one machine: one process for each, which edit a film together.

It is used as `AdaFlow` is, and every method returns the same except for rounding.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch

from adaflow_core.config import ModelProfile
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.loading import fits_half, load_backbone, model_folder
from adaflow_core.progress import Monitor, Report, Stop
from adaflow_core.storage.cache import Cache
from adaflow_core.team.cache import SharedCache
from adaflow_core.team.processes import Processes, Server
from adaflow_core.team.team import Team
from adaflow_core.types import Embedding

# The public methods of the engine, and whether each takes `progress` and `stop`.
_METHODS = {
    name: "progress" in inspect.signature(method).parameters
    for name, method in vars(AdaFlow).items()
    if inspect.isfunction(method) and not name.startswith("_")
}


class TeamEngine(AdaFlow):
    """An engine of `gpus` processes, started by the first call; each calls `load`, which must be picklable.

    Any method raises AdaFlowError if a process ends, e.g. out of memory; the next call starts new ones.
    """

    def __init__(self, load: Callable[[], Backbone], gpus: int, cache: Cache | None = None) -> None:
        self.cache = cache or Cache.default()
        self.processes = Processes(partial(_serve, load, self.cache.root, self.cache.limit_bytes), gpus)
        self._about: tuple[str, ModelProfile, torch.device] | None = None
        weakref.finalize(self, self.processes.close)  # at the latest when the program ends

    @classmethod
    def of(
        cls,
        model: str = "embedded",
        gpus: int = 2,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        loras: Sequence[str] = (),
        vae: str = "",
        embeddings: Sequence[str] = (),
        cache: Cache | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> TeamEngine:
        """As `AdaFlow.from_pretrained`. On a CPU `gpus` is the number of processes, which share the cores out."""
        kind, _, number = device.partition(":")
        if number and kind != "cpu" and gpus > 1:
            raise AdaFlowError(
                f"device {device!r} is one GPU and {gpus} are asked for; give --device {kind}, and choose GPUs by "
                "CUDA_VISIBLE_DEVICES"
            )
        on_gpu = kind != "cpu" and torch.cuda.is_available()
        if on_gpu and torch.cuda.device_count() < gpus:
            raise AdaFlowError(f"{gpus} GPUs are asked for, this machine has {torch.cuda.device_count()}")
        parts = ModelParts.parse(model).with_more(loras, vae, embeddings)
        half = fits_half(dtype, torch.device("cuda" if on_gpu else "cpu"))
        model_folder(parts.model, half=half, monitor=Monitor(progress, stop))  # once for all
        engine = cls(partial(load_backbone, parts, device=device, dtype=dtype, attention=attention), gpus, cache)
        engine._learn(stop)
        return engine

    def _learn(self, stop: Stop | None = None) -> tuple[str, ModelProfile, torch.device]:
        if self._about is None:
            self._about = self.processes.call("about", (), {}, None, stop)
        return self._about

    @property
    def busy(self) -> bool:
        """Whether the processes are in the middle of a call, such as an edit: any other one waits for its end."""
        return self.processes.busy

    @property
    def profile(self) -> ModelProfile:
        return self._learn()[1]

    @property
    def device(self) -> torch.device:
        return self._learn()[2]


def _asked(name: str) -> Callable[..., Any]:
    """Return the method `name` of `AdaFlow`, carried out by the processes together."""

    @wraps(getattr(AdaFlow, name))
    def ask(self: TeamEngine, *args: Any, **kwargs: Any) -> Any:
        report, stop = kwargs.pop("progress", None), kwargs.pop("stop", None)
        return self.processes.call(name, args, kwargs, report, stop)

    return ask


for _name in _METHODS:
    setattr(TeamEngine, _name, _asked(_name))


def _serve(load: Callable[[], Backbone], root: Path, limit_bytes: int, team: Team) -> Server:
    """Load the engine of one process of the team, and return the function that answers calls."""
    if torch.cuda.is_available():
        torch.cuda.set_device(team.rank % torch.cuda.device_count())
    backbone = replace(load(), team=team)
    # NCCL connects the GPUs in the first exchange, which takes seconds.
    team.gather(torch.zeros(1, device=backbone.device), team.size)
    if backbone.device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // team.size))
    engine = AdaFlow(backbone, SharedCache(root, limit_bytes, team=team))

    def answer(name: str, args: Any, kwargs: dict[str, Any], report: Report | None, stop: Stop) -> object:
        if name == "about":
            return backbone.name, engine.profile, backbone.device
        followed = {"progress": report, "stop": stop} if _METHODS[name] else {}
        result = getattr(engine, name)(*args, **kwargs, **followed)
        # The process that asks uses no GPU.
        return replace(result, prompt_embeds=result.prompt_embeds.cpu()) if isinstance(result, Embedding) else result

    return answer
