// The checkboxes that narrow the list: values of one facet are alternatives, facets add up.
headatlas.createFacets = (documents, changed) => {
  "use strict";
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
    const more = fieldset.querySelector("button.more");
    if (more) {
      const closed = more.textContent;
      more.addEventListener("click", () => {
        const open = fieldset.classList.toggle("open");
        more.setAttribute("aria-expanded", String(open));
        more.textContent = open ? "Show fewer" : closed;
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
      for (const { key, boxes } of sets) {
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
      }
    },
  };
};
