"""Word lists for reading prompts: words that join phrases, and words that are no places after a preposition."""

from __future__ import annotations

from adaflow_core.editing.place.manner import ARTICLES

PREPOSITIONS = {
    "in", "on", "at", "under", "near", "inside", "outside", "over", "above", "below", "through", "across", "beside",
    "behind", "by", "along", "around", "between", "before", "into", "onto", "from", "against", "within",
}  # fmt: skip
MARKS = {",", ".", ";", ":"}
FUNCTION_WORDS = PREPOSITIONS | ARTICLES | MARKS | {
    "of", "with", "without", "to", "toward", "towards", "next", "for", "off", "up", "down", "out", "and", "or", "but",
    "as", "while", "when", "where", "that", "which", "who", "is", "are", "was", "were", "has", "have", "its", "his",
    "her", "their",
}  # fmt: skip
# After "in": what somebody wears, or only its colour.
WORN = {
    "apron", "armor", "armour", "bathrobe", "beanie", "bikini", "blazer", "blouse", "boot", "cap", "cape", "cardigan",
    "cloak", "clothes", "clothing", "coat", "costume", "crown", "denim", "dress", "glasses", "glove", "goggles",
    "gown", "hat", "heel", "helmet", "hoodie", "jacket", "jeans", "jersey", "jumpsuit", "kimono", "leather",
    "leggings", "mask", "outfit", "overalls", "pajamas", "pants", "parka", "poncho", "pyjamas", "raincoat", "robe",
    "sandal", "sari", "scarf", "shirt", "shoe", "shorts", "skirt", "sneaker", "sock", "spacesuit", "suit",
    "sunglasses", "sweater", "sweatshirt", "swimsuit", "t-shirt", "tank-top", "tie", "top", "tracksuit", "trousers",
    "tshirt", "tunic", "turban", "tuxedo", "underwear", "uniform", "veil", "vest", "wetsuit",
    "beige", "black", "blue", "brown", "crimson", "gold", "gray", "green", "grey", "maroon", "navy", "orange", "pink",
    "purple", "red", "scarlet", "silver", "teal", "turquoise", "violet", "white", "yellow",
}  # fmt: skip
# After any preposition: people and animals, and what is ridden.
BODIES = {
    "baby", "bear", "bird", "boy", "bull", "camel", "cat", "chicken", "child", "children", "cow", "deer", "dog",
    "donkey", "duck", "eagle", "elephant", "fish", "fox", "friend", "girl", "goat", "goose", "horse", "kid", "kitten",
    "lion", "man", "men", "monkey", "mouse", "owl", "panda", "parrot", "people", "person", "pig", "pony", "puppy",
    "rabbit", "sheep", "squirrel", "swan", "tiger", "wolf", "woman", "women", "zebra",
    "bicycle", "bike", "hoverboard", "jet-ski", "moped", "motorbike", "motorcycle", "scooter", "segway", "skateboard",
    "skates", "skis", "sled", "snowboard", "snowmobile", "surfboard", "tricycle", "unicycle",
}  # fmt: skip
# Before "at" (AIMED) and before "over" (LEAPING): something is done to a thing, which need not be where it is done.
AIMED = {
    "aiming", "barking", "gazing", "glancing", "laughing", "looking", "peering", "pointing", "shooting", "shouting",
    "smiling", "staring", "throwing", "waving",
}  # fmt: skip
LEAPING = {"climbing", "hopping", "jumping", "leaping", "stepping", "vaulting"}
NOUNS_IN_ING = {
    "awning", "bedding", "building", "ceiling", "clothing", "crossing", "drawing", "duckling", "dumpling", "earring",
    "evening", "fencing", "icing", "king", "landing", "lightning", "morning", "painting", "pudding", "railing", "ring",
    "sling", "spring", "stocking", "string", "swing", "thing", "wedding", "wing",
}  # fmt: skip
NO_PARTICIPLES = {
    "bed", "breed", "feed", "infrared", "moped", "red", "reed", "seed", "shed", "sled", "speed", "steed", "weed",
}  # fmt: skip
IRREGULAR = {"built", "drawn", "held", "hung", "kept", "left", "lit", "made", "seen", "shown", "torn", "worn"}
VERBS = {
    "burns", "drives", "flies", "floats", "glides", "goes", "moves", "rolls", "runs", "sails", "sits", "sleeps",
    "spins", "stands", "stops", "swims", "walks",
}  # fmt: skip
PLURALS = {"children", "men", "mice", "people", "women"}
SINGULAR = {"business", "jeans", "news", "sports", "plus"}  # not plurals in spite of their "s"; they describe things
NO_VERBS = {"canvas", "christmas", "gas", "lens", "rhinoceros", "series", "species"}
# No places, but what changes the whole picture, things and surroundings alike: times of day, seasons, weather.
OVER_ALL = (
    {
        "day", "daytime", "daylight", "noon", "midday", "morning", "afternoon", "evening", "dusk", "dawn", "sunset",
        "sunrise", "twilight", "night", "nighttime", "midnight", "moonlight", "sunlight", "sunshine", "candlelight",
    },
    {"spring", "summer", "autumn", "fall", "winter"},
    {"rain", "fog", "mist", "haze", "storm", "thunderstorm", "snowstorm", "snowfall", "blizzard", "drizzle"},
)  # fmt: skip
STATES = {"bloom", "blossom", "fire", "flames", "ruins", "pieces"}  # "on fire" is said of a thing, not of where it is


def is_one_of(word: str, words: set[str]) -> bool:
    """Return whether a word, or its singular, is among `words`."""
    ends = [word, word.removesuffix("s"), word.removesuffix("es")]
    return any(end in words for end in ends)
