"""HTML and gallery items made from jobs and plans."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from adaflow_core.config import ModelProfile
from adaflow_core.progress import Progress
from adaflow_core.report.scores import Scores
from helpers.plans import FINE, small_plan
from webui import views
from webui.jobs.queue import Snapshot
from webui.theme import CSS
from webui.views import labels

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def snapshot_of(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "id": "1a", "kind": "edit", "state": "running", "ahead": 0, "progress": Progress("edit", 3, 12, 6.0),
        "preview": None, "elapsed": 10.0, "remaining": 30.0, "share": 0.25, "stopping": False, "problem": "",
        "result": None,
    }  # fmt: skip
    return Snapshot(**{**values, **changes})


def test_progress_says_stage_share_and_time_left() -> None:
    html = views.progress(snapshot_of(preview=np.zeros((3, 8, 8, 3), np.uint8)))
    assert "Editing" in html and "about 30 s left" in html and 'aria-valuenow="25"' in html
    assert 'alt="The edit so far: 3 keyframes"' in html and "data:image/jpeg" in html


def test_where_only_a_steps_time_is_known_it_says_so() -> None:
    of_plan = snapshot_of(kind="plan", progress=Progress("features", 3, 12, 6.0), remaining=None)
    assert "about 18 s left in this step, 10 s so far" in views.progress(of_plan)
    done = snapshot_of(progress=Progress("features", 12, 12, 6.0), remaining=None)
    assert "<span>10 s so far</span>" in views.progress(done)
    download = Progress("download", 5 * 10**8, 2 * 10**9, 6.0, unit="B")
    assert "0.5 of 2.0 GB, about 18 s left in this step" in views.progress(
        snapshot_of(progress=download, remaining=None)
    )
    assert 'aria-valuenow="25"' in views.progress(snapshot_of(stopping=True)), "the bar stays where it was"


def test_what_is_spoken_of_a_job_changes_with_its_stage_and_not_each_second() -> None:
    assert 'data-spoken="Editing"' in views.progress(snapshot_of())
    assert 'data-spoken="a.mp4: Editing"' in views.aside([snapshot_of(title="a.mp4")])
    failed = views.progress(snapshot_of(state="failed", problem="choose another file"))
    assert 'data-spoken="Edit failed, Choose another file"' in failed
    assert 'role="status"' not in failed + views.notice(["Mind this."]), "what is replaced is not spoken reliably"


def test_everything_from_outside_is_escaped() -> None:
    attack = "<script>alert(1)</script>"
    for html in (
        views.notice([attack]),
        views.line(attack),
        views.quote(attack),
        views.vocabulary([attack]),
        views.progress(snapshot_of(state="failed", problem=attack)),
    ):
        assert "<script" not in html and "&lt;script" in html


def test_a_waiting_job_says_how_many_are_before_it() -> None:
    assert "2 other jobs first" in views.progress(snapshot_of(state="waiting", ahead=2, progress=None))
    loading = snapshot_of(state="waiting", ahead=1, progress=None, loads=True)
    assert "the model is being loaded" in views.progress(loading), "just after the start nobody else is there"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (12.4, "12 s"), (60, "1 min 00 s"), (3900, "1 h 05 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert views.duration(seconds) == text


def test_keyframes_are_shown_in_time_order_with_their_segments() -> None:
    captions = [caption for _, caption in views.keyframe_items(small_plan())]
    assert captions == [
        "0.30 s, frame 3 · segment of 8",
        "1.00 s, frame 10 · segment of 6",
        "1.70 s, frame 17 · segment of 6",
    ]


def test_tokens_follow_the_selected_keyframe_and_grid() -> None:
    plan = small_plan()
    first, sentence = views.token_items(plan, 0, str(FINE), labels.KEPT)
    third, _ = views.token_items(plan, 2, str(FINE), labels.KEPT)
    assert len(first) == len(third) == 2 and first[0][1] != third[0][1]
    assert f"all {FINE.n} tokens of its own" in sentence and "50% of the others'" in sentence
    assert "2x3 grid" in views.token_items(plan, 0, "2x3", labels.KEPT)[1]
    assert "score" in views.token_items(plan, 0, None, labels.SCORES)[1]


def test_cost_says_tokens_time_and_memory() -> None:
    html = views.cost(small_plan())
    assert "48" in html and "of 72 unpruned (67% kept)" in html
    assert "1 min 35 s" in html and "1.5 GiB" in html


def test_scores_that_say_nothing_of_an_edit_are_left_out() -> None:
    html = views.scores(Scores(0.83, 0.7, 1.0, flicker=0.4, edge_error=6.2, rims=0.11, rim_frame=3))
    assert "83%" in html and "Left as it was" in html and "11%" in html and "edge error 6 of 255" in html
    assert "agreement" not in views.scores(Scores(None, 0.7, 1.0)), "it was changed by hand alone"
    style = views.scores(Scores(0.83, None, None, flicker=0.4))
    assert "Left as it was" not in style and "Rims" not in style and "Flicker" in style


def test_what_is_good_to_know_looks_other_than_a_warning() -> None:
    plan = small_plan()
    damaged = replace(plan, video=replace(plan.video, notes=("clip.mp4 is damaged",)), notes=("clip.mp4 is damaged",))
    assert "af-notice" in views.cost(damaged) and "af-notes" not in views.cost(damaged)
    known = views.cost(replace(plan, notes=("the video changes evenly",)))
    assert "af-notes" in known and "The video changes evenly" in known and "af-notice" not in known


def test_what_a_toy_cannot_do_is_said_and_nothing_of_other_models() -> None:
    toy = ModelProfile(vocabulary=("ball", "cube", "red"), words=(("things", ("ball", "cube")),))
    assert "knows 2 drawn things" in views.toy(toy) and "Stable Diffusion and a GPU" in views.toy(toy)
    assert views.toy(ModelProfile()) == ""


def test_what_has_no_time_left_says_none() -> None:
    assert "less than 1 s left" in views.progress(snapshot_of(remaining=0.04))


def test_one_frame_is_no_plural() -> None:
    from fractions import Fraction
    from pathlib import Path

    from adaflow_core.video.types import VideoInfo

    info = VideoInfo(Path("a.mp4"), 64, 48, Fraction(10), 1, 0.1, "h264", 0, False)
    assert views.video_line(info).startswith("1 frame, 0.1 s, 10 frames per second")


def test_little_is_not_nothing() -> None:
    assert "under 1%" in views.scores(Scores(0.83, 0.004, None)) and ">0%" in views.scores(Scores(0.83, 0.0, None))
    edit: Any = SimpleNamespace(video="a.mp4", prompt="a cube", settings="", scores=Scores(0.83, 0.004, None))
    assert "<td>7</td>" in views.history({7: edit}) and "under 1%" in views.history({7: edit})


@pytest.mark.browser
def test_a_word_that_is_wider_than_a_phone_is_broken(browser: Browser) -> None:
    """The page cuts off what is wider, so that it could not be read by scrolling either."""
    word = "a_film_" * 40 + ".mp4"
    shown = [
        views.quote(word),
        views.line(word),
        views.notice([word]),
        views.notes([word]),
        views.progress(snapshot_of(state="failed", problem=word)),
        views.aside([snapshot_of(title=word)]),
        views.progress(snapshot_of(progress=Progress(word, 3, 12, 6.0))),
    ]
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_content(f'<style>{CSS}</style><div class="gradio-container">{"".join(shown)}</div>')
    wide = "[...document.querySelectorAll('p, div, strong, span')].filter((e) => e.scrollWidth > innerWidth)"
    assert page.evaluate(f"{wide}.map((e) => e.outerHTML.slice(0, 60))") == []
    page.close()
