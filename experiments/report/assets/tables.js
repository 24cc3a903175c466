// Themes, and tables that are sorted by a button in each heading.
(() => {
  "use strict";
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];

  function setUpTheme(button) {
    const show = () => { button.querySelector("span").textContent = root.dataset.theme || "auto"; };
    button.addEventListener("click", () => {
      const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
      if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
      try { localStorage.setItem("theme", next); } catch { /* not kept */ }
      show();
    });
    show();
  }

  // The first number of a cell; NaN for a cell without one, which stands last in either order.
  function numberOf(text) {
    const found = text.replace(/[,  ]/g, "").replace("−", "-").match(/[-+]?\d*\.?\d+(e[-+]?\d+)?/);
    return found ? parseFloat(found[0]) : NaN;
  }

  function compare(column, words, sign) {
    const key = (row) => row.cells[column].textContent.trim();
    if (words) return (a, b) => sign * key(a).localeCompare(key(b), "en", { numeric: true });
    return (a, b) => {
      const [x, y] = [numberOf(key(a)), numberOf(key(b))];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    };
  }

  // A heading is pressed: first as a reader wants it (words from A, numbers from the largest), then the other way,
  // then as it was.
  function setUpTable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const given = [...body.rows];
    heads.forEach((head, column) => {
      const words = head.classList.contains("words");
      const orders = words ? ["ascending", "descending", "none"] : ["descending", "ascending", "none"];
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = orders[(orders.indexOf(now) + 1) % orders.length];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const rows = [...given];
        if (next !== "none") rows.sort(compare(column, words, next === "ascending" ? 1 : -1));
        body.append(...rows);
      });
    });
  }

  document.querySelectorAll("button.theme").forEach(setUpTheme);
  document.querySelectorAll("table.sortable").forEach(setUpTable);
  document.querySelectorAll("form.controls").forEach((form) => {
    form.addEventListener("submit", (event) => event.preventDefault());
  });
})();
