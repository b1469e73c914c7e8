  // ---- Numbers as people read them -----------------------------------------------------------------------------
  const four = (x) => {
    const size = Math.abs(x);
    const digits = size >= 999.95 ? 0 : size >= 99.995 ? 1 : size >= 9.9995 ? 2 : 3;
    return x.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  const brief = (x) => +x.toPrecision(3) >= 1000 ? Math.round(x).toLocaleString("en-US") : String(+x.toPrecision(3));
  const unitOf = (ns) => ns >= 1e9 ? [1e9, "s"] : ns >= 1e6 ? [1e6, "ms"] : ns >= 1e3 ? [1e3, "µs"] : [1, "ns"];
  const time = (ns) => { if (ns == null) return "–"; if (ns === 0) return "0"; const [u, n] = unitOf(ns); return `${four(ns / u)} ${n}`; };
  const tick = (ns) => { if (ns === 0) return "0"; const [u, n] = unitOf(ns * 1.0000001); return `${brief(ns / u)} ${n}`; };
  const rate = (x) => x == null ? "–" : `${four(x)}/s`;
  const count = (x) => x == null ? "–" : x.toLocaleString("en-US");
  const percent = (x, digits = 1) => x == null ? "–" : `${(x * 100).toFixed(digits)} %`;

  // ---- Elements ------------------------------------------------------------------------------------------------
  const add = (node, children) => { for (const c of [children].flat(9)) if (c != null && c !== false) node.append(c); return node; };
  const el = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [k, v] of Object.entries(attributes)) if (v != null) k.startsWith("on") ? node.addEventListener(k.slice(2), v) : node.setAttribute(k, v);
    return add(node, children);
  };
  const svg = (name, attributes = {}, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) if (v != null) node.setAttribute(k, v);
    return add(node, children);
  };
  const table = (head, rows) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": head.join(", ") }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((h, i) => el("th", { scope: "col", class: rows[0]?.[i]?.classList?.contains("text") ? "text" : null }, h)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => cell instanceof Node ? cell : el("td", {}, cell)))))));

  // ---- Charts --------------------------------------------------------------------------------------------------
  let drawn = 0, printing = false;
  const redraws = [];
  const linear = (lo, hi) => {
    const step = (() => { const raw = (hi - lo) / 5 || 1, p = 10 ** Math.floor(Math.log10(raw)), m = raw / p; return (m > 5 ? 10 : m > 2 ? 5 : m > 1 ? 2 : 1) * p; })();
    const ticks = [];
    for (let x = Math.ceil(lo / step - 1e-9) * step; x <= hi + step * 1e-6; x += step) ticks.push(Math.abs(x) < step * 1e-6 ? 0 : x);
    return { at: (x) => (x - lo) / (hi - lo || 1), ticks };
  };
  const log = (lo, hi) => {
    const a = Math.log10(lo), b = Math.log10(hi), ticks = [];
    const wide = b - a > 4 ? [1] : b - a > 2 ? [1, 3] : b - a > 0.9 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
    for (let e = Math.floor(a); e <= b; e++) for (const m of wide) { const x = m * 10 ** e; if (x >= lo * 0.999 && x <= hi * 1.001) ticks.push(x); }
    return { at: (x) => (Math.log10(Math.max(x, lo)) - a) / (b - a || 1), ticks };
  };
  // Percentiles, each nine as wide as the one before.
  const nines = (top) => {
    const f = (x) => -Math.log10(1 - Math.min(x, top)), end = f(top);
    return { at: (x) => f(x) / end, ticks: [0, 0.5, 0.9, 0.99, 0.999, 0.9999].filter((x) => x <= top) };
  };

  /** A chart of lines: { series: [{name, color, dash, points: [{x, y, low, high, more}]}], x, y: {label, text, log, kind}, height }. */
  const chart = (make) => {
    const box = el("div", { class: "chart" });
    const draw = () => {
      const spec = make();
      // On paper the drawing is scaled to the width that there is.
      const paper = printing && (box.closest(".pair") ? 440 : 900);
      const width = paper || Math.max(260, box.clientWidth || 640), height = paper ? 250 : spec.height || (width < 520 ? 260 : 320);
      const m = { l: 62, r: 12, t: 20, b: 38 }, w = width - m.l - m.r, h = height - m.t - m.b;
      const all = spec.series.flatMap((s) => s.points.filter((p) => p.y != null));
      box.replaceChildren();
      if (!all.length) { box.append(el("p", { class: "soft" }, spec.empty || "Nothing to show.")); return; }
      const ys = all.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]).filter((y) => !spec.y.log || y > 0);
      const xs = all.map((p) => p.x);
      let [ylo, yhi] = [Math.min(...ys), Math.max(...ys)];
      if (spec.y.log && yhi / ylo > 3) { ylo /= 1.15; yhi *= 1.15; } else { spec.y.log = false; ylo = spec.y.from ?? 0; yhi = spec.y.to ?? (yhi || 1) * 1.08; }
      const xlo = spec.x.from ?? Math.min(...xs), xhi = Math.max(...xs);
      const X = spec.x.kind === "nines" ? nines(Math.max(0.9, xhi)) : linear(xlo === xhi ? 0 : xlo, xhi || 1);
      const Y = spec.y.log ? log(ylo, yhi) : linear(ylo, yhi);
      const px = (x) => m.l + X.at(x) * w, py = (y) => m.t + (1 - Y.at(y)) * h;
      const g = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${spec.y.label} over ${spec.x.label}` });
      for (const y of Y.ticks) add(g, [svg("line", { class: "grid", x1: m.l, x2: m.l + w, y1: py(y), y2: py(y) }), svg("text", { x: m.l - 8, y: py(y) + 4, "text-anchor": "end" }, spec.y.text(y))]);
      let last = -99;
      for (const x of X.ticks) if (px(x) - last > 46) { last = px(x); add(g, [svg("line", { class: "axis", x1: last, x2: last, y1: m.t + h, y2: m.t + h + 5 }), svg("text", { x: last, y: m.t + h + 18, "text-anchor": "middle" }, spec.x.text(x))]); }
      add(g, [svg("line", { class: "axis", x1: m.l, x2: m.l + w, y1: m.t + h, y2: m.t + h }),
        svg("text", { x: m.l + w, y: height - 2, "text-anchor": "end" }, spec.x.label), svg("text", { x: 0, y: 10 }, spec.y.label)]);
      for (const s of spec.series) {
        const points = s.points.filter((p) => p.y != null && (!spec.y.log || p.y > 0));
        const band = points.filter((p) => p.low != null && p.high != null && !p.apart), joined = points.filter((p) => !p.apart);
        if (spec.scattered) for (const p of band) g.append(svg("line", { x1: px(p.x), x2: px(p.x), y1: py(p.low), y2: py(p.high), stroke: s.color, "stroke-width": 2, opacity: .45 }));
        else if (band.length > 1) g.append(svg("path", { fill: s.color, opacity: .16, d: "M" + band.map((p) => `${px(p.x)},${py(p.low)}`).join("L") + "L" + band.reverse().map((p) => `${px(p.x)},${py(p.high)}`).join("L") + "Z" }));
        if (joined.length > 1 && !spec.scattered) g.append(svg("path", { fill: "none", stroke: s.color, "stroke-width": 2, "stroke-linejoin": "round", "stroke-dasharray": { dash: "7 4", dot: "2 4" }[s.dash], d: "M" + joined.map((p) => `${px(p.x).toFixed(1)},${py(p.y).toFixed(1)}`).join("L") }));
        if (points.length === 1 || spec.dots) for (const p of points) g.append(svg("circle", { cx: px(p.x), cy: py(p.y), r: 3.5, fill: p.bad ? "var(--page)" : s.color, stroke: s.color, "stroke-width": 2 }));
      }
      for (const mark of spec.marks || []) if (mark.y > ylo && mark.y < yhi) add(g, [svg("line", { class: "cross", x1: m.l, x2: m.l + w, y1: py(mark.y), y2: py(mark.y) }), svg("text", { x: m.l + 6, y: py(mark.y) + (mark.below ? 15 : -5) }, mark.text)]);
      if (spec.found && spec.found.x > xlo && spec.found.x < xhi) {
        const { x, low, high, text } = spec.found, left = px(x) > m.l + w / 2;
        if (low != null && high != null) g.append(svg("rect", { x: px(Math.max(low, xlo)), width: Math.max(0, px(Math.min(high, xhi)) - px(Math.max(low, xlo))), y: m.t, height: h, fill: "var(--good)", opacity: .14 }));
        add(g, [svg("line", { class: "cross", x1: px(x), x2: px(x), y1: m.t, y2: m.t + h }), svg("text", { x: px(left ? low ?? x : high ?? x) + (left ? -6 : 6), y: m.t + h - 8, "text-anchor": left ? "end" : "start" }, text)]);
      }
      const cross = svg("line", { class: "cross", y1: m.t, y2: m.t + h, visibility: "hidden" });
      const tip = el("div", { class: "tip", hidden: "" });
      const places = [...new Set(all.map((p) => p.x))].sort((a, b) => a - b);
      const show = (x) => {
        cross.setAttribute("x1", px(x)); cross.setAttribute("x2", px(x)); cross.setAttribute("visibility", "visible");
        // Curves have points of their own: each tells the one nearest below the pointer.
        const rows = spec.series.map((s) => {
          const p = spec.near ? s.points.reduce((best, p) => p.y != null && Math.abs(X.at(p.x) - X.at(x)) < Math.abs(X.at(best?.x ?? 1e99) - X.at(x)) ? p : best, null) : s.points.find((p) => p.x === x && p.y != null);
          if (!p) return null;
          const range = p.low != null ? ` (${spec.y.text(p.low)}–${p.high == null ? "?" : spec.y.text(p.high)})` : "";
          return el("tr", {}, el("td", {}, el("span", { style: `color:${s.color}` }, "● "), s.name), el("td", {}, (spec.y.tip || spec.y.text)(p.y) + range));
        });
        const title = spec.x.tip ? spec.x.tip(x, all.find((p) => p.x === x)) : `${spec.x.text(x)} ${spec.x.label}`;
        tip.replaceChildren(el("strong", {}, title), add(el("table", {}), rows));
        tip.hidden = false;
        const left = px(x) * (box.clientWidth / width);
        tip.style.left = `${Math.max(0, left + 14 + tip.offsetWidth > box.clientWidth ? left - tip.offsetWidth - 14 : left + 14)}px`;
        tip.style.top = `${m.t}px`;
      };
      const hide = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
      g.addEventListener("pointermove", (event) => {
        const share = ((event.clientX - g.getBoundingClientRect().left) * (width / g.getBoundingClientRect().width) - m.l) / w;
        show(places.reduce((best, x) => Math.abs(X.at(x) - share) < Math.abs(X.at(best) - share) ? x : best));
      });
      g.addEventListener("pointerleave", hide);
      g.append(cross);
      box.append(g, tip);
      drawn++;
    };
    redraws.push(draw);
    return Object.assign(box, { draw });
  };
  /** A chart with a legend whose entries can be switched off. */
  const withLegend = (make, caption) => {
    const off = new Set(), legend = el("div", { class: "legend" });
    const box = chart(() => { const spec = make(); return { ...spec, series: spec.series.filter((s) => !off.has(s.name)) }; });
    const refresh = () => {
      legend.replaceChildren(...make().series.filter((s) => s.points.some((p) => p.y != null)).map((s) => el("button", { type: "button", "aria-pressed": String(!off.has(s.name)), onclick: () => { off.has(s.name) ? off.delete(s.name) : off.add(s.name); refresh(); box.draw(); } },
        el("span", { class: `key ${s.dash || ""}`, style: `color:${s.color}` }), s.name)));
    };
    refresh();
    const figure = el("figure", {}, legend, box, caption && el("figcaption", {}, caption));
    return Object.assign(figure, { refresh: () => { refresh(); box.draw(); } });
  };
  const choice = (label, options, onchange) => options.length < 2 ? null : el("label", {}, `${label} `, el("select", { onchange: (event) => onchange(+event.target.value) }, options.map((o, i) => el("option", { value: i }, o))));
  const section = (id, title, lead, ...content) => el("section", { id, "data-title": title }, el("h2", {}, title), lead && el("p", { class: "lead" }, lead), ...content);

  /** Shows the page that `make` makes: { top, sections, version }. */
  const present = (make) => {
    try {
      const { top, sections, version } = make();
      document.getElementById("report").replaceChildren(...top, el("nav", { "aria-label": "Sections" }, sections.map((s) => el("a", { href: `#${s.id}` }, s.dataset.title))), ...sections,
        el("footer", {}, `Made by gatewright ${version}. This file holds all of its data and needs no network.`));
      redraws.forEach((draw) => draw());
      let width = innerWidth;
      addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraws.forEach((draw) => draw()); } });
      for (const event of ["beforeprint", "afterprint"]) addEventListener(event, () => { printing = event === "beforeprint"; redraws.forEach((draw) => draw()); });
      document.documentElement.dataset.charts = String(drawn);
    } catch (fault) {
      document.documentElement.dataset.fault = String(fault);
      throw fault;
    }
  };

