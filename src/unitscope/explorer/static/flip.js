// What flips a prediction: few units without which another class is ahead.
import { largest } from "./algebra.js";
/** @import { ExactPhoto } from "./algebra.js" */
/** @import { Values } from "./maps.js" */

/**
 * A search for units whose switching off puts another class ahead of `leader`: `rival`, or any if
 * that is null.
 * @typedef {object} Flip
 * @property {number} leader
 * @property {number | null} rival
 * @property {number[] | null} units In the order in which they were taken; null where none were
 *   found.
 * @property {Values} logits Without these units; where none were found, without all that were tried.
 * @property {"proven" | "greedy" | "measured"} by
 * @property {number} tried Units that were tried, or that speak for the leader.
 * @property {number} passes Forward passes.
 */

// A greedy search takes so many classes into account, those with the largest logits first.
const GREEDY_RIVALS = 100;
// A share of the largest logit.
const ROUNDING = 1e-6;

/**
 * The two classes that a flip turns round: of two chosen ones the class that is ahead, else the
 * first prediction and any other class.
 * @param {Values} logits
 * @param {number} index
 * @param {number | null} rival
 * @returns {[leader: number, rival: number | null]}
 */
export const facing = (logits, index, rival) => {
  if (rival === null) return [largest(logits, 1)[0], null];
  return logits[rival] > logits[index] ? [rival, index] : [index, rival];
};

/**
 * Whether another class is ahead.
 * @param {Values} logits
 * @param {number} leader
 * @param {number | null} rival
 * @param {number} [rounding] No lead that is smaller counts.
 */
const isBeaten = (logits, leader, rival, rounding = 0) =>
  logits[rival ?? largest(logits, 1)[0]] > logits[leader] + rounding;

/**
 * By how much logits of the algebra may differ from those of the network.
 * @param {ExactPhoto} photo
 */
const roundingOf = ({ logits }) =>
  ROUNDING * logits.reduce((high, value) => Math.max(high, Math.abs(value)), 0);

/**
 * Units that speak for the leader, in the order in which they turn the margin soonest.
 * @param {Values} differences What every unit gives to the margin.
 */
const speakers = (differences) =>
  [...differences.keys()]
    .filter((unit) => differences[unit] > 0)
    .sort((a, b) => differences[b] - differences[a] || a - b);

/**
 * The smallest set for two classes where the logits are linear in the units. Any set of so many
 * units takes at most as much from the margin as those that give most to it.
 * @param {ExactPhoto} photo
 * @param {number} leader
 * @param {number} rival
 * @param {number} most Larger sets are of no use.
 */
const smallest = (photo, leader, rival, most) => {
  const { readout, pooled, units } = photo;
  const [ours, theirs] = [leader * units, rival * units];
  const differences = pooled.map(
    (value, unit) => (readout.weight[ours + unit] - readout.weight[theirs + unit]) * value,
  );
  let margin = photo.logits[leader] - photo.logits[rival];
  // Most classes of many are out of reach: they need not be sorted.
  const highest = differences.reduce((high, value) => Math.max(high, value), 0);
  if (most < units && most * highest < margin) return null;
  const rounding = roundingOf(photo);
  const off = new Set();
  for (const unit of speakers(differences).slice(0, most)) {
    off.add(unit);
    margin -= differences[unit];
    if (margin < 0 && isBeaten(photo.logitsWithout(off), leader, rival, rounding)) return off;
  }
  return null;
};

/**
 * The unit without which the margin is smallest, and that margin, behind a normalisation.
 * @param {ExactPhoto} photo
 * @param {Float64Array} weights Of the margin.
 * @param {Float64Array} pooled 0 where units are off already.
 */
const nextUnit = ({ readout: { norm } }, weights, pooled) => {
  const { length } = pooled;
  let [sum, squares, whole] = [0, 0, 0];
  pooled.forEach((value, unit) => {
    sum += value;
    squares += value * value;
    whole += weights[unit] * value;
  });
  /** @param {number} value The unit that is taken away. */
  const divisorWithout = (value) => {
    const left = Math.max(0, squares - value * value);
    if (norm?.kind === "length") return Math.max(Math.sqrt(left), norm.eps);
    const mean = norm?.kind === "layer" ? (sum - value) / length : 0;
    return Math.sqrt(Math.max(0, left / length - mean * mean) + (norm?.eps ?? 0));
  };
  let [best, least] = [-1, whole / divisorWithout(0)];
  pooled.forEach((value, unit) => {
    if (value === 0) return;
    const margin = (whole - weights[unit] * value) / divisorWithout(value);
    if (margin < least) [best, least] = [unit, margin];
  });
  return best;
};

/**
 * A set for two classes behind a normalisation: one unit after the other, always the one without
 * which the margin is smallest.
 * @param {ExactPhoto} photo
 * @param {number} leader
 * @param {number} rival
 * @param {number} most
 */
const greedy = (photo, leader, rival, most) => {
  const { weight } = photo.readout;
  const [ours, theirs] = [leader * photo.units, rival * photo.units];
  const pooled = photo.pooled.slice();
  const weights = pooled.map((_, unit) => weight[ours + unit] - weight[theirs + unit]);
  const rounding = roundingOf(photo);
  const off = new Set();
  while (off.size < most) {
    const unit = nextUnit(photo, weights, pooled);
    if (unit < 0) return null;
    off.add(unit);
    pooled[unit] = 0;
    if (isBeaten(photo.logitsWithout(off), leader, rival, rounding)) return off;
  }
  return null;
};

/**
 * The smallest set of units without which another class is ahead; behind a normalisation a set that
 * a greedy search finds. Over all classes it is the smallest of those for each.
 * @param {ExactPhoto} photo
 * @param {number} leader
 * @param {number | null} rival Null for any class.
 * @returns {Flip}
 */
export const exactFlip = (photo, leader, rival) => {
  const { norm, classes } = photo.readout;
  const search = norm ? greedy : smallest;
  const others = largest(photo.logits, norm ? Math.min(classes, GREEDY_RIVALS) : classes);
  const rivals = rival === null ? others.filter((index) => index !== leader) : [rival];
  /** @type {Set<number> | null} */
  let best = null;
  for (const other of rivals) {
    /** @type {number} */
    const most = best ? best.size - 1 : photo.units;
    if (most > 0) best = search(photo, leader, other, most) ?? best;
  }
  const tried = best ?? spokenFor(photo, leader, rival);
  return {
    leader,
    rival,
    units: best && [...best],
    logits: photo.logitsWithout(tried),
    by: norm ? "greedy" : "proven",
    tried: tried.size,
    passes: 0,
  };
};

/**
 * The units that speak for a class rather than another; for it, where there is no other.
 * @param {ExactPhoto} photo
 * @param {number} leader
 * @param {number | null} rival
 */
const spokenFor = (photo, leader, rival) => {
  const own = photo.contributions(leader);
  const theirs = rival === null ? null : photo.contributions(rival);
  return new Set(speakers(own.map((value, unit) => value - (theirs ? theirs[unit] : 0))));
};

/**
 * A set that real forward passes find: the first so many units by what they give to the margin.
 * Their number is doubled until another class is ahead, and then halved between.
 * @param {Values} differences What every unit gives to the margin.
 * @param {number} leader
 * @param {number | null} rival
 * @param {(off: Set<number>) => Promise<Values>} logitsWithout
 * @returns {Promise<Flip>}
 */
export const measuredFlip = async (differences, leader, rival, logitsWithout) => {
  const ranked = speakers(differences);
  let passes = 0;
  /** @param {number} many */
  const logitsOf = (many) => {
    passes += 1;
    return logitsWithout(new Set(ranked.slice(0, many)));
  };
  /** @type {Values} */
  let logits = new Float32Array();
  let [before, many] = [0, 0];
  while (many < ranked.length) {
    before = many;
    many = Math.min(ranked.length, 2 * many || 1);
    logits = await logitsOf(many);
    if (isBeaten(logits, leader, rival)) break;
  }
  const by = "measured";
  if (!logits.length || !isBeaten(logits, leader, rival))
    return { leader, rival, units: null, logits, by, tried: ranked.length, passes };
  while (many - before > 1) {
    const middle = Math.floor((before + many) / 2);
    const between = await logitsOf(middle);
    if (isBeaten(between, leader, rival)) [many, logits] = [middle, between];
    else before = middle;
  }
  const units = ranked.slice(0, many);
  return { leader, rival, units, logits, by, tried: many, passes };
};
