// A card of a unit: its name, its top images and its histogram. A few of them make a list.
import { address } from "./addresses.js";
import { reasonOf } from "./data.js";
import { breakable, h, messageOf, svg } from "./dom.js";
import { contourPath, mapsOf, outline } from "./maps.js";
import { site, theAtlas } from "./site.js";
import { spark } from "./spark.js";
import { levelOf, noteOf, spritePath } from "./tiles.js";
import { labelOfUnit, named, unitOf, value } from "./units.js";

/**
 * What a card says besides the unit's name.
 * @typedef {object} CardTexts
 * @property {string} [score]
 * @property {string} [why] Why the unit is in this list; why it has its name if absent.
 * @property {string} [href]
 * @property {number} [position] Its place in a list, from 1.
 * @property {number} [of] How many that list has.
 */

// A card shows so many top images, in one picture of so many columns.
const STRIP = 6;
const ABREAST = 3;

/** @type {WeakMap<Element, { place: number, unit: number }>} */
const unitsOfCards = new WeakMap();

/**
 * @param {number} rank
 * @returns {[number, number]}
 */
const cornerOf = (rank) => [100 * (rank % ABREAST), 100 * Math.floor(rank / ABREAST)];

/**
 * The contours of a unit's top images as one drawing, which also covers the empty places.
 * @param {Float32Array[]} maps
 * @param {Documents.Layer} layer
 * @param {number} level
 */
const outlines = (maps, layer, level) => {
  const lines = maps.map((map, rank) =>
    contourPath(map, level, layer, site.input, 32, cornerOf(rank)),
  );
  const empty = Array.from({ length: STRIP - maps.length }, (_, place) => {
    const [x, y] = cornerOf(maps.length + place);
    return `M${x} ${y}h100v100h-100z`;
  });
  return outline(
    "0 0 300 200",
    lines.join(""),
    svg("path", { class: "empty", d: empty.join("") }),
    svg("path", { class: "gaps", d: "M100 0V200M200 0V200M0 100H300" }),
  );
};

/** @param {string} text */
const noteOver = (text) =>
  h("span", { class: text ? "missing" : "there" }, text && h("span", { class: "note" }, text));

/**
 * Draw a card's images, once.
 * @param {Element} element
 */
export const fill = async (element) => {
  const strip = element.querySelector(".strip");
  const shown = unitsOfCards.get(element);
  if (!strip || !shown || strip.childElementCount) return;
  const { place, unit } = shown;
  const layer = theAtlas().layers[place];
  // A unit that is never active has no top images.
  if (value(layer, "dead", unit)) return;
  try {
    const [detail, images] = await unitOf(place, unit);
    if (!element.isConnected || strip.childElementCount) return;
    const notes = detail.maximum.images.slice(0, STRIP).map((image) => noteOf(images[image]));
    if (notes.some((text) => !text)) {
      const maps = mapsOf(detail.maximum, layer).slice(0, STRIP);
      const lines = outlines(maps, layer, levelOf(layer, unit));
      strip.append(spriteOf(place, unit, strip, notes.length), lines);
    }
    if (notes.some(Boolean)) strip.append(...notes.map(noteOver));
  } catch (error) {
    strip.replaceChildren(h("span", { class: "note" }, messageOf(error)));
  }
};

/**
 * The picture of a unit's top images; where it is missing the strip says why.
 * @param {number} place
 * @param {number} unit
 * @param {Element} strip
 * @param {number} count
 */
const spriteOf = (place, unit, strip, count) => {
  const src = spritePath(place, unit);
  const picture = h("img", { src, alt: "", decoding: "async" });
  picture.onerror = async () => {
    const reason = await reasonOf(src);
    strip.replaceChildren(...Array.from({ length: count }, () => noteOver(reason)));
  };
  return picture;
};

/**
 * The card of a unit of the layer at a place. Its images are drawn by `fill`.
 * @param {number} place
 * @param {number} unit
 * @param {CardTexts} texts
 */
export const card = (place, unit, texts) => {
  const layer = theAtlas().layers[place];
  const who = named(layer, unit);
  const threshold = who.kind === "dead" ? 0 : value(layer, "threshold", unit);
  const element = h(
    "li",
    {
      class: `card ${who.kind}`,
      "aria-posinset": texts.position,
      "aria-setsize": texts.of,
    },
    h(
      "a",
      { href: texts.href || address(["unit", layer.name, unit]) },
      h(
        "span",
        { class: "card-head" },
        who.name || !layer.names ? h("span", { class: "unit" }, labelOfUnit(layer, unit)) : null,
        h("span", { class: "name" }, breakable(who.name || `head ${labelOfUnit(layer, unit)}`)),
      ),
      h(
        "span",
        { class: "card-why" },
        h("span", { class: "why" }, texts.why || who.why),
        h("span", { class: "score" }, texts.score),
      ),
      h("span", { class: "strip" }),
      spark(layer.columns.spark[unit], layer.bins.edges, threshold),
    ),
  );
  unitsOfCards.set(element, { place, unit });
  return element;
};

const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      nearWindow.unobserve(target);
      fill(target);
    }
  },
  { rootMargin: "600px 0px" },
);

/**
 * A few cards, each filled when it comes near the window, of units of layers at places.
 * @param {[place: number, unit: number, texts: CardTexts][]} rows
 */
export const cards = (rows) => {
  const elements = rows.map(([place, unit, texts]) => card(place, unit, texts));
  for (const element of elements) nearWindow.observe(element);
  return h("ol", { class: "cards", role: "list" }, elements);
};
