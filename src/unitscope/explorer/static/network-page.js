// The network: its head in words, its stages drawn, and its layers in order of execution.
import { address, choose, parsed } from "./addresses.js";
import { index, load, site } from "./data.js";
import { breakable, cell, h, link, rowHead, svg } from "./dom.js";
import { count } from "./numbers.js";
import { page, show } from "./page.js";

// A network of fewer layers is shown with all its stages open.
const FEW = 60;
// The plans of the diagram, from the widest on; the style sheet shows the one that has room.
const WIDTHS = ["wide", "middle", "narrow"];

// The diagram

const area = (numbers) => {
  const points = [];
  for (let place = 0; place < numbers.length; place += 2) points.push(`${numbers[place]} ${numbers[place + 1]}`);
  return `M${points.join("L")}z`;
};
const volume = (part) =>
  svg(
    "g",
    { class: `net-volume of-${part.kind}` },
    ...Object.entries(part.faces).map(([face, numbers]) => svg("path", { class: `face-${face}`, d: area(numbers) })),
    ...part.lines.map(([x, y, line], place) =>
      svg("text", { x, y, "text-anchor": "middle", class: place ? "below" : "first" }, line),
    ),
  );
const arrow = ([x1, y, x2]) =>
  svg(
    "g",
    { class: "net-arrow" },
    svg("path", { class: "shaft", d: `M${x1} ${y}H${x2 - 4}` }),
    svg("path", { class: "tip", d: `M${x2} ${y}l-6 -3.5v7z` }),
  );
// One plan as a picture whose volumes are links to the layers of their stage.
const drawn = (plan, width, title, description, open) => {
  const [titled, described] = [`network-${width}-title`, `network-${width}-description`];
  const parts = plan.parts.map((part) => {
    const told = svg("title", {}, part.title);
    if (part.stage === null) return svg("g", {}, told, volume(part));
    const href = address(["network"], new URLSearchParams({ stage: part.stage }));
    const linked = svg("a", { href, "aria-label": `${part.title}: layers` }, told, volume(part));
    linked.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(part.stage);
    });
    return linked;
  });
  return svg(
    "svg",
    {
      class: `network ${width}`,
      viewBox: `0 0 ${plan.width} ${plan.height}`,
      width: plan.width,
      height: plan.height,
      role: "group",
      "aria-labelledby": titled,
      "aria-describedby": described,
    },
    svg("title", { id: titled }, title),
    svg("desc", { id: described }, description),
    ...plan.arrows.map(arrow),
    ...parts,
  );
};

// Layers

const ofAtlas = (name) => index && index.layers.some((layer) => layer.name === name);
const thousands = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, " ");
// What can be looked at of a layer.
const seen = (layer) => [
  ofAtlas(layer.name) && link(address(["layer", layer.name]), "units"),
  layer.filters && link(address(["filters", layer.filters.layer]), `filters ${layer.filters.size.join(" × ")}`),
];
const row = (layer, head) => {
  const parameters = layer.parameters ? thousands(layer.parameters) : "–";
  const classes = [layer.head && "net-head", !layer.leaf && "net-holds"].filter(Boolean).join(" ");
  const reader = head.exact ? "the head reads this map" : "photos are explained here";
  const short = [layer.kind, layer.shape, layer.parameters > 0 && count(layer.parameters, "parameter")];
  const line = h(
    "tr",
    { class: classes || false, tabindex: "-1" },
    rowHead([
      breakable(layer.name).flatMap((part) => (typeof part === "string" ? dotted(part) : [part])),
      layer.head && h("strong", { class: "net-mark" }, reader),
      h("small", { class: "net-short" }, short.filter(Boolean).join(", ")),
    ]),
    cell(layer.kind, "wide"),
    cell(layer.shape, "n wide output"),
    cell(parameters, "n wide"),
    cell(seen(layer), "net-see"),
  );
  line.layer = layer;
  line.addEventListener("keydown", (event) => {
    const first = event.key === "Enter" && event.target === line && line.querySelector("a");
    if (first) first.click();
  });
  return line;
};
// A name may be broken after a dot.
const dotted = (text) => text.split(/(?<=\.)/).flatMap((part, place) => (place ? [h("wbr"), part] : [part]));

const titleOf = (stage) => {
  if (!stage.shape.length) return "Layers";
  const [units, ...cells] = stage.shape;
  const single = cells.every((cells) => cells === 1);
  return single ? count(units, "number") : stage.shape.join(" × ");
};
const toldOf = (stage) =>
  [
    stage.convolutions > 0 && count(stage.convolutions, "convolution"),
    count(stage.layers.length, "layer"),
    stage.first && (stage.first === stage.last ? stage.first : `${stage.first} to ${stage.last}`),
  ]
    .filter(Boolean)
    .join(", ");
const stageOf = (stage, head) => {
  const rows = stage.layers.map((layer) => row(layer, head));
  const shown = h("span", { class: "net-told" }, toldOf(stage));
  const element = h(
    "details",
    { class: "net-stage" },
    h("summary", {}, h("h3", {}, titleOf(stage)), shown),
    h(
      "table",
      { class: "net-layers" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "layer"),
          h("th", { scope: "col", class: "wide" }, "kind"),
          h("th", { scope: "col", class: "n wide" }, "output"),
          h("th", { scope: "col", class: "n wide" }, "parameters"),
          h("th", { scope: "col" }, "look at"),
        ),
      ),
      h("tbody", {}, rows),
    ),
  );
  return { element, rows, shown, stage };
};

// The page

const headWords = (head) =>
  head.kind === "none"
    ? h("p", { class: "lead" }, "Photos cannot be explained: ", head.reason, ".")
    : [
        h("p", { class: "lead" }, head.words[0].toUpperCase(), head.words.slice(1), "."),
        h(
          "p",
          { class: "soft" },
          head.exact
            ? `Exact (${head.kind}): ${head.checked}.`
            : `Not exact: ${head.reason}. Measured: ${head.checked}.`,
        ),
      ];
const command = () => {
  const spec = site.model && site.model.spec ? ` --model ${site.model.spec}` : "";
  return h("code", {}, `unitscope scan PHOTOS${spec} --out ATLAS --layer NAME`);
};

export const networkPage = async (parts, query) => {
  const here = location.hash;
  const told = await load("network");
  if (here !== location.hash) return;
  const { head } = told;
  const stages = told.stages.map((stage) => stageOf(stage, head));
  const all = told.stages.reduce((sum, stage) => sum + stage.layers.length, 0);
  const status = h("p", { class: "count", role: "status" });
  const search = h("input", {
    type: "search",
    name: "q",
    value: query.get("q") || "",
    placeholder: "name or kind",
    autocomplete: "off",
    spellcheck: "false",
    oninput: (event) => (choose({ q: event.target.value.trim() }, false), refresh()),
  });
  const usual = () =>
    [...stages.keys()].filter((place) => all <= FEW || told.stages[place].layers.some((layer) => layer.head));
  // Which stages the address says are open.
  const opened = (now) => {
    const list = now.has("open") ? now.get("open").split(".").map(Number) : usual();
    const all = now.has("stage") ? [...list, Number(now.get("stage"))] : list;
    return new Set(all.filter((place) => place in stages));
  };
  const refresh = () => {
    const now = parsed().query;
    const words = (now.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const open = opened(now);
    let found = 0;
    stages.forEach(({ element, rows, shown, stage }, place) => {
      let here = 0;
      for (const line of rows) {
        const text = `${line.layer.name} ${line.layer.kind}`.toLowerCase();
        line.hidden = !words.every((word) => text.includes(word));
        here += !line.hidden;
      }
      element.hidden = words.length > 0 && !here;
      element.open = words.length > 0 ? here > 0 : open.has(place);
      shown.textContent = words.length ? `${here} of ${count(stage.layers.length, "layer")}` : toldOf(stage);
      found += here;
    });
    status.textContent = words.length ? `${found} of ${count(all, "layer")}` : count(all, "layer");
  };
  // What the reader opens or closes; the address knows already what it opened itself.
  const keep = () => {
    const now = parsed().query;
    if (now.get("q")) return;
    const open = stages.flatMap(({ element }, place) => (element.open ? [place] : []));
    const known = opened(now);
    if (open.length !== known.size || open.some((place) => !known.has(place)))
      choose({ open: open.join(".") || "none", stage: "" }, false);
  };
  const jump = (place) => {
    const { element } = stages[place] || {};
    if (!element) return;
    element.scrollIntoView({ block: "start" });
    element.querySelector("summary").focus({ preventScroll: true });
  };
  const open = (place) => {
    choose({ stage: String(place), q: "" }, true);
    search.value = "";
    refresh();
    jump(place);
  };
  for (const { element } of stages) element.addEventListener("toggle", keep);
  const summary = `${site.architecture}: ${told.summary}`;
  show(
    "Network",
    "network",
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "The network"), h("p", { class: "count" }, told.summary)),
    headWords(head),
    h(
      "div",
      { class: "net-diagram" },
      told.diagram.plans.map((plan, place) => drawn(plan, WIDTHS[place], summary, told.diagram.description, open)),
    ),
    h("p", { class: "soft" }, told.diagram.key),
    h(
      "section",
      { class: "net-all" },
      h("div", { class: "title" }, h("h2", {}, "Layers"), status),
      h(
        "p",
        { class: "soft" },
        "In order of execution, what holds others (a block, a stage) after them; outputs: units × rows × columns. ",
        index ? "Units over a data set are shown of the layers that were scanned: " : "To see units over a data set: ",
        command(),
        ".",
      ),
      h(
        "form",
        { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
        h("label", { class: "search" }, h("span", {}, "Find a layer"), search),
      ),
      stages.map(({ element }) => element),
    ),
  );
  refresh();
  // Through what can be seen of the list: stages that are closed, layers of those that are open.
  const walk = (step) => {
    const stops = stages.flatMap(({ element, rows }) =>
      element.hidden ? [] : element.open ? rows.filter((line) => !line.hidden) : [element.querySelector("summary")],
    );
    const current = stops.findIndex((stop) => stop.contains(document.activeElement));
    const next = stops[current < 0 ? (step > 0 ? 0 : stops.length - 1) : current + step];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  page.keys = { j: () => walk(1), k: () => walk(-1) };
  page.told = [
    [["j"], "next layer"],
    [["k"], "previous layer"],
    [["Enter"], "the layer's units or filters"],
    [["/"], "find a layer"],
  ];
  // After the page was put where it was left, or at its top.
  if (query.has("stage") && !(history.state && history.state.y)) setTimeout(() => jump(Number(query.get("stage"))));
};
