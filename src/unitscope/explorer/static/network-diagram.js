// The diagram of the network's stages, in plans for pages of different widths.
import { address } from "./addresses.js";
import { h, svg } from "./dom.js";

// The plans from the widest on; the style sheet shows the one that fits.
const WIDTHS = ["wide", "middle", "narrow"];

/** @param {number[]} numbers Corners as x, y, x, y … */
const area = (numbers) => {
  const points = [];
  for (let place = 0; place < numbers.length; place += 2)
    points.push(`${numbers[place]} ${numbers[place + 1]}`);
  return `M${points.join("L")}z`;
};

/** @param {Documents.Part} part */
const volume = (part) =>
  svg(
    "g",
    { class: `net-volume of-${part.kind}` },
    ...Object.entries(part.faces).map(([face, numbers]) =>
      svg("path", { class: `face-${face}`, d: area(numbers) }),
    ),
    ...part.lines.map(([x, y, line], place) =>
      svg("text", { x, y, "text-anchor": "middle", class: place ? "below" : "first" }, line),
    ),
  );

/** @param {Documents.Plan["arrows"][number]} arrow */
const arrow = ([x1, y, x2]) =>
  svg(
    "g",
    { class: "net-arrow" },
    svg("path", { class: "shaft", d: `M${x1} ${y}H${x2 - 4}` }),
    svg("path", { class: "tip", d: `M${x2} ${y}l-6 -3.5v7z` }),
  );

/**
 * A volume as a link to the layers of its stage, if it is one.
 * @param {Documents.Part} part
 * @param {(stage: number) => void} open
 */
const linkedVolume = (part, open) => {
  const { stage, title } = part;
  const tooltip = svg("title", {}, title);
  if (stage === null) return svg("g", {}, tooltip, volume(part));
  const href = address(["network"], new URLSearchParams({ stage: String(stage) }));
  const linked = svg("a", { href, "aria-label": `${title}: layers` }, tooltip, volume(part));
  linked.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(stage);
  });
  return linked;
};

/**
 * One plan as a picture.
 * @param {Documents.Plan} plan
 * @param {string} width
 * @param {string} title
 * @param {string} description
 * @param {(stage: number) => void} open
 */
const drawnPlan = (plan, width, title, description, open) => {
  const titleId = `network-${width}-title`;
  const descriptionId = `network-${width}-description`;
  return svg(
    "svg",
    {
      class: `network ${width}`,
      viewBox: `0 0 ${plan.width} ${plan.height}`,
      width: plan.width,
      height: plan.height,
      role: "group",
      "aria-labelledby": titleId,
      "aria-describedby": descriptionId,
    },
    svg("title", { id: titleId }, title),
    svg("desc", { id: descriptionId }, description),
    ...plan.arrows.map(arrow),
    ...plan.parts.map((part) => linkedVolume(part, open)),
  );
};

/**
 * The diagram, whose volumes open the stages that they stand for.
 * @param {Documents.Diagram} diagram
 * @param {string} title
 * @param {(stage: number) => void} open
 */
export const networkDiagram = ({ plans, description }, title, open) =>
  h(
    "div",
    { class: "net-diagram" },
    plans.map((plan, place) => drawnPlan(plan, WIDTHS[place], title, description, open)),
  );
