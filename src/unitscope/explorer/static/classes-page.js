// The classes as a table.
import { address } from "./addresses.js";
import { bar } from "./charts.js";
import { index } from "./data.js";
import { breakable, cell, h, link, rowHead } from "./dom.js";
import { INTERVAL, count, interval, percent } from "./numbers.js";
import { show } from "./page.js";
import { layerAt, value } from "./units.js";

const CLASS_SORTS = {
  name: ["class", 1],
  images: ["images", -1],
  accuracy: ["accuracy", -1],
  predicted: ["predicted", -1],
  units: ["units", -1],
};
export const classesPage = (_, query) => {
  const { classes } = index;
  const head = index.layers[layerAt("")];
  const units = new Array(classes.name.length).fill(0);
  for (let unit = 0; unit < head.units; unit++)
    if (!value(head, "dead", unit) && value(head, "best_class", unit) !== null)
      units[value(head, "best_class", unit)]++;
  const columns = { ...classes, units };
  const asked = CLASS_SORTS[query.get("sort")] ? query.get("sort") : "name";
  const sign = CLASS_SORTS[asked][1] * (query.get("order") === "reverse" ? -1 : 1);
  const rows = classes.name
    .map((_, one) => one)
    .sort((a, b) => {
      const [first, second] = [columns[asked][a], columns[asked][b]];
      if (first === null || second === null) return (first === null) - (second === null);
      return sign * (asked === "name" ? first.localeCompare(second) : first - second) || a - b;
    });
  const sorter = (name, text, kind) => {
    const here = name === asked;
    const reverse = here && query.get("order") !== "reverse";
    const href = address(["classes"], new URLSearchParams({ sort: name, ...(reverse ? { order: "reverse" } : {}) }));
    return h(
      "th",
      { scope: "col", class: kind || false, "aria-sort": here ? (sign > 0 ? "ascending" : "descending") : false },
      link(href, text, here ? (sign > 0 ? " ↑" : " ↓") : ""),
    );
  };
  show(
    "Classes",
    "classes",
    h(
      "div",
      { class: "title" },
      h("h1", { tabindex: "-1" }, "Classes"),
      h("p", { class: "count" }, count(rows.length, "class")),
    ),
    h(
      "p",
      { class: "intro" },
      index.given
        ? `Accuracy: the share of a class’s own images that the model takes for it, with its 95% interval (Wilson). Units: how many of ${head.name} answer most to it.`
        : `The data set has no labels: classes are what the model says, so that there is no accuracy. Units: how many of ${head.name} answer most to a class.`,
    ),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Classes" },
      h(
        "table",
        { class: "classes" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            sorter("name", "class"),
            sorter("images", "images", "n"),
            sorter("predicted", "predicted", "n"),
            sorter("units", "units", "n"),
            sorter("accuracy", "accuracy", "n"),
            h("th", { scope: "col", class: "n wide" }, INTERVAL),
            h("th", { class: "bars", "aria-hidden": "true" }),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((one) =>
            h(
              "tr",
              {},
              rowHead(link(address(["class", one]), breakable(classes.name[one]))),
              cell(String(classes.images[one]), "n"),
              cell(classes.predicted[one] === null ? "–" : String(classes.predicted[one]), "n"),
              cell(String(units[one]), "n"),
              cell(percent(classes.accuracy[one]), "n"),
              cell(interval(classes.accuracy_low[one], classes.accuracy_high[one], percent), "n wide"),
              cell(bar(classes.accuracy[one], classes.accuracy_low[one], classes.accuracy_high[one], 0, 1), "bars"),
            ),
          ),
        ),
      ),
    ),
  );
};
