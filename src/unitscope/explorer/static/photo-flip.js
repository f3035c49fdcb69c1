// The search for units that flip a prediction on a photo, and what came of it in words.
import { largest } from "./algebra.js";
import { breakable, h } from "./dom.js";
import { exactFlip, facing, measuredFlip } from "./flip.js";
import { count, number } from "./numbers.js";
import { evidenceFor } from "./photo-answers.js";
import { predictionOf, shareOf } from "./photo-predictions.js";
import { written } from "./sets.js";
import { site } from "./site.js";
/** @import { Child } from "./dom.js" */
/** @import { Flip } from "./flip.js" */
/** @import { Answers } from "./photo-answers.js" */
/** @import { MapTarget } from "./photo-map.js" */

// Longer sets are counted; the list of units shows them.
const NAMED = 12;

/**
 * What the search is called: only where the head is linear is its set the smallest.
 * @param {Answers} answers
 */
export const flipTitle = (answers) =>
  answers.exact && !answers.algebra.readout.norm
    ? "Smallest set that flips it"
    : "Find a set that flips it";

/** The searches on a page, and what came of the last one. */
export class FlipSearch {
  /** @param {Answers} answers */
  constructor(answers) {
    this.answers = answers;
    /** What is being searched for. */
    this.under = "";
    /** @type {{ of: string, words: Child[] }} The last answer, and the state that it is of. */
    this.last = { of: "", words: [] };
  }

  /**
   * The units to switch off so that another class is ahead: those that are off already where none
   * were found, and null where the same search is under way.
   * @param {MapTarget} target
   * @param {Set<number>} off
   * @param {(words: string) => void} tell Called before each forward pass.
   */
  async search(target, off, tell) {
    const of = stateOfFlip(target, off);
    if (this.under === of) return null;
    this.under = of;
    try {
      const flip = await this.found(target, tell);
      const then = flip.units ? new Set(flip.units) : off;
      this.last = { of: stateOfFlip(target, then), words: flipInWords(flip, this.answers) };
      return then;
    } finally {
      this.under = "";
    }
  }

  /**
   * @param {MapTarget} target
   * @param {(words: string) => void} tell
   */
  async found({ index, rival: against }, tell) {
    const { answers } = this;
    const [leader, rival] = facing(answers.logits, index, against);
    if (answers.exact) return exactFlip(answers.algebra, leader, rival);
    const other = rival ?? largest(answers.logits, 2)[1];
    const { contributions } = await evidenceFor(answers, leader, other, new Set());
    return measuredFlip(contributions, leader, rival, async (off) => {
      tell(`Trying without ${count(off.size, answers.noun)} …`);
      return (await answers.without(off)).logits;
    });
  }

  /**
   * What came of the last search; nothing where it was of another state.
   * @param {MapTarget} target
   * @param {Set<number>} off
   */
  wordsOf(target, off) {
    return this.last.of === stateOfFlip(target, off) ? this.last.words : [];
  }
}

/**
 * @param {MapTarget} target
 * @param {Set<number>} off
 */
const stateOfFlip = ({ index, rival }, off) =>
  JSON.stringify([rival === null ? null : index, rival, written(off)]);

/**
 * @param {number[]} units
 * @param {Answers} answers
 */
const namesOf = (units, answers) => {
  const names = units.map((unit) => answers.nameOf(unit).slice(answers.noun.length + 1));
  const last = names.pop();
  const { noun } = answers;
  return names.length ? `${noun}s ${names.join(", ")} and ${last}` : `${noun} ${last}`;
};

/** @param {number} index */
const classNamed = (index) => h("strong", {}, breakable(site.labels[index]));

/**
 * @param {Flip} flip
 * @param {Answers} answers
 * @returns {Child[]}
 */
const flipInWords = (flip, answers) => {
  const { units } = flip;
  if (!units) return failedInWords(flip, answers);
  const many = units.length;
  const { noun } = answers;
  const who = many > NAMED ? `these ${count(many, noun)}` : namesOf(units, answers);
  const title = flip.by === "proven" ? "Smallest set: " : "A set that flips it: ";
  return [
    h("strong", {}, `${title}${who}. `),
    ...outcome(flip, many),
    " ",
    reliability(flip, noun, many),
  ];
};

/**
 * Who is ahead without the units, and who wins.
 * @param {Flip} flip
 * @param {number} many
 */
const outcome = ({ leader, rival, logits }, many) => {
  const [winner] = largest(logits, 1);
  const without = `Without ${many === 1 ? "it" : "them"} `;
  const wins = [classNamed(winner), ` wins (${shareOf(predictionOf(logits), winner)}).`];
  if (rival === null || winner === rival) return [without, ...wins];
  const ahead = [classNamed(rival), " is ahead of ", classNamed(leader)];
  return [
    without,
    ...ahead,
    winner === leader ? "." : ", and ",
    ...(winner === leader ? [] : wins),
  ];
};

/**
 * How far the answer can be trusted.
 * @param {Flip} flip
 * @param {string} noun
 * @param {number} many
 */
const reliability = ({ by, passes }, noun, many) => {
  if (by === "proven") return `Exact, by algebra${many === 1 ? "" : ": no smaller set does it"}.`;
  const open = many === 1 ? "" : " A smaller set may exist.";
  if (by === "greedy")
    return (
      `Exact, by algebra. The head normalises its ${noun}s, so they were searched greedily, one ` +
      `after the other.${open}`
    );
  return (
    `Measured by ${count(passes, "real forward pass")}, with ${noun}s taken in the order of what ` +
    `they give to the margin.${open}`
  );
};

/**
 * That no set was found, and how much that says.
 * @param {Flip} flip
 * @param {Answers} answers
 */
const failedInWords = ({ leader, rival, logits, by, tried }, { noun }) => {
  const goal =
    rival === null
      ? ["puts another class ahead of ", classNamed(leader)]
      : ["puts ", classNamed(rival), " ahead of ", classNamed(leader)];
  if (by === "greedy")
    return [
      `A greedy search, one ${noun} after the other, found no set that `,
      ...goal,
      ". Others were not tried.",
    ];
  if (by === "measured")
    return [
      `Measured: no set that was tried, up to all ${count(tried, noun)} that speak for it, `,
      ...goal,
      ". Others were not tried.",
    ];
  if (rival === null) return [`No set of ${noun}s `, ...goal, ": exact, by algebra."];
  const left = number(logits[leader] - logits[rival], 2);
  return [
    `No set of ${noun}s `,
    ...goal,
    `: without all ${count(tried, noun)} that speak for it, it is still ahead by ${left} ` +
      `${site.scores.numbers}. Exact, by algebra.`,
  ];
};
