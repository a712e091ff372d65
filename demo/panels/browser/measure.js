// Millimetres on the slice: a bar of a round length, and a ruler that the visitor draws.

// The place of a pointer on the film as shares of its width and height, or null outside.
function placeOn(film, { clientX, clientY }) {
  const box = film.getBoundingClientRect();
  const x = (clientX - box.left) / box.width, y = (clientY - box.top) / box.height;
  return x >= 0 && x < 1 && y >= 0 && y < 1 ? [x, y] : null;
}

// Shows the largest round length that fits a fifth of the film's width.
function scaleBar(bar, film, millimetres) {
  bar.hidden = !millimetres;
  if (!millimetres) return;
  const width = film.getBoundingClientRect().width, perPixel = millimetres[0] / width;
  const lengths = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200];
  const length = lengths.filter((each) => each / perPixel <= Math.max(width / 5, 40)).pop() ?? lengths[0];
  bar.style.width = `${length / perPixel}px`;
  bar.textContent = `${length} mm`;
}

function ruler(stage, film, drawing, button) {
  const [line, words] = [drawing.querySelector("line"), drawing.querySelector("text")];
  let start = null, millimetres = null;

  function set(on) {
    button.ariaPressed = String(on);
    stage.classList.toggle("measuring", on);
    drawing.toggleAttribute("hidden", true);
  }

  button.addEventListener("click", () => set(button.ariaPressed !== "true"));
  stage.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && stage.classList.contains("measuring")) start = placeOn(film, event);
  });
  stage.addEventListener("pointermove", (event) => {
    const end = start && placeOn(film, event);
    if (!end) return;
    const length = Math.hypot((end[0] - start[0]) * millimetres[0], (end[1] - start[1]) * millimetres[1]);
    const [x1, y1, x2, y2] = [...start, ...end].map((share) => `${100 * share}%`);
    for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) line.setAttribute(name, value);
    words.setAttribute("x", x2);
    words.setAttribute("y", y2);
    words.textContent = `${length.toFixed(1)} mm`;
    drawing.removeAttribute("hidden");
  });
  stage.addEventListener("pointerup", () => { start = null; });
  return (known) => { // a new clip: its width and height in mm, or null
    millimetres = known;
    button.disabled = !known;
    button.title = known ? "Drag on the slice to measure" : "This file gives no pixel spacing, so nothing can be measured";
    set(false);
  };
}
