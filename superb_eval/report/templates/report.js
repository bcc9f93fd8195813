"use strict";
// Sorting: a column's button sorts the rows of each body by `data-sort`; gaps stay last either way.
document.querySelectorAll("button.sort").forEach((button) => {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const now = heading.getAttribute("aria-sort");
    const next = now === "none" ? button.dataset.first : now === "ascending" ? "descending" : "ascending";
    heading.parentElement.querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", next);
    const place = Number(button.dataset.place);
    const sign = next === "ascending" ? 1 : -1;
    const key = (row) => row.children[place].dataset.sort;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (place === 0 ? x.localeCompare(y) : Number(x) - Number(y));
    };
    for (const body of heading.closest("table").tBodies) {
      body.append(...Array.from(body.rows).sort(compare));
    }
  });
});
// Provenance: opens next to its figure, on a press or on hover.
document.querySelectorAll("button.value").forEach((button) => {
  const card = document.getElementById(button.getAttribute("popovertarget"));
  let wait = 0;
  let pressed = false;
  card.addEventListener("toggle", (event) => {
    if (event.newState !== "open") {
      pressed = false;
      return;
    }
    const at = button.getBoundingClientRect();
    const space = document.documentElement.clientWidth - card.offsetWidth - 8;
    const below = at.bottom + card.offsetHeight + 8 < window.innerHeight;
    card.style.left = `${Math.max(8, Math.min(at.left, space))}px`;
    card.style.top = `${below ? at.bottom + 4 : Math.max(8, at.top - card.offsetHeight - 4)}px`;
  });
  button.addEventListener("click", () => { pressed = true; });
  button.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse") wait = setTimeout(() => card.showPopover(), 350);
  });
  button.addEventListener("pointerleave", () => {
    clearTimeout(wait);
    if (!pressed) card.hidePopover();
  });
});
// Print unfolds what is folded.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details.task:not([open])"));
  folded.forEach((details) => { details.open = true; });
});
window.addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
