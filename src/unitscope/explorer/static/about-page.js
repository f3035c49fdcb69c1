// What was scanned, and how it is drawn.
import { h, section } from "./dom.js";
import { percent } from "./numbers.js";
import { show } from "./page.js";
import { theAtlas } from "./site.js";

/** @type {[term: string, text: string]} */
const ATTENTION = [
  "attention",
  "Of a transformer the units are heads of attention, called by block and head. Their maps hold " +
    "the attention that the token that is read pays to each patch, times the number of patches: 1 " +
    "everywhere is an equal share for all, and the mean of a map is the share that goes to patches.",
];

/**
 * How the pages draw an atlas of this quantile: terms and their texts.
 * @param {number} quantile
 * @returns {[term: string, text: string][]}
 */
const drawingTerms = (quantile) => [
  [
    "photos",
    "The part that the network saw, in the shape of its input. A photo that is missing or has " +
      "changed gets a grey tile.",
  ],
  [
    "activations",
    "As the network computed them, in their own unit and not scaled. Activations of different " +
      "units or layers cannot be compared.",
  ],
  ATTENTION,
  [
    "contour",
    "Encloses activations at or above the unit’s threshold: the lowest value that at most " +
      `${percent(quantile)} of all cells of all images reach. Maps are placed by the centres ` +
      "of their cells’ receptive fields and are bilinear between them. A unit’s page has a " +
      "slider for other thresholds; the share of cells that reach one is read off the " +
      "histogram, linearly within a bar.",
  ],
  [
    "heat",
    "From 0 to the unit’s maximum over the data set. All pictures of a unit share one scale; " +
      "each unit has its own. Opacity grows with the activation. The photo beneath is grey, so " +
      "every colour belongs to the map.",
  ],
  [
    "histograms",
    "Over all cells of all images. Both axes are logarithmic and the same for all units of a " +
      "layer. Cells of 0 and below are given in words.",
  ],
  [
    "units that respond alike",
    "Pearson’s correlation of their mean activations over the images. Where a layer’s means " +
      "were not kept for every image, it is over the means by class or over a random sample of " +
      "images.",
  ],
  ["maps", "Stored in 254 steps of their own largest value, so they are accurate to 0.4% of it."],
  [
    "intervals",
    "95%, with the images as a random sample of all such images. They say nothing about other " +
      "kinds of images. Among many units or classes, some intervals miss by chance.",
  ],
  [
    "class selectivity",
    "(largest class mean − mean of the others) / (their sum), of class means of the mean " +
      "activation (Morcos et al. 2018). A selective unit is not necessarily an important one.",
  ],
];

/** @param {[term: string, text: string | string[]]} entry */
const definition = ([term, text]) => {
  const lines = Array.isArray(text)
    ? h(
        "ul",
        {},
        text.map((line) => h("li", {}, line)),
      )
    : text;
  const hash = /SHA|fingerprint/.test(term);
  return [h("dt", {}, term), h("dd", { class: hash ? "hash" : false }, lines)];
};

export const aboutPage = () => {
  const { about, quantile } = theAtlas();
  show(
    "About",
    "about",
    h("h1", { tabindex: "-1" }, "About this atlas"),
    section("What was scanned", h("dl", { class: "about" }, about.map(definition))),
    section("How it is drawn", h("dl", { class: "about" }, drawingTerms(quantile).map(definition))),
  );
};
