"use strict";
// Readings under the pointer, filters, downloads. The page is complete without it.
(() => {
  const tip = document.getElementById("_tip");
  const SVG = "http://www.w3.org/2000/svg";

  function show(lines, x, y) {
    tip.replaceChildren(...lines.map((line, row) => {
      const part = document.createElement(row ? "div" : "b");
      part.textContent = line;
      return part;
    }));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    const top = y + 14 + box.height > innerHeight ? y - 14 - box.height : y + 14;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
  }

  // A picture: `find` gives the target nearest to a point, `step` the one that an arrow key leads to.
  function follow(svg, find, step, lines, outline) {
    const title = svg.querySelector("title");
    svg.setAttribute("aria-label", title.textContent + ". " + svg.querySelector("desc").textContent);
    title.remove(); // browsers show it over every part of the picture
    const mark = document.createElementNS(SVG, outline);
    mark.setAttribute("class", "cursor");
    let here = null;
    let pressed = false;

    function place(target) {
      here = target;
      for (const [name, value] of Object.entries(target.shape)) mark.setAttribute(name, value);
      svg.append(mark);
      const at = new DOMPoint(target.x, target.y).matrixTransform(svg.getScreenCTM());
      show(lines(target), at.x, at.y);
    }
    function leave() {
      mark.remove();
      tip.hidden = true;
      here = null;
    }
    function point(event) {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const target = find(at.x, at.y);
      if (target) place(target); else leave();
    }
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", event => { pressed = true; point(event); });
    svg.addEventListener("pointerup", () => { pressed = false; });
    svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") leave(); });
    svg.addEventListener("blur", leave);
    svg.addEventListener("focus", () => {
      if (pressed || !svg.matches(":focus-visible")) return;
      const first = step(null, 0, 0);
      if (first) place(first);
    });
    svg.addEventListener("keydown", event => {
      if (event.key === "Escape") return leave();
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const target = step(here, ...way);
      if (target) place(target);
    });
  }

  function curves(svg) {
    const all = JSON.parse(svg.dataset.values);
    all.forEach((each, s) => { // x is written once where it stays the same
      each[1] ??= all[s - 1][1];
      each[3] ??= all[s - 1][3];
    });
    const series = all.filter(each => each[1].length);
    const target = (s, i) => {
      const [, xs, ys] = series[s];
      return { s, i, x: xs[i], y: ys[i], shape: { cx: xs[i], cy: ys[i], r: 5.5 } };
    };
    function find(x, y) {
      let best = Infinity;
      let found = null;
      series.forEach(([, xs, ys], s) => xs.forEach((px, i) => {
        const far = svg.classList.contains("bars") ? Math.abs(px - x) : Math.hypot(px - x, ys[i] - y);
        if (far < best) { best = far; found = [s, i]; }
      }));
      return found && best < 60 ? target(...found) : null;
    }
    function step(here, right, down) {
      if (!series.length) return null;
      if (!here) return target(0, 0);
      const s = (here.s + down + series.length) % series.length;
      const xs = series[s][1];
      let i = here.i + right;
      if (s !== here.s) { // the place nearest on the other curve
        i = xs.reduce((best, px, at) => Math.abs(px - here.x) < Math.abs(xs[best] - here.x) ? at : best, 0);
      }
      return target(s, Math.min(Math.max(i, 0), xs.length - 1));
    }
    const label = svg.dataset.x;
    const lines = ({ s, i }) => {
      const [name, , , at, values] = series[s];
      return name ? [name, (label ? label + " " : "") + at[i] + ": " + values[i]] : [at[i], values[i]];
    };
    follow(svg, find, step, lines, "circle");
  }

  function matrix(svg) {
    const [area, names, rows] = JSON.parse(svg.dataset.values);
    if (!rows) return follow(svg, () => null, () => null, null, "rect");
    const [left, top, side] = area.map(Number);
    const cell = side / rows.length;
    const target = (row, column) => ({
      row, column, x: left + (column + 0.5) * cell, y: top + (row + 0.5) * cell,
      shape: { x: left + column * cell, y: top + row * cell, width: cell, height: cell },
    });
    const inside = place => Math.min(Math.max(place, 0), rows.length - 1);
    const find = (x, y) => {
      const [row, column] = [Math.floor((y - top) / cell), Math.floor((x - left) / cell)];
      return row === inside(row) && column === inside(column) ? target(row, column) : null;
    };
    const step = (here, right, down) => here ? target(inside(here.row + down), inside(here.column + right)) : target(0, 0);
    const lines = ({ row, column }) => {
      const value = rows[row][column];
      return [(names[row] ?? row) + " · " + (names[column] ?? column), value === null ? "–" : String(value).replace("-", "−")];
    };
    follow(svg, find, step, lines, "rect");
  }

  document.querySelectorAll("svg.curves, svg.bars").forEach(curves);
  document.querySelectorAll("svg.matrix").forEach(matrix);

  document.querySelectorAll("p.search").forEach(search => {
    const [input, output] = search.children;
    const rows = [...search.nextElementSibling.querySelectorAll("tbody tr")];
    let texts = null;
    let timer = 0;
    function filter() {
      let heading = "";
      texts ??= rows.map(row => { // what is written in words: digits of numbers would match by chance
        if (row.className === "group") heading = row.textContent;
        const cells = [...row.cells].filter(cell => cell.className !== "n").map(cell => cell.textContent);
        return [heading, ...cells].join(" ").toLowerCase();
      });
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      let group = null;
      rows.forEach((row, place) => {
        if (row.className === "group") {
          group = row;
          group.hidden = words.length > 0;
          return;
        }
        row.hidden = !words.every(word => texts[place].includes(word));
        if (row.hidden) return;
        left += 1;
        if (group) group.hidden = false;
      });
      const count = rows.filter(row => row.className !== "group").length.toLocaleString("en");
      output.value = words.length ? left.toLocaleString("en") + " of " + count + " rows" : count + " rows";
    }
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 120); });
    search.hidden = false;
  });

  const files = document.getElementById("_files");
  document.querySelectorAll("button[data-file]").forEach(button => {
    button.hidden = false;
    button.addEventListener("click", () => {
      const name = button.dataset.file;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([JSON.parse(files.textContent)[name]]));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  });

  function unfold() {
    const aim = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = aim?.querySelector(":scope > details");
    if (details) details.open = true;
  }
  addEventListener("hashchange", unfold);
  unfold();

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach(details => { details.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach(details => { details.open = false; }));
})();
