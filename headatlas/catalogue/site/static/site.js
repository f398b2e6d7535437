// What every page can do: change colours, copy, follow arrows, jump to the search box.
(() => {
  "use strict";
  const root = document.documentElement;

  const THEMES = { "": "as the system", light: "light", dark: "dark" };
  const button = document.getElementById("theme");
  function showTheme() {
    button.querySelector("span").textContent = THEMES[root.dataset.theme] || THEMES[""];
  }
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    root.dataset.theme = names[(names.indexOf(root.dataset.theme) + 1) % names.length];
    headatlas.stored("theme", root.dataset.theme);
    showTheme();
  });
  showTheme();

  // On narrow screens the navigation scrolls: show where we are.
  const current = document.querySelector(".top nav [aria-current]");
  if (current) {
    const bar = current.closest("nav");
    bar.scrollLeft = current.offsetLeft - bar.offsetLeft - (bar.clientWidth - current.offsetWidth) / 2;
  }

  const announcer = document.createElement("div");
  announcer.className = "hidden";
  announcer.setAttribute("role", "status");
  document.body.append(announcer);
  for (const copier of document.querySelectorAll("button[data-copy]")) {
    copier.addEventListener("click", async () => {
      const source = document.getElementById(copier.dataset.copy);
      const word = copier.firstChild;
      try {
        await navigator.clipboard.writeText(source.textContent);
        word.data = "Copied";
      } catch {
        // Without leave to use the clipboard the text is selected, ready for the keys that copy.
        getSelection().selectAllChildren(source);
        word.data = "Selected";
      }
      announcer.textContent = word.data;
      setTimeout(() => (word.data = "Copy"), 2000);
    });
  }

  for (const choice of document.querySelectorAll("button[data-show]")) {
    choice.addEventListener("click", () => {
      document.getElementById("figure").dataset.show = choice.dataset.show;
      for (const other of document.querySelectorAll("button[data-show]")) {
        other.setAttribute("aria-pressed", String(other === choice));
      }
    });
  }

  for (const drawing of document.querySelectorAll(".drawing svg.circuit")) {
    const point = (id) => {
      drawing.classList.toggle("pointing", id !== null);
      const near = new Set([id]);
      for (const wire of drawing.querySelectorAll(".wire")) {
        const on = wire.dataset.from === id || wire.dataset.to === id;
        wire.classList.toggle("near", on);
        if (on) near.add(wire.dataset.from).add(wire.dataset.to);
      }
      for (const node of drawing.querySelectorAll(".node")) node.classList.toggle("near", near.has(node.dataset.node));
    };
    for (const node of drawing.querySelectorAll(".node")) {
      const holder = node.closest("a") || node;
      for (const kind of ["pointerenter", "focus"]) holder.addEventListener(kind, () => point(node.dataset.node));
      for (const kind of ["pointerleave", "blur"]) holder.addEventListener(kind, () => point(null));
    }
  }

  const narrow = document.getElementById("narrow-heads");
  if (narrow) {
    const plain = (text) => text.normalize("NFKD").toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
    const items = [...document.querySelectorAll("li[data-words]")].map((item) => [item, plain(item.dataset.words)]);
    const runs = document.getElementById("narrow-runs");
    const change = () => {
      const words = narrow.value.split(/\s+/).map(plain).filter(Boolean);
      let shown = 0;
      for (const [item, text] of items) {
        item.hidden = !words.every((word) => text.includes(word)) || (runs.checked && !("runs" in item.dataset));
        shown += item.hidden ? 0 : 1;
      }
      for (const list of document.querySelectorAll(".head-list")) {
        list.hidden = !list.querySelector("li:not([hidden])");
        list.previousElementSibling.hidden = list.hidden;
      }
      for (const part of document.querySelectorAll(".stage-part")) part.hidden = !part.querySelector("li:not([hidden])");
      document.getElementById("narrow-count").textContent = words.length || runs.checked ? `${shown} of ${items.length}` : "";
    };
    narrow.addEventListener("input", change);
    runs.addEventListener("change", change);
  }

  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    const box = document.querySelector("#q, #narrow-heads");
    if (event.key === "/" && box && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  });
})();
