// What a marked region of the photo adds to each class.
import { breakable, cell, h, rowHead, tableHead } from "./dom.js";
import { count, number } from "./numbers.js";
import { site } from "./site.js";
/** @import { Values } from "./maps.js" */
/** @import { Answers } from "./photo-answers.js" */

/**
 * A class and the logits that the region, the rest of the map and both add.
 * @typedef {[label: string, region: number, rest: number, both: number]} RegionRow
 */

/**
 * The rows of an exact answer.
 * @param {number[]} classes
 * @param {string[]} labels
 * @param {Values} evidence What the region adds to every class.
 * @param {Values} logits
 * @returns {RegionRow[]}
 */
export const exactRows = (classes, labels, evidence, logits) =>
  classes.map((index) => [
    labels[index],
    evidence[index],
    logits[index] - evidence[index],
    logits[index],
  ]);

/**
 * The row of a local answer: sums over the map of its one class.
 * @param {string} label
 * @param {Values} map
 * @param {Set<number>} region
 * @returns {RegionRow}
 */
export const measuredRow = (label, map, region) => {
  /** @param {Iterable<number>} cells */
  const sum = (cells) => {
    let total = 0;
    for (const cell of cells) total += map[cell] / map.length;
    return total;
  };
  const marked = sum(region);
  const all = sum(map.keys());
  return [label, marked, all - marked, all];
};

/** @param {Answers} answers */
const meaningOf = ({ exact, heads }) => {
  if (exact) return `; with their shares of the bias, regions add up to the ${site.scores.number}`;
  return heads ? "; regions add up to what all patches give" : ", by gradient × activation";
};

/** @param {Answers} answers */
const totalOf = ({ exact, heads }) => {
  if (exact) return site.scores.number;
  return heads ? "patches" : "both";
};

/**
 * @param {RegionRow[]} rows
 * @param {number} marked How many cells are marked.
 * @param {Answers} answers
 * @param {() => void} clear
 */
export const evidenceTable = (rows, marked, answers, clear) => {
  const { map } = answers.photo;
  const caption = [
    `${marked} of ${count(map.rows * map.cols, answers.heads ? "patch" : "cell")}, in ${site.scores.numbers}`,
    meaningOf(answers),
  ];
  const lines = rows.map(([label, ...values]) =>
    h(
      "tr",
      {},
      rowHead(breakable(label)),
      values.map((value) => cell(number(value, 2, true), "n")),
    ),
  );
  return [
    h("h2", {}, "Evidence from the region"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        {},
        h("caption", {}, caption),
        tableHead([["class"], ["region", "n"], ["rest", "n"], [totalOf(answers), "n"]]),
        h("tbody", {}, lines),
      ),
    ),
    h("button", { type: "button", onclick: clear }, "Clear the region"),
  ];
};
