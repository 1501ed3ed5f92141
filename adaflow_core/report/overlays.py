"""Pictures laid over frames, and frames beside each other: where an edit takes place, what is kept, scores.

A picture is [H, W, 3] uint8 RGB; numpy and PIL draw it. Nothing is conveyed by colour alone: dropped tokens are
hatched, and what is kept or lies in a region has an outline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from adaflow_core.errors import percent
from adaflow_core.report.canvas import (
    INK,
    MUTED,
    PAPER,
    PLACE,
    SAMPLED,
    Canvas,
    Picture,
    at_least,
    at_most,
    heat_colours,
    spread,
)
from adaflow_core.types import Grid, Place, Plan

KEYFRAMES_SHOWN = 240  # in a strip, at most: a film edited frame by frame has thousands
_TITLE, _LINE = 520, 14  # pixels: the width that a title takes, the height of a line
_LEGEND = 20  # pixels of a heat map's height: a line and the bar; js/plots.js knows it


def keyframe_strip(plan: Plan, height: int = 120, columns: int = 8) -> Picture:
    """The keyframes in time order, each with its time and the length of its segment under it.

    Of many, `KEYFRAMES_SHOWN` are shown, evenly spread, under a line that says so.
    """
    K = len(plan.segments)
    shown = np.linspace(0, K - 1, min(K, KEYFRAMES_SHOWN)).round().astype(int)
    width, gap, line = max(96, round(height * plan.video.size[0] / plan.video.size[1])), 8, _LINE
    head = 0 if len(shown) == K else 20
    caption = 6 + line * (
        3 if plan.video.has_other_numbers else 2
    )  # with the file's times a stamp may be wider than a picture
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    canvas = Canvas(columns * (width + gap) + gap, rows * (height + caption + gap) + gap + head)
    if head:
        canvas.text(gap, gap, f"{len(shown)} of {K} keyframes, evenly spread", INK, 12)
    keyframes, lengths = plan.segments.keyframes[shown], plan.segments.lengths[shown]
    for k, (frame, length) in enumerate(zip(keyframes, lengths, strict=True)):
        x, y = gap + k % columns * (width + gap), gap + head + k // columns * (height + caption + gap)
        canvas.fit(plan.video.frames[frame], x, y, width, height)
        when = plan.video.stamp(frame)
        texts = [*(when.split(", ") if plan.video.has_other_numbers else [when]), f"segment of {length}"]
        for number, text in enumerate(texts):
            colour = MUTED if number == len(texts) - 1 else INK
            canvas.text(x, y + height + 3 + line * number, text, colour, 11)
    return canvas.picture()


def place_overlay(frame: Picture, mask: np.ndarray) -> Picture:
    """`frame` tinted where `mask` [h, w] in 0..1 is, with an outline in two shades, which shows on any ground."""
    height, width = frame.shape[:2]
    soft = Image.fromarray(np.asarray(mask, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    alpha = np.asarray(soft)
    picture = frame + 0.45 * alpha[..., None] * (np.array(PLACE) - frame)
    inside = alpha >= 0.5
    border = _border(inside)
    picture[border & inside], picture[border & ~inside] = PLACE, PAPER
    return picture.round().astype(np.uint8)


def place_view(plan: Plan, place: Place, side: int = 224) -> list[tuple[Picture, str]]:
    """Up to eight keyframes with the place laid over them; captioned with its share of the frame, and when it is."""
    items, count = [], min(8, len(plan.segments))
    for frame in plan.segments.keyframes[np.linspace(0, len(plan.segments) - 1, count).astype(int)]:
        mask = np.ones((1, 1)) if place.mask is None else place.mask[frame]
        picture = place_overlay(at_least(plan.video.frames[frame], side), mask)
        items.append((picture, f"{percent(mask.mean())} · {plan.video.stamp(frame)}"))
    return items


def region_view(plan: Plan, weights: np.ndarray, side: int = 224) -> list[tuple[Picture, str]]:
    """Up to eight frames with a region [T, H, W] uint8 laid over them; captioned with its share, and when they are."""
    items = []
    for frame in np.unique(np.linspace(0, len(plan.video) - 1, 8).round().astype(int)):
        mask = weights[frame] / np.float32(255)
        picture = place_overlay(at_least(plan.video.frames[frame], side), mask)
        items.append((picture, f"{percent(mask.mean())} · {plan.video.stamp(frame)}"))
    return items


def place_sentence(place: Place) -> str:
    """What may change there, in words."""
    if place.mask is None:
        return f"Changes here: the whole picture; {place.why}."
    if place.surroundings:
        what = "surroundings change, the thing stays"
    else:
        part = "" if place.structure in (0, 1) else f" for {percent(place.structure)} of the steps"
        what = f"shape is {'kept' if place.structure else 'free'}{part}"
    return f"Changes here: {percent(place.share)} of the picture; {what}."


def place_strip(plan: Plan, place: Place, columns: int = 4) -> Picture:
    """The pictures of `place_view` in rows, under the sentence on them."""
    return sheet(place_view(plan, place), place_sentence(place), columns)


def sheet(items: Sequence[tuple[Picture, str]], title: str, columns: int = 8) -> Picture:
    """Pictures of one size in rows under a `title`, each over its caption, whose parts between dots are lines."""
    pictures = tile([np.concatenate([picture, _caption(text, picture.shape[1])]) for picture, text in items], columns)
    head = Canvas(max(pictures.shape[1], _TITLE), 28)
    head.text(4, 8, title, INK, 12)
    right = np.full((len(pictures), head.image.width // head.scale - pictures.shape[1], 3), 255, np.uint8)
    return np.concatenate([head.picture(), np.concatenate([pictures, right], axis=1)])


def _caption(text: str, width: int) -> Picture:
    lines = text.split(" · ")
    canvas = Canvas(width, 6 + _LINE * len(lines))
    for number, line in enumerate(lines):
        canvas.text(1, 3 + _LINE * number, line, INK, 11)
    return canvas.picture()


@dataclass(frozen=True)
class Ground:
    """A frame as kept tokens are drawn over it, whichever these are."""

    frame: Picture
    dropped: Picture  # the same dark, grey and hatched

    @classmethod
    def of(cls, frame: Picture) -> Ground:
        grey = frame.astype(float) @ (0.299, 0.587, 0.114)
        dropped = 0.42 * (0.8 * grey[..., None] + 0.2 * frame)
        rows, columns = np.indices(frame.shape[:2])
        hatch = (rows + columns) % 8 == 0
        dropped[hatch] = 0.6 * dropped[hatch] + 40  # still darker than the frame wherever it is not black
        return cls(frame, dropped.round().astype(np.uint8))

    def with_kept(self, mask: np.ndarray, sampled: np.ndarray | None = None) -> Picture:
        """The frame with its dropped tokens dark, grey and hatched, an outline around what is kept, a sample in blue.

        mask: [h, w] bool over the token grid, True where the token is kept. sampled: [h, w] bool, those of them that
        are kept as a sample of the rest; they have no outline.
        """
        height, width = self.frame.shape[:2]
        chosen = kept = spread(np.asarray(mask, dtype=bool), height, width)
        picture = np.where(kept[..., None], self.frame, self.dropped)
        if sampled is not None:
            of_sample = spread(np.asarray(sampled, dtype=bool), height, width)
            chosen = kept & ~of_sample
            picture[of_sample] = (0.4 * self.frame[of_sample] + 0.6 * np.array(SAMPLED)).round()
        picture[_border(chosen) & chosen] = PAPER
        return picture


def _border(inside: np.ndarray) -> np.ndarray:
    """[H, W] bool -> [H, W] bool: the pixels on either side of the edge of what is inside."""
    border = np.zeros_like(inside)
    for edge, first, second in (
        (inside[1:] != inside[:-1], border[1:], border[:-1]),
        (inside[:, 1:] != inside[:, :-1], border[:, 1:], border[:, :-1]),
    ):
        first |= edge
        second |= edge
    return border


def _other_keyframes(plan: Plan, q: int) -> Iterator[tuple[int, str]]:
    """Every keyframe but `q`: its number, and when it is."""
    return ((k, plan.video.stamp(frame)) for k, frame in enumerate(plan.layout.keyframes) if k != q)


def _keyframe(plan: Plan, k: int, side: int) -> Picture:
    """Keyframe `k`, its shorter side at least `side` pixels."""
    return at_least(plan.video.frames[plan.layout.keyframes[k]], side)


def kept_masks(plan: Plan, q: int, grid: Grid) -> np.ndarray:
    """What keyframe `q` keeps of every keyframe: [K, h, w] bool."""
    slimming = plan.layout.slimming
    if slimming is None:  # it attends within itself only
        mask = np.zeros((len(plan.layout.keyframes), grid.n), dtype=bool)
        mask[q] = True
    else:
        mask = slimming[grid].mask_of(q)
    return mask.reshape(-1, grid.h, grid.w)


def sampled_masks(plan: Plan, q: int, grid: Grid) -> np.ndarray:
    """What keyframe `q` keeps of every keyframe as a sample of the rest: [K, h, w] bool."""
    mask = np.zeros(len(plan.layout.keyframes) * grid.n, dtype=bool)
    if plan.layout.slimming is not None and (count := plan.layout.slimming[grid].num_sampled):
        mask[plan.layout.slimming[grid].kept[q, -count:]] = True
    return mask.reshape(-1, grid.h, grid.w)


def grounds(plan: Plan, side: int = 224, most: float = math.inf) -> Callable[[int], Ground]:
    """The ground of each keyframe by its number, made once; its shorter side has `side` to `most` pixels."""
    return cache(lambda k: Ground.of(at_most(_keyframe(plan, k, side), most)))


def token_view(
    plan: Plan, q: int, grid: Grid, ground: Callable[[int], Ground] | None = None
) -> list[tuple[Picture, str]]:
    """Every keyframe but `q`, with what `q` keeps of it drawn over it, and the share kept as caption.

    `ground`: of `grounds`, where the views of several keyframes are drawn.
    """
    masks, sampled, ground = kept_masks(plan, q, grid), sampled_masks(plan, q, grid), ground or grounds(plan)
    items = []
    for k, time in _other_keyframes(plan, q):
        part = f", {percent(sampled[k].mean())} as a sample" if sampled.any() else ""
        picture = ground(k).with_kept(masks[k], sampled[k])
        items.append((picture, f"{percent(masks[k].mean())} kept{part} · {time}"))
    return items


def score_heatmap(frame: Picture, scores: np.ndarray, low: float | None = None, high: float | None = None) -> Picture:
    """`scores` [h, w] as a heat map over `frame`, with a legend bar under it that has `low` and `high` at its ends.

    The bar is as wide as the picture, so that it reads on a light page and on a dark one.
    """
    low, high = float(scores.min()) if low is None else low, float(scores.max()) if high is None else high
    height, width = frame.shape[:2]
    share = ((scores.astype(float) - low) / max(high - low, 1e-9)).clip(0, 1)
    grey = (frame.astype(float) @ (0.299, 0.587, 0.114))[..., None]
    blend = 0.35 * grey + 0.65 * heat_colours(spread(share, height, width))
    canvas = Canvas(width, height + _LEGEND)
    canvas.paste(blend.round().astype(np.uint8), 0, 0, width, height)
    ramp, middle = heat_colours(np.linspace(0, 1, 256)[None]).astype(np.uint8), height + _LEGEND / 2 + 1
    canvas.paste(ramp, 0, height + 2, width, _LEGEND - 2)
    canvas.text(5, middle, f"{low:.2f}", PAPER, 11, "lm")
    canvas.text(width - 5, middle, f"{high:.2f}", INK, 11, "rm")
    return canvas.picture()


def score_view(plan: Plan, q: int, grid: Grid, side: int = 224) -> list[tuple[Picture, str]]:
    """Every keyframe but `q`, with the score of its tokens for `q` over it; one scale for all of them."""
    if plan.layout.slimming is None or len(plan.layout.keyframes) == 1:
        return []
    scores = plan.layout.slimming[grid].scores[q].astype(np.float32).reshape(-1, grid.h, grid.w)
    # From the second percentile: a few outliers would take most of the scale.
    low, high = map(float, np.percentile(np.delete(scores, q, axis=0), [2, 100]))
    return [
        (score_heatmap(_keyframe(plan, k, side), scores[k], low, high), f"mean score {scores[k].mean():.2f} · {time}")
        for k, time in _other_keyframes(plan, q)
    ]


def tile(pictures: Sequence[Picture] | np.ndarray, columns: int = 8, gap: int = 4) -> Picture:
    """Pictures of one size [h, w, 3] beside each other, in rows of at most `columns`."""
    if not len(pictures):
        return np.full((1, 1, 3), 255, dtype=np.uint8)
    h, w = pictures[0].shape[:2]
    columns = min(len(pictures), columns)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, dtype=np.uint8)
    for k, picture in enumerate(pictures):
        y, x = k // columns * (h + gap), k % columns * (w + gap)
        sheet[y : y + h, x : x + w] = picture
    return sheet
