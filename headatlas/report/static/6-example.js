// An example text with the attention of one head drawn on its tokens: choose a token, see what it reads.
function visible(token) {
  const text = token.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍");
  return text.trim() === "" ? "␣".repeat(Math.max(1, text.length)) : text;
}

function attentionExample(example, flat, stage) {
  const links = new Map(); // query -> [[key, weight]], strongest first
  for (let i = 0; i < flat.length; i += 3) {
    const [query, key, weight] = [flat[i], flat[i + 1], flat[i + 2] / 1000];
    if (!links.has(query)) links.set(query, []);
    links.get(query).push([key, weight]);
  }
  for (const list of links.values()) list.sort((a, b) => b[1] - a[1]);
  const queries = [...links.keys()].sort((a, b) => a - b);
  if (!queries.length) return null;
  const offDiagonal = (query) => Math.max(0, ...links.get(query).filter(([key]) => key > 0 && key !== query).map(([, weight]) => weight));
  let chosen = queries.reduce((best, query) => (offDiagonal(query) > offDiagonal(best) ? query : best), queries[0]);
  let shown = chosen;

  const caption = el("p", { class: "reads", "aria-live": "polite" });
  const arcs = svg("svg", { class: "arcs", "aria-hidden": "true" });
  const tokens = example.tokens.map((token, index) => el("button", {
    class: `token${/^<.*>$|^\[.*\]$/.test(token) ? " special" : ""}`, type: "button", tabindex: index === chosen ? 0 : -1,
    "data-token": index, "aria-label": `token ${index}: ${token.trim() || "blank"}`,
    disabled: !links.has(index) && !flat.some((value, i) => i % 3 === 1 && value === index),
    text: visible(token),
  }));
  const text = el("div", { class: `tokens tint-${stage}`, role: "group", "aria-label": "Example text; choose a token to see what it reads" }, arcs, ...tokens);

  function draw(query) {
    shown = query;
    const reads = links.get(query) || [];
    const weights = new Map(reads);
    tokens.forEach((node, index) => {
      node.classList.toggle("query", index === query);
      node.setAttribute("aria-pressed", String(index === chosen));
      node.style.setProperty("--weight", (weights.get(index) || 0).toFixed(3));
    });
    const list = reads.slice(0, 3).map(([key, weight]) => `“${visible(example.tokens[key]).trim()}” (${key}) ${number(weight)}`);
    caption.textContent = `“${visible(example.tokens[query]).trim()}” (${query}) reads ${list.join(", ") || "no token by more than 0.02"}`;
    drawArcs(query, reads.slice(0, 4));
  }

  function drawArcs(query, reads) {
    const frame = text.getBoundingClientRect();
    const middle = (index) => {
      const own = tokens[index].getBoundingClientRect();
      return [own.left - frame.left + own.width / 2, own.top - frame.top + 2];
    };
    const [x, y] = middle(query);
    arcs.replaceChildren(...reads.filter(([key]) => key !== query && tokens[key]).map(([key, weight]) => {
      const [kx, ky] = middle(key);
      const sameLine = Math.abs(ky - y) < 8; // a link across lines runs over words, so it is drawn lighter
      const lift = Math.min(34, 10 + Math.abs(kx - x) / 8 + Math.abs(ky - y) / 6);
      const d = `M${x} ${y}C${x} ${y - lift} ${kx} ${ky - lift} ${kx} ${ky}`;
      return svg("path", { d, "stroke-width": (1 + (sameLine ? 2 : 1) * weight).toFixed(2), "stroke-opacity": ((0.25 + 0.75 * weight) * (sameLine ? 1 : 0.55)).toFixed(2) });
    }));
  }

  function pick(query, focus) {
    if (!links.has(query)) return;
    tokens[chosen].tabIndex = -1;
    chosen = query;
    tokens[chosen].tabIndex = 0;
    draw(query);
    if (focus) tokens[chosen].focus();
  }

  const tokenOf = (event) => (event.target.closest(".token") ? Number(event.target.closest(".token").dataset.token) : null);
  text.addEventListener("pointerover", (event) => {
    const index = tokenOf(event);
    if (index !== null && links.has(index) && event.pointerType !== "touch") draw(index);
  });
  text.addEventListener("pointerleave", () => draw(chosen));
  text.addEventListener("click", (event) => {
    const index = tokenOf(event);
    if (index !== null) pick(index, false);
  });
  text.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    pick(queries[queries.indexOf(chosen) + by], true);
  });
  new ResizeObserver(() => draw(shown)).observe(text);
  draw(chosen);
  return el("div", { class: "example" }, text, caption);
}
