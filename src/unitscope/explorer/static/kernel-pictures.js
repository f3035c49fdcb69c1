// A kernel enlarged, with its weights as numbers, and the scale of its colours.
import { h, small, svg } from "./dom.js";
import { digitsOf, stripCanvas } from "./kernels.js";
import { number, superscript } from "./numbers.js";
/** @import { Child } from "./dom.js" */
/** @import { Ends, KernelColours, KernelDrawing, Kernels } from "./kernels.js" */

/** Numbers are written into kernels of at most so many weights a side. */
export const WRITTEN = 11;
// Weights listed at each end of a whole filter.
const STRONGEST = 6;
// The side of a square of a weight.
const SQUARE = 40;

/**
 * Writes weights in few characters: as they are where there is room, else as whole numbers of a
 * power of ten, which `factor` names.
 * @param {number} low
 * @param {number} high
 * @param {boolean} roomy
 */
const writerOf = (low, high, roomy) => {
  const digits = digitsOf(low, high);
  /** @param {number} weight */
  const whole = (weight) => Math.round(weight * 10 ** digits);
  /**
   * @param {number} value
   * @param {number} places
   */
  const written = (value, places) => value.toFixed(places).replace("-", "−");
  // What rounds to 0 is written as 0, whatever its sign.
  if (roomy && digits < 5) {
    /** @param {number} weight */
    const write = (weight) => written(whole(weight) ? weight : 0, digits);
    return { write, factor: "" };
  }
  /** @param {number} weight */
  const write = (weight) => written(whole(weight) || 0, 0);
  return { write, factor: digits ? `in units of 10${superscript(-digits)}` : "" };
};

/**
 * Weights as squares with their numbers.
 * @param {Kernels} kernels
 * @param {Float32Array} weights
 * @param {Ends} ends
 * @param {KernelColours} colours
 * @param {(weight: number) => string} write
 * @param {string} label
 */
const squares = (kernels, weights, ends, colours, write, label) => {
  const { high, wide } = kernels;
  const viewBox = `0 0 ${SQUARE * wide} ${SQUARE * high}`;
  const drawn = svg("svg", { class: "kernel-weights", viewBox, role: "img", "aria-label": label });
  const longest = Math.max(...Array.from(weights, (weight) => write(weight).length));
  drawn.style.fontSize = `${Math.min(14, 58 / longest).toFixed(1)}px`;
  weights.forEach((weight, place) => {
    const x = SQUARE * (place % wide);
    const y = SQUARE * Math.floor(place / wide);
    const [red, green, blue] = Array.from(kernels.colour(weight, ends, colours));
    const light = 0.299 * red + 0.587 * green + 0.114 * blue > 140;
    const kind = light ? "on-light" : "on-dark";
    drawn.append(
      svg("rect", { x, y, width: SQUARE, height: SQUARE, fill: `rgb(${red} ${green} ${blue})` }),
      svg("text", { x: x + 20, y: y + 24, "text-anchor": "middle", class: kind }, write(weight)),
    );
  });
  return drawn;
};

/**
 * What the colours mean: the ends of a scale, and 0 where it lies between them.
 * @param {Kernels} kernels
 * @param {Ends} ends
 * @param {KernelColours} colours
 */
export const scaleBar = (kernels, ends, colours) => {
  const [low, high] = ends;
  const [left, wide] = [30, 220];
  const digits = Math.min(4, digitsOf(low, high));
  const stops = Array.from({ length: 18 }, (_, place) => {
    const share = place / 17;
    const colour = Array.from(kernels.colour(low + share * (high - low), ends, colours));
    return svg("stop", { offset: share, "stop-color": `rgb(${colour.join(" ")})` });
  });
  const marks = low < 0 && high > 0 ? [low, 0, high] : [low, high];
  const ticks = marks.flatMap((mark) => {
    const x = left + (high > low ? (mark - low) / (high - low) : 0.5) * wide;
    const tick = svg("path", { class: "tick", d: `M${x.toFixed(1)} 13v4` });
    // A 0 close to an end would overlap that end's number.
    if (mark === 0 && Math.min(x - left, left + wide - x) < 42) return [tick];
    const text = number(mark, mark ? digits : 0);
    return [tick, svg("text", { x: x.toFixed(1), y: 29, "text-anchor": "middle" }, text)];
  });
  return svg(
    "svg",
    {
      class: "colour-bar",
      viewBox: "0 0 280 34",
      width: 280,
      height: 34,
      role: "img",
      "aria-label": `Scale from ${number(low, digits)} to ${number(high, digits)}`,
    },
    svg("defs", {}, svg("linearGradient", { id: "kernel-scale" }, ...stops)),
    svg("rect", { x: left, y: 1, width: wide, height: 12, fill: "url(#kernel-scale)" }),
    ...ticks,
  );
};

/**
 * A kernel enlarged, and its numbers.
 * @param {Kernels} kernels
 * @param {number} place
 * @param {KernelDrawing} drawing
 * @param {string} label
 * @param {number} level Which of three colours is written, −1 for none.
 * @returns {Child[]}
 */
export const picturesOf = (kernels, place, drawing, label, level) => {
  const { of } = kernels;
  const [low, high] = kernels.range(place);
  const longest = Math.max(kernels.rows, kernels.cols);
  const weights = kernels.weights(place);
  const picture = stripCanvas(kernels, [place], drawing);
  picture.className = "kernel-enlarged";
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", label);
  if (of === "filter") return [picture, strongest(weights, digitsOf(low, high))];
  if (longest > WRITTEN) {
    const most = `Numbers are written into kernels of at most ${WRITTEN} × ${WRITTEN} weights.`;
    return [picture, small(most)];
  }
  if (of === "rgb" && level < 0) return [picture];

  const colours = of === "rgb" ? "signed" : drawing.colours;
  const shown = of === "rgb" ? weights.filter((_, at) => at % 3 === level) : weights;
  const { write, factor } = writerOf(low, high, longest <= 5);
  const ends = kernels.ends(place, { ...drawing, colours });
  const precision = ["Numbers to 1/255 of the range", factor].filter(Boolean).join(", ");
  return [squares(kernels, shown, ends, colours, write, label), small(precision, ".")];
};

/**
 * The input channels with the greatest and the least weights of a filter of single weights.
 * @param {Float32Array} weights
 * @param {number} digits
 */
const strongest = (weights, digits) => {
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
  const some = Math.min(STRONGEST, Math.floor(order.length / 2));
  /**
   * @param {string} title
   * @param {number[]} channels
   */
  const list = (title, channels) => {
    const items = channels.map((channel) =>
      h("li", {}, h("span", {}, String(channel)), " ", number(weights[channel], digits, true)),
    );
    return h("div", {}, h("h3", {}, title), h("ol", {}, items));
  };
  return h(
    "div",
    { class: "kernel-strongest" },
    small("Input channels, and their weights:"),
    list("the greatest", order.slice(0, some)),
    list("the least", order.slice(order.length - some).reverse()),
  );
};
