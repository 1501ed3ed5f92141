"""The page's looks: a theme with system fonts (none is downloaded), light and dark, with `page.css` and `js/`."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base
from gradio.themes.utils import colors, sizes

_FOLDER = Path(__file__).resolve().parent
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

THEME = Base(
    primary_hue=colors.teal,
    secondary_hue=colors.teal,
    neutral_hue=colors.slate,
    radius_size=sizes.radius_md,
    font=_SANS,
    font_mono=_MONO,
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="#10151c",
    body_text_color="*neutral_800",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    background_fill_primary_dark="#171e27",
    background_fill_secondary_dark="#10151c",
    block_background_fill="white",
    block_background_fill_dark="#171e27",
    block_border_width="1px",
    block_border_color="*neutral_200",
    block_border_color_dark="#2c3644",
    block_shadow="none",
    block_label_background_fill="white",
    block_label_background_fill_dark="#171e27",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="*neutral_100",
    block_title_text_weight="600",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    input_background_fill="white",
    input_background_fill_dark="#0f141b",
    input_border_width="1px",
    # At least 3:1 on what they stand on, and 4.5:1 for text.
    input_border_color="#808fa5",
    input_border_color_dark="#66768c",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    button_border_width="1px",
    button_primary_border_color="*primary_700",
    button_primary_border_color_dark="*primary_700",
    button_secondary_background_fill="white",
    button_secondary_background_fill_dark="#1f2833",
    button_secondary_border_color="*neutral_300",
    button_secondary_border_color_dark="#3b4757",
    slider_color="*primary_600",
    slider_color_dark="*primary_500",
    checkbox_background_color_selected="*primary_600",
    checkbox_background_color_selected_dark="*primary_600",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
    checkbox_border_color_hover="*neutral_500",
    checkbox_border_color_hover_dark="*neutral_400",
    checkbox_border_color_selected="*primary_600",
    checkbox_border_color_selected_dark="*primary_600",
)

CSS = (_FOLDER / "page.css").read_text(encoding="utf-8")
# One script, whose parts use each other's names.
_SCRIPTS = [
    (_FOLDER / "js" / f"{name}.js").read_text(encoding="utf-8") for name in ("page", "players", "plots", "access")
]
HEAD = f"<script>\n{''.join(_SCRIPTS)}</script>\n"
