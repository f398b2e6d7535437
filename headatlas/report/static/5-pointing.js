// Mouse, touch and keyboard on the map, and the tooltip.
function placeAt(event) {
  const drawing = event.target.closest ? event.target.closest("svg[data-stack]") : null;
  if (!drawing) return null;
  const frame = drawing.getBoundingClientRect();
  return rings.get(drawing.getAttribute("data-stack")).g.find(event.clientX - frame.left, event.clientY - frame.top);
}

function showTooltip(place, x, y) {
  const about = describe(place);
  const detector = data.detectors.find((item) => item.name === state.by);
  const rows = about.seen.map((item) => el("div", { class: "line" },
    el("span", { class: `glyph stage-${item.stage}`, text: stageOf[item.stage].filled }),
    el("span", { class: "name", text: typeName(item.type) }), el("b", { text: number(item.score) }), verdictBadge(item)));
  if (detector && detector.stack === place.stack) {
    rows.unshift(el("div", { class: "line" }, el("span", { class: "name", text: detector.name }),
      el("b", { text: number(scoreAt(detector, place.layer, place.head)) }),
      el("span", { class: "soft", text: `chance ${number(chanceAt(detector, place.layer, place.head))}` })));
  }
  if (!rows.length) rows.push(el("div", { class: "soft", text: "Nothing observed" }));
  tooltip.replaceChildren(el("div", { class: "title", text: about.title }), ...rows);
  tooltip.hidden = false;
  const size = tooltip.getBoundingClientRect();
  const left = Math.min(x + 14, document.documentElement.clientWidth - size.width - 8);
  const top = y + 18 + size.height > window.innerHeight ? y - size.height - 12 : y + 18;
  tooltip.style.transform = `translate(${Math.max(8, left)}px, ${Math.max(8, top)}px)`;
}

function hideTooltip() {
  tooltip.hidden = true;
  mark("hover", null);
}

mapBox.addEventListener("pointermove", (event) => {
  if (event.pointerType === "touch") return;
  const place = placeAt(event);
  mark("hover", place);
  mapBox.classList.toggle("over", Boolean(place));
  if (place) showTooltip(place, event.clientX, event.clientY);
  else hideTooltip();
});
mapBox.addEventListener("pointerleave", hideTooltip);
mapBox.addEventListener("click", (event) => {
  const place = placeAt(event);
  if (!place) return;
  Object.assign(cursor, place);
  choose(place);
});

// The next head from the cursor in a direction, stepping over layers without attention.
function step(layers, heads) {
  const { g } = rings.get(cursor.stack);
  let { layer, head } = cursor;
  do {
    layer += layers;
    head += heads;
    if (layer < 0 || head < 0 || layer >= g.layers || head >= g.heads) return;
  } while (!exists(cursor.stack, layer, head));
  Object.assign(cursor, { layer, head });
}

function changeStack(by) {
  const index = data.stacks.findIndex((stack) => stack.name === cursor.stack) + by;
  if (index < 0 || index >= data.stacks.length) return;
  Object.assign(cursor, firstHead(data.stacks[index]));
}

function firstHead(stack) {
  const layer = Math.max(0, stack.exists.findIndex((row) => row.includes("1")));
  return { stack: stack.name, layer, head: Math.max(0, (stack.exists[layer] || "").indexOf("1")) };
}

mapBox.addEventListener("keydown", (event) => {
  const { portrait } = rings.get(cursor.stack).g;
  const along = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (along) step(...(portrait ? [along[1], along[0]] : along));
  else if (event.key === "PageDown") changeStack(1);
  else if (event.key === "PageUp") changeStack(-1);
  else if (event.key === "Enter" || event.key === " ") choose({ ...cursor }, true);
  else if (event.key === "Escape") set({ head: null });
  else return;
  event.preventDefault();
  mark("cursor", cursor);
  const about = describe(cursor);
  announcer.textContent = `${about.title}: ${about.lines.join("; ")}`;
  const { g, cursor: ring } = rings.get(cursor.stack);
  const scroller = ring.closest(".scroll");
  const [x] = g.place(cursor.layer, cursor.head);
  if (x < scroller.scrollLeft + g.margin.left || x + g.cw > scroller.scrollLeft + scroller.clientWidth) scroller.scrollLeft = x - scroller.clientWidth / 2;
  const frame = ring.getBoundingClientRect();
  showTooltip(cursor, frame.right, frame.bottom - 10);
});
mapBox.addEventListener("focus", () => {
  if (!mapBox.matches(":focus-visible")) return;
  if (state.head) Object.assign(cursor, state.head);
  mark("cursor", cursor);
});
mapBox.addEventListener("blur", () => {
  mark("cursor", null);
  hideTooltip();
});
Object.assign(cursor, firstHead(data.stacks[0]));
watch(["stage", "verdict", "type", "by"], drawMap);
watch(["head"], () => mark("chosen", state.head));
