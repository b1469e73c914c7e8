  // ---- Data ----------------------------------------------------------------------------------------------------
  const { reports, comparison } = JSON.parse(document.getElementById("data").textContent);
  const nameOf = (s) => {
    if (typeof s === "string") return s;
    const [kind, p] = Object.entries(s)[0];
    const main = { concurrent: "streams", throughput: "max_concurrency", users: "users" }[kind];
    if (main) return `${kind} ${p[main]}`;
    if (p.rate != null) return `${kind} ${brief(p.rate)}/s`;
    if (kind === "ramp") return `ramp ${brief(p.from)}–${brief(p.to)}/s`;
    return kind.replace("_", " ");
  };
  const several = reports.length > 1;
  const runName = (r, i) => {
    const labels = Object.entries(r.scenario.labels || {}).map(([k, v]) => `${k}=${v}`).join(" ");
    const own = labels || r.scenario.name;
    return reports.filter((o) => o.scenario.name === r.scenario.name && !labels).length > 1 ? `${own} #${i + 1}` : own;
  };
  const runs = reports.map((r, i) => ({ report: r, name: runName(r, i), color: `var(--c${i % 8})` }));
  const steps = runs.flatMap((run, r) => run.report.steps.map((step, s) => ({
    ...step, run, s, name: (several ? `${run.name}: ` : "") + nameOf(step.strategy), d: step.result.distributions,
  })));
  steps.forEach((step, i) => { step.color = `var(--c${i % 8})`; });
  const q = (d, at) => d && d.quantiles.find((x) => Math.abs(x.q - at) < 1e-9);
  const target = (r) => r.scenario.target.length === 1 ? r.scenario.target[0].url : `${r.scenario.target.length} targets`;
  const limited = (v) => v !== "valid" && v.generator_limited.why;

  // ---- Parts of the page ---------------------------------------------------------------------------------------
  const sentence = (r) => {
    const c = r.conclusion;
    const slo = r.scenario.slo || Object.values(r.scenario.profile || {})[0]?.slo;
    const parts = slo && [["response", slo.response], ["first token", slo.ttft], ["between tokens", slo.itl], ["per token", slo.tpot]].filter(([, v]) => v).map(([n, v]) => `${n} ≤ ${v}`).join(", ");
    const goal = slo && `${parts} for ${+(slo.attainment * 100).toFixed(3)} % of the requests`;
    if (c?.search) return c.search.rate == null ? `No rate meets ${goal}.` : `Up to ${rate(c.search.rate)} it meets ${goal}` + (c.search.low != null ? ` (95 % interval: ${rate(c.search.low)} to ${rate(c.search.high)}).` : ".");
    if (c?.goodput) return c.goodput.met == null ? `It does not meet ${goal}, even with one stream.` : `Up to ${c.goodput.met} streams it meets ${goal}.`;
    if (c && "knee" in c) return c.knee ? `Beyond ${c.knee.concurrency.toFixed(1)} requests in flight more of them bring next to nothing: ${rate(c.knee.throughput)} there.` : "No knee: throughput grows to the last step.";
    return null;
  };
  const headline = () => {
    const rows = comparison[0]?.rows || [], of = (verdict) => rows.filter((row) => row.verdict === verdict).length;
    if (comparison.length !== 1 || !rows.length) return null;
    const [better, worse] = [of("better"), of("worse")];
    return `${runs[1].name} against ${runs[0].name}: ` + (better || worse ? `${[better && `better in ${better}`, worse && `worse in ${worse}`].filter(Boolean).join(" and ")} of ${rows.length} numbers.` : "no difference shown.");
  };
  const pills = (r) => {
    const why = limited(r.verdict);
    const list = [why ? el("span", { class: "pill bad" }, "Not valid: the load generator was the limit") : el("span", { class: "pill good" }, "Valid measurement")];
    if (r.holds != null) list.push(el("span", { class: `pill ${r.holds ? "good" : "bad"}` }, r.holds ? "Objectives hold" : "An objective was missed"));
    const failed = r.steps.reduce((n, s) => n + s.result.run.requests - s.result.run.statuses.ok, 0), all = r.steps.reduce((n, s) => n + s.result.run.requests, 0);
    if (failed) list.push(el("span", { class: "pill warn" }, `${count(failed)} of ${count(all)} requests failed`));
    return [el("div", { class: "pills" }, list), why && el("p", { class: "soft" }, why)];
  };
  const head = () => {
    const first = reports[0];
    const theme = el("button", { type: "button", class: "noprint", onclick: () => {
      const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
    } }, "Light / dark");
    document.title = several ? `Benchmarks: ${runs.map((r) => r.name).join(", ")}` : `Benchmark of ${target(first)}`;
    return el("header", {}, el("div", { class: "top" }, el("h1", {}, several ? `${reports.length} benchmarks compared` : target(first)), theme),
      several && headline() && el("p", { class: "found" }, headline()),
      runs.map((run) => el("div", { style: several ? "margin-top:14px" : null },
        several && el("h3", {}, el("span", { style: `color:${run.color}` }, "● "), `${run.name} `, el("span", { class: "soft" }, target(run.report))),
        el("p", { class: "soft" }, `${run.report.started.replace("T", " ").replace("Z", " UTC")} · ${run.report.steps.length} step${run.report.steps.length === 1 ? "" : "s"} · seed ${run.report.scenario.seed} · ${run.report.machine.processors} processors` + Object.entries(run.report.scenario.labels || {}).map(([k, v]) => ` · ${k}=${v}`).join("")),
        sentence(run.report) && el("p", { class: "found" }, sentence(run.report)), pills(run.report))));
  };
  const tiles = () => {
    let chosen;
    // The step that says most: the highest load that was met, or at which the server kept up.
    const load = (s) => s.result.run.achieved_rate || 0, fits = (s) => s.slo_met ?? (s.result.run.offered_rate != null && load(s) > 0.95 * s.result.run.offered_rate && !s.result.breaches?.length);
    chosen = steps.reduce((best, s, i) => fits(s) && (best < 0 || load(s) > load(steps[best])) ? i : best, -1);
    if (several || chosen < 0) chosen = 0;
    const box = el("div", { class: "tiles" });
    const fill = () => {
      const s = steps[chosen], r = s.result, tile = (name, value, range) => el("div", { class: "tile" }, el("div", { class: "name" }, name), el("div", { class: "value" }, value), el("div", { class: "range" }, range || ""));
      const quantile = (name, d, at) => { const x = q(d, at); return tile(name, x ? time(x.value) : "–", x ? `${time(x.low)} to ${x.high == null ? "?" : time(x.high)}` : `too few samples (${count(d.count)})`); };
      const failed = r.run.requests - r.run.statuses.ok;
      box.replaceChildren(...[
        tile("answered", rate(r.run.achieved_rate), r.run.offered_rate == null ? "closed loop" : `of ${rate(r.run.offered_rate)} offered`),
        quantile("response p50", s.d.response_time, .5), quantile("response p95", s.d.response_time, .95), quantile("response p99", s.d.response_time, .99),
        s.d.ttft && quantile("first token p50", s.d.ttft, .5), s.d.ttft && quantile("first token p95", s.d.ttft, .95),
        s.d.itl && tile("between tokens", time(s.d.itl.mean), `the mean; longest p50 ${time(q(s.d.longest_gap, .5)?.value)}`),
        r.tokens && tile("tokens of answers", rate(r.tokens.output_tokens_per_second), `${count(r.tokens.total_out)} in all`),
        tile("failed", percent(r.run.requests ? failed / r.run.requests : null), `${count(failed)} of ${count(r.run.requests)}`),
        tile("in flight, mean", r.concurrency == null ? "–" : four(r.concurrency), `${count(r.connections_peak)} connections`),
      ].filter(Boolean));
    };
    const pick = choice("Step", steps.map((s, i) => `${i + 1}. ${s.name}`), (i) => { chosen = i; fill(); });
    if (pick) pick.querySelector("select").value = chosen;
    fill();
    return [pick && el("div", { class: "bar", style: "margin-top:20px" }, pick), box,
      el("p", { class: "soft", style: "font-size:13px" }, "Below a quantile: its 95 % interval. Response times count from the moment a request was due, so waiting for a slow server is in them.")];
  };
  const overRate = () => {
    const enough = runs.some((run) => run.report.steps.length > 1);
    if (!enough) return null;
    const measures = [["response time", (s) => s.d.response_time], ["service time", (s) => s.d.service_time], ["time to first token", (s) => s.d.ttft], ["between tokens", (s) => s.d.itl]].filter(([, of]) => steps.some((s) => of(s)?.count));
    const axes = [["requests answered per second", (s) => s.result.run.achieved_rate], ["requests in flight", (s) => s.result.concurrency], ["requests offered per second", (s) => s.result.run.offered_rate]].filter(([, of]) => steps.filter((s) => of(s) != null).length > 1);
    let [measure, axis] = [0, 0];
    const marks = () => { const slo = reports[0].scenario.slo || Object.values(reports[0].scenario.profile || {})[0]?.slo; const limit = slo && [slo.response, null, slo.ttft, slo.itl][[0, 1, 2, 3][["response time", "service time", "time to first token", "between tokens"].indexOf(measures[measure][0])]]; const ns = limit && spans(limit); return ns ? [{ y: ns, text: `objective ${limit}` }] : []; };
    // What a search tries lies close together: a line through it would only show chance.
    const found = !several && reports[0].conclusion?.search, isOpen = (s) => s.result.run.offered_rate != null, open = steps.some(isOpen);
    const make = () => ({
      dots: true, scattered: !!found, found: found?.rate != null && axis !== 1 ? { x: found.rate, low: found.low, high: found.high, text: `found: ${rate(found.rate)}` } : null, marks: marks(), x: { label: axes[axis][0], text: brief, from: 0, tip: (x, p) => p?.more || brief(x) }, y: { label: measures[measure][0], text: tick, tip: time, log: true },
      series: runs.flatMap((run) => [[.5, ""], [.95, "dash"], [.99, "dot"]].map(([at, dash], i) => ({
        name: `${several ? `${run.name} ` : ""}p${at * 100}`, dash: several ? dash : "", color: several ? run.color : `var(--c${[0, 2, 1][i]})`,
        points: steps.filter((s) => s.run === run && axes[axis][1](s) != null).map((s) => { const x = q(measures[measure][1](s), at); return { x: axes[axis][1](s), y: x?.value, low: x?.low, high: x?.high, bad: !!limited(s.result.verdict) || s.result.breaches?.length, apart: open && typeof s.strategy === "object" && "throughput" in s.strategy, more: `${s.name}: ${rate(s.result.run.achieved_rate)} answered` }; }).sort((a, b) => a.x - b.x),
      }))),
    });
    const figure = withLegend(make, (found ? "Bars are 95 % intervals; the green band is that of the rate that was found." : "Bands are 95 % intervals.") + " A hollow point is a step that was ended early, or whose numbers are not valid." + (open && steps.some((s) => typeof s.strategy === "object" && "throughput" in s.strategy) ? " A point off the line is the throughput step: there the next request waits for an answer, so it is no rate that comes by itself." : ""));
    return section("rate", "Latency over load", "Where the curve bends upwards, the server has begun to queue.", el("div", { class: "bar noprint" }, choice("Show", measures.map((x) => x[0]), (i) => { measure = i; figure.refresh(); }), choice("over", axes.map((x) => x[0]), (i) => { axis = i; figure.refresh(); })), figure);
  };
  /** Which part of the requests met the objective, step by step. */
  const attained = () => {
    const told = steps.filter((s) => s.result.attainment?.counted), r = reports[0];
    if (told.length < 2) return null;
    const goal = (r.scenario.slo || Object.values(r.scenario.profile || {})[0]?.slo)?.attainment, c = r.conclusion;
    const open = told.filter((s) => s.result.run.offered_rate != null).length > 1;
    const load = (s) => open ? s.result.run.offered_rate : s.result.concurrency, shown = told.filter((s) => load(s) != null);
    // Wilson's interval of a part.
    const point = (s) => {
      const { met, counted: n } = s.result.attainment, z = 1.96, p = met / n, mid = (p + z * z / 2 / n) / (1 + z * z / n), half = z / (1 + z * z / n) * Math.sqrt(p * (1 - p) / n + z * z / 4 / n / n);
      return { x: load(s), y: p, low: Math.max(0, mid - half), high: Math.min(1, mid + half), bad: !!limited(s.result.verdict), more: `${s.name}: ${count(met)} of ${count(n)} requests` };
    };
    const points = shown.map(point), from = Math.max(0, Math.floor(Math.min(goal ?? 1, ...points.map((p) => p.low)) * 20 - 1) / 20);
    const found = !several && open && c?.search?.rate != null ? { x: c.search.rate, low: c.search.low, high: c.search.high, text: `found: ${rate(c.search.rate)}` } : null;
    const make = () => ({
      dots: true, scattered: true, found, marks: goal ? [{ y: goal, below: true, text: `objective ${percent(goal)}` }] : [],
      x: { label: open ? "requests offered per second" : "requests in flight", text: brief, from: 0, tip: (x, p) => p?.more || brief(x) }, y: { label: "requests in time", text: (y) => percent(y, 0), tip: percent, from, to: 1 + (1 - from) * .06 },
      series: runs.map((run, i) => ({ name: several ? run.name : "requests in time", color: several ? run.color : "var(--c0)", points: points.filter((_, n) => shown[n].run === run).sort((a, b) => a.x - b.x) })),
    });
    return section("objective", "Objective over load", "Which part of the requests was in time. Up to where the points stay above the dotted line, the server meets the objective.", withLegend(make, "Each point is a step, its bar the 95 % interval. A hollow point is a step whose numbers are not valid."));
  };
  const spans = (text) => { let ns = 0; for (const [, n, u] of text.matchAll(/(\d+)\s*(ns|us|µs|ms|s|m|h)\b/g)) ns += n * { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, s: 1e9, m: 6e10, h: 3.6e12 }[u]; return ns; };
  const distribution = () => {
    const measures = [["response time", "response_time"], ["service time", "service_time"], ["time to first token", "ttft"], ["between tokens", "itl"], ["every gap between pieces", "gap"], ["longest gap of each answer", "longest_gap"], ["time per token", "tpot"], ["lateness of the generator", "lateness"]].filter(([, key]) => steps.some((s) => s.d[key]?.count));
    let measure = 0;
    const sorted = several ? steps : [...steps].sort((a, b) => (a.result.run.achieved_rate || 0) - (b.result.run.achieved_rate || 0));
    const few = sorted.length <= 8 ? sorted : sorted.filter((_, i) => i % Math.ceil(sorted.length / 8) === 0 || i === sorted.length - 1);
    const make = () => ({
      near: true, x: { label: "percentile of the requests", kind: "nines", text: (x) => `p${+(x * 100).toFixed(2)}`, tip: (x) => `p${+(x * 100).toFixed(2)}` }, y: { label: measures[measure][0], text: tick, tip: time, log: true },
      series: few.map((s, i) => ({ name: s.name, color: `var(--c${i % 8})`, dash: i >= 8 ? "dash" : "", points: (s.d[measures[measure][1]]?.curve || []).filter(([, share], n, all) => share < 1 || n === 0).map(([x, share]) => ({ x: share, y: x })) })),
    });
    const figure = withLegend(make, "Each nine is as wide as the one before: the right half is the slowest tenth of the requests and less.");
    return section("distribution", "Distribution", "How long the slow ones take. A flat line is a server that treats all requests alike.", el("div", { class: "bar noprint" }, choice("Show", measures.map((x) => x[0]), (i) => { measure = i; figure.refresh(); })), figure);
  };
  const overTime = () => {
    let chosen = 0;
    const w = () => steps[chosen].result.series.width_s || 1;
    // The last part is seldom a whole one: its rates are taken over what there is of it, unless that is too little.
    const b = () => {
      const end = steps[chosen].result.elapsed_ns / 1e9;
      return steps[chosen].result.series.buckets.map((p) => ({ ...p, w: Math.min(w(), end - p.at_s) })).filter((p, i) => i === 0 || p.w > 0.25 * w());
    };
    const x = { label: "seconds since the start of the step", text: brief, from: 0, tip: (x) => `${brief(x)} s to ${brief(x + w())} s` };
    const line = (name, color, of) => ({ name, color, points: b().length < 2 ? [] : b().map((p) => ({ x: p.at_s, y: of(p) })) });
    const figures = [
      withLegend(() => ({ empty: "This step was too short to show a course.", height: 240, x, y: { label: "response time", text: tick, tip: time, log: true }, series: [line("p50", "var(--c0)", (p) => p.p50_ns), line("p95", "var(--c2)", (p) => p.p95_ns), line("p99", "var(--c1)", (p) => p.p99_ns), line("longest", "var(--c3)", (p) => p.max_ns)] })),
      withLegend(() => ({ empty: "", height: 220, x, y: { label: "requests per second", text: brief, tip: four }, series: [line("sent", "var(--c7)", (p) => p.sent / p.w), line("answered", "var(--c2)", (p) => p.ok / p.w), ...(b().some((p) => p.failed) ? [line("failed", "var(--c6)", (p) => p.failed / p.w)] : [])] })),
      withLegend(() => ({ empty: "", height: 220, x, y: { label: "in flight", text: brief }, series: [line("in flight", "var(--c4)", (p) => p.in_flight)] })),
    ];
    if (steps.some((s) => s.result.tokens?.total_out)) figures.push(withLegend(() => ({ empty: "", height: 220, x, y: { label: "tokens of answers per second", text: brief, tip: four }, series: [line("tokens", "var(--c5)", (p) => p.tokens / p.w)] })));
    const pick = choice("Step", steps.map((s, i) => `${i + 1}. ${s.name}`), (i) => { chosen = i; figures.forEach((f) => f.refresh()); });
    return section("time", "Over time", "A server that is warmed up and keeps up is flat here. Warm-up and cool-down are shown as well.", pick && el("div", { class: "bar noprint" }, pick), figures[0], el("div", { class: "pair" }, figures.slice(1)));
  };
  const tokens = () => {
    const told = steps.filter((s) => s.result.tokens);
    if (!told.length) return null;
    const at = (d, p) => time(q(d, p)?.value);
    return section("tokens", "Tokens", "Times of language models, of streamed answers that ended well. Missing values are missing, not zero.", table(
      ["step", "first token p50", "p95", "p99", "between tokens, mean", "p95", "per token, mean", "longest gap p50", "p99", "tokens in", "tokens out", "tokens/s", "tokens/s of one answer"],
      told.map((s) => [s.name, at(s.d.ttft, .5), at(s.d.ttft, .95), at(s.d.ttft, .99), time(s.d.itl?.mean), at(s.d.itl, .95), time(s.d.tpot?.mean), at(s.d.longest_gap, .5), at(s.d.longest_gap, .99), s.d.tokens_in ? four(s.d.tokens_in.mean) : "–", s.d.tokens_out ? four(s.d.tokens_out.mean) : "–", rate(s.result.tokens.output_tokens_per_second), s.d.token_rate ? rate(s.d.token_rate.mean / 1000) : "–"])));
  };
  const errors = () => {
    const kinds = new Map();
    for (const s of steps) for (const [why, n] of Object.entries(s.result.run.reasons)) kinds.set(why, (kinds.get(why) || 0) + n);
    const list = [...kinds].sort((a, b) => b[1] - a[1]), most = list[0]?.[1] || 1;
    const codes = steps.flatMap((s) => (s.result.codes || []).map((c) => [s.name, c.name, count(Object.values(c.statuses).reduce((a, b) => a + b, 0)), time(c.response_time.mean_ns), time(c.response_time.p50_ns), time(c.response_time.p99_ns)]));
    return section("errors", "Errors", list.length ? "Requests that did not end well are in no time above, because a quick refusal would flatter it." : "Every request was answered well.",
      list.length ? el("div", { class: "hbar" }, list.map(([why, n]) => [el("span", {}, why), el("span", {}, el("i", { style: `width:${n / most * 100}%` })), el("span", {}, count(n))])) : null,
      codes.length > 0 && el("details", { open: list.length ? "" : null }, el("summary", {}, "By status code"), table(["step", "code", "requests", "mean", "p50", "p99"], codes)));
  };
  const split = (key, title, what) => {
    const rows = steps.flatMap((s) => (s.result[key] || []).map((p) => [s.name, p.name, count(Object.values(p.statuses).reduce((a, b) => a + b, 0)), count(Object.values(p.statuses).reduce((a, b) => a + b, 0) - p.statuses.ok), time(p.response_time.mean_ns), time(p.response_time.p50_ns), time(p.response_time.p95_ns), time(p.response_time.p99_ns), time(p.ttft?.p50_ns)]));
    return rows.length ? section(key, title, null, table(["step", what, "requests", "failed", "mean", "p50", "p95", "p99", "first token p50"], rows)) : null;
  };
  const stepTable = () => section("steps", "Steps", "Response time is what a user feels; service time begins when the request was sent. Where they differ, requests waited for a connection, or the generator was late.", table(
    ["step", "offered", "answered", "in flight", "requests", "failed", "response p50", "p95", "p99", "service p50", "p95", "p99", "lateness p99", "note"],
    steps.map((s, i) => { const r = s.result, d = s.d, at = (d, p) => time(q(d, p)?.value); return [`${i + 1}. ${s.name}`, rate(r.run.offered_rate), rate(r.run.achieved_rate), r.concurrency == null ? "–" : four(r.concurrency), count(r.run.requests), count(r.run.requests - r.run.statuses.ok), at(d.response_time, .5), at(d.response_time, .95), at(d.response_time, .99), at(d.service_time, .5), at(d.service_time, .95), at(d.service_time, .99), at(d.lateness, .99), limited(r.verdict) ? "not valid" : r.breaches?.length ? r.breaches[0].rule.replace(/_/g, " ") : s.slo_met === false ? "missed" : s.slo_met ? "met" : ""]; })));
  const gates = () => {
    const rows = steps.flatMap((s, i) => (s.gates || []).map((g) => [`${i + 1}. ${s.name}`, g.gate, el("td", {}, g.measured == null ? "too few samples" : /^(errors)/.test(g.gate) ? percent(g.measured, 2) : /^(rate|output)/.test(g.gate) ? rate(g.measured) : time(g.measured * 1e9)), el("td", { class: g.holds ? "better" : "worse" }, g.holds ? "holds" : "missed")]));
    return rows.length ? section("gates", "Gates", null, table(["step", "gate", "measured", ""], rows)) : null;
  };
  const sameStep = (rows) => rows.every((row) => row.step === rows[0].step);
  const compared = () => comparison.length ? section("comparison", "Comparison", "Each run beside the first. An interval that holds 0 shows no difference, which is not the same as that there is none.", comparison.map((c, i) => [el("h3", {}, `${runs[i + 1].name} against ${runs[0].name}`, c.rows.length && sameStep(c.rows) && el("span", { class: "soft" }, ` (${c.rows[0].step})`)), c.rows.length ? table([...(sameStep(c.rows) ? [] : ["step"]), "measure", "", "difference", "95 % interval", runs[0].name, runs[i + 1].name],
    c.rows.map((r) => { const f = r.unit === "ns" ? time : r.unit === "1/s" ? rate : (x) => percent(x, 2), sign = (x) => x == null ? "–" : `${x >= 0 ? "+" : ""}${(x * 100).toFixed(1)} %`; return [...(sameStep(c.rows) ? [] : [r.step]), el("td", { class: "text" }, r.measure), el("td", { class: `text ${r.verdict}` }, r.verdict === "unknown" ? "too little to tell" : r.verdict.replace(/_/g, " ")), sign(r.difference), r.low == null ? "–" : `${sign(r.low)} to ${sign(r.high)}`, f(r.before), f(r.after)]; })) : el("p", {}, "They have no step in common.")])) : null;
  const details = () => section("details", "Details", null, reports.map((r, i) => el("details", {}, el("summary", {}, several ? `Scenario of ${runs[i].name}` : "Scenario"), el("pre", {}, JSON.stringify(r.scenario, null, 2)))),
    el("details", {}, el("summary", {}, "The load generator"), table(["step", "threads", "busy", "starved", "processor time per request", "lateness p50", "p99", "connections", "unsent", "waited", "broken conversations"], steps.map((s, i) => { const r = s.result; return [`${i + 1}. ${s.name}`, r.threads, percent(r.busy), percent(r.starved), r.cpu_us_per_request == null ? "–" : `${four(r.cpu_us_per_request)} µs`, time(q(s.d.lateness, .5)?.value), time(q(s.d.lateness, .99)?.value), count(r.connections_opened), count(r.unsent), count(r.waited), count(r.broken_conversations || 0)]; }))));

  present(() => ({
    top: [head(), ...[tiles()].flat().filter(Boolean)],
    sections: [attained(), overRate(), compared(), gates(), distribution(), overTime(), tokens(), split("targets", "Targets", "target"), split("turns", "Turns of a conversation", "turn"), errors(), stepTable(), details()].filter(Boolean),
    version: reports[0].version,
  }));
