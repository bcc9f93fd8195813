const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
const page = document.documentElement;

// Charts: each is drawn when it comes near the screen, in the colours of the style sheet.
const drawn = new Map();
const themed = (text) => {
  const style = getComputedStyle(page);
  const colour = (value) => style.getPropertyValue(value.slice(4, -1)).trim() || value;
  return JSON.parse(text, (_, value) => (/^var\(--[a-z0-9-]+\)$/.test(value) ? colour(value) : value));
};
const config = document.getElementById("chart-config").textContent;
const draw = async (figure) => {
  const place = figure.querySelector(".chart");
  drawn.get(figure)?.finalize();
  drawn.set(figure, null);
  const spec = themed(figure.querySelector(".spec").textContent);
  const result = await vegaEmbed(place, spec, {
    ast: true, renderer: "svg", mode: "vega-lite", defaultStyle: false, forceActionsMenu: true, config: themed(config),
    tooltip: { disableDefaultStyle: true }, downloadFileName: figure.id, i18n: { CLICK_TO_VIEW_ACTIONS: "Save this chart" },
    actions: { export: true, source: false, compiled: false, editor: false },
  });
  const drawing = place.querySelector("svg.marks");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", spec.description);
  drawn.set(figure, result);
  figure.classList.add("drawn");
};
const redraw = () => Promise.all(Array.from(drawn.keys(), draw));
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    near.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "400px" });
all("figure").forEach((figure) => near.observe(figure));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// Print unfolds what is folded, and draws every chart in the colours of paper.
let folded = [];
addEventListener("beforeprint", () => {
  page.classList.add("on-paper");
  folded = all("details.task:not([open])");
  folded.forEach((details) => { details.open = true; });
  all("figure").forEach((figure) => { near.unobserve(figure); draw(figure); });
});
addEventListener("afterprint", () => {
  page.classList.remove("on-paper");
  folded.forEach((details) => { details.open = false; });
  redraw();
});

// Sorting: a column's cells by `data-sort`, within each body; gaps stay last either way.
const sortRows = (table, place, direction) => {
  all("thead th", table).forEach((heading, k) => heading.setAttribute("aria-sort", k === place ? direction : "none"));
  const sign = direction === "ascending" ? 1 : -1;
  const key = (row) => row.children[place].dataset.sort;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (place === 0 ? x.localeCompare(y) : Number(x) - Number(y));
  };
  for (const body of table.tBodies) body.append(...Array.from(body.rows).sort(compare));
};
all("button.sort").forEach((button) => {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const now = heading.getAttribute("aria-sort");
    const next = now === "none" ? button.dataset.first : now === "ascending" ? "descending" : "ascending";
    sortRows(button.closest("table"), heading.cellIndex, next);
  });
});

// The table's tools: order (on a phone), intervals and columns.
all(".tools").forEach((tools) => {
  const table = document.getElementById(tools.dataset.table);
  tools.querySelector(".order").addEventListener("change", (event) => {
    const button = table.tHead.rows[0].cells[event.target.value].querySelector("button");
    sortRows(table, Number(event.target.value), button.dataset.first);
  });
  tools.querySelector(".intervals").addEventListener("change", (event) => {
    table.classList.toggle("with-intervals", event.target.checked);
  });
  all("input.column", tools).forEach((box) => box.addEventListener("change", () => {
    for (const row of table.rows) row.cells[box.value].hidden = !box.checked;
  }));
});

// Search: rows of tables and utterances that hold every word.
const search = document.getElementById("search");
const found = document.getElementById("found");
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (element) => words.every((word) => element.textContent.toLowerCase().includes(word));
  const rows = all("table.searched tbody tr");
  const utterances = all(".worst > li");
  [...rows, ...utterances].forEach((element) => { element.hidden = !holds(element); });
  all("details.task").forEach((details) => {
    const listed = all(".worst > li", details);
    if (words.length && listed.some((one) => !one.hidden)) details.open = true;
  });
  const count = (elements) => elements.filter((one) => !one.hidden).length;
  found.textContent = words.length ? `${count(rows)} rows, ${count(utterances)} utterances` : "";
});

// Popovers open next to their buttons; those of figures also where the mouse rests.
all("button[popovertarget]").forEach((button) => {
  const card = document.getElementById(button.getAttribute("popovertarget"));
  let wait = 0;
  let pressed = false;
  card.addEventListener("toggle", (event) => {
    if (event.newState !== "open") {
      pressed = false;
      return;
    }
    const at = button.getBoundingClientRect();
    const space = page.clientWidth - card.offsetWidth - 8;
    const below = at.bottom + card.offsetHeight + 8 < window.innerHeight;
    card.style.left = `${Math.max(8, Math.min(at.left, space))}px`;
    card.style.top = `${below ? at.bottom + 4 : Math.max(8, at.top - card.offsetHeight - 4)}px`;
  });
  button.addEventListener("click", () => { pressed = true; });
  if (!button.classList.contains("value")) return;
  button.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse") wait = setTimeout(() => card.showPopover(), 350);
  });
  button.addEventListener("pointerleave", () => {
    clearTimeout(wait);
    if (!pressed) card.hidePopover();
  });
});
