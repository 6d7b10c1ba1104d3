// What the page can do with script: points tell their numbers (pointer, or arrow keys), the legend hides series.
// Text goes in as textContent only.
(() => {
  "use strict";
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const spoken = document.createElement("p");
  spoken.className = "spoken";
  spoken.setAttribute("role", "status");
  document.body.append(tip, spoken);

  const NEAR = 22;
  const middle = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const marksOf = (figure) =>
    [...figure.querySelectorAll("[data-tip]")].filter((mark) => mark.getClientRects().length > 0);

  let current = null;
  const hide = () => {
    if (current) current.classList.remove("current");
    current = null;
    tip.hidden = true;
  };
  const show = (mark) => {
    if (mark === current) return;
    hide();
    current = mark;
    mark.classList.add("current");
    const [title, ...lines] = mark.dataset.tip.split("\n");
    const head = document.createElement("strong");
    head.textContent = title;
    tip.replaceChildren(head, ...lines.map((line) => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }));
    tip.hidden = false;
    const [x, y] = middle(mark);
    const width = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(8, Math.min(x + 14, width - tip.offsetWidth - 8)) + window.scrollX}px`;
    const above = y - tip.offsetHeight - 14;
    tip.style.top = `${(above > 8 ? above : y + 16) + window.scrollY}px`;
  };
  const nearest = (figure, event) => {
    let best = null, least = NEAR;
    for (const mark of marksOf(figure)) {
      const [x, y] = middle(mark);
      const distance = Math.hypot(x - event.clientX, y - event.clientY);
      if (distance < least) [best, least] = [mark, distance];
    }
    return best;
  };

  for (const figure of document.querySelectorAll("figure")) {
    figure.tabIndex = 0;
    const point = (event) => {
      const mark = nearest(figure, event);
      if (mark) show(mark); else hide();
    };
    figure.addEventListener("pointermove", point);
    figure.addEventListener("pointerdown", point);
    figure.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    figure.addEventListener("blur", hide);
    figure.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { hide(); return; }
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const marks = marksOf(figure).sort((a, b) => middle(a)[0] - middle(b)[0]);
      if (!marks.length) return;
      const from = marks.indexOf(current);
      const first = step > 0 ? 0 : marks.length - 1;
      const place = Number.isFinite(step) && from < 0 ? first : from + step;
      show(marks[Math.max(0, Math.min(marks.length - 1, place))]);
      spoken.textContent = current.dataset.tip;
    });
  }

  // A series is found by its colour: charts carry no classes.
  for (const entry of document.querySelectorAll(".legend [data-variable]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(...entry.childNodes);
    entry.append(button);
    const colour = `var(--${entry.dataset.variable})`;
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isShown));
      for (const mark of document.querySelectorAll(`figure [stroke="${colour}"], figure [fill="${colour}"]`)) {
        mark.style.display = isShown ? "" : "none";
      }
      hide();
    });
  }
})();
