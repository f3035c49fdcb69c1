// A grid of kernels, numbered: canvases of a few rows each, which hold pixels only while they are near the window.
import { h } from "./dom.js";
import { stripCanvas } from "./kernels.js";

const [GAP, LABEL, BAND, NEAR] = [10, 15, 400, 900];
// How large a picture is to be, in pixels of the page, by its longer side in weights.
const sideOf = (weights) => (weights <= 3 ? 42 : weights <= 5 ? 50 : weights <= 8 ? 56 : 66);

// `items` are [number, place of the picture]; `choose(at, step)` and `point(at)` are told which of them was chosen or
// is pointed at (−1 for none).
export class KernelGrid {
  constructor(kernels, { label, choose, point }) {
    Object.assign(this, { kernels, choose, point, items: [], drawing: {}, at: -1, over: -1 });
    this.chosen = h("span", { class: "kernel-ring chosen", hidden: true });
    this.pointed = h("span", { class: "kernel-ring", hidden: true });
    this.element = h("div", { class: "kernels", role: "slider", tabindex: "0", "aria-label": label });
    this.element.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") this.hover(this.under(event));
    });
    this.element.addEventListener("pointerleave", () => this.hover(-1));
    this.element.addEventListener("click", (event) => {
      const at = this.under(event);
      if (at >= 0) choose(at, true);
    });
    this.element.addEventListener("keydown", (event) => this.pressed(event));
    this.near = new IntersectionObserver((entries) => entries.forEach((entry) => this.came(entry)), {
      rootMargin: `${NEAR}px 0px`,
    });
    this.sized = new ResizeObserver(() => {
      if (this.width() !== this.laidFor) this.lay();
    });
    this.sized.observe(this.element);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.lit = () => this.lay();
    this.dark.addEventListener("change", this.lit);
  }

  close() {
    this.near.disconnect();
    this.sized.disconnect();
    this.dark.removeEventListener("change", this.lit);
  }

  width() {
    return `${this.element.clientWidth} ${devicePixelRatio}`;
  }

  // Other pictures, or the same drawn otherwise.
  show(items, drawing) {
    Object.assign(this, { items, drawing });
    this.element.setAttribute("aria-valuemin", items[0][0]);
    this.element.setAttribute("aria-valuemax", items[items.length - 1][0]);
    this.lay();
  }

  // Everything is laid out in pixels of the device, so that weights are squares of whole pixels.
  lay() {
    this.laidFor = this.width();
    if (!this.element.clientWidth || !this.items.length) return;
    const { high, wide } = this.kernels;
    const ratio = devicePixelRatio || 1;
    const factor = Math.max(1, Math.round((sideOf(Math.max(high, wide)) * ratio) / Math.max(high, wide)));
    const room = Math.floor(this.element.clientWidth * ratio);
    const [gap, label] = [Math.round(GAP * ratio), Math.round(LABEL * ratio)];
    // Four digits must fit below a picture.
    const step = Math.max(factor * wide, Math.round(26 * ratio)) + gap;
    const columns = Math.max(1, Math.floor((room + gap) / step));
    const down = factor * high + label + Math.round(gap * 0.6);
    Object.assign(this, { ratio, factor, step, down, columns, label });
    const rows = Math.ceil(this.items.length / columns);
    const inBand = Math.max(1, Math.floor((BAND * ratio) / down));
    this.near.disconnect();
    const bands = [];
    for (let row = 0; row < rows; row += inBand) {
      const band = h("div", { class: "kernel-band" });
      const many = Math.min(inBand, rows - row);
      Object.assign(band, { first: row * columns, rows: many });
      band.style.height = `${(many * down) / ratio}px`;
      bands.push(band);
    }
    this.element.replaceChildren(...bands, this.pointed, this.chosen);
    bands.forEach((band) => this.near.observe(band));
    this.ring(this.chosen, this.at);
    this.ring(this.pointed, -1);
  }

  came({ target, isIntersecting }) {
    if (!isIntersecting) target.replaceChildren();
    else if (!target.childElementCount) target.append(this.drawn(target));
  }

  drawn(band) {
    const { factor, step, down, columns, label, ratio } = this;
    const items = this.items.slice(band.first, band.first + band.rows * columns);
    const canvas = document.createElement("canvas");
    canvas.width = Math.min(columns, this.items.length) * step;
    canvas.height = band.rows * down;
    canvas.style.width = `${canvas.width / ratio}px`;
    canvas.style.height = `${canvas.height / ratio}px`;
    canvas.setAttribute("aria-hidden", "true");
    const { high, wide } = this.kernels;
    const context = canvas.getContext("2d");
    const style = getComputedStyle(this.element);
    const strip = stripCanvas(
      this.kernels,
      items.map(([, place]) => place),
      this.drawing,
    );
    context.imageSmoothingEnabled = false;
    context.fillStyle = style.color;
    context.font = `${Math.round(11 * ratio)}px ${style.fontFamily}`;
    context.textBaseline = "top";
    items.forEach(([number], at) => {
      const [x, y] = [(at % columns) * step, Math.floor(at / columns) * down];
      context.drawImage(strip, at * wide, 0, wide, high, x, y, factor * wide, factor * high);
      context.fillText(String(number), x, y + factor * high + Math.round(label * 0.2));
    });
    return canvas;
  }

  under(event) {
    const box = this.element.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) * this.ratio) / this.step);
    const row = Math.floor(((event.clientY - box.top) * this.ratio) / this.down);
    const at = row * this.columns + column;
    return column >= 0 && column < this.columns && row >= 0 && at < this.items.length ? at : -1;
  }

  hover(at) {
    if (at === this.over) return;
    this.over = at;
    this.ring(this.pointed, at);
    this.point(at);
  }

  ring(ring, at) {
    ring.hidden = at < 0;
    if (at < 0) return;
    const { factor, step, down, columns, ratio } = this;
    const { high, wide } = this.kernels;
    Object.assign(ring.style, {
      left: `${((at % columns) * step) / ratio}px`,
      top: `${(Math.floor(at / columns) * down) / ratio}px`,
      width: `${(factor * wide) / ratio}px`,
      height: `${(factor * high) / ratio}px`,
    });
  }

  // Which of the pictures is chosen, and what is to be said of it.
  mark(at, text) {
    this.at = at;
    this.element.setAttribute("aria-valuenow", this.items[Math.max(0, at)][0]);
    this.element.setAttribute("aria-valuetext", text);
    if (this.columns) this.ring(this.chosen, at);
  }

  // Keeps what is chosen within the window, where keys move it.
  follow() {
    if (this.at >= 0) this.chosen.scrollIntoView({ block: "nearest" });
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.items.length - 1;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns };
    let next = { Home: 0, End: last }[event.key];
    if (event.key in steps) next = this.at < 0 ? 0 : this.at + steps[event.key];
    if (next === undefined) return;
    event.preventDefault();
    if (next < 0 || next > last) return;
    this.choose(next, false);
    this.follow();
  }
}
