"""Concludes from the words that differ between two prompts what an edit changes, and which settings suit it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

from adaflow_core.config import BY_WORDS, GUIDED_FROM, EditConfig
from adaflow_core.editing.place.manner import ARTICLES, KINDS, length_of_lead, plain, without_manner
from adaflow_core.editing.place.vocabulary import (
    AIMED,
    BODIES,
    FUNCTION_WORDS,
    IRREGULAR,
    LEAPING,
    MARKS,
    NO_PARTICIPLES,
    NO_VERBS,
    NOUNS_IN_ING,
    OVER_ALL,
    PLURALS,
    PREPOSITIONS,
    SINGULAR,
    STATES,
    VERBS,
    WORN,
    is_one_of,
)
from adaflow_core.motion.carrying import FAR, NEAR

# The share of the source's coarse light and colours that is kept: where things are recoloured, and in whole frames if
# the prompts differ all over, as in the style. Chosen on the plain model's validation clips.
RECOLOURED, RESTYLED = 0.25, 0.5


@dataclass(frozen=True)
class Wording:
    """What an edit changes, concluded from the words that differ between its two prompts."""

    modifier: bool  # the words describe a thing that keeps its name, as a colour does: its structure stays
    kept: str | None  # the source prompt without its first thing, if the words name the surroundings; else None
    style: bool = False  # the words name how the whole picture is made or lit

    @property
    def keeps_shapes(self) -> bool:
        """Whether the words imply that things keep their shapes."""
        return self.modifier or self.kept is not None

    def stride(self, structure: float | None) -> int:
        """Return the largest distance of frames that the model edits; a new shape that is carried far shows twice."""
        return FAR if self._keeps_by(structure) else NEAR

    def _keeps_by(self, structure: float | None) -> bool:
        """Return whether things keep their shapes: by the setting `structure`, or by the words if it is None."""
        return self.keeps_shapes if structure is None else keeps_shapes(structure)

    @property
    def structure(self) -> float:
        """The share of the steps in which the source's structure is injected in the edit's place."""
        return float(self.keeps_shapes)

    def coarse(self, all_over: bool) -> float:
        """Return the share 0..1 of the source's coarse light and colours that an edit keeps in its place.

        `all_over`: the prompts differ all over the frame, which is the place then.
        """
        if self.keeps_shapes:
            return RECOLOURED
        return RESTYLED if all_over else 1.0

    def fill(self, config: EditConfig, focus: float) -> EditConfig:
        """Return `config` with the settings that are None filled in, as far as the words decide them.

        With a `focus` of 0 the edit is held to no place, and the settings `BY_WORDS` are left to the model's own
        values. A `structure` that is given decides whether shapes are kept, whatever the words imply.
        """
        keeps = self._keeps_by(config.structure)
        said: dict[str, Any] = {
            "outlines": float(keeps),
            # If structure is kept, colours are decided in the first steps.
            "guided_from": GUIDED_FROM / 2 if keeps else GUIDED_FROM,
            "stride": self.stride(config.structure),
        }
        if keeps and focus:
            said |= dict.fromkeys(BY_WORDS, 1.0)
        return replace(config, **{name: value for name, value in said.items() if getattr(config, name) is None})


def say_the_same(one: str, other: str) -> bool:
    """Return whether two prompts differ in nothing but capitals, spaces, articles and marks."""
    # By all other characters and not by `_words`, which takes letters and digits alone: models read emoji, too.
    said = (re.sub(r"[\s,.;:!?]+", " ", plain(text)).split() for text in (one, other))
    first, second = ([word for word in words if word not in ARTICLES] for words in said)
    return first == second


def keeps_shapes(structure: float) -> bool:
    """Return whether things keep their shapes if the source's structure is injected in this share of the steps."""
    return structure >= 0.5


def wording(source: str, prompt: str) -> Wording:
    """Compare two prompts word by word; if they differ in more than one place, nothing is concluded."""
    before, after = _words(source), _words(prompt)
    if not before:
        return Wording(False, None)
    (shown, made), (other, made_now) = without_manner(source), without_manner(prompt)
    if shown and shown == other and made != made_now:
        return Wording(False, None, style=True)
    changed = _changed(before, after)
    if changed is None:
        return Wording(False, None)
    old, new = changed
    if _is_named(before, old, after[new]):
        return Wording(True, None)
    replaced = old.start < old.stop
    heads = {words[part.stop - 1] for words, part in ((before, old), (after, new)) if part.start < part.stop}
    if any(heads <= kind for kind in OVER_ALL):
        return Wording(False, None, style=True)
    if heads & STATES or not (
        _is_a_place(before, old, after, new) if replaced else _adds_a_place(before, old, after[new])
    ):
        return Wording(False, None)
    return Wording(False, _without_first_thing(before, old))


def _without_first_thing(words: list[str], changed: slice) -> str | None:
    """Return a prompt without the first thing that it shows; None if there is none, or if `changed` overlaps it.

    "a red car in the desert" -> "in the desert"; "a photo of a cat on the beach" -> "a photo on the beach"; "in the
    city a man walks" -> "in the city".
    """
    start = length_of_lead(words)
    lead = words[: start - 1] if start and words[start - 1] == "of" else words[:start]
    if words[start : start + 1] == ["there"] and words[start + 1 : start + 2] and words[start + 1] in ("is", "are"):
        start += 2
    thing = start
    if words[start : start + 1] and words[start] in PREPOSITIONS:  # the place stands before the thing
        thing = next((i for i in range(start + 2, len(words)) if _begins_a_thing(words, i)), len(words))
        thing += thing < len(words) and words[thing] in MARKS
    end = next((i for i in range(thing, len(words)) if words[i] in FUNCTION_WORDS - ARTICLES), len(words))
    if thing == end or not (changed.stop <= thing or end <= _lead(words, changed.start)):
        return None
    kept = [*lead, *words[start:thing], *words[end:]]
    # Without marks that follow another one or nothing, and none at the end.
    said = [word for before, word in pairwise([",", *kept]) if word not in MARKS or before not in MARKS]
    return " ".join(said[:-1] if said[-1:] and said[-1] in MARKS else said)


def _begins_a_thing(words: list[str], place: int) -> bool:
    """Return whether a mark or an article stands there that is no part of "in the middle of the street"."""
    if words[place] in MARKS:
        return True
    return words[place] in ARTICLES and words[place - 1] not in FUNCTION_WORDS


def _words(text: str) -> list[str]:
    """Return the words and marks of a prompt, without marks at its ends."""
    words = re.findall(r"[\w'-]+|[,.;:]", plain(text))
    said = [place for place, word in enumerate(words) if word not in MARKS]
    return words[said[0] : said[-1] + 1] if said else []


def _changed(before: list[str], after: list[str]) -> tuple[slice, slice] | None:
    """Return the slices of `before` and `after` that differ; None if none do, or if there are several.

    Articles do not count: "a red ball" and "an orange ball" differ in the colour alone, and "on the beach" and "in the
    desert" in one place. Neither do marks alone.
    """
    old, new = (["a" if word in ARTICLES else word for word in words] for words in (before, after))
    parts = [
        (kind, a, b, c, d)
        for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if kind != "equal" and not {*old[a:b], *new[c:d]} <= MARKS
    ]
    if not parts or any(set(old[a[2] : b[1]]) != {"a"} for a, b in pairwise(parts)):
        return None
    return slice(parts[0][1], parts[-1][2]), slice(parts[0][3], parts[-1][4])


def _lead(words: list[str], start: int) -> int:
    """Return the index of the first of the function words, such as a preposition, right before `start`."""
    while start > 0 and words[start - 1] in FUNCTION_WORDS - {","}:
        start -= 1
    return start


def _is_a_place(before: list[str], old: slice, after: list[str], new: slice) -> bool:
    """Return whether the words replaced, and those put in if any, say where something is, as "in a meadow"."""
    parts = [(words, part) for words, part in ((before, old), (after, new)) if part.start < part.stop]
    return bool(PREPOSITIONS & set(_begins(before, old))) and not any(
        _is_no_place(_said_before(words, part), _begins(words, part), _noun(words[part])) for words, part in parts
    )


def _adds_a_place(before: list[str], old: slice, added: list[str]) -> bool:
    """Return whether added words say where everything is: "a cat on the beach", not "a cat near a house on a mat"."""
    if not added or added[0] not in PREPOSITIONS:
        return False
    if _is_no_place(before[old.start - 1] if old.start else "", added[:1], _noun(added)):
        return False
    if added[0] == "by" and added[1:2] and added[1] not in ARTICLES:  # by somebody, as far as can be told
        return False
    return old.stop == len(before) or before[old.stop] in MARKS


def _begins(words: list[str], part: slice) -> list[str]:
    """Return the beginning of the phrase that holds `part`, up to the first word of `part`."""
    return words[_lead(words, part.start) : part.start + 1]


def _said_before(words: list[str], part: slice) -> str:
    """Return the word before the phrase that holds `part`, or ""."""
    lead = _lead(words, part.start)
    return words[lead - 1] if lead else ""


def _noun(phrase: list[str]) -> str:
    """Return the noun of a phrase: "street" for "in a street with people"."""
    first = next((place for place, word in enumerate(phrase) if word not in FUNCTION_WORDS), len(phrase) - 1)
    after = (place for place, word in enumerate(phrase) if place > first and word in FUNCTION_WORDS)
    return phrase[next(after, len(phrase)) - 1]


def _is_no_place(said: str, begins: list[str], head: str) -> bool:
    """Return whether a phrase after the word `said` names no place, but somebody or what is worn, ridden or acted on.

    Such as "in a hat", "on a horse", "looking at a clock", "jumping over a fence", "near a dog".
    """
    if ("at" in begins and said in AIMED) or ("over" in begins and said in LEAPING) or is_one_of(head, BODIES):
        return True
    return "in" in begins and is_one_of(head, WORN)


def _is_named(before: list[str], old: slice, put: list[str]) -> bool:
    """Return whether the words `put` in describe a thing whose name follows, as "red" in "a red ball".

    `old`: the words of `before` that they replace.
    """
    word = before[old.stop] if old.stop < len(before) else ","
    if put and put[-1] in MARKS:  # as in "the snow, countryside"
        return False
    if word in FUNCTION_WORDS or _is_participle(before, old.stop) or _is_verb(before, old):
        return False
    if put and old.start < old.stop and _are_things(before, old, put[-1]):
        return False
    # At its beginning a prompt may lack an article: "red ball", but not "cat photo" nor "cat sleeps".
    return old.start > 0 or not (word in KINDS or _ends_like_a_verb(word))


def _are_things(before: list[str], old: slice, new: str) -> bool:
    """Return whether the word replaced and the `new` one are things, and the word after them says what they do.

    This holds for two plurals, as in "cars drive on a road": a noun that describes another noun has no plural. It also
    holds for people and animals if the next word is a verb, by its ending ("my cat eats food"), by an article after it
    ("a boy rode a bike") or by an "and" before ("a man and a woman dance"). It does not before another noun, as in "a
    child seat in a car" and "a baby elephant runs".
    """
    thing, word, after = before[old.stop - 1], before[old.stop], before[old.stop + 1 : old.stop + 2]
    if _is_plural(thing) and _is_plural(new):
        return True
    together = "and" in before[_lead(before, old.start) : old.start]
    does = _ends_like_a_verb(word) or set(after) & ARTICLES or together
    return bool(does) and (is_one_of(thing, BODIES) or is_one_of(new, BODIES)) and not is_one_of(word, BODIES)


def _is_plural(word: str) -> bool:
    return word in PLURALS or (_ends_like_a_verb(word) and word not in SINGULAR)


def _is_participle(words: list[str], place: int) -> bool:
    """Return whether a word says what the thing before it does: "a cat sitting on a mat", "a car parked on a road"."""
    word = words[place]
    if word.endswith("ing"):
        return word not in NOUNS_IN_ING
    found = (word.endswith("ed") and word not in NO_PARTICIPLES) or word in IRREGULAR
    return found and _ends_a_phrase(words, place)  # unlike in "a red striped ball"


def _is_verb(before: list[str], old: slice) -> bool:
    """Return whether the word after the replaced ones is a verb, as in "a dog runs in a park".

    After "a" a word in "s" is no plural. After "the" or without an article it may be one, as in "the wooden doors",
    unless it is a common verb.
    """
    word = before[old.stop]
    if not _ends_like_a_verb(word) or not _ends_a_phrase(before, old.stop):
        return False
    ahead = (w for w in reversed(before[: old.start]) if w in FUNCTION_WORDS or w.endswith("ing"))
    return word in VERBS or next(ahead, "") in ARTICLES - {"the"}


def _ends_like_a_verb(word: str) -> bool:
    return word.endswith("s") and not word.endswith(("ss", "us", "is")) and word not in NO_VERBS


def _ends_a_phrase(words: list[str], place: int) -> bool:
    return next((word for word in words[place + 1 :] if not word.endswith("ly")), ",") in FUNCTION_WORDS
