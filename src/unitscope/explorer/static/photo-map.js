// The map of a class over the photo, with its scale and what it means in words.
import { differences } from "./algebra.js";
import { breakable, h } from "./dom.js";
import { signedBar, signedKey } from "./heat.js";
import { number } from "./numbers.js";
import { evidenceFor } from "./photo-answers.js";
import { site } from "./site.js";
/** @import { Values } from "./maps.js" */
/** @import { Answers, ClassEvidence } from "./photo-answers.js" */
/** @import { PhotoLayout } from "./photo-layout.js" */
/** @import { PhotoState } from "./photo-state.js" */
/** @import { PhotoView } from "./photo-view.js" */

/**
 * What a map is of: a class, or its margin over a rival.
 * @typedef {{ index: number, rival: number | null }} MapTarget
 */
/**
 * What patches give to a class through one head, and where the colours of that map end.
 * @typedef {{ unit: number, map: Values, high: number }} HeadMap
 */

/** @type {Set<number>} */
const ALL_ON = new Set();
// Milliseconds before a hover asks the server.
const HOVER = 150;

/** @param {Values} map */
const highest = (map) => {
  let high = 0;
  for (const value of map) high = Math.max(high, Math.abs(value));
  return high;
};

/**
 * @param {MapTarget} target
 * @returns {(Node | string)[]}
 */
const titleOfMap = ({ index, rival }) => {
  const label = h("strong", {}, breakable(site.labels[index]));
  if (rival === null) return [label];
  return [label, " less ", h("strong", {}, breakable(site.labels[rival]))];
};

/**
 * Which colour speaks for which class, under the ends of the colour bar.
 * @param {MapTarget} target
 */
const legendOf = ({ index, rival }) => {
  /**
   * @param {1 | -1} sign
   * @param {string} word
   * @param {number} of
   */
  const side = (sign, word, of) =>
    h("span", {}, signedKey(sign, site.colours.signed), ` ${word} `, breakable(site.labels[of]));
  return [
    rival === null ? side(-1, "against", index) : side(-1, "for", rival),
    side(1, "for", index),
  ];
};

export class PhotoMap {
  /**
   * @param {PhotoView} view
   * @param {PhotoLayout} layout
   * @param {Answers} answers
   * @param {number[]} first The top classes with all units on.
   * @param {() => PhotoState} stateNow
   */
  constructor(view, layout, answers, first, stateNow) {
    this.view = view;
    this.layout = layout;
    this.answers = answers;
    this.first = first;
    this.stateNow = stateNow;
    /** @type {Map<number, number>} The largest absolute value of the maps of classes. */
    this.highs = new Map();
    /** @type {MapTarget} What `evidence` is of. */
    this.target = { index: first[0], rival: null };
    /** @type {ClassEvidence | null} Of the chosen class. */
    this.evidence = null;
    /** @type {HeadMap | undefined} The head's own map that is shown in its place. */
    this.ofHead = undefined;
    // Where the colours end, and the end that the colour bar shows.
    this.high = 0;
    this.barHigh = NaN;
    // Counts previews: a later one overtakes an earlier one that still waits.
    this.look = 0;
  }

  /**
   * One scale for all maps of the photo: the largest value of those of its top classes and of the
   * one that is shown; of a local answer, of those that were measured so far. The map of a margin
   * has a scale of its own.
   * @param {number} index
   * @param {number | null} [rival]
   */
  async scaleOf(index, rival = null) {
    if (rival !== null) return highest((await evidenceFor(this.answers, index, rival, ALL_ON)).map);
    const shared = this.answers.exact ? [...this.first, index] : [...this.highs.keys(), index];
    let high = 0;
    for (const needed of shared) high = Math.max(high, await this.highOf(needed));
    return high;
  }

  /** @param {number} index */
  async highOf(index) {
    const known = this.highs.get(index);
    if (known !== undefined) return known;
    const { map } = await this.answers.evidenceOf(index, ALL_ON);
    const high = highest(map);
    this.highs.set(index, high);
    return high;
  }

  /**
   * The own map of a head, on a scale of its own: single heads give little of the whole.
   * @param {number | null} unit
   * @param {MapTarget} target
   * @returns {Promise<HeadMap | undefined>}
   */
  async mapOfHead(unit, { index, rival }) {
    if (unit === null || this.answers.exact || !this.answers.heads) return undefined;
    const own = await this.answers.mapOfHead(unit, index);
    const map = rival === null ? own : differences(own, await this.answers.mapOfHead(unit, rival));
    return { unit, map, high: highest(map) };
  }

  /**
   * Set the map of the chosen class or margin, and of a head.
   * @param {MapTarget} target
   * @param {ClassEvidence} evidence
   * @param {number} high
   * @param {HeadMap} [ofHead]
   */
  set(target, evidence, high, ofHead) {
    this.target = target;
    this.evidence = evidence;
    this.high = high;
    this.ofHead = ofHead;
  }

  /**
   * Show another class's map while the pointer is on its row; the chosen one's comes back at once.
   * @param {number} index
   */
  async preview(index) {
    const look = ++this.look;
    const { class: chosen, rival, off } = this.stateNow();
    if (index === chosen) {
      this.draw();
      return;
    }
    if (!this.answers.exact) await new Promise((done) => setTimeout(done, HOVER));
    if (look !== this.look) return;
    try {
      const high = Math.max(rival === null ? this.high : 0, await this.scaleOf(index));
      const evidence = await this.answers.evidenceOf(index, off);
      if (look === this.look) this.draw({ index, rival: null }, evidence, high);
    } catch {
      // It was only a preview.
    }
  }

  /** Let no preview that still waits be drawn. */
  endPreview() {
    this.look += 1;
  }

  /**
   * @param {MapTarget} target
   * @param {ClassEvidence | null} evidence
   * @param {number} high
   */
  draw(target = this.target, evidence = this.evidence, high = this.high) {
    if (!evidence) return;
    const { layout } = this;
    const { opacity, level } = this.stateNow();
    // A preview is of another class's whole map.
    const ofHead = evidence === this.evidence ? this.ofHead : undefined;
    const end = ofHead ? ofHead.high : high;
    const height = (level / 100) * end;
    const map = ofHead ? ofHead.map : evidence.map;
    this.view.draw(map, end, { level: height, opacity: opacity / 100 });
    layout.opacity.show(opacity, `${opacity}%`);
    layout.level.show(level, level ? `±${number(height)}` : "off");
    if (this.barHigh !== end) layout.bar.replaceChildren(signedBar(end, site.colours.signed));
    this.barHigh = end;
    const words = ofHead
      ? this.wordsOfHead(ofHead, evidence, target)
      : this.words(evidence, target);
    layout.mapWords.replaceChildren(...titleOfMap(target), `: ${words}`);
    layout.legend.replaceChildren(...legendOf(target));
  }

  /**
   * @param {HeadMap} ofHead
   * @param {ClassEvidence} evidence
   * @param {MapTarget} target
   */
  wordsOfHead({ unit, map }, { contributions }, { rival }) {
    let sum = 0;
    for (const value of map) sum += value;
    const patches = number(sum / map.length, 3, true);
    const given = number(contributions[unit], 3, true);
    return (
      `${site.scores.numbers} that patches give through ${this.answers.nameOf(unit)} alone, on a ` +
      `scale of its own. The mean is ${patches}; with what other tokens give, the head adds ` +
      `${given}${rival === null ? "" : " to the margin"}.` +
      `${this.stateNow().off.size ? " With all heads on." : ""}`
    );
  }

  /**
   * @param {ClassEvidence} evidence
   * @param {MapTarget} target
   */
  words(evidence, { rival }) {
    const { size } = this.stateNow().off;
    const leftOut = number(evidence.leftOut, 2, true);
    const noun = rival === null ? site.scores.number : "margin";
    /** @param {string} shared */
    const scale = (shared) =>
      rival === null ? shared : `A scale of its own, that of all ${this.answers.noun}s on.`;
    if (this.answers.heads)
      return [
        `${site.scores.numbers} that patches give through attention; their mean is the part ` +
          `“patches” below, and ${leftOut} come from all other parts.`,
        size ? "With all heads on." : "",
        scale("One scale for the classes looked at so far."),
      ].join(" ");
    if (!this.answers.exact)
      return [
        `gradient × activation of each place; it leaves out ${leftOut} of the ${noun}.`,
        size ? "With all units on." : "",
        scale("One scale for the classes looked at so far."),
      ].join(" ");
    return [
      `${site.scores.numbers} that each place adds; their mean and the ` +
        `${rival === null ? "bias" : "difference of the biases"} (${leftOut}) are the ${noun}.`,
      size ? `Without the ${size === 1 ? "unit that is" : `${size} units that are`} off.` : "",
      scale("One scale for the top five and the chosen class."),
    ].join(" ");
  }

  /** @param {number | null} value The map's value under the pointer. */
  drawPointed(value) {
    const stretched = this.view.stretched ? "The photo is drawn stretched." : "";
    this.layout.pointed.textContent =
      value === null
        ? stretched
        : `under the pointer ${number(value, 2, true)} ${site.scores.numbers}`;
  }
}
