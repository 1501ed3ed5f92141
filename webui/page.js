// Gradio's sliders report a release only of a pointer; here the arrow keys report one too.
document.addEventListener("keyup", (event) => {
  const slider = event.target;
  if (slider.type === "range" && /^(Arrow|Home|End|Page)/.test(event.key))
    slider.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
});
// Gradio opens a list at any key, also at the one that leaves it, and it then stays open over what follows.
document.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && event.target.getAttribute("role") === "combobox") event.stopImmediatePropagation();
}, true);
// Enter in a slider's number takes it, as leaving it does.
document.addEventListener("keydown", (event) => {
  const box = event.target;
  if (event.key !== "Enter" || box.type !== "number") return;
  box.blur();
  box.focus();
});
// A tab remembers what it shows until it is closed, and a browser its edits, newest first, as ids that expire with the
// server. A new tab begins with the newest of them.
const read = (storage, key, otherwise) => {
  try { return JSON.parse(window[storage].getItem(key)) ?? otherwise; } catch { return otherwise; }
};
const write = (storage, key, value) => {
  try { window[storage].setItem(key, JSON.stringify(value)); } catch {}  // storage is off or full
};
window.adaflow = {
  edits: () => JSON.stringify(read("localStorage", "adaflow-edits", [])),
  session: () => JSON.stringify(read("sessionStorage", "adaflow-tab", { job: read("localStorage", "adaflow-edits", [])[0] })),
  keep: (part) => {
    write("sessionStorage", "adaflow-tab", { ...read("sessionStorage", "adaflow-tab", {}), ...part });
    if (part.job)
      write("localStorage", "adaflow-edits", [...new Set([part.job, ...read("localStorage", "adaflow-edits", [])])].slice(0, 12));
    return [];
  },
};
// Gradio makes a clickable picture a button without a name; it gets the label of its block.
new MutationObserver(() => {
  for (const button of document.querySelectorAll(".image-container > button:not([aria-label])")) {
    const name = button.closest(".block")?.querySelector("[data-testid=block-label]")?.textContent.trim() || "Picture";
    button.setAttribute("aria-label", name);
    const picture = button.querySelector("img");
    if (picture && !picture.alt) picture.alt = name;
  }
  const film = document.querySelector(".af-film video");
  if (film) inView.observe(film);
}).observe(document, { childList: true, subtree: true });
// What an edit plans first fills a part of the page above its button. The button stays under the finger that pressed it,
// until the visitor moves the page.
let pressed = null;
document.addEventListener("click", ({ target }) => {
  const button = target.closest?.(".af-begin button");
  pressed = button && { button, top: button.getBoundingClientRect().top };
}, true);
for (const name of ["wheel", "touchmove", "keydown", "pointerdown"])
  document.addEventListener(name, () => { pressed = null; }, { capture: true, passive: true });
new ResizeObserver(() => {
  const moved = pressed?.button.isConnected ? pressed.button.getBoundingClientRect().top - pressed.top : 0;
  if (moved) window.scrollBy({ top: moved, behavior: "instant" });
}).observe(document.documentElement);
// A file that the browser does not play: the page shows a copy, and says so if it is no video. Gradio's own message says
// that something went wrong. Of one that it plays the copy is hidden.
document.addEventListener("error", (event) => {
  if (event.target.closest?.(".af-video video")) event.stopImmediatePropagation();
}, true);
for (const name of ["loadstart", "loadeddata"])
  document.addEventListener(name, ({ target: video }) => {
    video.closest?.(".af-video")?.classList.toggle("af-plays", name === "loadeddata" && video.videoWidth > 0);
  }, true);
// GIFs are taken as videos, which Gradio knows by their type.
const asVideo = (files) => {
  const taken = new DataTransfer();
  for (const file of files)
    taken.items.add(file.type === "image/gif" ? new File([file], file.name, { type: "video/gif" }) : file);
  return taken.files;
};
const holdsGif = (files) => [...files ?? []].some((file) => file.type === "image/gif");
document.addEventListener("click", ({ target }) => {
  const input = target.closest?.(".af-video")?.querySelector("input[type=file]");
  if (input && !input.accept.includes("gif")) input.accept += ",image/gif";
}, true);
document.addEventListener("change", ({ target: input }) => {
  if (input.type === "file" && input.closest(".af-video") && holdsGif(input.files)) input.files = asVideo(input.files);
}, true);
document.addEventListener("drop", (event) => {
  const input = event.target.closest?.(".af-video")?.querySelector("input[type=file]");
  if (!input || !holdsGif(event.dataTransfer.files)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
  input.files = asVideo(event.dataTransfer.files);
  input.dispatchEvent(new Event("change", { bubbles: true }));
}, true);
// Source and edit play in step: what a visitor does to one is done to both, and the source follows the edit's time.
const videos = () => [".af-source video", ".af-edited video"].map((place) => document.querySelector(place));
// Seconds that `video` is behind `other`. While they play in a loop, its end counts as next to its beginning.
const behind = (video, other) => {
  const apart = other.currentTime - video.currentTime, loop = video.paused && other.paused ? 0 : other.duration;
  return loop ? apart - Math.round(apart / loop) * loop : apart;
};
const moved = new WeakSet();  // videos that this script has moved: their next seek is not the visitor's
const halted = new WeakSet();  // paused during a seek: whether they stay paused shows when the seek has ended
const move = (video, seconds) => { moved.add(video); video.currentTime = seconds; };
const done = { play: new WeakSet(), pause: new WeakSet() };  // by this script, before their events have come
const make = (video, name) => {
  if (video.paused !== (name === "play")) return;
  done[name].add(video);
  video[name]()?.catch(() => done[name].delete(video));
};
// Nothing plays by itself for who wants less motion; he can start it.
const still = matchMedia("(prefers-reduced-motion: reduce)");
const begun = new WeakMap();  // video -> the file that was kept from beginning
document.addEventListener("play", ({ target: video }) => {
  if (!still.matches || !video.autoplay || begun.get(video) === video.currentSrc) return;
  begun.set(video, video.currentSrc);
  video.pause();
}, true);
// The film of the page's head plays where it can be seen, until it is stopped. Else its first picture stands.
const seen = new WeakSet(), wished = new WeakMap();  // what is in view, and whether the visitor wants it to play
const tend = (film) => {
  if (!film) return;
  film.muted = film.playsInline = true;
  const plays = seen.has(film) && !document.hidden && (wished.get(film) ?? !still.matches);
  make(film, plays ? "play" : "pause");
};
const inView = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
  seen[isIntersecting ? "add" : "delete"](target);
  tend(target);
}));
const tendHead = () => tend(document.querySelector(".af-film video"));
document.addEventListener("visibilitychange", tendHead);
still.addEventListener("change", tendHead);
for (const name of ["play", "pause"])
  document.addEventListener(name, ({ target: film }) => {
    if (film.closest?.(".af-film") && !done[name].delete(film)) wished.set(film, name === "play");
  }, true);
for (const name of ["play", "pause", "seeked"])  // media events do not bubble, so they are captured
  document.addEventListener(name, ({ target: video }) => {
    const [source, edited] = videos();
    if (!source || !edited || (video !== source && video !== edited)) return;
    const other = video === source ? edited : source;
    if (name === "seeked") {
      if (halted.delete(video) && video.paused) make(other, "pause");
      if (moved.delete(video)) return;
    } else if (!done[name].delete(video)) {
      // An event comes after the change it reports, which may have been undone since.
      const holds = video.paused === (name === "pause");
      if (name === "pause" && video.seeking) halted.add(video);
      else if (holds && !video.ended) make(other, name);
    }
    // The loop's jump to its beginning is no distance; the correction below takes care of the rest.
    if (Math.abs(behind(other, video)) > (video.paused ? 0.01 : 0.3)) move(other, video.currentTime);
  }, true);
let disagreed = 0;  // rounds in which one video played and the other did not
setInterval(() => {
  const [source, edited] = videos();
  if (!source || !edited || source.readyState < 2 || edited.readyState < 2 || source.seeking || edited.seeking) return;
  // What a visitor does comes as an event a little later, so only a lasting difference is corrected here.
  disagreed = source.paused === edited.paused ? 0 : disagreed + 1;
  if (disagreed > 2) make(source, edited.paused ? "pause" : "play");
  const late = behind(source, edited), apart = Math.abs(late);
  if (apart > (edited.paused ? 0.01 : 0.3)) move(source, edited.currentTime);
  // A seek is visible as a jerk: a small distance is made up by playing a little faster or slower.
  source.playbackRate = apart < 0.015 || edited.paused ? 1 : 1 + Math.max(-0.25, Math.min(0.25, 2 * late));
}, 100);
