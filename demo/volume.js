// Hands the volume and its kept tokens to NiiVue, which is fetched when they come for the first time.
const part = (selector) => element.querySelector(selector);
const KEPT_TOKENS = { R: [0, 0, 45], G: [0, 0, 212], B: [0, 0, 191], A: [0, 0, 255], I: [0, 128, 255] };
let viewer = null, background = null, pending = null, last = Promise.resolve();

function library(address) {
  return new Promise((resolve, reject) => {
    if (window.niivue) return resolve(window.niivue);
    const script = Object.assign(document.createElement("script"), { src: address, onerror: reject });
    script.onload = () => resolve(window.niivue);
    document.head.append(script);
  });
}

async function show() {
  const { value, mask } = props, loaded = Boolean(value && mask);
  for (const name of [".space", ".opacity", ".caption"]) part(name).hidden = !loaded;
  part(".hint").hidden = loaded;
  if (!loaded) return;
  const { Niivue, NVImage } = await library(value.niivue.url);
  if (!viewer) {
    viewer = new Niivue({ isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairColor: [0.96, 0.62, 0.04, 1] });
    await viewer.attachToCanvas(part("canvas"));
    viewer.addColormap("kept_tokens", KEPT_TOKENS);
    viewer.setSliceType(viewer.sliceTypeMultiplanar);
  }
  if (value.background !== background) {
    for (const image of [...viewer.volumes]) viewer.removeVolume(image);
    viewer.addVolume(await NVImage.loadFromBase64({ base64: value.background, name: "volume.nii.gz" }));
    background = value.background;
  } else viewer.removeVolumeByIndex(1);
  viewer.addVolume(await NVImage.loadFromBase64({ base64: mask, name: "kept.nii.gz", colormap: "kept_tokens", cal_min: 0, cal_max: 2 }));
  fade();
  element.dataset.shown = Number(element.dataset.shown || 0) + 1;
}

function fade() {
  viewer.setOpacity(1, part(".opacity input").value / 100);
}

part(".opacity input").addEventListener("input", fade);
// Names without quotes, and one step for all messages of an update, as in viewer.js; a step waits for the one before.
watch(Object.keys({ value: 0, mask: 0 }), () => {
  clearTimeout(pending);
  pending = setTimeout(() => (last = last.then(show)));
});
