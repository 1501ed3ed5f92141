"""What each place is made of: palettes and material responses over the landscape of `backgrounds.py`."""

from dataclasses import dataclass

Pair = tuple[str, str]


@dataclass(frozen=True)
class Look:
    """Materials of a place; colours are six hex digits."""

    sky: tuple[str, str, str]  # top, middle, at the horizon
    sun: str
    glow: str
    glow_strength: float
    sun_radius: float
    cloud: Pair  # lit, shaded
    clouds: float  # how opaque
    far: Pair  # the far range: crest, foot
    near: Pair
    heights: tuple[float, float]  # of the two ranges
    standing: str  # what stands on them: round, fir, cactus, tower, sail
    standing_colours: Pair  # lit, shaded
    standing_size: tuple[float, float]  # on the far and on the near range
    standing_share: float
    ground: tuple[str, str, str]  # at the horizon, near, patches
    patches: float
    ripple: float  # waves, dunes, drifts
    speck: str  # flowers, pebbles, leaves, glints
    specks: float
    cap: str | None = None  # snow on the far range
    stars: float = 0.0
    tiles: float = 0.0
    glitter: float = 0.0  # the sun's path on the ground
    # What the ambiguous world may change: hues in degrees of sky, ground and what stands, how red an evening
    # turns the sky, and what else may stand on the hills.
    hues: tuple[float, float, float] = (14.0, 14.0, 18.0)
    dusk: float = 1.0
    others: tuple[str, ...] = ()
    least: float = 0.0  # the smallest factor of how many there are: a city without towers would be none

    def stands(self, choice: int) -> str:
        """What stands on the hills, by `Scenery.standing`; 0 is the place's own."""
        kinds = (self.standing, *self.others)
        return kinds[choice % len(kinds)]


LOOKS: dict[str, Look] = {
    "meadow": Look(
        sky=("4f97e0", "8fc3f0", "dcecf2"), sun="fff6d2", glow="fff2c4", glow_strength=0.55, sun_radius=0.085,
        cloud=("ffffff", "b9cbe0"), clouds=0.95, far=("7fa7a8", "a8c8bd"), near=("4f9a4e", "7fbb5c"),
        heights=(0.40, 0.16), standing="round", standing_colours=("58a544", "2c6a36"),
        standing_size=(0.10, 0.24), standing_share=0.6, ground=("a5cf62", "4f9f3a", "77bd45"), patches=0.8,
        ripple=0.05, speck="fff3a8", specks=0.85,
        hues=(12.0, 16.0, 24.0), others=("poplar", "house", "fir"),
    ),
    "desert": Look(
        sky=("5f9fd6", "a9cbdc", "fbe3bd"), sun="fffbe6", glow="ffe3a0", glow_strength=0.8, sun_radius=0.095,
        cloud=("fff4e2", "e3c9b0"), clouds=0.5, far=("c2856a", "dcae8b"), near=("c9793f", "dd9c5c"),
        heights=(0.40, 0.15), standing="cactus", standing_colours=("5f9460", "36683f"),
        standing_size=(0.0, 0.25), standing_share=0.45, ground=("f2cf94", "dca35a", "e9bc78"), patches=0.7,
        ripple=0.16, speck="a8713f", specks=0.5,
        hues=(14.0, 10.0, 30.0), others=("boulder",),
    ),
    "snow": Look(
        sky=("6e9ccb", "adc9e2", "e9eef4"), sun="fffdf0", glow="fff3dc", glow_strength=0.55, sun_radius=0.08,
        cloud=("ffffff", "bccbdc"), clouds=0.8, far=("8a9fbd", "c3d0e0"), near=("c5d5e6", "dfe8f1"),
        heights=(0.46, 0.15), standing="fir", standing_colours=("5d8a80", "2f5a58"),
        standing_size=(0.11, 0.27), standing_share=0.6, ground=("e6edf5", "d3dfee", "f4f7fa"), patches=0.8,
        ripple=0.08, speck="a9bfdc", specks=0.5, cap="f7fafd",
        hues=(18.0, 25.0, 40.0), others=("house", "poplar"),
    ),
    "ocean": Look(
        sky=("3f8fd8", "86c2ec", "e4f1f2"), sun="fffbe2", glow="fff0c0", glow_strength=0.6, sun_radius=0.085,
        cloud=("ffffff", "b4cbe2"), clouds=0.9, far=("7fa3bd", "9cbdcc"), near=("5f93a0", "86b3b4"),
        heights=(0.20, 0.02), standing="sail", standing_colours=("fdfaf2", "cfd6dc"),
        standing_size=(0.0, 0.20), standing_share=0.3, ground=("5fb3d0", "12629f", "2f8fc0"), patches=0.75,
        ripple=0.26, speck="d9f1f6", specks=0.45, glitter=0.7,
        hues=(14.0, 16.0, 0.0), others=("boulder",),
    ),
    "night": Look(
        sky=("0b1236", "1b2a60", "46588f"), sun="fbf5d8", glow="9fb2ea", glow_strength=0.55, sun_radius=0.085,
        cloud=("56669f", "27335f"), clouds=0.6, far=("2b3b69", "3d4f80"), near=("18284a", "243a5c"),
        heights=(0.40, 0.16), standing="fir", standing_colours=("1d3648", "0f1d33"),
        standing_size=(0.10, 0.26), standing_share=0.6, ground=("34507a", "17294a", "223c60"), patches=0.8,
        ripple=0.05, speck="8fa8dd", specks=0.45, stars=1.0, glitter=0.35,
        hues=(22.0, 22.0, 30.0), dusk=0.30, others=("house", "round", "poplar"),
    ),
    "city": Look(
        sky=("5d93cc", "aecbe2", "f7e0c6"), sun="fff0cf", glow="ffdcae", glow_strength=0.7, sun_radius=0.085,
        cloud=("fbf6f0", "b7bfcc"), clouds=0.8, far=("93a3b8", "b3bdca"), near=("75828f", "98a1a9"),
        heights=(0.18, 0.06), standing="tower", standing_colours=("8494ab", "566579"),
        standing_size=(0.56, 0.46), standing_share=0.86, ground=("cfc8bf", "9c9793", "b3ada6"), patches=0.6,
        ripple=0.0, speck="d3d2cc", specks=0.0, tiles=0.8,
        hues=(16.0, 25.0, 40.0), least=0.75,
    ),
    "autumn": Look(
        sky=("7fa9cf", "bcd0d9", "f8e6c4"), sun="fff3cc", glow="ffdf9c", glow_strength=0.75, sun_radius=0.09,
        cloud=("fffaf0", "cfc4bd"), clouds=0.8, far=("b08a72", "cfae8d"), near=("b98a35", "ccab55"),
        heights=(0.40, 0.16), standing="round", standing_colours=("ee8a2a", "a83f1c"),
        standing_size=(0.10, 0.27), standing_share=0.8, ground=("d8c46c", "8f8138", "bf9a3c"), patches=0.8,
        ripple=0.05, speck="d8501f", specks=0.95,
        hues=(12.0, 12.0, 16.0), others=("poplar", "house"),
    ),
}  # fmt: skip
