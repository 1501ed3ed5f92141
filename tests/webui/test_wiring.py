"""Which event calls which handler, and whether a call that comes while another runs is made after it."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from webui.events.session import SETTINGS
from webui.limits import Limits
from webui.page import build
from webui.studio import Studio

Event = Any  # of `gr.Blocks.fns`


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    return build(Studio("embedded", "cpu", tmp_path_factory.mktemp("results")))


def named(blocks: gr.Blocks, *names: str) -> list[Event]:
    """The events that call these handlers."""
    return [event for event in blocks.fns.values() if str(event.name) in names]


def labelled(blocks: gr.Blocks, label: str) -> Any:
    """The component with this label, or the button with this text."""
    found = [b for b in blocks.blocks.values() if label in (getattr(b, "label", ""), getattr(b, "value", ""))]
    assert len(found) == 1, label
    return found[0]


def targets(event: Event, component: Any) -> list[str]:
    """By which of a component's events this one is called."""
    return [what for block, what in event.targets if block == component._id]


def test_how_long_results_are_kept_stands_beside_the_edit_and_its_downloads(blocks: gr.Blocks) -> None:
    texts = [str(block.value) for block in blocks.blocks.values() if isinstance(block, gr.HTML)]
    assert sum(f"kept for {Limits().kept}" in text or f"kept here for {Limits().kept}" in text for text in texts) == 2


def test_of_keyframes_by_hand_the_last_ones_are_planned(blocks: gr.Blocks) -> None:
    by_hand, replans = named(blocks, "by_hand"), named(blocks, "replan")
    assert len(by_hand) == 4 and len(replans) == 7
    assert {event.trigger_mode for event in [*by_hand, *replans]} == {"always_last"}
    keyframes_at = labelled(blocks, "Keyframes set by hand")
    assert all(event.inputs[-1] is event.outputs[0] is keyframes_at for event in by_hand)


def test_keyframes_by_hand_go_with_the_frames_that_they_are_counted_in(blocks: gr.Blocks) -> None:
    frames, keyframes_at = labelled(blocks, "Frame range"), labelled(blocks, "Keyframes set by hand")
    (cleared,) = [event for event in blocks.fns.values() if targets(event, frames) == ["input"]]
    assert cleared.outputs == [keyframes_at] and cleared.js == "() => ['']"
    for event in named(blocks, "uploaded", "example", "trimmed", "another_plan"):
        assert keyframes_at in event.outputs


@pytest.mark.parametrize(
    ("slider", "instead", "nothing"),
    [
        ("Keyframes (0 = automatic)", "Keyframes set by hand", "''"),
        ("Pruning ratio", "Frames' worth of tokens to keep (0 = as the pruning ratio says)", "0"),
    ],
)
def test_a_slider_that_is_moved_counts(slider: str, instead: str, nothing: str, blocks: gr.Blocks) -> None:
    """What is set in its place elsewhere gives way, and then the plan follows."""
    moved, other = labelled(blocks, slider), labelled(blocks, instead)
    (cleared,) = [event for event in blocks.fns.values() if "release" in targets(event, moved)]
    assert cleared.outputs == [other] and cleared.js == f"() => [{nothing}]"
    (replan,) = [event for event in named(blocks, "replan") if event.trigger_after == cleared._id]
    assert {moved, other} <= set(replan.inputs)


def test_every_setting_of_a_plan_marks_what_is_shown(blocks: gr.Blocks) -> None:
    """But for those that the plan follows by itself."""
    checks = named(blocks, "check_shown")
    assert {event.trigger_mode for event in checks} == {"always_last"} and len(checks) == 5
    models = {event._id for event in named(blocks, "choose_model")}
    assert models <= {event.trigger_after for event in checks}, "two models may have the same settings of their own"
    (changed,) = [event for event in checks if event.targets[0][1] == "change"]
    marks, inputs = {block for block, _ in changed.targets}, {block._id for block in changed.inputs}
    unmarked = {"Pruning ratio", "Keyframes (0 = automatic)", "Similarity scales, in tokens", "Video"}
    labels = {str(blocks.blocks[block].label) for block in inputs - marks if hasattr(blocks.blocks[block], "label")}
    assert marks <= inputs and labels - {"None"} == unmarked


def test_a_search_for_a_region_does_not_wait_for_the_one_before(blocks: gr.Blocks) -> None:
    """And in the end it is looked whether it is of the plan that is shown."""
    searches = named(blocks, "use_strokes", "use_box", "find_words", "set_feather")
    after = named(blocks, "show_over")
    assert len(searches) == 4 and {event.trigger_mode for event in [*searches, *after]} == {"multiple"}
    assert {event._id for event in searches} <= {event.trigger_after for event in after}


def test_of_models_and_what_is_looked_at_the_last_choice_is_shown(blocks: gr.Blocks) -> None:
    calls = named(blocks, "tokens", "frame", "zoom", "keep_in_view", "_no_matches")
    assert {str(event.name) for event in calls if event.trigger_after is not None} == {
        "tokens", "frame", "zoom", "keep_in_view", "_no_matches",
    }  # fmt: skip
    assert {event.trigger_mode for event in calls if str(event.name) != "zoom"} == {"always_last"}
    # A model that is still being loaded is left.
    assert {event.trigger_mode for event in named(blocks, "choose_model")} == {"multiple"}
    # A call that waits is made with the data of the first click, so of these none waits.
    clicks = named(blocks, "_number", "find_clicked_frame", "example", "choose_draft")
    assert len(clicks) == 5 and {event.trigger_mode for event in clicks} == {"multiple"}
    of_videos = named(blocks, "of_video", "keep_video")
    assert len(of_videos) == 2 and {event.trigger_mode for event in of_videos} == {"always_last"}


def test_drafts_and_searches_do_not_wait_for_those_before(blocks: gr.Blocks) -> None:
    """Which are left as they are queued."""
    begun = named(blocks, "stop_preview")[0].inputs[0]
    assert all(made.trigger_mode == "multiple" and begun in made.inputs for made in named(blocks, "draft", "place"))


def test_what_is_pressed_again_while_it_is_planned_is_not_left_out(blocks: gr.Blocks) -> None:
    """The planning is followed by an event of its own, and known to the next press, which takes its place."""
    begun, shown = named(blocks, "begin", "begin_planning"), named(blocks, "show_planning", "follow_planning")
    assert len(begun) == 4 and all(event.outputs[0] is event.inputs[0] for event in begun)
    assert {event.trigger_after for event in shown} == {event._id for event in begun}
    assert {event.trigger_mode for event in shown} == {"multiple"}
    assert {event.trigger_mode for event in named(blocks, "preview")} == {"always_last"}


def test_an_edit_is_one_that_the_tab_watches_as_it_is_queued(blocks: gr.Blocks) -> None:
    """Not by an event of its own, which another video may come before."""
    watched = named(blocks, "choose_shown")[0].inputs[-1]
    assert all(watched in event.inputs for event in named(blocks, "begin", "retake"))
    assert not named(blocks, "turn_to")


def test_a_tab_keeps_the_rows_of_prompts_as_they_are_typed(blocks: gr.Blocks) -> None:
    prompts, takes = labelled(blocks, "Prompts of ranges of frames"), labelled(blocks, "Takes of a project")
    for component in (prompts, takes, labelled(blocks, "Delivered size")):
        (changed,) = [event for event in blocks.fns.values() if "change" in targets(event, component)]
        (kept,) = [event for event in blocks.fns.values() if event.trigger_after == changed._id]
        assert "adaflow.keep({ settings: [" in kept.js and len(kept.inputs) == len(SETTINGS)
        assert component in kept.inputs
        # All other settings too, but for the model, whose own come when it is loaded.
        assert [each for each in kept.inputs if "change" not in targets(changed, each)] == [labelled(blocks, "Model")]
    restored = named(blocks, "restore")[0].outputs
    assert {prompts, takes} <= set(restored) and len(restored) == len(set(restored))
    mode = labelled(blocks, "How many prompts")
    made = [event for event in blocks.fns.values() if prompts in event.outputs and mode in event.inputs]
    assert len(made) == 3, "twice after a reload, and when there is another plan"
