"""How the page looks: one theme on system fonts (nothing is fetched), light and dark, and a little CSS."""

from __future__ import annotations

from gradio.themes import Base
from gradio.themes.utils import colors, sizes

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
    input_border_color="*neutral_300",
    input_border_color_dark="#3b4757",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
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
    checkbox_border_color_selected="*primary_600",
)

CSS = """
.gradio-container .fillable { max-width: 1240px !important; margin: 0 auto !important; }
.html-container, .html-container > .prose { padding: 0 !important; min-height: 0 !important; }
.block:has(> .html-container > .prose):not(:has(.prose > *)) { display: none; }
.label-wrap > span:first-child { text-align: left; }

.af-title h1 { font-size: 1.9rem; font-weight: 700; letter-spacing: -0.02em; margin: 0.6rem 0 0.1rem; }
.af-title p { color: var(--body-text-color-subdued); margin: 0; }
.af-step h2 { font-size: 1.2rem; font-weight: 650; margin: 0.8rem 0 0; padding-top: 1rem;
  border-top: 1px solid var(--block-border-color); }
.af-step p { color: var(--body-text-color-subdued); margin: 0.1rem 0 0; }
.gradio-container button[role="tab"][aria-selected="true"] { color: #0f766e !important; }
.dark .gradio-container button[role="tab"][aria-selected="true"],
.gradio-container.dark button[role="tab"][aria-selected="true"] { color: #5eead4 !important; }

.af-line { color: var(--body-text-color-subdued); font-size: 0.9rem; margin: 0; }
.af-quote { font-size: 1.1rem; margin: 0.4rem 0 0; }
.af-words { font-size: 0.9rem; line-height: 1.7; }
.af-empty { border: 1px dashed var(--block-border-color); border-radius: var(--radius-md);
  padding: 3.5rem 1rem; text-align: center; color: var(--body-text-color-subdued); }

/* Captions stand under the pictures, whole, and as many pictures in a row as fit. */
.af-gallery .grid-container { align-items: start; grid-template-rows: none !important;
  grid-template-columns: repeat(auto-fill, minmax(var(--af-least, 150px), 1fr)) !important;
  grid-auto-rows: auto !important; }
.af-gallery .grid-wrap { min-height: 0 !important; max-height: 32rem; overflow-y: auto !important; }
.af-gallery .thumbnail-item { aspect-ratio: auto !important; height: auto !important; display: block; }
.af-gallery .thumbnail-item > img { height: auto !important; aspect-ratio: var(--af-aspect, auto);
  border-radius: 0; }
.af-gallery .thumbnail-item.selected { outline: 3px solid var(--color-accent); }
.af-gallery .caption-label { position: static !important; max-width: none !important; width: 100%; border: 0;
  white-space: normal !important; opacity: 1 !important; line-height: 1.35; padding: 0.3rem 0.45rem; }
.af-examples { --af-aspect: 4 / 3; --af-least: 138px; }
.af-tokens { --af-least: 180px; }
.af-plot, .af-plot .image-frame { background: white !important; }

.af-facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr));
  gap: 0.6rem; margin: 0; }
.af-fact { background: var(--block-background-fill); border: 1px solid var(--block-border-color);
  border-radius: var(--radius-md); padding: 0.6rem 0.8rem; }
.af-fact dt { font-size: 0.82rem; color: var(--body-text-color-subdued); }
.af-fact dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.af-fact dd.af-more { font-size: 0.82rem; font-weight: 400; color: var(--body-text-color-subdued); }

.af-notice { border-left: 4px solid #b45309; background: color-mix(in srgb, #b45309 9%, transparent);
  border-radius: var(--radius-sm); padding: 0.45rem 0.8rem; margin-top: 0.5rem; }
.af-notice p { margin: 0.15rem 0; }

.af-job { border: 1px solid var(--block-border-color); background: var(--block-background-fill);
  border-radius: var(--radius-md); padding: 0.7rem 0.9rem; }
.af-job-head { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; justify-content: space-between;
  font-variant-numeric: tabular-nums; }
.af-job-head span { color: var(--body-text-color-subdued); }
.af-bar { height: 8px; border-radius: 4px; margin-top: 0.5rem; overflow: hidden;
  background: color-mix(in srgb, var(--body-text-color) 14%, transparent); }
.af-bar div { height: 100%; background: var(--slider-color); transition: width 0.4s linear; }
.af-failed { border-left: 4px solid #b91c1c; }
.af-failed .af-bar, .af-stopped .af-bar { display: none; }
.af-live { display: block; width: 100%; max-width: 760px; margin: 0.7rem auto 0;
  border-radius: var(--radius-sm); background: white; }

@media (prefers-reduced-motion: reduce) { .af-bar div { transition: none; } }
@media (max-width: 640px) {
  .gradio-container { padding: 0.6rem !important; }
  .af-title h1 { font-size: 1.5rem; }
  /* A plot keeps a legible size and is moved sideways in its frame. */
  .af-plot .image-container { overflow-x: auto !important; contain: inline-size; }
  .af-plot .image-frame { width: 640px !important; }
}
"""

# Gradio's sliders tell their release only to a pointer; the arrow keys release them too. And two videos in step.
HEAD = """
<script>
document.addEventListener("keyup", (event) => {
  const slider = event.target;
  if (slider.type === "range" && /^(Arrow|Home|End|Page)/.test(event.key))
    slider.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
});
// A picture that can be clicked is a button, and Gradio gives it no name: it takes its block's label.
new MutationObserver(() => {
  for (const button of document.querySelectorAll(".image-container > button:not([aria-label])")) {
    const name = button.closest(".block")?.querySelector("[data-testid=block-label]")?.textContent.trim() || "Picture";
    button.setAttribute("aria-label", name);
    const picture = button.querySelector("img");
    if (picture && !picture.alt) picture.alt = name;
  }
}).observe(document, { childList: true, subtree: true });
// Source and edit play as one: what a visitor does to either is done to both, and the source keeps to the edit's time.
const videos = () => [".af-source video", ".af-edited video"].map((place) => document.querySelector(place));
// Seconds that `video` is behind `other`. While they loop the end is next to the beginning; where they stand it is not.
const behind = (video, other) => {
  const apart = other.currentTime - video.currentTime, loop = video.paused && other.paused ? 0 : other.duration;
  return loop ? apart - Math.round(apart / loop) * loop : apart;
};
const moved = new WeakSet();  // by this script: their seeks are nobody's wish
const halted = new WeakSet();  // while they sought: whether they are to stand shows when they have found their place
const move = (video, seconds) => { moved.add(video); video.currentTime = seconds; };
const done = { play: new WeakSet(), pause: new WeakSet() };  // by this script, their events not seen yet
const make = (video, name) => {
  if (video.paused !== (name === "play")) return;
  done[name].add(video);
  video[name]()?.catch(() => done[name].delete(video));
};
for (const name of ["play", "pause", "seeked"])  // media events do not bubble, but can be caught on their way down
  document.addEventListener(name, ({ target: video }) => {
    const [source, edited] = videos();
    if (!source || !edited || (video !== source && video !== edited)) return;
    const other = video === source ? edited : source;
    if (name === "seeked") {
      if (halted.delete(video) && video.paused) make(other, "pause");
      if (moved.delete(video)) return;
    } else if (!done[name].delete(video)) {
      // An event comes a little after what it tells of, which may have been taken back since.
      const holds = video.paused === (name === "pause");
      if (name === "pause" && video.seeking) halted.add(video);
      else if (holds && !video.ended) make(other, name);
    }
    // A loop's own jump to its beginning is no distance, and is left to the small steps below.
    if (Math.abs(behind(other, video)) > (video.paused ? 0.01 : 0.3)) move(other, video.currentTime);
  }, true);
let disagreed = 0;  // rounds for which one has played and the other not
setInterval(() => {
  const [source, edited] = videos();
  if (!source || !edited || source.readyState < 2 || edited.readyState < 2 || source.seeking || edited.seeking) return;
  // A visitor's wish comes as an event, a little after the state itself: only what lasts is nobody's.
  disagreed = source.paused === edited.paused ? 0 : disagreed + 1;
  if (disagreed > 2) make(source, edited.paused ? "pause" : "play");
  const late = behind(source, edited), apart = Math.abs(late);
  if (apart > (edited.paused ? 0.01 : 0.3)) move(source, edited.currentTime);
  // Seeking shows as a jerk: a small distance is made up by playing a little faster or slower.
  source.playbackRate = apart < 0.015 || edited.paused ? 1 : 1 + Math.max(-0.25, Math.min(0.25, 2 * late));
}, 100);
</script>
"""
