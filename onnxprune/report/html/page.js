"use strict";
// Draws the charts, and makes the page searchable and usable by keyboard. Reads the data blocks above; changes nothing
// but the page and the remembered theme.
(() => {
  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const plots = [...document.querySelectorAll("[data-chart]")];
  const cursor = new Map(); // plot -> index of the point last read
  let drawn = {}, groups = [], query = "", ready = false;

  async function unpack(id) {
    const raw = Uint8Array.from(atob(find(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  function say(text) { find("said").textContent = text; }

  // --- theme ----------------------------------------------------------------------------------------------------

  const memory = {
    get() { try { return localStorage.getItem("onnxprune-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("onnxprune-theme", value); } catch { /* private mode: not remembered */ } },
  };
  const system = matchMedia("(prefers-color-scheme: dark)");

  function setTheme(name) {
    root.dataset.theme = name;
    find("theme").setAttribute("aria-pressed", String(name === "dark"));
    if (ready) plots.forEach(draw);
  }

  setTheme(memory.get() || (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => { if (!memory.get()) setTheme(system.matches ? "dark" : "light"); });
  find("theme").addEventListener("click", () => {
    const name = root.dataset.theme === "dark" ? "light" : "dark";
    memory.set(name);
    setTheme(name);
  });

  // --- charts ---------------------------------------------------------------------------------------------------

  function resolved(value, style) { // the same value with `--name` replaced by that colour of the theme
    if (typeof value === "string") return /^--[a-z]+$/.test(value) ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((v) => resolved(v, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, k === "hovertext" ? v : resolved(v, style)]));
  }

  function draw(plot) {
    const { data, layout } = resolved(drawn[plot.dataset.chart], getComputedStyle(root));
    const moved = plot.layout && plot.dataset.chart === "graph"; // keep the view when only colours change
    if (moved) for (const axis of ["xaxis", "yaxis"]) Object.assign(layout[axis], view(plot, axis));
    if (innerWidth < 640) narrow(layout);
    const zoom = plot.dataset.chart === "graph";
    const config = { displayModeBar: false, responsive: true, scrollZoom: zoom, showTips: false, doubleClick: zoom ? "reset" : false };
    Plotly.react(plot, data, layout, config);
    if (zoom) mark();
  }

  function narrow(layout) { // names beside an axis would leave no room for the bars
    const texts = layout.yaxis.ticktext;
    if (texts) layout.yaxis.ticktext = texts.map((t) => (t.length > 18 ? "…" + t.slice(-17).replace(/^[^&]*;/, "") : t));
    layout.margin = { ...layout.margin, l: 4, r: 8 };
  }

  function view(plot, axis) { return { range: [...plot._fullLayout[axis].range], autorange: false }; }

  // --- reading and moving by keyboard ---------------------------------------------------------------------------

  function targets(plot) { // every point that has a tooltip, in the order of the traces
    return plot.data.flatMap((trace, curveNumber) =>
      trace.hovertext && trace.meta !== "mute" ? trace.hovertext.map((_, pointNumber) => ({ curveNumber, pointNumber })) : []);
  }

  function read(plot, step) {
    const all = targets(plot);
    if (!all.length) return;
    const at = cursor.has(plot) ? (cursor.get(plot) + step + all.length) % all.length : step > 0 ? 0 : all.length - 1;
    cursor.set(plot, at);
    const { curveNumber, pointNumber } = all[at];
    reveal(plot, plot.data[curveNumber], pointNumber);
    const show = () => {
      if (cursor.get(plot) === at && document.activeElement === plot) Plotly.Fx.hover(plot, [all[at]]);
    };
    show();
    setTimeout(show, 150); // what scrolls under a resting pointer takes the tooltip away
    const text = plot.data[curveNumber].hovertext[pointNumber];
    say(`${plain(text)}, ${at + 1} of ${all.length}`);
  }

  function plain(text) { // a tooltip without its markup
    const names = { "&lt;": "<", "&gt;": ">", "&amp;": "&" };
    return text.replace(/<br>/g, ", ").replace(/<\/?b>/g, "").replace(/&(lt|gt|amp);/g, (m) => names[m]);
  }

  function reveal(plot, trace, n) { // scroll a tall chart, or move the graph, to the point being read
    const { xaxis, yaxis } = plot._fullLayout;
    if (plot.dataset.chart === "graph") {
      const inside = (axis, v) => v >= Math.min(...axis.range) && v <= Math.max(...axis.range);
      if (inside(xaxis, trace.x[n]) && inside(yaxis, trace.y[n])) return;
      const centred = (axis, v) => { const half = (axis.range[1] - axis.range[0]) / 2; return [v - half, v + half]; };
      Plotly.relayout(plot, { "xaxis.range": centred(xaxis, trace.x[n]), "yaxis.range": centred(yaxis, trace.y[n]) });
      return;
    }
    const box = plot.parentElement, y = plot._fullLayout.margin.t + yaxis.d2p(trace.y[n]);
    if (y < box.scrollTop + 30 || y > box.scrollTop + box.clientHeight - 30) box.scrollTop = y - box.clientHeight / 2;
  }

  const MOVES = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };
  const KEYS = { "+": "in", "=": "in", "-": "out", "0": "all" };

  function look(plot, how) { // zoom or move the graph
    if (how === "all") return Plotly.relayout(plot, { "xaxis.autorange": true, "yaxis.autorange": "reversed" });
    const change = {};
    for (const [k, name] of ["xaxis", "yaxis"].entries()) {
      const [a, b] = plot._fullLayout[name].range, size = b - a;
      const grow = how === "in" ? -0.2 : how === "out" ? 0.3 : 0;
      const shift = MOVES[how] ? MOVES[how][k] * Math.abs(size) * 0.2 : 0;
      change[`${name}.range`] = [a - size * grow + shift, b + size * grow + shift];
    }
    return Plotly.relayout(plot, change);
  }

  function pressed(event) {
    const plot = event.currentTarget;
    const arrow = event.key.startsWith("Arrow") ? event.key.slice(5).toLowerCase() : "";
    const graph = plot.dataset.chart === "graph";
    if (event.ctrlKey || event.altKey || event.metaKey || !ready) return;
    if (arrow && event.shiftKey && graph) look(plot, arrow);
    else if (arrow && !event.shiftKey) read(plot, arrow === "right" || arrow === "down" ? 1 : -1);
    else if (graph && KEYS[event.key]) look(plot, KEYS[event.key]);
    else if (event.key === "Enter" && cursor.has(plot)) choose(plot, targets(plot)[cursor.get(plot)]);
    else if (event.key === "Escape") Plotly.Fx.unhover(plot);
    else return;
    event.preventDefault();
  }

  for (const plot of plots) {
    plot.addEventListener("keydown", pressed);
    plot.addEventListener("blur", () => { if (ready) Plotly.Fx.unhover(plot); });
    // A wheel over the graph scrolls the page until the graph has the focus.
    plot.addEventListener("wheel", (e) => { if (document.activeElement !== plot) e.stopPropagation(); }, true);
    plot.addEventListener("pointerdown", () => plot.focus({ preventScroll: true }));
  }
  for (const button of document.querySelectorAll("[data-view]"))
    button.addEventListener("click", () => { if (ready) look(find(`${button.dataset.for}-plot`), button.dataset.view); });

  function choose(plot, { curveNumber, pointNumber }) { // a dot of the importance chart opens its group's cut
    const trace = plot.data[curveNumber];
    if (trace.meta !== "groups" || !find("pick")) return;
    find("pick").value = groups.findIndex((g) => g.name === trace.customdata[pointNumber]);
    cut();
    find("cut-finding").scrollIntoView({ block: "nearest" });
  }

  // --- the cut of one group ---------------------------------------------------------------------------------------

  function cut() {
    const group = groups[Number(find("pick").value)];
    if (!group) return;
    const some = group.scores.length < group.before ? ` (${group.scores.length} of them drawn)` : "";
    const went = group.before - group.after;
    find("cut-finding").textContent = went
      ? `${group.shown}: ${went} of ${group.before} units went${some}, with ${(100 * (1 - group.share)).toFixed(1)}% of the importance`
      : `${group.shown}: all ${group.before} units stay${some}`;
    const bars = (kept, name, color) => {
      const at = [...group.kept.keys()].filter((n) => group.kept[n] === kept);
      const texts = at.map((n) => `rank ${n + 1}: ${group.scores[n]}<br>${name}`);
      return { type: "bar", name, x: at.map((n) => n + 1), y: at.map((n) => group.scores[n]), hovertext: texts,
        hoverinfo: "text", marker: { color } };
    };
    drawn.cut.data = [bars(false, "removed", "--removed"), bars(true, "stays", "--kept")].filter((t) => t.x.length);
    cursor.delete(find("cut-plot"));
    draw(find("cut-plot"));
    tabulate(group);
    say(find("cut-finding").textContent);
  }

  function tabulate(group) {
    const table = document.createElement("table");
    table.createCaption().textContent = `Units of ${group.shown}, least important first`;
    const head = table.createTHead().insertRow(), body = table.createTBody();
    for (const title of ["rank", "importance", "result"]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title;
      head.append(cell);
    }
    group.scores.forEach((score, n) => {
      const row = body.insertRow();
      for (const text of [n + 1, score, group.kept[n] ? "stays" : "removed"]) row.insertCell().textContent = text;
    });
    find("cut-table").replaceChildren(table);
  }

  // --- search -----------------------------------------------------------------------------------------------------

  const rows = [...document.querySelectorAll("tr[data-names]")];

  function search() {
    query = find("query").value.trim().toLowerCase();
    const tables = new Map();
    for (const row of rows) {
      const hit = row.dataset.names.includes(query);
      row.hidden = !hit;
      const table = row.closest("table");
      tables.set(table, (tables.get(table) || 0) + hit);
    }
    for (const [table, hits] of tables) {
      const fold = table.closest("details");
      if (fold) fold.open = query !== "" && hits > 0;
    }
    const nodes = ready ? mark() : 0;
    const most = Math.max(0, ...tables.values());
    const total = [...tables.values()].reduce((a, b) => a + b, 0);
    const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
    const groupHits = groups.filter((g) => g.names.includes(query)).length;
    find("hits").textContent = query === "" ? "" : most === 0 && !groupHits ? "nothing found"
      : `${count(groupHits, "group")}, ${count(total, "table row")}${nodes ? `, ${count(nodes, "node")} marked` : ""}`;
  }

  function mark() { // ring the nodes that are found, fade the others; the number of those found
    const plot = find("graph-plot");
    if (!plot || !plot.data) return 0;
    const style = getComputedStyle(root);
    let found = 0;
    plot.data.forEach((trace, curve) => {
      if (trace.meta !== "nodes") return;
      const hits = trace.customdata.map((names) => query !== "" && names.includes(query));
      found += hits.filter(Boolean).length;
      const colour = (name) => style.getPropertyValue(name).trim();
      Plotly.restyle(plot, {
        "marker.line.color": [hits.map((h) => colour(h ? "--hit" : "--card"))],
        "marker.line.width": [hits.map((h) => (h ? 4 : 1.5))],
        "marker.opacity": [hits.map((h) => (h || query === "" ? 1 : 0.25))],
      }, [curve]);
    });
    return found;
  }

  find("query").addEventListener("input", search);
  find("search").addEventListener("submit", (e) => { e.preventDefault(); search(); });

  // --- the rest ---------------------------------------------------------------------------------------------------

  find("save").addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await unpack("report")], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));

  async function start() {
    if (!plots.length) return;
    const library = document.createElement("script");
    const [text, data] = await Promise.all([unpack("library"), unpack("figures")]);
    library.textContent = text;
    document.head.append(library);
    ({ figures: drawn, groups } = JSON.parse(data));
    ready = true;
    for (const plot of plots) {
      plot.replaceChildren();
      draw(plot);
      if (plot.dataset.chart === "importance") plot.on("plotly_click", (e) => choose(plot, e.points[0]));
    }
    if (find("pick")) {
      cut();
      say("");
      find("pick").addEventListener("change", cut);
    }
    search();
    root.dataset.drawn = "yes";
  }

  start().catch(() => {
    for (const note of document.querySelectorAll(".waiting"))
      note.textContent = "This browser cannot unpack the charts (those since 2023 can); the table below holds the same.";
  });
})();
