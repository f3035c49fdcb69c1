// The units of a layer.
import { LIST, address, choose, listed, parsed } from "./addresses.js";
import { CardGrid } from "./card-grid.js";
import { controlsForm, searchField, select } from "./controls.js";
import { h } from "./dom.js";
import { count, percent } from "./numbers.js";
import { lost, page, show, titled } from "./page.js";
import { theAtlas } from "./site.js";
import {
  FILTERS,
  SORTS,
  chosenUnits,
  className,
  headAt,
  layerAt,
  named,
  sortOf,
  sortsOf,
  value,
  wordsOfLayer,
} from "./units.js";
/** @import { Choice } from "./controls.js" */
/** @import { CardTexts } from "./card.js" */

/** @param {Documents.Layer} layer */
const sortChoices = (layer) =>
  /** @type {Choice[]} */ ([
    ["", layer.names ? "block" : "unit number"],
    ...sortsOf(layer).map((name) => [name, SORTS[name].text]),
  ]);

/** @param {Documents.Layer} layer */
const filterChoices = (layer) =>
  /** @type {Choice[]} */ ([
    ["", `all ${wordsOfLayer(layer).noun}s`],
    ...Object.entries(FILTERS)
      .filter(([, filter]) => filter.measured(layer))
      .map(([name, filter]) => [name, filter.text]),
  ]);

/** @param {Documents.Layer} layer */
const classChoices = (layer) => {
  const classes = [...new Set(layer.columns.best_class)].filter((index) => index !== null);
  classes.sort((a, b) => className(a).localeCompare(className(b)));
  return classes.map((index) => /** @type {Choice} */ ([String(index), className(index)]));
};

/** @param {Documents.Layer} layer */
const categoryChoices = (layer) => {
  const categories = (layer.columns.category ?? []).filter((category) => category !== null);
  return [...new Set(categories)]
    .filter(Boolean)
    .sort()
    .map((category) => /** @type {Choice} */ ([category, category]));
};

/**
 * @param {Documents.Layer} layer
 * @param {URLSearchParams} query
 */
const controls = (layer, query) => {
  const search = searchField(query.get("q"), "name, class, number", () => page.refresh());
  const classes = classChoices(layer);
  const categories = categoryChoices(layer);
  return controlsForm(
    "search",
    h("label", { class: "search" }, h("span", {}, "Search"), search),
    select("Sort by", "sort", query.get("sort"), sortChoices(layer)),
    select("Show", "show", query.get("show"), filterChoices(layer)),
    classes.length > 0 &&
      select("Responds most to", "class", query.get("class"), [["", "any class"], ...classes]),
    categories.length > 1 &&
      select("Category", "category", query.get("category"), [["", "any"], ...categories]),
  );
};

/**
 * What the cards of a layer say, by the address.
 * @param {Documents.Layer} layer
 * @param {URLSearchParams} query
 * @returns {(unit: number) => CardTexts}
 */
const textsOfCards = (layer, query) => {
  const sort = sortOf(layer, query.get("sort")) ?? "maximum";
  const choices = listed(query);
  return (unit) => {
    const { kind, why } = named(layer, unit);
    // What the list is sorted by is not repeated.
    const repeated =
      (kind === "concept" && sort === "iou") || (kind === "class" && sort === "selectivity");
    return {
      why: repeated ? kind : why,
      score: SORTS[sort].written(value(layer, sort, unit)),
      href: address(["unit", layer.name, unit], choices),
    };
  };
};

/** @param {Documents.Layer} layer */
const intro = (layer) => {
  const { images, quantile } = theAtlas();
  const share = percent(quantile);
  if (layer.names)
    return h(
      "p",
      { class: "intro" },
      "Each head is called by its block and its number there. Its card shows the images on which " +
        `it pays most attention to one patch, over ${count(images, "image")}, as the network saw ` +
        "them. Attention is that of the token that is read, as a multiple: 1 is an equal share for " +
        "every patch, with none left for other tokens. ",
      h("span", { class: "key line" }),
      ` encloses attention at or above the head’s own threshold, which at most ${share} of all ` +
        "patches get. Below is the histogram of its attention, on logarithmic axes that all heads " +
        "share; ",
      h("span", { class: "key above" }),
      " is above the threshold.",
    );
  return h(
    "p",
    { class: "intro" },
    "Each card shows the images on which the unit is most active over " +
      `${count(images, "image")}, as the network saw them. `,
    h("span", { class: "key line" }),
    " encloses activations at or above the unit’s own threshold, which at most " +
      `${share} of all cells reach. Below is the histogram of its activations, on ` +
      "logarithmic axes that all units share; ",
    h("span", { class: "key above" }),
    " is above the threshold.",
  );
};

/** @param {string} noun */
const noUnits = (noun) => {
  const all = h("button", { type: "button" }, "Show all");
  all.addEventListener("click", () => {
    choose(Object.fromEntries(LIST.map((name) => [name, ""])), true);
    page.render();
  });
  return h("p", { class: "empty", hidden: true }, `No ${noun} matches. `, all);
};

/**
 * @param {string[]} parts
 * @param {URLSearchParams} query
 */
export const layerPage = ([name], query) => {
  const place = name ? layerAt(name) : headAt();
  if (place < 0) {
    lost(`This atlas has no layer ${name}.`);
    return;
  }
  const layer = theAtlas().layers[place];
  const grid = new CardGrid(place);
  const status = h("p", { class: "count", role: "status" });
  const { noun, title } = wordsOfLayer(layer);
  const empty = noUnits(noun);
  const all = count(layer.units, noun);
  const refresh = () => {
    const now = parsed().query;
    const units = chosenUnits(layer, now);
    grid.show(units, textsOfCards(layer, now));
    status.textContent = units.length === layer.units ? all : `${units.length} of ${all}`;
    empty.hidden = units.length > 0;
  };
  show(
    title,
    `layer ${layer.name}`,
    titled(title, status),
    intro(layer),
    controls(layer, query),
    grid.list,
    empty,
  );
  page.refresh = refresh;
  page.leave = () => grid.leave();
  page.keys = { j: () => grid.step(1), k: () => grid.step(-1) };
  // Only now that the grid is in the page it is known how many cards stand side by side.
  refresh();
};
