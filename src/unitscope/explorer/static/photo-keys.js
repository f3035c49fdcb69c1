// The keys of a photo's page.
/** @import { KeyHelp } from "./page.js" */

/**
 * What the keys do.
 * @typedef {object} PhotoKeyActions
 * @property {(index: number) => unknown} chooseClass
 * @property {(by: 1 | -1) => unknown} step To the next or previous unit.
 * @property {() => unknown} map The map on or off.
 * @property {() => unknown} contour
 * @property {() => unknown} brush
 * @property {() => unknown} second Against the second class or not.
 * @property {() => unknown} flip
 * @property {() => unknown} reset
 */

/** @type {KeyHelp[]} */
export const PHOTO_KEYS = [
  [["j", "k"], "next, previous unit of the list"],
  [["Space"], "switch the unit off or on"],
  [["1", "…", "5"], "choose one of the top five classes"],
  [["v"], "explain it against the second class or not"],
  [["f"], "units that flip the prediction"],
  [["m"], "the map on or off"],
  [["c"], "its contour on or off"],
  [["b"], "mark a region with the brush"],
  [["0"], "all units on, no region"],
];

/**
 * @param {PhotoKeyActions} actions
 * @param {number[]} first The top classes.
 * @returns {Record<string, () => unknown>}
 */
export const photoKeys = (actions, first) => ({
  ...Object.fromEntries(
    first.map((index, rank) => [String(rank + 1), () => actions.chooseClass(index)]),
  ),
  j: () => actions.step(1),
  k: () => actions.step(-1),
  v: actions.second,
  f: actions.flip,
  m: actions.map,
  c: actions.contour,
  b: actions.brush,
  0: actions.reset,
});
