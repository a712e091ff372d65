// The slice viewer: which slice is shown, what is drawn on it, its window, and what stands at its edges. viewer.py
// documents the messages in `props`; the style sheet hides what a mode does not use.

function viewer() {
  const shown = part(".shown"), stage = part(".stage"), film = part(".film"), slider = part(".slice"), play = part(".play");
  const picture = part(".picture"), overlay = part(".overlay"), windows = part(".windows");
  const planes = part(".planes"), series = part(".series");
  const store = sheetStore(shown, draw), measured = ruler(stage, film, part(".ruler"), part(".measure"));
  const view = zoomable(stage, film, () => scaleBar(part(".scale-bar"), film, value?.millimetres));
  let value, model, pruning, evidence, captions, standIns, grey, cross = null, slice = 0, timer = null;

  const withMinus = (number) => String(number).replace("-", "−");
  const modeNow = () => part("[name=mode]:checked").value;

  function draw() {
    if (shown.hidden || !store.isComplete()) return;
    const mode = modeNow() === "kept" && part("[name=score]").checked ? "score" : modeNow();
    paint(picture, store.sheets.original, value, [slice]);
    if (mode === "wipe") paint(overlay, store.sheets.encoded, value, standIns[slice].split(" "), model.grid);
    else if (store.sheets[mode]) paint(overlay, store.sheets[mode], value, [slice]);
    shown.dataset.mode = mode;
    part("output").textContent = picture.ariaLabel = slider.ariaValueText = captions[slice];
    slider.value = slice;
    part(".cross").toggleAttribute("hidden", !cross);
    scaleBar(part(".scale-bar"), film, value.millimetres);
  }

  function go(to) {
    slice = Math.max(0, Math.min(to, value.frames - 1));
    draw();
    tellCrosshair("slices", { slice, ...(cross ?? { x: 0.5, y: 0.5 }) });
  }

  function point(place) { // draws the crosshair at that place of the slice, shares of width and height; nowhere for null
    cross = place && { x: place[0], y: place[1] };
    const [down, across] = part(".cross").children;
    for (const name of ["x1", "x2"]) if (place) down.setAttribute(name, `${100 * place[0]}%`);
    for (const name of ["y1", "y2"]) if (place) across.setAttribute(name, `${100 * place[1]}%`);
    go(slice);
  }

  function run(on) { // plays or stops
    clearInterval(timer);
    const pause = 1000 / Number(part("[name=speed]").value);
    timer = on ? setInterval(() => go((slice + 1) % value.frames), pause) : null;
    play.ariaPressed = String(on);
  }

  // The window: the browser changes grey levels at once; of a CT, the server then sends finer ones.

  function showWindow() { // a linear map of grey levels, as the two filters that CSS has for it
    const { low, width } = value.scale, start = grey.level - grey.width / 2;
    const slope = width / grey.width, offset = (low - start) / grey.width;
    const brightness = Math.max(slope + 2 * offset, 0.01);
    shown.style.setProperty("--contrast", slope / brightness);
    shown.style.setProperty("--brightness", brightness);
    const rounded = { width: Math.round(grey.width), level: Math.round(grey.level) };
    part(".grey").textContent = `W ${rounded.width} L ${withMinus(rounded.level)} ${value.scale.unit}`;
    for (const name of ["width", "level"]) if (part(`[name=${name}]`) !== document.activeElement) part(`[name=${name}]`).value = rounded[name];
  }

  function changeWindow(changes) {
    Object.assign(grey, changes);
    grey.width = Math.max(grey.width, 1);
    showWindow();
  }

  function askForWindow() {
    if (value.windows.length) trigger("window", { width: grey.width, level: grey.level });
  }

  function readValue(event) {
    const place = placeOn(film, event), { low, width, unit } = value.scale;
    if (!place || !picture.width) return (part(".value").textContent = "");
    const at = [Math.floor(place[0] * picture.width), Math.floor(place[1] * picture.height)];
    const [red, green, blue] = picture.getContext("2d").getImageData(...at, 1, 1).data;
    if (!value.grey) return (part(".value").textContent = `red ${red}, green ${green}, blue ${blue}`);
    const sign = red === 0 ? "≤" : red === 255 ? "≥" : "≈", level = Math.round(low + (red / 255) * width);
    part(".value").textContent = unit ? `${sign} ${withMinus(level)} ${unit}` : `grey ${red} of 255`;
  }

  function takeClip() { // what stands at the edges
    const [top, bottom, left, right] = value.letters;
    for (const [name, letter] of Object.entries({ top, bottom, left, right })) part(`.letter.${name}`).textContent = letter ?? "";
    part(".no-letters").hidden = value.letters.length > 0 || value.frames === 1;
    windows.hidden = value.windows.length === 0;
    windows.innerHTML = "";
    for (const each of value.windows) windows.add(new Option(each.name, `${each.width}/${each.level}`));
    grey = { width: value.scale.width, level: value.scale.low + value.scale.width / 2 };
    const names = value.windows.map(({ name }) => name), values = [...windows.options].map((option) => option.value);
    windows.selectedIndex = names.includes(value.window) ? names.indexOf(value.window) : values.indexOf(`${grey.width}/${grey.level}`);
    offer(planes, value.planes.map((plane) => [plane[0].toUpperCase() + plane.slice(1), plane, plane === value.plane]));
    offer(series, value.series.map(({ name, number, is_read }) => [name, number, is_read]));
    for (const input of shown.querySelectorAll("[name=width], [name=level]")) input.disabled = !value.grey;
    part(".grey").hidden = !value.grey;
    showWindow();
  }

  function offer(list, options) { // [words, value, whether it is chosen]
    list.hidden = options.length === 0;
    list.replaceChildren(...options.map(([words, each, isChosen]) => new Option(words, each, isChosen, isChosen)));
  }

  follow({ value, model, pruning, evidence }, (messages) => {
    const before = value;
    ({ value, model, pruning, evidence } = messages);
    [captions, standIns] = [pruning?.captions, pruning?.stand_ins].map((lines) => lines?.split("\n"));
    shown.hidden = !(value && model && captions?.length === value.frames);
    document.body.dataset.scan = shown.hidden ? "none" : "shown"; // the page's layout depends on it (page.css)
    if (shown.hidden) return run(false);
    const isNew = store.isNew("encoded", model.sheets.encoded), hasEvidence = Boolean(evidence.sheets.weight);
    const isNewEvidence = hasEvidence && store.isNew("weight", evidence.sheets.weight);
    const mode = hasEvidence ? "weight" : "kept"; // evidence is shown when it comes
    if (isNew || String(hasEvidence) !== shown.dataset.evidence) part(`[value=${mode}]`).checked = true;
    Object.assign(shown.dataset, { frames: value.frames, kind: value.kind, evidence: hasEvidence, colour: value.windows.length > 0 });
    slider.max = value.frames - 1;
    for (const message of [value, model, pruning, evidence]) store.take(message);
    if (value !== before) takeClip();
    if (isNew) {
      run(false);
      view.reset();
      measured(value.millimetres);
      cross = null;
    }
    go(isNewEvidence ? evidence.first : isNew ? model.first : slice);
  });

  element.addEventListener("input", ({ target }) => {
    if (target.type === "range") shown.style.setProperty(`--${target.name}`, target.value);
    if (target.type === "number" && target.value) changeWindow({ [target.name]: Number(target.value) });
    go(Number(slider.value));
  });
  element.addEventListener("change", ({ target }) => {
    if (target.type === "number") askForWindow();
    if (target.name === "speed" && timer) run(true);
  });
  windows.addEventListener("change", () => {
    const [width, level] = windows.value.split("/").map(Number);
    changeWindow({ width, level });
    askForWindow();
  });
  if (matchMedia("(max-width: 768px)").matches) part(".panel").prepend(planes, series); // a phone's bar has no room for them
  planes.addEventListener("change", () => trigger("slicing", { plane: planes.value }));
  series.addEventListener("change", () => trigger("slicing", { series: Number(series.value) }));
  part(".reset").addEventListener("click", () => {
    view.reset();
    point(null);
    if (!value.windows.length) changeWindow({ width: 255, level: 127.5 });
  });
  play.addEventListener("click", () => run(!timer));
  let pressed = null; // where, to tell a click from a drag
  stage.addEventListener("pointerdown", ({ clientX, clientY }) => { pressed = { clientX, clientY }; });
  stage.addEventListener("click", (event) => { // in a volume that has planes; the wipe and the ruler have clicks of their own
    if (!value.planes.length || event.detail > 1 || event.target.name === "wipe" || stage.classList.contains("measuring")) return;
    if (Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < 4) point(placeOn(film, event));
  });
  hearCrosshair("slices", (told) => {
    slice = told.slice;
    point([told.x, told.y]);
  });
  stage.addEventListener("pointermove", readValue);
  stage.addEventListener("pointerleave", () => { part(".value").textContent = ""; });
  rightDrag(stage, (dx, dy) => {
    if (!value.grey) return;
    const step = Math.max(grey.width, 20) / 200;
    changeWindow({ width: grey.width + dx * step, level: grey.level + dy * step });
  }, askForWindow);
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey) { // a pinch on a touchpad comes as such, too
      event.preventDefault();
      return view.zoom(Math.exp(-event.deltaY / 200), event.clientX, event.clientY);
    }
    if (value.frames > 1) event.preventDefault();
    go(slice + Math.sign(event.deltaY));
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const back = { ArrowLeft: 1, ArrowUp: 1, PageUp: 5, Home: 1e6 };
    const forth = { ArrowRight: 1, ArrowDown: 1, PageDown: 5, End: 1e6 };
    const step = (forth[event.key] ?? 0) - (back[event.key] ?? 0);
    if (event.target !== stage || !(step || event.key === " ")) return; // the wipe, inside the stage, has keys of its own
    event.preventDefault();
    step ? go(slice + step) : run(!timer);
  });
  new ResizeObserver(() => value && draw()).observe(stage);
  document.addEventListener("pointerover", ({ target }) => { // a click on the chart of kept tokens shows that slice
    const chart = target.closest?.("#kept_chart .js-plotly-plot");
    if (!chart?.on || chart.jumps) return;
    chart.on("plotly_click", ({ points }) => go(points[0].pointIndex));
    chart.jumps = true;
  });
}
