// Tiles: images of the data set as the network saw them.
import { reasonOf } from "./data.js";
import { h } from "./dom.js";
import { site, theAtlas } from "./site.js";
import { className, value } from "./units.js";

/** @param {number} image */
const pathOf = (image) => {
  const { perFolder, suffix } = theAtlas().tiles;
  return `images/${Math.floor(image / perFolder)}/${image}.${suffix}`;
};

/**
 * The picture of a unit's top images.
 * @param {number} place
 * @param {number} unit
 */
export const spritePath = (place, unit) => `sprites/${place}/${unit}.${theAtlas().tiles.suffix}`;

/**
 * An image's class in words; empty if it has none.
 * @param {Documents.ImageRow} row
 */
export const classOfImage = (row) => className(row[1]);

/**
 * Why there is no picture of an image, as far as that is known; empty where there may be one.
 * @param {Documents.ImageRow} row
 */
export const noteOf = (row) => {
  const { drawn, states } = theAtlas().tiles;
  return row[4] === drawn ? "" : states[row[4]];
};

/**
 * An image with something over it, or a note that says why it is missing.
 * @param {number} image
 * @param {Documents.ImageRow} row
 * @param {Element | null} overlay
 * @param {string} alt
 */
export const tile = (image, row, overlay, alt) => {
  const [title] = row;
  const frame = h("span", { class: "tile" });
  /** @param {string} note */
  const missing = (note) => {
    frame.classList.add("missing");
    frame.append(h("span", { class: "note", title }, note));
  };
  const note = noteOf(row);
  if (note) missing(note);
  else {
    const src = pathOf(image);
    const [height, width] = site.input;
    const picture = h("img", { src, alt, title, decoding: "async", width, height });
    picture.onerror = async () => {
      picture.remove();
      missing(await reasonOf(src));
    };
    frame.append(picture);
  }
  if (overlay) frame.append(overlay);
  return frame;
};

/**
 * The level of a unit's contour. In a layer without negative activations a threshold of 0 is
 * reached everywhere: there is no line to draw.
 * @param {Documents.Layer} layer
 * @param {number} unit
 */
export const levelOf = (layer, unit) => {
  const threshold = value(layer, "threshold", unit);
  if (threshold === null) return Infinity;
  return threshold > 0 || layer.signed ? threshold : Infinity;
};
