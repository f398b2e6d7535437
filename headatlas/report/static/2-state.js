// What the reader chose (head, filters, colours, sorting), kept in the address so that a view can be linked.
const state = { head: null, stage: new Set(), verdict: new Set(), type: "", by: "", q: "", sort: "verdict", up: false, theme: "" };
const listeners = [];
let written = "";

function readAddress() {
  const text = location.hash.slice(1);
  if (text && !text.includes("=")) return; // a plain link to a section
  const chosen = new URLSearchParams(text);
  const known = (name, allowed) => new Set((chosen.get(name) || "").split(",").filter((item) => allowed.includes(item)));
  state.head = parseHead(chosen.get("head"));
  state.stage = known("stage", STAGE_ORDER);
  state.verdict = known("verdict", VERDICTS);
  state.type = Object.hasOwn(data.types, chosen.get("type") || "") ? chosen.get("type") : "";
  state.by = data.detectors.some((detector) => detector.name === chosen.get("by")) ? chosen.get("by") : "";
  state.q = chosen.get("q") || "";
  state.sort = Object.hasOwn(SORTS, chosen.get("sort") || "") ? chosen.get("sort") : "verdict";
  state.up = chosen.get("order") === "up";
  state.theme = ["light", "dark"].includes(chosen.get("theme")) ? chosen.get("theme") : "";
}

function writeAddress() {
  const chosen = new URLSearchParams();
  if (state.head) chosen.set("head", headKey(state.head.stack, state.head.layer, state.head.head));
  for (const name of ["stage", "verdict"]) if (state[name].size) chosen.set(name, [...state[name]].join(","));
  for (const name of ["type", "by", "q", "theme"]) if (state[name]) chosen.set(name, state[name]);
  if (state.sort !== "verdict" || state.up) chosen.set("sort", state.sort);
  if (state.up) chosen.set("order", "up");
  const text = chosen.toString();
  if (text === written) return;
  written = text;
  // A frame made from a string (a notebook) has no address of its own to change.
  if (location.protocol !== "about:") history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// Change the state and redraw what depends on the changed names.
function set(changes) {
  Object.assign(state, changes);
  writeAddress();
  const names = Object.keys(changes);
  for (const [watched, draw] of listeners) if (watched.some((name) => names.includes(name))) draw();
}

function watch(names, draw) {
  listeners.push([names, draw]);
}

function passes(seen) {
  return (!state.stage.size || state.stage.has(seen.stage))
    && (!state.verdict.size || state.verdict.has(seen.verdict))
    && (!state.type || state.type === seen.type);
}

function filtered() {
  return Boolean(state.stage.size || state.verdict.size || state.type);
}

function toggle(name, value) {
  const next = new Set(state[name]);
  if (!next.delete(value)) next.add(value);
  set({ [name]: next });
}

const SORTS = {
  head: (a, b) => a.stack.localeCompare(b.stack) || a.layer - b.layer || a.head - b.head,
  type: (a, b) => typeName(a.type).localeCompare(typeName(b.type)),
  stage: (a, b) => STAGE_ORDER.indexOf(a.stage) - STAGE_ORDER.indexOf(b.stage),
  score: (a, b) => compare(b.score, a.score),
  chance: (a, b) => compare(b.chance, a.chance),
  q: (a, b) => compare(a.q, b.q),
  verdict: (a, b) => VERDICTS.indexOf(a.verdict) - VERDICTS.indexOf(b.verdict) || compare(b.score, a.score),
  effect: (a, b) => compare(size(b.effect), size(a.effect)),
};

function size(value) {
  return value === null ? null : Math.abs(value);
}

// Numbers in order, those that were not measured last in either order (see sortedRows).
function compare(a, b) {
  if (a === null || b === null) return 0;
  return a - b;
}
