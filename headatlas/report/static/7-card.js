// The panel beside the map: what was found, or the card of the chosen head.
const card = document.getElementById("card");
const texts = document.getElementById("texts");

function choose(place, focus = false) {
  set({ head: place });
  if (!place) return;
  if (focus) card.querySelector("h2").focus();
  if (!beside()) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    card.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
}

// Whether the card stands beside the map; on narrow screens it stands below.
function beside() {
  return getComputedStyle(card).position === "sticky";
}

function bringIntoView() {
  (beside() ? document.getElementById("map-section") : card).scrollIntoView({ block: "start" });
}

function headButton(seen, label) {
  return el("button", {
    type: "button", class: `head-chip border-${seen.verdict}`, title: data.verdict_words[seen.verdict],
    "aria-label": `Head ${seen.key}, ${seen.shown}`, text: label || headName(seen.stack, seen.layer, seen.head),
    onclick: () => choose({ stack: seen.stack, layer: seen.layer, head: seen.head }, true),
  });
}

function overview() {
  const types = new Map();
  for (const seen of data.seen.filter(passes)) {
    if (!types.has(seen.type)) types.set(seen.type, []);
    types.get(seen.type).push(seen);
  }
  const rows = [...types].map(([type, list]) => {
    const strongest = new Map(); // a head's strongest observation, the strongest head first
    for (const seen of list.sort(SORTS.verdict)) if (!strongest.has(seen.key)) strongest.set(seen.key, seen);
    const heads = [...strongest.values()];
    return el("li", {},
      el("div", { class: "row" }, el("span", { class: `glyph stage-${list[0].stage}`, "aria-hidden": "true", text: stageOf[list[0].stage].filled }),
        el("span", { class: "name", text: typeName(type) }), el("span", { class: "soft", text: plural(heads.length, "head", "heads") })),
      el("div", { class: "chips" }, ...heads.slice(0, 6).map((seen) => headButton(seen)),
        heads.length > 6 ? el("span", { class: "soft", text: `+${heads.length - 6}` }) : null));
  });
  const hint = "Choose a head on the map to see its scores, what happens without it, and what it reads in a text.";
  card.replaceChildren(
    el("h2", { tabindex: "-1", text: "What was found" }),
    el("p", { class: "soft", text: hint }),
    rows.length ? el("ul", { class: "found" }, ...rows)
      : el("p", { class: "empty", text: data.seen.length ? "No head passes the filters." : "No head of this model passed any detector. That is a result: none of its scores lies far enough above chance." }));
}

function negated(value) {
  return value === null ? null : -value;
}

function worse(effect) {
  return effect < 0 ? `better by ${number(-effect)}` : `worse by ${number(effect)}`;
}

function verdictText(seen) {
  const metric = seen.detector.group.metric || seen.detector.baseline.metric || "the task's metric";
  if (seen.effect === null) return `Its effect was not tested: ${seen.detector.untested || "no verdict was asked for"}.`;
  const range = seen.effect < 0 ? interval(negated(seen.effect_high), negated(seen.effect_low)) : interval(seen.effect_low, seen.effect_high);
  const change = `Without this head, ${metric} gets ${worse(seen.effect)}${range ? ` (95% ${range})` : ""}; 95% of random heads change it by less than ${number(seen.random_effect)}.`;
  const meaning = {
    causal: seen.effect < 0 ? "So this head matters on its own, and works against the answer." : "So this head matters on its own.",
    group: seen.beside_effect === null ? "Alone that proves nothing; it matters beside others."
      : `Alone that proves nothing, but once other heads like it are off, ${metric} gets ${worse(seen.beside_effect)} without it too.`,
    refuted: "So it looks the part, but the model does not depend on it here.",
    untested: seen.shown === "untested" ? (seen.effect_low === null ? "Not judged: too few of the examples show an effect." : "Not judged: too few other heads are free to say how rare such an effect is.") : "As one of a set it was not judged by today's definition: mine the model again.",
  }[seen.verdict];
  const close = seen.marginal ? " It is marginal: so close to the bar that other examples may decide otherwise." : "";
  return `${change} ${meaning}${close}`;
}

// What one detector measured, and what became of the task without the head.
function measured(seen) {
  return [
    el("div", { class: "figures" },
      el("span", {}, "Score ", el("b", { text: number(seen.score) }), el("span", { class: "soft", text: ` ${interval(seen.low, seen.high)}` })),
      el("span", {}, "Chance ", el("b", { text: number(seen.chance) })),
      el("span", {}, "q ", el("b", { text: probability(seen.q) }))),
    scoreScale(seen.detector, seen, seen.stage),
    el("p", { class: "verdict-text", text: verdictText(seen) }),
    seen.checks ? el("p", { class: "soft", text: `Checks: ${seen.checks}.` }) : null,
    seen.effect === null ? null : effectScale(seen, seen.stage),
  ];
}

// One entry per head type: that of its strongest observation, with what each of its detectors measured.
function finding(list) {
  const [first] = list;
  const type = data.types[first.type];
  const papers = type.papers || [];
  return el("section", { class: "finding" },
    el("header", {}, el("h3", { text: type.name }), verdictBadge(first), stageChip(first.stage)),
    type.role ? el("p", { class: "role", text: type.role }) : null,
    ...list.flatMap((seen) => [list.length > 1 ? el("h4", { text: `${seen.detector.name}: ${seen.shown}` }) : null, ...measured(seen)]),
    papers.length ? el("details", { class: "papers" }, el("summary", { text: plural(papers.length, "paper", "papers") }),
      el("ul", {}, ...papers.map((paper) => el("li", {}, link(paper.url, paper.title), el("span", { class: "soft", text: ` ${paper.year ?? ""}` }))))) : null);
}

// What the head does on text, with a link to its page, for each folder of pages that the report is linked to.
function onText(key) {
  const found = data.pages.filter((folder) => Object.hasOwn(folder.heads, key));
  return found.length === 0 ? null : el("section", { class: "finding on-text" }, el("h3", { text: "On text" }),
    ...found.map((folder) => el("p", {}, `On ${folder.told}: ${folder.heads[key].told}. `,
      el("a", { href: folder.heads[key].href, text: "Its page" }))));
}

function byType(list) {
  const types = new Map();
  for (const seen of list) types.set(seen.type, [...(types.get(seen.type) || []), seen]);
  return [...types.values()];
}

function allScores(place) {
  const rows = data.detectors.filter((detector) => detector.stack === place.stack).map((detector) => {
    const seen = (seenOf.get(headKey(place.stack, place.layer, place.head)) || []).find((item) => item.detector === detector);
    const score = seen ? seen.score : scoreAt(detector, place.layer, place.head);
    return { detector, seen, score, chance: seen ? seen.chance : chanceAt(detector, place.layer, place.head) };
  }).sort((a, b) => (b.score ?? -Infinity) - (b.chance ?? 0) - ((a.score ?? -Infinity) - (a.chance ?? 0)) || 0);
  return el("table", { class: "all-scores" },
    el("caption", { text: "All its scores against chance" }),
    el("thead", {}, el("tr", {}, ...["Detector", "Score", "Chance"].map((text) => el("th", { scope: "col", text })))),
    el("tbody", {}, ...rows.map(({ detector, seen, score, chance }) => {
      const { low, high } = extents[indexOf.get(detector)];
      const zero = percent(0, low, high);
      const end = score === null ? zero : percent(score, low, high);
      const css = { "--from": `${Math.min(zero, end)}%`, "--to": `${Math.abs(end - zero)}%`, "--chance": `${percent(chance ?? 0, low, high)}%` };
      return el("tr", { class: seen ? "seen" : "" },
        el("th", { scope: "row" }, el("span", { text: detector.name }), el("span", { class: `minibar fill-${detector.stage}`, "aria-hidden": "true", css })),
        el("td", { text: score === null ? "no score" : number(score) }), el("td", { text: number(chance) }));
    })));
}

// The example texts of a head, in their own panel below the map; the one of its best detector first.
function drawTexts(place) {
  const key = place ? headKey(place.stack, place.layer, place.head) : "";
  const found = Object.entries(data.examples).filter(([, example]) => Object.hasOwn(example.heads, key));
  const list = seenOf.get(key) || [];
  const without = list.map((seen) => data.examples[seen.detector.name]).find((example) => example && example.left_out);
  texts.hidden = !found.length && !without;
  if (texts.hidden) return texts.replaceChildren();
  if (!found.length) {
    const kept = plural(Object.keys(without.heads).length, "head has", "heads have");
    return texts.replaceChildren(el("p", { class: "soft", text: `No text is kept for ${headName(place.stack, place.layer, place.head)}: only the strongest ${kept} one, so that the file stays small.` }));
  }
  const rank = (name) => list.findIndex((seen) => seen.detector.name === name) + 1 || 99;
  found.sort((a, b) => rank(a[0]) - rank(b[0]));
  const holder = el("div");
  const show = (name) => {
    const detector = data.detectors.find((item) => item.name === name);
    const drawn = attentionExample(data.examples[name], data.examples[name].heads[key], detector ? detector.stage : "none");
    holder.replaceChildren(drawn || el("p", { class: "soft", text: "It attends to no token by more than 0.02 here." }));
  };
  const chooser = found.length < 2 ? null : el("label", {}, "Text for ",
    el("select", { onchange: (event) => show(event.target.value) }, ...found.map(([name]) => el("option", { value: name, text: name }))));
  texts.replaceChildren(el("header", {}, el("h2", { text: `What ${headName(place.stack, place.layer, place.head)} reads` }), chooser), holder,
    el("p", { class: "soft help", text: "Point at a token, or walk with the arrow keys: the stronger another token’s colour, the more attention it gets." }));
  show(found[0][0]);
}

function neighbour(by) {
  const order = [...seenOf.values()].map((list) => list[0]).filter((seen) => seenOf.get(seen.key).some(passes)).sort(SORTS.head);
  const here = state.head;
  const after = (seen) => SORTS.head(seen, here) > 0;
  const before = (seen) => SORTS.head(seen, here) < 0;
  const next = by > 0 ? order.find(after) || order[0] : order.filter(before).at(-1) || order.at(-1);
  if (next) choose({ stack: next.stack, layer: next.layer, head: next.head }, true);
}

function headCard(place) {
  const key = headKey(place.stack, place.layer, place.head);
  const list = seenOf.get(key) || [];
  const stages = STAGE_ORDER.filter((id) => list.some((seen) => seen.stage === id));
  const button = (label, text, onclick) => el("button", { type: "button", class: "tool", "aria-label": label, title: label, text, onclick });
  card.replaceChildren(
    el("div", { class: "tools" }, button("Previous observed head", "←", () => neighbour(-1)), button("Next observed head", "→", () => neighbour(1)),
      button("Close the card", "×", () => { set({ head: null }); mapBox.focus(); })),
    el("h2", { tabindex: "-1", text: `Head ${headName(place.stack, place.layer, place.head)}` }),
    el("p", { class: "soft" }, `Layer ${place.layer}, head ${place.head}, ${place.stack}`),
    stages.length ? el("p", { class: "chips" }, ...stages.map((id) => stageChip(id)))
      : el("p", { class: "empty", text: "No detector observed this head: none of its scores is far enough above chance." }),
    ...byType(list).map(finding),
    onText(key),
    data.detectors.length ? allScores(place) : null);
  card.scrollTop = 0;
}

function drawCard() {
  if (state.head) headCard(state.head);
  else overview();
  drawTexts(state.head);
  card.setAttribute("aria-label", state.head ? "Card of the chosen head" : "What was found");
}

watch(["head"], drawCard);
watch(["stage", "verdict", "type"], () => { if (!state.head) overview(); });
card.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !state.head) return;
  Object.assign(cursor, state.head);
  set({ head: null });
  mapBox.focus();
});
