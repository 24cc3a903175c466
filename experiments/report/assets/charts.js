// Charts: what a mark says is shown when it is pointed at or reached by key; the legend hides and shows series.
(() => {
  "use strict";
  const tooltip = document.querySelector(".tooltip");

  function tell(mark) {
    const box = mark.getBoundingClientRect();
    tooltip.textContent = mark.getAttribute("aria-label");
    tooltip.hidden = false;
    const width = tooltip.offsetWidth, height = tooltip.offsetHeight, room = document.documentElement.clientWidth;
    const left = Math.min(Math.max(box.left + box.width / 2 - width / 2, 8), room - width - 8);
    const above = box.top - height - 6;
    tooltip.style.left = `${left + scrollX}px`;
    tooltip.style.top = `${(above > 4 ? above : box.bottom + 6) + scrollY}px`;
  }

  const shown = (mark) => !mark.closest(".series").classList.contains("off");

  // One mark of a drawing can be reached by Tab; the arrow keys go on from there.
  function setUpDrawing(svg) {
    const marks = [...svg.querySelectorAll("[role=img]")];
    if (!marks.length) return;
    marks[0].setAttribute("tabindex", "0");
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") tooltip.hidden = true;
      const there = marks.filter(shown), now = there.indexOf(document.activeElement);
      if (!(event.key in steps) || now < 0) return;
      event.preventDefault();
      const next = there[(now + steps[event.key] + there.length) % there.length];
      marks.forEach((mark) => mark.setAttribute("tabindex", mark === next ? "0" : "-1"));
      next.focus();
    });
    const figure = svg.closest("figure");
    for (const mark of marks) {
      const { series } = mark.closest(".series").dataset;
      const start = () => { tell(mark); emphasise(figure, series); };
      const end = () => { tooltip.hidden = true; emphasise(figure, null); };
      mark.addEventListener("pointerenter", start);
      mark.addEventListener("focus", start);
      mark.addEventListener("pointerleave", end);
      mark.addEventListener("blur", end);
    }
  }

  // The other series step back.
  function emphasise(figure, series) {
    for (const group of figure.querySelectorAll(".series")) {
      group.classList.toggle("back", series !== null && group.dataset.series !== series);
    }
  }

  function setUpLegend(button) {
    const figure = button.closest("figure"), { series } = button.dataset;
    button.addEventListener("click", () => {
      const off = button.ariaPressed === "true";
      button.ariaPressed = String(!off);
      for (const group of figure.querySelectorAll(`.series[data-series="${series}"]`)) {
        group.classList.toggle("off", off);
      }
    });
    button.addEventListener("pointerenter", () => emphasise(figure, series));
    button.addEventListener("pointerleave", () => emphasise(figure, null));
  }

  document.querySelectorAll("figure.chart .canvas svg").forEach(setUpDrawing);
  document.querySelectorAll(".legend button").forEach(setUpLegend);
})();
