// One unit.
import { address, choose, listed, parsed } from "./addresses.js";
import { cards } from "./cards.js";
import { bar, histogram } from "./charts.js";
import { radios } from "./controls.js";
import { index, load, site } from "./data.js";
import { breakable, cell, h, link, rowHead, table } from "./dom.js";
import { colourBar, contour, heat, mapsOf } from "./maps.js";
import { INTERVAL, count, interval, like, number, percent, points } from "./numbers.js";
import { lost, page, show } from "./page.js";
import { levelOf, tile, told } from "./tiles.js";
import { chosenUnits, className, layerAt, named, neighboursOf, numbered, unitOf, value } from "./units.js";

const stat = (label, shown, note) =>
  h("div", {}, h("dt", {}, label), h("dd", {}, shown, note ? h("small", {}, note) : null));

const earned = (layer, unit, detail) => {
  const get = (name) => value(layer, name, unit);
  const who = named(layer, unit);
  if (who.kind === "dead") return ["It never fires: on none of the images any cell is above 0."];
  const best = detail.classes[0];
  const answers = () => {
    const mean = like(Math.abs(best[2]));
    return [
      "It answers most to ",
      link(address(["class", best[0]]), className(best[0])),
      `: on average ${mean(best[2])} on ${count(best[1], "image")} of it${best[3] === null ? "" : ` (${INTERVAL} ${interval(best[3], best[4], mean)})`}, over all images ${mean(get("mean"))}.`,
    ];
  };
  if (who.kind === "concept") {
    const p = get("p_value");
    return [
      "Named by a concept: where it is at or above its threshold overlaps masks of ",
      h("strong", {}, who.name),
      ` with an IoU of ${number(get("iou"))} (${INTERVAL} ${interval(get("iou_low"), get("iou_high"))}`,
      p === null ? "). " : `; permutation p = ${number(p, 3)}, for the best of all concepts). `,
      ...(best ? answers() : []),
    ];
  }
  const tried = get("concept_name");
  const why = tried ? `No concept is met well enough to name it (best: ${tried}, IoU ${number(get("iou"))}). ` : "";
  return [who.kind === "class" ? `${why}Named by its class. ` : why, ...(best ? answers() : [])];
};

const DRAWINGS = [
  ["", "contour"],
  ["heat", "heat"],
  ["plain", "photo only"],
];
const gallery = (layer, unit, part, images, drawing, overlay, caption) => {
  const maps = mapsOf(part, layer);
  return h(
    "ol",
    { class: `gallery ${drawing || "contour"}` },
    part.images.map((image, rank) => {
      const row = images[image];
      const alt = `${told(row) || "image"}, ${row[0]}: activation ${number(part.scores[rank])}`;
      return h("li", {}, tile(image, row, overlay(maps[rank]), alt), h("p", {}, caption(rank, row, image)));
    }),
  );
};
const labelled = (row) => {
  if (row[1] === null) return h("span", { class: "label" }, site.labels[row[2]]);
  return h("a", { class: "label", href: address(["class", row[1]]) }, breakable(className(row[1])));
};

const answersTo = (layer, unit, detail) => {
  const rows = detail.classes;
  const high = Math.max(...rows.map((row) => row[4] ?? row[2] ?? 0), 0);
  const low = Math.min(...rows.map((row) => row[3] ?? row[2] ?? 0), 0);
  const mean = like(Math.max(...rows.map((row) => Math.abs(row[2] ?? 0)), 0));
  return [
    h("h2", {}, index.given ? "Classes it answers to most" : "Predicted classes it answers to most"),
    table(
      `Mean activation over the images of a class, with ${INTERVAL}; over all images ${mean(value(layer, "mean", unit))}`,
      [["class"], ["images", "n"], ["mean", "n"], ["interval", "n wide"], ["", "bars"]],
      rows.map(([one, images, shown, from, to]) =>
        h(
          "tr",
          {},
          rowHead(link(address(["class", one]), breakable(className(one)))),
          cell(String(images), "n"),
          cell(mean(shown), "n"),
          cell(interval(from, to, mean), "n wide"),
          cell(bar(shown, from, to, low, high), "bars"),
        ),
      ),
    ),
  ];
};

const concepts = (detail) => {
  if (!detail.concepts || !detail.concepts.length) return null;
  const high = Math.max(...detail.concepts.map((row) => row[4] ?? row[2] ?? 0), 0.05);
  return h(
    "section",
    {},
    h("h2", {}, "Concepts it meets best"),
    table(
      `IoU of its active regions with masks of the concept, with ${INTERVAL}; chance: the most with masks of other images`,
      [["concept"], ["category", "wide"], ["IoU", "n"], ["interval", "n wide"], ["chance", "n"], ["", "bars"]],
      detail.concepts.map(([name, category, iou, from, to, , chance]) =>
        h(
          "tr",
          {},
          rowHead(breakable(name)),
          cell(category || "", "wide"),
          cell(number(iou, 3), "n"),
          cell(
            interval(from, to, (one) => one.toFixed(3)),
            "n wide",
          ),
          cell(number(chance, 3), "n"),
          cell(bar(iou, from, to, 0, high), "bars"),
        ),
      ),
    ),
  );
};

const ablationOf = (layer, unit, detail) => {
  const change = value(layer, "accuracy_change", unit);
  if (change === null && !detail.hurt) return null;
  const side = (title, rows, none) => {
    if (!rows.length) return h("div", {}, h("h3", {}, title), h("p", { class: "soft" }, none));
    const ends = rows.flatMap((row) => [-row[1], -row[2], -row[3]]).filter((one) => Number.isFinite(one));
    const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    return h(
      "div",
      {},
      h("h3", {}, title),
      table(
        `Balanced accuracy of the class with the unit off, and the change in percentage points with its ${INTERVAL}`,
        [["class"], ["with it off", "n"], ["change", "n"], ["interval", "n wide"], ["", "bars"]],
        rows.map(([one, importance, from, to, left]) =>
          h(
            "tr",
            {},
            rowHead(link(address(["class", one]), breakable(className(one)))),
            cell(percent(left), "n"),
            cell(number(-100 * importance, 2, true), "n"),
            cell(to === null ? "" : interval(-100 * to, -100 * from, (one) => number(one, 2, true)), "n wide"),
            cell(bar(-importance, to === null ? null : -to, from === null ? null : -from, low, high), "bars"),
          ),
        ),
      ),
    );
  };
  const accuracy = value(layer, "accuracy", unit);
  return h(
    "section",
    {},
    h("h2", {}, "What switching it off costs"),
    change === null
      ? null
      : h(
          "p",
          {},
          index.againstItself
            ? `The data set has no labels: accuracy is how many images keep the prediction of the whole network. `
            : "",
          `With this unit off, ${percent(accuracy)} of the images are read rightly (${INTERVAL} ${interval(value(layer, "accuracy_low", unit), value(layer, "accuracy_high", unit), percent)}); with it on, ${percent(accuracy - change)}: `,
          h("strong", {}, points(change)),
          ".",
        ),
    detail.hurt
      ? h(
          "div",
          { class: "pair" },
          side("Classes that lose most", detail.hurt, "No class loses."),
          side("Classes that gain most", detail.helped, "No class gains."),
        )
      : null,
  );
};

// The share of cells at or above an activation: known at the edges of the histogram's bins, at the unit's own threshold
// and at its maximum; between them along a straight line on its logarithmic axes.
const shareAbove = (layer, unit, detail) => {
  const { edges } = layer.bins;
  const known = [];
  let above = 0;
  for (let bin = edges.length - 2; bin >= 0; bin--) {
    above += detail.histogram[bin];
    if (above > 0) known.unshift([edges[bin], above]);
  }
  const [threshold, reached] = [value(layer, "threshold", unit), value(layer, "share_above", unit)];
  if (threshold > 0 && reached > 0) known.push([threshold, reached]);
  // At the maximum there is at least one cell of all.
  known.push([value(layer, "maximum", unit), layer.bins.floor]);
  known.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
  return (activation) => {
    const next = known.findIndex(([edge]) => edge >= activation);
    if (next < 0) return 0;
    const [edge, share] = known[next];
    if (next === 0 || edge === activation) return share;
    const [last, before] = known[next - 1];
    const part = Math.log(activation / last) / Math.log(edge / last);
    return Math.min(before, before * (Math.min(share, before) / before) ** part);
  };
};

// A slider from the lowest bin that the unit reaches to its maximum, each step the same part of a doubling.
const NOTCHES = 400;
const thresholdSlider = (layer, unit, detail, changed) => {
  const highest = value(layer, "maximum", unit);
  const own = levelOf(layer, unit);
  const first = detail.histogram.findIndex((share) => share > 0);
  const lowest = Math.min(layer.bins.edges[Math.max(0, first)], own > 0 ? own : Infinity, highest / 2);
  const activation = like(highest);
  const shares = shareAbove(layer, unit, detail);
  const at = (step) => lowest * (highest / lowest) ** (step / NOTCHES);
  const stepOf = (level) => Math.round((NOTCHES * Math.log(level / lowest)) / Math.log(highest / lowest));
  // While it is moved the address waits: browsers allow few of them in a second.
  let moved = null;
  let waiting = 0;
  const input = h("input", {
    type: "range",
    id: "threshold",
    min: 0,
    max: NOTCHES,
    step: 1,
    oninput: () => {
      moved = Number(at(Number(input.value)).toPrecision(4));
      clearTimeout(waiting);
      waiting = setTimeout(() => choose({ at: moved }, false), 150);
      changed();
    },
  });
  const said = h("output", { for: "threshold" });
  const reset = h(
    "button",
    {
      type: "button",
      onclick: () => {
        clearTimeout(waiting);
        moved = null;
        choose({ at: "" }, true);
        changed();
        // The button is gone by now.
        input.focus();
      },
    },
    "Reset to its own",
  );
  // The threshold of the address; the unit's own where there is none.
  const chosen = () => {
    const asked = moved ?? Number(parsed().query.get("at"));
    return asked > 0 && asked <= 10 * highest ? asked : own;
  };
  return {
    element: h("div", { class: "threshold-slider" }, h("label", { for: "threshold" }, "Threshold"), input, said, reset),
    chosen,
    leave: () => clearTimeout(waiting),
    refresh: () => {
      const level = chosen();
      const exact = level === own;
      const share = exact ? value(layer, "share_above", unit) : shares(level);
      input.value = level > 0 ? Math.min(NOTCHES, Math.max(0, stepOf(level))) : 0;
      const text = Number.isFinite(level)
        ? `${activation(level)}, which ${exact ? "" : "about "}${percent(share, 2)} of all cells reach`
        : "all cells reach its own, 0";
      said.replaceChildren(text);
      input.setAttribute("aria-valuetext", text);
      reset.hidden = exact;
    },
  };
};

const ALIKE = {
  images: (images) => `of its mean activation with theirs, over all ${count(images, "image")}`,
  classes: (classes) =>
    `of its mean activations on ${count(classes, "class")} with theirs, as it was not kept for every image of this layer`,
  sample: (images) =>
    `of its mean activation with theirs, over ${count(images, "image")} drawn at random, as it was not kept for every image of this layer`,
};
// Filled when what is told of neighbours came: it is computed when it is first asked for.
const neighbours = (place, unit, kept) => {
  const section = h("section", { class: "neighbours" }, h("h2", {}, "Units that respond most alike"));
  const fill = async () => {
    const waiting = h("p", { class: "soft" }, "Comparing it with all units of the layer …");
    section.append(waiting);
    try {
      const { of, count: compared, rows } = await neighboursOf(place, unit);
      if (!rows.length) return section.remove();
      waiting.replaceChildren(
        `By the correlation ${ALIKE[of](compared)}. Alike over this data set: they need not look for the same thing.`,
      );
      const layer = index.layers[place];
      section.append(
        cards(
          rows.map(([other, correlation]) => [
            place,
            other,
            { score: `r = ${number(correlation)}`, href: address(["unit", layer.name, other], kept) },
          ]),
        ),
      );
    } catch (error) {
      waiting.replaceChildren(error.message);
    }
  };
  return { section, fill };
};

// A link to the filters of the layer, where the network has some there.
const filtersLink = async (layer, crumb) => {
  if (!site.model) return;
  const { filters } = await load("network").catch(() => ({ filters: [] }));
  if (filters.includes(layer.name))
    crumb.append(" · ", link(address(["filters", layer.name]), "filters of this layer"));
};

export const unitPage = async ([name, which], query) => {
  if (!index.layers.some((layer) => layer.name === name)) return lost(`This atlas has no layer ${name || ""}.`);
  const place = layerAt(name);
  const layer = index.layers[place];
  const unit = numbered(which);
  if (!(unit >= 0 && unit < layer.units))
    return lost(`Layer ${layer.name} has no unit ${which || ""}: they are numbered 0 to ${layer.units - 1}.`);
  const here = location.hash;
  const [detail, images] = await unitOf(place, unit);
  // Whoever went on meanwhile is not fetched back.
  if (here !== location.hash) return;
  const get = (column) => value(layer, column, unit);
  const who = named(layer, unit);
  const activation = like(get("maximum"));
  // Of a unit that never fires there are no top images, no threshold and no histogram to speak of.
  const silent = get("dead");
  const kept = listed(query);
  const order = chosenUnits(layer, kept);
  const at = order.indexOf(unit);
  const [previous, next] = at < 0 ? [unit - 1, unit + 1] : [order[at - 1], order[at + 1]];
  const step = (to, text, rel) => {
    const there = to !== undefined && to >= 0 && to < layer.units;
    // What is drawn, and by which criterion, stays when one goes through the units.
    const choices = new URLSearchParams(kept);
    for (const one of ["by", "draw"]) if (parsed().query.get(one)) choices.set(one, parsed().query.get(one));
    return there
      ? h("a", { href: address(["unit", layer.name, to], choices), rel }, text)
      : h("span", { class: "soft" }, text);
  };
  const steps = h("p", { class: "steps" });
  const galleries = h("div", {});
  const legend = h("div", { class: "legend" });
  const slider = silent ? null : thresholdSlider(layer, unit, detail, () => outline());
  // Where contours are drawn, each with its map: another threshold moves the lines and nothing else.
  let outlined = [];
  const overlay = (drawing) => (map) => {
    if (drawing === "plain") return null;
    if (drawing === "heat") return heat(map, get("maximum"), layer, site.input, site.colours.heat);
    const drawn = contour(map, slider.chosen(), layer, site.input);
    outlined.push([drawn, map]);
    return drawn;
  };
  const chart = h("div", {});
  const outline = () => {
    slider.refresh();
    const level = slider.chosen();
    outlined = outlined.map(([drawn, map]) => {
      const next = contour(map, level, layer, site.input);
      drawn.replaceWith(next);
      return [next, map];
    });
    const written = activation(Number.isFinite(level) ? level : 0);
    const label = `Histogram of the unit’s activations over all cells of all images; threshold ${written}`;
    chart.replaceChildren(histogram(detail.histogram, layer.bins.edges, layer.bins.floor, level, written, label));
  };
  const redraw = () => {
    const now = parsed().query;
    const part = now.get("by") === "mean" ? detail.mean : detail.maximum;
    const drawing = silent ? "plain" : now.get("draw") || "";
    steps.replaceChildren(step(previous, "← previous", "prev"), step(next, "next →", "next"));
    legend.replaceChildren(
      ...(drawing === "heat"
        ? [
            colourBar(get("maximum"), site.colours.heat),
            h(
              "p",
              {},
              `Activation, from 0 to the unit’s maximum over the data set; one scale for all pictures of this page.${layer.signed ? " Negative activations are not drawn." : ""}`,
            ),
          ]
        : drawing === "plain"
          ? [h("p", {}, "The photos as the network saw them.")]
          : [
              h("p", {}, h("span", { class: "key line" }), " encloses activations at or above the threshold."),
              slider.element,
            ]),
      ...(layer.factor > 1
        ? [h("p", {}, `Of every ${layer.factor} × ${layer.factor} cells of the map the largest is drawn.`)]
        : []),
    );
    outlined = [];
    galleries.replaceChildren(
      silent
        ? ""
        : h(
            "section",
            {},
            h("h2", {}, now.get("by") === "mean" ? "Images with the highest mean" : "Images with the highest maximum"),
            gallery(layer, unit, part, images, drawing, overlay(drawing), (rank, row) => [
              h("strong", {}, activation(part.scores[rank])),
              " ",
              labelled(row),
            ]),
          ),
      !detail.range.images.length
        ? ""
        : h(
            "section",
            {},
            h("h2", {}, "Across its range"),
            h(
              "p",
              { class: "soft" },
              `${detail.range.images.length} of ${count(detail.range.of, "image")} that were drawn at random, from the lowest maximum to the highest: what it does on ordinary images.`,
            ),
            gallery(layer, unit, detail.range, images, drawing, overlay(drawing), (rank, row) => [
              h("strong", {}, activation(detail.range.scores[rank])),
              " ",
              labelled(row),
            ]),
          ),
    );
    if (!silent) outline();
  };
  redraw();
  const alike = silent ? null : neighbours(place, unit, kept);
  const crumb = h(
    "p",
    {},
    link(address(["layer", layer.name], kept), `Units of ${layer.name}`),
    at >= 0 && kept.size ? ` · ${at + 1} of ${order.length} in this list` : "",
  );
  const change = get("accuracy_change");
  show(
    `Unit ${unit} of ${layer.name}`,
    `layer ${layer.name}`,
    h("div", { class: "crumbs" }, crumb, steps),
    h("h1", { tabindex: "-1" }, h("span", { class: "unit" }, `Unit ${unit}`), " ", breakable(who.name)),
    h("p", { class: "lead" }, earned(layer, unit, detail)),
    h(
      "dl",
      { class: "stats" },
      stat("maximum", activation(get("maximum"))),
      stat("mean", like(Math.abs(get("mean")))(get("mean"))),
      silent
        ? null
        : stat("threshold", activation(get("threshold")), `${percent(get("share_above"), 2)} of cells above`),
      stat("above 0", percent(get("share_positive")), "of all cells"),
      silent
        ? null
        : stat(
            "class selectivity",
            number(get("selectivity")),
            interval(get("selectivity_low"), get("selectivity_high")),
          ),
      get("iou") === null ? null : stat("best IoU", number(get("iou"), 3), get("concept_name")),
      change === null ? null : stat("accuracy, switched off", points(change)),
    ),
    silent
      ? null
      : h(
          "form",
          { class: "controls", onsubmit: (event) => event.preventDefault() },
          radios(
            "Top images by",
            "by",
            query.get("by") || "",
            [
              ["", "maximum"],
              ["mean", "mean"],
            ],
            redraw,
          ),
          radios("Draw", "draw", query.get("draw") || "", DRAWINGS, redraw),
        ),
    silent ? null : legend,
    galleries,
    silent
      ? null
      : h(
          "section",
          { class: "pair" },
          h(
            "div",
            {},
            h("h2", {}, "How often it has which activation"),
            chart,
            h(
              "p",
              { class: "soft" },
              `${percent(detail.zero)} of cells are 0${layer.signed ? `, ${percent(Math.max(0, 1 - detail.zero - get("share_positive")))} are below` : ""}; ${percent(get("share_above"), 2)} are at or above its own threshold.${detail.less > 0 ? ` Left of the axis: ${percent(detail.less, 2)}.` : ""} Both axes are logarithmic, the same for all units of the layer; a bar is a third of a doubling wide.`,
            ),
          ),
          h("div", {}, answersTo(layer, unit, detail)),
        ),
    silent ? null : concepts(detail),
    ablationOf(layer, unit, detail),
    alike && alike.section,
  );
  if (slider) page.leave = slider.leave;
  if (alike) alike.fill();
  filtersLink(layer, crumb);
};
