// The map of all heads: one drawing per stack, a few long paths instead of one element a head, so 80 x 64 stays quick.
const mapBox = document.getElementById("map");
const tooltip = document.getElementById("tooltip");
const announcer = document.getElementById("announcer");
const cursor = { stack: data.stacks[0].name, layer: 0, head: 0 };
const rings = new Map(); // stack -> {geometry, hover, cursor, chosen}

function geometry(stack, width) {
  const layers = stack.exists.length || 1;
  const heads = Math.max(1, ...stack.exists.map((row) => row.length));
  const portrait = width < 560;
  const columns = portrait ? heads : layers;
  const rows = portrait ? layers : heads;
  const margin = { left: 34, top: portrait ? 20 : 58, right: portrait ? 62 : 6, bottom: portrait ? 6 : 24 };
  const touch = portrait ? 14 : 8;
  const cw = Math.max(touch, Math.min(layers <= 12 && !portrait ? 60 : 42, (width - margin.left - margin.right) / columns));
  const tall = portrait ? Math.max(14, Math.min(cw, 22)) : Math.max(8, Math.min(cw * 1.15, 28));
  const ch = rows * tall > 900 ? Math.max(8, 900 / rows) : tall;
  return {
    portrait, columns, rows, layers, heads, cw, ch, margin,
    width: margin.left + columns * cw + margin.right, height: margin.top + rows * ch + margin.bottom,
    place: (layer, head) => [margin.left + (portrait ? head : layer) * cw, margin.top + (portrait ? layer : head) * ch],
    find: (x, y) => {
      const column = Math.floor((x - margin.left) / cw);
      const row = Math.floor((y - margin.top) / ch);
      const [layer, head] = portrait ? [row, column] : [column, row];
      return exists(stack.name, layer, head) ? { stack: stack.name, layer, head } : null;
    },
  };
}

function box(x, y, w, h) {
  return `M${x.toFixed(2)} ${y.toFixed(2)}h${w.toFixed(2)}v${h.toFixed(2)}h${(-w).toFixed(2)}z`;
}

// Paths for the colours of the four stages: each head is split evenly between its stages.
function stagePaths(stack, g, gap) {
  const fills = {};
  const borders = { causal: "", group: "" };
  const [w, h] = [g.cw - gap, g.ch - gap];
  let base = "";
  stack.exists.forEach((row, layer) => [...row].forEach((there, head) => {
    if (there !== "1") return;
    const [x, y] = g.place(layer, head).map((value) => value + gap / 2);
    const seen = (seenOf.get(headKey(stack.name, layer, head)) || []).filter(passes);
    base += box(x, y, w, h);
    const stages = STAGE_ORDER.filter((id) => seen.some((item) => item.stage === id));
    stages.forEach((id, part) => {
      const sure = seen.some((item) => item.stage === id && CONFIRMED.has(item.verdict));
      const name = `${id} ${sure ? "sure" : "faded"}`;
      fills[name] = (fills[name] || "") + box(x + (w * part) / stages.length, y, w / stages.length, h);
    });
    if (seen.length && CONFIRMED.has(seen[0].verdict)) borders[seen[0].verdict] += box(x, y, w, h);
  }));
  return [
    svg("path", { class: "cell", d: base }),
    ...Object.entries(fills).map(([name, d]) => {
      const [id, sure] = name.split(" ");
      return svg("path", { class: `fill-${id} ${sure}`, d });
    }),
    svg("path", { class: "border-causal", d: borders.causal }),
    svg("path", { class: "border-group", d: borders.group, "stroke-dasharray": w < 14 ? "1.5 1.5" : "3 2.4" }),
  ];
}

function heatPaths(stack, g, gap, detector) {
  const { reach } = extents[indexOf.get(detector)];
  const fills = {};
  const borders = { causal: "", group: "", refuted: "", untested: "" };
  const [w, h] = [g.cw - gap, g.ch - gap];
  stack.exists.forEach((row, layer) => [...row].forEach((there, head) => {
    if (there !== "1") return;
    const [x, y] = g.place(layer, head).map((value) => value + gap / 2);
    const value = stack.name === detector.stack ? scoreAt(detector, layer, head) : null;
    const name = value === null ? "absent" : `heat-${heatStep(value, reach)}`;
    fills[name] = (fills[name] || "") + box(x, y, w, h);
    const seen = (seenOf.get(headKey(stack.name, layer, head)) || []).find((item) => item.detector === detector && passes(item));
    if (seen) borders[seen.verdict] += box(x, y, w, h);
  }));
  return [
    ...Object.entries(fills).map(([name, d]) => svg("path", { class: name, d })),
    svg("path", { class: "border-causal", d: borders.causal }),
    svg("path", { class: "border-group", d: borders.group, "stroke-dasharray": w < 14 ? "1.5 1.5" : "3 2.4" }),
    svg("path", { class: "border-seen", d: borders.refuted + borders.untested }),
  ];
}

function profileBar(g, layer, start, length) {
  const [, y] = g.place(layer, 0);
  if (g.portrait) return box(g.margin.left + g.columns * g.cw + 8 + start, y + 2, length, g.ch - 4);
  return box(g.place(layer, 0)[0] + 2, g.margin.top - 6 - start - length, g.cw - 4, length);
}

function profileRoom(g) {
  return g.portrait ? g.margin.right - 14 : g.margin.top - 18;
}

// How many heads of each layer belong to each stage: where in depth the stages live.
function depthProfile(stack, g) {
  const counts = Array.from({ length: g.layers }, () => ({}));
  for (const seen of data.seen) {
    if (seen.stack !== stack.name || !passes(seen)) continue;
    const layer = counts[seen.layer];
    layer[seen.stage] = (layer[seen.stage] || new Set()).add(seen.head);
  }
  const total = (layer) => STAGE_ORDER.reduce((sum, id) => sum + (layer[id] ? layer[id].size : 0), 0);
  const most = Math.max(1, ...counts.map(total));
  const paths = {};
  counts.forEach((layer, index) => {
    let start = 0;
    for (const id of STAGE_ORDER.filter((name) => layer[name])) {
      const length = (layer[id].size / most) * profileRoom(g);
      paths[id] = (paths[id] || "") + profileBar(g, index, start, length);
      start += length;
    }
  });
  return Object.entries(paths).map(([id, d]) => svg("path", { class: `fill-${id} profile`, d }));
}

// In the heat map the bars are the highest score of each layer.
function bestProfile(stack, g, detector) {
  if (stack.name !== detector.stack) return [];
  const { reach } = extents[indexOf.get(detector)];
  const best = detector.scores.map((row) => Math.max(0, ...row.filter((value) => value !== null)));
  return [svg("path", { class: "profile-best", d: best.map((value, layer) => profileBar(g, layer, 0, (value / reach) * profileRoom(g))).join("") })];
}

// Layers without attention: a thin line where their heads would be.
function bareLayers(stack, g) {
  const lines = stack.exists.map((row, layer) => {
    if (row.includes("1")) return "";
    const [x, y] = g.place(layer, 0);
    return g.portrait ? `M${x} ${y + g.ch / 2}h${g.columns * g.cw}` : `M${x + g.cw / 2} ${y}v${g.rows * g.ch}`;
  });
  return svg("path", { class: "bare", d: lines.join("") });
}

function axes(g) {
  const labels = [];
  const step = (cell, size) => [1, 2, 5, 10, 20].find((each) => each * cell >= size) || 20;
  const layerStep = g.portrait ? step(g.ch, 13) : step(g.cw, 20);
  const headStep = g.portrait ? step(g.cw, 20) : step(g.ch, 13);
  const put = (text, x, y, anchor) => labels.push(svg("text", { class: "tick", x, y, "text-anchor": anchor, text }));
  for (let layer = 0; layer < g.layers; layer += layerStep) {
    if (g.portrait) put(layer, g.margin.left - 6, g.margin.top + (layer + 0.5) * g.ch + 4, "end");
    else put(layer, g.margin.left + (layer + 0.5) * g.cw, g.height - g.margin.bottom + 15, "middle");
  }
  for (let head = 0; head < g.heads; head += headStep) {
    if (g.portrait) put(head, g.margin.left + (head + 0.5) * g.cw, g.margin.top - 6, "middle");
    else put(head, g.margin.left - 6, g.margin.top + (head + 0.5) * g.ch + 4, "end");
  }
  return labels;
}

function drawMap() {
  const width = mapBox.clientWidth;
  const detector = data.detectors.find((item) => item.name === state.by);
  const drawings = data.stacks.map((stack) => {
    const g = geometry(stack, width);
    const gap = g.cw < 11 ? 1 : 2.4;
    const ring = (name) => svg("g", { class: `ring ${name}`, visibility: "hidden" },
      ...["halo", "line"].map((part) => svg("rect", { class: part, x: -1, y: -1, width: g.cw + 2, height: g.ch + 2, rx: 4 })));
    const own = { g, hover: ring("hover"), cursor: ring("cursor"), chosen: ring("chosen") };
    rings.set(stack.name, own);
    const cells = detector ? heatPaths(stack, g, gap, detector) : stagePaths(stack, g, gap);
    const drawing = svg("svg", { width: g.width, height: g.height, "aria-hidden": "true", "data-stack": stack.name },
      bareLayers(stack, g), ...cells, ...(detector ? bestProfile(stack, g, detector) : depthProfile(stack, g)), ...axes(g), own.hover, own.chosen, own.cursor);
    return el("div", { class: "stack" }, single() ? null : el("h3", { text: stack.name }), el("div", { class: "scroll" }, drawing));
  });
  mapBox.replaceChildren(...drawings);
  mark("chosen", state.head);
  mark("cursor", document.activeElement === mapBox ? cursor : null);
}

function mark(name, place) {
  for (const [stack, own] of rings) {
    const here = place && place.stack === stack;
    own[name].setAttribute("visibility", here ? "visible" : "hidden");
    if (!here) continue;
    const [x, y] = own.g.place(place.layer, place.head);
    own[name].setAttribute("transform", `translate(${x} ${y})`);
  }
}

function describe(place) {
  const seen = seenOf.get(headKey(place.stack, place.layer, place.head)) || [];
  const detector = data.detectors.find((item) => item.name === state.by);
  const lines = seen.map((item) => `${typeName(item.type)}, ${item.shown}, score ${number(item.score)} (chance ${number(item.chance)})`);
  if (detector && detector.stack === place.stack) {
    lines.unshift(`${detector.name}: ${number(scoreAt(detector, place.layer, place.head))}, chance ${number(chanceAt(detector, place.layer, place.head))}`);
  }
  return { title: `Head ${headName(place.stack, place.layer, place.head)}`, seen, lines: lines.length ? lines : ["nothing observed"] };
}
