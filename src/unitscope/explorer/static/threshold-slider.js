// A slider for the threshold of a unit's contours.
import { choose, parsed } from "./addresses.js";
import { h } from "./dom.js";
import { like, percent } from "./numbers.js";
import { levelOf } from "./tiles.js";
import { value, wordsOfLayer } from "./units.js";

const NOTCHES = 400;
// Browsers allow few addresses a second: while the slider moves, the address waits.
const SETTLED = 150;

/**
 * The share of cells at or above an activation. It is known at the edges of the histogram's bins,
 * at the unit's own threshold and at its maximum; between them it is interpolated linearly on
 * logarithmic axes.
 * @param {Documents.Layer} layer
 * @param {number} unit
 * @param {Documents.Unit} detail
 */
const shareAbove = (layer, unit, detail) => {
  const { edges, floor } = layer.bins;
  /** @type {[activation: number, share: number][]} */
  const known = [];
  let above = 0;
  for (let bin = edges.length - 2; bin >= 0; bin--) {
    above += detail.histogram[bin];
    if (above > 0) known.unshift([edges[bin], above]);
  }
  const threshold = value(layer, "threshold", unit) ?? 0;
  const reached = value(layer, "share_above", unit) ?? 0;
  if (threshold > 0 && reached > 0) known.push([threshold, reached]);
  // At the maximum there is at least one cell.
  known.push([value(layer, "maximum", unit) ?? 0, floor]);
  known.sort((a, b) => a[0] - b[0] || b[1] - a[1]);

  /** @param {number} activation */
  return (activation) => {
    const next = known.findIndex(([edge]) => edge >= activation);
    if (next < 0) return 0;
    const [edge, share] = known[next];
    if (next === 0 || edge === activation) return share;
    const [last, before] = known[next - 1];
    const part = Math.log(activation / last) / Math.log(edge / last);
    return Math.min(before, before * (Math.min(share, before) / before) ** part);
  };
};

/** From the lowest bin that the unit reaches to its maximum, in equal ratios. */
export class ThresholdSlider {
  /**
   * @param {Documents.Layer} layer
   * @param {number} unit
   * @param {Documents.Unit} detail
   * @param {() => void} changed Called after a change.
   */
  constructor(layer, unit, detail, changed) {
    this.changed = changed;
    this.cells = wordsOfLayer(layer).cells;
    this.highest = value(layer, "maximum", unit) ?? 0;
    this.own = levelOf(layer, unit);
    this.ownShare = value(layer, "share_above", unit);
    const first =
      layer.bins.edges[
        Math.max(
          0,
          detail.histogram.findIndex((share) => share > 0),
        )
      ];
    this.lowest = Math.min(first, this.own > 0 ? this.own : Infinity, this.highest / 2);
    this.shares = shareAbove(layer, unit, detail);
    this.written = like(this.highest);
    /** @type {number | null} A threshold that is not in the address yet. */
    this.moved = null;
    this.waiting = 0;

    this.input = h("input", {
      type: "range",
      id: "threshold",
      min: 0,
      max: NOTCHES,
      step: 1,
      oninput: () => this.move(),
    });
    this.output = h("output", { for: "threshold" });
    this.reset = h("button", { type: "button", onclick: () => this.toOwn() }, "Reset to its own");
    this.element = h(
      "div",
      { class: "threshold-slider" },
      h("label", { for: "threshold" }, "Threshold"),
      this.input,
      this.output,
      this.reset,
    );
  }

  move() {
    const ratio = this.highest / this.lowest;
    const level = this.lowest * ratio ** (Number(this.input.value) / NOTCHES);
    const moved = Number(level.toPrecision(4));
    this.moved = moved;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => choose({ at: moved }, false), SETTLED);
    this.changed();
  }

  toOwn() {
    clearTimeout(this.waiting);
    this.moved = null;
    choose({ at: "" }, true);
    this.changed();
    // The button is hidden now.
    this.input.focus();
  }

  /** The threshold of the address; the unit's own where there is none. */
  chosen() {
    const asked = this.moved ?? Number(parsed().query.get("at"));
    return asked > 0 && asked <= 10 * this.highest ? asked : this.own;
  }

  /** Show what is chosen. */
  refresh() {
    const level = this.chosen();
    const isOwn = level === this.own;
    const share = isOwn ? this.ownShare : this.shares(level);
    const text = Number.isFinite(level)
      ? `${this.written(level)}, which ${isOwn ? "" : "about "}${percent(share, 2)} of all ` +
        `${this.cells} reach`
      : `all ${this.cells} reach its own, 0`;
    this.input.value = String(this.notchOf(level));
    this.input.setAttribute("aria-valuetext", text);
    this.output.replaceChildren(text);
    this.reset.hidden = isOwn;
  }

  /** @param {number} level */
  notchOf(level) {
    if (!(level > 0)) return 0;
    const part = Math.log(level / this.lowest) / Math.log(this.highest / this.lowest);
    return Math.min(NOTCHES, Math.max(0, Math.round(NOTCHES * part)));
  }

  leave() {
    clearTimeout(this.waiting);
  }
}
