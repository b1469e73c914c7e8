  // ---- Data ----------------------------------------------------------------------------------------------------
  const { name, version, keys, columns, rows } = JSON.parse(document.getElementById("data").textContent);
  const plain = (cell) => cell.replace(/^"(.*)"$/, "$1");
  const short = (key) => key.split(".").slice(-2).join(".");
  // A point of the sweep: its settings, and what came of it; nothing where that is not known.
  const points = rows.map((row) => ({
    place: row.slice(0, keys.length).map(plain),
    ...Object.fromEntries(columns.slice(keys.length).map((column, i) => [column, row[keys.length + i] === "" ? null : Number(row[keys.length + i])])),
  }));
  const numeric = keys.map((_, k) => points.every((p) => p.place[k] !== "" && Number.isFinite(Number(p.place[k]))));
  const values = keys.map((_, k) => [...new Set(points.map((p) => p.place[k]))]);
  const seconds = (s) => s == null ? "–" : time(s * 1e9);
  const MOST_LINES = 8;

  // ---- Parts of the page ---------------------------------------------------------------------------------------
  let axis = Math.max(0, numeric.indexOf(true));
  const x = (p) => numeric[axis] ? Number(p.place[axis]) : values[axis].indexOf(p.place[axis]);
  const xAxis = () => ({ label: short(keys[axis]), text: numeric[axis] ? brief : (at) => values[axis][at] ?? "", tip: (at) => `${short(keys[axis])} ${numeric[axis] ? brief(at) : values[axis][at]}` });
  // Points that share all other settings are joined, if they are few lines.
  const lines = () => {
    const groups = new Map();
    for (const p of points) {
      const of = keys.map((key, k) => k === axis ? null : `${short(key)} ${p.place[k]}`).filter(Boolean).join(", ");
      groups.set(of, [...(groups.get(of) || []), p]);
    }
    return groups.size <= MOST_LINES ? [...groups] : [["all points", points]];
  };
  const scattered = () => keys.length > 1 && lines()[0][0] === "all points";
  const sorted = (list) => [...list].sort((a, b) => x(a) - x(b));
  const one = (label, of, text, spread) => () => ({
    x: xAxis(), y: { label, text, from: 0 }, dots: true, scattered: scattered(), near: scattered(),
    series: lines().map(([group, list], i) => ({ name: group || label, color: `var(--c${i})`, points: sorted(list).map((p) => ({ x: x(p), y: of(p), low: spread && spread(p) != null ? of(p) - spread(p) : null, high: spread && spread(p) != null ? of(p) + spread(p) : null })) })),
  });
  const figures = [];
  const figure = (make, caption) => { const made = withLegend(make, caption); figures.push(made); return made; };
  const measures = [["mean", "response_mean_s"], ["p50", "response_p50_s"], ["p95", "response_p95_s"], ["p99", "response_p99_s"]];
  let measure = 0;
  const times = () => {
    const alone = lines().length === 1 && !scattered();
    const several = () => ({ x: xAxis(), y: { label: "response time", text: seconds, from: 0 }, dots: true, series: measures.map(([title, column], i) => ({ name: title, color: `var(--c${i})`, points: sorted(points).map((p) => { const off = i === 0 ? p.response_mean_plus_minus_s : null, y = p[column]; return { x: x(p), y, low: off == null ? null : y - off, high: off == null ? null : y + off }; }) })) });
    const chosen = () => one(`response time, ${measures[measure][0]}`, (p) => p[measures[measure][1]], seconds, measure === 0 ? (p) => p.response_mean_plus_minus_s : null)();
    const make = alone && keys.length === 1 ? several : chosen;
    return section("times", "Response time", "Of requests that ended well. A band is what the mean may be off, with several replications.", el("div", { class: "bar noprint" }, make === chosen && choice("Measure", measures.map(([title]) => title), (i) => { measure = i; figures.forEach((f) => f.refresh()); })), figure(make));
  };
  const rest = () => section("costs", "Failures and costs", null, el("div", { class: "pair" },
    figure(one("failed", (p) => p.requests ? p.failed / p.requests : null, percent), "Share of the requests that failed."),
    figure(one("cold starts", (p) => p.requests ? p.cold / p.requests : null, percent), "Share of the requests that waited for a replica to start."),
    figure(one("replica-hours", (p) => p.replica_hours, four), "Hours that replicas were there."),
    points.some((p) => p.joules != null) && figure(one("energy", (p) => p.joules, (joules) => `${brief(joules)} J`), "Energy of the nodes.")));
  const formats = { requests: count, failed: count, cold: count, achieved_per_s: rate, replica_hours: four, joules: brief };
  const all = () => section("points", "Points", "Every point of the sweep; differences are from the first, seed by seed.", table(
    [...keys.map(short), ...columns.slice(keys.length).map((column) => column.replace(/(_per)?_s$/, "").replace(/_/g, " "))],
    points.map((p) => [...p.place, ...columns.slice(keys.length).map((column) => p[column] == null ? "–" : column in formats ? formats[column](p[column]) : column.endsWith("_s") ? (p[column] < 0 ? "−" : "") + seconds(Math.abs(p[column])) : count(p[column]))])));
  const top = () => [el("header", {}, el("h1", {}, `Sweep of ${name}`), el("p", { class: "soft" }, `${count(points.length)} points of ${keys.join(", ")}`)),
    el("div", { class: "bar noprint" }, choice("Over", keys.map(short), (i) => { axis = i; figures.forEach((f) => f.refresh()); }))];

  present(() => { const head = top(); return { top: head, sections: [times(), rest(), all()], version }; });
