// The photo with what lies over it: a signed map, its contour, the cells of a region, and what the network did not see.
import { site } from "./data.js";
import { h, svg } from "./dom.js";
import { contour, laid, paint } from "./maps.js";

const SIDE = 192;
// Photos that are longer than this many times their width, or wider, are drawn so that there is something to be seen.
const LONGEST = 8;

// Where each cell reaches on the input, as shares of it: to the middle between its centre and the next one.
const edges = ([start, step], cells, inputs) =>
  Array.from({ length: cells + 1 }, (_, place) =>
    place === 0 ? 0 : place === cells ? 1 : Math.min(1, Math.max(0, (start + step * (place - 0.5)) / inputs)),
  );

export class PhotoView {
  // `mark(region)` is called with the cells of a region whenever it was changed by hand, `point(value, cell)` with the
  // map's value under the pointer, or null.
  constructor(told, { mark, point }) {
    Object.assign(this, { told, mark, point, region: new Set(), marking: false, cursor: null, values: null });
    this.down = edges(told.map.down, told.map.rows, told.input[0]);
    this.across = edges(told.map.across, told.map.cols, told.input[1]);
    this.canvas = h("canvas", { class: "map", "aria-hidden": "true" });
    this.lines = h("div", { class: "lines" });
    this.cells = svg("svg", { class: "region", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
    const [width, height] = told.size;
    this.photo = h("img", { src: told.picture, alt: `The photo ${told.name}`, width, height });
    this.crop = h("div", { class: "crop" }, this.canvas, this.lines, this.cells);
    this.element = h("div", { class: "stage", tabindex: "-1" }, this.photo, ...this.veils(), this.crop);
    // Style attributes are not allowed by the pages' own policy; properties are.
    const ratio = told.size[0] / told.size[1];
    this.stretched = ratio > LONGEST || ratio < 1 / LONGEST;
    this.element.style.aspectRatio = Math.min(LONGEST, Math.max(1 / LONGEST, ratio));
    this.place(this.crop, told.box);
    this.listen();
  }

  place(element, [left, top, right, bottom]) {
    const [width, height] = this.told.size;
    const share = (value, all) => `${(100 * value) / all}%`;
    element.style.left = share(left, width);
    element.style.top = share(top, height);
    element.style.width = share(right - left, width);
    element.style.height = share(bottom - top, height);
  }

  // What the network did not see is veiled.
  veils() {
    const [width, height] = this.told.size;
    const [left, top, right, bottom] = this.told.box;
    const boxes = [
      [0, 0, width, top],
      [0, bottom, width, height],
      [0, Math.max(0, top), left, Math.min(height, bottom)],
      [right, Math.max(0, top), width, Math.min(height, bottom)],
    ].filter(([x, y, to, end]) => to - x > width / 500 && end - y > height / 500);
    return boxes.map((box) => {
      const veil = h("div", { class: "veil" });
      this.place(veil, box);
      return veil;
    });
  }

  // `values` is the map, `high` where the colours end, `level` where the contour runs (0: nowhere), `opacity` 0 to 1.
  draw(values, high, { level, opacity }) {
    this.values = values;
    this.element.classList.toggle("mapped", opacity > 0);
    this.canvas.style.opacity = opacity;
    const painted = { signed: true, side: SIDE };
    if (opacity > 0) paint(this.canvas, values, high, this.told, this.told.input, site.colours.signed, painted);
    const drawn = (which, kind) => {
      const line = contour(which, level, this.told, this.told.input);
      line.classList.add(kind);
      return line;
    };
    const both = () => [drawn(values, "for"), drawn(values.map((value) => -value), "against")];
    this.lines.replaceChildren(...(level > 0 ? both() : []));
  }

  drawRegion() {
    const box = (cell) => {
      const [row, col] = [Math.floor(cell / this.told.map.cols), cell % this.told.map.cols];
      const [x, y] = [100 * this.across[col], 100 * this.down[row]];
      return { x, y, width: 100 * this.across[col + 1] - x, height: 100 * this.down[row + 1] - y };
    };
    const marked = [...this.region].map((cell) => svg("rect", { class: "marked", ...box(cell) }));
    const cursor = this.marking && this.cursor !== null ? [svg("rect", { class: "cursor", ...box(this.cursor) })] : [];
    this.cells.replaceChildren(...marked, ...cursor);
    const count = this.region.size;
    this.cells.setAttribute("aria-label", count ? `A region of ${count} cells is marked` : "No region is marked");
  }

  setMarking(on) {
    this.marking = on;
    this.element.classList.toggle("marking", on);
    this.element.tabIndex = on ? 0 : -1;
    this.element.setAttribute("aria-label", on ? "Mark cells: arrows move, the space bar marks" : "The photo");
    this.drawRegion();
  }

  at(event) {
    const box = this.crop.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (!(x >= 0 && x < 1 && y >= 0 && y < 1)) return null;
    const within = (lines, share) => lines.findIndex((line, place) => place > 0 && share < line) - 1;
    const [row, col] = [within(this.down, y), within(this.across, x)];
    return { x, y, cell: row * this.told.map.cols + col };
  }

  listen() {
    // Where a stroke begins decides whether it marks or unmarks.
    let stroke = null;
    const paint = (event) => {
      const at = this.at(event);
      if (!at) return;
      this.cursor = at.cell;
      if (stroke === "mark") this.region.add(at.cell);
      else this.region.delete(at.cell);
      this.drawRegion();
      this.mark(this.region, false);
    };
    this.element.addEventListener("pointerdown", (event) => {
      const at = this.at(event);
      if (!this.marking || !at || event.button) return;
      event.preventDefault();
      this.element.focus({ preventScroll: true });
      this.element.setPointerCapture(event.pointerId);
      stroke = this.region.has(at.cell) ? "unmark" : "mark";
      paint(event);
    });
    this.element.addEventListener("pointermove", (event) => {
      if (stroke) paint(event);
      const at = this.at(event);
      if (!this.values) return;
      this.point(at ? laid(this.values, this.told, this.told.input, [at.y], [at.x])[0] : null);
    });
    const end = () => {
      if (stroke) this.mark(this.region, true);
      stroke = null;
    };
    this.element.addEventListener("pointerup", end);
    this.element.addEventListener("pointercancel", end);
    this.element.addEventListener("pointerleave", () => this.point(null));
    this.element.addEventListener("keydown", (event) => this.pressed(event));
  }

  pressed(event) {
    if (!this.marking) return;
    const { rows, cols } = this.told.map;
    const [row, col] = [Math.floor((this.cursor ?? 0) / cols), (this.cursor ?? 0) % cols];
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (Object.hasOwn(moves, event.key)) {
      const [by, along] = moves[event.key];
      const kept = (value, limit) => Math.min(limit - 1, Math.max(0, value));
      this.cursor = this.cursor === null ? 0 : kept(row + by, rows) * cols + kept(col + along, cols);
      this.drawRegion();
    } else if (event.key === " " || event.key === "Enter") {
      this.cursor ??= 0;
      if (!this.region.delete(this.cursor)) this.region.add(this.cursor);
      this.drawRegion();
      this.mark(this.region, true);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
