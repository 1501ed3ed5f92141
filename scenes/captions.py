"""Captions of clips: varied sentences for training, and one plain sentence for the benchmarks.

Colour words stay nearly literal and the rest has a few wordings each: the text encoder is small, and its
words have to mean something.
"""

import random
import re

from scenes.world import SceneBatch

KIND_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "beach ball"),
    "cube": ("cube", "cube", "toy block"),
    "star": ("star", "star", "five-pointed star"),
    "car": ("car", "car", "toy car"),
    "mushroom": ("mushroom", "mushroom", "toadstool"),
    "balloon": ("balloon", "hot-air balloon", "hot air balloon"),
    "rocket": ("rocket", "rocket", "toy rocket", "spaceship"),
    "duck": ("duck", "duck", "rubber duck"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "bright red"),
    "orange": ("orange", "orange", "orange", "bright orange"),
    "yellow": ("yellow", "yellow", "yellow", "bright yellow"),
    "green": ("green", "green", "green", "bright green"),
    "blue": ("blue", "blue", "blue", "bright blue"),
    "purple": ("purple", "purple", "purple", "violet"),
    "pink": ("pink", "pink", "pink", "light pink"),
    "white": ("white", "white", "white", "pure white"),
}
PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on a green meadow", "in a meadow with flowers", "on a grassy field"),
    "desert": ("in the desert", "in a sandy desert", "on the sand of a desert", "among sand dunes"),
    "snow": ("in the snow", "on a snowy field", "in a snowy landscape", "in winter snow"),
    "ocean": ("on the ocean", "on the sea", "on the blue sea", "on the waves of the ocean"),
    "night": ("at night", "under a night sky", "in a starry night", "at night under the moon"),
    "city": ("in a city", "in the city", "in front of a city skyline", "on a city square"),
    "autumn": ("in autumn", "in an autumn landscape", "among autumn trees", "in a field in autumn"),
}
# Words for each style: for the end of a sentence, and for its beginning instead.
STYLE_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "photo": (("photo", "photo style", "photograph", "realistic photo"), ("a photo of", "a photograph of")),
    "pencil": (
        ("pencil sketch", "coloured pencil drawing", "pencil style", "colored pencil sketch"),
        ("a pencil sketch of", "a coloured pencil drawing of", "a pencil drawing of"),
    ),
    "watercolour": (
        ("watercolour style", "watercolour painting", "watercolor", "watercolor painting"),
        ("a watercolour painting of", "a watercolor of", "a watercolour of"),
    ),
    "comic": (
        ("comic style", "comic book style", "cartoon", "comic"),
        ("a comic of", "a comic book picture of", "a cartoon of"),
    ),
    "impressionist": (
        ("impressionist painting", "impressionist style", "van gogh style", "oil painting"),
        ("an impressionist painting of", "a van gogh painting of", "an oil painting of"),
    ),
}
# The main words by kind, for a person to combine into a prompt.
MAIN_WORDS: dict[str, list[str]] = {
    "things": [words[0] for words in KIND_WORDS.values()],
    "colours": [words[0] for words in COLOUR_WORDS.values()],
    "places": [words[0] for words in PLACE_WORDS.values()],
    "styles": [endings[0] for endings, _ in STYLE_WORDS.values()],
}
# What the object does, by motion; kinds that move in ways of their own have words of their own.
ROLLING, DRIVING, FLYING, SWIMMING = ("ball", "star"), ("car",), ("balloon", "rocket"), ("duck",)
_MOVES = ("moving", "passing by", "sliding along")
MOTION_WORDS: dict[str, tuple[str, ...]] = {
    "still": ("standing", "resting", ""),
    "drift": _MOVES,
    "bounce": ("bouncing", "hopping", "jumping"),
    "turn": ("turning", "spinning"),
    "pan": _MOVES,
    "zoom": ("standing", ""),
    "occlusion": ("passing by", "moving"),
    "enter": ("coming in", "moving"),
    "leave": ("moving away", "moving"),
    "uneven": ("moving", ""),
    "cut": ("moving", ""),
}
WAYS: dict[str, tuple[str, ...]] = {
    **{kind: ("rolling", "rolling along") for kind in ROLLING},
    **{kind: ("driving", "driving along") for kind in DRIVING},
    **{kind: ("floating", "flying") for kind in FLYING},
    **{kind: ("gliding", "waddling") for kind in SWIMMING},
}
OCCLUDER_WORDS: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "trunk": ("behind a tree trunk", "a tree trunk in front"),
    "post": ("behind a wooden post", "a wooden post in front"),
    "rock": ("behind a rock", "a rock in front"),
}
_COMMON = (
    "a an the of in on at to and or with without by from is are it its this that as into over under "
    "near one two some picture image scene video film clip drawing painting style background object "
    "there here very small big large little bright dark day sky sun moon stars clouds hills trees grass "
    "sand water waves sea flowers leaves buildings houses winter summer landscape left right up down "
    "rolls drives floats flies glides moves bounces spins turns stands toy shiny no not turn make "
    "change into brush strokes "
)


def _article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def thing(kind: str, colour: str, rng: random.Random) -> str:
    """'a red ball', in one of its wordings."""
    return _article(f"{rng.choice(COLOUR_WORDS[colour])} {rng.choice(KIND_WORDS[kind])}")


def caption(
    kind: str,
    colour: str,
    background: str,
    style: str,
    rng: random.Random,
    *,
    motion: str = "still",
    second: tuple[str, str] | None = None,  # (kind, colour)
    occluder: str = "none",
) -> str:
    """Return one sentence, its wording drawn from `rng`. Photo style is often left out."""
    subject = thing(kind, colour, rng)
    if second is not None:
        subject += f" and {thing(*second, rng)}"
    deed = ""
    if rng.random() < 0.5:
        words = MOTION_WORDS[motion]
        if words is _MOVES or (motion in ("enter", "leave", "occlusion") and rng.random() < 0.5):
            words = WAYS.get(kind, _MOVES)
        deed = rng.choice(words)
    place = rng.choice(PLACE_WORDS[background])
    hidden = rng.choice(OCCLUDER_WORDS[occluder]) if rng.random() < 0.6 else ""
    if hidden.endswith("in front"):
        body = " ".join(filter(None, (subject, deed, place))) + f", {hidden}"
    else:
        body = " ".join(filter(None, (subject, deed, hidden, place)))
    if not hidden and rng.random() < 0.15:
        body = f"{place}, " + " ".join(filter(None, (subject, deed)))
    endings, openings = STYLE_WORDS[style]
    if style == "photo" and rng.random() < 0.6:
        return body
    if rng.random() < 0.35 and not body.startswith(place):
        return f"{rng.choice(openings)} {body}"
    return f"{body}, {rng.choice(endings)}"


def captions(batch: SceneBatch, seed: int) -> list[str]:
    """A varied sentence for each row; the same for the same seed.

    Each row has its own random numbers, so rows that differ in an attribute only are worded alike.
    """
    columns = (batch.names(name) for name in ("kind", "colour", "background", "style", "motion", "occluder"))
    seconds = zip(batch.names("kind2"), batch.names("colour2"), batch.present2.tolist(), strict=True)
    return [
        caption(k, c, b, s, random.Random(f"{seed}/{row}"), motion=m, second=(k2, c2) if shown else None, occluder=o)
        for row, (k, c, b, s, m, o, (k2, c2, shown)) in enumerate(zip(*columns, seconds, strict=True))
    ]


def plain(batch: SceneBatch) -> list[str]:
    """The canonical sentence of each row: "a red ball and a blue cube in a meadow, watercolour style"."""
    sentences = []
    for row, (k, c, b, s) in enumerate(
        zip(*(batch.names(n) for n in ("kind", "colour", "background", "style")), strict=True)
    ):
        subject = _article(f"{c} {k}")
        if bool(batch.present2[row]):
            subject += " and " + _article(f"{batch.names('colour2')[row]} {batch.names('kind2')[row]}")
        sentences.append(f"{subject} {PLACE_WORDS[b][0]}, {STYLE_WORDS[s][0][0]}")
    return sentences


def words(text: str) -> list[str]:
    """Lower-case words of a sentence: letters, with hyphens splitting and punctuation dropped."""
    return re.findall(r"[a-z]+", text.lower())


def vocabulary() -> list[str]:
    """Every lower-case word that captions can produce, and common function words, sorted."""
    phrases: list[str] = [_COMMON, *KIND_WORDS, *COLOUR_WORDS, *PLACE_WORDS, *STYLE_WORDS]
    for table in (KIND_WORDS, COLOUR_WORDS, PLACE_WORDS, MOTION_WORDS, WAYS, OCCLUDER_WORDS):
        phrases += [phrase for wordings in table.values() for phrase in wordings]
    for endings, openings in STYLE_WORDS.values():
        phrases += [*endings, *openings]
    return sorted({word for phrase in phrases for word in words(phrase)})
