// Kernels: the weights of a convolution, and the colours they are drawn in.
import { h } from "./dom.js";
import { contextOf } from "./heat.js";
import { number } from "./numbers.js";
import { bytes, floats } from "./packed.js";

/**
 * How kernels are drawn: on a scale of their own or one for the layer; coloured by sign, or grey.
 * @typedef {object} KernelDrawing
 * @property {"kernel" | "shared"} scale
 * @property {KernelColours} colours
 */
/** @typedef {"signed" | "grey"} KernelColours */
/** @typedef {[low: number, high: number]} Ends */

/**
 * Colours written as rrggbb, as bytes of red, green and blue.
 * @param {string[]} colours
 */
const rgbOf = (colours) =>
  Uint8Array.from(
    colours.flatMap((colour) =>
      [0, 2, 4].map((place) => parseInt(colour.slice(place, place + 2), 16)),
    ),
  );

/**
 * Digits that tell apart two of the 255 steps between a picture's least and greatest weight.
 * @param {number} low
 * @param {number} high
 */
export const digitsOf = (low, high) => {
  if (!(high > low)) return 4;
  return Math.min(9, Math.max(0, Math.ceil(-Math.log10((high - low) / 255))));
};

/**
 * Some filters of a convolution. A picture shows a kernel, a filter's three input channels as
 * colours ("rgb"), or, where kernels are single weights, a whole filter with its weights laid in
 * rows.
 */
export class Kernels {
  /**
   * @param {Documents.Filters} layer
   * @param {string[]} signed The colours of signed weights.
   */
  constructor(layer, signed) {
    this.of = layer.of;
    this.filters = layer.filters;
    this.channels = layer.channels;
    this.rows = layer.rows;
    this.cols = layer.cols;
    this.groups = layer.groups;
    this.begin = layer.begin;
    this.count = layer.count;
    this.least = layer.least;
    this.greatest = layer.greatest;
    this.bytes = bytes(layer.pixels);
    this.lows = floats(layer.low);
    this.highs = floats(layer.high);
    this.colours = rgbOf(signed);
    // Sides of a picture, and how many weights it has.
    const whole = layer.of === "filter";
    this.wide = whole ? Math.ceil(Math.sqrt(layer.channels)) : layer.cols;
    this.high = whole ? Math.ceil(layer.channels / this.wide) : layer.rows;
    const levels = layer.of === "rgb" ? 3 : 1;
    this.size = whole ? layer.channels : layer.rows * layer.cols * levels;
  }

  /** Whether each picture shows one of several input channels. */
  get apart() {
    return this.of === "kernel" && this.channels > 1;
  }

  /** @param {number} filter */
  has(filter) {
    return filter >= this.begin && filter < this.begin + this.count;
  }

  /**
   * The input channel that a filter reads through a channel of its kernel.
   * @param {number} filter
   * @param {number} channel
   */
  input(filter, channel) {
    return Math.floor(filter / (this.filters / this.groups)) * this.channels + channel;
  }

  /**
   * The place of a picture.
   * @param {number} filter
   * @param {number} channel
   */
  place(filter, channel) {
    const at = filter - this.begin;
    return this.of === "kernel" ? at * this.channels + channel : at;
  }

  /**
   * The least and the greatest weight of a picture.
   * @param {number} place
   * @returns {Ends}
   */
  range(place) {
    return [this.lows[place], this.highs[place]];
  }

  /**
   * The same in words.
   * @param {number} place
   */
  span(place) {
    const [low, high] = this.range(place);
    const digits = digitsOf(low, high);
    const text = number(low, digits);
    return low === high ? text : `${text} to ${number(high, digits)}`;
  }

  /**
   * @param {number} filter
   * @param {number} channel
   */
  name(filter, channel) {
    const of = this.apart ? `, input channel ${this.input(filter, channel)}` : "";
    return `Filter ${filter}${of}`;
  }

  /**
   * The weights of a picture; of an "rgb" one three colours for each place.
   * @param {number} place
   */
  weights(place) {
    const [low, high] = this.range(place);
    return Float32Array.from(
      this.bytes.subarray(place * this.size, (place + 1) * this.size),
      (byte) => low + (byte / 255) * (high - low),
    );
  }

  /**
   * The ends of the scale. Colours have 0 in the middle; greys go from the least to the greatest.
   * @param {number} place
   * @param {KernelDrawing} drawing
   * @returns {Ends}
   */
  ends(place, { scale, colours }) {
    const [low, high] = scale === "shared" ? [this.least, this.greatest] : this.range(place);
    if (colours !== "signed") return [low, high];
    const most = Math.max(Math.abs(low), Math.abs(high));
    return [-most, most];
  }

  /**
   * Red, green and blue of a weight between such ends.
   * @param {number} weight
   * @param {Ends} ends
   * @param {KernelColours} colours
   * @returns {ArrayLike<number>}
   */
  colour(weight, [low, high], colours) {
    const share = high > low ? Math.min(1, Math.max(0, (weight - low) / (high - low))) : 0.5;
    const level = Math.round(255 * share);
    if (colours !== "signed") return [level, level, level];
    return this.colours.subarray(3 * level, 3 * level + 3);
  }

  /**
   * Pictures beside each other, a pixel a weight.
   * @param {number[]} places
   * @param {KernelDrawing} drawing
   */
  strip(places, drawing) {
    const picture = new ImageData(this.wide * places.length, this.high);
    places.forEach((place, at) => this.put(picture, at * this.wide, place, drawing));
    return picture;
  }

  /**
   * Put the picture at a place into a larger one, so many pixels from its left side.
   * @param {ImageData} into
   * @param {number} left
   * @param {number} place
   * @param {KernelDrawing} drawing
   */
  put(into, left, place, drawing) {
    const levels = this.of === "rgb" ? 3 : 1;
    const ends = this.ends(place, drawing);
    const weights = this.weights(place);
    for (let pixel = 0; pixel < this.size / levels; pixel++) {
      const row = Math.floor(pixel / this.wide);
      const at = 4 * (row * into.width + left + (pixel % this.wide));
      const colour =
        levels === 3
          ? [0, 1, 2].map((level) => this.colour(weights[3 * pixel + level], ends, "grey")[0])
          : this.colour(weights[pixel], ends, drawing.colours);
      into.data.set(colour, at);
      into.data[at + 3] = 255;
    }
  }
}

/**
 * Pictures as a canvas of a pixel a weight.
 * @param {Kernels} kernels
 * @param {number[]} places
 * @param {KernelDrawing} drawing
 */
export const stripCanvas = (kernels, places, drawing) => {
  const picture = kernels.strip(places, drawing);
  const canvas = h("canvas", { width: picture.width, height: picture.height });
  contextOf(canvas).putImageData(picture, 0, 0);
  return canvas;
};
