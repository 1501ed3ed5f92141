// The timeline's plots have one axis: they scroll together, and a line marks the chosen frame in both.
document.addEventListener("scroll", ({ target }) => {
  if (!target.matches?.(".af-plot .image-container")) return;
  for (const other of all(".af-plot .image-container")) if (other !== target) other.scrollLeft = target.scrollLeft;
}, true);
const AXIS = { left: 46 / 960, width: 900 / 960 };  // of report/plots.py, as shares of a plot's width
const LEAST = 16;  // frames that a plot shows, as in events/timeline.py
const LEGEND = 20;  // of report/overlays.py's score_heatmap: the height of what lies under the picture
const style = (name, value) => {
  const root = document.documentElement;
  if (root.style.getPropertyValue(name) !== value) root.style.setProperty(name, value);
};
const rangeOf = (place) => document.querySelector(`${place} input[type=range]`);
const shown = { plot: "", first: 0, count: 0 };  // the frames of the plot that is drawn
const markFrame = () => {
  const slider = rangeOf(".af-frame"), zoom = rangeOf(".af-zoom");
  const plot = document.querySelector(".af-plot:not(.af-slice) .image-frame img");
  document.documentElement.classList.toggle("af-marked", Boolean(slider && plot));
  if (!slider || !zoom || !plot) return;
  const frame = Number(slider.value), frames = Number(slider.max) + 1;
  if (shown.plot !== `${plot.src} ${frames}`) {  // a plot is drawn around the frame that is chosen then
    const count = Math.min(frames, Math.max(LEAST, Math.round(frames / Math.max(1, Number(zoom.value)))));
    const first = Math.min(Math.max(0, frame - Math.floor(count / 2)), frames - count);
    Object.assign(shown, { plot: `${plot.src} ${frames}`, first, count });
  }
  const { first, count } = shown, inside = frame >= first && frame < first + count;
  const at = inside ? AXIS.left + (frame - first + 0.5) / count * AXIS.width : -1;
  style("--af-frame-at", at.toFixed(5));
};
setInterval(markFrame, 200);
// By keyboard: on a plot the arrow keys choose the frame, and on its picture a point, whose matches Enter shows.
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const onButton = ({ target }, place) => target.matches?.(`${place} .image-container > button`);
document.addEventListener("keydown", (event) => {
  const [across] = STEPS[event.key] ?? [], slider = rangeOf(".af-frame");
  if (!across || !slider || !onButton(event, ".af-plot")) return;
  event.preventDefault();
  slider.value = Number(slider.value) + across;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
});
document.addEventListener("keyup", (event) => {
  if (STEPS[event.key]?.[0] && onButton(event, ".af-plot"))
    rangeOf(".af-frame")?.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
});
const point = { x: 0.5, y: 0.5 };  // shares of the picture
document.addEventListener("keydown", (event) => {
  if (!onButton(event, ".af-frame-picture") || !(event.key in STEPS || event.key === "Enter")) return;
  event.preventDefault();
  const picture = event.target.querySelector("img"), { left, top, width, height } = picture.getBoundingClientRect();
  if (event.key === "Enter") {
    picture.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, view: window,
      clientX: left + point.x * width, clientY: top + point.y * height }));
    return;
  }
  const [across, down] = STEPS[event.key], far = event.shiftKey ? 0.1 : 0.02;
  const highest = 1 - LEGEND / picture.naturalHeight - 0.01;
  point.x = Math.min(0.99, Math.max(0.01, point.x + across * far));
  point.y = Math.min(highest, Math.max(0.01, point.y + down * far));
  style("--af-point-x", point.x.toFixed(3));
  style("--af-point-y", point.y.toFixed(3));
});
// On a small screen, what a tap on a plot shows lies below it.
document.addEventListener("click", ({ target }) => {
  if (!target.closest?.(".af-plot .image-frame") || document.fullscreenElement) return;
  setTimeout(() => document.querySelector(".af-frame-picture")?.scrollIntoView({
    block: "nearest", behavior: still.matches ? "instant" : "smooth" }), 300);
});
