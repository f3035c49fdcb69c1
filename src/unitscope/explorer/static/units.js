// Units as rows: their names, and which of them are chosen, in which order.
import { index, load } from "./data.js";
import { like, number, percent, points } from "./numbers.js";

export const unitOf = async (place, unit) => {
  const { chunk } = index.layers[place];
  const found = await load(`units-${place}-${Math.floor(unit / chunk)}`);
  return [found.units[unit % chunk], found.images];
};
// The units of the layer that respond most alike: rows of unit and correlation, and over how many of what that is.
export const neighboursOf = async (place, unit) => {
  const { chunk } = index.layers[place];
  const { of, count, units } = await load(`neighbours-${place}-${Math.floor(unit / chunk)}`);
  return { of, count, rows: units[unit % chunk] };
};
export const classOf = async (one) => {
  const found = await load(`classes-${Math.floor(one / index.classChunk)}`);
  return [found.classes[one % index.classChunk], found.images];
};

// A number in an address; −1 for anything else.
export const numbered = (text) => (/^\d{1,9}$/.test(text || "") ? Number(text) : -1);
export const layerAt = (name) => {
  const place = index.layers.findIndex((layer) => layer.name === name);
  return place >= 0
    ? place
    : Math.max(
        0,
        index.layers.findIndex((layer) => layer.head),
      );
};
export const value = (layer, name, unit) => (layer.columns[name] ? layer.columns[name][unit] : null);

export const className = (one) => (one === null || one === undefined ? "" : index.classes.name[one]);
export const named = (layer, unit) => {
  if (value(layer, "dead", unit)) return { name: "never active", why: "dead: no activation above 0", kind: "dead" };
  const by = value(layer, "named_by", unit);
  const name = value(layer, "name", unit);
  if (by === "concept") return { name, why: `concept, IoU ${number(value(layer, "iou", unit))}`, kind: "concept" };
  const best = value(layer, "best_class_name", unit);
  // An atlas from before units were given names tells their classes.
  if (by === "class" || (!layer.columns.name && best)) {
    const selectivity = value(layer, "selectivity", unit);
    return {
      name: name || best,
      why: selectivity === null ? "class" : `class, selectivity ${number(selectivity)}`,
      kind: "class",
    };
  }
  return { name: "unnamed", why: best ? `answers most to ${best}` : "", kind: "none" };
};
export const SORTS = {
  unit: ["unit number", null, null],
  maximum: ["maximum", (shown) => `max ${like(shown)(shown)}`, -1],
  selectivity: ["class selectivity", (shown) => `selectivity ${number(shown)}`, -1],
  iou: ["IoU with a concept", (shown) => `IoU ${number(shown)}`, -1],
  accuracy_change: ["accuracy lost when off", (shown) => (shown === null ? "not measured" : points(shown)), 1],
  share_positive: ["share of cells above 0", (shown) => `${percent(shown)} above 0`, -1],
};
export const sortsOf = (layer) => Object.keys(SORTS).filter((name) => name === "unit" || layer.columns[name]);
const textOf = (layer, unit) =>
  [unit, ...["name", "best_class_name", "concept_name", "category"].map((name) => value(layer, name, unit))]
    .filter((one) => one !== null)
    .join(" ")
    .toLowerCase();
export const FILTERS = {
  detectors: ["detectors only", (layer, unit) => value(layer, "detector", unit), (layer) => layer.columns.detector],
  concept: [
    "named by a concept",
    (layer, unit) => named(layer, unit).kind === "concept",
    (layer) => layer.columns.concept_name,
  ],
  class: ["named by a class", (layer, unit) => named(layer, unit).kind === "class", () => true],
  alive: ["not dead", (layer, unit) => !value(layer, "dead", unit), () => true],
  dead: ["dead units", (layer, unit) => value(layer, "dead", unit), () => true],
};
export const chosenUnits = (layer, query) => {
  const words = (query.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const filter = FILTERS[query.get("show")];
  const [only, category] = [query.get("class"), query.get("category")];
  const units = [];
  for (let unit = 0; unit < layer.units; unit++) {
    if (filter && !filter[1](layer, unit)) continue;
    if (only && String(value(layer, "best_class", unit)) !== only) continue;
    if (category && value(layer, "category", unit) !== category) continue;
    const text = words.length ? textOf(layer, unit) : "";
    if (
      words.every((word) =>
        /^\d+$/.test(word)
          ? String(unit) === word || text.split(" ").slice(1).join(" ").includes(word)
          : text.includes(word),
      )
    )
      units.push(unit);
  }
  const sort = query.get("sort");
  const column = sort && sort !== "unit" && SORTS[sort] && layer.columns[sort];
  if (column) {
    const sign = SORTS[sort][2];
    const rank = (unit) => (column[unit] === null ? Infinity : sign * column[unit]);
    units.sort((a, b) => rank(a) - rank(b) || a - b);
  }
  return units;
};
