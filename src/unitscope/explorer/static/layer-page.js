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
} from "./units.js";
/** @import { Choice } from "./controls.js" */
/** @import { CardTexts } from "./card.js" */

/** @param {Documents.Layer} layer */
const sortChoices = (layer) =>
  /** @type {Choice[]} */ ([
    ["", "unit number"],
    ...sortsOf(layer).map((name) => [name, SORTS[name].text]),
  ]);

/** @param {Documents.Layer} layer */
const filterChoices = (layer) =>
  /** @type {Choice[]} */ ([
    ["", "all units"],
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

const intro = () => {
  const { images, quantile } = theAtlas();
  return h(
    "p",
    { class: "intro" },
    "Each card shows the images on which the unit is most active over " +
      `${count(images, "image")}, as the network saw them. `,
    h("span", { class: "key line" }),
    " encloses activations at or above the unit’s own threshold, which at most " +
      `${percent(quantile)} of all cells reach. Below is the histogram of its activations, on ` +
      "logarithmic axes that all units share; ",
    h("span", { class: "key above" }),
    " is above the threshold.",
  );
};

const noUnits = () => {
  const all = h("button", { type: "button" }, "Show all");
  all.addEventListener("click", () => {
    choose(Object.fromEntries(LIST.map((name) => [name, ""])), true);
    page.render();
  });
  return h("p", { class: "empty", hidden: true }, "No unit matches. ", all);
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
  const empty = noUnits();
  const all = count(layer.units, "unit");
  const refresh = () => {
    const now = parsed().query;
    const units = chosenUnits(layer, now);
    grid.show(units, textsOfCards(layer, now));
    status.textContent = units.length === layer.units ? all : `${units.length} of ${all}`;
    empty.hidden = units.length > 0;
  };
  show(
    `Units of ${layer.name}`,
    `layer ${layer.name}`,
    titled(`Units of ${layer.name}`, status),
    intro(),
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
