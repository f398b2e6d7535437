// The table of all observations: sorted by a click on a heading, searched, and narrowed by the filters of the map.
const tableBody = document.querySelector("#heads tbody");
const tableCount = document.getElementById("table-count");
const moreRows = document.getElementById("more-rows");
const PAGE = innerWidth < 760 ? 12 : 25;
let limit = PAGE;

function matches(seen, words) {
  const text = `${seen.key} l${seen.layer}h${seen.head} ${typeName(seen.type)} ${seen.type} ${seen.detector.name} ${stageOf[seen.stage].name} ${seen.shown}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function sortedRows() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = data.seen.filter((seen) => passes(seen) && matches(seen, words));
  const missing = (seen) => (state.sort in seen && seen[state.sort] === null ? 1 : 0);
  return rows.sort((a, b) => missing(a) - missing(b) || (state.up ? -1 : 1) * SORTS[state.sort](a, b) || SORTS.head(a, b));
}

function tableRow(seen) {
  const { low, high } = extents[seen.d];
  const css = { "--from": "0%", "--to": `${percent(seen.score ?? 0, low, high)}%`, "--chance": `${percent(seen.chance ?? 0, low, high)}%` };
  const chosen = state.head && headKey(state.head.stack, state.head.layer, state.head.head) === seen.key;
  return el("tr", { class: chosen ? "chosen" : "" },
    el("th", { scope: "row" }, headButton(seen)),
    el("td", { class: "type" }, el("span", { class: `glyph stage-${seen.stage}`, "aria-hidden": "true", text: stageOf[seen.stage].filled }),
      el("span", { text: typeName(seen.type) }), el("span", { class: "soft", text: seen.detector.name })),
    el("td", { class: "stage-name", text: stageOf[seen.stage].name }),
    el("td", { class: "n score" }, el("b", { text: number(seen.score) }), el("span", { class: "soft", text: interval(seen.low, seen.high) }),
      el("span", { class: `minibar fill-${seen.stage}`, "aria-hidden": "true", css })),
    el("td", { class: "n", text: number(seen.chance) }),
    el("td", { class: "n", text: probability(seen.q) }),
    el("td", {}, verdictBadge(seen)),
    el("td", { class: "n" }, el("b", { text: seen.effect === null ? "–" : signed(seen.effect) }), el("span", { class: "soft", text: interval(seen.effect_low, seen.effect_high) })),
    el("td", { class: "n", text: number(seen.random_effect) }));
}

// How many heads a list of observations is about: a head that several detectors observe counts once.
function headsOf(list) {
  return plural(new Set(list.map((seen) => seen.key)).size, "head", "heads");
}

function drawTable() {
  const rows = sortedRows();
  const shown = rows.slice(0, limit);
  tableBody.replaceChildren(...shown.map(tableRow));
  tableCount.textContent = rows.length ? `${headsOf(rows)} of ${headsOf(data.seen)}, a row for each detector`
    : data.seen.length ? "No head fits the search and the filters." : "No head was observed.";
  moreRows.hidden = shown.length === rows.length;
  moreRows.textContent = `Show ${Math.min(PAGE * 4, rows.length - shown.length)} more`;
  for (const heading of document.querySelectorAll("#heads th[data-sort]")) {
    const own = heading.dataset.sort === state.sort;
    heading.setAttribute("aria-sort", own ? (heading.dataset.falling !== undefined) !== state.up ? "descending" : "ascending" : "none");
  }
}

for (const heading of document.querySelectorAll("#heads th[data-sort]")) {
  heading.querySelector("button").addEventListener("click", () => {
    const name = heading.dataset.sort;
    set({ sort: name, up: state.sort === name ? !state.up : false });
  });
}
moreRows.addEventListener("click", () => {
  limit += PAGE * 4;
  drawTable();
});
const search = document.getElementById("search");
search.addEventListener("input", () => {
  limit = PAGE;
  set({ q: search.value });
});
watch(["head", "stage", "verdict", "type", "q", "sort", "up"], drawTable);
