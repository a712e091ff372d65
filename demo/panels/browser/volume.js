// Planes and 3D of a volume in NiiVue; volume_view.py documents the messages in `props`.
function volume() {
  let viewer = null, background = null, space = null, point = null, last = Promise.resolve();
  const fade = () => viewer.setOpacity(1, part(".opacity input").value / 100);

  function tell(problem) { // "" if there is a volume to see
    part(".volume").dataset.loaded = !problem;
    part(".hint").textContent = problem;
  }

  function moveCrosshair() {
    if (!viewer?.volumes.length || !space || !point) return;
    const [x, y, z] = viewer.mm2frac(space.millimetres(point));
    viewer.scene.crosshairPos = [x, y, z];
    viewer.drawScene();
    Object.assign(element.dataset, { slice: point.slice });
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
      made.onLocationChange = ({ mm }) => { if (space) tellCrosshair("space", point = space.point([...mm])); };
      viewer = made;
    }
    const kept = value.background === background ? 1 : 0; // the volume stays if only the mask changed
    background = value.background;
    space = null; // until the new volume is there
    for (const image of viewer.volumes.slice(kept)) viewer.removeVolume(image);
    if (!kept) viewer.addVolume(await load({ base64: background, name: "volume.nii.gz" }));
    viewer.addVolume(await load({ base64: mask, name: "tokens.nii.gz", colormap: "tokens", cal_min: 0, cal_max: 2 }));
    fade();
    space = spaceOf(value.space);
    moveCrosshair();
    element.dataset.shown = Number(element.dataset.shown ?? 0) + 1;
  }

  function fail(error) { // the next volume starts afresh
    background = null;
    tell("This browser could not draw the volume: planes and 3D need WebGL 2. The slices are shown all the same.");
    console.error(error);
  }

  hearCrosshair("space", (told) => {
    point = told;
    moveCrosshair();
  });
  part(".opacity input").addEventListener("input", fade);
  follow({ value: null, mask: null }, (messages) => { // one after the other
    last = last.then(() => show(messages)).catch(fail);
  });
}
