// The parts that a logit is the sum of, where it is read from the residual stream of a transformer.
import { bar } from "./charts.js";
import { breakable, cell, h, rowHead, small, tableHead } from "./dom.js";
import { number } from "./numbers.js";
import { site } from "./site.js";
/** @import { Values } from "./maps.js" */
/** @import { HeadFacts } from "./photo-answers.js" */

/** What a part is, where its name does not say. */
/** @type {Record<string, string>} */
const MEANINGS = {
  patches: "what heads took from the patches: the map",
  "class token": "what they took from the class token itself",
  "other tokens": "what they took from tokens without a place: registers and the like",
  "patches read directly": "the mean of the patches, which the head reads beside the token",
  MLPs: "what MLPs wrote",
  "other layers": "what other layers wrote",
  embedding: "what the token begins with",
  bias: "what depends on no photo",
};

const HELD =
  "Numbers that the photo sets multiply the stream; they are held at what they were, and count as " +
  "constants.";

/**
 * The parts of a class's logit, or of its margin over a rival, which add up to it, with all heads
 * on.
 * @param {HeadFacts} heads
 * @param {number} index
 * @param {number | null} rival
 * @param {Values} logits
 * @param {number} off How many heads are off.
 */
export const partsSection = (heads, index, rival, logits, off) => {
  /** @param {Values} of */
  const valueOf = (of) => of[index] - (rival === null ? 0 : of[rival]);
  const values = heads.parts.map((part) => valueOf(part.logits));
  const logit = valueOf(logits);
  const low = Math.min(0, ...values, logit);
  const high = Math.max(0, ...values, logit);
  /**
   * @param {string} kind
   * @param {string} name
   * @param {number} value
   */
  const row = (kind, name, value) =>
    h(
      "tr",
      { class: kind },
      rowHead([name, MEANINGS[name] ? h("small", {}, MEANINGS[name]) : null]),
      cell(number(value, 3, true), "n"),
      cell(bar(value, null, null, low, high), "bars"),
    );
  const noun = rival === null ? site.scores.number : "margin";
  const over =
    rival === null ? [] : [" over ", h("em", { class: "against" }, breakable(site.labels[rival]))];
  const label = h("em", {}, breakable(site.labels[index]));
  return [
    h("h2", {}, `What makes up the ${noun} of `, label, over),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        {},
        h("caption", {}, `In ${site.scores.numbers}${off ? ", with all heads on" : ""}`),
        tableHead([["part"], [noun, "n"], ["", "bars"]]),
        h("tbody", {}, [
          ...heads.parts.map(({ name }, place) => row(name, name, values[place])),
          row("sum", `all parts: the ${noun}`, logit),
        ]),
      ),
    ),
    ...(heads.held ? [small(HELD)] : []),
  ];
};
