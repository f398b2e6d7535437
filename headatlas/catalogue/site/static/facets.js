// The checkboxes that narrow the list: values of one facet are alternatives, facets add up.
headatlas.createFacets = (documents, changed) => {
  "use strict";
  const SHOWN = 6;
  const sets = [...document.querySelectorAll("fieldset.facet")].map((fieldset) => ({
    key: fieldset.dataset.facet,
    fieldset,
    boxes: [...fieldset.querySelectorAll("input[type=checkbox]")],
  }));
  const chosen = Object.fromEntries(sets.map(({ key }) => [key, new Set()]));
  const plain = (text) => text.normalize("NFKD").toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");

  for (const { key, fieldset, boxes } of sets) {
    for (const box of boxes) {
      box.addEventListener("change", () => {
        if (box.checked) chosen[key].add(box.value);
        else chosen[key].delete(box.value);
        changed();
      });
    }
    const opener = more(fieldset);
    if (opener) {
      const closed = opener.textContent;
      opener.addEventListener("click", () => {
        const open = fieldset.classList.toggle("open");
        opener.setAttribute("aria-expanded", String(open));
        opener.textContent = open ? "Show fewer" : closed;
      });
    }
    const narrow = fieldset.querySelector("input.narrow");
    if (narrow) {
      narrow.addEventListener("input", () => {
        const wanted = plain(narrow.value);
        fieldset.classList.toggle("narrowed", wanted !== "");
        for (const box of boxes) {
          const item = box.closest("li");
          item.classList.toggle("other", !plain(item.querySelector(".name").textContent).includes(wanted));
        }
      });
    }
  }

  function more(fieldset) {
    return fieldset.querySelector("button.more");
  }

  // Of long facets the values that most papers have come first, and only those are shown until all are asked for.
  function raise(boxes, counts) {
    const rank = new Map(boxes.map((box, place) => [box, place]));
    const wanted = [...boxes].sort((a, b) => (counts.get(b.value) || 0) - (counts.get(a.value) || 0) || rank.get(a) - rank.get(b));
    const items = wanted.map((box) => box.closest("li"));
    const list = items[0].parentNode;
    items.forEach((item, place) => item.classList.toggle("beyond", place >= SHOWN));
    // Moving an element takes the focus from it: nothing is moved where the order stays.
    if (items.some((item, place) => list.children[place] !== item)) list.append(...items);
  }

  function passes(item, except) {
    return sets.every(
      ({ key }) => key === except || !chosen[key].size || (item.facets[key] || []).some((value) => chosen[key].has(value)),
    );
  }

  return {
    passes,
    // What the address says; values that no checkbox has are left out.
    read(address) {
      for (const { key, boxes } of sets) {
        const asked = new Set(address.getAll(key));
        chosen[key].clear();
        for (const box of boxes) {
          box.checked = asked.has(box.value);
          if (box.checked) chosen[key].add(box.value);
        }
      }
    },
    write(address) {
      for (const { key, boxes } of sets) for (const box of boxes) if (box.checked) address.append(key, box.value);
    },
    clear() {
      for (const { key, boxes } of sets) {
        chosen[key].clear();
        for (const box of boxes) box.checked = false;
      }
    },
    chosen: () => sets.flatMap(({ boxes }) => boxes.filter((box) => box.checked)),
    // How many papers each value would leave, given the search and the other facets.
    count(found) {
      for (const { key, fieldset, boxes } of sets) {
        const counts = new Map();
        for (const item of found) {
          if (passes(item, key)) for (const value of item.facets[key] || []) counts.set(value, (counts.get(value) || 0) + 1);
        }
        for (const box of boxes) {
          const item = box.closest("li");
          item.querySelector(".count").textContent = counts.get(box.value) || 0;
          item.classList.toggle("zero", !counts.has(box.value));
          item.classList.toggle("checked", box.checked);
        }
        if (more(fieldset)) raise(boxes, counts);
      }
    },
  };
};
