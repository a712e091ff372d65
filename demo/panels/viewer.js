// What the page does in the browser itself: slices (viewer) and planes and 3D (volume), the two gr.HTML components.
// Python appends the call of one of the two functions. Gradio provides `element`, `props` and `watch`; viewer.py and
// volume_view.py document the messages in `props`. The style sheets hide what a mode does not use.
const part = (selector) => element.querySelector(selector);

function follow(messages, update) { // updates `messages` and calls update(messages) when there are new ones
  let pending = null;
  watch(Object.keys(messages), () => {
    clearTimeout(pending); // the messages of one update come one after the other
    pending = setTimeout(() => {
      for (const name in messages) if (props[name] !== undefined) messages[name] = props[name];
      update(messages);
    });
  });
}

function viewer() {
  const shown = part(".shown"), stage = part(".stage"), slider = part(".slice"), play = part(".play");
  const sheets = {}, known = {}; // pictures with all slices in rows, by name; what was set before
  let value, model, pruning, evidence, captions, standIns, slice = 0, timer = null;

  // Draws a frame, or a grid of cells that each come from a frame and a place in it: frame * cells + place.
  function paint(canvas, sheet, cells = [slice], [rows, columns] = [1, 1]) {
    const width = sheet.width / value.columns, height = sheet.height / value.rows;
    const box = [width / columns, height / rows], painter = Object.assign(canvas, { width, height }).getContext("2d");
    const corner = (place) => [(place % columns) * box[0], Math.floor(place / columns) * box[1]];
    cells.forEach((cell, index) => {
      const frame = Math.floor(cell / (rows * columns)), [x, y] = corner(cell % (rows * columns));
      const left = (frame % value.columns) * width, top = Math.floor(frame / value.columns) * height;
      painter.drawImage(sheet, left + x, top + y, ...box, ...corner(index), ...box);
    });
  }

  function draw() {
    if (shown.hidden || !Object.values(sheets).every((sheet) => sheet.complete)) return;
    const mode = part("[name=mode]:checked").value, picture = part(".picture"), overlay = part(".overlay");
    paint(picture, sheets.original);
    if (mode === "wipe") paint(overlay, sheets.encoded, standIns[slice].split(" "), model.grid);
    else if (sheets[mode]) paint(overlay, sheets[mode]);
    shown.dataset.mode = mode;
    part("output").textContent = picture.ariaLabel = slider.ariaValueText = captions[slice];
    slider.value = slice;
  }

  function go(to) {
    slice = Math.max(0, Math.min(to, value.frames - 1));
    draw();
  }

  function run(on) { // plays or stops
    clearInterval(timer);
    timer = on ? setInterval(() => go((slice + 1) % value.frames), 125) : null;
    play.ariaPressed = String(on);
  }

  follow({ value, model, pruning, evidence }, (messages) => {
    ({ value, model, pruning, evidence } = messages);
    [captions, standIns] = [pruning?.captions, pruning?.stand_ins].map((lines) => lines?.split("\n"));
    shown.hidden = !(value && model && captions?.length === value.frames);
    part(".hint").hidden = !shown.hidden;
    if (shown.hidden) return run(false);
    const isNew = model.sheets.encoded !== known.encoded, hasEvidence = Boolean(evidence.sheets.weight);
    const mode = hasEvidence ? "weight" : "kept"; // evidence is shown when it comes
    if (String(hasEvidence) !== shown.dataset.evidence) part(`[value=${mode}]`).checked = true;
    Object.assign(shown.dataset, { frames: value.frames, evidence: hasEvidence });
    slider.max = value.frames - 1;
    for (const message of [value, model, pruning, evidence]) {
      for (const [name, text] of Object.entries({ ...message.style, ...message.sheets })) {
        if (known[name] === text) continue;
        known[name] = text;
        if (name.startsWith("--")) shown.style.setProperty(name, text);
        else sheets[name] = Object.assign(new Image(), { onload: draw, src: text });
      }
    }
    if (isNew) run(false);
    go(isNew ? model.first : slice);
  });

  element.addEventListener("input", ({ target }) => {
    if (target.type === "range") shown.style.setProperty(`--${target.name}`, target.value);
    go(Number(slider.value));
  });
  play.addEventListener("click", () => run(!timer));
  stage.addEventListener("wheel", (event) => {
    if (value.frames > 1) event.preventDefault(); // over a single picture, the page scrolls
    go(slice + Math.sign(event.deltaY));
  });
  stage.addEventListener("keydown", (event) => {
    const back = { ArrowLeft: 1, ArrowUp: 1, PageUp: 5, Home: 1e6 };
    const forth = { ArrowRight: 1, ArrowDown: 1, PageDown: 5, End: 1e6 };
    const step = (forth[event.key] ?? 0) - (back[event.key] ?? 0);
    if (event.target !== stage || !(step || event.key === " ")) return; // the wipe, inside the stage, has keys of its own
    event.preventDefault();
    step ? go(slice + step) : run(!timer);
  });
  document.addEventListener("pointerover", ({ target }) => { // a click on the chart of kept tokens shows that slice
    const chart = target.closest("#kept_chart .js-plotly-plot");
    if (!chart?.on || chart.jumps) return;
    chart.on("plotly_click", ({ points }) => go(points[0].pointIndex));
    chart.jumps = true;
  });
}

function volume() {
  let viewer = null, background = null, last = Promise.resolve();
  const fade = () => viewer.setOpacity(1, part(".opacity input").value / 100);

  function tell(problem) { // "" if there is a volume to see
    part(".volume").dataset.loaded = !problem;
    part(".hint").textContent = problem;
  }

  async function show({ value, mask }) {
    tell(value.problem);
    if (value.problem) return;
    await import(value.niivue.url); // fetched when a volume is shown for the first time
    const { Niivue, NVImage } = window.niivue, load = (options) => NVImage.loadFromBase64(options);
    if (!viewer) {
      const made = new Niivue(value.look);
      await made.attachToCanvas(part("canvas"));
      made.addColormap("tokens", value.colours);
      made.setSliceType(made.sliceTypeMultiplanar);
      viewer = made;
    }
    const kept = value.background === background ? 1 : 0; // the volume stays if only the mask changed
    background = value.background;
    for (const image of viewer.volumes.slice(kept)) viewer.removeVolume(image);
    if (!kept) viewer.addVolume(await load({ base64: background, name: "volume.nii.gz" }));
    viewer.addVolume(await load({ base64: mask, name: "tokens.nii.gz", colormap: "tokens", cal_min: 0, cal_max: 2 }));
    fade();
    element.dataset.shown = Number(element.dataset.shown ?? 0) + 1;
  }

  function fail(error) { // the next volume starts afresh
    background = null;
    tell("This browser could not draw the volume: planes and 3D need WebGL 2. The slices are shown all the same.");
    console.error(error);
  }

  part(".opacity input").addEventListener("input", fade);
  follow({ value: null, mask: null }, (messages) => { // one after the other
    last = last.then(() => show(messages)).catch(fail);
  });
}
