// Draws one slice of the loaded clip and veils its pruned tokens; everything happens in the browser.
// `props.value` holds the slices and `props.pruning` the kept tokens, as demo/viewer.py describes them.
const part = (selector) => element.querySelector(selector);
const sprite = new Image();
let slice = 0;

function draw() {
  const clip = props.value, pruning = props.pruning;
  const loaded = Boolean(clip && pruning && sprite.complete && sprite.naturalWidth);
  part(".shown").hidden = !loaded;
  part(".hint").hidden = loaded;
  if (!loaded) return;
  slice = Math.min(slice, clip.frames - 1);
  const canvas = part("canvas"), range = part("input[type=range]"), painter = canvas.getContext("2d");
  canvas.width = clip.width;
  canvas.height = clip.height;
  range.max = clip.frames - 1;
  range.value = slice;
  part(".controls").hidden = clip.frames === 1;
  const left = (slice % clip.columns) * clip.width, top = Math.floor(slice / clip.columns) * clip.height;
  painter.drawImage(sprite, left, top, clip.width, clip.height, 0, 0, clip.width, clip.height);

  const tokens = clip.grid[0] * clip.grid[1];
  const kept = pruning.kept.slice(slice * tokens, (slice + 1) * tokens);
  const tokenWidth = clip.width / clip.grid[1], tokenHeight = clip.height / clip.grid[0];
  if (part("input[type=checkbox]").checked) {
    painter.fillStyle = "rgba(32, 52, 120, 0.75)"; // blue, because black would not show on a black background
    for (let token = 0; token < tokens; token++) {
      if (kept[token] === "1") continue;
      const x = token % clip.grid[1], y = Math.floor(token / clip.grid[1]);
      painter.fillRect(x * tokenWidth, y * tokenHeight, tokenWidth, tokenHeight);
    }
  }
  const place = clip.positions[slice] || (clip.frames > 1 ? `slice ${slice + 1}` : "");
  const position = place ? place + ", " : "";
  const words = `${position}${[...kept].filter((flag) => flag === "1").length} of ${tokens} tokens kept`;
  part("output").textContent = words;
  canvas.setAttribute("aria-label", `Slice ${slice + 1} of ${clip.frames}: ${words}`);
}

element.addEventListener("input", (event) => {
  if (event.target.type === "range") slice = Number(event.target.value);
  draw();
});
sprite.addEventListener("load", draw);
watch("value", () => {
  slice = props.value ? Math.floor((props.value.frames - 1) / 2) : 0;
  if (props.value) sprite.src = props.value.sprite;
  draw();
});
// Without quotes: gradio takes a quoted name for an event of the component, and then sends its listener along.
watch(Object.keys({ pruning: null }), draw);
