"use strict";
// The pages of a unit atlas. Every state is an address: #/layer/NAME, #/unit/NAME/NUMBER, #/classes, #/class/NUMBER,
// #/about, each with what is chosen behind a question mark. All names are put in as text, never as markup.
const unitscopeAtlas = (() => {
  const draw = unitscopeDraw;
  const { number, percent, points, count } = draw;
  const main = document.getElementById("main");
  let index = null;

  // Elements

  const h = (tag, properties, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(
      ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
    );
    return element;
  };
  const link = (href, ...children) => h("a", { href }, ...children);
  // A label may be broken after a slash or an underscore.
  const breakable = (label) =>
    String(label)
      .split(/(?<=[/_])/)
      .flatMap((part, place) => (place ? [h("wbr"), part] : [part]));

  // Data, loaded by scripts when they are needed: pages from disk may not fetch

  const loaded = new Map();
  const add = (name, value) => {
    if (name === "index") {
      index = value;
      start();
    } else loaded.get(name).take(value);
  };
  const load = (name) => {
    if (!loaded.has(name)) {
      const entry = {};
      entry.promise = new Promise((take, fail) => {
        entry.take = take;
        const script = h("script", { src: `data/${name}.js` });
        script.onerror = () => fail(new Error(`data/${name}.js is missing: copy the whole folder of the atlas`));
        document.head.append(script);
      });
      loaded.set(name, entry);
    }
    return loaded.get(name).promise;
  };
  const unitOf = async (place, unit) => {
    const { chunk } = index.layers[place];
    const found = await load(`units-${place}-${Math.floor(unit / chunk)}`);
    return [found.units[unit % chunk], found.images];
  };
  const classOf = async (one) => {
    const found = await load(`classes-${Math.floor(one / index.classChunk)}`);
    return [found.classes[one % index.classChunk], found.images];
  };

  // Addresses

  const parsed = () => {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const parts = path.split("/").map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
    return { parts, query: new URLSearchParams(query || "") };
  };
  const address = (parts, query) => {
    const text = query ? String(query) : "";
    return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
  };
  let expected = null;
  // Another state of the page that is shown: what is chosen step by step can be gone back through, typing cannot.
  const choose = (changes, step) => {
    const { parts, query } = parsed();
    for (const [name, value] of Object.entries(changes)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const before = location.hash;
    const next = address(parts, query);
    if (step) location.hash = next;
    else location.replace(next);
    expected = location.hash === before ? null : location.hash;
  };
  // What of a page's choices goes along from the list to a unit and back.
  const LIST = ["sort", "q", "show", "class", "category"];
  const listed = (query) =>
    new URLSearchParams(LIST.filter((name) => query.get(name)).map((name) => [name, query.get(name)]));

  // Units as rows

  const layerAt = (name) => {
    const place = index.layers.findIndex((layer) => layer.name === name);
    return place >= 0
      ? place
      : Math.max(
          0,
          index.layers.findIndex((layer) => layer.head),
        );
  };
  const value = (layer, name, unit) => (layer.columns[name] ? layer.columns[name][unit] : null);
  // Activations with as many digits as tell those of this size apart: 12.59, 0.252.
  const like = (largest) => {
    const digits = largest > 0 ? Math.min(5, Math.max(2, 2 - Math.floor(Math.log10(largest)))) : 2;
    return (shown) => number(shown, digits);
  };
  const className = (one) => (one === null || one === undefined ? "" : index.classes.name[one]);
  const named = (layer, unit) => {
    if (value(layer, "dead", unit)) return { name: "never active", why: "dead: no activation above 0", kind: "dead" };
    const by = value(layer, "named_by", unit);
    const name = value(layer, "name", unit);
    if (by === "concept") return { name, why: `concept, IoU ${number(value(layer, "iou", unit))}`, kind: "concept" };
    const best = value(layer, "best_class_name", unit);
    // An atlas from before units were given names tells their classes.
    if (by === "class" || (!layer.columns.name && best)) {
      const selectivity = value(layer, "selectivity", unit);
      return {
        name: name || best,
        why: selectivity === null ? "class" : `class, selectivity ${number(selectivity)}`,
        kind: "class",
      };
    }
    return { name: "unnamed", why: best ? `answers most to ${best}` : "", kind: "none" };
  };
  const SORTS = {
    unit: ["unit number", null, null],
    maximum: ["maximum", (shown) => `max ${like(shown)(shown)}`, -1],
    selectivity: ["class selectivity", (shown) => `selectivity ${number(shown)}`, -1],
    iou: ["IoU with a concept", (shown) => `IoU ${number(shown)}`, -1],
    accuracy_change: ["accuracy lost when off", (shown) => (shown === null ? "not measured" : points(shown)), 1],
    share_positive: ["share of cells above 0", (shown) => `${percent(shown)} above 0`, -1],
  };
  const sortsOf = (layer) => Object.keys(SORTS).filter((name) => name === "unit" || layer.columns[name]);
  const textOf = (layer, unit) =>
    [unit, ...["name", "best_class_name", "concept_name", "category"].map((name) => value(layer, name, unit))]
      .filter((one) => one !== null)
      .join(" ")
      .toLowerCase();
  const FILTERS = {
    detectors: ["detectors only", (layer, unit) => value(layer, "detector", unit), (layer) => layer.columns.detector],
    concept: [
      "named by a concept",
      (layer, unit) => named(layer, unit).kind === "concept",
      (layer) => layer.columns.concept_name,
    ],
    class: ["named by a class", (layer, unit) => named(layer, unit).kind === "class", () => true],
    alive: ["not dead", (layer, unit) => !value(layer, "dead", unit), () => true],
    dead: ["dead units", (layer, unit) => value(layer, "dead", unit), () => true],
  };
  const chosenUnits = (layer, query) => {
    const words = (query.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const filter = FILTERS[query.get("show")];
    const [only, category] = [query.get("class"), query.get("category")];
    const units = [];
    for (let unit = 0; unit < layer.units; unit++) {
      if (filter && !filter[1](layer, unit)) continue;
      if (only && String(value(layer, "best_class", unit)) !== only) continue;
      if (category && value(layer, "category", unit) !== category) continue;
      const text = words.length ? textOf(layer, unit) : "";
      if (
        words.every((word) =>
          /^\d+$/.test(word)
            ? String(unit) === word || text.split(" ").slice(1).join(" ").includes(word)
            : text.includes(word),
        )
      )
        units.push(unit);
    }
    const sort = query.get("sort");
    const column = sort && sort !== "unit" && SORTS[sort] && layer.columns[sort];
    if (column) {
      const sign = SORTS[sort][2];
      const rank = (unit) => (column[unit] === null ? Infinity : sign * column[unit]);
      units.sort((a, b) => rank(a) - rank(b) || a - b);
    }
    return units;
  };

  // Tiles

  const pathOf = (image) => `images/${Math.floor(image / index.tiles.perFolder)}/${image}.${index.tiles.suffix}`;
  const told = (row) => (row[1] === null ? "" : className(row[1]));
  const tile = (image, row, overlay, alt) => {
    const frame = h("span", { class: "tile" });
    const missing = (note) => {
      frame.classList.add("missing");
      frame.append(h("span", { class: "note", title: row[0] }, note));
    };
    if (row[4] === index.tiles.drawn) {
      const picture = h("img", {
        src: pathOf(image),
        alt,
        title: row[0],
        decoding: "async",
        width: index.input[1],
        height: index.input[0],
      });
      picture.onerror = () => {
        picture.remove();
        missing("tile not found");
      };
      frame.append(picture);
    } else missing(index.tiles.states[row[4]]);
    if (overlay) frame.append(overlay);
    return frame;
  };
  // Where nothing is below 0, all places are at a threshold of 0: there is no line to be drawn.
  const levelOf = (layer, unit) => {
    const threshold = value(layer, "threshold", unit);
    return threshold > 0 || (layer.signed && threshold !== null) ? threshold : Infinity;
  };

  // Cards: shells that are filled while they are near the window

  const STRIP = 6;
  const fill = async (card) => {
    const { place, unit } = card.unit;
    const layer = index.layers[place];
    const strip = card.querySelector(".strip");
    try {
      const [detail, images] = await unitOf(place, unit);
      if (!card.near || strip.childElementCount) return;
      const maps = draw.mapsOf(detail.maximum, layer);
      const level = levelOf(layer, unit);
      // A unit that never fires has no top images to speak of.
      const shown = value(layer, "dead", unit) ? [] : detail.maximum.images.slice(0, STRIP);
      strip.append(
        ...shown.map((image, rank) =>
          tile(image, images[image], draw.contour(maps[rank], level, layer, index.input, 32), ""),
        ),
      );
    } catch (error) {
      strip.replaceChildren(h("span", { class: "note" }, error.message));
    }
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        target.near = isIntersecting;
        // A card that only flies by is not filled.
        if (isIntersecting) setTimeout(() => target.near && fill(target), 60);
        else target.querySelector(".strip").replaceChildren();
      }
    },
    { rootMargin: "600px 0px" },
  );
  const card = (place, unit, score, why) => {
    const layer = index.layers[place];
    const who = named(layer, unit);
    const element = h(
      "li",
      { class: `card ${who.kind}` },
      h(
        "a",
        { href: address(["unit", layer.name, unit]) },
        h(
          "span",
          { class: "card-head" },
          h("span", { class: "unit" }, String(unit)),
          h("span", { class: "name" }, breakable(who.name)),
        ),
        h(
          "span",
          { class: "card-why" },
          h("span", { class: "why" }, why || who.why),
          h("span", { class: "score" }, score),
        ),
        h("span", { class: "strip" }),
        draw.spark(
          layer.columns.spark[unit],
          layer.bins.edges,
          who.kind === "dead" ? 0 : value(layer, "threshold", unit),
        ),
      ),
    );
    element.unit = { place, unit };
    return element;
  };

  // Pages

  const show = (title, ...children) => {
    watcher.disconnect();
    document.title = `${title} – ${index.architecture} – unit atlas`;
    main.replaceChildren(...children.flat().filter(Boolean));
    for (const element of main.querySelectorAll(".card")) watcher.observe(element);
  };
  const places = (current) => {
    const items = [
      ...index.layers.map((layer) => [address(["layer", layer.name]), layer.name, layer.name === current]),
      [address(["classes"]), "Classes", current === null],
      [address(["about"]), "About", current === undefined],
    ];
    document
      .getElementById("places")
      .replaceChildren(
        ...items.map(([href, name, here]) => h("a", { href, "aria-current": here ? "page" : false }, name)),
      );
  };
  const option = (shown, text, chosen) => h("option", { value: shown, selected: shown === chosen }, text);
  const select = (label, name, chosen, options) =>
    h(
      "label",
      {},
      h("span", {}, label),
      h(
        "select",
        { name, onchange: (event) => (choose({ [name]: event.target.value }, true), refresh()) },
        ...options.map(([shown, text]) => option(shown, text, chosen || "")),
      ),
    );

  let refresh = () => {};
  let cards = [];
  const layerPage = (name, query) => {
    const place = layerAt(name);
    const layer = index.layers[place];
    places(layer.name);
    const shells = Array.from({ length: layer.units }, (_, unit) => card(place, unit, ""));
    const list = h("ol", { class: "cards" });
    const status = h("p", { class: "count", role: "status" });
    const empty = h(
      "p",
      { class: "empty", hidden: true },
      "No unit is like this. ",
      h(
        "button",
        { type: "button", onclick: () => (choose(Object.fromEntries(LIST.map((one) => [one, ""])), true), render()) },
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
      oninput: (event) => (choose({ q: event.target.value.trim() }, false), refresh()),
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
    refresh = () => {
      const now = parsed().query;
      const units = chosenUnits(layer, now);
      const sort = layer.columns[now.get("sort")] && SORTS[now.get("sort")][1] ? now.get("sort") : "maximum";
      const kept = listed(now);
      for (const unit of units) {
        // What is sorted by is not told twice.
        const who = named(layer, unit);
        shells[unit].querySelector(".why").textContent =
          (who.kind === "concept" && sort === "iou") || (who.kind === "class" && sort === "selectivity")
            ? who.kind
            : who.why;
        shells[unit].querySelector(".score").textContent = SORTS[sort][1](value(layer, sort, unit));
        shells[unit].firstChild.setAttribute("href", address(["unit", layer.name, unit], kept));
      }
      list.replaceChildren(...units.map((unit) => shells[unit]));
      status.textContent =
        units.length === layer.units ? count(layer.units, "unit") : `${units.length} of ${count(layer.units, "unit")}`;
      empty.hidden = units.length > 0;
      cards = units.map((unit) => shells[unit]);
    };
    refresh();
    show(
      `Units of ${layer.name}`,
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
      list,
      empty,
    );
  };

  // One unit

  const stat = (label, shown, note) =>
    h("div", {}, h("dt", {}, label), h("dd", {}, shown, note ? h("small", {}, note) : null));
  const interval = (low, high, format = number) =>
    low === null || low === undefined ? "" : `${format(low)}${low < 0 ? " to " : "–"}${format(high)}`;
  const INTERVAL = "95% interval";

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
  const gallery = (layer, unit, part, images, drawing, caption) => {
    const largest = value(layer, "maximum", unit);
    const level = levelOf(layer, unit);
    const maps = draw.mapsOf(part, layer);
    const overlay = (map) =>
      drawing === "plain"
        ? null
        : drawing === "heat"
          ? draw.heat(map, largest, layer, index.input, index.colours)
          : draw.contour(map, level, layer, index.input);
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
    if (row[1] === null) return h("span", { class: "label" }, index.labels[row[2]]);
    return h("a", { class: "label", href: address(["class", row[1]]) }, breakable(className(row[1])));
  };

  const radios = (legend, name, chosen, options, change) =>
    h(
      "fieldset",
      {},
      h("legend", {}, legend),
      ...options.map(([shown, text]) =>
        h(
          "label",
          {},
          h("input", {
            type: "radio",
            name,
            value: shown,
            checked: shown === chosen,
            onchange: () => (choose({ [name]: shown }, true), change()),
          }),
          text,
        ),
      ),
    );

  const table = (caption, heads, rows) =>
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      h(
        "table",
        {},
        h("caption", {}, caption),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            heads.map(([text, kind]) => h("th", { scope: "col", class: kind || false }, text)),
          ),
        ),
        h("tbody", {}, rows),
      ),
    );
  const cell = (shown, kind) => h("td", { class: kind || false }, shown);
  const rowHead = (shown) => h("th", { scope: "row" }, shown);

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
            cell(draw.bar(shown, from, to, low, high), "bars"),
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
            cell(draw.bar(iou, from, to, 0, high), "bars"),
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
              cell(draw.bar(-importance, to === null ? null : -to, from === null ? null : -from, low, high), "bars"),
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

  const unitPage = async (name, unit, query) => {
    const place = layerAt(name);
    const layer = index.layers[place];
    places(layer.name);
    cards = [];
    if (!(unit >= 0 && unit < layer.units))
      return lost(`Layer ${layer.name} has no unit ${unit}: they are numbered 0 to ${layer.units - 1}.`);
    const [detail, images] = await unitOf(place, unit);
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
    const redraw = () => {
      const now = parsed().query;
      const part = now.get("by") === "mean" ? detail.mean : detail.maximum;
      const drawing = silent ? "plain" : now.get("draw") || "";
      steps.replaceChildren(step(previous, "← previous", "prev"), step(next, "next →", "next"));
      legend.replaceChildren(
        ...(drawing === "heat"
          ? [
              draw.colourBar(get("maximum"), index.colours),
              h(
                "p",
                {},
                `Activation, from 0 to the unit’s maximum over the data set; one scale for all pictures of this page.${layer.signed ? " Negative activations are not drawn." : ""}`,
              ),
            ]
          : drawing === "plain"
            ? [h("p", {}, "The photos as the network saw them.")]
            : [
                h(
                  "p",
                  {},
                  h("span", { class: "key line" }),
                  ` encloses activations of at least ${activation(get("threshold"))}, which ${percent(get("share_above"), 2)} of all cells reach.`,
                ),
              ]),
        ...(layer.factor > 1
          ? [h("p", {}, `Of every ${layer.factor} × ${layer.factor} cells of the map the largest is drawn.`)]
          : []),
      );
      galleries.replaceChildren(
        silent
          ? ""
          : h(
              "section",
              {},
              h(
                "h2",
                {},
                now.get("by") === "mean" ? "Images with the highest mean" : "Images with the highest maximum",
              ),
              gallery(layer, unit, part, images, drawing, (rank, row) => [
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
              gallery(layer, unit, detail.range, images, drawing, (rank, row) => [
                h("strong", {}, activation(detail.range.scores[rank])),
                " ",
                labelled(row),
              ]),
            ),
      );
    };
    redraw();
    const change = get("accuracy_change");
    show(
      `Unit ${unit} of ${layer.name}`,
      h(
        "div",
        { class: "crumbs" },
        h(
          "p",
          {},
          link(address(["layer", layer.name], kept), `Units of ${layer.name}`),
          at >= 0 && kept.size ? ` · ${at + 1} of ${order.length} in this list` : "",
        ),
        steps,
      ),
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
              draw.histogram(
                detail.histogram,
                layer.bins.edges,
                layer.bins.floor,
                get("threshold"),
                activation(get("threshold")),
                `Histogram of the unit's activations over all cells of all images; threshold ${activation(get("threshold"))}`,
              ),
              h(
                "p",
                { class: "soft" },
                `${percent(detail.zero)} of cells are 0${layer.signed ? `, ${percent(Math.max(0, 1 - detail.zero - get("share_positive")))} are below` : ""}; ${percent(get("share_above"), 2)} are at or above the threshold.${detail.less > 0 ? ` Left of the axis: ${percent(detail.less, 2)}.` : ""} Both axes are logarithmic, the same for all units of the layer; a bar is a third of a doubling wide.`,
              ),
            ),
            h("div", {}, answersTo(layer, unit, detail)),
          ),
      silent ? null : concepts(detail),
      ablationOf(layer, unit, detail),
    );
  };

  // Classes

  const CLASS_SORTS = {
    name: ["class", 1],
    images: ["images", -1],
    accuracy: ["accuracy", -1],
    predicted: ["predicted", -1],
    units: ["units", -1],
  };
  const classesPage = (query) => {
    places(null);
    cards = [];
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
                cell(
                  draw.bar(classes.accuracy[one], classes.accuracy_low[one], classes.accuracy_high[one], 0, 1),
                  "bars",
                ),
              ),
            ),
          ),
        ),
      ),
    );
  };

  const SERIES = {
    "most important": "most important first",
    random: "in random order",
    "least important": "least important first",
  };
  const removals = (rows) => {
    const of = (removed) =>
      rows
        .filter((row) => row[0] === removed)
        .map(([, units, shown, low, high]) => ({ units, value: shown, low, high }));
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
        draw.curves(
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

  const classPage = async (one) => {
    places(null);
    cards = [];
    const { classes } = index;
    if (!(one >= 0 && one < classes.name.length)) return lost("There is no such class.");
    const [detail, images] = await classOf(one);
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
                  tile(image, images[image], null, `${images[image][0]}, taken for ${index.labels[images[image][2]]}`),
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
            h(
              "ol",
              { class: "cards" },
              important.map(([unit, importance, from, to]) =>
                card(
                  head,
                  unit,
                  points(-importance),
                  to === null ? "" : `${INTERVAL} ${interval(-100 * to, -100 * from, (end) => number(end, 1, true))}`,
                ),
              ),
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
                h(
                  "ol",
                  { class: "cards" },
                  rows.map(([, unit, times]) => card(place, unit, `${number(times, 1)} × its mean`)),
                ),
              )
            : null;
        });
    show(
      className(one),
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
        (row) => [h("strong", {}, percent(row[3])), accuracy === null && index.given ? ` ${index.labels[row[2]]}` : ""],
      ),
      pictures(
        "Missed, the surest first",
        detail.missed,
        "What the model takes them for instead, and with which probability.",
        (row) => [
          h("strong", {}, percent(row[3])),
          " ",
          h("span", { class: "label" }, breakable(index.labels[row[2]])),
        ],
      ),
      groups,
      detail.removals ? removals(detail.removals) : null,
    );
  };

  // About, and what cannot be shown

  const aboutPage = () => {
    places(undefined);
    cards = [];
    const said = (text) =>
      Array.isArray(text)
        ? h(
            "ul",
            {},
            text.map((line) => h("li", {}, line)),
          )
        : text;
    const plain = (term, text) => [
      h("dt", {}, term),
      h("dd", { class: /SHA|fingerprint/.test(term) ? "hash" : false }, said(text)),
    ];
    show(
      "About",
      h("h1", { tabindex: "-1" }, "About this atlas"),
      h(
        "section",
        {},
        h("h2", {}, "What was scanned"),
        h(
          "dl",
          { class: "about" },
          index.about.map(([term, text]) => plain(term, text)),
        ),
      ),
      h(
        "section",
        {},
        h("h2", {}, "How it is drawn"),
        h(
          "dl",
          { class: "about" },
          plain(
            "photos",
            "The part that the network saw, in the shape of its input. A photo that is gone or is another by now has a grey tile.",
          ),
          plain(
            "activations",
            "As the network computed them, in its own unit, and not scaled. Those of different units or layers cannot be compared as such.",
          ),
          plain(
            "contour",
            `Encloses activations at or above the unit’s threshold, the least that at most ${percent(index.quantile)} of all cells of all images reach. Maps are laid by the centres of their cells’ receptive fields, bilinear between them.`,
          ),
          plain(
            "heat",
            "From 0 to the unit’s maximum over the data set: one scale for all pictures of a unit, another for each unit. Opacity grows with the activation; the photo beneath is grey, so that every colour is the map’s.",
          ),
          plain(
            "histograms",
            "Over all cells of all images; both axes logarithmic, the same for all units of a layer. Cells of 0 and below are told in words.",
          ),
          plain("maps", "Kept in 254 steps of their own largest value, so that they are right to 0.4% of it."),
          plain(
            "intervals",
            "95%, between images as a sample of all such images: they say nothing about images of another kind. Where many units or classes are looked at, some intervals miss by chance.",
          ),
          plain(
            "class selectivity",
            "(largest class mean − mean of the others) / (their sum), of class means of the mean activation (Morcos et al. 2018). A selective unit is not thereby an important one.",
          ),
        ),
      ),
    );
  };
  const lost = (text) =>
    show("Not found", h("h1", { tabindex: "-1" }, "Not found"), h("p", {}, text, " ", link("#/", "All units")));

  // Going about

  const render = async () => {
    const { parts, query } = parsed();
    const here = location.hash;
    const state = history.state;
    try {
      if (parts[0] === "unit") await unitPage(parts[1], /^\d+$/.test(parts[2] || "") ? Number(parts[2]) : -1, query);
      else if (parts[0] === "class") await classPage(/^\d+$/.test(parts[1] || "") ? Number(parts[1]) : -1);
      else if (parts[0] === "classes") classesPage(query);
      else if (parts[0] === "about") aboutPage();
      else if (parts[0] === "layer" && !index.layers.some((layer) => layer.name === parts[1]))
        lost(`This atlas has no layer ${parts[1] || ""}.`);
      else layerPage(parts[1], query);
    } catch (error) {
      lost(error.message);
    }
    if (here !== location.hash) return;
    // Whoever goes back finds the place that was left; whoever goes on begins at the top.
    window.scrollTo(0, (state && state.y) || 0);
    if (rendered) main.querySelector("h1").focus({ preventScroll: true });
    rendered = true;
  };
  let rendered = false;
  let waiting = 0;
  const remember = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      try {
        history.replaceState({ y: window.scrollY }, "");
      } catch {
        // Some browsers allow no states to pages from disk: then one begins at the top.
      }
    }, 120);
  };

  const go = (rel) => {
    const there = main.querySelector(`.steps a[rel=${rel}]`);
    if (there) there.click();
  };
  const step = (by) => {
    if (!cards.length) return go(by > 0 ? "next" : "prev");
    const now = cards.indexOf(document.activeElement && document.activeElement.closest(".card"));
    // From nowhere, begin with the first card that is seen.
    const seen = cards.findIndex((one) => one.getBoundingClientRect().bottom > 80);
    const next = now < 0 ? seen : Math.min(cards.length - 1, Math.max(0, now + by));
    cards[next].firstChild.focus({ preventScroll: true });
    cards[next].scrollIntoView({ block: "nearest" });
  };
  const up = () => {
    const above = main.querySelector(".crumbs a");
    if (above) above.click();
  };
  const search = async () => {
    if (!main.querySelector("input[type=search]")) {
      const { parts, query } = parsed();
      location.hash = address(
        ["layer", index.layers[layerAt(parts[0] === "unit" ? parts[1] : "")].name],
        listed(query),
      );
      await new Promise((done) => window.addEventListener("hashchange", () => setTimeout(done), { once: true }));
    }
    const input = main.querySelector("input[type=search]");
    window.scrollTo(0, 0);
    input.focus();
    input.select();
  };
  const KEYS = {
    j: () => step(1),
    ArrowRight: () => step(1),
    k: () => step(-1),
    ArrowLeft: () => step(-1),
    u: up,
    "/": search,
    "?": () => document.getElementById("help").showModal(),
  };
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    // Wide tables are moved sideways by arrows.
    if (event.key.startsWith("Arrow") && event.target.closest(".scroll")) return;
    if (Object.hasOwn(KEYS, event.key)) {
      event.preventDefault();
      KEYS[event.key]();
    }
  };

  const start = () => {
    document.getElementById("of").replaceChildren(`${index.architecture} over ${index.data}`);
    const warnings = [
      index.random && ["The weights are random.", " This network has learned nothing: nothing below means anything."],
      !index.complete && ["A part of the data set.", " Not all of its images are in this atlas."],
      index.missing > 0 && [
        `${count(index.missing, "photo")} could not be shown.`,
        " They are gone, or are others by now; their places are grey and say why.",
      ],
    ].filter(Boolean);
    document
      .getElementById("warnings")
      .replaceChildren(
        ...warnings.map(([strong, text]) => h("p", { class: "warning" }, h("strong", {}, strong), text)),
      );
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault();
      main.focus();
    });
    // Tiles have the shape of the network's input.
    document.documentElement.style.setProperty("--aspect", index.input[1] / index.input[0]);
    history.scrollRestoration = "manual";
    window.addEventListener("hashchange", () => {
      const known = expected !== null && location.hash === expected;
      expected = null;
      if (!known) render();
    });
    window.addEventListener("scroll", remember, { passive: true });
    document.addEventListener("keydown", pressed);
    render();
  };

  return { add };
})();
