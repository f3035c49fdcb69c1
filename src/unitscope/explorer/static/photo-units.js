// The units that carry a class on one photo, as switches.
import { address } from "./addresses.js";
import { h } from "./dom.js";
import { contextOf, heat } from "./heat.js";
import { number } from "./numbers.js";
import { site } from "./site.js";
import { named } from "./units.js";
/** @import { Values } from "./maps.js" */
/** @import { Answers } from "./photo-answers.js" */

const THUMB = 96;
// Milliseconds of a frame that go to thumbnails.
const FILLING = 8;

/** @typedef {"all on" | "first off" | "first on"} UnitChoice */

/** How many units "First … off" and "All but the first … off" speak of. */
export const MANY = 10;

/**
 * The units that are off after a choice.
 * @param {UnitChoice} choice
 * @param {number[]} ranked
 * @param {Set<number>} off Those that are off before.
 * @returns {Set<number>}
 */
export const offBy = (choice, ranked, off) => {
  if (choice === "all on") return new Set();
  if (choice === "first off") return new Set([...off, ...ranked.slice(0, MANY)]);
  return new Set(ranked.slice(MANY).sort((a, b) => a - b));
};

/**
 * Units by what they add, most first; those that take most away first, if `against`.
 * @param {Values} contributions
 * @param {boolean} against
 */
export const rankedUnits = (contributions, against) => {
  const sign = against ? 1 : -1;
  return [...contributions.keys()].sort(
    (a, b) => sign * (contributions[a] - contributions[b]) || a - b,
  );
};

/**
 * The network's part of the photo, small, to lay maps of units on.
 * @param {HTMLImageElement} picture
 * @param {Documents.Photo} photo
 */
const croppedPhoto = (picture, { box, size, input }) => {
  const [left, top, right, bottom] = box;
  const longest = THUMB / Math.max(...input);
  const width = Math.max(1, Math.round(input[1] * longest));
  const height = Math.max(1, Math.round(input[0] * longest));
  const canvas = h("canvas", { width, height });
  // The picture may have fewer pixels than the photo.
  const factor = picture.naturalWidth / size[0];
  contextOf(canvas).drawImage(
    picture,
    left * factor,
    top * factor,
    (right - left) * factor,
    (bottom - top) * factor,
    0,
    0,
    width,
    height,
  );
  return canvas;
};

export class UnitList {
  /**
   * @param {Answers} answers
   * @param {HTMLImageElement} picture
   * @param {(unit: number) => void} toggle Called when a unit is switched off or on.
   * @param {(unit: number) => void} look Called when a head's own map is asked for, or no more.
   */
  constructor(answers, picture, toggle, look) {
    this.answers = answers;
    this.picture = picture;
    this.toggle = toggle;
    this.look = look;
    /** @type {Map<number, HTMLButtonElement>} */
    this.looks = new Map();
    /** @type {Map<number, HTMLButtonElement>} */
    this.switches = new Map();
    /** @type {Set<HTMLElement>} Thumbnails to draw in the next frames. */
    this.waiting = new Set();
    this.filling = 0;
    /** @type {HTMLCanvasElement | null} */
    this.cropped = null;
    const { layer } = answers.photo;
    this.atlasLayer = site.atlas?.layers.find(({ name }) => name === layer) ?? null;
    const linked = this.atlasLayer || answers.heads;
    this.element = h("ol", { class: linked ? "unit-list linked" : "unit-list" });
    // Thumbnails are drawn when they come near the window.
    this.watcher = new IntersectionObserver((entries) => this.seen(entries), {
      rootMargin: "300px 0px",
    });
  }

  /** @param {IntersectionObserverEntry[]} entries */
  seen(entries) {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting || !(target instanceof HTMLElement)) continue;
      this.watcher.unobserve(target);
      this.waiting.add(target);
    }
    if (!this.filling && this.waiting.size)
      this.filling = requestAnimationFrame(() => this.fillSome());
  }

  /** Draw a few thumbnails in each frame. */
  fillSome() {
    const end = performance.now() + FILLING;
    for (const frame of this.waiting) {
      this.waiting.delete(frame);
      if (frame.isConnected) this.fill(frame, Number(frame.dataset.unit));
      if (performance.now() > end) break;
    }
    this.filling = this.waiting.size ? requestAnimationFrame(() => this.fillSome()) : 0;
  }

  /**
   * @param {HTMLElement} frame
   * @param {number} unit
   */
  fill(frame, unit) {
    const { photo } = this.answers;
    const { values, map } = this.answers.mapOfUnit(unit);
    let largest = 0;
    for (const value of values) largest = Math.max(largest, value);
    if (this.picture.naturalWidth) {
      this.cropped ??= croppedPhoto(this.picture, photo);
      const { width, height } = this.cropped;
      const crop = h("canvas", { class: "crop-photo", width, height });
      contextOf(crop).drawImage(this.cropped, 0, 0);
      frame.append(crop);
    }
    frame.append(heat(values, largest, { map }, photo.input, site.colours.heat));
  }

  /**
   * @param {number} unit
   * @param {number} contribution
   * @param {number} most The largest contribution of the list.
   */
  item(unit, contribution, most) {
    const { atlasLayer } = this;
    const who = atlasLayer ? named(atlasLayer, unit) : null;
    const name = who && who.kind !== "none" ? who.name : "";
    const bar = h("span", { class: contribution < 0 ? "amount against" : "amount" });
    bar.style.width = `${(100 * Math.abs(contribution)) / (most || 1)}%`;
    const adds = number(contribution, 2, true);
    const frame = h("span", { class: "thumb", "aria-hidden": "true", "data-unit": unit });
    const button = h(
      "button",
      {
        type: "button",
        role: "switch",
        class: "unit-switch",
        "aria-label": `${this.answers.nameOf(unit)}${name ? `, ${name}` : ""}, ${adds} ${site.scores.numbers}`,
        onclick: () => this.toggle(unit),
      },
      frame,
      h(
        "span",
        { class: "unit-words" },
        h("span", { class: "switched" }, "off"),
        h("span", { class: "unit" }, this.answers.nameOf(unit)),
        name ? h("span", { class: "unit-name" }, name) : null,
        h("span", { class: "value" }, adds),
        h("span", { class: "amounts" }, bar),
      ),
    );
    this.switches.set(unit, button);
    this.watcher.observe(frame);
    const href = atlasLayer && address(["unit", atlasLayer.name, unit]);
    return h(
      "li",
      {},
      button,
      this.answers.heads ? this.lookButton(unit) : null,
      href ? h("a", { class: "more", href }, "its page") : null,
    );
  }

  /** @param {number} unit */
  lookButton(unit) {
    const look = h(
      "button",
      {
        type: "button",
        class: "look",
        "aria-pressed": "false",
        "aria-label": `its map: ${this.answers.nameOf(unit)}`,
        onclick: () => this.look(unit),
      },
      "its map",
    );
    this.looks.set(unit, look);
    return look;
  }

  /**
   * List units with what they contribute.
   * @param {number[]} units
   * @param {Values} contributions
   * @param {boolean} longer Whether those that are listed stay.
   */
  list(units, contributions, longer) {
    if (!longer) {
      this.watcher.disconnect();
      this.waiting.clear();
      this.switches.clear();
      this.looks.clear();
      this.element.replaceChildren();
    }
    const most = Math.max(...units.map((unit) => Math.abs(contributions[unit])), 0);
    const more = units.filter((unit) => !this.switches.has(unit));
    this.element.append(...more.map((unit) => this.item(unit, contributions[unit], most)));
  }

  /**
   * Show which units are off, and which head's own map is shown.
   * @param {Set<number>} off
   * @param {number | null} head
   */
  mark(off, head) {
    for (const [unit, button] of this.looks)
      button.setAttribute("aria-pressed", String(unit === head));
    for (const [unit, button] of this.switches)
      button.setAttribute("aria-checked", String(!off.has(unit)));
  }

  /**
   * Give the focus to the next or previous unit; from nowhere, to the first.
   * @param {1 | -1} by
   */
  step(by) {
    const all = [...this.switches.values()];
    const at = all.findIndex((button) => button === document.activeElement);
    const next = at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by));
    all[next]?.focus();
  }
}
