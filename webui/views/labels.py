"""What the page's choices are called, and the places in it that links lead to."""

from __future__ import annotations

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
# The places in the page of a finished edit, of drafts, of where an edit changes, and of all edits, for links.
RESULT, DRAFTS, PLACE, EDITS = "result", "drafts", "place", "edits"
PAINT_IN, PAINT_OUT = "Add to the region", "Take away from it"  # what strokes do
THE_SOURCE, THE_DRAFT = "the source", "the draft"  # of what a keyframe is taken
