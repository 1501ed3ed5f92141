// What Gradio leaves without a name, or without a word on its state, for those who do not see the page.
const put = (element, name, value) => {
  if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
};
const all = (selector) => document.querySelectorAll(selector);
const blockName = (element) =>
  element.closest(".block")?.querySelector("[data-testid=block-label]")?.textContent.trim() ?? "";
const PLAYER = { "play-pause-replay-button": "Play or pause", "Adjust volume": "Volume", "full-screen": "Full screen" };
const nameVideos = () => {
  for (const video of all("video")) {
    const block = video.closest(".block"), name = blockName(video);
    if (!name) continue;
    put(video, "aria-label", name);
    for (const [label, says] of Object.entries(PLAYER))
      put(block.querySelector(`[aria-label="${label}"]`), "aria-label", `${says}: ${name}`);
  }
};
const namePictures = () => {
  for (const button of all(".image-container > button")) {
    const name = blockName(button) || "Picture";
    put(button, "aria-label", name);
    put(button.querySelector("img"), "alt", name);
    if (button.closest(".af-plot")) put(button, "aria-description", "The arrow keys choose the frame.");
    if (button.closest(".af-frame-picture"))
      put(button, "aria-description", "The arrow keys choose a point; Enter shows its matches.");
  }
  // By its caption, which its own number would hide.
  for (const button of all(".thumbnail-item")) {
    const number = /Thumbnail \d+ of \d+/.exec(button.getAttribute("aria-label") ?? "")?.[0];
    const caption = button.querySelector(".caption-label")?.textContent.trim();
    if (number && caption) put(button, "aria-label", `${caption} (${number})`);
    if (button.closest(".af-choice")) put(button, "aria-pressed", String(button.classList.contains("selected")));
  }
  all(".af-compare .content img").forEach((picture, right) =>
    put(picture, "alt", `The frame to the ${right ? "right" : "left"} of the divider`));
  const [picture, crop] = all(".af-canvas canvas");
  put(picture, "role", "img");
  put(picture, "aria-label", "Paint here by pointer; the box above needs none");
  put(crop, "aria-hidden", "true");
};
const nameButtons = () => {
  for (const link of all(".download-link:has(> button)")) {
    put(link, "aria-label", `Download: ${blockName(link)}`);
    put(link.firstElementChild, "tabindex", "-1");  // the link itself takes the key
  }
  for (const reset of all(".reset-button")) {
    const label = reset.closest(".block")?.querySelector("[data-testid=block-info]")?.textContent.trim();
    if (label) put(reset, "aria-label", `Reset to default value: ${label}`);
  }
  for (const what of ["preview", "edit"])
    put(document.querySelector(`button.af-stop-${what}`), "aria-label", `Stop the ${what}`);
  for (const title of all("button.label-wrap")) {
    put(title, "aria-expanded", String(title.classList.contains("open")));
    put(title.querySelector(".icon"), "aria-hidden", "true");
  }
  for (const tab of all("[role=tab]")) put(tab, "tabindex", tab.getAttribute("aria-selected") === "true" ? "0" : "-1");
  for (const item of all(".af-drafts .gallery-item")) {
    if (!item.querySelector(".af-enlarge")) addEnlarge(item);
    put(item.querySelector(".af-enlarge"), "aria-label", `Enlarge: ${draftCaption(item)}`);
  }
  nameDivider();
};
const nameAll = () => {
  nameVideos();
  namePictures();
  nameButtons();
  const film = document.querySelector(".af-film video");
  if (film) inView.observe(film);
  sayNews();
};
// What becomes of jobs, and what there is to notice, is said by one element that stays: those that show it are replaced
// every second. What is hidden is not said.
let lastNews = new Map();
const speaker = document.createElement("div");
speaker.className = "af-spoken";
put(speaker, "role", "status");
const sayNews = () => {
  const page = document.querySelector(".gradio-container");
  if (!page) return;
  if (!speaker.isConnected) page.append(speaker);
  const now = new Map();
  for (const part of all("[data-spoken], .af-notice, :is(.af-progress, .af-status) .af-line")) {
    const words = part.dataset.spoken ?? part.textContent;
    if (part.checkVisibility()) now.set(part.dataset.job ?? words, words);
  }
  const news = [...now].filter(([key, words]) => lastNews.get(key) !== words).map(([, words]) => words);
  lastNews = now;
  if (news.length) speaker.textContent = news.join(". ");
};
new MutationObserver(nameAll).observe(document, {
  childList: true, subtree: true, characterData: true, attributes: true,
  attributeFilter: ["class", "aria-label", "aria-selected"],
});
document.addEventListener("keydown", (event) => {
  const tab = event.target.closest?.("[role=tab]");
  const row = tab ? [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")] : [];
  const at = row.indexOf(tab), last = row.length - 1;
  const to = { ArrowLeft: at ? at - 1 : last, ArrowRight: at < last ? at + 1 : 0, Home: 0, End: last };
  const next = row[to[event.key]];
  if (!next) return;
  event.preventDefault();
  next.click();
  next.focus();
});
const draftCaption = (item) => item.querySelector(".caption-label")?.textContent.trim() || "draft";
// A click on a draft chooses it, so a button of its own shows it large.
const addEnlarge = (item) => {
  const button = document.createElement("button");
  button.className = "af-enlarge";
  button.innerHTML = `<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" aria-hidden="true">
    <path d="M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7"/></svg>`;
  button.addEventListener("click", () => showLarge(item.querySelector("img"), draftCaption(item)));
  item.append(button);
};
const showLarge = (picture, caption) => {
  const dialog = document.createElement("dialog"), bar = document.createElement("div"), large = new Image();
  const says = document.createElement("span"), close = document.createElement("button");
  dialog.className = "af-large";
  dialog.setAttribute("aria-label", caption);
  large.alt = says.textContent = caption;
  large.src = picture.src;
  large.width = 2 * picture.naturalWidth;
  close.textContent = "Close";
  bar.append(says, close);
  dialog.append(bar, large);
  dialog.addEventListener("click", ({ target }) => {
    if (target === close || target === dialog) dialog.close();  // the dialog itself is what lies around the picture
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.querySelector(".gradio-container").append(dialog);
  dialog.showModal();
};
// The divider between two pictures moves by the arrow keys, as if it were dragged.
const divider = () => document.querySelector(".af-compare [data-testid=slider]");
// The pictures themselves, which are in the middle of a frame that may be wider.
const dividerFrame = (slider) => {
  const picture = slider.parentElement.querySelector("img"), frame = slider.parentElement.getBoundingClientRect();
  const shape = picture?.naturalHeight ? picture.naturalWidth / picture.naturalHeight : frame.width / frame.height;
  const width = Math.min(frame.width, frame.height * shape);
  return { left: frame.left + (frame.width - width) / 2, width, middle: frame.top + frame.height / 2 };
};
const dividerAt = (slider) => {
  const frame = dividerFrame(slider), line = slider.querySelector(".inner").getBoundingClientRect();
  return (line.left + line.width / 2 - frame.left) / frame.width;
};
const nameDivider = () => {
  const slider = divider();
  if (!slider) return;
  const own = { role: "slider", tabindex: "0", "aria-label": "Divider between the two pictures", "aria-valuemin": "0",
                "aria-valuemax": "100", "aria-valuenow": String(Math.round(100 * dividerAt(slider)) || 0) };
  for (const [name, value] of Object.entries(own)) put(slider, name, value);
};
document.addEventListener("keydown", (event) => {
  const slider = divider(), far = event.shiftKey ? 0.1 : 0.02;
  if (!slider || event.target !== slider) return;
  const at = dividerAt(slider);
  const less = at - far, more = at + far;
  const wanted = { ArrowLeft: less, ArrowDown: less, ArrowRight: more, ArrowUp: more, PageDown: at - 0.1,
                   PageUp: at + 0.1, Home: 0, End: 1 }[event.key];
  if (wanted === undefined) return;
  event.preventDefault();
  const frame = dividerFrame(slider), place = (share) => ({ bubbles: true, cancelable: true, view: window,
    clientX: frame.left + share * frame.width, clientY: frame.middle });
  const to = Math.min(1, Math.max(0, wanted));
  slider.dispatchEvent(new MouseEvent("mousedown", place(at)));
  for (const name of ["mousemove", "mouseup"]) window.dispatchEvent(new MouseEvent(name, place(to)));
  requestAnimationFrame(nameDivider);
});
document.addEventListener("focusin", ({ target }) => { if (target === divider()) nameDivider(); });
