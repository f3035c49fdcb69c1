// Charts: histograms and bars.
import { svg } from "./dom.js";
import { power, superscript } from "./numbers.js";
import { logarithms, partsOfBin } from "./spark.js";
/** @import { Estimate } from "./numbers.js" */

const LEFT = 52;
const RIGHT = 408;
const TOP = 26;
const BOTTOM = 190;

/**
 * The scale of a chart: where a value lies in the drawing.
 * @typedef {(value: number) => number} Scale
 */

/**
 * A unit's histogram. Both axes are logarithmic.
 * @param {number[]} shares Of cells, by bin.
 * @param {Documents.Layer["bins"]} bins
 * @param {number} threshold
 * @param {string} written The threshold in words.
 * @param {string} label
 * @param {[values: string, shares: string]} along What the axes are called.
 */
export const histogram = (shares, bins, threshold, written, label, [values, of]) => {
  const { logs, low, high, limit } = logarithms(bins.edges, threshold);
  // So many powers of ten lie between one cell and all of them.
  const reach = -Math.log10(bins.floor);
  /** @type {Scale} */
  const x = (value) => LEFT + ((RIGHT - LEFT) * (value - low)) / (high - low);
  /** @type {Scale} */
  const y = (share) => BOTTOM - (BOTTOM - TOP) * Math.max(0, 1 + Math.log10(share) / reach);
  const bars = shares.flatMap((share, bin) =>
    share > 0
      ? partsOfBin(logs[bin], logs[bin + 1], limit).map(([kind, from, to]) =>
          svg("rect", {
            class: kind,
            x: x(from) + 0.4,
            y: y(share),
            width: Math.max(0.2, x(to) - x(from) - 0.8),
            height: BOTTOM - y(share),
          }),
        )
      : [],
  );
  return svg(
    "svg",
    { class: "histogram", viewBox: "0 0 420 236", role: "img", "aria-label": label },
    ...shareRules(reach, y),
    ...bars,
    svg("path", { class: "base", d: `M${LEFT} ${BOTTOM}H${RIGHT}` }),
    ...octaveTicks(low, high, x),
    svg("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 38, "text-anchor": "middle" }, values),
    svg("text", { x: 2, y: 12 }, of),
    ...(limit > low && limit < high ? thresholdMark(x(limit), written) : []),
  );
};

/**
 * Lines across at powers of ten, with the shares that they stand for.
 * @param {number} reach
 * @param {Scale} y
 */
const shareRules = (reach, y) => {
  const rules = [];
  for (let exponent = 0; exponent >= -reach; exponent -= reach > 5 ? 2 : 1) {
    const height = y(10 ** exponent);
    const text =
      exponent > -3
        ? `${Number((100 * 10 ** exponent).toPrecision(1))}%`
        : `10${superscript(exponent)}`;
    rules.push(
      svg("path", { class: "rule", d: `M${LEFT} ${height.toFixed(1)}H${RIGHT}` }),
      svg("text", { x: LEFT - 6, y: height + 4, "text-anchor": "end" }, text),
    );
  }
  return rules;
};

/**
 * Ticks at every second power of two.
 * @param {number} low
 * @param {number} high
 * @param {Scale} x
 */
const octaveTicks = (low, high, x) => {
  const ticks = [];
  for (let octave = Math.ceil(low); octave <= high; octave += 2) {
    const value = 2 ** octave;
    const extreme = value >= 1000 || value < 0.001;
    const text = extreme ? power(value) : String(Number(value.toPrecision(2)));
    ticks.push(
      svg("path", { class: "tick", d: `M${x(octave)} ${BOTTOM}v4` }),
      svg("text", { x: x(octave), y: BOTTOM + 17, "text-anchor": "middle" }, text),
    );
  }
  return ticks;
};

/**
 * @param {number} x
 * @param {string} written
 */
const thresholdMark = (x, written) => {
  const atEnd = x > 300;
  const anchor = atEnd ? "end" : "start";
  return [
    svg("path", { class: "threshold", d: `M${x} ${TOP - 8}V${BOTTOM}` }),
    svg(
      "text",
      { class: "marked", x: x + (atEnd ? -5 : 5), y: TOP, "text-anchor": anchor },
      `threshold ${written}`,
    ),
  ];
};

/**
 * A bar from 0 to a value with its interval as a whisker, on a line from `low` to `high`.
 * @param {Estimate} value
 * @param {Estimate} from
 * @param {Estimate} to
 * @param {number} low
 * @param {number} high
 */
export const bar = (value, from, to, low, high) => {
  /** @type {Scale} */
  const x = (position) => (100 * (position - low)) / (high - low || 1);
  const drawn = svg("svg", {
    class: "bar",
    viewBox: "0 0 100 12",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  if (value !== null && value !== undefined) {
    const begin = Math.min(x(0), x(value));
    const width = Math.max(0.4, Math.max(x(0), x(value)) - begin);
    const kind = value < 0 ? "under" : "over";
    drawn.append(svg("rect", { class: kind, x: begin, y: 2, width, height: 8 }));
  }
  if (low < 0) drawn.append(svg("path", { class: "zero", d: `M${x(0)} 0V12` }));
  if (from !== null && to !== null && from !== undefined && to !== undefined) {
    const whisker = `M${x(from)} 6H${x(to)}M${x(from)} 3.5v5M${x(to)} 3.5v5`;
    drawn.append(svg("path", { class: "whisker", d: whisker }));
  }
  return drawn;
};
