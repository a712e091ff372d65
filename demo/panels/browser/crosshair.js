// The crosshair that the slices share with planes and 3D: a slice, and shares x and y of its width and height. Each side
// tells the other by an event of the document, which says `from` whom it comes. Gradio makes planes and 3D only when
// their tab is opened, so the latest point stays in the window.
const CROSSHAIR = "omniv-med crosshair";

function tellCrosshair(from, point) {
  window.crosshair = { ...point, from };
  document.dispatchEvent(new CustomEvent(CROSSHAIR, { detail: window.crosshair }));
}

function hearCrosshair(me, take) {
  if (window.crosshair && window.crosshair.from !== me) take(window.crosshair);
  document.addEventListener(CROSSHAIR, ({ detail }) => { if (detail.from !== me) take(detail); });
}

// Translates such points to NiiVue's millimetres and back. `places` has the millimetres of the slices, `directions` the
// unit vectors along slices, rows and columns, `size` the height and width of a slice in millimetres.
function spaceOf({ places, directions, size: [height, width] }) {
  const depths = places.split(" ").map(Number), axes = [0, 1, 2];
  const nearest = (depth) => depths.reduce((best, each, index) => Math.abs(each - depth) < Math.abs(depths[best] - depth) ? index : best, 0);
  return {
    millimetres({ slice, x, y }) {
      const steps = [depths[slice], (y - 0.5) * height, (x - 0.5) * width];
      return axes.map((axis) => directions.reduce((sum, direction, index) => sum + direction[axis] * steps[index], 0));
    },
    point(millimetres) {
      const [depth, down, right] = directions.map((direction) => axes.reduce((sum, axis) => sum + direction[axis] * millimetres[axis], 0));
      return { slice: nearest(depth), x: right / width + 0.5, y: down / height + 0.5 };
    },
  };
}
