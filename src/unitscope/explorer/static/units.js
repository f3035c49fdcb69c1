// Units as rows: their names, and which of them a query selects, in which order.
import { wordsOf } from "./controls.js";
import { load } from "./data.js";
import { like, number, percent, points } from "./numbers.js";
import { theAtlas } from "./site.js";

/**
 * @typedef {Documents.Layer} Layer
 * @typedef {keyof Documents.UnitColumns} Column
 */

/**
 * A unit's details, and the rows of all images that they refer to.
 * @param {number} place
 * @param {number} unit
 * @returns {Promise<[Documents.Unit, Documents.ImageRows]>}
 */
export const unitOf = async (place, unit) => {
  const { chunk } = theAtlas().layers[place];
  const { units, images } = await load(`units-${place}-${Math.floor(unit / chunk)}`);
  return [units[unit % chunk], images];
};

/**
 * The units of the layer that respond most alike: rows of unit and correlation, and what the
 * correlation is over.
 * @param {number} place
 * @param {number} unit
 */
export const neighboursOf = async (place, unit) => {
  const { chunk } = theAtlas().layers[place];
  const { of, count, units } = await load(`neighbours-${place}-${Math.floor(unit / chunk)}`);
  return { of, count, rows: units[unit % chunk] };
};

/**
 * A class's details, and the rows of all images that they refer to.
 * @param {number} index
 * @returns {Promise<[Documents.Class, Documents.ImageRows]>}
 */
export const classOf = async (index) => {
  const { classChunk } = theAtlas();
  const { classes, images } = await load(`classes-${Math.floor(index / classChunk)}`);
  return [classes[index % classChunk], images];
};

/**
 * The place of a layer in the atlas, −1 if it has none of that name.
 * @param {string | undefined} name
 */
export const layerAt = (name) => theAtlas().layers.findIndex((layer) => layer.name === name);

/** The place of the layer that the head reads, or else of the first one. */
export const headAt = () =>
  Math.max(
    0,
    theAtlas().layers.findIndex((layer) => layer.head),
  );

/**
 * What a column says of a unit; null if it was not measured.
 * @template {Column} Name
 * @param {Layer} layer
 * @param {Name} name
 * @param {number} unit
 * @returns {NonNullable<Documents.UnitColumns[Name]>[number] | null}
 */
export const value = (layer, name, unit) => layer.columns[name]?.[unit] ?? null;

/** @param {number | null | undefined} index */
export const className = (index) =>
  index === null || index === undefined ? "" : theAtlas().classes.name[index];

/**
 * What the units of a layer are, and what their maps hold, in words.
 * @param {Layer} layer
 */
export const wordsOfLayer = ({ name, names }) =>
  names
    ? {
        noun: "head",
        title: "Attention heads",
        holds: "attention",
        many: "attention",
        of: "to a patch",
        cells: "patches",
      }
    : {
        noun: "unit",
        title: `Units of ${name}`,
        holds: "activation",
        many: "activations",
        of: "of a cell",
        cells: "cells",
      };

/**
 * A unit's number, or the name of a head of attention: block.head.
 * @param {Layer} layer
 * @param {number} unit
 */
export const labelOfUnit = ({ names }, unit) => names?.[unit] ?? String(unit);

/**
 * What a unit is called, and why.
 * @typedef {object} Naming
 * @property {string} name
 * @property {string} why
 * @property {"concept" | "class" | "dead" | "none"} kind
 */

/**
 * @param {Layer} layer
 * @param {number} unit
 * @returns {Naming}
 */
export const named = (layer, unit) => {
  if (value(layer, "dead", unit))
    return { name: "never active", why: "dead: no activation above 0", kind: "dead" };
  const by = value(layer, "named_by", unit);
  const name = value(layer, "name", unit);
  if (by === "concept")
    return { name: name ?? "", why: `concept, IoU ${number(value(layer, "iou", unit))}`, kind: by };
  const best = value(layer, "best_class_name", unit);
  // An atlas from before units were given names has only their classes.
  if (by === "class" || (!layer.columns.name && best)) {
    const selectivity = value(layer, "selectivity", unit);
    const why = selectivity === null ? "class" : `class, selectivity ${number(selectivity)}`;
    return { name: name || best || "", why, kind: "class" };
  }
  // How much of its attention goes to patches tells little of what a head looks at.
  if (layer.names) return { name: "", why: "", kind: "none" };
  return { name: "unnamed", why: best ? `responds most to ${best}` : "", kind: "none" };
};

/**
 * An order of units: its name, how its values are written, and 1 where it begins with the least.
 * @typedef {object} Sort
 * @property {string} text
 * @property {(value: number | null) => string} written
 * @property {1 | -1} sign
 */
/** @typedef {"maximum" | "selectivity" | "iou" | "accuracy_change" | "contribution_size" | "share_positive"} SortName */

/** @type {Record<SortName, Sort>} */
export const SORTS = {
  maximum: { text: "maximum", written: (shown) => `max ${like(shown ?? 0)(shown)}`, sign: -1 },
  selectivity: {
    text: "class selectivity",
    written: (shown) => `selectivity ${number(shown)}`,
    sign: -1,
  },
  iou: { text: "IoU with a concept", written: (shown) => `IoU ${number(shown)}`, sign: -1 },
  accuracy_change: {
    text: "accuracy lost when off",
    written: (shown) => (shown === null ? "not measured" : points(shown)),
    sign: 1,
  },
  contribution_size: {
    text: "size of its contribution to predictions",
    written: (shown) => (shown === null ? "not measured" : `gives ±${number(shown, 3)}`),
    sign: -1,
  },
  share_positive: {
    text: "share of cells above 0",
    written: (shown) => `${percent(shown)} above 0`,
    sign: -1,
  },
};

/**
 * The order that a query asks for; null for the order of the units' numbers.
 * @param {Layer} layer
 * @param {string | null} text
 */
export const sortOf = (layer, text) => sortsOf(layer).find((name) => name === text) ?? null;

/**
 * The orders that were measured.
 * @param {Layer} layer
 */
export const sortsOf = (layer) =>
  /** @type {SortName[]} */ (Object.keys(SORTS)).filter((name) =>
    // Layers without heads of attention have nothing there.
    layer.columns[name]?.some((measured) => measured !== null),
  );

/**
 * Which units are shown: in words, whether a unit is one of them, and whether there can be any.
 * @typedef {object} Filter
 * @property {string} text
 * @property {(layer: Layer, unit: number) => boolean | null} holds
 * @property {(layer: Layer) => boolean} measured
 */

/** @type {Record<string, Filter>} */
export const FILTERS = {
  detectors: {
    text: "detectors only",
    holds: (layer, unit) => value(layer, "detector", unit),
    measured: (layer) => Boolean(layer.columns.detector),
  },
  concept: {
    text: "named by a concept",
    holds: (layer, unit) => named(layer, unit).kind === "concept",
    measured: (layer) => Boolean(layer.columns.concept_name),
  },
  class: {
    text: "named by a class",
    holds: (layer, unit) => named(layer, unit).kind === "class",
    measured: () => true,
  },
  alive: {
    text: "not dead",
    holds: (layer, unit) => !value(layer, "dead", unit),
    measured: () => true,
  },
  dead: {
    text: "dead units",
    holds: (layer, unit) => value(layer, "dead", unit),
    measured: () => true,
  },
};

/**
 * Whether a unit has all the words, a number as its own or within its names.
 * @param {Layer} layer
 * @param {number} unit
 * @param {string[]} words
 */
const hasWords = (layer, unit, words) => {
  if (!words.length) return true;
  /** @type {Column[]} */
  const columns = ["name", "best_class_name", "concept_name", "category"];
  const names = columns
    .map((name) => value(layer, name, unit) ?? "")
    .join(" ")
    .toLowerCase();
  const own = labelOfUnit(layer, unit);
  return words.every((word) => own === word || names.includes(word));
};

/**
 * The units that a query selects, in its order.
 * @param {Layer} layer
 * @param {URLSearchParams} query
 */
export const chosenUnits = (layer, query) => {
  const words = wordsOf(query.get("q"));
  const show = query.get("show");
  const filter = show !== null && Object.hasOwn(FILTERS, show) ? FILTERS[show] : null;
  const only = query.get("class");
  const category = query.get("category");
  const units = [];
  for (let unit = 0; unit < layer.units; unit++) {
    if (filter && !filter.holds(layer, unit)) continue;
    if (only && String(value(layer, "best_class", unit)) !== only) continue;
    if (category && value(layer, "category", unit) !== category) continue;
    if (hasWords(layer, unit, words)) units.push(unit);
  }
  const sort = sortOf(layer, query.get("sort"));
  if (!sort) return units;

  /** @param {number} unit */
  const rank = (unit) => {
    const measured = value(layer, sort, unit);
    return measured === null ? Infinity : SORTS[sort].sign * measured;
  };
  return units.sort((a, b) => rank(a) - rank(b) || a - b);
};
