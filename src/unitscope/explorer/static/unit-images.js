// The images of a unit, with its maps drawn over them.
import { address, parsed } from "./addresses.js";
import { breakable, h, section, small, titleCase } from "./dom.js";
import { colourBar, heat } from "./heat.js";
import { contour, mapsOf } from "./maps.js";
import { count, like, number } from "./numbers.js";
import { site } from "./site.js";
import { classOfImage, tile } from "./tiles.js";
import { className, value, wordsOfLayer } from "./units.js";
/** @import { ThresholdSlider } from "./threshold-slider.js" */

/** @typedef {"contour" | "heat" | "plain"} Drawing */

/**
 * A link to an image's class; without labels, the predicted class.
 * @param {Documents.ImageRow} row
 */
const labelOf = ([, index, predicted]) => {
  if (index === null) return h("span", { class: "label" }, site.labels[predicted]);
  const href = address(["class", index]);
  return h("a", { class: "label", href }, breakable(className(index)));
};

/** The galleries of a unit, drawn as the address says; without a slider, as photos alone. */
export class UnitImages {
  /**
   * @param {Documents.Layer} layer
   * @param {number} unit
   * @param {Documents.Unit} detail
   * @param {Documents.ImageRows} images
   * @param {ThresholdSlider | null} slider
   */
  constructor(layer, unit, detail, images, slider) {
    this.layer = layer;
    this.detail = detail;
    this.images = images;
    this.slider = slider;
    this.highest = value(layer, "maximum", unit) ?? 0;
    this.written = like(this.highest);
    /**
     * Contours: another threshold moves only them.
     * @type {[drawn: Element, map: Float32Array][]}
     */
    this.outlined = [];
    this.legend = h("div", { class: "legend" });
    this.element = h("div", {});
  }

  /**
   * How images are drawn, as the address says.
   * @returns {Drawing}
   */
  drawing() {
    const chosen = parsed().query.get("draw");
    if (!this.slider || chosen === "plain") return "plain";
    return chosen === "heat" ? "heat" : "contour";
  }

  redraw() {
    const byMean = parsed().query.get("by") === "mean";
    const { mean, maximum, range } = this.detail;
    this.outlined = [];
    this.legend.replaceChildren(...this.legendOf(this.drawing()));
    const top = section(
      byMean ? "Images with the highest mean" : "Images with the highest maximum",
      this.gallery(byMean ? mean : maximum),
    );
    const across = section(
      "Across its range",
      small(
        `${range.images.length} of ${count(range.of, "image")} drawn at random, from the ` +
          "lowest maximum to the highest: how it behaves on ordinary images.",
      ),
      this.gallery(range),
    );
    this.element.replaceChildren(
      ...(this.slider ? [top] : []),
      ...(range.images.length ? [across] : []),
    );
  }

  /** @param {Documents.ImageMaps} part */
  gallery(part) {
    const drawing = this.drawing();
    const maps = mapsOf(part, this.layer);
    const { holds } = wordsOfLayer(this.layer);
    const items = part.images.map((image, rank) => {
      const row = this.images[image];
      const score = part.scores[rank];
      const alt = `${classOfImage(row) || "image"}, ${row[0]}: ${holds} ${number(score)}`;
      const caption = h("p", {}, h("strong", {}, this.written(score)), " ", labelOf(row));
      return h("li", {}, tile(image, row, this.overlay(drawing, maps[rank]), alt), caption);
    });
    return h("ol", { class: `gallery ${drawing}` }, items);
  }

  /**
   * @param {Drawing} drawing
   * @param {Float32Array} map
   */
  overlay(drawing, map) {
    if (drawing === "plain" || !this.slider) return null;
    if (drawing === "heat")
      return heat(map, this.highest, this.layer, site.input, site.colours.heat);
    const drawn = contour(map, this.slider.chosen(), this.layer, site.input);
    this.outlined.push([drawn, map]);
    return drawn;
  }

  /**
   * Move the contours to another level.
   * @param {number} level
   */
  outline(level) {
    this.outlined = this.outlined.map(([drawn, map]) => {
      const next = contour(map, level, this.layer, site.input);
      drawn.replaceWith(next);
      return [next, map];
    });
  }

  /**
   * @param {Drawing} drawing
   * @returns {Element[]}
   */
  legendOf(drawing) {
    const { factor, signed } = this.layer;
    const { noun, holds, many } = wordsOfLayer(this.layer);
    const reduced =
      factor > 1
        ? [h("p", {}, `Each value drawn is the largest of ${factor} × ${factor} cells.`)]
        : [];
    if (drawing === "plain") return [h("p", {}, "The photos as the network saw them."), ...reduced];
    if (drawing === "heat") {
      const text =
        `${titleCase(holds)}, from 0 to the ${noun}’s maximum over the data set. All pictures ` +
        `of this page share one scale.${signed ? " Negative activations are not drawn." : ""}`;
      return [colourBar(this.highest, site.colours.heat), h("p", {}, text), ...reduced];
    }
    const key = h("span", { class: "key line" });
    return [
      h("p", {}, key, ` encloses ${many} at or above the threshold.`),
      ...(this.slider ? [this.slider.element] : []),
      ...reduced,
    ];
  }
}
