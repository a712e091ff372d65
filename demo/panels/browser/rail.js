// The rail of loaded files, with their own names, which only the browser knows; rail.py documents the message.
function rail() {
  function tile(file, shown) {
    const made = document.createElement("div");
    made.className = "tile";
    const name = [window.ownNames?.get(file.upload), file.more && `and ${file.more} more`].filter(Boolean).join(" ");
    const words = [file.label, name].filter(Boolean).join(" · ");
    made.innerHTML = `<label><input type="radio" name="file" /><img alt="" /><span></span><em></em></label>
      <button type="button" class="remove" title="Remove this file">✕</button>`;
    const [input, remove] = [made.querySelector("input"), made.querySelector("button")];
    Object.assign(input, { value: file.number, checked: file.number === shown, ariaLabel: words });
    made.querySelector("img").src = file.picture;
    made.querySelector("label").title = words;
    made.querySelector("span").textContent = file.short;
    made.querySelector("em").textContent = name;
    Object.assign(remove, { hidden: !file.removable, ariaLabel: `Remove ${file.label}` });
    input.addEventListener("change", () => trigger("choose", { number: file.number }));
    remove.addEventListener("click", () => trigger("remove", { number: file.number }));
    return made;
  }

  follow({ value: null }, ({ value }) => {
    part(".files").replaceChildren(...value.files.map((file) => tile(file, value.shown)));
  });
}
