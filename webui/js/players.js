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
