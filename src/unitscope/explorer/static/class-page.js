// One class.
import { address } from "./addresses.js";
import { cards } from "./cards.js";
import { curves } from "./charts.js";
import { index, site } from "./data.js";
import { breakable, cell, h, link, rowHead, table } from "./dom.js";
import { INTERVAL, count, interval, number, percent, points } from "./numbers.js";
import { lost, show } from "./page.js";
import { tile, told } from "./tiles.js";
import { className, classOf, layerAt, numbered } from "./units.js";

const SERIES = {
  "most important": "most important first",
  random: "in random order",
  "least important": "least important first",
};
const removals = (rows) => {
  const of = (removed) =>
    rows.filter((row) => row[0] === removed).map(([, units, shown, low, high]) => ({ units, value: shown, low, high }));
  const none = of("none");
  const series = Object.entries(SERIES)
    .map(([removed, name]) => ({ name, rows: [...none, ...of(removed)].sort((a, b) => a.units - b.units) }))
    .filter((one) => one.rows.length > none.length);
  const sizes = [...new Set(series.flatMap((one) => one.rows.map((row) => row.units)))].sort((a, b) => a - b);
  const at = (one, units) => one.rows.find((row) => row.units === units);
  const shown = (row) => (row ? [percent(row.value), h("small", {}, interval(row.low, row.high, percent))] : "–");
  return h(
    "section",
    {},
    h("h2", {}, "Switching off many units"),
    h(
      "p",
      { class: "soft" },
      "Units are ranked by their importance for the class on one half of the images, and switched off on the other. Balanced accuracy: half of how many images of the class are found, half of how many others are left out; guessing gives 50%. Bands and small print are 95% intervals.",
    ),
    h(
      "p",
      { class: "keys" },
      series.map((one, place) => h("span", {}, h("span", { class: `key s${place}` }), ` ${one.name}`)),
    ),
    h(
      "div",
      { class: "pair" },
      curves(
        series,
        "Balanced accuracy of the class as more units are switched off; the numbers are in the table beside it",
      ),
      table(
        "Balanced accuracy of the class",
        [["units off"], ...series.map((one) => [one.name, "n"])],
        sizes.map((units) =>
          h(
            "tr",
            {},
            rowHead(String(units)),
            series.map((one) => cell(shown(at(one, units)), "n")),
          ),
        ),
      ),
    ),
  );
};

export const classPage = async ([which]) => {
  const { classes } = index;
  const one = numbered(which);
  if (!(one >= 0 && one < classes.name.length))
    return lost(`There is no class ${which || ""}: they are numbered 0 to ${classes.name.length - 1}.`);
  const here = location.hash;
  const [detail, images] = await classOf(one);
  // Whoever went on meanwhile is not fetched back.
  if (here !== location.hash) return;
  const pictures = (title, shown, note, caption) =>
    shown.length
      ? h(
          "section",
          {},
          h("h2", {}, title),
          h("p", { class: "soft" }, note),
          h(
            "ol",
            { class: "gallery plain" },
            shown.map((image) =>
              h(
                "li",
                {},
                tile(image, images[image], null, `${images[image][0]}, taken for ${site.labels[images[image][2]]}`),
                h("p", {}, caption(images[image])),
              ),
            ),
          ),
        )
      : null;
  const accuracy = classes.accuracy[one];
  const step = (to, text, rel) =>
    to >= 0 && to < classes.name.length
      ? h("a", { href: address(["class", to]), rel }, text)
      : h("span", { class: "soft" }, text);
  const head = layerAt("");
  const important = detail.important || [];
  const groups = important.length
    ? [
        h(
          "section",
          {},
          h("h2", {}, "Units it needs most"),
          h(
            "p",
            { class: "soft" },
            `Units of ${index.layers[head].name} by what the class’s balanced accuracy loses when the unit alone is off, in percentage points. An interval that includes 0 cannot be told from no effect.`,
          ),
          cards(
            important.map(([unit, importance, from, to]) => [
              head,
              unit,
              {
                score: points(-importance),
                why:
                  to === null ? "" : `${INTERVAL} ${interval(-100 * to, -100 * from, (end) => number(end, 1, true))}`,
              },
            ]),
          ),
        ),
      ]
    : index.layers.map((layer, place) => {
        const rows = detail.answering.filter((row) => row[0] === place);
        return rows.length
          ? h(
              "section",
              {},
              h("h2", {}, `Units of ${layer.name} that answer most to it`),
              h(
                "p",
                { class: "soft" },
                "Of the units that have it among the classes they answer to most, those whose mean on its images is the largest multiple of their mean over all images.",
              ),
              cards(rows.map(([, unit, times]) => [place, unit, { score: `${number(times, 1)} × its mean` }])),
            )
          : null;
      });
  show(
    className(one),
    "classes",
    h(
      "div",
      { class: "crumbs" },
      h("p", {}, link(address(["classes"]), "Classes")),
      h("p", { class: "steps" }, step(one - 1, "← previous", "prev"), step(one + 1, "next →", "next")),
    ),
    h("h1", { tabindex: "-1" }, h("span", { class: "unit" }, `Class ${one}`), " ", breakable(className(one))),
    h(
      "p",
      { class: "lead" },
      !index.given
        ? `The model takes ${count(classes.images[one], "image")} for it; the data set has no labels of its own.`
        : accuracy === null
          ? `${count(classes.images[one], "image")}; the model has no such class, or there is none of its images, so that its accuracy is not known.`
          : [
              "The model finds ",
              h("strong", {}, `${classes.found[one]} of ${count(classes.judged[one], "image")}`),
              `, ${percent(accuracy)} (${INTERVAL} ${interval(classes.accuracy_low[one], classes.accuracy_high[one], percent)}), and takes ${count(classes.predicted[one], "image")} in all for it.`,
            ],
    ),
    pictures(
      index.given && accuracy !== null ? "Found, the surest first" : "Its images",
      detail.found,
      "With the probability that the model gives its prediction.",
      (row) => [h("strong", {}, percent(row[3])), accuracy === null && index.given ? ` ${site.labels[row[2]]}` : ""],
    ),
    pictures(
      "Missed, the surest first",
      detail.missed,
      "What the model takes them for instead, and with which probability.",
      (row) => [h("strong", {}, percent(row[3])), " ", h("span", { class: "label" }, breakable(site.labels[row[2]]))],
    ),
    groups,
    detail.removals ? removals(detail.removals) : null,
  );
};
