// The photo with what lies over it: a signed map, its contour, a region's cells, and veils over
// what the network did not see.
import { h, svg } from "./dom.js";
import { paint } from "./heat.js";
import { contour, laid } from "./maps.js";
import { count } from "./numbers.js";
import { site } from "./site.js";
/** @import { Values } from "./maps.js" */

// Pixels of the longer side of the map's canvas.
const SIDE = 192;
// Photos that are longer than this many times their width, or wider, are drawn stretched.
const LONGEST = 8;

/** @type {Record<string, [rows: number, cols: number]>} */
const MOVES = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/**
 * The borders between cells, as shares of the input: in the middle between their centres.
 * @param {Documents.Axis} axis
 * @param {number} cells
 * @param {number} inputs
 */
const bordersOf = ([start, step], cells, inputs) =>
  Array.from({ length: cells + 1 }, (_, place) => {
    if (place === 0) return 0;
    if (place === cells) return 1;
    return Math.min(1, Math.max(0, (start + step * (place - 0.5)) / inputs));
  });

/**
 * The cell between whose borders a share lies.
 * @param {number[]} borders
 * @param {number} share
 */
const cellAt = (borders, share) =>
  borders.findIndex((border, place) => place > 0 && share < border) - 1;

export class PhotoView {
  /**
   * @param {Documents.Photo} photo
   * @param {object} options
   * @param {(region: Set<number>, done: boolean) => void} options.mark Called whenever the region
   *   is changed by hand; `done` when a stroke ends.
   * @param {(value: number | null) => void} options.point Called with the map's value under the
   *   pointer.
   */
  constructor(photo, { mark, point }) {
    this.photo = photo;
    this.mark = mark;
    this.point = point;
    /** @type {Set<number>} */
    this.region = new Set();
    this.marking = false;
    /** @type {number | null} The cell that keys mark. */
    this.cursor = null;
    /** @type {"mark" | "unmark" | null} What the stroke under way does. */
    this.stroke = null;
    /** @type {Values | null} */
    this.values = null;
    this.down = bordersOf(photo.map.down, photo.map.rows, photo.input[0]);
    this.across = bordersOf(photo.map.across, photo.map.cols, photo.input[1]);
    this.canvas = h("canvas", { class: "map", "aria-hidden": "true" });
    this.lines = h("div", { class: "lines" });
    this.cells = svg("svg", {
      class: "region",
      viewBox: "0 0 100 100",
      preserveAspectRatio: "none",
      role: "img",
    });
    const [width, height] = photo.size;
    const alt = `The photo ${photo.name}`;
    this.picture = h("img", { src: photo.picture, alt, width, height });
    this.crop = h("div", { class: "crop" }, this.canvas, this.lines, this.cells);
    this.place(this.crop, photo.box);
    this.element = this.listening();
    // The pages' own policy forbids style attributes but not properties.
    const ratio = width / height;
    this.stretched = ratio > LONGEST || ratio < 1 / LONGEST;
    this.element.style.aspectRatio = String(Math.min(LONGEST, Math.max(1 / LONGEST, ratio)));
  }

  /**
   * Lay an element over a part of the photo.
   * @param {HTMLElement} element
   * @param {Documents.Box} box
   */
  place(element, [left, top, right, bottom]) {
    const [width, height] = this.photo.size;
    /**
     * @param {number} value
     * @param {number} all
     */
    const share = (value, all) => `${(100 * value) / all}%`;
    element.style.left = share(left, width);
    element.style.top = share(top, height);
    element.style.width = share(right - left, width);
    element.style.height = share(bottom - top, height);
  }

  /** Veils over what the network did not see. */
  veils() {
    const [width, height] = this.photo.size;
    const [left, top, right, bottom] = this.photo.box;
    /** @type {Documents.Box[]} */
    const boxes = [
      [0, 0, width, top],
      [0, bottom, width, height],
      [0, Math.max(0, top), left, Math.min(height, bottom)],
      [right, Math.max(0, top), width, Math.min(height, bottom)],
    ];
    const visible = boxes.filter(
      ([x, y, to, end]) => to - x > width / 500 && end - y > height / 500,
    );
    return visible.map((box) => {
      const veil = h("div", { class: "veil" });
      this.place(veil, box);
      return veil;
    });
  }

  /**
   * Draw a map.
   * @param {Values} values
   * @param {number} high Where the colours end.
   * @param {object} options
   * @param {number} options.level Where the contour runs; 0 for nowhere.
   * @param {number} options.opacity 0 to 1.
   */
  draw(values, high, { level, opacity }) {
    const { photo } = this;
    const { input } = photo;
    this.values = values;
    this.element.classList.toggle("mapped", opacity > 0);
    this.canvas.style.opacity = String(opacity);
    if (opacity > 0) {
      const options = { signed: true, side: SIDE };
      paint(this.canvas, values, high, photo, input, site.colours.signed, options);
    }
    this.lines.replaceChildren();
    if (!(level > 0)) return;
    const positive = contour(values, level, photo, input);
    const negative = contour(
      values.map((value) => -value),
      level,
      photo,
      input,
    );
    positive.classList.add("for");
    negative.classList.add("against");
    this.lines.append(positive, negative);
  }

  /**
   * A cell as a rectangle.
   * @param {string} kind
   * @param {number} cell
   */
  rectangle(kind, cell) {
    const { cols } = this.photo.map;
    const row = Math.floor(cell / cols);
    const col = cell % cols;
    const x = 100 * this.across[col];
    const y = 100 * this.down[row];
    const width = 100 * this.across[col + 1] - x;
    const height = 100 * this.down[row + 1] - y;
    return svg("rect", { class: kind, x, y, width, height });
  }

  drawRegion() {
    const { size } = this.region;
    const marked = [...this.region].map((cell) => this.rectangle("marked", cell));
    if (this.marking && this.cursor !== null) marked.push(this.rectangle("cursor", this.cursor));
    this.cells.replaceChildren(...marked);
    const text = size ? `A region of ${count(size, "cell")} is marked` : "No region is marked";
    this.cells.setAttribute("aria-label", text);
  }

  /** @param {boolean} on */
  setMarking(on) {
    this.marking = on;
    this.element.classList.toggle("marking", on);
    this.element.tabIndex = on ? 0 : -1;
    const label = on ? "Mark cells: arrows move, the space bar marks" : "The photo";
    this.element.setAttribute("aria-label", label);
    this.drawRegion();
  }

  /**
   * Where the pointer is on the input, as shares of its sides, and in which cell; null outside.
   * @param {PointerEvent} event
   */
  at(event) {
    const box = this.crop.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const y = (event.clientY - box.top) / box.height;
    if (!(x >= 0 && x < 1 && y >= 0 && y < 1)) return null;
    const cell = cellAt(this.down, y) * this.photo.map.cols + cellAt(this.across, x);
    return { x, y, cell };
  }

  listening() {
    const end = () => {
      if (this.stroke) this.mark(this.region, true);
      this.stroke = null;
    };
    return h(
      "div",
      {
        class: "stage",
        tabindex: "-1",
        onpointerdown: (event) => this.begin(event),
        onpointermove: (event) => this.moved(event),
        onpointerup: end,
        onpointercancel: end,
        onpointerleave: () => this.point(null),
        onkeydown: (event) => this.pressed(event),
      },
      this.picture,
      this.veils(),
      this.crop,
    );
  }

  /**
   * Begin a stroke. Its first cell decides whether it marks or unmarks.
   * @param {PointerEvent} event
   */
  begin(event) {
    const at = this.at(event);
    if (!this.marking || !at || event.button) return;
    event.preventDefault();
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.stroke = this.region.has(at.cell) ? "unmark" : "mark";
    this.brush(at.cell);
  }

  /** @param {PointerEvent} event */
  moved(event) {
    const at = this.at(event);
    if (this.stroke && at) this.brush(at.cell);
    if (!this.values) return;
    const { photo, values } = this;
    this.point(at ? laid(values, photo, photo.input, [at.y], [at.x])[0] : null);
  }

  /** @param {number} cell */
  brush(cell) {
    this.cursor = cell;
    if (this.stroke === "mark") this.region.add(cell);
    else this.region.delete(cell);
    this.drawRegion();
    this.mark(this.region, false);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (!this.marking) return;
    const isMove = Object.hasOwn(MOVES, event.key);
    const isMark = event.key === " " || event.key === "Enter";
    if (!isMove && !isMark) return;
    event.preventDefault();
    event.stopPropagation();
    if (isMove) this.moveCursor(MOVES[event.key]);
    else this.toggleCursor();
  }

  /** @param {[rows: number, cols: number]} by */
  moveCursor([down, along]) {
    const { rows, cols } = this.photo.map;
    /**
     * @param {number} value
     * @param {number} limit
     */
    const within = (value, limit) => Math.min(limit - 1, Math.max(0, value));
    if (this.cursor === null) this.cursor = 0;
    else {
      const row = within(Math.floor(this.cursor / cols) + down, rows);
      this.cursor = row * cols + within((this.cursor % cols) + along, cols);
    }
    this.drawRegion();
  }

  toggleCursor() {
    this.cursor ??= 0;
    if (!this.region.delete(this.cursor)) this.region.add(this.cursor);
    this.drawRegion();
    this.mark(this.region, true);
  }
}
