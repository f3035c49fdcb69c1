// A unit's histogram as a sparkline. Both axes are logarithmic.
import { svg } from "./dom.js";

const HEIGHT = 24;
// Heights come in so many levels.
const LEVELS = 35;

/**
 * Positions of bins on a logarithmic axis, and of a threshold: Infinity where it is not above 0.
 * @param {number[]} edges
 * @param {number | null} threshold
 */
export const logarithms = (edges, threshold) => {
  const logs = edges.map(Math.log2);
  const limit = threshold !== null && threshold > 0 ? Math.log2(threshold) : Infinity;
  return { logs, low: logs[0], high: logs[logs.length - 1], limit };
};

/**
 * The parts of a bin below and above a threshold.
 * @param {number} from
 * @param {number} to
 * @param {number} limit
 * @returns {[kind: "below" | "above", from: number, to: number][]}
 */
export const partsOfBin = (from, to, limit) => {
  /** @type {["below" | "above", number, number][]} */
  const parts = [];
  if (from < limit) parts.push(["below", from, Math.min(to, limit)]);
  if (to > limit) parts.push(["above", Math.max(from, limit), to]);
  return parts;
};

/**
 * @param {string} letters The bins' heights, a letter each from 0 to z.
 * @param {number[]} edges
 * @param {number | null} threshold
 */
export const spark = (letters, edges, threshold) => {
  const { logs, low, high, limit } = logarithms(edges, threshold);
  /** @param {number} value */
  const x = (value) => ((100 * (value - low)) / (high - low)).toFixed(1);
  const paths = { below: "", above: "" };
  [...letters].forEach((letter, bin) => {
    const step = parseInt(letter, 36);
    if (!step) return;
    const height = ((step * HEIGHT) / LEVELS).toFixed(1);
    for (const [kind, from, to] of partsOfBin(logs[bin], logs[bin + 1], limit))
      paths[kind] += `M${x(from)} ${HEIGHT}v-${height}H${x(to)}V${HEIGHT}z`;
  });
  const within = limit > low && limit < high;
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 100 25", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "below", d: paths.below }),
    svg("path", { class: "above", d: paths.above }),
    svg("path", { class: "base", d: "M0 24.5H100" }),
    ...(within ? [svg("path", { class: "threshold", d: `M${x(limit)} 0V${HEIGHT}` })] : []),
  );
};
