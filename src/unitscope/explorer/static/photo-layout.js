// The elements of a photo's page, and where they stand.
import { breakable, h, link, small, titleCase } from "./dom.js";
import { power } from "./numbers.js";
import { titled } from "./page.js";
import { classSearch, headByName, layerSelect, slider, unitByNumber } from "./photo-controls.js";
import { Contrast } from "./photo-contrast.js";
import { partsSection } from "./photo-parts.js";
import { pickPhoto } from "./photo-start.js";
import { MANY } from "./photo-units.js";
import { site } from "./site.js";
/** @import { Child } from "./dom.js" */
/** @import { Values } from "./maps.js" */
/** @import { Answers } from "./photo-answers.js" */
/** @import { MapTarget } from "./photo-map.js" */
/** @import { UnitChoice } from "./photo-units.js" */

/**
 * What the controls of the page do.
 * @typedef {object} PhotoActions
 * @property {(name: "opacity" | "level", value: number) => void} slide While a slider moves.
 * @property {() => void} slid When it is let go.
 * @property {() => void} brush
 * @property {() => void} more
 * @property {(against: boolean) => void} side
 * @property {(index: number) => void} chooseClass
 * @property {(rival: number | null) => void} oppose
 * @property {() => void} flip
 * @property {(unit: number) => void} toggle
 * @property {(choice: UnitChoice) => void} switchUnits
 */
/**
 * The kind of answers and how exact they are, in words.
 * @param {Answers} answers
 */
const claimOf = (answers) => {
  if (answers.heads)
    return (
      `residual: its parts add up to the ${site.scores.numbers}; ` +
      "switching heads off is measured, and computed where all else is held"
    );
  if (!answers.exact) {
    const method = `gradient × activation at ${answers.photo.layer}`;
    return `local: ${method}; switching units off is measured`;
  }
  const error = answers.algebra.error();
  const digits = answers.photo.pooled ? "the digits that the atlas kept, " : "";
  const accuracy = error ? `to ${digits}${power(error)}` : "to the last bit";
  return `exact: maps and bias give the ${site.scores.numbers} ${accuracy}`;
};

export class PhotoLayout {
  /**
   * @param {string} id
   * @param {Answers} answers
   * @param {PhotoActions} actions
   */
  constructor(id, answers, actions) {
    this.id = id;
    this.answers = answers;
    this.actions = actions;
    this.bar = h("div", { class: "scale" });
    this.legend = h("p", { class: "ends" });
    this.mapWords = h("p", { class: "map-words" });
    this.pointed = h("p", { class: "pointed", "aria-hidden": "true" });
    this.predictions = h("div", { class: "predictions" });
    this.became = h("span", {});
    this.strip = h("span", { class: "strip-of-five", "aria-hidden": "true" });
    this.evidence = h("section", { class: "evidence" });
    this.parts = h("section", { class: "parts" });
    this.contrast = new Contrast(answers, actions);
    this.unitsTitle = h("h2", {});
    this.unitNumbers = h("span", {});
    this.trouble = h("p", { class: "warning", role: "alert", hidden: true });
    this.opacity = this.slider("Map opacity", "opacity");
    this.level = this.slider("Contour at", "level");
    this.brush = this.button("Mark a region", actions.brush);
    this.more = this.button(`More ${answers.noun}s`, actions.more);
    this.allOn = this.button("All on", () => actions.switchUnits("all on"));
    const chosen = () => {
      actions.side(sides.value === "against");
    };
    this.mostFor = h("option", { value: "for" });
    this.mostAgainst = h("option", { value: "against" });
    const sides = h("select", { onchange: chosen }, this.mostFor, this.mostAgainst);
    this.sides = sides;
  }

  /**
   * @param {string} text
   * @param {() => void} onclick
   */
  button(text, onclick) {
    return h("button", { type: "button", onclick }, text);
  }

  /**
   * @param {string} label
   * @param {"opacity" | "level"} name
   */
  slider(label, name) {
    const { slide, slid } = this.actions;
    return slider(label, (value) => slide(name, value), slid);
  }

  /**
   * The contents of the page.
   * @param {HTMLElement} view
   * @param {HTMLElement} units
   * @returns {Child[]}
   */
  contents(view, units) {
    const { photo } = this.answers;
    const label = site.photos.find(({ id }) => id === this.id)?.class;
    const claim = h(
      "p",
      { class: "count" },
      label ? ["labelled ", h("strong", {}, breakable(label)), " · "] : null,
      claimOf(this.answers),
    );
    return [
      h(
        "div",
        { class: "crumbs" },
        h("p", {}, link("#/photo", "Photos")),
        site.live && site.model ? h("p", { class: "steps" }, pickPhoto("Another photo")) : null,
      ),
      titled(breakable(photo.name), claim),
      h(
        "div",
        { class: "photo-page" },
        this.seen(view),
        h(
          "div",
          { class: "explanation" },
          this.standing(),
          this.contrast.element,
          this.answers.heads ? this.parts : null,
          this.unitsSection(units),
        ),
      ),
    ];
  }

  /**
   * The photo with what lies over it, and its controls.
   * @param {HTMLElement} view
   */
  seen(view) {
    return h(
      "div",
      { class: "seen" },
      view,
      h("div", { class: "under" }, this.bar, this.legend, this.mapWords, this.pointed),
      h(
        "div",
        { class: "controls" },
        this.opacity.element,
        this.level.element,
        this.brush,
        layerSelect(this.id, this.answers.photo.layer),
      ),
      this.evidence,
    );
  }

  /** The predictions, which stay in sight. */
  standing() {
    const { exact, heads } = this.answers;
    const kind = exact ? "exact" : "measured";
    const method = exact
      ? " by algebra on one forward pass, in the browser."
      : ` by real forward passes${heads ? "; direct effects by algebra" : ""}.`;
    return h(
      "div",
      { class: "standing" },
      this.trouble,
      this.predictions,
      h(
        "p",
        { class: "summary", role: "status" },
        this.became,
        " ",
        h("span", { class: `kind ${kind}` }, kind),
        h("span", { class: "method-words" }, method),
        this.strip,
      ),
    );
  }

  /** What the small pictures of units show. */
  picturesInWords() {
    if (this.answers.heads)
      return (
        "Pictures: the attention that it pays to patches, each from 0 to its own largest value on " +
        "this photo. “Its map” shows what patches give to the class through it."
      );
    if (this.answers.exact && this.answers.photo.shares)
      return (
        "Pictures: what each place gives of the pooled unit (of a maximum, the largest cell), " +
        "from 0 to the largest on this photo. These are not the unit’s activations."
      );
    return "Pictures: its map, each from 0 to its own largest value on this photo.";
  }

  /** @param {HTMLElement} units */
  unitsSection(units) {
    const { noun, heads } = this.answers;
    return h(
      "section",
      { class: "units" },
      this.unitsTitle,
      this.unitControls(),
      small(
        `Click a ${noun} to switch it off. Numbers: the ${site.scores.numbers} that it adds `,
        this.unitNumbers,
        ` while all are on${heads ? ", through all tokens" : ""}. `,
        this.picturesInWords(),
      ),
      units,
      this.more,
    );
  }

  /**
   * What makes up the logit or margin, where it is a sum of parts.
   * @param {MapTarget} target
   * @param {Values} logits With all heads on.
   * @param {number} off How many heads are off.
   */
  drawParts({ index, rival }, logits, off) {
    const { heads } = this.answers;
    if (heads) this.parts.replaceChildren(...partsSection(heads, index, rival, logits, off));
  }

  /**
   * Which units are listed, and what their numbers say.
   * @param {MapTarget} target
   * @param {boolean} against
   */
  titleUnits({ index, rival }, against) {
    const { labels } = site;
    const named = (/** @type {number} */ of) =>
      h("em", { class: of === rival ? "against" : "for" }, breakable(labels[of]));
    const [of, less] = rival !== null && against ? [rival, index] : [index, rival];
    const verb = rival === null && against ? "against" : "for";
    this.unitsTitle.replaceChildren(
      `${titleCase(this.answers.noun)}s that speak ${verb} `,
      named(of),
      ...(less === null ? [] : [", not ", named(less)]),
    );
    this.unitNumbers.replaceChildren(
      ...(rival === null
        ? []
        : [
            "to the margin of ",
            breakable(labels[index]),
            " over ",
            breakable(labels[rival]),
          ].flat()),
    );
  }

  /**
   * What can be chosen to be listed.
   * @param {MapTarget} target
   * @param {boolean} against
   */
  offerSides({ index, rival }, against) {
    const { labels } = site;
    this.mostFor.textContent = rival === null ? "most for it" : `most for ${labels[index]}`;
    this.mostAgainst.textContent = rival === null ? "most against it" : `most for ${labels[rival]}`;
    this.sides.value = against ? "against" : "for";
  }

  unitControls() {
    const { actions } = this;
    const { noun, heads, photo } = this.answers;
    return h(
      "div",
      { class: "controls" },
      h(
        "div",
        { class: "group" },
        classSearch("Another class", site.labels, actions.chooseClass, {
          id: "matching-classes",
          main: true,
        }),
        h("label", {}, h("span", {}, `${titleCase(noun)}s`), this.sides),
      ),
      h(
        "div",
        { class: "group" },
        this.button(`First ${MANY} off`, () => actions.switchUnits("first off")),
        this.button(`All but the first ${MANY} off`, () => actions.switchUnits("first on")),
        this.allOn,
        heads ? headByName(heads.names, actions.toggle) : unitByNumber(photo.units, actions.toggle),
      ),
    );
  }
}
