"""Events of manual edits: masks painted on frames, and keyframes given back as pictures (`common/over.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.editing.forecasting.forecast import of_crop
from adaflow_core.errors import AdaFlowError, counted
from adaflow_core.picture.by_hand import ByHand, read_pictures
from adaflow_core.picture.region import RegionMask, crop_line
from adaflow_core.report.overlays import place_overlay, region_view
from adaflow_core.storage.digests import content_digest
from adaflow_core.types import Plan
from webui import views
from webui.events.common.follow import follow, not_done, show_unless_left, stopped_line
from webui.events.common.outputs import OverOutputs, unchanged
from webui.events.common.over import held, is_of_others, of_plan, region_of, without_aside, words_found_in
from webui.jobs.finished import file_name
from webui.kept import OverState, RegionState, Search, StoredPlan
from webui.messages import refusal, refuse_on_error
from webui.served_images import serve_image
from webui.studio import Studio
from webui.views import labels

_OF_OTHERS = (
    "What was painted or given back is of other frames, or of another size: it is not used, and comes back with them."
)


class RegionEvents:
    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def load_frame(
        self, plan_id: str | None, over: OverState, over_id: str, painted_frame: float
    ) -> tuple[dict[str, Any], tuple[int, str]]:
        """Return a frame to paint on with the current region drawn in, and its (number, digest of the plan's frames).

        The digest lets `use_strokes` refuse strokes that were painted on a frame of another range or size.
        """
        stored, over = self._known(plan_id, over, over_id)
        frame = self._frame(stored, painted_frame)
        picture, inside = np.asarray(stored.plan.video.frames[frame]), self._inside(stored, over, frame)
        if inside.any():
            picture = place_overlay(picture, inside.astype(np.float32))
        return {"background": picture, "layers": [], "composite": None}, (frame, stored.plan.video.digest)

    async def find_words(
        self, plan_id: str | None, over: OverState, over_id: str, region_words: str, feather: float
    ) -> AsyncIterator[OverOutputs]:
        """Find the region that words of the source prompt name; it replaces painted masks."""
        stored, over = self._known(plan_id, over, over_id)
        words = (region_words or "").strip()
        if not words:
            raise refusal("name something of the source prompt, such as “ball”")
        async for outputs in self._carry(stored, over, masks={}, words=words, feather=int(feather)):
            yield outputs

    async def set_feather(
        self, plan_id: str | None, over: OverState, over_id: str, feather: float
    ) -> AsyncIterator[OverOutputs]:
        """Change the feather of the region, if there is a region."""
        over = self._held(over, over_id)
        if not plan_id or not region_of(over.region):
            yield unchanged(OverOutputs)
            return
        stored, over = self._known(plan_id, over, over_id)
        async for outputs in self._carry(stored, over, feather=int(feather)):
            yield outputs

    async def use_strokes(
        self,
        plan_id: str | None,
        over: OverState,
        over_id: str,
        loaded: tuple[int, str] | None,
        canvas: dict[str, Any] | None,
        strokes: str,
        feather: float,
    ) -> AsyncIterator[OverOutputs]:
        """Add the strokes painted on the `loaded` frame to the region, or remove them from it, and propagate it.

        The region is propagated to all frames and shown over the video.
        """
        stored, over = self._known(plan_id, over, over_id)
        painted = _painted(canvas, stored.plan.video.frames.shape[1:3])
        frame, digest = loaded or (0, "")
        if digest != stored.plan.video.digest:
            raise refusal("what was painted is not on a frame of this range and size; load a frame and paint on it")
        async for outputs in self._paint(stored, over, frame, painted, strokes, feather):
            yield outputs

    async def use_box(
        self,
        plan_id: str | None,
        over: OverState,
        over_id: str,
        painted_frame: float,
        box_left: float,
        box_top: float,
        box_right: float,
        box_bottom: float,
        strokes: str,
        feather: float,
    ) -> AsyncIterator[OverOutputs]:
        """Add a box to the region, or remove it, and propagate the region: an alternative to painting.

        The sides are in percent of the frame's width and height.
        """
        stored, over = self._known(plan_id, over, over_id)
        sides = box_left, box_top, box_right, box_bottom
        painted = _boxed(sides, stored.plan.video.frames.shape[1:3])
        async for outputs in self._paint(stored, over, painted_frame, painted, strokes, feather):
            yield outputs

    async def _paint(
        self,
        stored: StoredPlan,
        over: OverState,
        painted_frame: float,
        painted: np.ndarray,
        strokes: str,
        feather: float,
    ) -> AsyncIterator[OverOutputs]:
        """Add `painted` [H, W] to the region or remove it, and propagate the region to all frames."""
        frame = self._frame(stored, painted_frame)
        masks = over.region.masks
        if frame not in masks and self._is_searched(over):
            raise refusal(f"the region is still being found in frame {frame}; wait for it, then change it there")
        inside = self._inside(stored, over, frame)
        inside = inside | painted if strokes == labels.PAINT_IN else inside & ~painted
        async for outputs in self._carry(stored, over, masks=masks | {frame: inside}, feather=int(feather)):
            yield outputs

    async def show_over(self, plan_id: str | None, over: OverState, over_id: str) -> AsyncIterator[OverOutputs]:
        """Show, after planning, the region and keyframes that a project or a reloaded tab brought.

        Those that belong to other frames than the plan's are put aside.
        """
        stored = self.studio.kept.find_plan(plan_id)
        over = self._held(over, over_id) if stored is not None else over
        if stored is None or over.is_empty:
            yield unchanged(OverOutputs)
            return
        with refuse_on_error():
            known = of_plan(stored, over)
        found_in = words_found_in(stored, known.region)
        same = known.shown and (found_in is None or found_in == known.region.search.found_in)
        if same or not any(region_of(each.region) or each.pictures for each in (over, known)):
            yield unchanged(OverOutputs)
            return
        said = ""
        if known.video != over.video and over.opened is None:
            self._leave_search(over)
            said = _OF_OTHERS if is_of_others(stored, over) else ""
            yield self._nothing(known, said)
        shown = self._hand_shown(stored, replace(known, shown=True))
        yield shown
        if region_of(known.region):
            async for outputs in self._carry(stored, shown.over):
                yield outputs

    async def _carry(self, stored: StoredPlan, over: OverState, **asked: Any) -> AsyncIterator[OverOutputs]:
        """Update the region with `asked` and show it in all frames; search again if no known job found this region."""
        wanted = replace(over.region, **asked)
        region = region_of(wanted)
        assert region is not None
        mask = self._found(stored, wanted)
        if mask is None:
            with refuse_on_error():
                job_id = self.studio.region(stored.id, region)
            self._leave_search(over)
            # Stored when the search begins, so that strokes and keyframes given back meanwhile build on it.
            search = Search(job_id, words_found_in(stored, wanted), before=over.region.search.before or over.region)
            begun = self._kept(replace(over, region=replace(wanted, search=search)), region_job_id=job_id)
            yield begun
            async for outputs in self._search(stored, begun.over):
                yield outputs
            over, mask = begun.over, self._carried(begun.over.region)
        else:
            over = replace(over, region=wanted)
        if mask is not None:
            async for outputs in self._region_shown(stored, over):
                yield outputs

    async def _search(self, stored: StoredPlan, over: OverState) -> AsyncIterator[OverOutputs]:
        """Show the progress of the search for `over`'s region.

        If the search ends without a result, the previous region is restored and shown, unless another region was asked
        for meanwhile.
        """
        job_id, snapshot = over.region.search.job, None
        async for snapshot in follow(self.studio.jobs, job_id):
            if not snapshot.finished:
                yield unchanged(OverOutputs, region_job_id=job_id, region_progress=views.progress(snapshot))
        latest = self._still_asked(over)
        if latest is None or (snapshot is not None and snapshot.state == "done"):
            return
        before = latest.region.search.before
        assert before is not None
        shown = await self._shown_as(stored, before)
        if shown and latest.region.words != before.words:  # keep the typed words, so that they can be corrected
            del shown["region_words"]
        latest = self._still_asked(over)
        if latest is None:
            return
        ended = self.studio.jobs.snapshot(job_id)
        shown["region_progress"] = stopped_line(ended, "search for the region")
        yield self._kept(replace(latest, region=before), region_job_id="", **shown)
        raise not_done(ended, "region")

    async def _shown_as(self, stored: StoredPlan, asked: RegionState) -> dict[str, Any]:
        """Return the outputs, by name, that show the region, even if it is not found in all frames yet; {} for none."""
        if region_of(asked) is None:
            return {}
        frames = ", ".join(map(str, sorted(asked.masks)))
        where = f"painted on frame {frames}" if frames else f"“{asked.words}”"
        shown: dict[str, Any] = {"region_words": "" if frames else asked.words, "feather": asked.feather}
        mask = self._found(stored, asked)
        if mask is None:
            what = f"what was {where} is to be edited; it was not carried to all frames yet"
            line = f"Only {what}." if frames else f"Only {where} is to be edited; it was not found here yet."
            return shown | {"region_line": views.line(line), "region_gallery": gr.Gallery([], visible=False)}
        items = await asyncio.to_thread(region_view, stored.plan, mask.weights)
        found = views.line(f"Only this part is edited; {where}.{_crop_line(self.studio.corrected(stored.plan), mask)}")
        gallery = gr.Gallery([(serve_image(picture), words) for picture, words in items], visible=True)
        line = found + (views.notice([mask.doubt]) if mask.doubt else "")
        return shown | {"region_line": line, "region_gallery": gallery}

    async def _region_shown(self, stored: StoredPlan, over: OverState) -> AsyncIterator[OverOutputs]:
        """Show a region that was found, unless another one was asked for meanwhile."""
        region = await self._shown_as(stored, over.region)
        latest = self._still_asked(over)
        if latest is None:
            return
        shown = self._kept(
            replace(latest, region=latest.region.settled), region_job_id="", region_progress="", **region
        )
        hidden = gr.Gallery([], visible=False)
        gone = unchanged(OverOutputs, region_job_id="", region_progress="", region_line="", region_gallery=hidden)
        async for outputs in show_unless_left(self.studio.jobs, over.region.search.job, shown, gone):
            yield outputs

    def of_video(self, over: OverState, video: str | None) -> OverOutputs:
        """Clear the region and keyframes by hand if the video changed.

        They stay if it is the same file again, as after a reload or when a project is opened.
        """
        if video and not Path(video).is_file():  # an address
            raise refusal("this page keeps no videos from elsewhere; upload the file itself")
        if over.file and video and content_digest(Path(video)) == over.file:
            return unchanged(OverOutputs)
        return self._nothing(OverState(id=over.id))

    def keep_opened(self, over: OverState) -> OverOutputs:
        """Remember what an opened project brought, or that it brought nothing, so that a reload restores the same."""
        return self._kept(over)

    def no_region(self, over: OverState, over_id: str) -> OverOutputs:
        """Remove the region, so that the whole picture is edited again."""
        over = self._held(over, over_id)
        self._leave_search(over)
        opened = over.opened and replace(over.opened, region=None)
        whole = RegionState(feather=over.region.feather, crop=over.region.crop)
        kept = replace(without_aside(over, region=None), region=whole, opened=opened)
        hidden = gr.Gallery([], visible=False)
        return self._kept(
            kept, region_job_id="", region_progress="", region_line="", region_gallery=hidden, region_words=""
        )

    def keyframes(self, plan_id: str | None) -> Any:
        """Offer the plan's keyframes as choices."""
        stored = self.studio.kept.find_plan(plan_id)
        choices = [int(k) for k in stored.plan.segments.keyframes] if stored else []
        named = [(stored.plan.video.stamp(k), k) for k in choices] if stored else []
        return gr.Dropdown(named, value=choices[0] if choices else None)

    def check_draft(self, plan_id: str | None, keyframe_of: str, drafted: str) -> None:
        """Refuse to take a keyframe from a draft that is not there."""
        if keyframe_of == labels.THE_DRAFT and self.studio.drafts(drafted, self.studio.kept.find_plan(plan_id)) is None:
            raise refusal("there is no draft of this plan; try the edit on the keyframes first")

    def keyframe_file(
        self, plan_id: str | None, keyframe: int | None, keyframe_of: str, drafted: str
    ) -> tuple[str | None, str]:
        """Return a keyframe's picture file and its origin: the first draft, or the source if there is no draft."""
        stored = self.studio.kept.find_plan(plan_id)
        if stored is None or keyframe is None:
            return None, labels.THE_SOURCE
        drafts = self.studio.drafts(drafted, stored) if keyframe_of == labels.THE_DRAFT else None
        places = np.flatnonzero(stored.plan.layout.keyframes == int(keyframe))
        if drafts is None or not len(places):
            taken_from, what, picture = labels.THE_SOURCE, "keyframe", stored.plan.video.frames[int(keyframe)]
        else:
            taken_from, what, picture = labels.THE_DRAFT, "draft", drafts.made[0][2].frames[places[0]]
        name = file_name(Path(stored.request.video).stem, f"{what}-{int(keyframe)}")
        return serve_image(np.asarray(picture), "png", name), taken_from

    def give_back(
        self, plan_id: str | None, over: OverState, over_id: str, keyframe: int | None, give_back: str | None
    ) -> OverOutputs:
        """Use a keyframe that was changed in another program."""
        stored, over = self._known(plan_id, over, over_id)
        with refuse_on_error():
            if keyframe is None or not give_back:
                raise AdaFlowError("there is no picture; choose a keyframe and give its picture back")
            given = ByHand({int(keyframe): Path(give_back)})
            over = replace(over, pictures=over.pictures | read_pictures(given, stored.plan.video))
        return self._hand_shown(stored, over)

    def take_back(self, over: OverState, over_id: str) -> OverOutputs:
        """Remove all keyframes by hand."""
        over = self._held(over, over_id)
        opened = over.opened and replace(over.opened, by_hand=None)
        kept = replace(without_aside(over, pictures={}), pictures={}, opened=opened)
        return self._kept(kept, hand_line="", hand_gallery=gr.Gallery([], visible=False))

    def _nothing(self, over: OverState, said: str = "") -> OverOutputs:
        """Show no region and no keyframes by hand; `said` is the reason that the page shows."""
        hidden = gr.Gallery([], visible=False)
        return self._kept(
            over, region_job_id="", region_progress="", region_line=views.line(said), region_gallery=hidden,
            region_words="", hand_line="", hand_gallery=hidden,
        )  # fmt: skip

    def _hand_shown(self, stored: StoredPlan, over: OverState) -> OverOutputs:
        rows = sorted(over.pictures.items())
        items = [(serve_image(picture), f"By hand · {stored.plan.video.stamp(frame)}") for frame, picture in rows]
        line = views.line(f"{counted(len(rows), 'keyframe')} by hand.") if rows else ""
        return self._kept(over, hand_line=line, hand_gallery=gr.Gallery(items, visible=bool(rows)))

    def _kept(self, over: OverState, **shown: Any) -> OverOutputs:
        """Store `over` unless it is empty, so that a reload finds it, and return it with the outputs in `shown`."""
        over = over if over.is_empty else self.studio.kept.keep_over(over)
        return unchanged(OverOutputs, over=over, over_id=over.id, **shown)

    def _held(self, over: OverState, over_id: str) -> OverState:
        with refuse_on_error():
            return held(self.studio, over, over_id)

    def _known(self, plan_id: str | None, over: OverState, over_id: str) -> tuple[StoredPlan, OverState]:
        """Return the plan, and the region and keyframes by hand that belong to its frames."""
        stored = self.studio.kept.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        with refuse_on_error():
            return stored, of_plan(stored, held(self.studio, over, over_id))

    def _still_asked(self, over: OverState) -> OverState | None:
        """Return the latest stored state, or None if another region or the whole picture was asked for meanwhile.

        In the latter case the search for `over`'s region is of no use any more.
        """
        latest = self.studio.kept.find_over(over.id) or over
        return latest if latest.region.search.job == over.region.search.job else None

    def _is_searched(self, over: OverState) -> bool:
        snapshot = self.studio.jobs.snapshot(over.region.search.job)
        return snapshot is not None and not snapshot.finished

    def _leave_search(self, over: OverState) -> None:
        """Stop a search that still runs, without a message, because another region was asked for."""
        if self._is_searched(over):
            self.studio.jobs.leave(over.region.search.job)

    def _found(self, stored: StoredPlan, asked: RegionState) -> RegionMask | None:
        """Return the region in all frames if its job is still known and found exactly what is asked for, else None."""
        region, mask = region_of(asked), self._carried(asked)
        if region is None or mask is None or asked.search.found_in != words_found_in(stored, asked):
            return None
        return mask if mask.asked == region.as_json() else None

    def _carried(self, asked: RegionState) -> RegionMask | None:
        """Return what the last search found while its job is known; the region may have changed since."""
        snapshot = self.studio.jobs.snapshot(asked.search.job)
        return snapshot.result if snapshot is not None and isinstance(snapshot.result, RegionMask) else None

    def _frame(self, stored: StoredPlan, number: float) -> int:
        last = len(stored.plan.video) - 1
        if not 0 <= int(number or 0) <= last:
            raise refusal(f"there is no frame {int(number)}; the video has the frames 0 to {last}")
        return int(number or 0)

    def _inside(self, stored: StoredPlan, over: OverState, frame: int) -> np.ndarray:
        """Return the region in a frame, [H, W] bool: as painted there, else as propagated there."""
        if frame in over.region.masks:
            return np.asarray(over.region.masks[frame])
        if region_of(over.region) and (mask := self._carried(over.region)):
            return np.asarray(mask.weights[frame] == 255)
        return np.zeros(stored.plan.video.frames.shape[1:3], bool)


def _crop_line(plan: Plan, mask: RegionMask) -> str:
    """Return a sentence on the crop that passes through the model and its time; "" if whole frames pass through it."""
    if mask.window is None:
        return ""
    return f" {crop_line(mask)} That takes about {views.duration(of_crop(plan.forecast, mask.window.share).total)}."


def _painted(canvas: dict[str, Any] | None, size: tuple[int, ...]) -> np.ndarray:
    """Return where something was painted, [H, W] bool."""
    layers = [np.asarray(layer) for layer in (canvas or {}).get("layers") or []]
    painted = np.zeros(size, bool)
    for layer in layers:
        if layer.shape[:2] != size:
            raise refusal("what was painted is not on a frame of this range and size; load a frame and paint on it")
        painted |= layer[..., 3] > 0
    if not painted.any():
        raise refusal("nothing is painted; load a frame and paint on it")
    return painted


def _boxed(sides: tuple[float | None, ...], size: tuple[int, ...]) -> np.ndarray:
    """Return the inside of a box, [H, W] bool; `sides` are left, top, right and bottom in percent of the frame."""
    height, width = size
    given = [side for side in sides if side is not None and 0 <= side <= 100]
    if len(given) < 4:
        raise refusal("a box has four sides, each in percent of the frame, from 0 to 100")
    pixels = (width, height, width, height)
    left, top, right, bottom = (round(side / 100 * of) for side, of in zip(given, pixels, strict=True))
    if left >= right or top >= bottom:
        raise refusal("the box is empty; Left must be less than Right, and Top less than Bottom")
    box = np.zeros((height, width), bool)
    box[top:bottom, left:right] = True
    return box
