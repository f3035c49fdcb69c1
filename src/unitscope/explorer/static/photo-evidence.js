// What a marked region of the photo adds to each class.
import { largest } from "./algebra.js";
import { breakable, cell, h, rowHead, tableHead } from "./dom.js";
import { count, number } from "./numbers.js";
import { site } from "./site.js";
/** @import { ExactPhoto } from "./algebra.js" */
/** @import { Values } from "./maps.js" */
/** @import { Answers } from "./photo-answers.js" */
/** @import { MapTarget } from "./photo-map.js" */
/** @import { PhotoState } from "./photo-state.js" */

// So many classes with the largest logits have a row.
const TOP_ROWS = 5;

/**
 * A class or margin, and the logits that the region, the rest of the map and both add.
 * @typedef {[label: string, region: number, rest: number, both: number]} RegionRow
 */

/**
 * What a row is of, as a label.
 * @param {MapTarget} target
 */
const labelOfRow = ({ index, rival }) =>
  rival === null ? site.labels[index] : `${site.labels[index]} − ${site.labels[rival]}`;

/**
 * The rows of an exact answer: the margin, if there is a rival, the top classes and the chosen ones.
 * @param {MapTarget} target
 * @param {ExactPhoto} algebra
 * @param {PhotoState} state
 * @param {Values} logits
 * @returns {RegionRow[]}
 */
export const exactRows = (target, algebra, { region, off }, logits) => {
  const evidence = algebra.evidence(region, off);
  /**
   * @param {MapTarget} of
   * @returns {RegionRow}
   */
  const row = (of) => {
    /** @param {Values} values */
    const valueOf = (values) => values[of.index] - (of.rival === null ? 0 : values[of.rival]);
    const [marked, both] = [valueOf(evidence), valueOf(logits)];
    return [labelOfRow(of), marked, both - marked, both];
  };
  const { index, rival } = target;
  const chosen = rival === null ? [index] : [index, rival];
  const classes = new Set([...largest(logits, TOP_ROWS), ...chosen]);
  const rows = [...classes].map((one) => row({ index: one, rival: null }));
  return rival === null ? rows : [row(target), ...rows];
};

/**
 * The row of a local answer: sums over the map of its one class or margin.
 * @param {MapTarget} target
 * @param {Values} map
 * @param {Set<number>} region
 * @returns {RegionRow}
 */
export const measuredRow = (target, map, region) => {
  /** @param {Iterable<number>} cells */
  const sum = (cells) => {
    let total = 0;
    for (const cell of cells) total += map[cell] / map.length;
    return total;
  };
  const marked = sum(region);
  const all = sum(map.keys());
  return [labelOfRow(target), marked, all - marked, all];
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
