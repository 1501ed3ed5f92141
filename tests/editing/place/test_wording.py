"""What the words that differ say of an edit, and what settings they decide."""

from __future__ import annotations

import pytest

from adaflow_core.config import EditConfig
from adaflow_core.editing.place import Wording, say_the_same, wording


@pytest.mark.parametrize(
    ("source", "prompt", "modifier", "kept"),
    [
        ("a red ball in a meadow, photo", "a blue ball in a meadow, photo", True, None),
        ("a red cube in the snow", "an orange cube in the snow", True, None),
        ("the red cube in the snow", "an orange cube in the snow", True, None),
        ("a wolf in the snow", "an owl in the snow", False, None),
        ("a red duck on the ocean, photo", "a red rocket on the ocean, photo", False, None),
        ("a wolf in the snow", "a fox in the snow", False, None),
        ("a cat", "a dog", False, None),
        ("a red car in the desert, photo", "a red car in a city, photo", False, "in the desert , photo"),
        ("an orange car in the desert", "an orange car in a city", False, "in the desert"),
        ("a jeep on a road at night", "a jeep on a road in the snow", False, "on a road at night"),
        ("a cat sitting on a mat", "a dog sitting on a mat", False, None),  # another thing that does the same
        ("a black cat sitting on a mat", "a white cat sitting on a mat", True, None),
        ("a red building in the snow", "a blue building in the snow", True, None),
        ("a woman running on the beach", "a woman running in the desert", False, "on the beach"),
        ("a red ball on the grass", "a blue duck on the grass", False, None),
        ("a ball on the red grass", "a duck on the blue grass", False, None),
        ("a red ball in a meadow", "a blue ball in the desert", False, None),  # two places: nothing is concluded
        ("a ball", "a ball", False, None),
        ("", "a ball", False, None),
        ("a ball", "a red ball", True, None),
        ("a red ball in a meadow", "a ball in a meadow", True, None),
        ("a red striped ball", "a blue striped ball", True, None),
        ("a big red ball", "a small red ball", True, None),
        ("a red bus on a road", "a blue bus on a road", True, None),
        ("a woman holding red flowers in a park", "a woman holding blue flowers in a park", True, None),
        ("a car parked on the street", "a truck parked on the street", False, None),
        ("a house covered in snow", "a church covered in snow", False, None),
        ("a cat next to a sofa", "a dog next to a sofa", False, None),
        ("a dog that sleeps", "a cat that sleeps", False, None),
        ("a big dog runs in a park", "a big wolf runs in a park", False, None),
        ("a woman with a hat in a park", "a woman with a crown in a park", False, None),
        ("a woman in a dress, photo", "a woman in a suit, photo", False, None),
        ("a cat on a mat", "a cat with a hat on a mat", False, None),  # a thing is added, the surroundings stay
        ("a cat on a mat", "a cat near a dog on a mat", False, None),
        ("a ball in a meadow", "a ball and a cube in a meadow", False, None),
        ("a cat", "a cat on the beach", False, ""),
        ("a cat, photo", "a cat on the beach, photo", False, "photo"),
        ("a cat on a mat", "a cat", False, "on a mat"),
        ("a house", "a house on fire", False, None),
        ("a tree in bloom in a park", "a tree in autumn in a park", False, None),
        ("a ball in a meadow", "a ball at night", False, "in a meadow"),  # another place too
        ("a ball at night", "a ball in autumn", False, "at night"),
        ("a cat on a mat", "a cat on a mat by Van Gogh", False, None),
        ("red ball", "blue ball", True, None),
        ("black cat on a mat", "white cat on a mat", True, None),
        ("cat photo", "dog photo", False, None),
        ("cat sleeps on a mat", "dog sleeps on a mat", False, None),
        ("people walk on a street", "zombies walk on a street", False, None),  # things, and what they do
        ("two dogs run in a field", "two cats run in a field", False, None),
        ("cars drive on a highway", "trucks drive on a highway", False, None),
        ("birds fly over the sea", "planes fly over the sea", False, None),
        ("the cat sleeps on a sofa", "the dog sleeps on a sofa", False, None),
        ("my cat eats food", "my dog eats food", False, None),
        ("a man plays guitar", "a robot plays guitar", False, None),
        ("a boy rode a bike", "a bear rode a bike", False, None),
        ("a man and a woman dance", "a man and a robot dance", False, None),
        ("the car stops at a light", "the truck stops at a light", False, None),
        ("the wooden doors of a house", "the iron doors of a house", True, None),
        ("the red flowers in a vase", "the blue flowers in a vase", True, None),
        ("a child seat in a car", "a red seat in a car", True, None),
        ("a boy band on a stage", "a girl band on a stage", True, None),
        ("a baby elephant in a zoo", "an old elephant in a zoo", True, None),
        ("a sports car on a road", "a jeans car on a road", True, None),
        ("a costume", "a cat costume", True, None),
        ("a woman in a blouse", "a woman in a t-shirt", False, None),  # what is worn, ridden or looked at is no place
        ("a woman in red", "a woman in white", False, None),
        ("a woman in old jeans", "a woman in new shorts", False, None),
        ("a woman in boots", "a woman in white sneakers", False, None),
        ("a woman", "a woman in jeans", False, None),
        ("a woman in a park", "a woman in a kimono", False, None),
        ("a boy on a bicycle", "a boy on a motorcycle", False, None),
        ("a man riding on a horse", "a man riding on a camel", False, None),
        ("a cat looking at a clock", "a cat looking at a lamp", False, None),
        ("a cat near a dog", "a cat near a bird", False, None),
        ("a cat", "a cat beside two dogs", False, None),
        ("a horse jumping over a fence", "a horse jumping over a wall", False, None),
        ("a horse jumping in a park", "a horse jumping on a beach", False, "in a park"),
        ("a house near a lake", "a house near a river", False, "near a lake"),
        ("a dog in a park", "a dog in a street full of people", False, "in a park"),  # who is there says not where
        ("a dog in a street with people", "a dog on a beach", False, "in a street with people"),
        ("a dog", "a dog in a field of gold", False, ""),
        ("a woman in a dress with flowers", "a woman in a suit with stripes", False, None),
        ("a red car driving down a road", "a blue car driving down a road.", True, None),  # marks say nothing
        ("a red car, on a road", "a blue car on a road", True, None),
        ("a car on a road.", "a car in a forest", False, "on a road"),
        (".", "a ball", False, None),
        ("a photo of a cat on the beach", "a photo of a cat on the moon", False, "a photo on the beach"),
        ("a video of a man walking in a city", "a video of a man walking in a desert", False, "a video in a city"),
        ("a close-up of a dog in a park", "a close-up of a dog in the snow", False, "a closeup in a park"),
        ("a photo of a cat", "a photo of a cat in the desert", False, "a photo"),
        ("a photo of a red ball", "a photo of a blue ball", True, None),
        ("there is a cat on the beach", "there is a cat on the moon", False, "on the beach"),
        ("RAW photo, a cat on a mat", "RAW photo, a cat in a desert", False, "raw photo , on a mat"),
        ("masterpiece, a woman in a park", "masterpiece, a woman in a city", False, "masterpiece , in a park"),
        ("in the city a man walks", "in the desert a man walks", False, "in the city"),  # the place comes first
        ("in a meadow a red ball", "in the desert a red ball", False, "in a meadow"),
        ("on a beach, a dog", "on the moon, a dog", False, "on a beach"),
        ("on a beach", "in a desert", False, None),  # there is no thing
        ("there is", "there is in the city", False, None),
        ("a video of", "a video of in the city", False, None),
        ("in front of a house a dog sits", "on the moon a dog sits", False, "in front of a house"),
        ("best quality, 1girl, on the beach", "best quality, 1girl, in a city", False, "best quality , on the beach"),
        ("a jeep in the countryside", "a jeep in the snow, countryside", False, None),
        ("", "in watercolour", False, None),
        ("", "under water, fish", False, None),
    ],
)
def test_what_the_words_say(source: str, prompt: str, modifier: bool, kept: str | None) -> None:
    assert wording(source, prompt) == Wording(modifier, kept)


STYLES = [
    ("a car on the street", "a car on the street at night"),
    ("a car on the street", "a car on the street at night."),
    ("a car on the street at night", "a car on the street"),
    ("a street in the daytime, photo", "a street at night, photo"),
    ("a tree in summer", "a tree in winter"),
    ("a dog in a park", "a dog in a park in the heavy rain"),
    ("an orange star at night, comic style", "an orange star at night, pencil sketch"),
    ("a cat on a mat", "a cat on a mat, oil painting"),
    ("a cat on a mat, photo", "a cat on a mat, painting by Monet"),
    ("a cat on a mat", "a cat on a mat in the style of Monet"),
    ("a cat on a mat", "a cat on a mat in black and white"),
    ("a cat on a mat", "a cat on a mat in sepia"),
    ("a cat on a mat", "a cat on a mat in anime"),
    ("a cat on a mat in colour", "a cat on a mat in monochrome"),
    ("a cat on a mat", "a cat on a mat, in the style of Monet"),
    ("a cat, Van Gogh style", "a cat, Monet style"),
    ("a cat on a mat", "a watercolour of a cat on a mat"),
    ("a photo of a cat", "a painting of a cat"),
    ("a photo of a cat", "an oil painting of a cat by Monet"),
    ("an oil painting of a cat", "a watercolour painting of a cat"),
    ("a photo of a cat", "a sepia photo of the cat"),
    ("a beautiful photo of a cat", "a beautiful painting of a cat"),
    ("a cat", "a van gogh style painting of a cat"),
    ("a cat", "a cat, anime-style illustration"),
    ("a cat", "a cat, black and white photo"),
    ("a cat", "a cat, oil on canvas"),
    ("a cat", "a cat in watercolour"),
    ("a cat", "a cat as an oil painting"),
    ("a cat", "oil painting, a cat"),
    ("a cat on a mat (photo)", "a cat on a mat (oil painting)"),
    ("a video of a cat", "an oil painting of a cat"),
    ("a cat on a mat", "a cat on a mat, masterpiece, best quality, 8k"),
    ("masterpiece, a cat on a mat", "masterpiece, a cat on a mat, highly detailed, cinematic lighting"),
]
OTHERS = [
    ("a photo of a cat", "a photo of a dog"),
    ("a photo of a cat", "a painting of a dog"),  # both: nothing is concluded
    ("a photo on a wall", "a poster on a wall"),  # things that are there
    ("a pencil on a desk", "a pen on a desk"),
    ("a bottle of ink on a desk", "a vase on a desk"),
    ("a photo of a painting", "a photo of a drawing"),
    ("cat photo", "dog photo"),
    ("a red ball, photo", "a blue ball, photo"),
    ("a cat, a hat on its head", "a cat, a drawing on its head"),
    ("a desk, a lamp and a pencil", "a desk, a lamp and a pen"),
    ("a man", "a man, holding a photo"),
    ("a boy, wearing a cartoon shirt", "a boy, wearing a red shirt"),
    ("a girl at a table, drawing", "a girl at a table, reading"),
    ("a room", "a room, painting in the background"),
    ("a car", "a car, painted red"),
    ("a tall, thin man in a charcoal suit", "a tall, thin man in a navy suit"),
    ("a big, old house with a mosaic floor", "a big, old house with a wooden floor"),
    ("a chair in a hall", "a rococo style chair in a hall"),
    ("a woman with short hair", "a woman with a bob hair style"),
    ("a picture of a cat", "a picture of a dog"),
    ("a shot of whiskey on a bar", "a glass of whiskey on a bar"),
    ("a photo of a man by a lake", "a photo of a man by a river"),
    ("", "a painting of a cat"),
]


@pytest.mark.parametrize(
    ("source", "prompt", "style"), [(*pair, True) for pair in STYLES] + [(*pair, False) for pair in OTHERS]
)
def test_words_tell_a_style_from_what_is_shown(source: str, prompt: str, style: bool) -> None:
    words = wording(source, prompt)
    assert words.style == style and not (style and words.keeps_shapes)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a red ball", " A Red  ball.", True),
        ("a red ball on the grass", "the red ball, on grass", True),
        ("", ".", True),
        ("a red ball", "a red balls", False),
        ("a red ball", "a ball red", False),
        ("a red ball", "", False),
        ("a red ball", "a red ball 😡", False),
        ("a house #1", "a house 1", False),
    ],
)
def test_prompts_may_be_spelt_otherwise_and_say_the_same(one: str, other: str, same: bool) -> None:
    assert say_the_same(one, other) is say_the_same(other, one) is same


def test_words_decide_what_settings_leave_open() -> None:
    """Words that name a colour or the surroundings keep shapes; a setting that is given is left as it is."""
    names = ("outlines", "guided_from", "stride", "injection_attention", "injection_conv")

    def found(prompt: str, config: EditConfig, focus: float = 1.0) -> list[float | None]:
        filled = wording("a red car in the desert", prompt).fill(config, focus)
        return [getattr(filled, name) for name in names]

    shapes = [1.0, 0.1, 8, 1.0, 1.0]
    assert found("a red car in a city", EditConfig()) == found("a blue car in the desert", EditConfig()) == shapes
    assert found("a red duck in the desert", EditConfig()) == [0.0, 0.2, 4, None, None]  # as the model does
    assert found("a blue car in the desert", EditConfig(), focus=0.0) == [*shapes[:3], None, None]
    assert found("a blue car in the desert", EditConfig(structure=0.2)) == [0.0, 0.2, 4, None, None]  # free to change
    assert found("a red duck in the desert", EditConfig(structure=1.0)) == shapes
    said = [0.5, 0.4, 3, 0.6, 0.7]
    assert found("a blue car in the desert", EditConfig(**dict(zip(names, said, strict=True)))) == said


def test_light_and_colours_are_kept_where_words_do_not_ask_for_others() -> None:
    colour, thing = (wording("a red car in the desert", f"a {name} in the desert") for name in ("blue car", "red duck"))
    assert colour.coarse(all_over=False) == 0.25 and thing.coarse(all_over=False) == 1.0
    style = wording("a red car in the desert, photo", "a red car in the desert, comic style")
    assert (style.coarse(all_over=True), style.coarse(all_over=False)) == (0.5, 1.0)
