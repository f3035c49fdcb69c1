// The filters of a convolution: a grid of pictures, and the numbers of the one the reader looks at.
import { address, choose, parsed, selected } from "./addresses.js";
import { controlsForm, radios } from "./controls.js";
import { load } from "./data.js";
import { breakable, h, link, messageOf } from "./dom.js";
import { KernelGrid } from "./kernel-grid.js";
import { KernelInspector } from "./kernel-inspector.js";
import { Kernels } from "./kernels.js";
import { count } from "./numbers.js";
import { hasLeft, page, show, stepLink } from "./page.js";
import { wholeOf } from "./sets.js";
import { site } from "./site.js";
/** @import { Choice } from "./controls.js" */
/** @import { Child } from "./dom.js" */
/** @import { KernelItem } from "./kernel-grid.js" */
/** @import { KernelDrawing } from "./kernels.js" */

/** @type {Choice[]} */
const SHOWS = [
  ["all", "all filters"],
  ["one", "one filter, all channels"],
];
/** @type {Choice[]} */
const COLOURINGS = [
  ["signed", "by sign"],
  ["grey", "grey"],
];
// What pictures of each kind are, and what their colours mean.
/** @type {Record<Documents.Filters["of"], string>} */
const PICTURES = {
  rgb: "Input channels as red, green and blue",
  kernel: "A kernel a filter",
  filter: "The weights of each filter, in the order of its input channels, row by row",
};
const COLOUR_MEANINGS = {
  rgb: "a colour is dark where its weight is least, and full where it is greatest",
  signed: "violet is negative, orange positive, 0 in the middle",
  grey: "black is the least weight, white the greatest",
};
// Documents hold layers of at most so many filters.
const MOST_FILTERS = 1e7;

/**
 * What is shown, as the address says it.
 * @typedef {object} FiltersState
 * @property {number | null} filter
 * @property {number} channel
 * @property {boolean} one Whether the channels of one filter are shown.
 * @property {KernelDrawing} drawing
 */

/**
 * The layer of the atlas whose units are the filters of a convolution.
 * @param {Documents.Network} network
 * @param {string} convolution
 */
const unitsLayer = (network, convolution) => {
  const scanned = new Set(site.atlas?.layers.map((layer) => layer.name));
  const runs = network.stages
    .flatMap((stage) => stage.layers)
    .filter((layer) => layer.filters?.layer === convolution);
  return runs.find((layer) => scanned.has(layer.name))?.name ?? null;
};

/**
 * Links to the convolutions before and after.
 * @param {string[]} names
 * @param {string} layer
 * @param {URLSearchParams} choices
 */
const layerSteps = (names, layer, choices) => {
  const at = names.indexOf(layer);
  /**
   * @param {string | undefined} name
   * @param {string} text
   * @param {"prev" | "next"} rel
   */
  const step = (name, text, rel) =>
    stepLink(name === undefined ? null : address(["filters", name], choices), text, rel, name);
  // From a layer that is not one of them, on to the first.
  const before = at < 0 ? undefined : names[at - 1];
  const after = at < 0 ? names[0] : names[at + 1];
  return h(
    "p",
    { class: "steps" },
    step(before, "← previous", "prev"),
    step(after, "next →", "next"),
  );
};

/**
 * The part of a large layer that holds the filter of a query, or begins where the query says.
 * @param {string} layer
 * @param {URLSearchParams} query
 */
const partOf = async (layer, query) => {
  /** @param {number} begin */
  const asked = (begin) =>
    load(`filters/${encodeURIComponent(layer)}`, begin ? `?from=${begin}` : "");
  const first = await asked(wholeOf(query.get("from"), MOST_FILTERS) || 0);
  const filter = wholeOf(query.get("filter"), first.filters - 1);
  const held = filter === null || (filter >= first.begin && filter < first.begin + first.count);
  return held ? first : asked(filter - (filter % first.most));
};

/**
 * Which filters of a large layer these are, with links to the others.
 * @param {string} layer
 * @param {Documents.Filters} part
 * @param {URLSearchParams} choices
 */
const partsNote = (layer, part, choices) => {
  if (part.count >= part.filters) return null;
  /** @param {number} begin */
  const to = (begin) => {
    const query = new URLSearchParams(choices);
    if (begin) query.set("from", String(begin));
    return address(["filters", layer], query);
  };
  const [before, after] = [part.begin - part.most, part.begin + part.most];
  const last = part.begin + part.count - 1;
  return h(
    "p",
    { class: "kernel-parts" },
    `Filters ${part.begin} to ${last} of ${count(part.filters, "filter")}. `,
    part.begin > 0 && [link(to(Math.max(0, before)), "previous ones"), " "],
    after < part.filters && link(to(after), "next ones"),
  );
};

/**
 * A field for a whole number.
 * @param {string} label
 * @param {string} name
 * @param {number} most
 * @param {(shown: number | null) => void} change Called with what was typed; null if it is no
 *   number.
 */
const numberField = (label, name, most, change) => {
  const input = h("input", {
    type: "number",
    name,
    min: "0",
    max: String(most),
    step: "1",
    onchange: () => {
      change(wholeOf(input.value, most));
    },
  });
  return { input, element: h("label", { class: "kernel-whole" }, h("span", {}, label), input) };
};

class FiltersPage {
  /**
   * @param {string} layer
   * @param {Documents.Network} network
   * @param {Documents.Filters} part
   */
  constructor(layer, network, part) {
    this.layer = layer;
    this.part = part;
    this.kernels = new Kernels(part, site.colours.signed);
    this.drawn = "";
    this.words = h("p", { class: "soft kernel-words" });
    this.inspector = new KernelInspector(this.kernels, {
      layer,
      unitsOf: unitsLayer(network, layer),
      change: () => this.refresh(),
      close: () => this.pick(null, true),
    });
    this.grid = new KernelGrid(this.kernels, {
      label: "Kernels",
      choose: (at, step) => this.chosen(at, step),
      point: (at) => this.pointed(at),
    });
    const { filters, channels, groups } = this.kernels;
    this.filterField = numberField("Filter", "filter", filters - 1, (shown) =>
      this.typedFilter(shown),
    );
    this.channelField = numberField(
      groups > 1 ? "Channel in the group" : "Input channel",
      "channel",
      channels - 1,
      (shown) => this.typedChannel(shown),
    );
  }

  /**
   * @param {Child} crumbs
   * @param {Child} heading
   * @param {URLSearchParams} choices
   */
  open(crumbs, heading, choices) {
    const { layer, part, grid } = this;
    show(
      `Filters of ${layer}`,
      "network",
      crumbs,
      h(
        "div",
        { class: "title" },
        heading,
        h("p", { class: "count" }, `${part.kind}: ${part.words}`),
      ),
      this.controls(),
      this.words,
      partsNote(layer, part, choices),
      h(
        "div",
        { class: "kernel-view" },
        h("div", { class: "kernel-frame" }, grid.element),
        this.inspector.element,
      ),
    );
    page.leave = () => grid.close();
    page.help = [
      [["j", "k"], "next or previous filter, where one is chosen; else convolution"],
      [["←", "→", "↑", "↓"], "move in the grid"],
    ];
    this.refresh();
  }

  controls() {
    const { kernels } = this;
    const { one, drawing } = this.state();
    const again = () => this.refresh();
    const own = kernels.of === "kernel" ? "each kernel" : "each filter";
    /** @type {Choice[]} */
    const scales = [
      ["kernel", own],
      ["shared", "shared over the layer"],
    ];
    return controlsForm(
      null,
      kernels.apart && radios("Show", "show", one ? "one" : "all", SHOWS, again),
      this.filterField.element,
      this.channelField.element,
      radios("Scale", "scale", drawing.scale, scales, again),
      kernels.of !== "rgb" && radios("Colours", "colours", drawing.colours, COLOURINGS, again),
    );
  }

  /** @returns {FiltersState} */
  state() {
    const { kernels } = this;
    const { query } = parsed();
    const filter = wholeOf(query.get("filter"), kernels.filters - 1);
    const channel = wholeOf(query.get("channel"), kernels.channels - 1) ?? 0;
    const grey = kernels.of === "rgb" || query.get("colours") === "grey";
    return {
      filter: filter !== null && kernels.has(filter) ? filter : null,
      channel: kernels.apart ? channel : 0,
      one: kernels.apart && query.get("show") === "one",
      drawing: {
        scale: query.get("scale") === "shared" ? "shared" : "kernel",
        colours: grey ? "grey" : "signed",
      },
    };
  }

  /**
   * Choose a filter; null for none.
   * @param {number | null} filter
   * @param {boolean} step
   */
  pick(filter, step) {
    const { begin } = this.kernels;
    if (filter === null) choose({ filter: "", from: begin ? String(begin) : "" }, step);
    else choose({ filter: String(filter), from: "" }, step);
    this.refresh();
  }

  /**
   * A picture of the grid was chosen.
   * @param {number} at
   * @param {boolean} step
   */
  chosen(at, step) {
    const { one, filter } = this.state();
    const { begin } = this.kernels;
    if (!one) {
      this.pick(begin + at, step);
      return;
    }
    choose({ channel: String(at), filter: String(filter ?? begin) }, step);
    this.refresh();
  }

  /**
   * The pointer is over a picture of the grid, or over none (−1).
   * @param {number} at
   */
  pointed(at) {
    const now = this.state();
    const { begin } = this.kernels;
    if (at < 0) this.inspect();
    else if (now.one)
      this.inspector.show({ ...now, filter: now.filter ?? begin, channel: at, chosen: false });
    else this.inspector.show({ ...now, filter: begin + at, chosen: false });
  }

  /** Show the chosen kernel in the inspector. */
  inspect() {
    const now = this.state();
    if (now.filter === null && !now.one) this.inspector.idle();
    else this.inspector.show({ ...now, filter: now.filter ?? this.kernels.begin, chosen: true });
  }

  /** @param {number | null} filter */
  typedFilter(filter) {
    if (filter === null) {
      this.filterField.input.value = String(this.state().filter ?? 0);
      return;
    }
    choose({ filter: String(filter) }, true);
    // Of a large layer another part may hold it.
    if (this.kernels.has(filter)) this.refresh();
    else page.render();
  }

  /** @param {number | null} channel */
  typedChannel(channel) {
    if (channel === null) {
      this.channelField.input.value = String(this.state().channel);
      return;
    }
    choose({ channel: String(channel) }, true);
    this.refresh();
  }

  /**
   * Go to the filter before or after the chosen one.
   * @param {number} filter
   */
  stepTo(filter) {
    if (filter < 0 || filter >= this.kernels.filters) return;
    choose({ filter: String(filter) }, false);
    if (!this.kernels.has(filter)) {
      page.render();
      return;
    }
    this.refresh();
    this.grid.follow();
  }

  /**
   * The pictures to show, with their numbers.
   * @param {FiltersState} state
   * @returns {KernelItem[]}
   */
  items({ one, filter, channel }) {
    const { kernels } = this;
    if (one) {
      const shown = filter ?? kernels.begin;
      return Array.from({ length: kernels.channels }, (_, at) => [at, kernels.place(shown, at)]);
    }
    return Array.from({ length: kernels.count }, (_, at) => [
      kernels.begin + at,
      kernels.place(kernels.begin + at, channel),
    ]);
  }

  /**
   * What the pictures show, in words.
   * @param {FiltersState} state
   */
  wordsOf({ one, filter, channel, drawing }) {
    const { kernels } = this;
    let shown = PICTURES[kernels.of];
    if (one) shown = `The kernels of filter ${filter ?? kernels.begin}, by input channel`;
    else if (kernels.apart) shown = `Input channel ${channel} of each filter`;
    const meaning = COLOUR_MEANINGS[kernels.of === "rgb" ? "rgb" : drawing.colours];
    return `${shown}; ${this.part.scales[drawing.scale]}; ${meaning}.`;
  }

  /** Show what the address says. */
  refresh() {
    const state = this.state();
    const { filter, channel, one, drawing } = state;
    const { kernels, grid } = this;
    // The grid is drawn anew only for other pictures or other colours.
    const drawn = JSON.stringify([one, one ? filter : channel, drawing]);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      grid.show(this.items(state), drawing);
      this.words.textContent = this.wordsOf(state);
    }
    const shown = filter ?? kernels.begin;
    let at = -1;
    if (one) at = channel;
    else if (filter !== null) at = filter - kernels.begin;
    const span = kernels.span(kernels.place(shown, channel));
    grid.mark(at, at < 0 ? "none chosen" : `${kernels.name(shown, channel)}, weights ${span}`);
    this.filterField.element.hidden = !one;
    this.channelField.element.hidden = one || !kernels.apart;
    this.filterField.input.value = String(shown);
    this.channelField.input.value = String(channel);
    // With a filter chosen, j and k step through filters; before, through convolutions.
    page.keys =
      filter === null ? {} : { j: () => this.stepTo(filter + 1), k: () => this.stepTo(filter - 1) };
    this.inspect();
  }
}

/**
 * @param {string[]} parts
 * @param {URLSearchParams} query
 */
export const filtersPage = async ([layer = ""], query) => {
  const here = location.hash;
  const network = await load("network");
  const choices = selected(query, ["scale", "colours"]);
  const crumbs = h(
    "div",
    { class: "crumbs" },
    h("p", {}, link("#/network", "The network")),
    layerSteps(network.filters, layer, choices),
  );
  const heading = h("h1", { tabindex: "-1" }, "Filters of ", breakable(layer));
  try {
    const part = await partOf(layer, query);
    if (hasLeft(here)) return;
    new FiltersPage(layer, network, part).open(crumbs, heading, choices);
  } catch (error) {
    if (hasLeft(here)) return;
    show(
      `Filters of ${layer}`,
      "network",
      crumbs,
      heading,
      h("p", { class: "lead" }, messageOf(error)),
    );
  }
};
