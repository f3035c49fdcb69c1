// One photo: what the network says of it, where the evidence lies, which units carry it, and what is left without them.
import { choose } from "./addresses.js";
import { largest, probabilities } from "./algebra.js";
import { site } from "./data.js";
import { breakable, h, link } from "./dom.js";
import { count, number, percent, power } from "./numbers.js";
import { page, show } from "./page.js";
import { answersOf } from "./photo-answers.js";
import { pickPhoto, startPage, takePhotos } from "./photo-start.js";
import { UnitList } from "./photo-units.js";
import { PhotoView, signedBar } from "./photo-view.js";
import { setOf, written } from "./sets.js";

const TOP = 5;
const LISTED = 24;
const MANY = 10;
const FOUND = 12;

export const photoPage = async ([id], query) => {
  if (!id) return startPage();
  const layer = query.get("layer");
  // Back and forth between states of the page that is shown needs no new page.
  if (PhotoPage.shown && PhotoPage.shown.isOf(id, layer)) {
    await PhotoPage.shown.restore(query);
    return true;
  }
  // The picture comes along with the numbers, rather than after them.
  new Image().src = `data/photos/${encodeURIComponent(id)}.jpg`;
  const answers = await answersOf(id, layer);
  const made = new PhotoPage(id, layer, answers);
  await made.open(query);
};

class PhotoPage {
  static shown = null;

  constructor(id, layer, answers) {
    Object.assign(this, { id, layer, answers, told: answers.told, run: 0 });
    this.labels = site.labels;
    this.before = probabilities(answers.logits);
    this.first = largest(answers.logits, Math.min(TOP, this.labels.length));
    this.high = null;
  }

  isOf(id, layer) {
    return this.id === id && this.layer === layer && document.contains(this.view.element);
  }

  // State: everything that is chosen is in the address, and read from it.

  read(query) {
    const classes = this.labels.length;
    const asked = query.get("class");
    const share = (name, usual) => {
      const value = Number(query.get(name) ?? usual);
      return value >= 0 && value <= 100 ? value : usual;
    };
    this.class = /^\d+$/.test(asked || "") && Number(asked) < classes ? Number(asked) : this.first[0];
    this.off = setOf(query.get("off"), this.told.units);
    this.view.region = setOf(query.get("region"), this.told.map.rows * this.told.map.cols);
    this.opacity = share("opacity", 100);
    this.level = share("level", 0);
    this.against = query.get("units") === "against";
    this.listed = Math.min(this.told.units, Math.max(LISTED, Number(query.get("list")) || LISTED));
  }

  write(step) {
    const usual = { class: this.first[0], opacity: 100, level: 0, list: LISTED };
    const changed = (name, value) => (value === usual[name] ? "" : String(value));
    const state = {
      class: changed("class", this.class),
      off: written(this.off),
      region: written(this.view.region),
      opacity: changed("opacity", this.opacity),
      level: changed("level", this.level),
      units: this.against ? "against" : "",
      list: changed("list", this.listed),
    };
    // After what was chosen is seen: to write an address takes as long as all the algebra.
    setTimeout(() => PhotoPage.shown === this && choose(state, step));
  }

  // The page

  async open(query) {
    const { told } = this;
    this.view = new PhotoView(told, {
      mark: (region, done) => {
        this.drawEvidence();
        if (done) this.write(true);
      },
      point: (value) => {
        this.pointed.textContent = value === null ? "" : `under the pointer ${number(value, 2, true)}`;
      },
    });
    this.units = new UnitList(this.answers, this.view.photo, (unit) => this.toggle(unit));
    this.parts();
    this.read(query);
    show(`${told.name}`, "photo", ...this.laidOut());
    page.keys = this.keys();
    page.told = [
      [["j", "k"], "next, previous unit of the list"],
      [["Space"], "switch the unit off or on"],
      [["1", "…", "5"], "choose one of the five classes"],
      [["m"], "the map on or off"],
      [["c"], "its contour on or off"],
      [["b"], "mark a region with the brush"],
      [["0"], "all units on, no region"],
    ];
    takePhotos();
    const { leave } = page;
    page.leave = () => {
      leave();
      PhotoPage.shown = null;
    };
    PhotoPage.shown = this;
    // Thumbnails are cut out of the picture.
    await this.view.photo.decode().catch(() => {});
    await this.restore();
  }

  parts() {
    this.pointed = h("p", { class: "pointed", "aria-hidden": "true" });
    this.bar = h("div", { class: "scale" });
    this.mapSaid = h("p", { class: "map-said" });
    this.predictions = h("div", { class: "predictions" });
    this.summary = h("p", { class: "summary", role: "status" });
    this.unitsTitle = h("h2", {});
    this.evidence = h("section", { class: "evidence" });
    this.trouble = h("p", { class: "warning", role: "alert", hidden: true });
    const slider = (label, name, unit) => {
      const input = h("input", {
        type: "range",
        min: 0,
        max: 100,
        step: 1,
        oninput: () => ((this[name] = Number(input.value)), this.drawMap()),
        onchange: () => this.write(false),
      });
      const shown = h("output", {});
      return { element: h("label", { class: "slider" }, h("span", {}, label, " ", shown), input), input, shown, unit };
    };
    this.sliders = { opacity: slider("Map", "opacity"), level: slider("Contour at", "level") };
    this.brush = h("button", { type: "button", onclick: () => this.setMarking(!this.view.marking) }, "Mark a region");
    this.sides = h(
      "select",
      {
        onchange: () => {
          this.against = this.sides.value === "against";
          this.write(true);
          this.update();
        },
      },
      h("option", { value: "for" }, "most for it"),
      h("option", { value: "against" }, "most against it"),
    );
    this.more = h("button", { type: "button", onclick: () => this.listMore() }, "More units");
    this.note = h(
      "p",
      { class: "soft" },
      "Click a unit to switch it off. Numbers: the logits that it adds while all are on. Pictures: its map, each from 0 to its own largest on this photo.",
    );
    const act = (text, chosen) =>
      h("button", { type: "button", onclick: async () => this.setOff(await chosen()) }, text);
    this.allOn = act("All on", () => new Set());
    this.actions = h(
      "div",
      { class: "controls" },
      this.search(),
      h("label", {}, h("span", {}, "Units"), this.sides),
      act(`Switch the ${MANY} off`, async () => new Set([...this.off, ...(await this.ranked()).slice(0, MANY)])),
      act(`All but the ${MANY} off`, async () => {
        const kept = new Set((await this.ranked()).slice(0, MANY));
        return new Set(Array.from({ length: this.told.units }, (_, unit) => unit).filter((unit) => !kept.has(unit)));
      }),
      this.number(),
      this.allOn,
    );
  }

  // Any unit by its number.
  number() {
    const input = h("input", { type: "number", min: 0, max: this.told.units - 1, step: 1, inputmode: "numeric" });
    const chosen = (event) => {
      event.preventDefault();
      if (input.value !== "" && input.checkValidity()) this.toggle(Number(input.value));
    };
    return h(
      "form",
      { class: "by-number", onsubmit: chosen },
      h("label", {}, h("span", {}, "Unit by number"), input),
      h("button", { type: "submit" }, "Off / on"),
    );
  }

  search() {
    const options = h("datalist", { id: "classes-found" });
    const text = (one) => `${this.labels[one]} · ${one}`;
    const input = h("input", {
      type: "search",
      list: "classes-found",
      placeholder: "any class",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => {
        const words = input.value.toLowerCase();
        const found = [];
        this.labels.forEach((label, one) => {
          if (found.length < FOUND && text(one).toLowerCase().includes(words)) found.push(one);
        });
        options.replaceChildren(...found.map((one) => h("option", { value: text(one) })));
        const exact = found.find((one) => text(one) === input.value);
        if (exact !== undefined) choosing(exact);
      },
      onkeydown: (event) => {
        if (event.key !== "Enter") return;
        const words = input.value.toLowerCase();
        const match = this.labels.findIndex((_, one) => text(one).toLowerCase().includes(words));
        if (words && match >= 0) choosing(match);
      },
    });
    const choosing = (one) => {
      input.value = "";
      this.choose(one);
    };
    return h("label", { class: "search" }, h("span", {}, "Another class"), input, options);
  }

  layers() {
    if (!site.live || !site.model || !site.model.layers.length) return null;
    const own = site.head && site.head.layer;
    const options = [...new Set([own, ...site.model.layers].filter(Boolean))];
    const select = h(
      "select",
      { onchange: () => ((location.hash = `#/photo/${this.id}${query(select.value)}`), undefined) },
      options.map((name) =>
        h(
          "option",
          { value: name, selected: name === this.told.layer },
          name === own && site.head.exact ? `${name} (exact)` : `${name} (measured)`,
        ),
      ),
    );
    const query = (name) => (name === own ? "" : `?${new URLSearchParams({ layer: name })}`);
    return h("label", {}, h("span", {}, "Layer"), select);
  }

  laidOut() {
    const { told } = this;
    const exact = this.answers.exact;
    const claim = exact
      ? `exact: maps and bias give the logits to ${told.pooled ? "the digits that the atlas kept, " : ""}${power(this.answers.photo.error() || 1e-16)}`
      : `local: gradient × activation at ${told.layer}; switching units off is measured`;
    return [
      h(
        "div",
        { class: "crumbs" },
        h("p", {}, link("#/photo", "Photos")),
        site.live && site.model ? h("p", { class: "steps" }, pickPhoto("Another photo")) : null,
      ),
      h("div", { class: "title" }, h("h1", { tabindex: "-1" }, breakable(told.name)), h("p", { class: "count" }, claim)),
      h(
        "div",
        { class: "photo-page" },
        h(
          "div",
          { class: "seen" },
          this.view.element,
          h("div", { class: "under" }, this.bar, this.mapSaid, this.pointed),
          h(
            "div",
            { class: "controls" },
            this.sliders.opacity.element,
            this.sliders.level.element,
            this.brush,
            this.layers(),
          ),
          this.evidence,
        ),
        h(
          "div",
          { class: "said-of-it" },
          h("div", { class: "standing" }, this.trouble, this.predictions, this.summary),
          h("section", { class: "units" }, this.unitsTitle, this.actions, this.note, this.units.element, this.more),
        ),
      ),
    ];
  }

  keys() {
    const chosen = Object.fromEntries(this.first.map((one, rank) => [String(rank + 1), () => this.choose(one)]));
    const toggled = (name, on) => () => {
      this[name] = this[name] ? 0 : on;
      this.drawMap();
      this.write(false);
    };
    return {
      ...chosen,
      j: () => this.units.step(1),
      k: () => this.units.step(-1),
      m: toggled("opacity", 100),
      c: toggled("level", 50),
      b: () => this.setMarking(!this.view.marking),
      0: () => {
        this.view.region.clear();
        this.view.drawRegion();
        this.setOff(new Set());
      },
    };
  }

  // What is done

  choose(one) {
    this.class = one;
    this.write(true);
    return this.update();
  }

  toggle(unit) {
    const off = new Set(this.off);
    if (!off.delete(unit)) off.add(unit);
    return this.setOff(off);
  }

  setOff(off) {
    this.off = off;
    const shown = this.update();
    this.write(true);
    return shown;
  }

  listMore() {
    this.listed = Math.min(this.told.units, 2 * this.listed);
    this.write(false);
    this.listedOf = null;
    return this.update();
  }

  setMarking(on) {
    this.view.setMarking(on);
    this.brush.setAttribute("aria-pressed", String(on));
    if (!on) return;
    this.view.element.scrollIntoView({ block: "nearest" });
    this.view.element.focus({ preventScroll: true });
  }

  async restore(query) {
    if (query) this.read(query);
    this.view.drawRegion();
    this.sides.value = this.against ? "against" : "for";
    await this.update();
  }

  // What is shown

  // Units by what they add to the class while all are on, so that the list stays as it is when some are off.
  async ranked() {
    const { contributions } = await this.answers.evidenceOf(this.class, new Set());
    const sign = this.against ? 1 : -1;
    return Array.from(contributions, (_, unit) => unit).sort(
      (a, b) => sign * (contributions[a] - contributions[b]) || a - b,
    );
  }

  // One scale for all maps of the photo: the largest value of those of its top classes and of the one that is chosen.
  async scaleOf(one) {
    this.highs ??= new Map();
    const needed = this.answers.exact ? [...this.first, one] : [one];
    for (const shown of needed) {
      if (this.highs.has(shown)) continue;
      const { map } = await this.answers.evidenceOf(shown, new Set());
      this.highs.set(shown, map.reduce((high, value) => Math.max(high, Math.abs(value)), 0));
    }
    return Math.max(...this.highs.values());
  }

  // A later update overtakes an earlier one that still waits for the server.
  async update() {
    const run = ++this.run;
    try {
      const answered = this.answers.logitsWithout(this.off);
      const logits = answered instanceof Promise ? await this.waiting(answered) : answered;
      if (run !== this.run) return;
      this.after = { logits, shares: probabilities(logits) };
      this.drawPredictions();
      this.drawSummary();
      this.units.mark(this.off);
      await this.drawClass(run);
      this.trouble.hidden = true;
    } catch (error) {
      if (run !== this.run) return;
      this.trouble.textContent = error.message;
      this.trouble.hidden = false;
    }
  }

  async waiting(answered) {
    this.summary.textContent = "The network is running …";
    return answered;
  }

  async drawClass(run, one = this.class) {
    const high = await this.scaleOf(one);
    const { map, leftOut } = await this.answers.evidenceOf(one, this.off);
    if (run !== this.run) return;
    Object.assign(this, { map, high, mapped: one, leftOut });
    this.drawMap();
    this.drawEvidence();
    const of = JSON.stringify([this.class, this.against, this.listed]);
    if (this.listedOf === of) return;
    const [units, { contributions }] = [await this.ranked(), await this.answers.evidenceOf(this.class, new Set())];
    if (run !== this.run) return;
    this.listedOf = of;
    this.units.list(units.slice(0, this.listed), contributions);
    this.units.mark(this.off);
    this.more.hidden = this.listed >= this.told.units;
    this.unitsTitle.replaceChildren(
      `Units that speak ${this.against ? "against" : "for"} `,
      h("em", {}, breakable(this.labels[this.class])),
    );
  }

  // A look at another class's map while the pointer or the focus is on its row.
  async preview(one) {
    const { map, leftOut } = await this.answers.evidenceOf(one, this.off);
    Object.assign(this, { map, leftOut, high: Math.max(this.high, await this.scaleOf(one)), mapped: one });
    this.drawMap();
  }

  drawMap() {
    if (!this.map) return;
    const level = (this.level / 100) * this.high;
    this.view.draw(this.map, this.high, { level, opacity: this.opacity / 100 });
    for (const [name, text] of [
      ["opacity", `${this.opacity}%`],
      ["level", this.level ? `±${number(level)}` : "off"],
    ]) {
      this.sliders[name].input.value = this[name];
      this.sliders[name].shown.textContent = text;
    }
    if (this.barOf !== this.high) this.bar.replaceChildren(signedBar(this.high));
    this.barOf = this.high;
    this.mapSaid.replaceChildren(h("strong", {}, breakable(this.labels[this.mapped])), `: ${this.saidOfMap()}`);
  }

  saidOfMap() {
    const { size } = this.off;
    if (this.answers.exact)
      return [
        `logits that each place adds; their mean and the bias (${number(this.leftOut, 2, true)}) are the logit.`,
        size ? `Without the ${count(size, "unit")} that ${size === 1 ? "is" : "are"} off.` : "",
        "One scale for the top five and the chosen class.",
      ].join(" ");
    return [
      `gradient × activation of each place; it leaves out ${number(this.leftOut, 2, true)} of the logit.`,
      size ? "With all units on." : "",
      "One scale for the classes looked at so far.",
    ].join(" ");
  }

  row(one, logits, shares, before) {
    const amount = h("span", { class: "amount" });
    amount.style.width = `${100 * shares[one]}%`;
    const change = before ? shares[one] - before[one] : 0;
    const chosen = one === this.class;
    return h(
      "li",
      {},
      h(
        "button",
        {
          type: "button",
          class: "prediction",
          "aria-pressed": String(chosen),
          onclick: () => this.choose(one),
          onpointerenter: () => this.preview(one),
          onpointerleave: () => this.preview(this.class),
        },
        h("span", { class: "label" }, breakable(this.labels[one])),
        h("span", { class: "share" }, percent(shares[one])),
        h("span", { class: "amounts", "aria-hidden": "true" }, amount),
        h("span", { class: "logit" }, `logit ${number(logits[one], 2)}`),
        before ? h("span", { class: "change" }, Math.abs(change) < 5e-4 ? "±0" : `${number(100 * change, 1, true)} points`) : null,
      ),
    );
  }

  drawPredictions() {
    const list = (title, logits, shares, before) => {
      const top = before ? largest(logits, this.first.length) : this.first;
      const shown = top.includes(this.class) ? top : [...top, this.class];
      return h(
        "div",
        {},
        h("h2", {}, title),
        h("ol", { class: "ranking" }, shown.map((one) => this.row(one, logits, shares, before))),
      );
    };
    // The row that has the focus gets it again.
    const focused = [...this.predictions.querySelectorAll("button")].indexOf(document.activeElement);
    const { size } = this.off;
    this.predictions.replaceChildren(
      list("All units on", this.answers.logits, this.before, null),
      size
        ? list(`${count(size, "unit")} off`, this.after.logits, this.after.shares, this.before)
        : h(
            "div",
            { class: "nothing-off" },
            h("h2", {}, "Without units"),
            h("p", { class: "soft" }, "Switch units off below: what the network would say then stands here at once."),
          ),
    );
    if (focused >= 0) [...this.predictions.querySelectorAll("button")][focused]?.focus({ preventScroll: true });
  }

  drawSummary() {
    const { exact } = this.answers;
    const [was, is] = [this.first[0], largest(this.after.logits, 1)[0]];
    const { size } = this.off;
    const result = !size
      ? "All units are on."
      : was === is
        ? `Still ${this.labels[was]}: ${percent(this.before[was])} → ${percent(this.after.shares[was])}.`
        : `${this.labels[was]} becomes ${this.labels[is]} (${percent(this.after.shares[is])}).`;
    this.summary.replaceChildren(
      h("strong", {}, size ? `${size} of ${count(this.told.units, "unit")} off. ` : ""),
      result,
      " ",
      h("span", { class: exact ? "kind exact" : "kind measured" }, exact ? "exact" : "measured"),
      exact
        ? " by algebra on one forward pass, in the browser. "
        : size
          ? " by a real forward pass. "
          : " by real forward passes, on the server. ",
    );
    this.allOn.disabled = !size;
  }

  drawEvidence() {
    const { region } = this.view;
    if (!region.size || !this.map) {
      this.evidence.replaceChildren();
      return;
    }
    const cells = this.told.map.rows * this.told.map.cols;
    const top = largest(this.after.logits, this.first.length);
    const shown = this.answers.exact ? [...new Set([...top, this.class])] : [this.mapped];
    let rows;
    if (this.answers.exact) {
      const found = this.answers.photo.evidence(region, this.off);
      rows = shown.map((one) => [one, found[one], this.after.logits[one] - found[one], this.after.logits[one]]);
    } else {
      let sum = 0;
      for (const cell of region) sum += this.map[cell] / cells;
      const all = this.map.reduce((total, value) => total + value / cells, 0);
      rows = shown.map((one) => [one, sum, all - sum, all]);
    }
    const value = (shown) => h("td", { class: "n" }, number(shown, 2, true));
    this.evidence.replaceChildren(
      h("h2", {}, "Evidence from the region"),
      h(
        "table",
        {},
        h("caption", {}, `${region.size} of ${count(cells, "cell")}, in logits; with their shares of the bias, regions add up to the logit`),
        h(
          "thead",
          {},
          h("tr", {}, h("th", { scope: "col" }, "class"), ["region", "rest", this.answers.exact ? "logit" : "told in all"].map((name) => h("th", { scope: "col", class: "n" }, name))),
        ),
        h(
          "tbody",
          {},
          rows.map(([one, ...values]) => h("tr", {}, h("th", { scope: "row" }, breakable(this.labels[one])), values.map(value))),
        ),
      ),
      h(
        "button",
        {
          type: "button",
          onclick: () => {
            region.clear();
            this.view.drawRegion();
            this.drawEvidence();
            this.write(true);
          },
        },
        "Clear the region",
      ),
    );
  }
}
