// Shared by the page's own gr.HTML components. Gradio runs a component's code in a function with `element`, `props`,
// `trigger` and `watch`; Python (components.py) puts the files of a component together and appends the call.
const part = (selector) => element.querySelector(selector);

function follow(messages, update) { // updates `messages` and calls update(messages) when there are new ones
  let pending = null;
  watch(Object.keys(messages), () => {
    clearTimeout(pending); // the messages of one update come one after the other
    pending = setTimeout(() => {
      for (const name in messages) if (props[name] !== undefined) messages[name] = props[name];
      update(messages);
    });
  });
}
