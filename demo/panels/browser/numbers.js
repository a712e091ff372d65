// What pruning saves: one line that opens into tiles and facts. Messages: `value`, the line, and `more`, as HTML.
function numbers() {
  follow({ value: "", more: "" }, ({ value, more }) => {
    part(".numbers").hidden = !value;
    part("summary").textContent = value;
    part(".more").innerHTML = more;
  });
}
