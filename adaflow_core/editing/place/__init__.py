"""Decides where an edit takes place, from the words of its prompts and from what the model itself finds.

An edit of an object's colour or kind has one place, an edit of the style is all over the frame. For an edit of the
surroundings the thing that stays is found instead, up to its edges in the frames, and the place is everything else.
Outside the place structure is injected and the source is held; inside it the edit is free.
"""

from adaflow_core.editing.place.find import LOCAL, find_place, likely, place_of, prompt_difference
from adaflow_core.editing.place.wording import Wording, keeps_shapes, say_the_same, wording

__all__ = [
    "LOCAL",
    "Wording",
    "find_place",
    "keeps_shapes",
    "likely",
    "place_of",
    "prompt_difference",
    "say_the_same",
    "wording",
]
