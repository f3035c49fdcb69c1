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
const GREEDY_RIVALS = 20;
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
 * @param {number} rounding
 */
const smallest = (photo, leader, rival, most, rounding) => {
  const { pooled } = photo;
  const given = weightsOfMargin(photo, leader, rival);
  for (let unit = 0; unit < given.length; unit++) given[unit] *= pooled[unit];
  const margin = photo.logits[leader] - photo.logits[rival];
  const many = countToTurn(given, margin + rounding);
  if (many > most) return null;
  const ranked = speakers(given);
  const off = new Set(ranked.slice(0, many));
  // Almost always at once: sums in another order differ by rounding.
  for (const unit of ranked.slice(many, most + 1)) {
    if (isBeaten(photo.logitsWithout(off), leader, rival, rounding)) break;
    off.add(unit);
  }
  return isBeaten(photo.logitsWithout(off), leader, rival, rounding) ? off : null;
};

/**
 * The weights of the units in the margin between two classes.
 * @param {ExactPhoto} photo
 * @param {number} leader
 * @param {number} rival
 */
const weightsOfMargin = ({ readout: { weight }, units }, leader, rival) => {
  const [ours, theirs] = [leader * units, rival * units];
  const weights = new Float64Array(units);
  for (let unit = 0; unit < units; unit++)
    weights[unit] = weight[ours + unit] - weight[theirs + unit];
  return weights;
};

/**
 * How many of the largest numbers exceed an amount together; infinitely many if all do not.
 * @param {Float64Array} given
 * @param {number} amount
 */
const countToTurn = (given, amount) => {
  let all = 0;
  for (const value of given) if (value > 0) all += value;
  // Most classes of many are out of reach: they need not be sorted.
  if (all <= amount) return Infinity;
  const sorted = given.slice().sort();
  let left = amount;
  for (let many = 1; many <= sorted.length; many++) {
    left -= sorted[sorted.length - many];
    if (left < 0) return many;
  }
  return Infinity;
};

/**
 * The unit without which the margin is smallest, behind a normalisation, and what all others give
 * to the margin then; no unit where none makes it smaller.
 * @param {ExactPhoto} photo
 * @param {Float64Array} weights Of the margin.
 * @param {Float64Array} pooled 0 where units are off already.
 * @returns {[unit: number, margin: number]}
 */
const nextUnit = ({ readout: { norm } }, weights, pooled) => {
  const { length } = pooled;
  let [sum, squares, whole] = [0, 0, 0];
  for (let unit = 0; unit < length; unit++) {
    sum += pooled[unit];
    squares += pooled[unit] ** 2;
    whole += weights[unit] * pooled[unit];
  }
  /** @param {number} value The unit that is taken away. */
  const divisorWithout = (value) => {
    const left = Math.max(0, squares - value * value);
    if (norm?.kind === "length") return Math.max(Math.sqrt(left), norm.eps);
    const mean = norm?.kind === "layer" ? (sum - value) / length : 0;
    return Math.sqrt(Math.max(0, left / length - mean * mean) + (norm?.eps ?? 0));
  };
  let [best, least] = [-1, whole / divisorWithout(0)];
  for (let unit = 0; unit < length; unit++) {
    if (pooled[unit] === 0) continue;
    const margin = (whole - weights[unit] * pooled[unit]) / divisorWithout(pooled[unit]);
    if (margin < least) [best, least] = [unit, margin];
  }
  return [best, least];
};

/**
 * A set for two classes behind a normalisation: one unit after the other, always the one without
 * which the margin is smallest.
 * @param {ExactPhoto} photo
 * @param {number} leader
 * @param {number} rival
 * @param {number} most
 * @param {number} rounding
 */
const greedy = (photo, leader, rival, most, rounding) => {
  const { bias } = photo.readout;
  const weights = weightsOfMargin(photo, leader, rival);
  const constant = bias[leader] - bias[rival];
  const pooled = photo.pooled.slice();
  const off = new Set();
  while (off.size < most) {
    const [unit, given] = nextUnit(photo, weights, pooled);
    if (unit < 0) return null;
    off.add(unit);
    pooled[unit] = 0;
    const mayBeat = given + constant < 0;
    if (mayBeat && isBeaten(photo.logitsWithout(off), leader, rival, rounding)) return off;
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
  const { norm } = photo.readout;
  const rounding = roundingOf(photo);
  const search = norm ? greedy : smallest;
  const ranked = photo.logits
    .map((_, index) => index)
    .sort((a, b) => photo.logits[b] - photo.logits[a] || a - b);
  const others = [...ranked].filter((index) => index !== leader);
  const likely = norm ? others.slice(0, GREEDY_RIVALS) : others;
  const rivals = rival === null ? likely : [rival];
  /** @type {Set<number> | null} */
  let best = null;
  for (const other of rivals) {
    /** @type {number} */
    const most = best ? best.size - 1 : photo.units;
    if (most > 0) best = search(photo, leader, other, most, rounding) ?? best;
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
