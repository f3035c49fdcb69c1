// All cards of a layer in a grid, of which only those near the window exist.
import { card, fill } from "./card.js";
import { h } from "./dom.js";
/** @import { CardTexts } from "./card.js" */

// So many pixels above and below the window have cards too.
const BEYOND = 700;
// Milliseconds before a card is filled: one that only flies by is not.
const FLIES_BY = 80;

/** The cards of some units of one layer. `show` is to be called once its list is in the page. */
export class CardGrid {
  /** @param {number} place */
  constructor(place) {
    this.place = place;
    this.list = h("ol", { class: "cards many", role: "list" });
    /** @type {Map<number, HTMLLIElement>} The cards that exist, by their place in the list. */
    this.there = new Map();
    /** @type {number[]} */
    this.units = [];
    /** @type {(unit: number) => CardTexts} */
    this.textsOf = () => ({});
    this.grid = { columns: 1, across: 0, down: 0 };
    this.frame = 0;
    this.width = 0;
    this.later = this.later.bind(this);
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(this.list);
    window.addEventListener("scroll", this.later, { passive: true });
    // The tab key can be faster than frames.
    this.list.addEventListener("focusin", () => this.update());
  }

  /**
   * Show units in order.
   * @param {number[]} units
   * @param {(unit: number) => CardTexts} textsOf
   */
  show(units, textsOf) {
    this.units = units;
    this.textsOf = textsOf;
    this.measure();
  }

  /** Where a card with the focus stands in the list, −1 if none has it. */
  focused() {
    for (const [at, element] of this.there) if (element.contains(document.activeElement)) return at;
    return -1;
  }

  /** Lay the grid out anew, in as many columns as the style sheet gives. */
  measure() {
    const { list, units } = this;
    for (const element of this.there.values()) element.remove();
    this.there.clear();
    list.style.height = "";
    if (!units.length) return;

    const style = getComputedStyle(list);
    const widths = style.gridTemplateColumns.split(" ");
    const width = parseFloat(widths[0]);
    list.style.setProperty("--card", `${width}px`);
    // The style sheet says how tall a card is.
    const probe = list.appendChild(card(this.place, units[0], this.textsOf(units[0])));
    const height = probe.offsetHeight;
    probe.remove();
    const [columnGap, rowGap] = [parseFloat(style.columnGap), parseFloat(style.rowGap)];
    const [across, down] = [width + columnGap, height + rowGap];
    this.grid = { columns: widths.length, across, down };
    const rows = Math.ceil(units.length / widths.length);
    list.style.height = `${rows * down - rowGap}px`;
    this.update();
  }

  /**
   * The card at a place of the list.
   * @param {number} at
   */
  made(at) {
    const { columns, across, down } = this.grid;
    const unit = this.units[at];
    const texts = { ...this.textsOf(unit), position: at + 1, of: this.units.length };
    const element = card(this.place, unit, texts);
    const [x, y] = [(at % columns) * across, Math.floor(at / columns) * down];
    element.style.transform = `translate(${x}px, ${y}px)`;
    setTimeout(() => element.isConnected && fill(element), FLIES_BY);
    return element;
  }

  /** The places of the cards that should exist. */
  wanted() {
    const { columns, down } = this.grid;
    const { top } = this.list.getBoundingClientRect();
    const count = this.units.length;
    const from = columns * Math.max(0, Math.floor((-top - BEYOND) / down));
    const to = Math.min(count, columns * Math.ceil((window.innerHeight - top + BEYOND) / down));
    /** @type {Set<number>} */
    const wanted = new Set();
    for (let at = from; at < to; at++) wanted.add(at);
    // The card with the focus stays, wherever it is, and those beside it for the tab key.
    const focus = this.focused();
    if (focus >= 0)
      for (let at = Math.max(0, focus - 1); at < Math.min(count, focus + 2); at++) wanted.add(at);
    return wanted;
  }

  /** Make the cards that came near the window, and remove those that left. */
  update() {
    if (!this.units.length) return;
    const wanted = this.wanted();
    for (const [at, element] of this.there) {
      if (wanted.has(at)) continue;
      element.remove();
      this.there.delete(at);
    }
    // In the order of the list, for the tab key. Existing cards are not moved: they would lose
    // focus.
    let next = this.list.firstChild;
    for (const at of [...wanted].sort((a, b) => a - b)) {
      const known = this.there.get(at);
      if (known) next = known.nextSibling;
      else {
        const element = this.made(at);
        this.there.set(at, element);
        this.list.insertBefore(element, next);
      }
    }
  }

  /** Update with the next frame. */
  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.update();
    });
  }

  /** In another width there are other columns: the card that was on top stays there. */
  resize() {
    const before = this.width;
    this.width = this.list.clientWidth;
    if (this.width === before || !before) {
      this.later();
      return;
    }
    const { top } = this.list.getBoundingClientRect();
    const first = top < 0 ? this.grid.columns * Math.floor(-top / this.grid.down) : -1;
    const focus = this.focused();
    this.measure();
    if (focus >= 0) this.go(focus);
    else if (first >= 0) this.scrollTo(first, 0);
  }

  /**
   * Scroll until a place of the list lies so many pixels below the top of the window.
   * @param {number} at
   * @param {number} below
   */
  scrollTo(at, below) {
    const { top } = this.list.getBoundingClientRect();
    window.scrollBy(0, top + Math.floor(at / this.grid.columns) * this.grid.down - below);
  }

  /**
   * Give the focus to the card at a place of the list.
   * @param {number} at
   */
  go(at) {
    // Keys can be faster than frames.
    if (!this.there.has(at)) this.update();
    if (!this.there.has(at)) {
      this.scrollTo(at, window.innerHeight / 3);
      this.update();
    }
    const anchor = this.there.get(at)?.querySelector("a");
    anchor?.focus({ preventScroll: true });
    anchor?.scrollIntoView({ block: "nearest" });
  }

  /**
   * Go to the card after or before the one with the focus; from nowhere, to the first one in sight.
   * @param {number} by
   */
  step(by) {
    if (!this.units.length) return;
    const { columns, down } = this.grid;
    const focus = this.focused();
    const { top } = this.list.getBoundingClientRect();
    const first = columns * Math.max(0, Math.ceil((80 - top - down) / down));
    const at = focus < 0 ? first : focus + by;
    this.go(Math.min(this.units.length - 1, Math.max(0, at)));
  }

  /** Stop watching the window. */
  leave() {
    window.removeEventListener("scroll", this.later);
    this.resized.disconnect();
  }
}
