// What is chosen on a photo's page, as it stands in the address.
import { setOf, wholeOf, written } from "./sets.js";

/**
 * @typedef {object} PhotoState
 * @property {number} class The class whose map is shown.
 * @property {number | null} rival The class that the chosen one is explained against.
 * @property {Set<number>} off The units that are off.
 * @property {Set<number>} region The cells of the marked region.
 * @property {number} opacity Of the map, in percent.
 * @property {number} level Of the contour, in percent of the scale; 0 for none.
 * @property {boolean} against Whether units against the class, or for the rival, are listed.
 * @property {number} listed How many units are listed.
 * @property {number | null} head The head of attention whose own map is shown.
 */

const LISTED = 24;

/**
 * The state of a query. What is mistyped, or belongs to another photo, is ignored.
 * @param {URLSearchParams} query
 * @param {Documents.Photo} photo
 * @param {number} classes
 * @param {number} first The class that is shown when none is chosen.
 * @returns {PhotoState}
 */
export const stateOf = (query, photo, classes, first) => {
  const { rows, cols } = photo.map;
  const index = wholeOf(query.get("class"), classes - 1) ?? first;
  const rival = wholeOf(query.get("against"), classes - 1);
  const listed = Math.floor(Number(query.get("list"))) || LISTED;
  return {
    class: index,
    rival: rival === index ? null : rival,
    off: setOf(query.get("off"), photo.units),
    region: setOf(query.get("region"), rows * cols),
    opacity: wholeOf(query.get("opacity"), 100) ?? 100,
    level: wholeOf(query.get("level"), 100) ?? 0,
    against: query.get("units") === "against",
    listed: Math.min(photo.units, Math.max(LISTED, listed)),
    head: "heads" in photo ? wholeOf(query.get("head"), photo.units - 1) : null,
  };
};

/**
 * The parts of a query that say this state; empty where it is the usual one.
 * @param {PhotoState} state
 * @param {number} first
 */
export const addressed = (state, first) => {
  /**
   * @param {number} value
   * @param {number} usual
   */
  const changed = (value, usual) => (value === usual ? "" : String(value));
  return {
    class: changed(state.class, first),
    against: state.rival === null ? "" : String(state.rival),
    off: written(state.off),
    region: written(state.region),
    opacity: changed(state.opacity, 100),
    level: changed(state.level, 0),
    units: state.against ? "against" : "",
    list: state.listed > LISTED ? String(state.listed) : "",
    head: state.head === null ? "" : String(state.head),
  };
};
