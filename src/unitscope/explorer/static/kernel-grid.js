// A numbered grid of kernels. Canvases of a few rows each hold pixels only while near the window.
import { h } from "./dom.js";
import { contextOf } from "./heat.js";
import { stripCanvas } from "./kernels.js";
/** @import { KernelDrawing, Kernels } from "./kernels.js" */

/**
 * The number of a kernel and the place of its picture.
 * @typedef {[number: number, place: number]} KernelItem
 */

// Pixels of the page: between pictures, below them for the number, of a band of rows, and from the
// window to where bands are drawn.
const GAP = 10;
const LABEL = 15;
const BAND = 400;
const NEAR = 900;
// Four digits fit below a picture of this width.
const FOUR_DIGITS = 26;

/**
 * How large a picture is drawn, in pixels of the page, by its longer side in weights.
 * @param {number} weights
 */
const sideOf = (weights) => {
  if (weights <= 3) return 42;
  if (weights <= 5) return 50;
  return weights <= 8 ? 56 : 66;
};

/**
 * The grid's measures in pixels of the device, so that weights are squares of whole pixels: of a
 * weight, from a picture to the next, from a row to the next, of the text below.
 */
class GridLayout {
  /**
   * @param {Kernels} kernels
   * @param {number} width Of the page.
   */
  constructor({ high, wide }, width) {
    const ratio = devicePixelRatio || 1;
    const longest = Math.max(high, wide);
    const gap = Math.round(GAP * ratio);
    this.ratio = ratio;
    this.factor = Math.max(1, Math.round((sideOf(longest) * ratio) / longest));
    this.label = Math.round(LABEL * ratio);
    this.step = Math.max(this.factor * wide, Math.round(FOUR_DIGITS * ratio)) + gap;
    this.down = this.factor * high + this.label + Math.round(gap * 0.6);
    const room = Math.floor(width * ratio);
    this.columns = Math.max(1, Math.floor((room + gap) / this.step));
    this.rowsInBand = Math.max(1, Math.floor((BAND * ratio) / this.down));
  }

  /**
   * The left and upper side of an item.
   * @param {number} at
   */
  corner(at) {
    return [(at % this.columns) * this.step, Math.floor(at / this.columns) * this.down];
  }
}

export class KernelGrid {
  /**
   * @param {Kernels} kernels
   * @param {object} options
   * @param {string} options.label
   * @param {(at: number, step: boolean) => void} options.choose Called with the item that is
   *   chosen.
   * @param {(at: number) => void} options.point Called with the item under the pointer, −1 for
   *   none.
   */
  constructor(kernels, { label, choose, point }) {
    this.kernels = kernels;
    this.choose = choose;
    this.point = point;
    /** @type {KernelItem[]} */
    this.items = [];
    /** @type {KernelDrawing} */
    this.drawing = { scale: "kernel", colours: "grey" };
    /** @type {GridLayout | null} Null while the grid has no width. */
    this.layout = null;
    this.laidFor = "";
    this.at = -1;
    this.over = -1;
    /** @type {WeakMap<Element, { first: number, rows: number }>} */
    this.bands = new WeakMap();
    this.chosen = h("span", { class: "kernel-ring chosen", hidden: true });
    this.pointed = h("span", { class: "kernel-ring", hidden: true });
    this.element = this.listening(label);
    this.near = new IntersectionObserver(
      (entries) => entries.forEach((entry) => this.came(entry)),
      {
        rootMargin: `${NEAR}px 0px`,
      },
    );
    this.sized = new ResizeObserver(() => {
      if (this.width() !== this.laidFor) this.lay();
    });
    this.sized.observe(this.element);
    // The numbers have the colour of the page's text.
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.recolour = () => this.lay();
    this.dark.addEventListener("change", this.recolour);
  }

  /** @param {string} label */
  listening(label) {
    return h("div", {
      class: "kernels",
      role: "slider",
      tabindex: "0",
      "aria-label": label,
      onpointermove: (event) => {
        if (event.pointerType !== "touch") this.hover(this.under(event));
      },
      onpointerleave: () => this.hover(-1),
      onclick: (event) => {
        const at = this.under(event);
        if (at >= 0) this.choose(at, true);
      },
      onkeydown: (event) => this.pressed(event),
    });
  }

  close() {
    this.near.disconnect();
    this.sized.disconnect();
    this.dark.removeEventListener("change", this.recolour);
  }

  width() {
    return `${this.element.clientWidth} ${devicePixelRatio}`;
  }

  /**
   * Show other pictures, or the same ones drawn in another way.
   * @param {KernelItem[]} items
   * @param {KernelDrawing} drawing
   */
  show(items, drawing) {
    this.items = items;
    this.drawing = drawing;
    const numbers = items.map(([number]) => number);
    this.element.setAttribute("aria-valuemin", String(numbers[0]));
    this.element.setAttribute("aria-valuemax", String(numbers.at(-1)));
    this.lay();
  }

  /** Lay out the bands; each is drawn when it comes near the window. */
  lay() {
    this.laidFor = this.width();
    if (!this.element.clientWidth || !this.items.length) return;
    const layout = new GridLayout(this.kernels, this.element.clientWidth);
    this.layout = layout;
    this.near.disconnect();
    const all = Math.ceil(this.items.length / layout.columns);
    const bands = [];
    for (let row = 0; row < all; row += layout.rowsInBand) {
      const band = h("div", { class: "kernel-band" });
      const rows = Math.min(layout.rowsInBand, all - row);
      band.style.height = `${(rows * layout.down) / layout.ratio}px`;
      this.bands.set(band, { first: row * layout.columns, rows });
      bands.push(band);
    }
    this.element.replaceChildren(...bands, this.pointed, this.chosen);
    for (const band of bands) this.near.observe(band);
    this.ring(this.chosen, this.at);
    this.ring(this.pointed, -1);
  }

  /** @param {IntersectionObserverEntry} entry */
  came({ target, isIntersecting }) {
    if (!isIntersecting) target.replaceChildren();
    else if (!target.childElementCount) target.append(...this.drawn(target));
  }

  /**
   * The canvas of a band.
   * @param {Element} band
   */
  drawn(band) {
    const { layout, kernels } = this;
    const rows = this.bands.get(band);
    if (!layout || !rows) return [];
    const { factor, step, down, columns, label, ratio } = layout;
    const { high, wide } = kernels;
    const items = this.items.slice(rows.first, rows.first + rows.rows * columns);
    const width = Math.min(columns, this.items.length) * step;
    const height = rows.rows * down;
    const canvas = h("canvas", { width, height, "aria-hidden": "true" });
    canvas.style.width = `${width / ratio}px`;
    canvas.style.height = `${height / ratio}px`;

    const context = contextOf(canvas);
    const style = getComputedStyle(this.element);
    const places = items.map(([, place]) => place);
    const strip = stripCanvas(kernels, places, this.drawing);
    context.imageSmoothingEnabled = false;
    context.fillStyle = style.color;
    context.font = `${Math.round(11 * ratio)}px ${style.fontFamily}`;
    context.textBaseline = "top";
    items.forEach(([number], at) => {
      const [x, y] = layout.corner(at);
      context.drawImage(strip, at * wide, 0, wide, high, x, y, factor * wide, factor * high);
      context.fillText(String(number), x, y + factor * high + Math.round(label * 0.2));
    });
    return [canvas];
  }

  /**
   * The item under the pointer, −1 for none.
   * @param {PointerEvent} event
   */
  under(event) {
    if (!this.layout) return -1;
    const { ratio, step, down, columns } = this.layout;
    const box = this.element.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) * ratio) / step);
    const row = Math.floor(((event.clientY - box.top) * ratio) / down);
    const at = row * columns + column;
    return column >= 0 && column < columns && row >= 0 && at < this.items.length ? at : -1;
  }

  /** @param {number} at */
  hover(at) {
    if (at === this.over) return;
    this.over = at;
    this.ring(this.pointed, at);
    this.point(at);
  }

  /**
   * Lay a ring around an item; −1 hides it.
   * @param {HTMLElement} ring
   * @param {number} at
   */
  ring(ring, at) {
    const { layout } = this;
    ring.hidden = at < 0 || !layout;
    if (at < 0 || !layout) return;
    const { factor, ratio } = layout;
    const { high, wide } = this.kernels;
    const [left, top] = layout.corner(at);
    Object.assign(ring.style, {
      left: `${left / ratio}px`,
      top: `${top / ratio}px`,
      width: `${(factor * wide) / ratio}px`,
      height: `${(factor * high) / ratio}px`,
    });
  }

  /**
   * Mark an item as chosen; −1 for none.
   * @param {number} at
   * @param {string} text What a screen reader says of it.
   */
  mark(at, text) {
    this.at = at;
    const [number] = this.items[Math.max(0, at)];
    this.element.setAttribute("aria-valuenow", String(number));
    this.element.setAttribute("aria-valuetext", text);
    this.ring(this.chosen, at);
  }

  /** Keep what is chosen within the window, where keys move it. */
  follow() {
    if (this.at >= 0) this.chosen.scrollIntoView({ block: "nearest" });
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const next = this.nextAt(event.key);
    if (next === null) return;
    event.preventDefault();
    if (next < 0 || next >= this.items.length) return;
    this.choose(next, false);
    this.follow();
  }

  /**
   * Where a key leads; null for other keys.
   * @param {string} key
   */
  nextAt(key) {
    const columns = this.layout?.columns ?? 1;
    const steps = new Map([
      ["ArrowRight", 1],
      ["ArrowLeft", -1],
      ["ArrowDown", columns],
      ["ArrowUp", -columns],
    ]);
    if (key === "Home") return 0;
    if (key === "End") return this.items.length - 1;
    const step = steps.get(key);
    if (step === undefined) return null;
    return this.at < 0 ? 0 : this.at + step;
  }
}
