// What is left of a class as more and more units are off.
import { curves, sizesOf } from "./curves.js";
import { cell, h, rowHead, section, small, table } from "./dom.js";
import { interval, percent } from "./numbers.js";
/** @import { Curve, CurveRow } from "./curves.js" */

/** @type {[removed: Documents.Removal[0], name: string][]} */
const ORDERS = [
  ["most important", "most important first"],
  ["random", "in random order"],
  ["least important", "least important first"],
];

/**
 * The points of one order of removal.
 * @param {Documents.Removal[]} removals
 * @param {Documents.Removal[0]} order
 * @returns {CurveRow[]}
 */
const rowsOf = (removals, order) =>
  removals
    .filter(([removed]) => removed === order)
    .map(([, units, value, low, high]) => ({ units, value, low, high }));

/** @param {CurveRow | undefined} row */
const writtenRow = (row) =>
  row ? [percent(row.value), h("small", {}, interval(row.low, row.high, percent))] : "–";

/** @param {Documents.Removal[]} removals */
export const removalsSection = (removals) => {
  const whole = rowsOf(removals, "none");
  /** @type {Curve[]} */
  const series = ORDERS.map(([order, name]) => ({
    name,
    rows: [...whole, ...rowsOf(removals, order)].sort((a, b) => a.units - b.units),
  })).filter(({ rows }) => rows.length > whole.length);
  const lines = sizesOf(series).map((units) =>
    h(
      "tr",
      {},
      rowHead(String(units)),
      series.map(({ rows }) => cell(writtenRow(rows.find((row) => row.units === units)), "n")),
    ),
  );
  const keys = series.map(({ name }, place) =>
    h("span", {}, h("span", { class: `key s${place}` }), ` ${name}`),
  );
  return section(
    "Switching off many units",
    small(
      "Units are ranked by their importance for the class on one half of the images and " +
        "switched off on the other half. Balanced accuracy is the mean of two shares: how many " +
        "images of the class are recognised, and how many other images are not taken for it. " +
        "Guessing gives 50%. Bands and small print are 95% intervals; in random order they are " +
        "the lowest and highest of the draws.",
    ),
    h("p", { class: "keys" }, keys),
    h(
      "div",
      { class: "pair" },
      curves(
        series,
        "Balanced accuracy of the class as more units are switched off; the numbers are in the " +
          "table beside it",
      ),
      table(
        "Balanced accuracy of the class",
        [["units off"], ...series.map(({ name }) => /** @type {[string, string]} */ ([name, "n"]))],
        lines,
      ),
    ),
  );
};
