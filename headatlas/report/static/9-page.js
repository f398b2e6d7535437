// Filters, colours, thumbnails, theme; then the first drawing.
const filterCount = document.getElementById("filter-count");
const typeFilter = document.getElementById("type-filter");
const colourBy = document.getElementById("colour-by");
const heatLegend = document.getElementById("heat-legend");
const themeButton = document.getElementById("theme");

for (const button of document.querySelectorAll("button[data-filter]")) {
  button.addEventListener("click", () => toggle(button.dataset.filter, button.dataset.value));
}
typeFilter.addEventListener("change", () => set({ type: typeFilter.value }));
colourBy.addEventListener("change", () => set({ by: colourBy.value }));
document.getElementById("reset").addEventListener("click", () => set({ stage: new Set(), verdict: new Set(), type: "", by: "", q: "" }));

function drawControls() {
  for (const button of document.querySelectorAll("button[data-filter]")) {
    const chosen = state[button.dataset.filter];
    button.setAttribute("aria-pressed", String(chosen.has(button.dataset.value)));
    button.classList.toggle("dim", chosen.size > 0 && !chosen.has(button.dataset.value));
  }
  typeFilter.value = state.type;
  colourBy.value = state.by;
  if (search.value !== state.q) search.value = state.q;
  filterCount.textContent = headsOf(data.seen.filter(passes));
  document.getElementById("reset").disabled = !filtered() && !state.by && !state.q;
  drawHeatLegend();
}

function drawHeatLegend() {
  const detector = data.detectors.find((item) => item.name === state.by);
  heatLegend.hidden = !detector;
  if (!detector) return;
  const { reach, chance } = extents[indexOf.get(detector)];
  const negative = detector.scores.some((row) => row.some((value) => value !== null && heatStep(value, reach) < 0));
  const steps = [];
  for (let index = negative ? -STEPS : 0; index <= STEPS; index += 1) steps.push(svg("rect", { class: `heat-${index}`, x: steps.length * 12, y: 0, width: 12, height: 12 }));
  heatLegend.replaceChildren(el("span", { text: number(negative ? -reach : 0) }),
    svg("svg", { width: steps.length * 12, height: 12, "aria-hidden": "true" }, ...steps), el("span", { text: number(reach) }),
    el("span", { class: "soft", text: `score of ${detector.name}; chance is ${number(chance)} on average; bars: best score of the layer` }));
}

// A small picture of each detector's scores; the commonest colour is one rectangle, the rest one path a colour.
function thumbnail(detector) {
  const stack = data.stacks.find((item) => item.name === detector.stack);
  const { reach } = extents[indexOf.get(detector)];
  const wide = Math.max(1, stack.exists.length);
  const tall = Math.max(1, ...stack.exists.map((row) => row.length));
  const fills = {};
  const counts = {};
  stack.exists.forEach((row, layer) => [...row].forEach((there, head) => {
    if (there !== "1") return;
    const value = scoreAt(detector, layer, head);
    const name = value === null ? "absent" : `heat-${heatStep(value, reach)}`;
    fills[name] = (fills[name] || "") + `M${layer} ${head}h1v1h-1z`;
    counts[name] = (counts[name] || 0) + 1;
  }));
  const common = Object.keys(counts).sort((a, b) => counts[b] - counts[a])[0] || "absent";
  const paths = Object.entries(fills).filter(([name]) => name !== common).map(([name, d]) => svg("path", { class: name, d }));
  return svg("svg", { viewBox: `0 0 ${wide} ${tall}`, preserveAspectRatio: "none", "aria-hidden": "true", "shape-rendering": "crispEdges" },
    svg("rect", { class: common, width: wide, height: tall }), ...paths);
}

for (const holder of document.querySelectorAll("[data-thumbnail]")) {
  const detector = data.detectors[Number(holder.dataset.thumbnail)];
  holder.prepend(thumbnail(detector));
  holder.addEventListener("click", () => {
    set({ by: detector.name });
    document.getElementById("map-section").scrollIntoView({ block: "start" });
    mapBox.focus();
  });
}
for (const button of document.querySelectorAll("button[data-head]")) {
  button.addEventListener("click", () => {
    const place = parseHead(button.dataset.head);
    document.getElementById("map-section").scrollIntoView({ block: "start" });
    choose(place, true);
  });
}

const THEMES = { "": "as the system", light: "light", dark: "dark" };
function drawTheme() {
  document.documentElement.dataset.theme = state.theme;
  themeButton.querySelector("span").textContent = THEMES[state.theme];
}
themeButton.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  set({ theme: names[(names.indexOf(state.theme) + 1) % names.length] });
});

// Links to sections keep the chosen view in the address.
for (const anchor of document.querySelectorAll("nav a")) {
  anchor.addEventListener("click", (event) => {
    event.preventDefault();
    const section = document.querySelector(anchor.getAttribute("href"));
    section.scrollIntoView({ block: "start" });
    section.querySelector("h2").focus({ preventScroll: true });
  });
}

watch(["stage", "verdict", "type", "by", "q"], drawControls);
watch(["theme"], drawTheme);

function drawAll() {
  readAddress();
  for (const draw of [drawTheme, drawControls, drawMap, drawCard, drawTable]) draw();
  writeAddress();
}

addEventListener("hashchange", drawAll);
addEventListener("beforeprint", () => {
  limit = Infinity;
  drawTable();
});
let mapWidth = 0;
new ResizeObserver(() => {
  if (mapBox.clientWidth === mapWidth) return;
  mapWidth = mapBox.clientWidth;
  drawMap();
}).observe(mapBox);
drawAll();
if (state.head) bringIntoView(); // an address such as #head=18.6 opens at the card
