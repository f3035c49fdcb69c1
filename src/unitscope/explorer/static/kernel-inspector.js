// The kernel that the reader looks at: its weights as colours and numbers, and links from it.
import { address, parsed } from "./addresses.js";
import { radios } from "./controls.js";
import { h, link, small } from "./dom.js";
import { WRITTEN, picturesOf, scaleBar } from "./kernel-pictures.js";
import { count } from "./numbers.js";
/** @import { Choice } from "./controls.js" */
/** @import { KernelDrawing, Kernels } from "./kernels.js" */

const COLOURS = ["red", "green", "blue"];

/** Which of three colours is shown with its numbers, −1 for all of them together. */
const chosenColour = () => COLOURS.indexOf(parsed().query.get("numbers") ?? "");

/**
 * A kernel to look at.
 * @typedef {object} Looked
 * @property {number} filter
 * @property {number} channel
 * @property {KernelDrawing} drawing
 * @property {boolean} one Whether the grid shows the channels of one filter.
 * @property {boolean} chosen Whether the address says so; else the pointer does.
 */

export class KernelInspector {
  /**
   * @param {Kernels} kernels
   * @param {object} options
   * @param {string} options.layer
   * @param {string | null} options.unitsOf The atlas's layer whose units are these filters.
   * @param {() => void} options.change Called when another colour is to be written.
   * @param {() => void} options.close
   */
  constructor(kernels, { layer, unitsOf, change, close }) {
    this.kernels = kernels;
    this.layer = layer;
    this.unitsOf = unitsOf;
    this.close = close;
    const written = kernels.of === "rgb" && Math.max(kernels.rows, kernels.cols) <= WRITTEN;
    const choices = [["", "none"], ...COLOURS.map((name) => [name, name])];
    const chosen = COLOURS[chosenColour()] ?? "";
    // This choice stays in its place while everything around it changes.
    this.numbers = written
      ? radios("Numbers", "numbers", chosen, /** @type {Choice[]} */ (choices), change)
      : null;
    this.head = h("div", {});
    this.body = h("div", { class: "kernel-body" });
    this.element = h(
      "aside",
      { class: "kernel-inspector", "aria-label": "The selected kernel" },
      this.head,
      this.numbers,
      this.body,
    );
  }

  /** Show that no kernel is chosen. */
  idle() {
    this.element.classList.remove("chosen");
    this.head.replaceChildren();
    this.body.replaceChildren(
      small(
        "Point at a kernel, or choose one, to see its weights as numbers; j and k step on from it.",
      ),
    );
  }

  /** @param {Looked} looked */
  show({ filter, channel, drawing, one, chosen }) {
    const { kernels } = this;
    const place = kernels.place(filter, channel);
    const span = kernels.span(place);
    const label = `${kernels.name(filter, channel)}, weights ${span}`;
    const level = chosenColour();
    const colours = level >= 0 && this.numbers ? "signed" : drawing.colours;
    const ends = kernels.ends(place, { ...drawing, colours });
    const close = h("button", { type: "button", onclick: this.close }, "Close");
    this.element.classList.add("chosen");
    this.head.replaceChildren(
      h("div", { class: "kernel-head" }, h("h2", {}, `Filter ${filter}`), chosen && !one && close),
      ...this.reads(filter, channel),
    );
    this.body.replaceChildren(
      h("div", { class: "kernel-pictures" }, picturesOf(kernels, place, drawing, label, level)),
      h("p", { class: "kernel-range" }, "Weights ", h("strong", {}, span)),
      scaleBar(kernels, ends, colours),
      this.links(filter, channel, one),
    );
  }

  /**
   * Which of the layer's input channels the kernel reads, where there are several.
   * @param {number} filter
   * @param {number} channel
   */
  reads(filter, channel) {
    const { kernels } = this;
    const grouped = kernels.groups > 1;
    if (!kernels.apart && !(grouped && kernels.channels === 1)) return [];
    const within =
      grouped && kernels.apart
        ? `, channel ${channel} of the ${kernels.channels} in its group`
        : "";
    const text = `input channel ${kernels.input(filter, channel)}${within}`;
    return [h("p", { class: "kernel-reads" }, text)];
  }

  /**
   * @param {number} filter
   * @param {number} channel
   * @param {boolean} one
   */
  links(filter, channel, one) {
    const { kernels, layer, unitsOf } = this;
    /** @param {"one" | "all"} shown */
    const to = (shown) => {
      const { query } = parsed();
      query.set("filter", String(filter));
      query.set("channel", String(channel));
      query.set("show", shown);
      return address(["filters", layer], query);
    };
    const all = `All ${count(kernels.channels, "input channel")} of filter ${filter}`;
    return h(
      "p",
      { class: "kernel-links" },
      unitsOf !== null &&
        link(address(["unit", unitsOf, filter]), `What unit ${filter} responds to`),
      kernels.apart && !one && link(to("one"), all),
      one && link(to("all"), `Channel ${channel} of all filters`),
    );
  }
}
