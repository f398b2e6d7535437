// Small helpers: make elements (text always through textContent), write numbers, unpack the embedded atlas.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

if (!window.DecompressionStream) {
  document.getElementById("unpacking").hidden = false;
  return;
}
const data = await unpacked(document.getElementById("atlas").textContent);
data.seen = rowsOf(data.seen);
const STAGE_ORDER = data.stages.map((stage) => stage.id);
const VERDICTS = ["causal", "group", "refuted", "untested"];
const CONFIRMED = new Set(["causal", "group"]);
const stageOf = Object.fromEntries(data.stages.map((stage) => [stage.id, stage]));

// Columns of equal length -> an object a row.
function rowsOf(columns) {
  const names = Object.keys(columns);
  return (columns[names[0]] || []).map((_, index) => {
    const row = {};
    for (const name of names) row[name] = columns[name][index];
    return row;
  });
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "css") for (const [key, css] of Object.entries(value)) node.style.setProperty(key, css);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text;
  if (size >= 100) text = size.toFixed(0);
  else if (size >= 10) text = size.toFixed(1);
  else if (size >= 0.01 || size === 0) text = size.toFixed(2);
  else text = size.toFixed(3);
  return value < 0 && Number(text) !== 0 ? "−" + text : text;
}

function signed(value) {
  const text = number(value);
  return value > 0 && Number(text) !== 0 ? "+" + text : text;
}

function probability(value) {
  if (value === null || value === undefined) return "–";
  return value < 0.001 ? "< 0.001" : value.toFixed(3);
}

function interval(low, high) {
  return low === null || high === null ? "" : `${number(low)} to ${number(high)}`;
}

function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}

// Links come from data: only http(s) becomes a link, anything else stays text.
function link(url, text) {
  if (!/^https?:\/\//i.test(url || "")) return el("span", { text });
  return el("a", { href: url, rel: "noopener noreferrer", target: "_blank", text });
}

function stageChip(id) {
  const stage = stageOf[id];
  return el("span", { class: `stage stage-${id}` },
    el("span", { class: "glyph", "aria-hidden": "true", text: stage.filled }), stage.name);
}

function verdictBadge(seen) {
  return el("span", { class: `verdict verdict-${seen.verdict}`, text: seen.shown });
}

function single() {
  return data.stacks.length === 1;
}

function headName(stack, layer, head) {
  return single() || stack === "decoder" ? `${layer}.${head}` : `${stack}:${layer}.${head}`;
}

function typeName(type) {
  return data.types[type].name;
}

const headKey = (stack, layer, head) => (stack === "decoder" ? "" : `${stack}:`) + `${layer}.${head}`;
const seenOf = new Map();
for (const seen of data.seen) {
  seen.detector = data.detectors[seen.d];
  seen.type = seen.detector.type;
  seen.stage = seen.detector.stage;
  seen.key = headKey(seen.stack, seen.layer, seen.head);
  if (!seenOf.has(seen.key)) seenOf.set(seen.key, []);
  seenOf.get(seen.key).push(seen);
}
for (const list of seenOf.values()) list.sort((a, b) => VERDICTS.indexOf(a.verdict) - VERDICTS.indexOf(b.verdict));

function parseHead(text) {
  const match = /^(?:([a-z]+):)?(\d+)\.(\d+)$/.exec(text || "");
  if (!match) return null;
  const place = { stack: match[1] || (single() ? data.stacks[0].name : "decoder"), layer: Number(match[2]), head: Number(match[3]) };
  return exists(place.stack, place.layer, place.head) ? place : null;
}

function exists(stack, layer, head) {
  const found = data.stacks.find((item) => item.name === stack);
  return Boolean(found && found.exists[layer] && found.exists[layer][head] === "1");
}
