// Maps on pictures: contours, heat and the colour bar.
import { svg } from "./dom.js";
import { number } from "./numbers.js";

// Maps: one byte a cell, in steps of the map's own peak

// A plain loop: a head has millions of weights.
const unpacked = (text) => {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = characters.charCodeAt(place);
  return bytes;
};
export const floats = (text) => new Float32Array(unpacked(text).buffer);
// The maps of several images, each as activations.
export const mapsOf = (part, layer) => {
  const bytes = unpacked(part.maps);
  const cells = layer.map.rows * layer.map.cols;
  return part.peaks.map((peak, place) => {
    const values = new Float32Array(cells);
    for (let cell = 0; cell < cells; cell++) {
      const share = bytes[place * cells + cell] / 254;
      values[cell] = peak * (layer.signed ? 2 * share - 1 : share);
    }
    return values;
  });
};

// Where parts of the input lie between the centres of a map's cells: held constant beyond the outermost ones.
const along = (fractions, inputs, [start, step], cells) =>
  fractions.map((fraction) => {
    const position = Math.min(cells - 1, Math.max(0, (fraction * inputs - start) / step));
    const cell = Math.min(Math.floor(position), Math.max(0, cells - 2));
    return [cell, Math.min(cell + 1, cells - 1), position - cell];
  });

// A map laid on the input, bilinear between the centres of its cells.
export const laid = (values, layer, input, down, across) => {
  const { rows, cols } = layer.map;
  const ys = along(down, input[0], layer.map.down, rows);
  const xs = along(across, input[1], layer.map.across, cols);
  const field = new Float32Array(ys.length * xs.length);
  const [lefts, rights, shares] = [0, 1, 2].map((part) => Float32Array.from(xs, (x) => x[part]));
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

// The line at a level as an SVG path in a square of 100, moved by so much: marching squares on a lattice of so many
// squares a side.
export const contourPath = (values, level, layer, input, squares, [across, down] = [0, 0]) => {
  let reached = false;
  for (const value of values) if (value >= level) reached = true;
  if (!reached) return "";
  const lines = Array.from({ length: squares + 1 }, (_, place) => place / squares);
  const field = laid(values, layer, input, lines, lines);
  const width = squares + 1;
  const scale = 100 / squares;
  const parts = [];
  const at = (x, y) => `${(across + x * scale).toFixed(1)} ${(down + y * scale).toFixed(1)}`;
  const part = (a, b) => (level - a) / (b - a);
  for (let y = 0; y < squares; y++) {
    for (let x = 0; x < squares; x++) {
      const [a, b] = [field[y * width + x], field[y * width + x + 1]];
      const [d, c] = [field[(y + 1) * width + x], field[(y + 1) * width + x + 1]];
      const inside = (a >= level) + (b >= level) + (c >= level) + (d >= level);
      if (inside === 0 || inside === 4) continue;
      const cuts = [];
      if (a >= level !== b >= level) cuts.push(at(x + part(a, b), y));
      if (b >= level !== c >= level) cuts.push(at(x + 1, y + part(b, c)));
      if (d >= level !== c >= level) cuts.push(at(x + part(d, c), y + 1));
      if (a >= level !== d >= level) cuts.push(at(x, y + part(a, d)));
      if (cuts.length === 4 && a + b + c + d >= 4 * level !== a >= level) cuts.push(cuts.shift());
      for (let end = 0; end < cuts.length; end += 2) parts.push(`M${cuts[end]}L${cuts[end + 1]}`);
    }
  }
  return parts.join("");
};

export const contour = (values, level, layer, input, squares = 64) => {
  const path = contourPath(values, level, layer, input, squares);
  const box = { class: "contour", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg(
    "svg",
    box,
    ...(path ? [svg("path", { class: "halo", d: path }), svg("path", { class: "line", d: path })] : []),
  );
};

// The pixels of values from −1 to 1 of a scale, in steps. Opacity grows with the distance from 0, so that cold places show
// the plain photo, as in the reports; below 0 a map that is not signed shows nothing.
const STEPS = 255;
const tables = new Map();
const shadesOf = (colours, signed) => {
  if (tables.has(colours)) return tables.get(colours);
  const bytes = new Uint8ClampedArray(4 * (2 * STEPS + 1));
  for (let step = signed ? -STEPS : 0; step <= STEPS; step++) {
    const strength = Math.abs(step) / STEPS;
    const position = signed ? 0.5 + Math.sign(step) * (0.16 + 0.3 * strength) : strength;
    const colour = parseInt(colours[Math.round(255 * position)], 16);
    const opacity = 255 * 0.86 * strength ** 0.85;
    bytes.set([colour >> 16, (colour >> 8) & 255, colour & 255, opacity], 4 * (step + STEPS));
  }
  tables.set(colours, new Uint32Array(bytes.buffer));
  return tables.get(colours);
};

// The same as stops of a gradient, from one end of the scale to the other.
const shadeStops = (colours, signed) => {
  const bytes = new Uint8Array(shadesOf(colours, signed).buffer);
  const found = [];
  for (let step = signed ? -STEPS : 0; step <= STEPS; step += STEPS / 15) {
    const [red, green, blue, opacity] = bytes.subarray(4 * (step + STEPS), 4 * (step + STEPS) + 4);
    const offset = signed ? (step + STEPS) / (2 * STEPS) : step / STEPS;
    found.push(
      svg("stop", { offset, "stop-color": `rgb(${red},${green},${blue})`, "stop-opacity": (opacity / 255).toFixed(3) }),
    );
  }
  return found;
};

// Paints a map on a canvas of `side` pixels, `high` at the end of the colours.
export const paint = (canvas, values, high, layer, input, colours, { signed = false, side = 144 } = {}) => {
  const longest = side / Math.max(...input);
  canvas.height = Math.max(1, Math.round(input[0] * longest));
  canvas.width = Math.max(1, Math.round(input[1] * longest));
  if (!(high > 0)) return canvas;
  const centres = (length) => Array.from({ length }, (_, place) => (place + 0.5) / length);
  const field = laid(values, layer, input, centres(canvas.height), centres(canvas.width));
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer);
  const shades = shadesOf(colours, signed);
  for (let place = 0; place < pixels.length; place++) {
    const step = Math.round((field[place] * STEPS) / high);
    pixels[place] = shades[STEPS + (step > STEPS ? STEPS : step < -STEPS ? -STEPS : step)];
  }
  context.putImageData(picture, 0, 0);
  return canvas;
};

export const heat = (values, largest, layer, input, colours) => {
  const canvas = document.createElement("canvas");
  canvas.className = "heat";
  return paint(canvas, values, largest, layer, input, colours);
};

// A scale in colours: `stops` of its gradient, of this `id`, and values at shares of its length.
const barOfColours = (id, label, stops, [left, wide], marks) => {
  const box = { viewBox: `0 0 ${2 * left + wide} 34`, width: 2 * left + wide, height: 34 };
  const rect = (more) => svg("rect", { x: left, y: 1, width: wide, height: 12, ...more });
  const drawn = svg("svg", { class: "colour-bar", ...box, role: "img", "aria-label": label });
  drawn.append(
    svg("defs", {}, svg("linearGradient", { id }, ...stops)),
    // What is seen through colours that are not opaque.
    rect({ class: "middle-grey" }),
    rect({ fill: `url(#${id})` }),
  );
  for (const [share, text] of marks) {
    const x = left + share * wide;
    drawn.append(
      svg("path", { class: "tick", d: `M${x} 13v4` }),
      svg("text", { x, y: 29, "text-anchor": "middle" }, text),
    );
  }
  return drawn;
};

export const colourBar = (largest, colours) => {
  const stops = colours
    .filter((_, place) => place % 15 === 0)
    .map((colour, place, all) => svg("stop", { offset: place / (all.length - 1), "stop-color": `#${colour}` }));
  const marks = [0, 0.5, 1].map((share) => [share, number(share * largest, share ? 2 : 0)]);
  return barOfColours("ember", `Colour scale from 0 to ${number(largest)}`, stops, [18, 224], marks);
};

// The colours of a signed map as they lie on the photo: over a grey of middle brightness.
export const signedBar = (high, colours) => {
  const marks = [-1, -0.5, 0, 0.5, 1].map((share) => [(share + 1) / 2, number(share * high, share ? 2 : 0, true)]);
  const label = `Colour scale from ${number(-high)} to ${number(high, 2, true)} logits`;
  return barOfColours("signed-colours", label, shadeStops(colours, true), [26, 268], marks);
};
