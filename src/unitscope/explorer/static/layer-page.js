// The units of a layer.
import { LIST, address, choose, listed, parsed } from "./addresses.js";
import { cardGrid } from "./cards.js";
import { select } from "./controls.js";
import { index } from "./data.js";
import { h } from "./dom.js";
import { count, percent } from "./numbers.js";
import { lost, page, show } from "./page.js";
import { FILTERS, SORTS, chosenUnits, className, layerAt, named, sortsOf, value } from "./units.js";

export const layerPage = ([name], query) => {
  if (name && !index.layers.some((layer) => layer.name === name)) return lost(`This atlas has no layer ${name}.`);
  const place = layerAt(name);
  const layer = index.layers[place];
  const grid = cardGrid(place);
  const status = h("p", { class: "count", role: "status" });
  const empty = h(
    "p",
    { class: "empty", hidden: true },
    "No unit is like this. ",
    h(
      "button",
      {
        type: "button",
        onclick: () => (choose(Object.fromEntries(LIST.map((one) => [one, ""])), true), page.render()),
      },
      "Show all",
    ),
  );
  const classes = [...new Set(layer.columns.best_class.filter((one) => one !== null))].sort((a, b) =>
    className(a).localeCompare(className(b)),
  );
  const categories = [...new Set((layer.columns.category || []).filter(Boolean))].sort();
  const search = h("input", {
    type: "search",
    name: "q",
    value: query.get("q") || "",
    placeholder: "name, class, number",
    autocomplete: "off",
    spellcheck: "false",
    oninput: (event) => (choose({ q: event.target.value.trim() }, false), page.refresh()),
  });
  const controls = h(
    "form",
    { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
    h("label", { class: "search" }, h("span", {}, "Search"), search),
    select(
      "Sort by",
      "sort",
      query.get("sort"),
      sortsOf(layer).map((one) => [one === "unit" ? "" : one, SORTS[one][0]]),
    ),
    select("Show", "show", query.get("show"), [
      ["", "all units"],
      ...Object.entries(FILTERS)
        .filter(([, filter]) => filter[2](layer))
        .map(([one, filter]) => [one, filter[0]]),
    ]),
    classes.length > 0 &&
      select("Answers most to", "class", query.get("class"), [
        ["", "any class"],
        ...classes.map((one) => [String(one), className(one)]),
      ]),
    categories.length > 1 &&
      select("Category", "category", query.get("category"), [["", "any"], ...categories.map((one) => [one, one])]),
  );
  const refresh = () => {
    const now = parsed().query;
    const units = chosenUnits(layer, now);
    const sort = layer.columns[now.get("sort")] && SORTS[now.get("sort")][1] ? now.get("sort") : "maximum";
    const kept = listed(now);
    grid.show(units, (unit) => {
      // What is sorted by is not told twice.
      const { kind, why } = named(layer, unit);
      const twice = (kind === "concept" && sort === "iou") || (kind === "class" && sort === "selectivity");
      return {
        why: twice ? kind : why,
        score: SORTS[sort][1](value(layer, sort, unit)),
        href: address(["unit", layer.name, unit], kept),
      };
    });
    status.textContent =
      units.length === layer.units ? count(layer.units, "unit") : `${units.length} of ${count(layer.units, "unit")}`;
    empty.hidden = units.length > 0;
  };
  show(
    `Units of ${layer.name}`,
    `layer ${layer.name}`,
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, `Units of ${layer.name}`), status),
    h(
      "p",
      { class: "intro" },
      `Each card: the images on which the unit is most active over ${count(index.images, "image")}, as the network saw them; `,
      h("span", { class: "key line" }),
      " encloses where the activation is at or above the unit’s own threshold (",
      percent(index.quantile),
      " of all cells, or less, are). Below, how often it has which activation, on logarithmic axes that all units share; ",
      h("span", { class: "key above" }),
      " above the threshold.",
    ),
    controls,
    grid.list,
    empty,
  );
  page.refresh = refresh;
  page.leave = grid.leave;
  page.keys = { j: () => grid.step(1), k: () => grid.step(-1) };
  // Once it is in the page, as only then it is known how many cards stand side by side.
  refresh();
};
