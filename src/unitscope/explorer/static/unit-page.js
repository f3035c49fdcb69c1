// One unit.
import { address, listed, parsed } from "./addresses.js";
import { cards } from "./card.js";
import { histogram } from "./charts.js";
import { controlsForm, radios } from "./controls.js";
import { load } from "./data.js";
import { breakable, h, link, messageOf, section, small, titleCase } from "./dom.js";
import { INTERVAL, count, interval, like, number, percent, points } from "./numbers.js";
import { hasLeft, lost, page, show, stepLink } from "./page.js";
import { wholeOf } from "./sets.js";
import { site, theAtlas } from "./site.js";
import { ThresholdSlider } from "./threshold-slider.js";
import { UnitImages } from "./unit-images.js";
import { ablationSection, classesTable, conceptsSection } from "./unit-tables.js";
import {
  chosenUnits,
  className,
  labelOfUnit,
  layerAt,
  named,
  neighboursOf,
  unitOf,
  value,
  wordsOfLayer,
} from "./units.js";
/** @import { Child } from "./dom.js" */
/** @import { Choice } from "./controls.js" */

/** @type {Choice[]} */
const CRITERIA = [
  ["", "maximum"],
  ["mean", "mean"],
];
/** @type {Choice[]} */
const DRAWINGS = [
  ["", "contour"],
  ["heat", "heat"],
  ["plain", "photo only"],
];

/**
 * The class that the unit responds to most, in words.
 * @param {Documents.Layer} layer
 * @param {number} unit
 * @param {Documents.ClassMean | undefined} best
 * @returns {Child[]}
 */
const bestClassWords = (layer, unit, best) => {
  if (!best) return [];
  const [index, images, mean, low, high] = best;
  const written = like(Math.abs(mean));
  const ends = low === null ? "" : ` (${INTERVAL} ${interval(low, high, written)})`;
  const share = layer.names ? " of its attention goes to patches" : "";
  const overall = written(value(layer, "mean", unit));
  return [
    layer.names ? "It attends most to patches on images of " : "It responds most to ",
    link(address(["class", index]), className(index)),
    `: on average ${written(mean)}${share} on its ${count(images, "image")}${ends}, and ${overall} ` +
      "over all images.",
  ];
};

/**
 * Why the unit has its name.
 * @param {Documents.Layer} layer
 * @param {number} unit
 * @param {Documents.Unit} detail
 * @returns {Child[]}
 */
const leadOf = (layer, unit, detail) => {
  const who = named(layer, unit);
  if (who.kind === "dead") return ["It is never active: no cell of any image is above 0."];
  const best = bestClassWords(layer, unit, detail.classes[0]);
  const iou = number(value(layer, "iou", unit));
  if (who.kind === "concept") {
    const ends = interval(value(layer, "iou_low", unit), value(layer, "iou_high", unit));
    const p = value(layer, "p_value", unit);
    const test =
      p === null ? "" : `; permutation p = ${number(p, 3)}, for the best of all concepts`;
    return [
      "Named by a concept: the cells at or above its threshold overlap masks of ",
      h("strong", {}, who.name),
      ` with an IoU of ${iou} (${INTERVAL} ${ends}${test}). `,
      best,
    ];
  }
  const tried = value(layer, "concept_name", unit);
  const why = tried
    ? `No concept matches well enough to name it (best: ${tried}, IoU ${iou}). `
    : "";
  return [who.kind === "class" ? `${why}Named by its class. ` : why, best];
};

/**
 * A figure with its name and a note.
 * @param {string} label
 * @param {Child} shown
 * @param {Child} [note]
 */
const stat = (label, shown, note) =>
  h("div", {}, h("dt", {}, label), h("dd", {}, shown, note ? h("small", {}, note) : null));

/**
 * @param {Documents.Layer} layer
 * @param {number} unit
 */
const stats = (layer, unit) => {
  const maximum = value(layer, "maximum", unit) ?? 0;
  const mean = value(layer, "mean", unit);
  const written = like(maximum);
  const alive = !value(layer, "dead", unit);
  const selectivity = interval(
    value(layer, "selectivity_low", unit),
    value(layer, "selectivity_high", unit),
  );
  const iou = value(layer, "iou", unit);
  const change = value(layer, "accuracy_change", unit);
  const above = percent(value(layer, "share_above", unit), 2);
  const { names } = layer;
  const threshold = written(value(layer, "threshold", unit));
  const size = value(layer, "contribution_size", unit);
  const given = number(value(layer, "contribution_mean", unit), 3, true);
  return h(
    "dl",
    { class: "stats" },
    stat("maximum", written(maximum), names && "× an equal share"),
    names
      ? stat("attention to patches", percent(mean), "on average; the rest to other tokens")
      : stat("mean", like(Math.abs(mean ?? 0))(mean)),
    alive && stat("threshold", threshold, `${above} of ${names ? "patches" : "cells"} above`),
    !names && stat("above 0", percent(value(layer, "share_positive", unit)), "of all cells"),
    size !== null &&
      stat("gives to the prediction", `±${number(size, 3)}`, `${given} with signs, on average`),
    alive && stat("class selectivity", number(value(layer, "selectivity", unit)), selectivity),
    iou !== null && stat("best IoU", number(iou, 3), value(layer, "concept_name", unit)),
    change !== null && stat("accuracy, switched off", points(change)),
  );
};

/**
 * What the histogram does not show, in words.
 * @param {Documents.Layer} layer
 * @param {number} unit
 * @param {Documents.Unit} detail
 */
const histogramWords = (layer, unit, detail) => {
  const positive = value(layer, "share_positive", unit) ?? 0;
  const negative = percent(Math.max(0, 1 - detail.zero - positive));
  if (layer.names)
    return (
      `${percent(value(layer, "share_above", unit), 2)} of patches are at or above its own ` +
      `threshold.${detail.less > 0 ? ` Left of the axis: ${percent(detail.less, 2)}.` : ""} 1 is ` +
      "an equal share for every patch. Both axes are logarithmic, the same for all heads; a bar is " +
      "a third of a doubling wide."
    );
  return [
    `${percent(detail.zero)} of cells are 0${layer.signed ? `, ${negative} are below` : ""}; `,
    `${percent(value(layer, "share_above", unit), 2)} are at or above its own threshold.`,
    detail.less > 0 ? ` Left of the axis: ${percent(detail.less, 2)}.` : "",
    " Both axes are logarithmic, the same for all units of the layer; a bar is a third of a " +
      "doubling wide.",
  ].join("");
};

/** @type {Record<Documents.Neighbours["of"], (count: number, holds: string) => string>} */
const COMPARED = {
  images: (images, holds) => `of its mean ${holds} with theirs, over all ${count(images, "image")}`,
  classes: (classes, holds) =>
    `of its mean ${holds} on ${count(classes, "class")} with theirs, since this layer’s ` +
    "were not kept for every image",
  sample: (images, holds) =>
    `of its mean ${holds} with theirs, over ${count(images, "image")} drawn at random, since ` +
    "this layer’s were not kept for every image",
};

/**
 * The units that respond most alike. They are computed when they are first asked for, so the
 * section is filled later.
 * @param {number} place
 * @param {number} unit
 * @param {URLSearchParams} choices
 */
const neighboursSection = (place, unit, choices) => {
  const layer = theAtlas().layers[place];
  const { noun } = wordsOfLayer(layer);
  const note = small(`Comparing it with all ${noun}s of the layer …`);
  const alike = layer.names
    ? "Heads whose attention to patches goes most alike"
    : "Units that respond most alike";
  const element = section(alike, note);
  element.classList.add("neighbours");
  const fill = async () => {
    try {
      const { of, count: compared, rows } = await neighboursOf(place, unit);
      if (!rows.length) {
        element.remove();
        return;
      }
      note.textContent =
        `By the correlation ${COMPARED[of](compared, wordsOfLayer(layer).holds)}. Alike over this data ` +
        "set: they need not look for the same thing.";
      const { name } = layer;
      element.append(
        cards(
          rows.map(([other, correlation]) => {
            const href = address(["unit", name, other], choices);
            return [place, other, { score: `r = ${number(correlation)}`, href }];
          }),
        ),
      );
    } catch (error) {
      note.textContent = messageOf(error);
    }
  };
  return { element, fill };
};

/**
 * Add a link to the filters of the layer, where the network has some there.
 * @param {string} name
 * @param {Element} crumb
 */
const addFiltersLink = async (name, crumb) => {
  if (!site.model) return;
  const network = await load("network").catch(() => null);
  if (network?.filters.includes(name))
    crumb.append(" · ", link(address(["filters", name]), "filters of this layer"));
};

class UnitPage {
  /**
   * @param {number} place
   * @param {number} unit
   * @param {URLSearchParams} query
   * @param {Documents.Unit} detail
   * @param {Documents.ImageRows} images
   */
  constructor(place, unit, query, detail, images) {
    this.layer = theAtlas().layers[place];
    this.unit = unit;
    this.detail = detail;
    this.choices = listed(query);
    this.order = chosenUnits(this.layer, this.choices);
    this.steps = h("p", { class: "steps" });
    this.chart = h("div", {});
    // A unit that is never active has no top images, no threshold and no histogram.
    this.alive = !value(this.layer, "dead", unit);
    this.slider = this.alive
      ? new ThresholdSlider(this.layer, unit, detail, () => this.outline())
      : null;
    this.images = new UnitImages(this.layer, unit, detail, images, this.slider);
    this.neighbours = this.alive ? neighboursSection(place, unit, this.choices) : null;
    this.crumb = this.crumbOf();
  }

  crumbOf() {
    const { name } = this.layer;
    const at = this.order.indexOf(this.unit);
    const position =
      at >= 0 && this.choices.size > 0 ? ` · ${at + 1} of ${this.order.length} in this list` : "";
    const list = link(address(["layer", name], this.choices), wordsOfLayer(this.layer).title);
    return h("p", {}, list, position);
  }

  /** @param {URLSearchParams} query */
  open(query) {
    const { layer, unit, detail } = this;
    const who = `${titleCase(wordsOfLayer(layer).noun)} ${labelOfUnit(layer, unit)}`;
    show(
      layer.names ? who : `${who} of ${layer.name}`,
      `layer ${layer.name}`,
      h("div", { class: "crumbs" }, this.crumb, this.steps),
      h(
        "h1",
        { tabindex: "-1" },
        named(layer, unit).name
          ? [h("span", { class: "unit" }, who), " ", breakable(named(layer, unit).name)]
          : who,
      ),
      h("p", { class: "lead" }, leadOf(layer, unit, detail)),
      stats(layer, unit),
      this.alive && this.controls(query),
      this.alive && this.images.legend,
      this.images.element,
      this.alive && this.activations(),
      this.alive && conceptsSection(detail.concepts),
      ablationSection(layer, unit, detail),
      this.neighbours?.element,
    );
    page.leave = () => this.slider?.leave();
    this.redraw();
    this.neighbours?.fill();
    addFiltersLink(layer.name, this.crumb);
  }

  /** @param {URLSearchParams} query */
  controls(query) {
    const again = () => this.redraw();
    return controlsForm(
      null,
      radios("Top images by", "by", query.get("by") || "", CRITERIA, again),
      radios("Draw", "draw", query.get("draw") || "", DRAWINGS, again),
    );
  }

  activations() {
    const { layer, unit, detail } = this;
    return h(
      "section",
      { class: "pair" },
      h(
        "div",
        {},
        h("h2", {}, `${titleCase(wordsOfLayer(layer).holds)} histogram`),
        this.chart,
        small(histogramWords(layer, unit, detail)),
      ),
      h("div", {}, classesTable(layer, unit, detail.classes)),
    );
  }

  /** Draw what the address says. */
  redraw() {
    const at = this.order.indexOf(this.unit);
    const [previous, next] =
      at < 0 ? [this.unit - 1, this.unit + 1] : [this.order[at - 1], this.order[at + 1]];
    this.steps.replaceChildren(
      stepLink(this.hrefOf(previous), "← previous", "prev"),
      stepLink(this.hrefOf(next), "next →", "next"),
    );
    this.images.redraw();
    this.outline();
  }

  /**
   * The address of another unit. What is drawn, and by which criterion, stays.
   * @param {number | undefined} unit
   */
  hrefOf(unit) {
    if (unit === undefined || unit < 0 || unit >= this.layer.units) return null;
    const choices = new URLSearchParams(this.choices);
    const now = parsed().query;
    for (const name of ["by", "draw"]) {
      const chosen = now.get(name);
      if (chosen) choices.set(name, chosen);
    }
    return address(["unit", this.layer.name, unit], choices);
  }

  /** Draw contours and histogram for the chosen threshold. */
  outline() {
    if (!this.slider) return;
    this.slider.refresh();
    const level = this.slider.chosen();
    this.images.outline(level);
    const written = this.slider.written(Number.isFinite(level) ? level : 0);
    const { noun, many, holds, of, cells } = wordsOfLayer(this.layer);
    const over = `over all ${cells} of all images`;
    const label = `Histogram of the ${noun}’s ${many} ${over}; threshold ${written}`;
    const { histogram: shares } = this.detail;
    /** @type {[string, string]} */
    const along = [`${holds} ${of}`, `share of ${cells}`];
    this.chart.replaceChildren(histogram(shares, this.layer.bins, level, written, label, along));
  }
}

/**
 * @param {string[]} parts
 * @param {URLSearchParams} query
 */
export const unitPage = async ([name, which], query) => {
  const place = layerAt(name);
  if (place < 0) {
    lost(`This atlas has no layer ${name || ""}.`);
    return;
  }
  const { units } = theAtlas().layers[place];
  const unit = wholeOf(which, units - 1);
  if (unit === null) {
    lost(`Layer ${name} has no unit ${which || ""}: they are numbered 0 to ${units - 1}.`);
    return;
  }
  const here = location.hash;
  const [detail, images] = await unitOf(place, unit);
  if (hasLeft(here)) return;
  new UnitPage(place, unit, query, detail, images).open(query);
};
