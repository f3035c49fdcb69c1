// Maps on pictures, and the contours of their levels.
import { svg } from "./dom.js";
import { bytes } from "./packed.js";

/**
 * Anything with a map: a layer, a photo.
 * @typedef {{ map: Documents.Map }} Mapped
 */
/**
 * The values of a map, a cell each, row by row.
 * @typedef {Float32Array | Float64Array} Values
 */

/**
 * The maps of several images, in activations. A document holds them in steps of their own peak.
 * @param {Documents.ImageMaps} part
 * @param {Documents.Layer} layer
 */
export const mapsOf = (part, layer) => {
  const steps = bytes(part.maps);
  const cells = layer.map.rows * layer.map.cols;
  return part.peaks.map((peak, place) => {
    const values = new Float32Array(cells);
    for (let cell = 0; cell < cells; cell++) {
      const share = steps[place * cells + cell] / 254;
      values[cell] = peak * (layer.signed ? 2 * share - 1 : share);
    }
    return values;
  });
};

/**
 * Where parts of the input lie between the centres of a map's cells: the cell before, the cell
 * after, and how far it is from the one to the other. Constant beyond the outermost centres.
 * @param {number[]} fractions
 * @param {number} inputs
 * @param {Documents.Axis} axis
 * @param {number} cells
 * @returns {[before: number, after: number, share: number][]}
 */
const along = (fractions, inputs, [start, step], cells) =>
  fractions.map((fraction) => {
    const position = Math.min(cells - 1, Math.max(0, (fraction * inputs - start) / step));
    const cell = Math.min(Math.floor(position), Math.max(0, cells - 2));
    return [cell, Math.min(cell + 1, cells - 1), position - cell];
  });

/**
 * A map on the input, bilinear between the centres of its cells, at these fractions of its sides.
 * @param {ArrayLike<number>} values
 * @param {Mapped} mapped
 * @param {Documents.Sides} input
 * @param {number[]} down
 * @param {number[]} across
 */
export const laid = (values, { map }, input, down, across) => {
  const { cols } = map;
  const ys = along(down, input[0], map.down, map.rows);
  const xs = along(across, input[1], map.across, cols);
  const field = new Float32Array(ys.length * xs.length);
  // Typed arrays: this loop runs over every pixel.
  const lefts = Float32Array.from(xs, (x) => x[0]);
  const rights = Float32Array.from(xs, (x) => x[1]);
  const shares = Float32Array.from(xs, (x) => x[2]);
  let place = 0;
  for (const [above, below, dy] of ys) {
    const [upper, lower] = [above * cols, below * cols];
    for (let x = 0; x < shares.length; x++) {
      const [left, right, dx] = [lefts[x], rights[x], shares[x]];
      const top = values[upper + left] * (1 - dx) + values[upper + right] * dx;
      const bottom = values[lower + left] * (1 - dx) + values[lower + right] * dx;
      field[place++] = top * (1 - dy) + bottom * dy;
    }
  }
  return field;
};

/**
 * Where a level crosses the edges of a square with these values at its corners: pairs of points
 * (x, y) from its upper left corner, in sides of the square.
 * @param {number} level
 * @param {number} a Upper left.
 * @param {number} b Upper right.
 * @param {number} c Lower right.
 * @param {number} d Lower left.
 */
const crossings = (level, a, b, c, d) => {
  /**
   * @param {number} from
   * @param {number} to
   */
  const share = (from, to) => (level - from) / (to - from);
  const [ina, inb, inc, ind] = [a >= level, b >= level, c >= level, d >= level];
  /** @type {[x: number, y: number][]} */
  const cuts = [];
  if (ina !== inb) cuts.push([share(a, b), 0]);
  if (inb !== inc) cuts.push([1, share(b, c)]);
  if (ind !== inc) cuts.push([share(d, c), 1]);
  if (ina !== ind) cuts.push([0, share(a, d)]);
  // A saddle: the mean of the corners decides which of them belong together.
  if (cuts.length === 4 && a + b + c + d >= 4 * level !== ina) cuts.push(...cuts.splice(0, 1));
  return cuts;
};

/**
 * The line at a level as an SVG path in a square of 100 that is moved by `corner`: marching squares
 * on a lattice of so many squares a side.
 * @param {ArrayLike<number>} values
 * @param {number} level
 * @param {Mapped} mapped
 * @param {Documents.Sides} input
 * @param {number} squares
 * @param {[across: number, down: number]} [corner]
 */
export const contourPath = (values, level, mapped, input, squares, corner = [0, 0]) => {
  if (!Array.from(values).some((value) => value >= level)) return "";
  const lines = Array.from({ length: squares + 1 }, (_, place) => place / squares);
  const field = laid(values, mapped, input, lines, lines);
  const width = squares + 1;
  const scale = 100 / squares;
  const [across, down] = corner;
  const parts = [];
  for (let y = 0; y < squares; y++) {
    for (let x = 0; x < squares; x++) {
      const at = y * width + x;
      const cuts = crossings(
        level,
        field[at],
        field[at + 1],
        field[at + width + 1],
        field[at + width],
      );
      const ends = cuts.map(
        ([dx, dy]) =>
          `${(across + (x + dx) * scale).toFixed(1)} ${(down + (y + dy) * scale).toFixed(1)}`,
      );
      for (let end = 0; end < ends.length; end += 2) parts.push(`M${ends[end]}L${ends[end + 1]}`);
    }
  }
  return parts.join("");
};

/**
 * A contour to lay over a picture.
 * @param {ArrayLike<number>} values
 * @param {number} level
 * @param {Mapped} mapped
 * @param {Documents.Sides} input
 * @param {number} [squares]
 */
export const contour = (values, level, mapped, input, squares = 64) =>
  outline("0 0 100 100", contourPath(values, level, mapped, input, squares));

/**
 * A line with its halo, to lay over a picture.
 * @param {string} viewBox
 * @param {string} path
 * @param {...Node} more
 */
export const outline = (viewBox, path, ...more) => {
  const line = path
    ? [svg("path", { class: "halo", d: path }), svg("path", { class: "line", d: path })]
    : [];
  return svg(
    "svg",
    { class: "contour", viewBox, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...line,
    ...more,
  );
};
