"""Separates the words of a prompt that name how its picture is made, as "oil painting" does, from what it shows."""

from __future__ import annotations

import re

# Kinds of pictures: a part of a prompt that ends in one of these names a manner.
KINDS = {
    "style", "photo", "photograph", "photography", "painting", "paintings", "watercolour", "watercolor", "watercolours",
    "watercolors", "gouache", "fresco", "mosaic", "collage", "impressionism", "expressionism", "cubism", "surrealism",
    "sketch", "sketches", "drawing", "drawings", "doodle", "etching", "engraving", "woodcut", "linocut", "lithograph",
    "illustration", "comic", "cartoon", "manga", "anime", "animation", "claymation", "render", "rendering", "art",
    "artwork", "sepia", "monochrome",
}  # fmt: skip
# What pictures are made with: "in pencil", "oil on canvas".
_MEDIA = {
    "oil", "oils", "ink", "pencil", "charcoal", "crayon", "pastel", "pastels", "acrylic", "acrylics", "watercolour",
    "watercolor", "watercolours", "watercolors", "gouache", "chalk",
}  # fmt: skip
# Kinds of views, which a prompt may name before "of": "a video of a cat".
_VIEWS = {
    "picture", "image", "video", "footage", "clip", "shot", "closeup", "view", "portrait", "snapshot", "scan", "frame",
}  # fmt: skip
# How good the picture should be: "masterpiece, best quality, highly detailed, 8k".
_QUALITY = {
    "masterpiece", "best", "high", "highest", "quality", "highly", "ultra", "extremely", "detailed", "intricate",
    "details", "hd", "uhd", "hdr", "4k", "8k", "raw", "realistic", "photorealistic", "hyperrealistic", "sharp",
    "focus", "resolution", "cinematic", "lighting", "professional", "award-winning", "trending",
}  # fmt: skip
_COLOURS = {"black and white", "colour", "color"}  # after "in"
ARTICLES = {"a", "an", "the"}
# After one of these, the last word is a thing that is shown: "a photo", "holding a pencil", "reading her comic".
_OF_THINGS = ARTICLES | {
    "in", "on", "at", "with", "of", "from", "under", "near", "behind", "holding", "wearing", "reading", "making", "his",
    "her", "their", "its", "my",
}  # fmt: skip
_DOING = {"painting", "drawing", "rendering"}  # alone they may be what somebody does


def without_manner(text: str) -> tuple[str, str]:
    """Return (what the prompt shows, how it is made) in lower case without articles; either may be empty.

    The manner stands before "of" at the beginning ("an oil painting of a cat"), between marks ("a cat, anime style"),
    or at the end ("a cat in the style of Monet", "a cat in watercolour", "a cat as an oil painting").
    """
    shown: list[str] = []
    manner: list[str] = []
    for i, part in enumerate(re.split(r"[,.;:()]", plain(text))):
        words = re.findall(r"[\w']+", part)
        if i == 0:
            begin, end = _kind_of(words)
            manner += words[:begin] + words[end:]
            words = words[begin:end]
            apart = bool(words) and set(words) <= KINDS | _MEDIA | _QUALITY  # "cat photo" shows a cat
        else:
            apart = _is_manner(words)
        last = 0 if apart else _end_of_what_is_shown(words)
        shown += words[:last]
        manner += words[last:]
    return _bare(shown), _bare(manner)


def plain(text: str) -> str:
    """Return a prompt in lower case, with one spelling of "closeup"."""
    return re.sub(r"\bclose[- ]up\b", "closeup", text.lower())


def length_of_lead(words: list[str]) -> int:
    """Return how many words come before the first thing that a prompt shows, such as "a photo of".

    Another example is "best quality, oil painting,". `words` are in lower case; each mark is a word.
    """
    lead = 0
    while True:
        part = words[lead:]
        end = next((place for place, word in enumerate(part) if word in ",.;:"), len(part))
        if end == len(part) or not set(part[:end]) <= KINDS | _MEDIA | _QUALITY | ARTICLES:
            return lead + _kind_of(part[:end])[0]
        lead += end + 1


def _bare(words: list[str]) -> str:
    return " ".join(word for word in words if word not in ARTICLES)


def _kind_of(words: list[str]) -> tuple[int, int]:
    """Return the start and end of what a picture is of: of "a cat" in "a photo of a cat by Somebody"."""
    place = words.index("of") if "of" in words else 0
    kind = _without_article(words[:place])
    if not (_names_a_kind(kind) or _names_a_kind(kind, _VIEWS)):
        return 0, len(words)
    makers = (i for i in range(place, len(words) - 1) if words[i] == "by" and words[i + 1] not in ARTICLES)
    return place + 1, next(makers, len(words))


def _end_of_what_is_shown(words: list[str]) -> int:
    """Return the index at which words such as "in the style of Monet" begin, after what is shown."""
    for i in range(1, len(words)):
        if words[i] == "in" and _is_manner(words[i:]):
            return i
        if words[i] == "as" and _names_a_kind(_without_article(words[i + 1 :])):
            return i
    return len(words)


def _is_manner(words: list[str]) -> bool:
    """Return whether a part of a prompt names a manner and nothing else."""
    if words[:1] == ["in"]:
        kind, words = words[1:], _without_article(words[1:])
        in_a_medium = len(words) == 1 and words[0] in _MEDIA
        in_a_style = words[:2] == ["style", "of"] or (words[-1:] == ["style"] and _names_a_kind(words))
        # Without an article, as "in anime": a cat "in a photo" may be in a photo that is shown.
        return in_a_medium or in_a_style or " ".join(kind) in _COLOURS or _names_a_kind(kind)
    if len(words) == 1 and words[0] in _DOING:
        return False
    if words and set(words) <= KINDS | _QUALITY:
        return True
    for i in range(1, len(words)):
        made = words[:i]
        if words[i : i + 2] in (["on", "canvas"], ["on", "paper"]):
            return made[-1] in _MEDIA or _names_a_kind(made)
        if words[i] == "by" or (words[i] == "of" and made[-1] == "style"):
            return _names_a_kind(made)
    return _names_a_kind(words)


def _names_a_kind(words: list[str], kinds: set[str] = KINDS) -> bool:
    """Return whether the words are a kind of picture, perhaps described, as in "black and white photo"."""
    return bool(words) and words[-1] in kinds and not _OF_THINGS & set(words[:-1])


def _without_article(words: list[str]) -> list[str]:
    """Return the words without an article at the beginning."""
    return words[1:] if words[:1] and words[0] in ARTICLES else words
