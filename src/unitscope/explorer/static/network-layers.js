// The layers of the network, stage by stage.
import { address } from "./addresses.js";
import { breakable, cell, h, link, rowHead, tableHead } from "./dom.js";
import { count, thousands } from "./numbers.js";
import { site } from "./site.js";

/**
 * A stage in the page: its element, its heading's small print, and its layers' rows.
 * @typedef {object} StageView
 * @property {Documents.Stage} stage
 * @property {HTMLDetailsElement} element
 * @property {HTMLElement} heading
 * @property {HTMLElement} words
 * @property {LayerRow[]} rows
 */
/** @typedef {{ layer: Documents.NetworkLayer, element: HTMLTableRowElement }} LayerRow */

/**
 * Text that may break after a dot.
 * @param {string} text
 */
const dotted = (text) =>
  text.split(/(?<=\.)/).flatMap((part, place) => (place ? [h("wbr"), part] : [part]));

/**
 * Links to the pages of a layer.
 * @param {Documents.NetworkLayer} layer
 */
const linksOf = ({ name, filters }) => [
  site.atlas?.layers.some((scanned) => scanned.name === name) &&
    link(address(["layer", name]), "units"),
  filters && link(address(["filters", filters.layer]), `filters ${filters.size.join(" × ")}`),
];

/**
 * @param {Documents.NetworkLayer} layer
 * @param {Documents.NetworkHead} head
 * @returns {LayerRow}
 */
const layerRow = (layer, head) => {
  const { name, kind, shape, parameters } = layer;
  const classes = [layer.head && "net-head", !layer.leaf && "net-holds"].filter(Boolean);
  const reader = head.exact ? "the head reads this map" : "photos are explained here";
  const words = [kind, shape, parameters > 0 && count(parameters, "parameter")].filter(Boolean);
  /** @param {KeyboardEvent} event */
  const pressed = (event) => {
    if (event.key === "Enter" && event.target === element) element.querySelector("a")?.click();
  };
  const element = h(
    "tr",
    { class: classes.join(" ") || false, tabindex: "-1", onkeydown: pressed },
    rowHead([
      breakable(name).flatMap((part) => (typeof part === "string" ? dotted(part) : [part])),
      layer.head && h("strong", { class: "net-mark" }, reader),
      h("small", { class: "net-short" }, words.join(", ")),
    ]),
    cell(kind, "wide"),
    cell(shape, "n wide output"),
    cell(parameters ? thousands(parameters) : "–", "n wide"),
    cell(linksOf(layer), "net-see"),
  );
  return { layer, element };
};

/** @param {Documents.Stage} stage */
const titleOf = ({ shape }) => {
  if (!shape.length) return "Layers";
  const [units, ...cells] = shape;
  const single = cells.every((side) => side === 1);
  return single ? count(units, "number") : shape.join(" × ");
};

/**
 * What a stage holds, in words.
 * @param {Documents.Stage} stage
 */
export const stageWords = ({ convolutions, layers, first, last }) => {
  const span = first === last ? first : `${first} to ${last}`;
  return [
    convolutions > 0 && count(convolutions, "convolution"),
    count(layers.length, "layer"),
    first && span,
  ]
    .filter(Boolean)
    .join(", ");
};

/**
 * @param {Documents.Stage} stage
 * @param {Documents.NetworkHead} head
 * @returns {StageView}
 */
export const stageView = (stage, head) => {
  const rows = stage.layers.map((layer) => layerRow(layer, head));
  const words = h("span", { class: "net-words" }, stageWords(stage));
  const heading = h("summary", {}, h("h3", {}, titleOf(stage)), words);
  const element = h(
    "details",
    { class: "net-stage" },
    heading,
    h(
      "table",
      { class: "net-layers" },
      tableHead([
        ["layer"],
        ["kind", "wide"],
        ["output", "n wide"],
        ["parameters", "n wide"],
        ["look at"],
      ]),
      h(
        "tbody",
        {},
        rows.map((row) => row.element),
      ),
    ),
  );
  return { stage, element, heading, words, rows };
};
