// Curves with their intervals as bands: what is left of a class as more units are off.
import { svg } from "./dom.js";

/**
 * A point of a curve: how many units are off, and the balanced accuracy then.
 * @typedef {object} CurveRow
 * @property {number} units
 * @property {number | null} value
 * @property {number | null} low
 * @property {number | null} high
 */
/** @typedef {{ name: string, rows: CurveRow[] }} Curve */

const START = 46;
const END = 408;
const ROOF = 16;
const FLOOR = 206;

/**
 * The different numbers of units of some curves, in order.
 * @param {Curve[]} series
 */
export const sizesOf = (series) => {
  const units = series.flatMap(({ rows }) => rows.map((row) => row.units));
  return [...new Set(units)].sort((a, b) => a - b);
};

/**
 * @param {Curve[]} series
 * @param {string} label
 */
export const curves = (series, label) => {
  const sizes = sizesOf(series);
  const most = Math.max(1, ...sizes);
  const ends = series
    .flatMap(({ rows }) => rows.flatMap((row) => [row.low, row.high, row.value]))
    .filter((end) => end !== null);
  // To whole tenths.
  const low = Math.floor(10 * Math.min(...ends)) / 10;
  const high = Math.ceil(10 * Math.max(...ends)) / 10;
  /** @param {number} units */
  const x = (units) => START + ((END - START) * Math.log2(1 + units)) / Math.log2(1 + most);
  /** @param {number} value */
  const y = (value) => FLOOR - ((FLOOR - ROOF) * (value - low)) / (high - low || 1);

  const rules = [];
  for (let step = Math.round(10 * low); step <= Math.round(10 * high); step++) {
    const height = y(step / 10);
    rules.push(
      svg("path", { class: "rule", d: `M${START} ${height}H${END}` }),
      svg("text", { x: START - 6, y: height + 4, "text-anchor": "end" }, `${10 * step}%`),
    );
  }
  return svg(
    "svg",
    { class: "curves", viewBox: "0 0 420 252", role: "img", "aria-label": label },
    ...rules,
    ...sizeTexts(sizes, x),
    svg(
      "text",
      { x: (START + END) / 2, y: FLOOR + 38, "text-anchor": "middle" },
      "units switched off (logarithmic)",
    ),
    ...series.flatMap(({ rows }, place) => drawnCurve(rows, `s${place}`, x, y)),
  );
};

/**
 * The numbers below the curves, of which those that would overlap are left out.
 * @param {number[]} sizes
 * @param {(units: number) => number} x
 */
const sizeTexts = (sizes, x) => {
  const texts = [];
  let last = -Infinity;
  for (const units of sizes) {
    if (x(units) - last < 26) continue;
    last = x(units);
    texts.push(svg("text", { x: last, y: FLOOR + 17, "text-anchor": "middle" }, String(units)));
  }
  return texts;
};

/**
 * @param {CurveRow[]} rows
 * @param {string} kind
 * @param {(units: number) => number} x
 * @param {(value: number) => number} y
 */
const drawnCurve = (rows, kind, x, y) => {
  /**
   * The points that were measured.
   * @param {"value" | "low" | "high"} column
   * @returns {[x: number, y: number][]}
   */
  const pointsOf = (column) =>
    rows.flatMap((row) => {
      const measured = row[column];
      const whole = column === "value" || (row.low !== null && row.high !== null);
      return row.value !== null && measured !== null && whole ? [[x(row.units), y(measured)]] : [];
    });
  /** @param {[x: number, y: number][]} points */
  const path = (points) => points.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L");
  const [values, highs, lows] = [pointsOf("value"), pointsOf("high"), pointsOf("low")];
  const drawn = [];
  if (highs.length > 1) {
    const band = `M${path(highs)}L${path(lows.reverse())}z`;
    drawn.push(svg("path", { class: `band ${kind}`, d: band }));
  }
  if (values.length) drawn.push(svg("path", { class: `curve ${kind}`, d: `M${path(values)}` }));
  for (const [cx, cy] of values) drawn.push(svg("circle", { class: kind, cx, cy, r: 2.6 }));
  return drawn;
};
