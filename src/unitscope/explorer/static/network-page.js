// The network: its head in words, its stages drawn, and its layers in order of execution.
import { address, choose, parsed } from "./addresses.js";
import { controlsForm, searchField, wordsOf } from "./controls.js";
import { load } from "./data.js";
import { h, link, small } from "./dom.js";
import { networkDiagram } from "./network-diagram.js";
import { stageView, stageWords } from "./network-layers.js";
import { count } from "./numbers.js";
import { hasLeft, page, show, titled } from "./page.js";
import { site } from "./site.js";
/** @import { StageView } from "./network-layers.js" */

// A network of no more layers is shown with all its stages open.
const FEW = 60;

/** @param {Pick<Documents.NetworkHead, "kind" | "exact" | "checked" | "reason">} head */
const claimOfHead = ({ kind, exact, checked, reason }) => {
  if (exact) return `Exact (${kind}): ${checked}.`;
  if (kind === "residual") return `Adds up: ${checked}. No map alone does: ${reason}.`;
  return `Not exact: ${reason}. Measured: ${checked}.`;
};

/** @param {Documents.NetworkHead} head */
const headWords = ({ kind, exact, words, checked, reason }) => {
  if (kind === "none") return h("p", { class: "lead" }, `Photos cannot be explained: ${reason}.`);
  return [
    h("p", { class: "lead" }, `${words[0].toUpperCase()}${words.slice(1)}.`),
    small(claimOfHead({ kind, exact, checked, reason })),
  ];
};

/** A link to the heads of attention, where they were scanned. */
const scannedHeads = () => {
  const heads = site.atlas?.layers.find(({ names }) => names);
  return heads ? [", such as ", link(address(["layer", heads.name]), heads.name)] : "";
};

/** The command that scans more layers. */
const scanCommand = () => {
  const model = site.model?.spec ? ` --model ${site.model.spec}` : "";
  return h("code", {}, `unitscope scan PHOTOS${model} --out ATLAS --layer NAME`);
};

class NetworkPage {
  /**
   * @param {Documents.Network} network
   * @param {URLSearchParams} query
   */
  constructor(network, query) {
    this.network = network;
    this.stages = network.stages.map((stage) => stageView(stage, network.head));
    this.layers = network.stages.reduce((sum, stage) => sum + stage.layers.length, 0);
    this.status = h("p", { class: "count", role: "status" });
    this.search = searchField(query.get("q"), "name or kind", () => this.refresh());
    for (const { element } of this.stages) element.addEventListener("toggle", () => this.keep());
  }

  open() {
    const { network } = this;
    const title = `${site.architecture}: ${network.summary}`;
    show(
      "Network",
      "network",
      titled("The network", h("p", { class: "count" }, network.summary)),
      headWords(network.head),
      networkDiagram(network.diagram, title, (stage) => this.openStage(stage)),
      small(network.diagram.key),
      h(
        "section",
        { class: "net-all" },
        h("div", { class: "title" }, h("h2", {}, "Layers"), this.status),
        small(
          "In order of execution; a layer that holds others (a block, a stage) comes after " +
            "them. Outputs: units × rows × columns. ",
          site.atlas
            ? [
                "Units over a data set are shown for the layers that were scanned",
                scannedHeads(),
                ": ",
              ]
            : "To see units over a data set: ",
          scanCommand(),
          ".",
        ),
        controlsForm(
          "search",
          h("label", { class: "search" }, h("span", {}, "Find a layer"), this.search),
        ),
        this.stages.map(({ element }) => element),
      ),
    );
    page.keys = { j: () => this.walk(1), k: () => this.walk(-1) };
    page.help = [
      [["j"], "next layer"],
      [["k"], "previous layer"],
      [["Enter"], "the layer's units or filters"],
      [["/"], "find a layer"],
    ];
    this.refresh();
  }

  /** The stages that are open unless the address says otherwise. */
  usual() {
    return [...this.stages.keys()].filter(
      (place) =>
        this.layers <= FEW || this.network.stages[place].layers.some((layer) => layer.head),
    );
  }

  /** The stages that the address says are open. */
  opened() {
    const { query } = parsed();
    const list = query.get("open")?.split(".").map(Number) ?? this.usual();
    if (query.has("stage")) list.push(Number(query.get("stage")));
    return new Set(list.filter((place) => place in this.stages));
  }

  /** Show what the address says. */
  refresh() {
    const words = wordsOf(parsed().query.get("q"));
    const open = this.opened();
    const all = count(this.layers, "layer");
    let matches = 0;
    this.stages.forEach((view, place) => {
      matches += this.refreshStage(view, words, open.has(place));
    });
    this.status.textContent = words.length ? `${matches} of ${all}` : all;
  }

  /**
   * Show the layers of a stage that have all the words; returns how many do.
   * @param {StageView} view
   * @param {string[]} words
   * @param {boolean} open Whether it is open without words.
   */
  refreshStage({ stage, element, words: heading, rows }, words, open) {
    let matches = 0;
    for (const { layer, element: line } of rows) {
      const text = `${layer.name} ${layer.kind}`.toLowerCase();
      line.hidden = !words.every((word) => text.includes(word));
      if (!line.hidden) matches += 1;
    }
    const searching = words.length > 0;
    element.hidden = searching && !matches;
    element.open = searching ? matches > 0 : open;
    heading.textContent = searching
      ? `${matches} of ${count(stage.layers.length, "layer")}`
      : stageWords(stage);
    return matches;
  }

  /** Write into the address what the reader opened or closed, unless it is there already. */
  keep() {
    if (parsed().query.get("q")) return;
    const open = this.stages.flatMap(({ element }, place) => (element.open ? [place] : []));
    const known = this.opened();
    if (open.length === known.size && open.every((place) => known.has(place))) return;
    choose({ open: open.join(".") || "none", stage: "" }, false);
  }

  /** @param {number} place */
  jump(place) {
    const view = this.stages[place];
    view?.element.scrollIntoView({ block: "start" });
    view?.heading.focus({ preventScroll: true });
  }

  /** @param {number} place */
  openStage(place) {
    choose({ stage: String(place), q: "" }, true);
    this.search.value = "";
    this.refresh();
    this.jump(place);
  }

  /**
   * Go through the visible list: headings of closed stages, layers of open ones.
   * @param {1 | -1} step
   */
  walk(step) {
    const stops = this.stages.flatMap(({ element, heading, rows }) => {
      if (element.hidden) return [];
      const visible = rows.filter((row) => !row.element.hidden).map((row) => row.element);
      return element.open ? visible : [heading];
    });
    const current = stops.findIndex((stop) => stop.contains(document.activeElement));
    const first = step > 0 ? 0 : stops.length - 1;
    const next = stops[current < 0 ? first : current + step];
    next?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
  }
}

/**
 * @param {string[]} _
 * @param {URLSearchParams} query
 */
export const networkPage = async (_, query) => {
  const here = location.hash;
  const network = await load("network");
  if (hasLeft(here)) return;
  const shown = new NetworkPage(network, query);
  shown.open();
  // After the page went back to where it was left, or to its top.
  if (query.has("stage") && !history.state?.y)
    setTimeout(() => shown.jump(Number(query.get("stage"))));
};
