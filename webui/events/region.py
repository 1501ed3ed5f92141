"""Events of what is edited by hand: masks painted on frames, and keyframes given back.

What a visitor painted and gave back is kept with the tab's session: {"video": its digest, "masks": {frame: [H, W]},
"pictures": {frame: [H, W, 3]}, "job": that of the region that is shown}. Of another video it counts as nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.errors import AdaFlowError, counted
from adaflow_core.picture.by_hand import ByHand, read_pictures
from adaflow_core.picture.region import Region, RegionMask
from adaflow_core.report.visualize import place_overlay, region_view, stamp
from adaflow_core.video.images import read_picture
from webui import views
from webui.events.follow import follow, not_done
from webui.messages import refusal, refuse_on_error
from webui.outputs import HandOutputs, RegionOutputs, unchanged
from webui.served_images import serve_image
from webui.studio import StoredPlan, Studio

Over = dict[str, Any]


def asked_over(stored: StoredPlan | None, over: Over | None) -> tuple[Region | None, ByHand | None]:
    """The region and the keyframes by hand of a plan's video."""
    if stored is None or not over or over.get("video") != stored.plan.video.digest:
        return None, None
    masks, pictures = over["masks"], over["pictures"]
    return Region(dict(masks)) if masks else None, ByHand(dict(pictures)) if pictures else None


class RegionEvents:
    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def load_frame(self, plan_id: str | None, over: Over, painted_frame: float) -> dict[str, Any]:
        """A frame to paint on, with the region as it is now."""
        stored, over = self._known(plan_id, over)
        frame = self._frame(stored, painted_frame)
        picture, inside = np.asarray(stored.plan.video.frames[frame]), self._inside(stored, over, frame)
        if inside.any():
            picture = place_overlay(picture, inside.astype(np.float32))
        return {"background": picture, "layers": [], "composite": None}

    async def use_strokes(
        self, plan_id: str | None, over: Over, painted_frame: float, canvas: dict[str, Any] | None, strokes: str
    ) -> AsyncIterator[RegionOutputs]:
        """The region with what was painted on a frame, carried to all frames and shown over the video."""
        stored, over = self._known(plan_id, over)
        frame = self._frame(stored, painted_frame)
        painted = _painted(canvas, stored.plan.video.frames.shape[1:3])
        inside = self._inside(stored, over, frame)
        inside = inside | painted if strokes == views.PAINT_IN else inside & ~painted
        over = over | {"masks": over["masks"] | {frame: inside}}
        with refuse_on_error():
            job_id, snapshot = self.studio.region(plan_id, Region(dict(over["masks"]))), None
        async for snapshot in follow(self.studio.jobs, job_id):
            if not snapshot.finished:
                yield unchanged(RegionOutputs, region_progress=views.progress(snapshot))
        done = unchanged(RegionOutputs, region_progress="")
        if snapshot is None or snapshot.state != "done":
            yield done
            raise not_done(snapshot, "region")
        mask: RegionMask = snapshot.result
        items = await asyncio.to_thread(region_view, stored.plan, mask.weights)
        frames = ", ".join(map(str, sorted(over["masks"])))
        yield done._replace(
            over=over | {"job": job_id},
            region_line=views.line(f"Only this part is edited; painted on frame {frames}."),
            region_gallery=gr.Gallery([(serve_image(picture), words) for picture, words in items], visible=True),
        )

    def no_region(self, over: Over) -> RegionOutputs:
        """The whole picture again."""
        kept = over | {"masks": {}, "job": ""} if over else {}
        return RegionOutputs(kept, "", "", gr.Gallery([], visible=False))

    def keyframes(self, plan_id: str | None) -> Any:
        """The plan's keyframes to choose from."""
        stored = self.studio.find_plan(plan_id)
        choices = [int(k) for k in stored.plan.segments.keyframes] if stored else []
        named = [(stamp(stored.plan, k), k) for k in choices] if stored else []
        return gr.Dropdown(named, value=choices[0] if choices else None)

    def keyframe_file(self, plan_id: str | None, keyframe: int | None, keyframe_of: str, drafted: str) -> str | None:
        """A file of a keyframe, of the source or of the first of the drafts."""
        stored = self.studio.find_plan(plan_id)
        if stored is None or keyframe is None:
            return None
        picture = stored.plan.video.frames[int(keyframe)]
        if keyframe_of == views.THE_DRAFT:
            snapshot = self.studio.jobs.snapshot(drafted or "")
            if snapshot is None or not snapshot.result:
                raise refusal("there is no draft yet; try the edit on the keyframes first")
            draft = snapshot.result[0][1]
            places = np.flatnonzero(draft.keyframes == int(keyframe))
            if not len(places):
                raise refusal("the draft has other keyframes; try the edit on the keyframes again")
            picture = draft.frames[places[0]]
        return serve_image(np.asarray(picture), "png")

    def give_back(self, plan_id: str | None, over: Over, keyframe: int | None, give_back: str | None) -> HandOutputs:
        """A keyframe as it was changed elsewhere."""
        stored, over = self._known(plan_id, over)
        with refuse_on_error():
            if keyframe is None or not give_back:
                raise AdaFlowError("there is no picture; choose a keyframe and give its picture back")
            given = ByHand({int(keyframe): read_picture(Path(give_back))})
            over = over | {"pictures": over["pictures"] | read_pictures(given, stored.plan.video)}
        return _shown_by_hand(stored, over)

    def take_back(self, plan_id: str | None, over: Over) -> HandOutputs:
        """No keyframe by hand."""
        return HandOutputs(over | {"pictures": {}} if over else {}, "", gr.Gallery([], visible=False))

    def _known(self, plan_id: str | None, over: Over) -> tuple[StoredPlan, Over]:
        """The plan, and what was painted and given back for its video."""
        stored = self.studio.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        digest = stored.plan.video.digest
        if not over or over.get("video") != digest:
            over = {"video": digest, "masks": {}, "pictures": {}, "job": ""}
        return stored, over

    def _frame(self, stored: StoredPlan, number: float) -> int:
        last = len(stored.plan.video) - 1
        if not 0 <= int(number or 0) <= last:
            raise refusal(f"there is no frame {int(number)}; the video has the frames 0 to {last}")
        return int(number or 0)

    def _inside(self, stored: StoredPlan, over: Over, frame: int) -> np.ndarray:
        """[H, W] the region in a frame: as it was painted there, else as it was carried there."""
        if frame in over["masks"]:
            return np.asarray(over["masks"][frame])
        snapshot = self.studio.jobs.snapshot(over["job"])
        if over["masks"] and snapshot is not None and isinstance(snapshot.result, RegionMask):
            return np.asarray(snapshot.result.weights[frame] == 255)
        return np.zeros(stored.plan.video.frames.shape[1:3], bool)


def _painted(canvas: dict[str, Any] | None, size: tuple[int, ...]) -> np.ndarray:
    """[H, W] where something was painted."""
    layers = [np.asarray(layer) for layer in (canvas or {}).get("layers") or []]
    painted = np.zeros(size, bool)
    for layer in layers:
        if layer.shape[:2] != size:
            raise refusal("what was painted is not on this video's frame; load the frame again")
        painted |= layer[..., 3] > 0
    if not painted.any():
        raise refusal("nothing is painted; load a frame and paint on it")
    return painted


def _shown_by_hand(stored: StoredPlan, over: Over) -> HandOutputs:
    rows = sorted(over["pictures"].items())
    items = [(serve_image(picture), f"By hand · {stamp(stored.plan, frame)}") for frame, picture in rows]
    return HandOutputs(over, views.line(f"{counted(len(rows), 'keyframe')} by hand."), gr.Gallery(items, visible=True))
