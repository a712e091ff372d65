// The page's head: settings, the description of the API, and files that are dropped or pasted anywhere on the page.

// Opens Gradio's description of the API. Its footer, which our style sheet hides, has the button; an address with
// ?view=api means that it is open, but Gradio 6.31 shows it only after a click.
async function openApi() {
  const button = () => document.querySelector("footer .show-api");
  for (let tries = 0; tries < 100 && !button(); tries++) await new Promise((done) => setTimeout(done, 100));
  if (new URLSearchParams(location.search).get("view") === "api") button()?.click(); // the first click closes what is not there
  button()?.click();
}

// Hands files to Gradio's own upload, so that its limits and its progress hold for them, too.
function upload(files) {
  const input = document.querySelector("#files input[type=file]");
  if (!input || !files.length) return;
  const chosen = new DataTransfer();
  for (const file of files) chosen.items.add(file);
  input.files = chosen.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

function header() {
  document.body.dataset.scan ??= "none";
  part(".api").addEventListener("click", openApi);
  part(".open-settings").addEventListener("click", () => document.querySelector("#settings .toggle-button").click());
  if (new URLSearchParams(location.search).get("view") === "api") openApi();

  const outside = ({ target }) => !target.closest?.("#files"); // there, Gradio takes them itself
  document.addEventListener("dragover", (event) => { if (outside(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length || !outside(event)) return;
    event.preventDefault();
    upload(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    upload(event.clipboardData.files);
  });
}
