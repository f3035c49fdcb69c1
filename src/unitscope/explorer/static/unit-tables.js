// What a unit responds to, and what switching it off costs, as tables.
import { address } from "./addresses.js";
import { bar } from "./charts.js";
import { breakable, cell, h, link, rowHead, section, small, table } from "./dom.js";
import { INTERVAL, interval, like, number, percent, points } from "./numbers.js";
import { site, theAtlas } from "./site.js";
import { className, value, wordsOfLayer } from "./units.js";

/** @param {number} index */
const classHead = (index) => rowHead(link(address(["class", index]), breakable(className(index))));

/**
 * The classes on which the unit's mean activation is highest.
 * @param {Documents.Layer} layer
 * @param {number} unit
 * @param {Documents.ClassMean[]} rows
 */
export const classesTable = (layer, unit, rows) => {
  const high = Math.max(...rows.map(([, , mean, , end]) => end ?? mean), 0);
  const low = Math.min(...rows.map(([, , mean, begin]) => begin ?? mean), 0);
  const written = like(Math.max(...rows.map(([, , mean]) => Math.abs(mean)), 0));
  const overall = written(value(layer, "mean", unit));
  const { holds } = wordsOfLayer(layer);
  const what = layer.names ? `Share of its ${holds} on patches` : `Mean ${holds}`;
  const classes = theAtlas().given ? "Classes" : "Predicted classes";
  return [
    h(
      "h2",
      {},
      `${classes} ${layer.names ? "on which it attends most to patches" : "it responds to most"}`,
    ),
    table(
      `${what} over the images of a class, with ${INTERVAL}; over all images ${overall}`,
      [["class"], ["images", "n"], ["mean", "n"], ["interval", "n wide"], ["", "bars"]],
      rows.map(([index, images, mean, from, to]) =>
        h(
          "tr",
          {},
          classHead(index),
          cell(String(images), "n"),
          cell(written(mean), "n"),
          cell(interval(from, to, written), "n wide"),
          cell(bar(mean, from, to, low, high), "bars"),
        ),
      ),
    ),
  ];
};

/**
 * The concepts whose masks the unit's active regions overlap most; null where none was measured.
 * @param {Documents.ConceptMatch[] | undefined} rows
 */
export const conceptsSection = (rows) => {
  if (!rows?.length) return null;
  const high = Math.max(...rows.map(([, , iou, , end]) => end ?? iou ?? 0), 0.05);
  return section(
    "Best matching concepts",
    table(
      `IoU of its active regions with masks of the concept, with ${INTERVAL}; chance: the ` +
        "highest IoU with masks of other images",
      [
        ["concept"],
        ["category", "wide"],
        ["IoU", "n"],
        ["interval", "n wide"],
        ["chance", "n"],
        ["", "bars"],
      ],
      rows.map(([name, category, iou, from, to, , chance]) =>
        h(
          "tr",
          {},
          rowHead(breakable(name)),
          cell(category || "", "wide"),
          cell(number(iou, 3), "n"),
          cell(
            interval(from, to, (end) => end.toFixed(3)),
            "n wide",
          ),
          cell(number(chance, 3), "n"),
          cell(bar(iou, from, to, 0, high), "bars"),
        ),
      ),
    ),
  );
};

/** @param {number | null} value */
const negative = (value) => (value === null ? null : -value);

/**
 * The classes that change most without the unit.
 * @param {string} title
 * @param {Documents.Importance[]} rows
 * @param {string} none What is said where there are no such classes.
 */
const changedClasses = (title, rows, none) => {
  const heading = h("h3", {}, title);
  if (!rows.length) return h("div", {}, heading, small(none));
  const ends = rows
    .flatMap(([, importance, from, to]) => [-importance, negative(from), negative(to)])
    .filter((end) => end !== null);
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  /** @param {number} end */
  const change = (end) => number(100 * end, 2, true);
  return h(
    "div",
    {},
    heading,
    table(
      "Balanced accuracy of the class with the unit off, and the change in percentage points " +
        `with its ${INTERVAL}`,
      [["class"], ["with it off", "n"], ["change", "n"], ["interval", "n wide"], ["", "bars"]],
      rows.map(([index, importance, from, to, left]) =>
        h(
          "tr",
          {},
          classHead(index),
          cell(percent(left), "n"),
          cell(change(-importance), "n"),
          cell(interval(negative(to), negative(from), change), "n wide"),
          cell(bar(-importance, negative(to), negative(from), low, high), "bars"),
        ),
      ),
    ),
  );
};

/**
 * The accuracy without the unit, in words; null where it was not measured.
 * @param {Documents.Layer} layer
 * @param {number} unit
 */
const accuracyWords = (layer, unit) => {
  const change = value(layer, "accuracy_change", unit);
  const accuracy = value(layer, "accuracy", unit);
  if (change === null || accuracy === null) return null;
  const correctly = site.scores.kind === "sigmoid" ? "correctly by the largest logit" : "correctly";
  const ends = interval(
    value(layer, "accuracy_low", unit),
    value(layer, "accuracy_high", unit),
    percent,
  );
  return h(
    "p",
    {},
    theAtlas().againstItself
      ? "The data set has no labels: accuracy is the share of images that keep the prediction " +
          "of the whole network. "
      : "",
    `With this unit off, ${percent(accuracy)} of the images are classified ${correctly} ` +
      `(${INTERVAL} ${ends}); with it on, ${percent(accuracy - change)}: `,
    h("strong", {}, points(change)),
    ".",
  );
};

/**
 * What switching the unit off costs; null where it was not measured.
 * @param {Documents.Layer} layer
 * @param {number} unit
 * @param {Documents.Unit} detail
 */
export const ablationSection = (layer, unit, detail) => {
  const words = accuracyWords(layer, unit);
  if (!words && !detail.hurt) return null;
  const sides = detail.hurt && [
    changedClasses("Classes that lose most", detail.hurt, "No class loses."),
    changedClasses("Classes that gain most", detail.helped ?? [], "No class gains."),
  ];
  return section("What switching it off costs", words, sides && h("div", { class: "pair" }, sides));
};
