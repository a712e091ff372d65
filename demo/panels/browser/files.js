// The box that takes files: chosen in it, or dropped or pasted anywhere on the page. files_box.py documents its event.
function files() {
  const bar = document.querySelector("#top .sending"), problem = document.querySelector("#top .problem");

  function show(percent, words) { // how far an upload is; null when there is none
    bar.hidden = percent === null;
    if (percent === null) return;
    bar.ariaValueNow = percent;
    bar.style.setProperty("--sent", `${percent}%`);
    bar.textContent = `${percent} % uploaded: ${words}`; // a phone has room for the beginning
  }

  let last = Promise.resolve();
  function take(list) { // one upload after the other
    const chosen = [...list]; // the browser empties its list
    last = last.then(async () => {
      problem.textContent = "";
      try {
        trigger("sent", { files: await sendAll(chosen, show) });
      } catch (error) {
        problem.textContent = `Not uploaded: ${error.message}`;
      }
      show(null);
    });
  }

  part("input").addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  for (const [kind, source] of [["drop", "dataTransfer"], ["paste", "clipboardData"]]) {
    document.addEventListener(kind, (event) => {
      if (!event[source]?.files.length) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      take(event[source].files);
    }, true);
  }
}
