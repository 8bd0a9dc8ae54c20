// Values that do not exist (no data-value, or an empty one) stay at the end in both directions.
function compare(a, b, isText, descending) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const order = isText ? inOrder(a, b) : Number(a) - Number(b);
  return descending ? -order : order;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const value = row => row.cells[column].dataset.value;
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), head.classList.contains("text"), descending)));
  }));
}
const model = document.getElementById("model"), search = document.getElementById("search");
function choose() {
  const part = letters(search.value.trim());
  for (const element of document.querySelectorAll("[data-case]")) {
    const named = letters(element.dataset.case).includes(part);
    const chosen = !model || model.value === "" || !("model" in element.dataset) || element.dataset.model === model.value;
    element.hidden = !(named && chosen);
  }
}
for (const control of [model, search]) {
  if (control) control.addEventListener("input", choose);
}
if (search) choose();
for (const image of document.querySelectorAll("figure img")) {
  image.addEventListener("click", () => image.parentElement.classList.toggle("large"));
}
