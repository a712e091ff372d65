// Draws one slice of the loaded clip and what the pruner made of it; everything happens in the browser.
// props.value, model, pruning and evidence are the messages that demo/viewer.py describes.
const part = (selector) => element.querySelector(selector), parts = (selector) => [...element.querySelectorAll(selector)];
const original = new Image(), encoded = new Image(), WHOLE = { x: 0, y: 0, width: 1, height: 1 };
const COLOURS = ["#0d0887", "#7e03a8", "#cc4778", "#f89540", "#f0f921"]; // plasma: dark is little, bright is much
// Without quotes: gradio takes a quoted name for an event of the component, and then sends its listener along.
const NAMES = Object.keys({ value: 0, model: 0, pruning: 0, evidence: 0 });
const VEIL = "#1e2f8a", KEPT = "#2dd4bf", HERE = "#f59e0b"; // a blue veil, because black would not show on black
const swatch = (style, words) => `<span><i style="${style}"></i>${words}</span>`;
const scale = (low, high) => `<span>${low}<i class="scale" style="background:linear-gradient(90deg,${COLOURS})"></i>${high}</span>`;
const LEGENDS = {
  kept: swatch(`border:2px solid ${KEPT}`, "kept") + swatch(`background:${VEIL}`, "removed: repeats what was kept before"),
  wipe: "A removed token is shown as the kept one that stands for it, at the encoder's resolution.",
  score: scale("0: repeats", "2: new") + "<span>above 1, the threshold, kept (known background is not)</span>",
  weight: scale("little", "most attention") + swatch(`background:${HERE}`, "of the whole slice") + "<b>A hint, not an explanation.</b>",
  plain: "",
};
const shades = gradient();
let slice = 0, timer = null, pending = null, data = {}, messages = {};

function gradient() { // 256 colours as CSS text
  const painter = Object.assign(document.createElement("canvas"), { width: 256, height: 1 }).getContext("2d");
  painter.fillStyle = painter.createLinearGradient(0, 0, 256, 0);
  COLOURS.forEach((colour, index) => painter.fillStyle.addColorStop(index / (COLOURS.length - 1), colour));
  painter.fillRect(0, 0, 256, 1);
  const pixels = painter.getImageData(0, 0, 256, 1).data;
  return Array.from({ length: 256 }, (_, index) => `rgb(${pixels.slice(4 * index, 4 * index + 3)})`);
}

function unpack() { // the messages as arrays with one entry per token
  const { value, model, pruning, evidence } = messages;
  if (!value || !model || !pruning) return {};
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const tokens = model.grid[0] * model.grid[1];
  if (pruning.kept.length !== value.frames * tokens) return {};
  const count = (_, frame) => pruning.kept.slice(frame * tokens, (frame + 1) * tokens).replaceAll("0", "").length;
  const standIn = new Uint16Array(bytes(pruning.stand_in).buffer), keptIn = Array.from({ length: value.frames }, count);
  const weight = evidence?.weight ? bytes(evidence.weight) : null;
  return { tokens, standIn, keptIn, score: bytes(pruning.score), weight, weightIn: evidence?.in_frames };
}

function cut(painter, image, sheet, frame, from, to) { // copies a box of one frame; `from` is in shares of the frame
  const left = ((frame % sheet.columns) + from.x) * sheet.width;
  const top = (Math.floor(frame / sheet.columns) + from.y) * sheet.height;
  painter.drawImage(image, left, top, from.width * sheet.width, from.height * sheet.height, to.x, to.y, to.width, to.height);
}

function draw() {
  const clip = messages.value, ready = [original, encoded].every((image) => image.complete && image.naturalWidth);
  [part(".shown").hidden, part(".hint").hidden] = [!data.tokens, Boolean(data.tokens)];
  if (!data.tokens || !ready) return;
  slice = Math.max(0, Math.min(slice, clip.frames - 1));
  const mode = part("[name=mode]:checked").value, wipe = part(".wipe input").value / 100;
  const [picture, overlay] = parts(".stage canvas"), zoom = Math.max(1, Math.round(896 / Math.max(clip.width, clip.height)));
  const [width, height] = [clip.width * zoom, clip.height * zoom];
  for (const canvas of [picture, overlay]) Object.assign(canvas, { width, height });
  part(".stage").style.maxWidth = `min(100%, ${Math.round((480 * width) / height)}px)`;
  const painter = picture.getContext("2d"), veil = overlay.getContext("2d");
  cut(painter, original, clip, slice, WHOLE, { x: 0, y: 0, width, height });
  const [brightness, contrast] = parts(".light input").map((input) => input.value);
  picture.style.filter = `brightness(${brightness}%) contrast(${contrast}%)`;
  drawTokens(mode, painter, veil, width, height, wipe);
  if (mode === "wipe") { // the handle
    veil.fillStyle = KEPT;
    veil.fillRect(width * wipe - 2, 0, 4, height);
    veil.arc(width * wipe, height / 2, width / 45, 0, 7);
    veil.fill();
  }
  describe(clip, mode);
}

function drawTokens(mode, painter, veil, width, height, wipe) {
  const [rows, columns] = messages.model.grid, box = { width: width / columns, height: height / rows };
  const edge = Math.max(1, box.width / 50), from = { width: 1 / columns, height: 1 / rows };
  Object.assign(veil, { globalAlpha: part(".opacity input").value / 100, strokeStyle: KEPT, lineWidth: edge });
  painter.rect(width * wipe, 0, width, height);
  if (mode === "wipe") painter.clip();
  for (let token = 0; token < data.tokens; token++) {
    const place = slice * data.tokens + token, row = Math.floor(token / columns), column = token % columns;
    const kept = messages.pruning.kept[place] === "1", to = { ...box, x: column * box.width, y: row * box.height };
    if (mode === "wipe") cut(painter, encoded, messages.model, data.standIn[place], { ...from, x: column / columns, y: row / rows }, to);
    veil.fillStyle = data[mode] ? shades[data[mode][place]] : mode === "kept" && !kept ? VEIL : "transparent";
    veil.fillRect(to.x, to.y, to.width, to.height);
    if (mode === "kept" && kept) veil.strokeRect(to.x + edge / 2, to.y + edge / 2, to.width - edge, to.height - edge);
  }
  veil.globalAlpha = 1;
}

function describe(clip, mode) { // everything around the picture
  const number = clip.frames > 1 ? `${clip.unit} ${slice + 1} of ${clip.frames}` : "";
  const words = [number, clip.positions[slice], `${data.keptIn[slice]} of ${data.tokens} tokens kept`].filter(Boolean).join(" · ");
  part("output").textContent = words;
  part(".picture").setAttribute("aria-label", words);
  Object.assign(part(".slice"), { max: clip.frames - 1, value: slice }).setAttribute("aria-valuetext", words);
  if (part(".legend").dataset.mode !== mode) part(".legend").innerHTML = LEGENDS[(part(".legend").dataset.mode = mode)];
  for (const item of [part(".slice"), part(".play"), part(".strip")]) item.hidden = clip.frames === 1;
  for (const item of [part(".wipe"), ...parts(".tag")]) item.hidden = mode !== "wipe";
  part(".opacity").hidden = mode === "wipe" || mode === "plain";
  part("label.evidence").hidden = !data.weight;
  const strip = part(".strip"), painter = strip.getContext("2d"), frames = inStrip(), side = 64;
  [strip.width, strip.height] = [frames.length * side, side + 10];
  const nearest = frames.reduce((best, frame) => (Math.abs(frame - slice) < Math.abs(best - slice) ? frame : best));
  frames.forEach((frame, index) => {
    cut(painter, original, clip, frame, WHOLE, { x: index * side, y: 0, width: side - 2, height: side });
    Object.assign(painter, { fillStyle: mode === "weight" ? HERE : KEPT, strokeStyle: HERE, lineWidth: 6 });
    const share = mode === "weight" ? data.weightIn[frame] : data.keptIn[frame] / data.tokens;
    painter.fillRect(index * side, side + 3, (side - 2) * share, 7);
    if (frame === nearest) painter.strokeRect(index * side + 3, 3, side - 8, side - 6);
  });
}

function inStrip() { // as many evenly spaced frames as the strip has room for
  const last = messages.value.frames - 1, length = Math.max(2, Math.min(last + 1, Math.floor(part(".shown").clientWidth / 34)));
  return Array.from({ length }, (_, index) => Math.round((index * last) / (length - 1)));
}

function go(to) {
  slice = to;
  draw();
}

function play(on) {
  clearInterval(timer);
  timer = on ? setInterval(() => go((slice + 1) % messages.value.frames), 125) : null;
  part(".play").textContent = on ? "❚❚" : "▶";
  part(".play").setAttribute("aria-pressed", String(on));
}

function point(event) { // the wipe follows the pointer, a click on the strip jumps
  const box = event.currentTarget.getBoundingClientRect(), share = (event.clientX - box.left) / box.width, frames = inStrip();
  if (event.type === "click") return go(frames[Math.min(Math.floor(share * frames.length), frames.length - 1)]);
  if (event.buttons !== 1) return;
  part(".wipe input").value = 100 * share;
  draw();
}

function firstToShow({ frames }) { // near the middle, one with kept and removed tokens, because these say most
  const middle = (frames - 1) / 2, mixed = (frame) => data.keptIn[frame] > 0 && data.keptIn[frame] < data.tokens;
  return Array.from({ length: frames }, (_, frame) => frame).sort((one, other) =>
    mixed(other) - mixed(one) || Math.abs(one - middle) - Math.abs(other - middle))[0];
}

element.addEventListener("input", (event) => (event.target.matches(".slice") ? go(Number(event.target.value)) : draw()));
part(".play").addEventListener("click", () => play(!timer));
part(".strip").addEventListener("click", point);
for (const name of ["pointerdown", "pointermove"]) part(".stage").addEventListener(name, point);
part(".stage").addEventListener("wheel", (event) => {
  if (messages.value.frames > 1) event.preventDefault();
  go(slice + Math.sign(event.deltaY));
});
part(".stage").onkeydown = (event) => {
  const back = { ArrowLeft: 1, ArrowUp: 1, PageUp: 5, Home: 1e6 }, forth = { ArrowRight: 1, ArrowDown: 1, PageDown: 5, End: 1e6 };
  const step = (forth[event.key] || 0) - (back[event.key] || 0);
  if (!step && event.key !== " ") return;
  event.preventDefault();
  step ? go(slice + step) : play(!timer);
};
addEventListener("show_slice", (event) => go(event.detail));
new ResizeObserver(draw).observe(element);
for (const image of [original, encoded]) image.addEventListener("load", draw);
function update() {
  // An update carries the messages that change; the others are undefined then.
  for (const name of NAMES) if (props[name] !== undefined) messages[name] = props[name];
  const { value, model } = messages, before = data;
  data = unpack();
  if (value && original.src !== value.sprite) original.src = value.sprite;
  if (model && encoded.src !== model.sprite) {
    encoded.src = model.sprite;
    slice = data.keptIn ? firstToShow(value) : 0;
    play(false);
  }
  if (Boolean(data.weight) !== Boolean(before.weight)) part(`[value=${data.weight ? "weight" : "kept"}]`).checked = true;
  draw();
}

// Messages of one update come one after the other, and belong together.
watch(NAMES, () => {
  clearTimeout(pending);
  pending = setTimeout(update);
});
