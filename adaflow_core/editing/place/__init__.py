"""Where an edit takes place: what its words say of it, and what the model itself finds.

An edit of an object's colour or kind differs in one place, an edit of the style all over the frame. For an edit of the
surroundings it is asked where the words that stay are: everywhere else, up to the edges that frames themselves show.
Outside the place structure is injected and the source held; inside the edit is free.
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
