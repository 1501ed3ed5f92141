"""Clips with their true edits: drawn twice, once with the attribute changed, and where the two may differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange

from scenes.captions import plain
from scenes.clips import FRAMES, SIZE, scene
from scenes.flow import true_flows
from scenes.hidden import redrawn
from scenes.motion import BACKGROUND, MAIN
from scenes.render import render
from scenes.world import BACKGROUNDS, COLOURS, KINDS, STYLES, SceneBatch, sample

# What an edit changes: LongV-EVAL's kinds with the foreground split in two -> (attribute, its values).
EDITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "colour": ("colour", COLOURS),
    "background": ("background", BACKGROUNDS),
    "style": ("style", STYLES),
    "object": ("kind", KINDS),
}
# Motions without a cut in which the object stays in sight.
MOTIONS = ("drift", "bounce", "turn", "pan", "zoom", "uneven")
CLIPS = Path(__file__).resolve().parents[1] / "assets" / "clips"
# The part of a scene's hidden variables that an edit of each kind leaves open.
LEFT_OPEN: dict[str, Literal["main", "scenery", "medium"]] = {
    "colour": "main", "object": "main", "background": "scenery", "style": "medium",
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A clip, its true edit and all that is known about them."""

    name: str
    kind: str  # of EDITS
    before: SceneBatch  # one row
    after: SceneBatch
    times: np.ndarray  # [T] clip time of every frame
    source: np.ndarray  # [T, H, W, 3] uint8
    truth: np.ndarray  # [T, H, W, 3] uint8
    region: np.ndarray  # [T, H, W] bool, what the edit changes
    shown: np.ndarray  # [T] share of the frame that the object covers in the truth
    source_prompt: str
    prompt: str
    file: Path | None = None  # the source as bundled

    @property
    def attribute(self) -> str:
        return EDITS[self.kind][0]

    def flows(self, device: torch.device | str = "cpu") -> tuple[np.ndarray, np.ndarray]:
        """The true flow from each frame to the next: [T - 1, 2, H, W] pixels, [T - 1, H, W] bool where it holds.

        It is that of the truth; an edit of the object's kind moves the outline.
        """
        chunk = 8 if torch.device(device).type == "cpu" else 64
        found = true_flows(self.after.to(device), torch.from_numpy(self.times), self.source.shape[1], chunk)
        flows, visible = (values.cpu().numpy() for values in found)
        return flows, visible


class TrueFilms:
    """Films that are as true as an edit's `truth`: whatever the prompt leaves open is drawn again, `count` times.

    They complement the PSNR to the truth, which demands the one choice that was made there.
    """

    def __init__(self, pair: Pair, count: int, device: torch.device | str = "cpu", sampled: int = 4) -> None:
        self.pair, self.device = pair, torch.device(device)
        self.sample = np.unique(np.linspace(0, len(pair.times) - 1, sampled).round().astype(int))
        part = LEFT_OPEN[pair.kind]
        self.rows = [pair.after.with_hidden(redrawn(pair.after.hidden, part, seed)) for seed in range(count)]
        self.films = [pair.truth[self.sample], *(self._film(row, self.sample) for row in self.rows)]

    def _film(self, row: SceneBatch, frames: np.ndarray) -> np.ndarray:  # [F, H, W, 3] uint8
        size = self.pair.truth.shape[1]
        return _frames(render(row.to(self.device), torch.from_numpy(self.pair.times[frames]), size))

    def nearest(self, frames: np.ndarray) -> np.ndarray:
        """Return the true film [T, H, W, 3] uint8 that is nearest to `frames` inside the changed region."""
        inside, some = self.pair.region[self.sample], frames[self.sample].astype(np.float32)
        best = int(np.argmin([np.square(some - film)[inside].mean() for film in self.films]))
        return self._film(self.rows[best - 1], np.arange(len(self.pair.times))) if best else self.pair.truth


def _frames(drawn: Any) -> np.ndarray:
    """Convert what `render` returns for one row to frames [T, H, W, 3] uint8."""
    return rearrange((drawn.rgb[0] * 255).round().byte(), "t c h w -> t h w c").cpu().numpy()


def draw(
    before: SceneBatch,
    kind: str,
    value: str,
    times: np.ndarray,
    size: int = SIZE,
    device: torch.device | str = "cpu",  # draws; the pair's rows stay where they are
    **named: Any,
) -> Pair:
    """The pair of one row. Unless `named` gives them, the prompts are the plain captions."""
    after = before.replace(**{EDITS[kind][0]: value})
    drawn = [render(row.to(device), torch.from_numpy(times), size) for row in (before, after)]
    source, truth = map(_frames, drawn)
    ids = [d.ids[0].cpu().numpy() for d in drawn]
    if kind == "style":
        region = np.ones(ids[0].shape, bool)
    elif kind == "background":  # what stands in the foreground stays as it is
        region = ids[0] == BACKGROUND
    else:  # an object of another kind has another outline
        region = (ids[0] == MAIN) | (ids[1] == MAIN)
    prompts = {"source_prompt": plain(before)[0], "prompt": plain(after)[0]}
    values: dict[str, Any] = {"name": f"{kind}: {prompts['source_prompt']} -> {value}"} | prompts | named
    shown = (ids[1] == MAIN).mean(axis=(1, 2))
    rows: dict[str, Any] = {"before": before, "after": after, "times": times}
    return Pair(kind=kind, source=source, truth=truth, region=region, shown=shown, **rows, **values)


def load_bundled(folder: Path = CLIPS) -> list[dict[str, Any]]:
    """The entries of the bundled clips."""
    return json.loads((folder / "clips.json").read_text())


def draw_bundled(entry: dict[str, Any], folder: Path = CLIPS, size: int = SIZE) -> Pair:
    """A bundled clip with the edit that the program suggests for it."""
    return draw(
        scene(entry),
        entry["kind"],
        entry["value"],
        torch.linspace(0, 1, entry["frames"]).numpy(),
        size,
        name=Path(entry["file"]).stem,
        source_prompt=entry["source_prompt"],
        prompt=entry["prompt"],
        file=folder / entry["file"],
    )


def random_rows(count: int, seed: int, style: str | None = None, split: str = "test") -> SceneBatch:
    """Scenes of one object that stays in sight, with the motions in turn; `style` None mixes the styles."""
    rows = [
        sample(1, seed=20_000 + 1000 * seed + i, split=split, motion=MOTIONS[i % len(MOTIONS)]) for i in range(count)
    ]
    batch = SceneBatch.cat(rows).replace(present2=False)
    return batch if style is None else batch.replace(style=style)


def random_pair(row: SceneBatch, kind: str, frames: int, draw_seed: int, size: int = SIZE) -> Pair:
    """A row with an edit of `kind` to another value drawn at random.

    The frames are the middle ones of a clip as long as the bundled ones, at the same pace.
    """
    whole = torch.linspace(0, 1, max(frames, FRAMES)).numpy()
    start = (len(whole) - frames) // 2
    return draw(row, kind, other_value(row, kind, draw_seed), whole[start : start + frames], size)


def other_value(row: SceneBatch, kind: str, draw_seed: int) -> str:
    """Return a value for an edit of `kind` that the row does not have yet."""
    attribute, values = EDITS[kind]
    others = [value for value in values if value != row.names(attribute)[0]]
    rng = np.random.default_rng([draw_seed, list(EDITS).index(kind)])
    return others[rng.integers(len(others))]
