// The classes as a table.
import { address } from "./addresses.js";
import { bar } from "./charts.js";
import { breakable, cell, h, link, rowHead } from "./dom.js";
import { INTERVAL, count, interval, percent } from "./numbers.js";
import { show, titled } from "./page.js";
import { site, theAtlas } from "./site.js";
import { headAt, value } from "./units.js";

/** @typedef {"name" | "images" | "predicted" | "units" | "accuracy"} ClassSort */

// The columns that can be sorted by, and 1 where the least comes first.
/** @type {Record<ClassSort, 1 | -1>} */
const CLASS_SORTS = { name: 1, images: -1, predicted: -1, units: -1, accuracy: -1 };

/**
 * How many units of a layer respond most to each class.
 * @param {Documents.Layer} layer
 * @param {number} classes
 */
const unitsByClass = (layer, classes) => {
  /** @type {number[]} */
  const units = new Array(classes).fill(0);
  for (let unit = 0; unit < layer.units; unit++) {
    const best = value(layer, "best_class", unit);
    if (best !== null && !value(layer, "dead", unit)) units[best] += 1;
  }
  return units;
};

/**
 * The classes in an order; those that were not measured come last.
 * @param {Record<ClassSort, (string | number | null)[]>} columns
 * @param {ClassSort} sort
 * @param {number} sign
 */
const sortedClasses = (columns, sort, sign) => {
  const column = columns[sort];
  /**
   * @param {string | number} a
   * @param {string | number} b
   */
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(String(b)) : a - Number(b));
  return [...column.keys()].sort((a, b) => {
    const [first, second] = [column[a], column[b]];
    if (first === null || second === null)
      return Number(first === null) - Number(second === null) || a - b;
    return sign * compare(first, second) || a - b;
  });
};

/**
 * The head of the table: links that sort by a column, or reverse its order.
 * @param {ClassSort} asked
 * @param {boolean} reversed
 * @param {number} sign
 */
const sortLinks = (asked, reversed, sign) => {
  /**
   * @param {ClassSort} name
   * @param {string} text
   * @param {string} [kind]
   */
  const sorter = (name, text, kind) => {
    const here = name === asked;
    const query = new URLSearchParams({ sort: name });
    if (here && !reversed) query.set("order", "reverse");
    const [order, arrow] = sign > 0 ? ["ascending", " ↑"] : ["descending", " ↓"];
    return h(
      "th",
      { scope: "col", class: kind || false, "aria-sort": here ? order : false },
      link(address(["classes"], query), text, here ? arrow : ""),
    );
  };
  return h(
    "tr",
    {},
    sorter("name", "class"),
    sorter("images", "images", "n"),
    sorter("predicted", "predicted", "n"),
    sorter("units", "units", "n"),
    sorter("accuracy", "accuracy", "n"),
    h("th", { scope: "col", class: "n wide" }, INTERVAL),
    h("th", { class: "bars", "aria-hidden": "true" }),
  );
};

/**
 * @param {number} index
 * @param {number} units
 */
const classRow = (index, units) => {
  const { classes } = theAtlas();
  const accuracy = classes.accuracy[index];
  const [low, high] = [classes.accuracy_low[index], classes.accuracy_high[index]];
  return h(
    "tr",
    {},
    rowHead(link(address(["class", index]), breakable(classes.name[index]))),
    cell(String(classes.images[index]), "n"),
    cell(String(classes.predicted[index] ?? "–"), "n"),
    cell(String(units), "n"),
    cell(percent(accuracy), "n"),
    cell(interval(low, high, percent), "n wide"),
    cell(bar(accuracy, low, high, 0, 1), "bars"),
  );
};

/**
 * @param {string[]} _
 * @param {URLSearchParams} query
 */
export const classesPage = (_, query) => {
  const { classes, given, layers } = theAtlas();
  const accuracy =
    site.scores.kind === "sigmoid"
      ? "Accuracy is top-1 (the class has the largest logit; each has a sigmoid of its own)"
      : "Accuracy";
  const head = layers[headAt()];
  const units = unitsByClass(head, classes.name.length);
  const text = query.get("sort") ?? "";
  const asked = Object.hasOwn(CLASS_SORTS, text) ? /** @type {ClassSort} */ (text) : "name";
  const reversed = query.get("order") === "reverse";
  const sign = CLASS_SORTS[asked] * (reversed ? -1 : 1);
  const rows = sortedClasses({ ...classes, units }, asked, sign);
  show(
    "Classes",
    "classes",
    titled("Classes", h("p", { class: "count" }, count(rows.length, "class"))),
    h(
      "p",
      { class: "intro" },
      given
        ? `${accuracy}: the share of a class’s own images that the model recognises, with its 95% ` +
            `interval (Wilson). Units: how many of ${head.name} respond most to it.`
        : "The data set has no labels: classes are the model’s predictions, so there is no " +
            `accuracy. Units: how many of ${head.name} respond most to a class.`,
    ),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Classes" },
      h(
        "table",
        { class: "classes" },
        h("thead", {}, sortLinks(asked, reversed, sign)),
        h(
          "tbody",
          {},
          rows.map((index) => classRow(index, units[index])),
        ),
      ),
    ),
  );
};
