// The answers about a photo: exact by algebra in the browser, or measured by the server.
import { ExactPhoto, marginOf, readoutOf } from "./algebra.js";
import { load, send } from "./data.js";
import { floats } from "./packed.js";
import { site } from "./site.js";
/** @import { Readout } from "./algebra.js" */
/** @import { Values } from "./maps.js" */

/**
 * The evidence for a class: its map, every unit's contribution, and what both leave out of the
 * logit.
 * @typedef {object} ClassEvidence
 * @property {Values} map
 * @property {Values} contributions
 * @property {number} leftOut
 */
/**
 * The logits without units; of heads of attention, also those of the direct effect, where only what
 * they write to the logits is gone.
 * @typedef {{ logits: Float32Array | Float64Array, direct: Float32Array | null }} Without
 */
/**
 * Heads of attention as units: their names, and the parts of the logits by class.
 * @typedef {object} HeadFacts
 * @property {string[]} names
 * @property {{ name: string, logits: Float32Array }[]} parts
 * @property {boolean} held
 */
/** @typedef {ExactAnswers | MeasuredAnswers} Answers */

class ExactAnswers {
  /**
   * @param {Documents.ExactPhoto} photo
   * @param {Readout} readout
   */
  constructor(photo, readout) {
    /** @type {true} */
    this.exact = true;
    /** @type {HeadFacts | null} */
    this.heads = null;
    this.noun = "unit";
    this.photo = photo;
    this.algebra = new ExactPhoto(photo, readout);
    this.logits = this.algebra.logits;
  }

  /** @param {number} unit */
  nameOf(unit) {
    return `unit ${unit}`;
  }

  /**
   * @param {Set<number>} off
   * @returns {Without}
   */
  without(off) {
    return { logits: this.algebra.logitsWithout(off), direct: null };
  }

  /**
   * @param {number} index
   * @param {Set<number>} off
   * @returns {ClassEvidence}
   */
  evidenceOf(index, off) {
    const { algebra } = this;
    return {
      map: algebra.map(index, off),
      contributions: algebra.contributions(index, off),
      leftOut: algebra.leftOut(index),
    };
  }

  /**
   * @param {number} unit
   * @returns {{ values: Values, map: Documents.Map }}
   */
  mapOfUnit(unit) {
    return { values: this.algebra.mapOfUnit(unit), map: this.photo.map };
  }
}

class MeasuredAnswers {
  /** @param {Documents.LocalPhoto} photo */
  constructor(photo) {
    /** @type {false} */
    this.exact = false;
    this.photo = photo;
    this.logits = floats(photo.logits);
    this.thumbnails = floats(photo.thumbnails);
    /** @type {HeadFacts | null} */
    this.heads = photo.heads ? headFacts(photo.heads) : null;
    this.noun = this.heads ? "head" : "unit";
  }

  /** @param {number} unit */
  nameOf(unit) {
    return `${this.noun} ${this.heads?.names[unit] ?? unit}`;
  }

  /**
   * By a real forward pass; the direct effect by algebra.
   * @param {Set<number>} off
   * @returns {Promise<Without>}
   */
  async without(off) {
    if (!off.size) return { logits: this.logits, direct: null };
    const { id, layer } = this.photo;
    const body = JSON.stringify({ photo: id, layer, units: [...off] });
    const answer = await send("ablated", body, { "Content-Type": "application/json" });
    const direct = answer.direct === undefined ? null : floats(answer.direct);
    return { logits: floats(answer.logits), direct };
  }

  /**
   * What patches give to a class through one head.
   * @param {number} unit
   * @param {number} index
   * @returns {Promise<Values>}
   */
  async mapOfHead(unit, index) {
    const { id, layer } = this.photo;
    const query = new URLSearchParams({
      photo: id,
      layer,
      class: String(index),
      unit: String(unit),
    });
    return floats((await load("head-map", `?${query}`)).map);
  }

  /**
   * With all units on: a gradient, or an account, is that of the whole network.
   * @param {number} index
   * @param {Set<number>} _off
   * @returns {Promise<ClassEvidence>}
   */
  async evidenceOf(index, _off) {
    const { id, layer } = this.photo;
    const query = new URLSearchParams({ photo: id, layer, class: String(index) });
    const evidence = await load("evidence", `?${query}`);
    return {
      map: floats(evidence.map),
      contributions: floats(evidence.contributions),
      leftOut: evidence.left_out,
    };
  }

  /**
   * Large maps come smaller, only to be looked at.
   * @param {number} unit
   * @returns {{ values: Values, map: Documents.Map }}
   */
  mapOfUnit(unit) {
    const [rows, cols] = this.photo.thumbnail;
    const { down, across, rows: allRows, cols: allCols } = this.photo.map;
    /**
     * @param {Documents.Axis} axis
     * @param {number} all
     * @param {number} few
     * @returns {Documents.Axis}
     */
    const smaller = ([start, step], all, few) => [
      start + (step * (all / few - 1)) / 2,
      (step * all) / few,
    ];
    const values = this.thumbnails.subarray(unit * rows * cols, (unit + 1) * rows * cols);
    const axes = { down: smaller(down, allRows, rows), across: smaller(across, allCols, cols) };
    return { values, map: { rows, cols, ...axes } };
  }
}

/**
 * The evidence for a class or, where there is a rival, for the margin over it.
 * @param {Answers} answers
 * @param {number} index
 * @param {number | null} rival
 * @param {Set<number>} off
 * @returns {Promise<ClassEvidence>}
 */
export const evidenceFor = async (answers, index, rival, off) => {
  if (rival === null) return answers.evidenceOf(index, off);
  const both = [index, rival].map((of) => answers.evidenceOf(of, off));
  const [own, theirs] = await Promise.all(both);
  return marginOf(own, theirs);
};

/**
 * @param {Documents.Heads} heads
 * @returns {HeadFacts}
 */
const headFacts = ({ names, parts, held }) => ({
  names,
  parts: parts.map(({ name, logits }) => ({ name, logits: floats(logits) })),
  held,
});

/**
 * The last photo: its page is left and come back to.
 * @type {{ key: string, answers: Answers } | null}
 */
let last = null;

/**
 * @param {string} id
 * @param {string | null} layer The layer to explain it at; the head's own if null.
 * @returns {Promise<Answers>}
 */
export const answersOf = async (id, layer) => {
  const key = JSON.stringify([id, layer]);
  if (last?.key === key) return last.answers;
  const other = layer && layer !== site.head?.layer;
  const query = other ? `?${new URLSearchParams({ layer })}` : "";
  // The head is loaded at the same time wherever it will be needed.
  const [photo] = await Promise.all([
    load(`photos/${encodeURIComponent(id)}`, query),
    !other && site.head?.exact && readoutOfHead(),
  ]);
  const answers = photo.exact
    ? new ExactAnswers(photo, await readoutOfHead())
    : new MeasuredAnswers(photo);
  last = { key, answers };
  return answers;
};

/** @type {Readout | null} */
let readout = null;

const readoutOfHead = async () => {
  readout ??= readoutOf(await load("head"));
  return readout;
};
