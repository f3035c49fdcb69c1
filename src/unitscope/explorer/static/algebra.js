// The exact algebra of a head, on the numbers of one forward pass: logits without any units, maps,
// contributions and evidence from regions. Arrays are flat, in the order of their axes: weight
// (class, unit), features (unit, cell).
import { floats } from "./packed.js";
/** @import { Values } from "./maps.js" */
/** @import { ClassEvidence } from "./photo-answers.js" */

/**
 * How pooled units become logits.
 * @typedef {object} Readout
 * @property {number} classes
 * @property {number} units
 * @property {Float32Array} weight (class, unit)
 * @property {Float32Array} bias (class)
 * @property {Documents.Normalisation | null} norm
 */

/**
 * @param {Documents.Readout} head
 * @returns {Readout}
 */
export const readoutOf = (head) => ({
  ...head,
  weight: floats(head.weight),
  bias: floats(head.bias),
});

/**
 * What divides the pooled units before the linear layer; 1 without a normalisation.
 * @param {Documents.Normalisation | null} norm
 * @param {Float64Array} pooled
 */
const divisorOf = (norm, pooled) => {
  if (!norm) return 1;
  const mean = norm.kind === "layer" ? sumOf(pooled) / pooled.length : 0;
  const squares = sumOf(pooled.map((value) => (value - mean) ** 2));
  return norm.kind === "length"
    ? Math.max(Math.sqrt(squares), norm.eps)
    : Math.sqrt(squares / pooled.length + norm.eps);
};

/** @param {Float64Array} values */
const sumOf = (values) => values.reduce((sum, value) => sum + value, 0);

/**
 * The mean of every unit over its cells.
 * @param {Float32Array} features (unit, cell)
 * @param {number} units
 */
const cellMeans = (features, units) => {
  const cells = features.length / units;
  const means = new Float64Array(units);
  for (let unit = 0; unit < units; unit++) {
    let sum = 0;
    for (let cell = unit * cells; cell < (unit + 1) * cells; cell++) sum += features[cell];
    means[unit] = sum / cells;
  }
  return means;
};

/** One photo with an exact head. `off` is always the set of units that are off. */
export class ExactPhoto {
  /**
   * @param {Documents.ExactPhoto} photo
   * @param {Readout} readout
   */
  constructor(photo, readout) {
    this.readout = readout;
    this.units = photo.units;
    this.logits = floats(photo.logits);
    this.features = floats(photo.features);
    this.cells = this.features.length / this.units;
    // What the maps themselves average to.
    this.means = cellMeans(this.features, this.units);
    // An atlas keeps maps with fewer digits than their means.
    this.pooled = photo.pooled ? Float64Array.from(floats(photo.pooled)) : this.means;
  }

  /**
   * The pooled units, 0 where they are off, and what divides them then.
   * @param {Set<number>} off
   */
  shares(off) {
    const pooled = this.pooled.slice();
    for (const unit of off) pooled[unit] = 0;
    return { pooled, divisor: divisorOf(this.readout.norm, pooled) };
  }

  /**
   * Σ over units of weight · value, for every class, plus a share of the bias.
   * @param {Float64Array} values
   * @param {number} [share]
   */
  through(values, share = 1) {
    const { weight, bias, classes } = this.readout;
    const active = [];
    for (let unit = 0; unit < this.units; unit++) if (values[unit] !== 0) active.push(unit);
    const logits = new Float64Array(classes);
    for (let index = 0; index < classes; index++) {
      const row = index * this.units;
      let sum = 0;
      for (const unit of active) sum += weight[row + unit] * values[unit];
      logits[index] = sum + share * bias[index];
    }
    return logits;
  }

  /**
   * The logits without some units; the network's own while all are on.
   * @param {Set<number>} off
   */
  logitsWithout(off) {
    if (!off.size) return Float64Array.from(this.logits);
    const { pooled, divisor } = this.shares(off);
    if (this.readout.norm || 2 * off.size > this.units)
      return this.through(pooled.map((value) => value / divisor));
    // Fewer products: logit − Σ contributions of the units that are off.
    const removed = this.pooled.map((value, unit) => (off.has(unit) ? value : 0));
    return this.through(removed, 0).map((value, index) => this.logits[index] - value);
  }

  /**
   * What every unit adds to a class's logit.
   * @param {number} index
   * @param {Set<number>} [off]
   */
  contributions(index, off = new Set()) {
    const { pooled, divisor } = this.shares(off);
    const { weight } = this.readout;
    return pooled.map((value, unit) => (weight[index * this.units + unit] * value) / divisor);
  }

  /**
   * The signed map of a class, in logits: its mean plus the bias is the logit.
   * @param {number} index
   * @param {Set<number>} [off]
   */
  map(index, off = new Set()) {
    const { divisor } = this.shares(off);
    const { features, cells } = this;
    const values = new Float64Array(cells);
    const weights = this.readout.weight.subarray(index * this.units, (index + 1) * this.units);
    for (let unit = 0, begin = 0; unit < this.units; unit++, begin += cells) {
      if (!weights[unit] || off.has(unit)) continue;
      const weight = weights[unit] / divisor;
      for (let cell = 0; cell < cells; cell++) values[cell] += weight * features[begin + cell];
    }
    return values;
  }

  /**
   * What the map leaves out of a class's logit.
   * @param {number} index
   */
  leftOut(index) {
    return this.readout.bias[index];
  }

  /** @param {number} unit */
  mapOfUnit(unit) {
    return this.features.subarray(unit * this.cells, (unit + 1) * this.cells);
  }

  /**
   * The evidence for every class from the cells of a region. Regions that tile the map add up to
   * the logits.
   * @param {Set<number>} region
   * @param {Set<number>} [off]
   */
  evidence(region, off = new Set()) {
    const { divisor } = this.shares(off);
    const values = new Float64Array(this.units);
    for (let unit = 0; unit < this.units; unit++) {
      if (off.has(unit)) continue;
      let sum = 0;
      for (const cell of region) sum += this.features[unit * this.cells + cell];
      values[unit] = sum / this.cells / divisor;
    }
    return this.through(values, region.size / this.cells);
  }

  /** How far maps and bias are from the network's logits, relative to the largest. */
  error() {
    const { divisor } = this.shares(new Set());
    const rebuilt = this.through(this.means.map((value) => value / divisor));
    let [size, difference] = [0, 0];
    rebuilt.forEach((value, index) => {
      size = Math.max(size, Math.abs(this.logits[index]));
      difference = Math.max(difference, Math.abs(value - this.logits[index]));
    });
    return difference / (size || 1);
  }
}

/**
 * @param {Values} first
 * @param {Values} second
 */
export const differences = (first, second) =>
  Float64Array.from(first, (value, place) => value - second[place]);

/**
 * The evidence for a class rather than another: every part is the difference of both, and adds up
 * to the margin between their logits.
 * @param {ClassEvidence} own
 * @param {ClassEvidence} other
 * @returns {ClassEvidence}
 */
export const marginOf = (own, other) => ({
  map: differences(own.map, other.map),
  contributions: differences(own.contributions, other.contributions),
  leftOut: own.leftOut - other.leftOut,
});

/**
 * The probabilities of logits, as Scores computes them in Python; null where there are none.
 * @param {Float32Array | Float64Array} logits
 * @param {Documents.Scores["kind"]} kind
 */
export const probabilities = (logits, kind) => {
  if (kind === "none") return null;
  if (kind === "probabilities") return Float64Array.from(logits);
  if (kind === "sigmoid") return Float64Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
  let highest = -Infinity;
  for (const logit of logits) highest = Math.max(highest, logit);
  const shares = Float64Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = sumOf(shares);
  return shares.map((share) => share / sum);
};

/**
 * The indices of the largest values, largest first; of equal ones the first.
 * @param {Float32Array | Float64Array} values
 * @param {number} count
 */
export const largest = (values, count) => {
  /** @type {number[]} */
  const indices = [];
  values.forEach((value, index) => {
    if (indices.length === count && !(value > values[indices[count - 1]])) return;
    let at = indices.length;
    while (at > 0 && value > values[indices[at - 1]]) at -= 1;
    indices.splice(at, 0, index);
    if (indices.length > count) indices.pop();
  });
  return indices;
};
