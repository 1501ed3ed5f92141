"""Events of what is edited by hand: masks painted on frames, and keyframes given back (`common/over.py`)."""

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
        """A frame to paint on, with the region as it is now; and which one of which frames (a digest) it is."""
        stored, over = self._known(plan_id, over, over_id)
        frame = self._frame(stored, painted_frame)
        picture, inside = np.asarray(stored.plan.video.frames[frame]), self._inside(stored, over, frame)
        if inside.any():
            picture = place_overlay(picture, inside.astype(np.float32))
        return {"background": picture, "layers": [], "composite": None}, (frame, stored.plan.video.digest)

    async def find_words(
        self, plan_id: str | None, over: OverState, over_id: str, region_words: str, feather: float
    ) -> AsyncIterator[OverOutputs]:
        """The region of what words of the source prompt name, found in the video; what was painted goes."""
        stored, over = self._known(plan_id, over, over_id)
        words = (region_words or "").strip()
        if not words:
            raise refusal("name something of the source prompt, such as “ball”")
        async for outputs in self._carry(stored, over, masks={}, words=words, feather=int(feather)):
            yield outputs

    async def set_feather(
        self, plan_id: str | None, over: OverState, over_id: str, feather: float
    ) -> AsyncIterator[OverOutputs]:
        """The region, if there is one, with another feather."""
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
        """The region with what was painted on the frame that was `loaded`, carried to all and shown over the video."""
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
        """The same with a box, its sides in percent of the frame's width and height: for who does not paint."""
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
        """`painted` [H, W] is added to the region or taken away from it, and the region carried to all frames."""
        frame = self._frame(stored, painted_frame)
        masks = over.region.masks
        if frame not in masks and self._is_searched(over):
            raise refusal(f"the region is still being found in frame {frame}; wait for it, then change it there")
        inside = self._inside(stored, over, frame)
        inside = inside | painted if strokes == labels.PAINT_IN else inside & ~painted
        async for outputs in self._carry(stored, over, masks=masks | {frame: inside}, feather=int(feather)):
            yield outputs

    async def show_over(self, plan_id: str | None, over: OverState, over_id: str) -> AsyncIterator[OverOutputs]:
        """After a plan: what a project or a tab that was reloaded brought; what is of other frames goes aside."""
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
        """The region in all frames, with what is `asked` of it; found anew where the job that found it is gone."""
        wanted = replace(over.region, **asked)
        region = region_of(wanted)
        assert region is not None
        mask = self._found(stored, wanted)
        if mask is None:
            with refuse_on_error():
                job_id = self.studio.region(stored.id, region)
            self._leave_search(over)
            # Kept as it begins: what is painted and given back while it searches begins from it.
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
        """The progress of the search for `over`'s region. One that finds nothing leaves the region as it was, and shows
        what that is, unless something else was asked for meanwhile."""
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
        if shown and latest.region.words != before.words:  # what was typed can be corrected
            del shown["region_words"]
        latest = self._still_asked(over)
        if latest is None:
            return
        ended = self.studio.jobs.snapshot(job_id)
        shown["region_progress"] = stopped_line(ended, "search for the region")
        yield self._kept(replace(latest, region=before), region_job_id="", **shown)
        raise not_done(ended, "region")

    async def _shown_as(self, stored: StoredPlan, asked: RegionState) -> dict[str, Any]:
        """How the page shows the region that is asked for, also one that is not found in all frames; {} for none."""
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
        """A region that was found, unless something else was asked for meanwhile."""
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
        """There is another video, or the same one again, after a reload or with a project."""
        if video and not Path(video).is_file():  # an address
            raise refusal("this page keeps no videos from elsewhere; upload the file itself")
        if over.file and video and content_digest(Path(video)) == over.file:
            return unchanged(OverOutputs)
        return self._nothing(OverState(id=over.id))

    def keep_opened(self, over: OverState) -> OverOutputs:
        """What a project that was opened holds, or nothing of one that holds none, is what a reload will find."""
        return self._kept(over)

    def no_region(self, over: OverState, over_id: str) -> OverOutputs:
        """The whole picture again."""
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
        """The plan's keyframes to choose from."""
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
        """A file of a keyframe, and what it is of: the first of the drafts, or the source where there is none."""
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
        """A keyframe as it was changed elsewhere."""
        stored, over = self._known(plan_id, over, over_id)
        with refuse_on_error():
            if keyframe is None or not give_back:
                raise AdaFlowError("there is no picture; choose a keyframe and give its picture back")
            given = ByHand({int(keyframe): Path(give_back)})
            over = replace(over, pictures=over.pictures | read_pictures(given, stored.plan.video))
        return self._hand_shown(stored, over)

    def take_back(self, over: OverState, over_id: str) -> OverOutputs:
        """No keyframe by hand."""
        over = self._held(over, over_id)
        opened = over.opened and replace(over.opened, by_hand=None)
        kept = replace(without_aside(over, pictures={}), pictures={}, opened=opened)
        return self._kept(kept, hand_line="", hand_gallery=gr.Gallery([], visible=False))

    def _nothing(self, over: OverState, said: str = "") -> OverOutputs:
        """Nothing is painted and nothing given back, and `said` says why."""
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
        """Outputs of what was painted and given back, which a reload will find."""
        over = over if over.is_empty else self.studio.kept.keep_over(over)
        return unchanged(OverOutputs, over=over, over_id=over.id, **shown)

    def _held(self, over: OverState, over_id: str) -> OverState:
        with refuse_on_error():
            return held(self.studio, over, over_id)

    def _known(self, plan_id: str | None, over: OverState, over_id: str) -> tuple[StoredPlan, OverState]:
        """The plan, and what was painted and given back for its frames."""
        stored = self.studio.kept.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        with refuse_on_error():
            return stored, of_plan(stored, held(self.studio, over, over_id))

    def _still_asked(self, over: OverState) -> OverState | None:
        """What there is by now, with what was done since `over` was kept; None where another region, or the whole
        picture, was asked for meanwhile, so that the search for `over`'s region is of no use any more."""
        latest = self.studio.kept.find_over(over.id) or over
        return latest if latest.region.search.job == over.region.search.job else None

    def _is_searched(self, over: OverState) -> bool:
        snapshot = self.studio.jobs.snapshot(over.region.search.job)
        return snapshot is not None and not snapshot.finished

    def _leave_search(self, over: OverState) -> None:
        """Something else is asked for: a search that still runs ends without a word."""
        if self._is_searched(over):
            self.studio.jobs.leave(over.region.search.job)

    def _found(self, stored: StoredPlan, asked: RegionState) -> RegionMask | None:
        """The region in all frames, where its search found just what is asked for and its job is known."""
        region, mask = region_of(asked), self._carried(asked)
        if region is None or mask is None or asked.search.found_in != words_found_in(stored, asked):
            return None
        return mask if mask.asked == region.as_json() else None

    def _carried(self, asked: RegionState) -> RegionMask | None:
        """What its last search found, while its job is known: perhaps before the region was changed."""
        snapshot = self.studio.jobs.snapshot(asked.search.job)
        return snapshot.result if snapshot is not None and isinstance(snapshot.result, RegionMask) else None

    def _frame(self, stored: StoredPlan, number: float) -> int:
        last = len(stored.plan.video) - 1
        if not 0 <= int(number or 0) <= last:
            raise refusal(f"there is no frame {int(number)}; the video has the frames 0 to {last}")
        return int(number or 0)

    def _inside(self, stored: StoredPlan, over: OverState, frame: int) -> np.ndarray:
        """[H, W] the region in a frame: as it was painted there, else as it was carried there."""
        if frame in over.region.masks:
            return np.asarray(over.region.masks[frame])
        if region_of(over.region) and (mask := self._carried(over.region)):
            return np.asarray(mask.weights[frame] == 255)
        return np.zeros(stored.plan.video.frames.shape[1:3], bool)


def _crop_line(plan: Plan, mask: RegionMask) -> str:
    """What passes through the model where that is not all of the frames, and the time that it takes."""
    if mask.window is None:
        return ""
    return f" {crop_line(mask)} That takes about {views.duration(of_crop(plan.forecast, mask.window.share).total)}."


def _painted(canvas: dict[str, Any] | None, size: tuple[int, ...]) -> np.ndarray:
    """[H, W] where something was painted."""
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
    """[H, W] the inside of a box, its left, top, right and bottom in percent of the frame."""
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
