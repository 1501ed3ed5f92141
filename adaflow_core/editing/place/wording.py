"""What the words that differ between two prompts say of an edit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

from adaflow_core.config import BY_WORDS, GUIDED_FROM, EditConfig
from adaflow_core.editing.place.manner import without_manner
from adaflow_core.motion.carrying import FAR, NEAR

_PREPOSITIONS = {
    "in", "on", "at", "under", "near", "inside", "outside", "over", "above", "below", "through", "across", "beside",
    "behind", "by", "along", "around", "between", "before", "into", "onto", "from", "against", "within", "with",
}  # fmt: skip
_ARTICLES = {"a", "an", "the"}
_FUNCTION_WORDS = (
    _PREPOSITIONS | _ARTICLES | {"of", "and", "or", "as", "is", "are", "its", "his", "her", "their", ",", ".", ";", ":"}
)
_NOUNS_IN_ING = {
    "awning", "bedding", "building", "ceiling", "clothing", "crossing", "drawing", "duckling", "dumpling", "earring",
    "evening", "fencing", "icing", "king", "landing", "lightning", "morning", "painting", "pudding", "railing", "ring",
    "sling", "spring", "stocking", "string", "swing", "thing", "wedding", "wing",
}  # fmt: skip
# The share of the source's light and colours that is left to what is recoloured, and to frames whose prompts differ all
# over, as in their style; chosen on the plain model's validation clips.
RECOLOURED, RESTYLED = 0.25, 0.5


@dataclass(frozen=True)
class Wording:
    """What the words that differ between two prompts say of an edit."""

    modifier: bool  # they describe something that keeps its name, such as a colour: its structure stays
    kept: str | None  # the source prompt without its first thing, where they name the surroundings; else None
    style: bool = False  # they name how all of the picture is made

    @property
    def keeps_shapes(self) -> bool:
        """Whether they say that things keep their shapes."""
        return self.modifier or self.kept is not None

    @property
    def structure(self) -> float:
        """The share of the steps with the source's structure in the edit's place."""
        return float(self.keeps_shapes)

    @property
    def stride(self) -> int:
        """At most how many frames from one that the model edits to the next: a new shape is doubled if carried far."""
        return FAR if self.keeps_shapes else NEAR

    def coarse(self, placed: bool, all_over: bool) -> float:
        """How much of the source's coarse light and colours an edit keeps where it takes place.

        `placed`: it is held to a place, as to a region. `all_over`: the prompts differ all over the frame.
        """
        if self.keeps_shapes:
            return RECOLOURED if placed else 1.0  # without a place, what stays would lose its own
        return RESTYLED if all_over else 1.0

    def fill(self, config: EditConfig, focus: float) -> EditConfig:
        """`config` with what these words decide, for settings that are None.

        With a `focus` of 0 the edit is held to no place, and structure is injected as long as the model does it.
        """
        keeps = self.keeps_shapes
        said: dict[str, Any] = {
            "outlines": float(keeps),
            # Where structure is kept, colours are decided on in the first steps.
            "guided_from": GUIDED_FROM / 2 if keeps else GUIDED_FROM,
            "stride": self.stride,
        }
        if keeps and focus:
            said |= dict.fromkeys(BY_WORDS, 1.0)
        return replace(config, **{name: value for name, value in said.items() if getattr(config, name) is None})


def wording(source: str, prompt: str) -> Wording:
    """Compares two prompts word by word; where they differ in more than one place nothing is concluded."""
    before, after = (re.findall(r"[\w'-]+|[,.;:]", text.lower()) for text in (source, prompt))
    changed = _changed(before, after)
    (shown, made), (other, made_now) = without_manner(source), without_manner(prompt)
    if shown and shown == other and made != made_now:
        return Wording(False, None, style=True)
    if changed is None:
        return Wording(False, None)
    start, end = changed
    following = before[end] if end < len(before) else ","
    modifier = start > 0 and not (following in _FUNCTION_WORDS or _is_participle(following))
    lead = start  # the first word of the phrase that differs: a preposition may stand before it or begin it
    while lead > 0 and before[lead - 1] in _FUNCTION_WORDS - {","}:
        lead -= 1
    begins_with_place = bool(_PREPOSITIONS & set(before[lead : start + 1]))
    first = next((i for i, word in enumerate(before) if word in _FUNCTION_WORDS - _ARTICLES), len(before))
    if modifier or not begins_with_place or first > lead:
        return Wording(modifier, None)
    return Wording(False, " ".join(before[first:]))


def _changed(before: list[str], after: list[str]) -> tuple[int, int] | None:
    """From where to where the first's words are others in the second; None: nowhere, or in several places.

    Articles say nothing: "a red ball" and "an orange ball" differ in a colour, "on the beach" and "in the desert" once.
    """
    old, new = (["a" if word in _ARTICLES else word for word in words] for words in (before, after))
    parts = [c for c in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if c[0] != "equal"]
    if not parts or any(set(old[a[2] : b[1]]) != {"a"} for a, b in pairwise(parts)):
        return None
    return parts[0][1], parts[-1][2]


def _is_participle(word: str) -> bool:
    """Whether it says what the thing before it does, as in "a cat sitting on a mat"."""
    return word.endswith("ing") and word not in _NOUNS_IN_ING
