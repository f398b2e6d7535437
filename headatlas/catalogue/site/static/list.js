// The list of papers: search and facets together, kept in the address so that it can be reloaded and shared.
(() => {
  "use strict";
  const { papers, pages } = headatlasIndex;
  const byId = (id) => document.getElementById(id);
  const [box, sort, list] = [byId("q"), byId("sort"), byId("papers")];
  const items = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const shownAuthors = new Map([...list.querySelectorAll(".authors")].map((element) => [element, element.textContent]));
  const order = new Map(papers.map((paper, place) => [paper, place]));
  const findPapers = headatlas.createSearch(papers, { name: 4, authors: 3, about: 2, summary: 1, notes: 0.5 });
  const findPages = headatlas.createSearch(pages, { names: 1 });
  const facets = headatlas.createFacets(papers, () => update("push"));

  function readAddress() {
    const address = new URLSearchParams(location.search);
    box.value = address.get("q") || "";
    sort.value = address.get("sort") === "oldest" ? "oldest" : "";
    facets.read(address);
  }

  function writeAddress(how) {
    const address = new URLSearchParams();
    if (box.value.trim()) address.set("q", box.value.trim());
    facets.write(address);
    if (sort.value) address.set("sort", sort.value);
    const query = address.toString();
    const url = location.pathname + (query ? `?${query}` : "");
    if (how === "push" && location.search !== (query ? `?${query}` : "")) history.pushState(null, "", url);
    else history.replaceState(null, "", url);
  }

  function update(how) {
    const found = findPapers(box.value);
    const searched = found.empty ? papers : papers.filter((paper) => found.scores.has(paper));
    const shown = searched.filter((paper) => facets.passes(paper));
    if (sort.value === "oldest") shown.sort((a, b) => order.get(b) - order.get(a));
    else if (!found.empty) shown.sort((a, b) => found.scores.get(b) - found.scores.get(a) || order.get(a) - order.get(b));
    const visible = new Set(shown);
    for (const paper of papers) items.get(paper.id).hidden = !visible.has(paper);
    list.append(...shown.map((paper) => items.get(paper.id)));
    facets.count(searched);
    showAuthors(shown, found);
    showWords(found, shown.length);
    showChosen();
    showPages(found);
    if (how) writeAddress(how);
    mark(found, shown);
  }

  // Long author lists are cut; whoever was asked for is shown.
  function showAuthors(shown, found) {
    for (const paper of shown) {
      const element = items.get(paper.id).querySelector(".authors");
      if (!element) continue;
      const text = shownAuthors.get(element);
      const asked = (name) => headatlas.words(name).some((word) => word.length > 1 && found.known.has(word));
      const missing = found.empty ? [] : paper.authors.filter((name) => !text.includes(name) && asked(name));
      element.textContent = missing.length ? `${text}, among them ${missing.join(", ")}` : text;
    }
  }

  function showWords(found, n) {
    byId("count").textContent = n === papers.length ? `${n} papers` : `${n} of ${papers.length} papers`;
    byId("none").hidden = n > 0;
    sort.options[0].textContent = found.empty ? "newest first" : "best first";
    const said = found.corrected.map(([typed, meant]) => `“${typed}” read as “${meant}”`);
    if (found.unknown.length) said.push(`nothing has “${found.unknown.join("”, “")}”`);
    byId("understood").textContent = said.join("; ");
    byId("understood").hidden = !said.length;
  }

  function showChosen() {
    const chosen = facets.chosen();
    const chips = chosen.map((input) => {
      const name = input.closest("label").querySelector(".name").textContent;
      const remove = document.createElement("button");
      remove.type = "button";
      remove.className = "chosen";
      remove.textContent = name;
      remove.setAttribute("aria-label", `Remove the filter ${name}`);
      remove.addEventListener("click", () => {
        input.click();
        box.focus();
      });
      const item = document.createElement("li");
      item.append(remove);
      return item;
    });
    byId("chosen").replaceChildren(...chips);
    byId("chosen").hidden = !chips.length;
    byId("facets-toggle").querySelector("span").textContent = chosen.length ? `(${chosen.length})` : "";
  }

  // Head types, circuits, methods and benchmarks of that name, since that is often what is looked for.
  function showPages(found) {
    const near = found.empty ? null : findPages(box.value);
    const words = near ? headatlas.words(box.value) : [];
    const fits = near && near.unknown.length === 0 ? [...near.scores] : [];
    const best = fits.sort((a, b) => b[1] - a[1]).slice(0, 4).map(([page]) => page);
    const links = best.map((page) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `../${page.url}`;
      const known = (name) => headatlas.words(name).some((word) => near.known.has(word));
      const alias = page.names.find(known);
      link.textContent = page.names[0];
      const kind = document.createElement("span");
      kind.className = "soft";
      kind.textContent = alias && alias !== page.names[0] && !known(page.names[0]) ? ` ${page.kind}, also ${alias}` : ` ${page.kind}`;
      item.append(link, kind);
      return item;
    });
    byId("pages").replaceChildren(...links);
    byId("pages").hidden = !links.length || !words.length;
  }

  function mark(found, shown) {
    if (!globalThis.Highlight) return;
    const ranges = [];
    if (!found.empty) {
      for (const paper of shown) {
        const walker = document.createTreeWalker(items.get(paper.id), NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
          const node = walker.currentNode;
          for (const match of node.data.matchAll(/\p{L}+|\d+/gu)) {
            if (match[0].length > 1 && headatlas.words(match[0]).some((word) => found.known.has(word))) {
              const range = new Range();
              range.setStart(node, match.index);
              range.setEnd(node, match.index + match[0].length);
              ranges.push(range);
            }
          }
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }

  box.addEventListener("input", () => update("replace"));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && box.value) {
      event.preventDefault();
      box.value = "";
      update("replace");
    }
  });
  byId("search-form").addEventListener("submit", (event) => event.preventDefault());
  sort.addEventListener("change", () => update("push"));
  byId("clear").addEventListener("click", () => {
    box.value = "";
    facets.clear();
    update("push");
    box.focus();
  });
  byId("facets-toggle").addEventListener("click", (event) => {
    const open = event.currentTarget.closest(".facets").classList.toggle("open");
    event.currentTarget.setAttribute("aria-expanded", String(open));
  });
  addEventListener("popstate", () => {
    readAddress();
    update();
  });
  readAddress();
  update();
})();
