// What the network predicts with all units on and without some, side by side.
import { largest, probabilities } from "./algebra.js";
import { breakable, h, small } from "./dom.js";
import { count, number, percent } from "./numbers.js";
import { site } from "./site.js";
/** @import { Values } from "./maps.js" */

/**
 * A prediction: logits and probabilities of all classes; null where there are none.
 * @typedef {{ logits: Values, shares: Values | null }} Prediction
 */
/**
 * What the rows of predictions do.
 * @typedef {object} PredictionActions
 * @property {number} chosen The class whose map is shown.
 * @property {number | null} rival The class that it is explained against.
 * @property {(index: number) => void} choose
 * @property {(index: number) => void} preview
 */
/**
 * What is switched off: how many, what they are called, and what is predicted by the direct effect
 * of heads of attention.
 * @typedef {{ off: number, noun: string, direct: Prediction | null }} SwitchedOff
 */

// A change of a probability that is written as ±0.
const UNCHANGED = 5e-4;

/**
 * @param {number} index
 * @param {string} label
 * @param {Prediction} prediction
 * @param {Values | null} before Probabilities with all units on, where some are off.
 * @param {PredictionActions} actions
 */
const predictionRow = (index, label, prediction, before, actions) => {
  const { chosen, rival, choose, preview } = actions;
  const share = prediction.shares?.[index] ?? 0;
  const amount = h("span", { class: "amount" });
  amount.style.width = `${100 * share}%`;
  const change = before ? share - before[index] : 0;
  const changed = Math.abs(change) < UNCHANGED ? "±0" : `${number(100 * change, 1, true)} points`;
  const { kind, number: noun } = site.scores;
  const logit = `${noun} ${number(prediction.logits[index], 2)}`;
  const role = index === rival ? h("span", { class: "role" }, " against") : null;
  const below = [kind === "probabilities" ? "" : logit, before ? changed : ""];
  const properties = {
    type: "button",
    class: index === rival ? "prediction rival" : "prediction",
    "aria-pressed": String(index === chosen),
    onclick: () => choose(index),
    onpointerenter: () => preview(index),
    onpointerleave: () => preview(chosen),
  };
  return h(
    "li",
    {},
    h(
      "button",
      properties,
      h(
        "span",
        { class: "named" },
        h("span", { class: "label" }, breakable(label), role),
        prediction.shares && h("span", { class: "share" }, percent(share)),
      ),
      prediction.shares && h("span", { class: "amounts", "aria-hidden": "true" }, amount),
      h("span", { class: "logit" }, below.filter(Boolean).join(" · ")),
    ),
  );
};

/**
 * A list of predictions. Chosen classes that are not among the top ones stand at its end.
 * @param {string} title
 * @param {string[]} labels
 * @param {Prediction} prediction
 * @param {Values | null} before
 * @param {number[]} top
 * @param {PredictionActions} actions
 */
const ranking = (title, labels, prediction, before, top, actions) => {
  const { chosen, rival } = actions;
  const classes = [...new Set([...top, chosen, ...(rival === null ? [] : [rival])])];
  const rows = classes.map((index) =>
    predictionRow(index, labels[index], prediction, before, actions),
  );
  return h("div", {}, h("h2", {}, title), h("ol", { class: "ranking" }, rows));
};

/**
 * The predictions with all units on and without those that are off.
 * @param {string[]} labels
 * @param {number[]} first The top classes with all units on.
 * @param {Prediction} on
 * @param {Prediction} without
 * @param {SwitchedOff} switched
 * @param {PredictionActions} actions
 */
export const predictionLists = (labels, first, on, without, { off, noun, direct }, actions) => {
  const before = ranking(`All ${noun}s on`, labels, on, null, first, actions);
  if (!off) {
    const how =
      `Switch ${noun}s off below: what the network would predict then appears here` +
      `${noun === "head" ? ", by the total and by the direct effect." : " at once."}`;
    const title = h("h2", {}, `Without ${noun}s`);
    return [before, h("div", { class: "nothing-off" }, title, small(how))];
  }
  const top = largest(without.logits, first.length);
  const title = `${count(off, noun)} off`;
  if (!direct) return [before, ranking(title, labels, without, on.shares, top, actions)];
  const total = ranking(`${title}: total effect`, labels, without, on.shares, top, actions);
  total.append(small("Later blocks react: a real forward pass."));
  const leaders = largest(direct.logits, first.length);
  const held = ranking(`${title}: direct effect`, labels, direct, on.shares, leaders, actions);
  held.append(small("Only what they write is gone, all else is held: algebra."));
  return [before, total, held];
};

/**
 * The prediction of some logits.
 * @param {Float32Array | Float64Array} logits
 * @returns {Prediction}
 */
export const predictionOf = (logits) => ({
  logits,
  shares: probabilities(logits, site.scores.kind),
});

/**
 * The probability of a class, or its number where it has none.
 * @param {Prediction} prediction
 * @param {number} index
 */
export const shareOf = ({ logits, shares }, index) =>
  shares ? percent(shares[index]) : `${site.scores.number} ${number(logits[index], 2)}`;

/**
 * The same in a line, where there is no room for lists.
 * @param {string[]} labels
 * @param {Prediction} without
 * @param {number} classes
 */
export const inShort = (labels, without, classes) =>
  largest(without.logits, classes)
    .map((index) => `${labels[index]} ${shareOf(without, index)}`)
    .join(" · ");

/**
 * What became of the first prediction, in words.
 * @param {string[]} labels
 * @param {Prediction} on
 * @param {Prediction} without
 * @param {Prediction | null} direct By the direct effect of heads.
 */
export const whatBecame = (labels, on, without, direct) => {
  const [before] = largest(on.logits, 1);
  const [after] = largest(without.logits, 1);
  const share = shareOf(without, after);
  const words =
    before === after
      ? `Still ${labels[before]}: ${shareOf(on, before)} → ${share}`
      : `${labels[before]} becomes ${labels[after]} (${share})`;
  if (!direct) return `${words}.`;
  const [held] = largest(direct.logits, 1);
  return `${words}; by the direct effect ${labels[held]} (${shareOf(direct, held)}).`;
};
