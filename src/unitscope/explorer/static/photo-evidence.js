// What a marked region of the photo adds to each class.
import { breakable, h } from "./dom.js";
import { count, number } from "./numbers.js";

// Rows are [label, of the region, of the rest, of both].
export const evidenceTable = (rows, marked, cells, exact, clear) => [
  h("h2", {}, "Evidence from the region"),
  h(
    "div",
    { class: "scroll" },
    h(
      "table",
      {},
      h(
        "caption",
        {},
        `${marked} of ${count(cells, "cell")}, in logits`,
        exact ? "; with their shares of the bias, regions add up to the logit" : ", as gradient × activation tells them",
      ),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "class"),
          ["region", "rest", exact ? "logit" : "both"].map((name) => h("th", { scope: "col", class: "n" }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map(([label, ...values]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, breakable(label)),
            values.map((value) => h("td", { class: "n" }, number(value, 2, true))),
          ),
        ),
      ),
    ),
  ),
  h("button", { type: "button", onclick: clear }, "Clear the region"),
];
