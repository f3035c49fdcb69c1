// What is told of the kernel that is looked at: its weights as colours and numbers, and where to go from it.
import { address, parsed } from "./addresses.js";
import { radios } from "./controls.js";
import { h, link, svg } from "./dom.js";
import { digitsOf, stripCanvas } from "./kernels.js";
import { count, number, superscript } from "./numbers.js";

// Weights are written into kernels of so many a side, at most.
const WRITTEN = 11;
const STRONGEST = 6;
const COLOURS = ["red", "green", "blue"];
// Which of three colours is shown with its numbers, −1 for all of them together.
const colourOf = () => COLOURS.indexOf(parsed().query.get("numbers"));

// Weights in few characters: as they are where there is room, else as whole numbers of a power of ten.
const writerOf = (low, high, roomy) => {
  const digits = digitsOf(low, high);
  const whole = (weight) => Math.round(weight * 10 ** digits);
  const written = (value, places) => value.toFixed(places).replace("-", "−");
  // What rounds to 0 is written as 0, whatever its sign.
  if (roomy && digits < 5) return { write: (weight) => written(whole(weight) ? weight : 0, digits), factor: "" };
  const factor = digits ? `in units of 10${superscript(-digits)}` : "";
  return { write: (weight) => written(whole(weight) || 0, 0), factor };
};

// Weights as squares with their numbers.
const squares = (kernels, weights, ends, colours, written, label) => {
  const { high, wide } = kernels;
  const box = { class: "kernel-weights", viewBox: `0 0 ${40 * wide} ${40 * high}`, role: "img", "aria-label": label };
  const drawn = svg("svg", box);
  const longest = Math.max(...Array.from(weights, (weight) => written.write(weight).length));
  drawn.style.fontSize = `${Math.min(14, 58 / longest).toFixed(1)}px`;
  weights.forEach((weight, place) => {
    const [x, y] = [40 * (place % wide), 40 * Math.floor(place / wide)];
    const [red, green, blue] = kernels.colour(weight, ends, colours);
    const light = 0.299 * red + 0.587 * green + 0.114 * blue > 140;
    drawn.append(
      svg("rect", { x, y, width: 40, height: 40, fill: `rgb(${red} ${green} ${blue})` }),
      svg(
        "text",
        { x: x + 20, y: y + 24, "text-anchor": "middle", class: light ? "on-light" : "on-dark" },
        written.write(weight),
      ),
    );
  });
  return drawn;
};

// What the colours mean: the ends of a scale, and 0 where it lies between them.
const scaleBar = (kernels, ends, colours) => {
  const [low, high] = ends;
  const [left, wide] = [30, 220];
  const stops = Array.from({ length: 18 }, (_, place) => {
    const colour = kernels.colour(low + (place / 17) * (high - low), ends, colours);
    return svg("stop", { offset: place / 17, "stop-color": `rgb(${colour.join(" ")})` });
  });
  const digits = Math.min(4, digitsOf(low, high));
  const marks = [low, ...(low < 0 && high > 0 ? [0] : []), high];
  return svg(
    "svg",
    {
      class: "colour-bar",
      viewBox: "0 0 280 34",
      width: 280,
      height: 34,
      role: "img",
      "aria-label": `Scale from ${number(low, digits)} to ${number(high, digits)}`,
    },
    svg("defs", {}, svg("linearGradient", { id: "kernel-scale" }, ...stops)),
    svg("rect", { x: left, y: 1, width: wide, height: 12, fill: "url(#kernel-scale)" }),
    ...marks.flatMap((mark) => {
      const x = left + (high > low ? (mark - low) / (high - low) : 0.5) * wide;
      // The 0 of a scale that hardly reaches below or above it would be written over its end.
      const crowded = mark === 0 && Math.min(x - left, left + wide - x) < 42;
      const tick = svg("path", { class: "tick", d: `M${x.toFixed(1)} 13v4` });
      const text = svg("text", { x: x.toFixed(1), y: 29, "text-anchor": "middle" }, number(mark, mark ? digits : 0));
      return crowded ? [tick] : [tick, text];
    }),
  );
};

const enlarged = (kernels, place, drawing, label) => {
  const canvas = stripCanvas(kernels, [place], drawing);
  canvas.className = "kernel-enlarged";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
};
const picturesOf = (kernels, place, drawing, label, colour) => {
  const [low, high] = kernels.range(place);
  const longest = Math.max(kernels.rows, kernels.cols);
  const weights = kernels.weights(place);
  const picture = enlarged(kernels, place, drawing, label);
  if (kernels.of === "filter") return [picture, strongest(weights, digitsOf(low, high))];
  if (longest > WRITTEN) {
    const most = `Numbers are written into kernels of at most ${WRITTEN} × ${WRITTEN} weights.`;
    return [picture, h("p", { class: "soft" }, most)];
  }
  if (kernels.of === "rgb" && colour < 0) return [picture];
  const colours = kernels.of === "rgb" ? "signed" : drawing.colours;
  const shown = kernels.of === "rgb" ? weights.filter((_, at) => at % 3 === colour) : weights;
  const written = writerOf(low, high, longest <= 5);
  const ends = kernels.ends(place, { ...drawing, colours });
  return [
    squares(kernels, shown, ends, colours, written, label),
    h("p", { class: "soft" }, ["Numbers to 1/255 of the range", written.factor].filter(Boolean).join(", "), "."),
  ];
};
// The input channels that a filter of single weights reads most of.
const strongest = (weights, digits) => {
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
  const some = Math.min(STRONGEST, Math.floor(order.length / 2));
  const list = (channels) =>
    h(
      "ol",
      {},
      channels.map((channel) =>
        h("li", {}, h("span", {}, String(channel)), " ", number(weights[channel], digits, true)),
      ),
    );
  return h(
    "div",
    { class: "kernel-strongest" },
    h("p", { class: "soft" }, "Input channels, and their weights:"),
    h("div", {}, h("h3", {}, "the greatest"), list(order.slice(0, some))),
    h("div", {}, h("h3", {}, "the least"), list(order.slice(order.length - some).reverse())),
  );
};

// `unitsOf` is the atlas's layer whose units are these filters, if there is one.
export class KernelInspector {
  constructor(kernels, { layer, unitsOf, change, close }) {
    Object.assign(this, { kernels, layer, unitsOf, close });
    const written = kernels.of === "rgb" && Math.max(kernels.rows, kernels.cols) <= WRITTEN;
    const choices = [["", "none"], ...COLOURS.map((one) => [one, one])];
    // The choice of what is enlarged stays in its place while all around it changes.
    this.numbers = written ? radios("Numbers", "numbers", COLOURS[colourOf()] || "", choices, change) : "";
    [this.head, this.body] = [h("div", {}), h("div", { class: "kernel-body" })];
    const looked = { class: "kernel-inspector", "aria-label": "The kernel that is looked at" };
    this.element = h("aside", looked, this.head, this.numbers, this.body);
  }

  idle() {
    const how = "Point at a kernel, or choose one, to see its weights as numbers; j and k step on from it.";
    this.element.classList.remove("chosen");
    this.head.replaceChildren();
    this.body.replaceChildren(h("p", { class: "soft" }, how));
  }

  // `one` says that the grid is of one filter's channels, `chosen` that this is what the address says.
  show({ filter, channel, drawing, one, chosen }) {
    const { kernels } = this;
    const place = kernels.place(filter, channel);
    const label = `${kernels.name(filter, channel)}, weights ${kernels.span(place)}`;
    const colours = colourOf() >= 0 && this.numbers ? "signed" : drawing.colours;
    const close = h("button", { type: "button", onclick: this.close }, "Close");
    this.element.classList.add("chosen");
    this.head.replaceChildren(
      h("div", { class: "kernel-head" }, h("h2", {}, `Filter ${filter}`), chosen && !one && close),
      this.reads(filter, channel),
    );
    this.body.replaceChildren(
      h("div", { class: "kernel-pictures" }, picturesOf(kernels, place, drawing, label, colourOf())),
      h("p", { class: "kernel-range" }, "Weights ", h("strong", {}, kernels.span(place))),
      scaleBar(kernels, kernels.ends(place, { ...drawing, colours }), colours),
      this.links(filter, channel, one),
    );
  }

  // Which of the layer's input channels the kernel reads, where that is to be said.
  reads(filter, channel) {
    const { kernels } = this;
    if (!kernels.apart && !(kernels.groups > 1 && kernels.channels === 1)) return "";
    const within = kernels.groups > 1 && kernels.apart;
    const group = within ? `, channel ${channel} of the ${kernels.channels} in its group` : "";
    return h("p", { class: "kernel-reads" }, `input channel ${kernels.input(filter, channel)}${group}`);
  }

  links(filter, channel, one) {
    const { kernels, layer, unitsOf } = this;
    const to = (show) => {
      const query = new URLSearchParams(parsed().query);
      for (const [name, value] of Object.entries({ filter, channel, show })) query.set(name, value);
      return address(["filters", layer], query);
    };
    const all = `All ${count(kernels.channels, "input channel")} of filter ${filter}`;
    return h(
      "p",
      { class: "kernel-links" },
      unitsOf && link(address(["unit", unitsOf, filter]), `What unit ${filter} answers to`),
      kernels.apart && !one && link(to("one"), all),
      one && link(to("all"), `Channel ${channel} of all filters`),
    );
  }
}
