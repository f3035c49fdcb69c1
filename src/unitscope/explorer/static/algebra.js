// The exact algebra of a head, on the numbers of one forward pass: logits without any units, maps, contributions and
// evidence from regions. Arrays are flat, in the order of their names: weight (class, unit), features (unit, cell).
import { floats } from "./maps.js";

export const readoutOf = (told) => ({ ...told, weight: floats(told.weight), bias: floats(told.bias) });

// What the pooled units are divided by before the linear layer: 1 without a normalisation.
const divisorOf = (norm, pooled) => {
  if (!norm) return 1;
  let [sum, squares] = [0, 0];
  for (const value of pooled) sum += value;
  const mean = norm.kind === "layer" ? sum / pooled.length : 0;
  for (const value of pooled) squares += (value - mean) ** 2;
  return norm.kind === "length"
    ? Math.max(Math.sqrt(squares), norm.eps)
    : Math.sqrt(squares / pooled.length + norm.eps);
};

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

// One photo: `told` is its document. Units that are off are the set `off` in what follows.
export class ExactPhoto {
  constructor(told, readout) {
    this.told = told;
    this.readout = readout;
    this.units = told.units;
    this.logits = floats(told.logits);
    this.features = floats(told.features);
    this.cells = this.features.length / this.units;
    // An atlas keeps maps with fewer digits than their means.
    this.pooled = told.pooled ? Float64Array.from(floats(told.pooled)) : cellMeans(this.features, this.units);
  }

  // The pooled units, 0 where they are off, and what they are divided by then.
  shares(off) {
    const pooled = this.pooled.slice();
    for (const unit of off) pooled[unit] = 0;
    return { pooled, divisor: divisorOf(this.readout.norm, pooled) };
  }

  // Σ over units of weight · values, for every class, plus a share of the bias.
  through(values, bias = 1) {
    const { weight, bias: biases, classes } = this.readout;
    const chosen = [];
    for (let unit = 0; unit < this.units; unit++) if (values[unit] !== 0) chosen.push(unit);
    const found = new Float64Array(classes);
    for (let one = 0; one < classes; one++) {
      const row = one * this.units;
      let sum = 0;
      for (const unit of chosen) sum += weight[row + unit] * values[unit];
      found[one] = sum + bias * biases[one];
    }
    return found;
  }

  // The network's own while all units are on.
  logitsWithout(off) {
    if (!off.size) return Float64Array.from(this.logits);
    const { pooled, divisor } = this.shares(off);
    if (this.readout.norm || 2 * off.size > this.units) return this.through(pooled.map((value) => value / divisor));
    // The fewer products: logit − Σ contributions of those that are off.
    const gone = this.through(this.pooled.map((value, unit) => (off.has(unit) ? value : 0)), 0);
    return gone.map((value, one) => this.logits[one] - value);
  }

  // What every unit adds to a class's logit.
  contributions(one, off = new Set()) {
    const { pooled, divisor } = this.shares(off);
    return pooled.map((value, unit) => (this.readout.weight[one * this.units + unit] * value) / divisor);
  }

  // The signed map of a class, in logits: its mean plus the bias is the logit.
  map(one, off = new Set()) {
    const { divisor } = this.shares(off);
    const found = new Float64Array(this.cells);
    const { features, cells } = this;
    const weights = this.readout.weight.subarray(one * this.units, (one + 1) * this.units);
    for (let unit = 0, begin = 0; unit < this.units; unit++, begin += cells) {
      if (!weights[unit] || off.has(unit)) continue;
      const weight = weights[unit] / divisor;
      for (let cell = 0; cell < cells; cell++) found[cell] += weight * features[begin + cell];
    }
    return found;
  }

  leftOut(one) {
    return this.readout.bias[one];
  }

  mapOfUnit(unit) {
    return this.features.subarray(unit * this.cells, (unit + 1) * this.cells);
  }

  // The evidence for every class from the cells of a region: regions that tile the map add up to the logits.
  evidence(region, off = new Set()) {
    const { divisor } = this.shares(off);
    const within = [...region];
    const values = new Float64Array(this.units);
    for (let unit = 0; unit < this.units; unit++) {
      if (off.has(unit)) continue;
      let sum = 0;
      for (const cell of within) sum += this.features[unit * this.cells + cell];
      values[unit] = sum / this.cells / divisor;
    }
    return this.through(values, within.length / this.cells);
  }

  // How far maps and bias are from the network's logits, relative to the largest.
  error() {
    const { divisor } = this.shares(new Set());
    const means = this.told.pooled ? cellMeans(this.features, this.units) : this.pooled;
    const rebuilt = this.through(means.map((value) => value / divisor));
    let [largest, difference] = [0, 0];
    rebuilt.forEach((value, one) => {
      largest = Math.max(largest, Math.abs(this.logits[one]));
      difference = Math.max(difference, Math.abs(value - this.logits[one]));
    });
    return difference / (largest || 1);
  }
}

export const probabilities = (logits) => {
  let [largest, sum] = [-Infinity, 0];
  for (const logit of logits) largest = Math.max(largest, logit);
  const shares = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  for (const share of shares) sum += share;
  return shares.map((share) => share / sum);
};

// The indices of the largest values, largest first; of equal ones the first.
export const largest = (values, count) => {
  const found = [];
  values.forEach((value, place) => {
    if (found.length === count && !(value > values[found[count - 1]])) return;
    let at = found.length;
    while (at > 0 && value > values[found[at - 1]]) at -= 1;
    found.splice(at, 0, place);
    if (found.length > count) found.pop();
  });
  return found;
};
