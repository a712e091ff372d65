// Files on their way to the server. Their names stay in the browser, because a name is often a patient's: the server
// gets made-up ones, and the rail asks this map for the true ones.
const ownNames = (window.ownNames ??= new Map());
const ENDING = /(\.(dcm|ima|nii|hdr|img|mhd|mha|z?raw|nrrd|nhdr|npy|zip|png|jpe?g|tiff?|webp|bmp|gif|jp2|mp4|m4v|mov|avi|mkv|webm|mpe?g|ts))?(\.gz)?$/i;
const MOST_AT_ONCE = 500; // files of one request; Gradio takes 1000
let kinds = 0;

function letters(number) { // 0 is "a", 26 is "ba": no digits, which tell the files of a row apart
  return (number >= 26 ? letters(Math.floor(number / 26)) : "") + String.fromCharCode(97 + (number % 26));
}

// The same files under made-up names, in the order of their own. The server takes pictures named alike but for a number
// for the frames of a video, and tells a header whose voxels have another name, so what is named alike stays so.
function disguised(files) {
  const rows = new Map();
  const inOrder = files.toSorted((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  return inOrder.map((file) => {
    const { 0: ending, index } = ENDING.exec(file.name), stem = file.name.slice(0, index);
    const alike = stem.replace(/\d+/g, "#");
    if (!rows.has(alike)) rows.set(alike, { kind: letters(kinds++), count: 0, names: new Map(), given: new Set() });
    const row = rows.get(alike);
    const next = () => `upload-${row.kind}-${String(++row.count).padStart(5, "0")}`;
    if (!row.names.has(stem) || row.given.has(row.names.get(stem) + ending.toLowerCase())) row.names.set(stem, next());
    const name = row.names.get(stem) + ending.toLowerCase();
    row.given.add(name);
    ownNames.set(name, file.name);
    return new File([file], name, { type: file.type });
  });
}

// Sends one request's files to the address that Gradio has for uploads; resolves to their paths on the server. Gradio's
// own upload uses fetch, which does not tell how much is sent.
function send(files, progress) {
  const { root, api_prefix } = window.gradio_config, form = new FormData(), request = new XMLHttpRequest();
  for (const file of files) form.append("files", file);
  return new Promise((done, fail) => {
    request.upload.addEventListener("progress", ({ loaded }) => progress(loaded));
    request.addEventListener("load", () => {
      if (request.status === 200) return done(JSON.parse(request.responseText));
      fail(new Error(request.status === 413 ? "a file is larger than this server takes." : "the server refused the files."));
    });
    request.addEventListener("error", () => fail(new Error("the connection to the server was lost.")));
    request.open("POST", `${root}${api_prefix}/upload`);
    request.send(form);
  });
}

// Sends files; calls show(percent, words) meanwhile. Resolves to their paths on the server.
async function sendAll(chosen, show) {
  const files = disguised(chosen), total = Math.max(files.reduce((sum, { size }) => sum + size, 0), 1);
  if (files.some(({ size }) => size > (window.gradio_config.max_file_size ?? Infinity))) throw new Error("a file is larger than this server takes.");
  const words = files.length > 1 ? `${files.length} files` : chosen[0].name, paths = [];
  let before = 0;
  const progress = (loaded) => show(Math.min(Math.round((100 * (before + loaded)) / total), 100), words);
  progress(0);
  for (let start = 0; start < files.length; start += MOST_AT_ONCE) {
    const some = files.slice(start, start + MOST_AT_ONCE);
    paths.push(...await send(some, progress));
    before += some.reduce((sum, { size }) => sum + size, 0);
  }
  return paths;
}
