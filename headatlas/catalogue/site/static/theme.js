// Runs before the page is drawn: says that scripts run, and applies the colours that the reader has chosen.
var headatlas = {
  // Some browsers refuse storage to pages from a folder; the choice then lasts as long as the page.
  stored(key, value) {
    try {
      if (value === undefined) return localStorage.getItem("headatlas-" + key) || "";
      localStorage.setItem("headatlas-" + key, value);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
    }
    return value || "";
  },
};
document.documentElement.classList.add("js");
document.documentElement.dataset.theme = headatlas.stored("theme");
