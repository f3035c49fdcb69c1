// The filters of a convolution: a grid of pictures, and the numbers of the one that is looked at.
import { address, choose, parsed } from "./addresses.js";
import { radios } from "./controls.js";
import { index, load, site } from "./data.js";
import { breakable, h, link } from "./dom.js";
import { KernelGrid } from "./kernel-grid.js";
import { KernelInspector } from "./kernel-inspector.js";
import { Kernels } from "./kernels.js";
import { count } from "./numbers.js";
import { page, show } from "./page.js";

const SHOWS = [
  ["all", "all filters"],
  ["one", "one filter, all channels"],
];
const OWN = { kernel: ["kernel", "each kernel"], rgb: ["kernel", "each filter"], filter: ["kernel", "each filter"] };
const SHARED = ["shared", "shared over the layer"];
const COLOURINGS = [
  ["signed", "by sign"],
  ["grey", "grey"],
];
// What pictures of each kind are, and what their colours mean.
const SHOWN = {
  rgb: "Input channels as red, green and blue",
  kernel: "A kernel a filter",
  filter: "The weights of each filter, in the order of its input channels, row by row",
};
const HOW = {
  rgb: "a colour is dark where its weight is least, and full where it is greatest",
  signed: "violet is negative, orange positive, 0 in the middle",
  grey: "black is the least weight, white the greatest",
};

// The layers of the network of which the atlas has units that are these filters.
const unitsLayer = (told, layer) => {
  const runs = told.stages.flatMap((stage) => stage.layers).filter((one) => one.filters && one.filters.layer === layer);
  const found = index && runs.find((run) => index.layers.some((one) => one.name === run.name));
  return found ? found.name : null;
};
const stepsTo = (names, layer, kept) => {
  const at = names.indexOf(layer);
  const step = (name, text, rel) =>
    name === undefined
      ? h("span", { class: "soft" }, text)
      : h("a", { href: address(["filters", name], kept), rel, title: name }, text);
  const [before, after] = at < 0 ? [undefined, names[0]] : [names[at - 1], names[at + 1]];
  return h("p", { class: "steps" }, step(before, "← previous", "prev"), step(after, "next →", "next"));
};
const wholeOf = (text, most) => (/^\d{1,7}$/.test(text || "") && Number(text) <= most ? Number(text) : null);
// The part of a large layer that holds the filter that is asked for, or begins where it is asked to.
const partOf = async (layer, query) => {
  const asked = (begin) => load(`filters/${encodeURIComponent(layer)}`, begin ? `?from=${begin}` : "");
  const first = await asked(wholeOf(query.get("from"), 1e7) || 0);
  const filter = wholeOf(query.get("filter"), first.filters - 1);
  const held = filter === null || (filter >= first.begin && filter < first.begin + first.count);
  return held ? first : asked(filter - (filter % first.most));
};

const numberField = (label, name, most, change) =>
  h(
    "label",
    { class: "kernel-whole" },
    h("span", {}, label),
    h("input", { type: "number", name, min: "0", max: String(most), step: "1", onchange: change }),
  );

export const filtersPage = async ([layer = ""], query) => {
  const here = location.hash;
  const network = await load("network");
  const kept = new URLSearchParams(
    ["scale", "colours"].filter((name) => query.get(name)).map((name) => [name, query.get(name)]),
  );
  const crumbs = h(
    "div",
    { class: "crumbs" },
    h("p", {}, link("#/network", "The network")),
    stepsTo(network.filters, layer, kept),
  );
  const heading = h("h1", { tabindex: "-1" }, "Filters of ", breakable(layer));
  let told;
  try {
    told = await partOf(layer, query);
  } catch (error) {
    if (here !== location.hash) return;
    show(`Filters of ${layer}`, "network", crumbs, heading, h("p", { class: "lead" }, error.message));
    return;
  }
  // Who has gone on while a large layer was loaded stays there.
  if (here !== location.hash) return;
  const kernels = new Kernels(told, site.colours.signed);

  // What is shown, as the address says it.
  const state = () => {
    const now = parsed().query;
    const filter = wholeOf(now.get("filter"), kernels.filters - 1);
    const channel = kernels.apart ? wholeOf(now.get("channel"), kernels.channels - 1) || 0 : 0;
    return {
      filter: filter !== null && kernels.has(filter) ? filter : null,
      channel,
      one: kernels.apart && now.get("show") === "one",
      drawing: {
        scale: now.get("scale") === "shared" ? "shared" : "kernel",
        colours: kernels.of === "rgb" || now.get("colours") === "grey" ? "grey" : "signed",
      },
    };
  };
  const first = state();
  const again = () => refresh();
  const inspector = new KernelInspector(kernels, {
    layer,
    unitsOf: unitsLayer(network, layer),
    change: again,
    close: () => pick(null, true),
  });
  const at = (now) => (now.one ? now.channel : now.filter === null ? -1 : now.filter - kernels.begin);
  const look = () => {
    const now = state();
    if (now.filter === null && !now.one) inspector.idle();
    else inspector.show({ ...now, filter: now.filter ?? kernels.begin, chosen: true });
  };
  // With a filter chosen, j and k step through filters; before, through convolutions.
  const keys = () => {
    const now = state();
    const step = (by) => () => {
      const next = now.filter + by;
      if (next < 0 || next >= kernels.filters) return;
      choose({ filter: String(next) }, false);
      if (kernels.has(next)) (refresh(), grid.follow());
      else page.render();
    };
    page.keys = now.filter === null ? {} : { j: step(1), k: step(-1) };
  };
  const pick = (filter, step) => {
    if (filter === null) choose({ filter: "", from: kernels.begin && String(kernels.begin) }, step);
    else choose({ filter: String(filter), from: "" }, step);
    refresh();
  };
  const grid = new KernelGrid(kernels, {
    label: "Kernels",
    choose: (place, step) => {
      const now = state();
      if (now.one) {
        choose({ channel: String(place), filter: String(now.filter ?? kernels.begin) }, step);
        refresh();
      } else pick(kernels.begin + place, step);
    },
    point: (place) => {
      const now = state();
      const filter = now.filter ?? kernels.begin;
      if (place < 0) look();
      else if (now.one) inspector.show({ ...now, filter, channel: place, chosen: false });
      else inspector.show({ ...now, filter: kernels.begin + place, chosen: false });
    },
  });

  const words = h("p", { class: "soft kernel-words" });
  let laid = "";
  const refresh = () => {
    const now = state();
    const { filter, channel, one, drawing } = now;
    const key = JSON.stringify([one, one ? filter : channel, drawing]);
    // The grid is drawn anew only where other pictures, or other colours, are to be seen.
    if (key !== laid) {
      laid = key;
      const items = one
        ? Array.from({ length: kernels.channels }, (_, place) => [place, kernels.place(filter ?? kernels.begin, place)])
        : Array.from({ length: kernels.count }, (_, place) => [
            kernels.begin + place,
            kernels.place(kernels.begin + place, channel),
          ]);
      grid.show(items, drawing);
      const shown = one
        ? `The kernels of filter ${filter ?? kernels.begin}, by input channel`
        : kernels.apart
          ? `Input channel ${channel} of each filter`
          : SHOWN[kernels.of];
      const how = HOW[kernels.of === "rgb" ? "rgb" : drawing.colours];
      words.textContent = `${shown}; ${told.scales[drawing.scale]}; ${how}.`;
    }
    const which = filter ?? kernels.begin;
    const spoken = `${kernels.name(which, channel)}, weights ${kernels.span(kernels.place(which, channel))}`;
    grid.mark(at(now), at(now) < 0 ? "none chosen" : spoken);
    [filterField.hidden, channelField.hidden] = [!one, one || !kernels.apart];
    filterField.querySelector("input").value = String(which);
    channelField.querySelector("input").value = String(channel);
    keys();
    look();
  };
  const typed = (name, most) => (event) => {
    const shown = wholeOf(event.target.value, most);
    if (shown === null) event.target.value = String(state()[name] ?? 0);
    else if (name === "filter" && !kernels.has(shown)) (choose({ filter: String(shown) }, true), page.render());
    else (choose({ [name]: String(shown) }, true), refresh());
  };
  const filterField = numberField("Filter", "filter", kernels.filters - 1, typed("filter", kernels.filters - 1));
  const channelField = numberField(
    kernels.groups > 1 ? "Channel in the group" : "Input channel",
    "channel",
    kernels.channels - 1,
    typed("channel", kernels.channels - 1),
  );
  const controls = h(
    "form",
    { class: "controls", onsubmit: (event) => event.preventDefault() },
    kernels.apart && radios("Show", "show", first.one ? "one" : "all", SHOWS, again),
    filterField,
    channelField,
    radios("Scale", "scale", first.drawing.scale, [OWN[kernels.of], SHARED], again),
    kernels.of !== "rgb" && radios("Colours", "colours", first.drawing.colours, COLOURINGS, again),
  );
  const partly = told.count < told.filters && h("p", { class: "kernel-parts" }, partsOf(layer, told, kept));
  show(
    `Filters of ${layer}`,
    "network",
    crumbs,
    h("div", { class: "title" }, heading, h("p", { class: "count" }, `${told.kind}: ${told.words}`)),
    controls,
    words,
    partly,
    h("div", { class: "kernel-view" }, h("div", { class: "kernel-frame" }, grid.element), inspector.element),
  );
  page.leave = () => grid.close();
  page.told = [
    [["j", "k"], "next or previous filter, where one is chosen; else convolution"],
    [["←", "→", "↑", "↓"], "move in the grid"],
  ];
  refresh();
};

const partsOf = (layer, told, kept) => {
  const to = (begin) => {
    const query = new URLSearchParams(kept);
    if (begin) query.set("from", String(begin));
    return address(["filters", layer], query);
  };
  const [before, after] = [told.begin - told.most, told.begin + told.most];
  return [
    `Filters ${told.begin} to ${told.begin + told.count - 1} of ${count(told.filters, "filter")}. `,
    told.begin > 0 && [link(to(Math.max(0, before)), "those before"), " "],
    after < told.filters && link(to(after), "those after"),
  ];
};
