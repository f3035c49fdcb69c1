// One class.
import { address } from "./addresses.js";
import { cards } from "./card.js";
import { removalsSection } from "./class-removals.js";
import { breakable, h, link, section, small } from "./dom.js";
import { INTERVAL, count, interval, number, percent, points } from "./numbers.js";
import { hasLeft, lost, show, stepLink } from "./page.js";
import { wholeOf } from "./sets.js";
import { site, theAtlas } from "./site.js";
import { tile } from "./tiles.js";
import { className, classOf, headAt, wordsOfLayer } from "./units.js";
/** @import { Child } from "./dom.js" */

/**
 * Some images of the class; nothing where there are none.
 * @param {string} title
 * @param {string} note
 * @param {number[]} shown
 * @param {Documents.ImageRows} images
 * @param {(row: Documents.ImageRow) => Child} caption
 */
const pictures = (title, note, shown, images, caption) => {
  if (!shown.length) return null;
  const items = shown.map((image) => {
    const row = images[image];
    const alt = `${row[0]}, predicted ${site.labels[row[2]]}`;
    return h("li", {}, tile(image, row, null, alt), h("p", {}, caption(row)));
  });
  return section(title, small(note), h("ol", { class: "gallery plain" }, items));
};

/**
 * The images that the model recognises, and those that it misses.
 * @param {number} index
 * @param {Documents.Class} detail
 * @param {Documents.ImageRows} images
 */
const galleries = (index, detail, images) => {
  const { classes, given } = theAtlas();
  const judged = classes.accuracy[index] !== null;
  /** @param {Documents.ImageRow} row */
  const share = (row) => row[3] !== null && h("strong", {}, percent(row[3]));
  const has = site.scores.kind !== "none";
  return [
    pictures(
      given && judged ? "Classified correctly, most confident first" : "Its images",
      has ? "With the probability of the model’s prediction." : "",
      detail.found,
      images,
      (row) => [share(row), !judged && given ? ` ${site.labels[row[2]]}` : ""],
    ),
    pictures(
      "Misclassified, most confident first",
      `What the model predicts instead${has ? ", with its probability" : ""}.`,
      detail.missed,
      images,
      (row) => [share(row), " ", h("span", { class: "label" }, breakable(site.labels[row[2]]))],
    ),
  ];
};

/**
 * The units that the class needs most, where ablation was measured.
 * @param {Documents.Importance[]} important
 */
const importantUnits = (important) => {
  const head = headAt();
  return section(
    "Units it needs most",
    small(
      `Units of ${theAtlas().layers[head].name} by how much the class’s balanced accuracy ` +
        "falls when only that unit is off, in percentage points. An interval that includes 0 " +
        "is compatible with no effect.",
    ),
    cards(
      important.map(([unit, importance, low, high]) => [
        head,
        unit,
        { score: points(-importance), why: intervalOfChange(low, high) },
      ]),
    ),
  );
};

/**
 * The interval of a loss as one of a change, in percentage points.
 * @param {number | null} low
 * @param {number | null} high
 */
const intervalOfChange = (low, high) => {
  if (low === null || high === null) return "";
  const ends = interval(-100 * high, -100 * low, (end) => number(end, 1, true));
  return `${INTERVAL} ${ends}`;
};

/**
 * The units that respond most to the class, layer by layer.
 * @param {Documents.Response[]} answering
 */
const respondingUnits = (answering) =>
  theAtlas().layers.map((layer, place) => {
    const rows = answering.filter((row) => row[0] === place);
    if (!rows.length) return null;
    return section(
      layer.names
        ? "Heads that attend most to patches on it"
        : `Units of ${layer.name} that respond most to it`,
      small(
        `Of the ${wordsOfLayer(layer).noun}s that have it among the classes they respond to most: those whose mean on ` +
          "its images is the largest multiple of their mean over all images.",
      ),
      cards(
        rows.map(([, unit, times]) => [place, unit, { score: `${number(times, 1)} × its mean` }]),
      ),
    );
  });

/**
 * How well the model recognises the class.
 * @param {number} index
 * @returns {Child}
 */
const lead = (index) => {
  const { classes, given } = theAtlas();
  const images = count(classes.images[index], "image");
  const { kind } = site.scores;
  if (!given && kind === "none")
    return `It is the largest output for ${images}; the network has no classes.`;
  if (!given) return `The model predicts it for ${images}; the data set has no labels of its own.`;
  const accuracy = classes.accuracy[index];
  const precision = classes.average_precision?.[index] ?? null;
  const ranked =
    precision !== null && ` Average precision, by its own logit: ${percent(precision)}.`;
  if (kind === "none") return `${images}. The network has no classes, so there is no accuracy.`;
  if (site.labels.length === 1)
    return [`${images}. A single class is always the largest: there is no accuracy.`, ranked];
  if (accuracy === null)
    return (
      `${images}. Its accuracy is not known: the model lacks the class, or the data set ` +
      "has no images of it."
    );
  const ends = interval(classes.accuracy_low[index], classes.accuracy_high[index], percent);
  const predicted = count(classes.predicted[index] ?? 0, "image");
  return [
    "The model recognises ",
    h("strong", {}, `${classes.found[index]} of ${count(classes.judged[index], "image")}`),
    `, ${percent(accuracy)} (${INTERVAL} ${ends}), and predicts it for ${predicted} in all.`,
    kind === "sigmoid" &&
      " Recognised means that its logit is the largest (top-1); each class has a sigmoid of its own.",
    ranked,
  ];
};

/**
 * Links to the list of classes and to the classes before and after.
 * @param {number} index
 * @param {number} classes
 */
const crumbs = (index, classes) => {
  /** @param {number} to */
  const href = (to) => (to >= 0 && to < classes ? address(["class", to]) : null);
  return h(
    "div",
    { class: "crumbs" },
    h("p", {}, link(address(["classes"]), "Classes")),
    h(
      "p",
      { class: "steps" },
      stepLink(href(index - 1), "← previous", "prev"),
      stepLink(href(index + 1), "next →", "next"),
    ),
  );
};

/** @param {string[]} parts */
export const classPage = async ([which]) => {
  const classes = theAtlas().classes.name.length;
  const index = wholeOf(which, classes - 1);
  if (index === null) {
    lost(`There is no class ${which || ""}: they are numbered 0 to ${classes - 1}.`);
    return;
  }
  const here = location.hash;
  const [detail, images] = await classOf(index);
  if (hasLeft(here)) return;
  const name = className(index);
  show(
    name,
    "classes",
    crumbs(index, classes),
    h(
      "h1",
      { tabindex: "-1" },
      h("span", { class: "unit" }, `Class ${index}`),
      " ",
      breakable(name),
    ),
    h("p", { class: "lead" }, lead(index)),
    galleries(index, detail, images),
    detail.important?.length ? importantUnits(detail.important) : respondingUnits(detail.answering),
    detail.removals ? removalsSection(detail.removals) : null,
  );
};
