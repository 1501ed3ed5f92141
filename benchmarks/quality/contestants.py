"""The contestants by name: methods, and the default with one part switched off, or with one more part switched on."""

from __future__ import annotations

import ast
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from adaflow_core.config import PRESETS, EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.planning.keyframes import even_segments
from adaflow_core.planning.planner import build_layout
from adaflow_core.progress import Monitor
from adaflow_core.types import Plan

DEFAULT, JOINT = "adaflow", "joint"
COPY, BOUND = "source, copied", "truth, autoencoded"  # references for the edits, not contestants
SAME_COUNT = "adaflow@k"  # the parts of the keyframe selection are compared with it at equal cost


@dataclass(frozen=True)
class Contestant:
    """A named way to edit."""

    name: str
    text: str  # what it is, for the report
    group: Literal["method", "part", "part at equal keyframes", "variant"]
    plan: PlanConfig = field(default_factory=PlanConfig)
    edit: EditConfig = field(default_factory=EditConfig)
    against: str = DEFAULT  # the contestant that it is paired with
    as_many_keyframes: bool = False  # takes the number of keyframes that the default chose on the clip
    even: bool = False  # the default's plan with evenly spaced keyframes
    long: bool = False  # takes part on long clips

    def make_configs(self, source_prompt: str, keyframes: int | None) -> tuple[PlanConfig, EditConfig]:
        """Return its settings for a clip; `keyframes`: how many the default chose."""
        plan = replace(self.plan, source_prompt=source_prompt)
        return replace(plan, keyframes=keyframes) if self.as_many_keyframes else plan, self.edit


_paper_plan, _paper_edit = PRESETS["paper"]
_flow_plan, _flow_edit = PRESETS["tokenflow"]
# The published settings that may not suit a checkpoint; None takes the model's own values.
_OWN_STEPS: dict[str, Any] = {"steps": None, "inversion_steps": None}
_OWN_HABITS: dict[str, Any] = _OWN_STEPS | {
    "guidance": None, "guided": None, "negative_prompt": None, "injection_attention": None, "injection_conv": None,
}  # fmt: skip

METHODS: tuple[Contestant, ...] = (
    Contestant(JOINT, "every frame a keyframe, all tokens: what the others approximate", "method",
               PlanConfig(method="joint")),
    Contestant(DEFAULT, "the default preset", "method", long=True),
    Contestant("per-frame", "every frame for itself", "method", PlanConfig(method="per-frame"), long=True),
    Contestant("uniform", "evenly spaced keyframes, as many as the default's, all tokens", "method",
               PlanConfig(method="uniform"), as_many_keyframes=True, long=True),
    Contestant("tokenflow", "TokenFlow at the model's steps", "method", _flow_plan, _flow_edit, long=True),
    Contestant("tokenflow@k", "TokenFlow with as many keyframes as the default's", "method", _flow_plan, _flow_edit,
               as_many_keyframes=True),
    Contestant("paper", "--preset paper at the model's steps", "method", _paper_plan,
               replace(_paper_edit, **_OWN_STEPS)),
    Contestant("paper-adapted", "--preset paper with the model's steps, guidance and injection", "method",
               _paper_plan, replace(_paper_edit, **_OWN_HABITS), long=True),
    Contestant("paper-50", "--preset paper as it is: 50 steps, 100 of inversion", "method",
               _paper_plan, _paper_edit),
    Contestant("tokenflow-50", "TokenFlow with 50 steps and 100 of inversion", "method", _flow_plan,
               replace(_flow_edit, steps=50, inversion_steps=100)),
)  # fmt: skip

# Parts of the keyframe selection: "no-" switches one of the default's off, "with-" switches another one on.
_SELECTION: dict[str, tuple[str, dict[str, Any]]] = {
    "with-importance": ("tokens weigh more the less they are like their frame", {"importance": "distinctive"}),
    "with-scales": ("compared at three scales", {"scales": (1, 2, 4)}),
    "with-directions": ("compared from the later frame to the earlier one as well", {"both_directions": True}),
    "no-refinement": ("keyframes as first chosen", {"refinement": "none"}),
}
# The part that is switched off -> the changed settings of the plan and of the edit.
_OTHERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "blend": ("frames take from their segment's keyframe only", {"blend": False}, {}),
    "slimming": ("all tokens kept", {"prune": 0.0}, {}),
    "sampling": ("kept by score alone", {"sampled": 0.0}, {}),
    "fixed-keyframes": ("keyframes drawn anew at every step", {"resample": True}, {}),
    "change-propagation": ("frames take the edited outputs themselves", {}, {"propagation": "output"}),
    "tolerance": ("small changes count", {}, {"tolerance": 0.0}),
    "detail": ("the source is not shown where nothing changed", {}, {"detail": 0.0}),
    "fidelity": ("what inversion misses is not added back", {}, {"fidelity": 0.0}),
}

PARTS: tuple[Contestant, ...] = (
    *(Contestant(name, text, "part", PlanConfig(**plan)) for name, (text, plan) in _SELECTION.items()),
    Contestant("no-selection", "evenly spaced keyframes, as many", "part", even=True),
    *(
        Contestant(f"no-{what}", text, "part", PlanConfig(**plan), EditConfig(**edit))
        for what, (text, plan, edit) in _OTHERS.items()
    ),
    Contestant(SAME_COUNT, "the default told how many keyframes it chooses", "part at equal keyframes",
               as_many_keyframes=True),
    *(
        Contestant(f"{name}@k", text, "part at equal keyframes", PlanConfig(**plan),
                   against=SAME_COUNT, as_many_keyframes=True)
        for name, (text, plan) in _SELECTION.items()
    ),
)  # fmt: skip

EVERYONE = {who.name: who for who in (*METHODS, *PARTS)}


def parse_variants(text: str) -> list[Contestant]:
    """ "sampled=0.5;importance=uniform,scales=1+2": the default with settings changed, one contestant each."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        plan: dict[str, Any] = {}
        edit: dict[str, Any] = {}
        for change in part.split(","):
            name, _, value = (word.strip() for word in change.partition("="))
            target = plan if name in asdict(PlanConfig()) else edit if name in asdict(EditConfig()) else None
            if target is None or not value:
                raise SystemExit(f"--variants {change!r}: give SETTING=VALUE with a field of PlanConfig or EditConfig")
            target[name] = _value(name, value)
        found.append(Contestant(part, "variant of the default", "variant", PlanConfig(**plan), EditConfig(**edit)))
    return found


def _value(name: str, text: str) -> Any:
    if name == "scales":
        return tuple(int(scale) for scale in text.split("+"))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a word, or several


def choose_contestants(names: str) -> list[Contestant]:
    """Return the listed contestants in the table's order: names, "methods", "parts", "all", "none", "-NAME" drops."""
    groups = {"methods": METHODS, "parts": PARTS, "all": tuple(EVERYONE.values()), "none": ()}
    picked: set[str] = set()
    dropped: set[str] = set()
    for word in (word.strip() for word in names.split(",")):
        name = word.removeprefix("-")
        if name not in groups and name not in EVERYONE:
            raise SystemExit(f"--methods {name!r}: choose of {', '.join([*groups, *EVERYONE])}")
        meant = {who.name for who in groups[name]} if name in groups else {name}
        (dropped if word.startswith("-") else picked).update(meant)
    return [who for who in EVERYONE.values() if who.name in picked - dropped]


def with_even_keyframes(plan: Plan, device: torch.device) -> Plan:
    """Return the plan with the same number of evenly spaced keyframes, and everything else as it was."""
    segments = even_segments(len(plan.video), len(plan.segments), plan.segments.cuts)
    layout = build_layout(plan.features, segments, plan.grids, plan.config, device=device, monitor=Monitor())
    return replace(plan, segments=segments, layout=layout)


def make_plan(
    who: Contestant, engine: AdaFlow, source: np.ndarray, source_prompt: str, keyframes: int | None, fps: float
) -> tuple[Plan, EditConfig]:
    plan_config, edit_config = who.make_configs(source_prompt, keyframes)
    plan = engine.plan(source, plan_config, edit=edit_config, fps=fps)
    return (with_even_keyframes(plan, engine.backbone.device) if who.even else plan), edit_config


def count_crossings(plan: Plan, cut: int) -> tuple[int, int]:
    """Return how many segments cross a true cut, and how many frames are propagated from keyframes beyond it."""
    segments, correspondence = plan.segments, plan.layout.correspondence
    crossing = int(((segments.starts < cut) & (segments.ends > cut)).sum())
    weights = next(iter(correspondence.weights.values())).max(axis=2) > 0  # [T, P]
    shot_of_source = plan.layout.keyframes[correspondence.slots] >= cut  # [T, P]
    shot = (np.arange(segments.T) >= cut)[:, None]
    return crossing, int((weights & (shot_of_source != shot)).any(axis=1).sum())
