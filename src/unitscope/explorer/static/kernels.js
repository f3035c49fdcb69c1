// Kernels: the weights of a convolution, and the colours they are drawn in.
import { floats } from "./maps.js";
import { number } from "./numbers.js";

const bytesOf = (text) => {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let place = 0; place < letters.length; place++) bytes[place] = letters.charCodeAt(place);
  return bytes;
};
const rgbOf = (colours) =>
  Uint8Array.from(
    colours.flatMap((colour) => [0, 2, 4].map((place) => parseInt(colour.slice(place, place + 2), 16))),
  );

// Digits that tell two steps of the 255 between a picture's least and greatest weight apart.
export const digitsOf = (low, high) =>
  high > low ? Math.min(9, Math.max(0, Math.ceil(-Math.log10((high - low) / 255)))) : 4;

// Some filters of a convolution. A picture is of a kernel, of three input channels as colours, or, where kernels are
// single weights, of a whole filter: its weights in order, laid in rows.
export class Kernels {
  constructor(told, signed) {
    const { of, filters, channels, rows, cols, groups, begin, count, least, greatest } = told;
    Object.assign(this, { of, filters, channels, rows, cols, groups, begin, count, least, greatest });
    this.bytes = bytesOf(told.pixels);
    [this.lows, this.highs] = [floats(told.low), floats(told.high)];
    this.colours = rgbOf(signed);
    this.wide = of === "filter" ? Math.ceil(Math.sqrt(channels)) : cols;
    this.high = of === "filter" ? Math.ceil(channels / this.wide) : rows;
    this.size = of === "filter" ? channels : rows * cols * (of === "rgb" ? 3 : 1);
  }

  // Whether input channels are looked at one by one.
  get apart() {
    return this.of === "kernel" && this.channels > 1;
  }

  has(filter) {
    return filter >= this.begin && filter < this.begin + this.count;
  }

  // The input channel that a filter reads through its kernel's channel.
  input(filter, channel) {
    return Math.floor(filter / (this.filters / this.groups)) * this.channels + channel;
  }

  place(filter, channel) {
    return this.of === "kernel" ? (filter - this.begin) * this.channels + channel : filter - this.begin;
  }

  range(place) {
    return [this.lows[place], this.highs[place]];
  }

  // The same in words.
  span(place) {
    const [low, high] = this.range(place);
    const digits = digitsOf(low, high);
    return low === high ? number(low, digits) : `${number(low, digits)} to ${number(high, digits)}`;
  }

  name(filter, channel) {
    return `Filter ${filter}${this.apart ? `, input channel ${this.input(filter, channel)}` : ""}`;
  }

  // The weights of a picture; three colours one after the other for each place of an "rgb" one.
  weights(place) {
    const [low, high] = this.range(place);
    return Float32Array.from(
      this.bytes.subarray(place * this.size, (place + 1) * this.size),
      (byte) => low + (byte / 255) * (high - low),
    );
  }

  // The ends of the scale: colours have 0 in the middle, greys go from the least to the greatest weight.
  ends(place, { scale, colours }) {
    const [low, high] = scale === "shared" ? [this.least, this.greatest] : this.range(place);
    if (colours !== "signed") return [low, high];
    const most = Math.max(Math.abs(low), Math.abs(high));
    return [-most, most];
  }

  // What a weight looks like between such ends: red, green, blue.
  colour(weight, [low, high], colours) {
    const share = high > low ? Math.min(1, Math.max(0, (weight - low) / (high - low))) : 0.5;
    const level = Math.round(255 * share);
    return colours === "signed" ? this.colours.subarray(3 * level, 3 * level + 3) : [level, level, level];
  }

  // Pictures beside each other, a pixel a weight.
  strip(places, drawing) {
    const picture = new ImageData(this.wide * places.length, this.high);
    const levels = this.of === "rgb" ? 3 : 1;
    places.forEach((place, at) => {
      const ends = this.ends(place, drawing);
      const weights = this.weights(place);
      for (let pixel = 0; pixel < this.size / levels; pixel++) {
        const row = Math.floor(pixel / this.wide);
        const column = at * this.wide + (pixel % this.wide);
        const colour =
          levels === 3
            ? [0, 1, 2].map((one) => this.colour(weights[3 * pixel + one], ends, "grey")[0])
            : this.colour(weights[pixel], ends, drawing.colours);
        picture.data.set(colour, 4 * (row * picture.width + column));
        picture.data[4 * (row * picture.width + column) + 3] = 255;
      }
    });
    return picture;
  }
}

// Pictures as a canvas of a pixel a weight.
export const stripCanvas = (kernels, places, drawing) => {
  const canvas = document.createElement("canvas");
  const picture = kernels.strip(places, drawing);
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
};
