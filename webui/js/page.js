// Gradio's sliders report a release only of a pointer; here the arrow keys report one too.
document.addEventListener("keyup", (event) => {
  const slider = event.target;
  if (slider.type === "range" && /^(Arrow|Home|End|Page)/.test(event.key))
    slider.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
});
// Gradio opens a list at any key, also at the one that leaves it, and it then stays open over what follows.
let tabs = false;  // whether the Tab key is down
document.addEventListener("keydown", (event) => {
  tabs = event.key === "Tab";
  if (tabs && event.target.getAttribute("role") === "combobox") event.stopImmediatePropagation();
}, true);
// And as soon as the keyboard reaches it: it opens by an arrow key, or with the first letter.
document.addEventListener("focus", (event) => {
  if (tabs && event.target.getAttribute?.("role") === "combobox") event.stopImmediatePropagation();
}, true);
for (const name of ["keyup", "pointerdown"]) document.addEventListener(name, () => { tabs = false; }, true);
// Enter in a slider's number takes it, as leaving it does.
document.addEventListener("keydown", (event) => {
  const box = event.target;
  if (event.key !== "Enter" || box.type !== "number") return;
  box.blur();
  box.focus();
});
// A tab remembers what it shows until it is closed, and a browser its edits, newest first, as ids that expire with the
// server, which knows which of them are done. A new tab begins with the newest of them.
const MOST_EDITS = 300;
const read = (storage, key, otherwise) => {
  try { return JSON.parse(window[storage].getItem(key)) ?? otherwise; } catch { return otherwise; }
};
let restored = false;  // whether what the tab remembers was read
const write = (storage, key, value) => {
  try { window[storage].setItem(key, JSON.stringify(value)); } catch {}  // storage is off or full
};
window.adaflow = {
  edits: () => JSON.stringify(read("localStorage", "adaflow-edits", [])),
  session: () => {
    restored = true;
    return JSON.stringify(read("sessionStorage", "adaflow-tab", { edits: read("localStorage", "adaflow-edits", []) }));
  },
  keep: ({ settings, ...part }) => {
    if (!restored) return [];  // it is what the page comes with
    // Beside the name of a model that is still being loaded stand the settings of the one before.
    if (settings && !document.querySelector('[data-job^="load "]')) part.settings = settings;
    write("sessionStorage", "adaflow-tab", { ...read("sessionStorage", "adaflow-tab", {}), ...part });
    const edits = read("localStorage", "adaflow-edits", []);
    if (part.job && !edits.includes(part.job))
      write("localStorage", "adaflow-edits", [part.job, ...edits].slice(0, MOST_EDITS));
    return [];
  },
  // Of what runs the tab remembers the job as soon as its progress is shown, beside what was made before.
  keepRunning: (progress, settings) => {
    const [, kind, job] = progress?.match(/data-job="(\w+) ([\w-]+)"/) ?? [];
    const name = { plan: "planning", draft: "drafting", place: "placing" }[kind];
    if (!name || read("sessionStorage", "adaflow-tab", {})[name] === job) return [];
    return adaflow.keep({ [name]: job, ...(kind === "plan" && { settings }) });
  },
};
// What is pressed just after another video was chosen is of that video, which has to come first: until then the steps
// after it take no press, nor do they for longer than a lost answer should hold them up.
let awaited = 0, held;  // videos that were chosen and have not come
window.adaflow.hold = (on) => {
  clearTimeout(held);
  awaited = Math.max(0, awaited + (on ? 1 : -1));
  document.querySelector(".af-after-video")?.toggleAttribute("inert", awaited > 0);
  if (awaited) held = setTimeout(() => { awaited = 1; window.adaflow.hold(false); }, 30000);
};
// A server that was started anew knows nothing of this page, whose files lie elsewhere: the page begins anew as well, with
// what the tab remembers. It is asked when the visitor comes back to the page or begins to do something there.
let asked = 0;
const reloadIfServerIsNew = async () => {
  const { root, api_prefix: prefix, app_id: mine } = window.gradio_config ?? {};
  if (mine === undefined || document.hidden || Date.now() - asked < 5000) return;
  asked = Date.now();
  try {
    const answer = await fetch(`${root}${prefix}/app_id`, { cache: "no-store" });
    if (answer.ok && (await answer.json()).app_id !== mine) window.location.reload();
  } catch {}  // it is not there: Gradio says so
};
window.addEventListener("focus", reloadIfServerIsNew);
for (const name of ["visibilitychange", "pointerdown", "keydown"])
  document.addEventListener(name, reloadIfServerIsNew, { capture: true, passive: true });
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
