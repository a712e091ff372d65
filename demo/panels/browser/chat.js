// The buttons of answers: Gradio's chat shows them as HTML, and this component tells Python which was pressed.
function chat() {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("#chat .tools button");
    if (!button) return;
    const exchange = Number(button.className.match(/exchange-(\d+)/)[1]);
    button.disabled = true; // until the answer's card is drawn again
    setTimeout(() => { button.disabled = false; }, 4000);
    if (button.classList.contains("compare")) trigger("compare", { exchange });
    else trigger("look", { exchange });
  });
}
