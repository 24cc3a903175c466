// Translations of a test set under two systems, A and B; texts come from the JSON beside it and are only ever text.
(() => {
  "use strict";
  const PAGE = 10;

  function element(tag, kind, ...inside) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.append(...inside);
    return made;
  }

  // Which words of an output are in the longest common subsequence with the reference.
  function common(words, reference) {
    const lengths = Array.from({ length: words.length + 1 }, () => new Uint16Array(reference.length + 1));
    for (let i = words.length - 1; i >= 0; i--) {
      for (let j = reference.length - 1; j >= 0; j--) {
        lengths[i][j] = words[i] === reference[j]
          ? lengths[i + 1][j + 1] + 1
          : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
      }
    }
    const found = new Array(words.length).fill(false);
    for (let i = 0, j = 0; i < words.length && j < reference.length;) {
      if (words[i] === reference[j]) { found[i++] = true; j++; }
      else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
      else j++;
    }
    return found;
  }

  const split = (text) => text.split(" ").filter(Boolean).slice(0, 300);

  function compared(text, reference) {
    const words = split(text), same = common(words, split(reference));
    const line = element("span", "text");
    line.dir = "auto";
    words.forEach((word, place) => {
      if (place) line.append(" ");
      line.append(same[place] ? word : element("span", "other", word));
    });
    if (!words.length) line.append(element("em", "", "empty"));
    return line;
  }

  function plain(text) {
    const line = element("span", "text", text);
    line.dir = "auto";
    return line;
  }

  function score([, chrf, right]) {
    const told = element("span", "score", chrf.toFixed(1));
    if (right !== undefined) told.append(element("span", right ? "right" : "wrong", right ? " ✓ right" : " ✗ wrong"));
    return told;
  }

  function setUp(block) {
    const { systems, sentences } = JSON.parse(document.getElementById(block.dataset.source).textContent);
    const form = block.querySelector("form"), list = block.querySelector("ol"), output = block.querySelector("output");
    const pager = block.querySelector(".pager"), [back, on] = pager.querySelectorAll("button");
    const field = (name) => form.elements[name].value;
    const label = (place) => systems[place].join(", ");
    let found = [], page = 0;

    const of = (sentence, place) => sentence[3][sentence[4][place]];
    const gain = (sentence) => of(sentence, Number(field("second")))[1] - of(sentence, Number(field("first")))[1];

    const filters = {
      all: () => true,
      differ: (one, a, b) => one[4][a] !== one[4][b],
      gain: (one) => gain(one) > 0,
      loss: (one) => gain(one) < 0,
      mended: (one, a, b) => !of(one, a)[2] && of(one, b)[2],
      broken: (one, a, b) => of(one, a)[2] && !of(one, b)[2],
    };
    const orders = {
      gain: (x, y) => gain(y) - gain(x),
      loss: (x, y) => gain(x) - gain(y),
      low: (x, y) => of(x, Number(field("second")))[1] - of(y, Number(field("second")))[1],
      length: (x, y) => y[1].length - x[1].length,
      given: (x, y) => x[0] - y[0],
    };

    function row(name, kind, line, told) {
      const term = element("dt", "", name), meaning = element("dd", "", line);
      if (told) meaning.append(told);
      return element("div", kind, term, meaning);
    }

    function everything(sentence) {
      const details = element("details", "", element("summary", "", `All ${systems.length} systems`));
      details.addEventListener("toggle", () => {
        if (!details.open || details.querySelector("dl")) return;
        const rows = sentence[3]
          .map((one, place) => [one, systems.map((_, n) => n).filter((n) => sentence[4][n] === place).map(label)])
          .sort((x, y) => y[0][1] - x[0][1])
          .map(([one, names]) => row(names.join(" · "), "", compared(one[0], sentence[2]), score(one)));
        details.append(element("dl", "lines all", ...rows));
      });
      return details;
    }

    function item(sentence, a, b) {
      const difference = gain(sentence);
      const kind = difference > 0 ? "up" : difference < 0 ? "down" : "same";
      const sign = difference > 0 ? "▲ +" : difference < 0 ? "▼ −" : "= ";
      const words = difference > 0 ? "B is better by " : difference < 0 ? "B is worse by " : "A and B are equal, ";
      const told = element("span", `difference ${kind}`, `${sign}${Math.abs(difference).toFixed(1)}`);
      told.setAttribute("role", "img");
      told.setAttribute("aria-label", `${words}${Math.abs(difference).toFixed(1)}`);
      const rows = [
        row("source", "source", plain(sentence[1])),
        row("reference", "reference", plain(sentence[2])),
        row(`A · ${label(a)}`, "", compared(of(sentence, a)[0], sentence[2]), score(of(sentence, a))),
        row(`B · ${label(b)}`, "", compared(of(sentence, b)[0], sentence[2]), score(of(sentence, b))),
      ];
      const head = element("p", "number", `sentence ${sentence[0]} `, told);
      return element("li", "sentence", head, element("dl", "lines", ...rows), everything(sentence));
    }

    function show() {
      const a = Number(field("first")), b = Number(field("second"));
      const pages = Math.max(Math.ceil(found.length / PAGE), 1);
      page = Math.min(Math.max(page, 0), pages - 1);
      list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((one) => item(one, a, b)));
      list.start = page * PAGE + 1;
      pager.querySelector("span").textContent = `page ${page + 1} of ${pages}`;
      back.disabled = page === 0;
      on.disabled = page === pages - 1;
    }

    function search() {
      const a = Number(field("first")), b = Number(field("second")), wanted = field("text").trim().toLowerCase();
      const holds = (one) => !wanted
        || [one[1], one[2], of(one, a)[0], of(one, b)[0]].some((text) => text.toLowerCase().includes(wanted));
      found = sentences.filter((one) => filters[field("filter")](one, a, b) && holds(one)).sort(orders[field("order")]);
      const mean = found.reduce((sum, one) => sum + gain(one), 0) / (found.length || 1);
      const better = found.filter((one) => gain(one) > 0).length, worse = found.filter((one) => gain(one) < 0).length;
      output.textContent = `${found.length} sentences: B is better in ${better}, worse in ${worse}; `
        + `mean difference ${mean < 0 ? "−" : "+"}${Math.abs(mean).toFixed(1)} chrF`;
      page = 0;
      show();
    }

    form.addEventListener("input", search);
    pager.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      page += Number(button.dataset.step);
      show();
      block.scrollIntoView({ block: "start" });
    });
    search();
  }

  document.querySelectorAll(".browser").forEach(setUp);
})();
