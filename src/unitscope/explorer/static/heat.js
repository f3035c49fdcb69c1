// Maps painted in colours, and the bars that say what the colours mean.
import { h, svg } from "./dom.js";
import { laid } from "./maps.js";
import { number } from "./numbers.js";
import { site } from "./site.js";
/** @import { Mapped } from "./maps.js" */

// Steps from 0 to the end of a scale.
const STEPS = 255;

/** @type {Map<string[], Uint32Array<ArrayBuffer>>} */
const tables = new Map();

/**
 * The pixels of values from −1 to 1 of a scale, in steps. Opacity grows with the distance from 0,
 * so that cold places show the plain photo, as in the reports. An unsigned map shows nothing below
 * 0.
 * @param {string[]} colours
 * @param {boolean} signed
 */
const shadesOf = (colours, signed) => {
  const known = tables.get(colours);
  if (known) return known;
  const levels = new Uint8ClampedArray(4 * (2 * STEPS + 1));
  for (let step = signed ? -STEPS : 0; step <= STEPS; step++) {
    const strength = Math.abs(step) / STEPS;
    const position = signed ? 0.5 + Math.sign(step) * (0.16 + 0.3 * strength) : strength;
    const colour = parseInt(colours[Math.round(255 * position)], 16);
    const opacity = 255 * 0.86 * strength ** 0.85;
    levels.set([colour >> 16, (colour >> 8) & 255, colour & 255, opacity], 4 * (step + STEPS));
  }
  const shades = new Uint32Array(levels.buffer);
  tables.set(colours, shades);
  return shades;
};

/**
 * The same colours as stops of a gradient, from one end of the scale to the other.
 * @param {string[]} colours
 */
const signedStops = (colours) => {
  const levels = new Uint8Array(shadesOf(colours, true).buffer);
  const stops = [];
  for (let step = -STEPS; step <= STEPS; step += STEPS / 15) {
    const at = 4 * (step + STEPS);
    const [red, green, blue, opacity] = levels.subarray(at, at + 4);
    stops.push(
      svg("stop", {
        offset: (step + STEPS) / (2 * STEPS),
        "stop-color": `rgb(${red},${green},${blue})`,
        "stop-opacity": (opacity / 255).toFixed(3),
      }),
    );
  }
  return stops;
};

/**
 * The drawing context of a canvas.
 * @param {HTMLCanvasElement} canvas
 */
export const contextOf = (canvas) => {
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot draw on a canvas.");
  return context;
};

/**
 * Paint a map on a canvas of `side` pixels; `high` has the colour at the end of the scale.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values
 * @param {number} high
 * @param {Mapped} mapped
 * @param {Documents.Sides} input
 * @param {string[]} colours
 * @param {{ signed?: boolean, side?: number }} [options]
 */
export const paint = (canvas, values, high, mapped, input, colours, options = {}) => {
  const { signed = false, side = 144 } = options;
  const longest = side / Math.max(...input);
  canvas.height = Math.max(1, Math.round(input[0] * longest));
  canvas.width = Math.max(1, Math.round(input[1] * longest));
  if (!(high > 0)) return canvas;

  /** @param {number} length */
  const centres = (length) => Array.from({ length }, (_, place) => (place + 0.5) / length);
  const field = laid(values, mapped, input, centres(canvas.height), centres(canvas.width));
  const context = contextOf(canvas);
  const picture = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer);
  const shades = shadesOf(colours, signed);
  for (let place = 0; place < pixels.length; place++) {
    const step = Math.round((field[place] * STEPS) / high);
    pixels[place] = shades[STEPS + Math.min(STEPS, Math.max(-STEPS, step))];
  }
  context.putImageData(picture, 0, 0);
  return canvas;
};

/**
 * A map in colours from 0 to `largest`, to lay over a picture.
 * @param {ArrayLike<number>} values
 * @param {number} largest
 * @param {Mapped} mapped
 * @param {Documents.Sides} input
 * @param {string[]} colours
 */
export const heat = (values, largest, mapped, input, colours) =>
  paint(h("canvas", { class: "heat" }), values, largest, mapped, input, colours);

/**
 * A scale in colours, with texts at shares of its length.
 * @param {string} id The id of its gradient.
 * @param {string} label
 * @param {SVGStopElement[]} stops
 * @param {[left: number, wide: number]} place
 * @param {[share: number, text: string][]} marks
 */
const barOfColours = (id, label, stops, [left, wide], marks) => {
  const width = 2 * left + wide;
  /** @param {Record<string, string>} more */
  const rect = (more) => svg("rect", { x: left, y: 1, width: wide, height: 12, ...more });
  const texts = marks.flatMap(([share, text]) => {
    const x = left + share * wide;
    return [
      svg("path", { class: "tick", d: `M${x} 13v4` }),
      svg("text", { x, y: 29, "text-anchor": "middle" }, text),
    ];
  });
  return svg(
    "svg",
    {
      class: "colour-bar",
      viewBox: `0 0 ${width} 34`,
      width,
      height: 34,
      role: "img",
      "aria-label": label,
    },
    svg("defs", {}, svg("linearGradient", { id }, ...stops)),
    // Seen through colours that are not opaque.
    rect({ class: "middle-grey" }),
    rect({ fill: `url(#${id})` }),
    ...texts,
  );
};

/**
 * The colours of heat.
 * @param {number} largest
 * @param {string[]} colours
 */
export const colourBar = (largest, colours) => {
  const some = colours.filter((_, place) => place % 15 === 0);
  const stops = some.map((colour, place) =>
    svg("stop", { offset: place / (some.length - 1), "stop-color": `#${colour}` }),
  );
  /** @type {[number, string][]} */
  const marks = [0, 0.5, 1].map((share) => [share, number(share * largest, share ? 2 : 0)]);
  return barOfColours(
    "ember",
    `Colour scale from 0 to ${number(largest)}`,
    stops,
    [18, 224],
    marks,
  );
};

/**
 * The colour at an end of a signed map, as a key to put before words.
 * @param {1 | -1} sign
 * @param {string[]} colours
 */
export const signedKey = (sign, colours) => {
  const stops = signedStops(colours);
  const fill = stops[sign < 0 ? 0 : stops.length - 1].getAttribute("stop-color") ?? "";
  return svg(
    "svg",
    { class: "signed-key", viewBox: "0 0 12 12", "aria-hidden": "true" },
    svg("rect", { width: 12, height: 12, rx: 2, fill }),
  );
};

/**
 * The colours of a signed map as they lie on the photo: over a grey of middle brightness.
 * @param {number} high
 * @param {string[]} colours
 */
export const signedBar = (high, colours) => {
  /** @type {[number, string][]} */
  const marks = [-1, -0.5, 0, 0.5, 1].map((share) => [
    (share + 1) / 2,
    number(share * high, share ? 2 : 0, true),
  ]);
  const label = `Colour scale from ${number(-high)} to ${number(high, 2, true)} ${site.scores.numbers}`;
  return barOfColours("signed-colours", label, signedStops(colours), [26, 268], marks);
};
