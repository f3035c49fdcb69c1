// Why one class and not another: the choice of the other, the margin, and what flips it.
import { largest } from "./algebra.js";
import { breakable, flatten, h, small } from "./dom.js";
import { count, number } from "./numbers.js";
import { classSearch } from "./photo-controls.js";
import { flipTitle } from "./photo-flip.js";
import { site } from "./site.js";
/** @import { Child } from "./dom.js" */
/** @import { Values } from "./maps.js" */
/** @import { Answers, ClassEvidence, Without } from "./photo-answers.js" */
/** @import { MapTarget } from "./photo-map.js" */
/** @import { PhotoState } from "./photo-state.js" */

/**
 * What the controls of the contrast do.
 * @typedef {object} ContrastActions
 * @property {(rival: number | null) => void} oppose Explain against a class, or against none.
 * @property {() => void} flip Search for units that flip the prediction.
 */

// The classes that are offered to be explained against.
const OFFERED = 5;
// Ranks that have a name.
const RANKS = ["first", "second"];

/** @param {number} index */
const classInBold = (index) => h("strong", {}, breakable(site.labels[index]));

export class Contrast {
  /**
   * @param {Answers} answers
   * @param {ContrastActions} actions
   */
  constructor(answers, actions) {
    this.answers = answers;
    this.ranked = largest(answers.logits, Math.min(OFFERED + 1, site.labels.length));
    this.title = h("h2", {});
    this.margin = h("p", { class: "margin" });
    this.sum = small();
    this.found = h("p", { class: "flip", role: "status" });
    /** @type {number | null} */
    this.next = null;
    const button = (/** @type {() => void} */ onclick) => h("button", { type: "button", onclick });
    this.oppose = actions.oppose;
    this.second = button(() => this.toggleSecond());
    this.isSecond = false;
    this.flip = button(actions.flip);
    this.flip.textContent = flipTitle(answers);
    const chosen = () => {
      actions.oppose(select.value === "" ? null : Number(select.value));
    };
    const select = h("select", { onchange: chosen });
    this.select = select;
    this.offered = "";
    // Outputs that are no classes have no prediction that could be flipped.
    this.flip.hidden = site.scores.kind === "none" || site.labels.length < 2;
    this.element = h(
      "section",
      { class: "contrast", hidden: site.labels.length < 2 },
      this.title,
      this.controls(actions),
      this.margin,
      this.sum,
      this.found,
    );
  }

  /** @param {ContrastActions} actions */
  controls({ oppose }) {
    const field = { id: "matching-rivals", main: false };
    return h(
      "div",
      { class: "controls" },
      h(
        "div",
        { class: "group" },
        h("label", {}, h("span", {}, "Against"), this.select),
        site.labels.length > OFFERED + 1
          ? classSearch("Against any class", site.labels, oppose, field)
          : null,
      ),
      h("div", { class: "group" }, this.second, this.flip),
    );
  }

  /** Explain against the next class, or against none. */
  toggleSecond() {
    this.oppose(this.isSecond ? null : this.next);
  }

  /**
   * Show what the class is explained against.
   * @param {MapTarget} target
   */
  choose({ index, rival }) {
    const label = h("em", { class: "for" }, breakable(site.labels[index]));
    const other =
      rival === null
        ? " and not another class"
        : [" not ", h("em", { class: "against" }, breakable(site.labels[rival]))];
    this.title.replaceChildren("Why ", label, ",", ...[other].flat(), "?");

    const rank = this.ranked[0] === index ? 1 : 0;
    this.next = this.ranked[rank] ?? null;
    this.isSecond = rival !== null && rival === this.next;
    this.second.setAttribute("aria-pressed", String(this.isSecond));
    const next = this.next === null ? "" : site.labels[this.next];
    this.second.replaceChildren(`Against the ${RANKS[rank]}: `, ...breakable(next));
    this.offer(index, rival);
  }

  /**
   * @param {number} index
   * @param {number | null} rival
   */
  offer(index, rival) {
    const likely = this.ranked.filter((other) => other !== index).slice(0, OFFERED);
    const others = [...new Set([...likely, ...(rival === null ? [] : [rival])])];
    const offered = others.join();
    if (offered !== this.offered)
      this.select.replaceChildren(
        h("option", { value: "" }, "no other class"),
        ...others.map((other) => h("option", { value: other }, site.labels[other])),
      );
    this.offered = offered;
    this.select.value = rival === null ? "" : String(rival);
  }

  /**
   * The margin over the rival, or else over the next class.
   * @param {PhotoState} state
   * @param {Without} without The logits without units that are off.
   */
  drawMargin({ class: index, rival, off }, without) {
    const over = rival ?? this.next ?? index;
    const { logits, noun } = this.answers;
    /** @param {Values} of */
    const written = (of) => `${number(of[index] - of[over], 3, true)} ${site.scores.numbers}`;
    const direct = without.direct ? `; by the direct effect ${written(without.direct)}` : "";
    const before = off.size ? `; with all ${noun}s on ${written(logits)}` : "";
    this.margin.replaceChildren(
      "Margin: ",
      classInBold(index),
      " − ",
      classInBold(over),
      " = ",
      h("strong", { class: "value" }, written(without.logits)),
      `${direct}${before}.`,
    );
  }

  /**
   * What the margin is made of; without a rival, what choosing one is for.
   * @param {PhotoState} state
   * @param {ClassEvidence} evidence Of the margin; without units only where the answer is exact.
   */
  drawSum({ class: index, rival, off }, evidence) {
    const words =
      rival === null
        ? `Against another class, the map, the ${this.answers.noun}s and the regions show what speaks for ` +
          `${site.labels[index]} rather than that class.`
        : this.sumInWords(index, rival, off.size, evidence);
    this.sum.replaceChildren(words);
  }

  /**
   * What adds up to the margin.
   * @param {number} index
   * @param {number} rival
   * @param {number} off
   * @param {ClassEvidence} evidence
   */
  sumInWords(index, rival, off, { contributions, leftOut }) {
    const { exact, heads, logits, noun } = this.answers;
    let sum = 0;
    for (const value of contributions) sum += value;
    const units = number(sum, 3, true);
    if (exact) {
      const which = off ? `the ${noun}s that are on` : `all ${count(contributions.length, noun)}`;
      const biases = number(leftOut, 3, true);
      return `It is the sum of what ${which} give (${units}) and of the biases (${biases}).`;
    }
    const on = off ? `With all ${noun}s on, it` : "It";
    // Of heads, what is left out of the map is more: they also give what they took from other tokens.
    const rest = number(logits[index] - logits[rival] - sum, 3, true);
    if (heads) return `${on} is what the heads give (${units}) and all other parts (${rest}).`;
    return (
      `${on} is what the ${noun}s give by gradient × activation (${units}), and what that leaves ` +
      `out (${rest}).`
    );
  }

  /**
   * Say what comes of the search for a flip.
   * @param {Child[]} words
   */
  say(words) {
    this.found.replaceChildren(...flatten(words));
  }
}
