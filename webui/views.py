"""HTML and gallery items made from plans, jobs and scores. All text is escaped. No components, no events."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from adaflow_core.config import ModelProfile
from adaflow_core.errors import counted
from adaflow_core.report.canvas import resize
from adaflow_core.report.edges import rim_picture
from adaflow_core.report.matches import match_view, shares_sentence, token_at
from adaflow_core.report.scores import Scores
from adaflow_core.report.visualize import (
    Picture,
    contact_sheet,
    percent,
    score_heatmap,
    score_view,
    stamp,
    token_view,
)
from adaflow_core.types import Grid, Plan, Slimming
from adaflow_core.video.types import VideoInfo
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Snapshot
from webui.limits import LARGEST_SIDE
from webui.messages import sentence

Item = tuple[Picture, str]  # picture and caption in a gallery

STAGES = {
    "load": "Loading the model",
    "download": "Downloading the model",
    "decode": "Reading frames",
    "cuts": "Finding cuts",
    "encode": "Encoding frames",
    "features": "Looking at every frame",
    "similarity": "Comparing frames",
    "refine": "Refining keyframes",
    "borders": "Dividing frames among keyframes",
    "slim": "Comparing the keyframes' tokens",
    "match": "Matching frames to keyframes",
    "measure": "Measuring this machine",
    "invert": "Inverting the source",
    "place": "Finding where it changes",
    "edit": "Editing",
    "decode source": "Decoding the source",
    "decode frames": "Decoding the edited frames",
    "flow": "Following the motion",
    "choose": "Finding the frames to edit",
    "smooth": "Smoothing flicker",
    "carry": "Carrying the edit to the frames between",
    "residual": "Measuring how frames follow keyframes",
    "score": "Scoring the edit",
    "write": "Writing the video",
}
_KINDS = {"plan": "Preview", "load": "Model", "place": "Search"}  # of jobs, where they are not called so
KEPT, SCORES = "Kept tokens", "Scores"
# What is done by hand to a frame of the timeline, and the kinds of a model's words.
ADD, REMOVE, MOVE, AUTOMATIC = HAND = (
    "Keyframe here",
    "No keyframe here",
    "Move the nearest here",
    "Choose them again",
)
THINGS, COLOURS, PLACES, STYLES = KINDS = ("things", "colours", "places", "styles")
ONE, BY_SHOT = "One prompt", "A prompt for each shot"
OF_ONE_PROMPT = "Where it changes, and drafts, can be shown with one prompt only."
# What drafts side by side differ in: the setting, and its values; None: these settings alone.
TRIED: dict[str, tuple[str, tuple[float, ...]] | None] = {
    "these settings": None,
    "four seeds": ("seed", (0, 1, 2, 3)),  # from the one that is set
    "four scales of guidance": ("guidance", (1, 3, 6, 10)),
    "four amounts of structure": ("structure", (0, 0.35, 0.7, 1)),
}
SOURCE = "Source, as it was edited"
RIMS_SHOWN = 0.05  # share of the edge from which a picture says where they are
# The places in the page of a finished edit, of drafts, of where an edit changes, and of all edits, for links.
RESULT, DRAFTS, PLACE, EDITS = "result", "drafts", "place", "edits"
PAINT_IN, PAINT_OUT = "Add to the region", "Take away from it"  # what strokes do
THE_SOURCE, THE_DRAFT = "the source", "the draft"  # of what a keyframe is taken


# --- text ------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Seconds as text, such as "0.4 s", "12 s", "3 min 20 s" or "1 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(size: int) -> str:
    """Bytes as text, in MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def stage_name(stage: str) -> str:
    return STAGES.get(stage, stage.replace("_", " ").capitalize())


def video_line(info: VideoInfo) -> str:
    """Length, rate, size and sound of a video."""
    sound = "with sound" if info.has_audio else "no sound"
    return (
        f"{counted(info.frames, 'frame')}, {duration(info.seconds)}, {float(info.fps):.4g} frames per second, "
        f"{info.width}x{info.height} pixels, {sound}"
    )


def line(text: str) -> str:
    return f'<p class="af-line">{escape(text)}</p>' if text else ""


def how(finished: FinishedEdit) -> str:
    """What an edit was made of, in sentences after others; "" where all was made anew."""
    T = len(finished.after)
    carried = f" {finished.edited} of {T} frames were edited, the others carried along the motion."
    return (carried if finished.edited < T else "") + (" Plan and inversion were reused." if finished.reused else "")


def notice(sentences: Sequence[str]) -> str:
    """Highlighted warnings, one per sentence; "" for none."""
    if not sentences:
        return ""
    return '<div class="af-notice">' + "".join(f"<p>{escape(sentence(s))}</p>" for s in sentences) + "</div>"


def notes(sentences: Sequence[str]) -> str:
    """What is good to know, one sentence each; "" for none."""
    if not sentences:
        return ""
    return '<div class="af-notes">' + "".join(f"<p>{escape(sentence(s))}</p>" for s in sentences) + "</div>"


# --- a plan -----------------------------------------------------------------------------------------


def keyframe_items(plan: Plan) -> list[Item]:
    """The keyframes in time order, captioned with time, frame and length of the segment."""
    segments = plan.segments
    return [
        (np.asarray(plan.video.frames[frame]), f"{stamp(plan, frame)} · segment of {length}")
        for frame, length in zip(segments.keyframes, segments.lengths, strict=True)
    ]


def grid_choices(plan: Plan) -> list[tuple[str, str]]:
    return [(f"{grid} (finest)" if grid == plan.finest else str(grid), str(grid)) for grid in plan.grids]


def token_items(plan: Plan, q: int, grid_name: str | None, show: str) -> tuple[list[Item], str]:
    """What keyframe `q` (from 0) keeps of the others, or their scores, on one grid; and a sentence on it."""
    grid = next((g for g in plan.grids if str(g) == grid_name), plan.finest)
    q = min(max(q, 0), len(plan.layout.keyframes) - 1)
    items = score_view(plan, q, grid) if show == SCORES else token_view(plan, q, grid)
    return items, _token_sentence(plan, q, grid, show)


def _token_sentence(plan: Plan, q: int, grid: Grid, show: str) -> str:
    count = len(plan.layout.keyframes)
    if count == 1:
        return "There is only this one keyframe: it attends within itself, and every frame takes from it."
    slimming = plan.layout.slimming
    if slimming is None:
        return "With this method a keyframe attends within itself only: nothing of the others is kept."
    kept = slimming[grid].kept.shape[1]
    others = (kept - grid.n) / max(1, (count - 1) * grid.n)
    if show == SCORES:
        return (
            f"Keyframe {q + 1} on the {grid} grid: the score is how well its best match agrees with a token, "
            "weighted by importance. One scale for all pictures."
        )
    return (
        f"Keyframe {q + 1} on the {grid} grid attends to all {grid.n:,} tokens of its own and "
        f"to {percent(others)} of the others', {kept:,} in all. {_legend(slimming[grid])}"
    )


def _legend(slimming: Slimming) -> str:
    """What the colours of kept tokens mean, and how many there are of each."""
    chosen = slimming.kept.shape[1] - slimming.grid.n - slimming.num_sampled
    if not slimming.num_sampled:
        return "Hatched: dropped."
    return (
        f"Outlined: {chosen:,} chosen by score. Blue: {slimming.num_sampled:,} of an even sample, each of which "
        f"stands for {slimming.sample_weight:.1f} tokens. Hatched: dropped."
    )


def frame_view(plan: Plan, frame: int) -> tuple[Picture, str]:
    """A frame overlaid with its similarity to its keyframe, and a sentence on it."""
    frame = min(max(frame, 0), len(plan.video) - 1)
    heat = plan.heat[frame].astype(np.float32).reshape(plan.heat_grid)
    low, high = float(np.percentile(plan.heat.astype(np.float32), 1)), float(plan.heat.max())
    segment = int(plan.segments.segment_of()[frame])
    keyframe = int(plan.segments.keyframes[segment])
    sentence = f"{stamp(plan, frame)}: mean similarity {plan.similarity[frame]:.2f}, worst window "
    sentence += f"{plan.window[frame]:.2f}, residual {plan.residual[frame]:.2f}. "
    if frame == keyframe:
        sentence += "It is a keyframe."
    else:
        sentence += f"Its keyframe is at {stamp(plan, keyframe)}. {shares_sentence(plan, frame)}"
    return score_heatmap(np.asarray(plan.video.frames[frame]), heat, low, high), sentence


def match_items(plan: Plan, frame: int, x: float, y: float) -> tuple[list[Item], str]:
    """A point (x, y) of a frame, in pixels, its matches in the keyframes, and a sentence on them."""
    frame, grid = min(max(frame, 0), len(plan.video) - 1), plan.finest
    if plan.layout.correspondence.by_layer:
        return [], "With this method each layer of the model finds its own matches while it edits."
    items = match_view(plan, frame, token_at(grid, plan.video.size, x, y))
    where = f"At ({x:.0f}, {y:.0f}) this frame takes what the edit changes at the marked places"
    return items, f"{where}, by these weights, on the {grid} grid."


def facts(plan: Plan, plan_id: str) -> dict[str, object]:
    """The plan in numbers, for programs, with its id."""
    return {
        "plan": plan_id,
        "frames": len(plan.video),
        "width": plan.video.size[0],
        "height": plan.video.size[1],
        "fps": float(plan.video.fps),
        "keyframes": plan.layout.keyframes.tolist(),
        "segments": plan.segments.starts.tolist(),
        "cuts": plan.segments.cuts.tolist(),
        "tokens_full": plan.tokens_full,
        "tokens_kept": plan.tokens_kept,
        "kept_ratio": plan.kept_ratio,
        "seconds": plan.forecast.total,
        "peak_memory_bytes": plan.forecast.peak_memory_bytes,
        "notes": list(plan.notes),
    }


def cost(plan: Plan) -> str:
    """The predicted cost of the edit: keyframes, tokens with and without pruning, time and memory."""
    keyframes, frames = len(plan.layout.keyframes), len(plan.video)
    facts = [
        ("Keyframes", f"{keyframes}", f"of {counted(frames, 'frame')}"),
        (
            "Tokens per keyframe",
            f"{plan.tokens_kept:,}",
            f"of {plan.tokens_full:,} unpruned ({percent(plan.kept_ratio)} kept)",
        ),
        ("Predicted time", duration(plan.forecast.total), "for the edit, on this machine"),
        ("Predicted memory", memory(plan.forecast.peak_memory_bytes), "at its peak"),
    ]
    warnings = [note for note in plan.notes if note in plan.video.notes]  # what is wrong with the file
    spoken = f"Preview ready: {counted(keyframes, 'keyframe')} of {counted(frames, 'frame')}"
    cards = f'<div data-spoken="{spoken}">{_cards(facts)}</div>'
    return cards + notice(warnings) + notes([note for note in plan.notes if note not in warnings])


def stale(of_forecast: bool) -> str:
    """Of a plan whose settings are others by now, or only those that its forecast needs."""
    if of_forecast:
        return notice(["The predicted time and memory are of the settings before; preview again for these."])
    return notice(["The settings have changed since this preview; preview again to see what they give."])


def _cards(facts: Sequence[tuple[str, str, str]]) -> str:
    """One card per fact: its name, its value and an explanation."""
    cards = "".join(
        f'<div class="af-fact"><dt>{escape(name)}</dt><dd>{escape(value)}</dd>'
        f'<dd class="af-more">{escape(more)}</dd></div>'
        for name, value, more in facts
    )
    return f'<dl class="af-facts">{cards}</dl>'


# --- a result ---------------------------------------------------------------------------------------


def scores(values: Scores) -> str:
    """The scores of an edit, each with an explanation; those that say nothing of this edit are left out."""
    cards = []
    if values.agreement is not None:
        more = "of the way from the source to what the model itself would draw for your prompt, where the two differ"
        cards.append(("Prompt agreement", percent(values.agreement), more))
    if values.untouched is not None:
        more = "of the pixels have the source's colour; more is better where the edit should not reach"
        cards.append(("Left as it was", percent(values.untouched), more))
    if values.rims is not None and values.edge_error is not None:
        more = (
            "of the edge of what changed has colours that belong to neither side, such as an outline of what was there"
        )
        cards.append(("Rims", percent(values.rims), f"{more}; edge error {values.edge_error:.0f} of 255 levels"))
    if values.flicker is not None:
        more = (
            "of 255, by which the picture changes along the source's motion from frame to frame, and the source does "
            "not: a mean over all of it"
        )
        cards.append(("Flicker", f"{values.flicker:.1f} levels", more))
    if values.liveliness is not None:
        more = "the source's is 1; well below, the edit lost motion, well above, frames break up"
        cards.append(("Change from frame to frame", f"{values.liveliness:.2f}", more))
    return _cards(cards)


def rims(finished: FinishedEdit) -> str:
    """The frame with most rims, these outlined; "" where there are next to none."""
    values = finished.scores
    if values.rims is None or values.rim_frame is None or values.rims < RIMS_SHOWN:
        return ""
    frame = values.rim_frame
    words = f"Where rims are most: frame {frame}, outlined."
    picture = rim_picture(np.asarray(finished.after[frame]), np.asarray(finished.before[frame]))
    return image(picture, words) + line(words)


def edit_name(finished: FinishedEdit, number: int) -> str:
    return f"{number}: {finished.video}, {finished.prompt}"


def history(edits: Mapping[int, FinishedEdit]) -> str:
    """A row for each edit, under its number: source, prompt, settings and scores."""
    heads = ("No.", "Source", "Prompt", "Settings", "Prompt agreement", "Left as it was", "Rims", "Flicker")
    rows = "".join(
        f"<tr><td>{number}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in _history_cells(edit)) + "</tr>"
        for number, edit in edits.items()
    )
    return (
        '<div class="af-history" tabindex="0" role="region" aria-label="Edits so far"><table><thead><tr>'
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _history_cells(edit: FinishedEdit) -> tuple[str, ...]:
    values = edit.scores
    return (
        edit.video, edit.prompt, edit.settings or "default", _percent(values.agreement), _percent(values.untouched),
        _percent(values.rims), "none" if values.flicker is None else f"{values.flicker:.1f}",
    )  # fmt: skip


def _percent(share: float | None) -> str:
    return "none" if share is None else percent(share)


# --- a job ------------------------------------------------------------------------------------------


def progress(snapshot: Snapshot) -> str:
    """Stage, bar, time left and preview of a job. One piece of HTML, because separate outputs would flicker."""
    title, detail, share = _headline(snapshot)
    # What was made may stand a screen below.
    place = {"edit": RESULT, "draft": DRAFTS, "place": PLACE}.get(snapshot.kind)
    link = f' <a href="#{place}">See it</a>' if place and snapshot.state == "done" else ""
    picture = ""
    if snapshot.preview is not None and not snapshot.finished:
        picture = (
            f'<img class="af-live" src="{_data_url(contact_sheet(snapshot.preview))}" '
            f'alt="The edit so far: {counted(len(snapshot.preview), "keyframe")}">'
        )
    return _job(snapshot, title, escape(detail) + link, share, _spoken(snapshot, title, detail), picture)


def aside(snapshots: Sequence[Snapshot]) -> str:
    """A line for each edit that goes on, or has ended, while the page shows something else."""
    return "".join(map(_aside, snapshots))


def _aside(snapshot: Snapshot) -> str:
    title, detail, share = _headline(snapshot)
    words = escape(f"{title}, {detail}")
    if snapshot.state == "done":
        words += f'. <a href="#{EDITS}">It is among the edits so far</a>'
    spoken = f"{snapshot.title}: {_spoken(snapshot, title, detail)}"
    return _job(snapshot, snapshot.title, words, share, spoken)


def _spoken(snapshot: Snapshot, title: str, detail: str) -> str:
    """What is said of a job to those who do not see it; of a running one without its seconds, which change always."""
    return title if snapshot.state == "running" else f"{title}, {detail}"


def _job(snapshot: Snapshot, title: str, detail: str, share: float, spoken: str, picture: str = "") -> str:
    """A title, which is escaped here, and HTML on a job over its bar. js/access.js says what is `spoken`."""
    return (
        f'<div class="af-job af-{snapshot.state}" data-job="{snapshot.kind} {snapshot.id}" '
        f'data-spoken="{escape(spoken)}">'
        f'<div class="af-job-head"><strong>{escape(title)}</strong><span>{detail}</span></div>'
        f'<div class="af-bar" role="progressbar" aria-label="{escape(snapshot.kind)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * share:.0f}">'
        f'<div style="width:{share:.1%}"></div></div>{picture}</div>'
    )


def _headline(snapshot: Snapshot) -> tuple[str, str, float]:
    """Title, detail and finished share (0 to 1) of a job."""
    kind = _KINDS.get(snapshot.kind, snapshot.kind.capitalize())
    ran = duration(snapshot.elapsed)
    if snapshot.state == "done":
        return f"{kind} ready", f"took {ran}", 1.0
    if snapshot.state == "stopped":
        return f"{kind} stopped", f"after {ran}" if snapshot.elapsed else "before it began", 0.0
    if snapshot.state == "failed":
        return f"{kind} failed", sentence(snapshot.problem), 0.0
    if snapshot.state == "waiting":
        others = "1 other job first" if snapshot.ahead == 1 else f"{snapshot.ahead} other jobs first"
        if snapshot.loads and snapshot.ahead == 1:
            others = "the model is being loaded"
        return "Waiting", others if snapshot.ahead else "about to begin", 0.0
    step = snapshot.progress
    title = stage_name(step.stage) if step is not None else "Beginning"
    if snapshot.stopping:
        return "Stopping", title, snapshot.share
    return title, ", ".join(_running(snapshot)), snapshot.share


def _running(snapshot: Snapshot) -> list[str]:
    """What is said of a running job: what is downloaded, the time left in all or in its step, the time so far."""
    step, left, of_what, said = snapshot.progress, snapshot.remaining, "", []
    if step is not None and step.unit:
        said.append(step.amount)
    if left is None and step is not None and step.done < step.total:
        left, of_what = step.remaining, " in this step"
    if left is not None:
        said.append(f"{f'about {duration(left)}' if left >= 1 else 'less than 1 s'} left{of_what}")
    return [*said, f"{duration(snapshot.elapsed)} so far"]


def copy_line() -> str:
    """Of a video that browsers may not play. Where one does, the page's script takes it away again."""
    return '<p class="af-line af-copy">Your browser may not show this kind of file; editing works.</p>'


def quote(text: str) -> str:
    return f'<p class="af-quote">“{escape(text)}”</p>'


def status(snapshot: Snapshot | None) -> dict[str, object]:
    """The state of a job, for programs."""
    if snapshot is None:
        return {"state": "unknown"}
    step = snapshot.progress
    return {
        "state": snapshot.state,
        "kind": snapshot.kind,
        "jobs_ahead": snapshot.ahead,
        "stage": step.stage if step is not None else None,
        "done": step.done if step is not None else 0,
        "total": step.total if step is not None else 0,
        "seconds": round(snapshot.elapsed, 2),
        "seconds_left": None if snapshot.remaining is None else round(snapshot.remaining, 1),
        "share_done": round(snapshot.share, 3),
        "problem": snapshot.problem,
    }


def vocabulary_title(words: Sequence[str]) -> str:
    return f"The {len(words)} words that this model knows"


def toy(profile: ModelProfile) -> str:
    """What a model that knows a few words cannot do; "" for others."""
    things = len(dict(profile.words).get("things", ()))
    if not profile.vocabulary:
        return ""
    known = f"{things} drawn things" if things else f"{len(profile.vocabulary)} words"
    return line(
        f"The model here is a toy that knows {known}: what you upload comes out in its drawn world. Real footage wants "
        "Stable Diffusion and a GPU."
    )


def working_sizes(usual: int) -> list[tuple[str, int]]:
    """Working sizes to choose from, in pixels of the shorter side; 0 is the model's own."""
    sides = (192, 256, 320, 384, 512, LARGEST_SIDE)
    return [(f"the model's own ({usual})", 0), *((str(side), side) for side in sides)]


def vocabulary(words: Iterable[str]) -> str:
    return '<p class="af-words">All of them: ' + escape(", ".join(sorted(words))) + "</p>"


def image(picture: Picture, words: str) -> str:
    return f'<img class="af-strip" src="{_data_url(picture)}" alt="{escape(words)}">'


def strip(frames: np.ndarray, chosen: Sequence[int], height: int = 96) -> Picture:
    """Some of the frames [T, H, W, 3], small, beside each other."""
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    return contact_sheet([resize(np.asarray(frames[t]), width, height) for t in chosen])


def _data_url(picture: Picture) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
