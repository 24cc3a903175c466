// On paper the hashes are open; afterwards they are as they were. The numbers of charts stay on the screen.
(() => {
  "use strict";
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")].filter((one) => !one.closest(".browser, .chart"));
    closed.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));
})();
