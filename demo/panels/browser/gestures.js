// Zoom and pan of the film in its stage (ctrl-wheel, pinch, drag, double-click), and right-drag for width and level.

function zoomable(stage, film, drawn) {
  let scale = 1, x = 0, y = 0; // of the film, relative to its place
  const fingers = new Map();

  function apply() {
    if (scale <= 1) [scale, x, y] = [1, 0, 0];
    film.style.transform = scale === 1 ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
    stage.classList.toggle("zoomed", scale > 1);
    drawn();
  }

  function zoom(factor, clientX, clientY) { // the point under the pointer stays
    const box = film.getBoundingClientRect(), next = Math.max(1, Math.min(scale * factor, 12));
    const dx = clientX - (box.left + box.width / 2), dy = clientY - (box.top + box.height / 2);
    x -= dx * (next / scale - 1);
    y -= dy * (next / scale - 1);
    scale = next;
    apply();
  }

  const spread = () => {
    const [one, two] = [...fingers.values()];
    return { size: Math.hypot(one.x - two.x, one.y - two.y), x: (one.x + two.x) / 2, y: (one.y + two.y) / 2 };
  };

  stage.addEventListener("pointerdown", (event) => fingers.set(event.pointerId, { x: event.clientX, y: event.clientY }));
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const old = fingers.size === 2 ? spread() : null;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (old) {
      const now = spread();
      zoom(now.size / (old.size || 1), now.x, now.y);
    } else if (scale > 1 && event.buttons === 1 && event.target.name !== "wipe" && !stage.classList.contains("measuring")) {
      [x, y] = [x + event.clientX - before.x, y + event.clientY - before.y];
      apply();
    }
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
    stage.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
  stage.addEventListener("dblclick", () => { scale = 1; apply(); });
  return { zoom, reset() { scale = 1; apply(); } };
}

// Calls change(dx, dy) while the right button drags over the stage, and done() when it is released.
function rightDrag(stage, change, done) {
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons === 2) change(event.movementX, event.movementY);
  });
  stage.addEventListener("pointerup", (event) => { if (event.button === 2) done(); });
}
