// The words of the conversation, kept in this tab alone, so that loading the page again does not lose them. The server
// sends them as JSON after every change (chat.py), "null" for a new conversation.
function earlier() {
  const KEY = "omniv-med conversation", MOST = 50; // exchanges
  let before = read();

  function read() {
    try {
      return JSON.parse(sessionStorage.getItem(KEY)) ?? [];
    } catch { // not ours, or the browser keeps nothing
      return [];
    }
  }

  function keep(exchanges) {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(exchanges.slice(-MOST)));
    } catch { /* the browser keeps nothing, so nothing comes back */ }
  }

  function paragraph(kind, words, detail) {
    const made = document.createElement("p");
    made.className = kind;
    made.append(words);
    if (detail) made.append(" ", Object.assign(document.createElement("small"), { textContent: detail }));
    return made;
  }

  function show() {
    part(".earlier").hidden = before.length === 0;
    part(".words").replaceChildren(...before.flatMap(({ question, files, answers }) => [
      paragraph("asked", question, files), ...answers.map(({ text, detail }) => paragraph("said", text, detail)),
    ]));
  }

  function forget() {
    before = [];
    keep(before);
    show();
  }

  part(".forget").addEventListener("click", forget);
  follow({ value: "[]" }, ({ value }) => {
    const now = JSON.parse(value);
    if (now === null) forget();
    else keep([...before, ...now]);
  });
  show();
}
