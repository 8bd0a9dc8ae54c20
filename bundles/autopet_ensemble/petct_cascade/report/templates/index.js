const PAGE = 100;
const model = document.getElementById("model"), search = document.getElementById("search");

// Values that do not exist are null, and stay at the end in both directions.
function compare(a, b, descending) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" && typeof b === "number" ? a - b : inOrder(String(a), String(b));
  return descending ? -order : order;
}

function addressOf(study) {
  return `studies/${encodeURIComponent(study)}.html`;
}

function linkTo(study) {
  const link = document.createElement("a");
  link.href = addressOf(study);
  return link;
}

class Paged {
  constructor(element, shown) {
    this.rows = JSON.parse(element.querySelector("script").textContent);
    this.heads = [...element.querySelectorAll("th")];
    this.keys = this.heads.map(head => head.dataset.key);
    this.body = element.querySelector("tbody");
    this.status = element.querySelector("[role=status]");
    this.buttons = { back: element.querySelector(".back"), on: element.querySelector(".on") };
    this.shown = shown;
    this.start = 0;
    this.buttons.back.addEventListener("click", () => this.turn(-PAGE));
    this.buttons.on.addEventListener("click", () => this.turn(PAGE));
    this.heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => this.sort(column)));
    this.filter();
  }

  sort(column) {
    const descending = this.heads[column].getAttribute("aria-sort") === "ascending";
    for (const head of this.heads) head.removeAttribute("aria-sort");
    this.heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    this.rows.sort((a, b) => compare(a[column], b[column], descending));
    this.filter();
  }

  filter() {
    const part = letters(search.value.trim()), chosen = model ? model.value : "";
    const study = this.keys.indexOf("case"), by = this.keys.indexOf("model"), texts = this.keys.flatMap((key, column) => key === "case" || key === "tracer" || key === "centre" ? [column] : []);
    this.found = this.rows.filter(row => texts.some(column => letters(String(row[column])).includes(part)) && (by < 0 || chosen === "" || row[by] === chosen));
    this.start = 0;
    this.show();
  }

  turn(step) {
    this.start += step;
    this.show();
  }

  show() {
    const page = this.found.slice(this.start, this.start + PAGE);
    this.body.replaceChildren(...page.map(row => this.line(row)));
    const many = number => number.toLocaleString("en");
    this.status.textContent = page.length ? `${many(this.start + 1)} to ${many(this.start + page.length)} of ${many(this.found.length)}` : "nothing found";
    this.buttons.back.disabled = this.start === 0;
    this.buttons.on.disabled = this.start + PAGE >= this.found.length;
    if (this.shown) this.shown(page.map(row => row[this.keys.indexOf("case")]));
  }

  line(row) {
    const line = document.createElement("tr");
    line.append(...row.map((value, column) => {
      const cell = document.createElement("td"), decimals = this.heads[column].dataset.decimals;
      if (decimals === undefined) cell.className = this.keys[column] === "case" ? "text name" : "text";
      const text = value === null ? "–" : decimals === undefined ? value : value.toFixed(decimals);
      if (this.keys[column] === "case" && withPages.has(value)) {
        const link = linkTo(value);
        link.textContent = text;
        cell.append(link);
      } else {
        cell.textContent = text;
      }
      return cell;
    }));
    return line;
  }
}

function showPictures(studies) {
  document.getElementById("gallery").replaceChildren(...studies.map(study => {
    const link = linkTo(study), image = document.createElement("img"), name = document.createElement("span");
    image.loading = "lazy";
    image.src = `pictures/${encodeURIComponent(study)}.png`;
    image.alt = `PET projections and lesions of ${study}`;
    name.textContent = study;
    link.append(image, name);
    return link;
  }));
}

const readouts = document.getElementById("readouts");
// Of studies that were read out there are pages and pictures.
const withPages = new Set(readouts ? JSON.parse(readouts.querySelector("script").textContent).map(row => row[0]) : []);
const tables = [...document.querySelectorAll(".paged")].map(element => new Paged(element, element.id === "readouts" ? showPictures : null));
for (const control of [model, search]) {
  if (control) control.addEventListener("input", () => tables.forEach(table => table.filter()));
}
