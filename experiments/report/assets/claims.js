// Claims: shown by verdict and text, in the order that is asked for.
(() => {
  "use strict";

  function setUp(block) {
    const form = block.querySelector("form"), list = block.querySelector("ol");
    const items = [...list.children], buttons = [...form.querySelectorAll("[data-verdict]")];
    const number = (item, name) => Number(item.dataset[name]);
    const orders = {
      given: (a, b) => number(a, "place") - number(b, "place"),
      verdict: (a, b) => number(a, "rank") - number(b, "rank") || orders.given(a, b),
      about: (a, b) => a.dataset.about.localeCompare(b.dataset.about, "en") || orders.given(a, b),
    };

    function show() {
      const verdicts = new Set(buttons.filter((one) => one.ariaPressed === "true").map((one) => one.dataset.verdict));
      const wanted = form.elements.text.value.trim().toLowerCase();
      let count = 0;
      for (const item of items) {
        item.hidden = !verdicts.has(item.dataset.verdict) || !item.textContent.toLowerCase().includes(wanted);
        count += !item.hidden;
      }
      list.append(...items.sort(orders[form.elements.order.value]));
      form.querySelector("output").textContent = `${count} of ${items.length} claims`;
    }

    for (const button of buttons) {
      button.addEventListener("click", () => {
        button.ariaPressed = String(button.ariaPressed !== "true");
        show();
      });
    }
    form.addEventListener("input", show);
  }

  document.querySelectorAll(".claims").forEach(setUp);
})();
