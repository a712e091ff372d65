// Files on their way to the server. Their names stay in the browser, because a name is often a patient's: the server
// gets made-up ones, and the rail asks this map for the true ones.
const ownNames = (window.ownNames ??= new Map());
const ENDING = /(\.(dcm|ima|nii|hdr|img|mhd|mha|raw|nrrd|nhdr|npy|zip|png|jpe?g|tiff?|webp|bmp|gif|jp2|mp4|m4v|mov|avi|mkv|webm|mpe?g|ts))?(\.gz)?$/i;
const fileInput = () => document.querySelector("#files input[type=file]");
let kinds = 0, sending = [], watching = null;

function letters(number) { // 0 is "a", 26 is "ba": no digits, which tell the files of a row apart
  return (number >= 26 ? letters(Math.floor(number / 26)) : "") + String.fromCharCode(97 + (number % 26));
}

// The same files under made-up names, in the order of their own. The server takes pictures named alike but for a number
// for the frames of a video, so what is named alike stays so.
function disguised(files) {
  const rows = new Map();
  const inOrder = [...files].sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  return inOrder.map((file) => {
    const alike = file.name.replace(/\d+/g, "#");
    if (!rows.has(alike)) rows.set(alike, { kind: letters(kinds++), count: 0 });
    const row = rows.get(alike);
    const name = `upload-${row.kind}-${String(++row.count).padStart(5, "0")}${ENDING.exec(file.name)[0].toLowerCase()}`;
    ownNames.set(name, file.name);
    return new File([file], name, { type: file.type });
  });
}

// Hands files to Gradio's own upload, so that its limits hold for them; show(percent, words) follows them.
function upload(files, show) {
  if (!fileInput() || !files.length) return;
  watching ??= watchUploads(document.querySelector("#shelf"), show);
  const chosen = new DataTransfer();
  sending = disguised(files);
  for (const file of sending) chosen.items.add(file);
  fileInput().files = chosen.files;
  fileInput().dispatchEvent(new Event("change", { bubbles: true }));
}

// Takes the files that are chosen in Gradio's own box, or dropped or pasted anywhere on the page.
function takeFiles(show) {
  document.addEventListener("change", (event) => { // before Gradio sees them
    const { target } = event;
    if (target !== fileInput() || [...target.files].every(({ name }) => ownNames.has(name))) return;
    event.stopImmediatePropagation();
    upload(target.files, show);
  }, true);
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true })); // Gradio's box stops looking aimed at
    upload(event.dataTransfer.files, show);
  }, true);
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    upload(event.clipboardData.files, show);
  });
}

// Calls show(percent, words) while files are sent, and show(null) afterwards. Gradio tells which file it has come to, and
// how far; the shares of the others follow from their sizes.
function watchUploads(box, show) {
  const observer = new MutationObserver(() => {
    const bar = box.querySelector("progress"), name = box.querySelector(".file-name")?.textContent.trim();
    const place = sending.findIndex((file) => file.name === name);
    if (!bar || place < 0) return show(null);
    const sizes = sending.map(({ size }) => size), sum = (numbers) => numbers.reduce((one, other) => one + other, 0);
    const sent = sum(sizes.slice(0, place)) + (sizes[place] * bar.value) / 100;
    const percent = Math.min(Math.round((100 * sent) / Math.max(sum(sizes), 1)), 100);
    show(percent, sending.length > 1 ? `${sending.length} files` : ownNames.get(name));
  });
  observer.observe(box, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["value"] });
  return observer;
}
