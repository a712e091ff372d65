// The page's head: settings and the description of the API.

// Opens Gradio's description of the API. Its footer, which our style sheet hides, has the button; an address with
// ?view=api means that it is open, but Gradio 6.31 shows it only after a click.
async function openApi() {
  const button = () => document.querySelector("footer .show-api");
  for (let tries = 0; tries < 100 && !button(); tries++) await new Promise((done) => setTimeout(done, 100));
  if (new URLSearchParams(location.search).get("view") === "api") button()?.click(); // the first click closes what is not there
  button()?.click();
}

function toggleSettings() {
  const drawer = document.querySelector("#settings"), button = drawer.querySelector(".toggle-button");
  button.click();
  setTimeout(() => { if (drawer.classList.contains("open")) button.focus(); }); // for who uses the keyboard
}

function header() {
  document.body.dataset.scan ??= "none";
  part(".api").addEventListener("click", openApi);
  part(".open-settings").addEventListener("click", toggleSettings);
  if (new URLSearchParams(location.search).get("view") === "api") openApi();
}
