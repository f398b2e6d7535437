// Colours of the heat map and the horizontal scales that scores are drawn on.
const STEPS = 9;
const extents = data.detectors.map((detector) => {
  let low = 0;
  let high = 0;
  let chance = 0;
  let count = 0;
  for (const [layer, row] of detector.scores.entries()) {
    for (const [head, value] of row.entries()) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
      const level = detector.chance[layer] ? detector.chance[layer][head] : null;
      if (level !== null && level !== undefined) {
        chance += level;
        count += 1;
      }
    }
  }
  for (const seen of data.seen) {
    if (seen.detector !== detector) continue;
    low = Math.min(low, seen.low ?? 0);
    high = Math.max(high, seen.high ?? 0);
  }
  chance = count ? chance / count : null;
  // A detector that found nothing must look pale: its colours reach well beyond what would have counted as found.
  const wanted = 3 * (detector.minimum_effect || 0) + Math.abs(chance || 0);
  const reach = Math.max(-low, high, low > -0.05 && high <= 1 ? Math.min(1, wanted) : wanted) || 1;
  // Noise just below 0 is drawn at the edge, so that shares keep a scale from 0 to 1.
  if (low > -0.05 * high) low = 0;
  const share = low === 0 && high <= 1 && high > 0.5;
  return { low, high: share ? 1 : high || reach, chance, reach };
});

function heatStep(value, reach) {
  return Math.max(-STEPS, Math.min(STEPS, Math.round((value / reach) * STEPS)));
}

function scoreAt(detector, layer, head) {
  const row = detector.scores[layer];
  return row && row[head] !== undefined ? row[head] : null;
}

function chanceAt(detector, layer, head) {
  const row = detector.chance[layer];
  return row && row[head] !== undefined ? row[head] : null;
}

const indexOf = new Map(data.detectors.map((detector, index) => [detector, index]));

function percent(value, low, high) {
  return Math.max(0, Math.min(100, ((value - low) / (high - low || 1)) * 100));
}

// One score on its detector's scale: all heads as faint ticks, chance as a line, the 95% interval as a bar, the score as a dot.
function scoreScale(detector, numbers, stage) {
  const { low, high } = extents[indexOf.get(detector)];
  const at = (value) => `${percent(value, low, high)}%`;
  let ticks = "";
  for (const row of detector.scores) {
    for (const value of row) if (value !== null) ticks += `M${(percent(value, low, high) * 10).toFixed(1)} 0v10`;
  }
  const label = `score ${number(numbers.score)}, chance ${number(numbers.chance)}`;
  const parts = [
    svg("line", { class: "axis", x1: "0", x2: "100%", y1: 20, y2: 20 }),
    svg("svg", { x: 0, y: 15, width: "100%", height: 10, viewBox: "0 0 1000 10", preserveAspectRatio: "none" },
      svg("path", { class: "rug", d: ticks, "vector-effect": "non-scaling-stroke" })),
  ];
  if (numbers.chance !== null) {
    parts.push(svg("line", { class: "chance", x1: at(numbers.chance), x2: at(numbers.chance), y1: 8, y2: 32 }));
  }
  if (numbers.low !== null && numbers.high !== null) {
    const width = Math.max(0.4, percent(numbers.high, low, high) - percent(numbers.low, low, high));
    parts.push(svg("rect", { class: `bar fill-${stage}`, x: at(numbers.low), y: 16, width: `${width}%`, height: 8, rx: 4 }));
  }
  if (numbers.score !== null) parts.push(svg("circle", { class: `dot fill-${stage}`, cx: at(numbers.score), cy: 20, r: 5.5 }));
  return el("div", { class: "scale" },
    svg("svg", { role: "img", "aria-label": label, width: "100%", height: 40 }, ...parts),
    el("div", { class: "ends", "aria-hidden": "true" }, el("span", { text: number(low) }), el("span", { text: number(high) })));
}

// How much worse the metric gets without the head, with its interval, against the band that random heads reach.
function effectScale(numbers, stage) {
  const band = Math.abs(numbers.random_effect ?? 0);
  const reach = 1.1 * Math.max(Math.abs(numbers.effect), Math.abs(numbers.effect_low ?? 0), Math.abs(numbers.effect_high ?? 0), band) || 1;
  const at = (value) => `${percent(value, -reach, reach)}%`;
  const wide = (from, to) => `${percent(to, -reach, reach) - percent(from, -reach, reach)}%`;
  const parts = [
    svg("rect", { class: "band", x: at(-band), y: 6, width: wide(-band, band), height: 28, rx: 3 }),
    svg("line", { class: "axis", x1: 0, x2: "100%", y1: 20, y2: 20 }),
    svg("line", { class: "zero", x1: "50%", x2: "50%", y1: 4, y2: 36 }),
  ];
  if (numbers.effect_low !== null && numbers.effect_high !== null) {
    parts.push(svg("rect", { class: `bar fill-${stage}`, x: at(numbers.effect_low), y: 16, width: wide(numbers.effect_low, numbers.effect_high), height: 8, rx: 4 }));
  }
  parts.push(svg("circle", { class: `dot fill-${stage}`, cx: at(numbers.effect), cy: 20, r: 5.5 }));
  const label = `effect ${signed(numbers.effect)}, random heads ${number(numbers.random_effect)}`;
  return el("div", { class: "scale" },
    svg("svg", { role: "img", "aria-label": label, width: "100%", height: 40 }, ...parts),
    el("div", { class: "ends", "aria-hidden": "true" }, el("span", { text: "← better without it" }), el("span", { text: "worse without it →" })));
}
