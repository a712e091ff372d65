// The cards of the examples (example_cards.py).
function cards() {
  element.addEventListener("click", ({ target }) => {
    const card = target.closest(".card");
    if (card) trigger("pick", { index: Number(card.dataset.index) });
  });
}
