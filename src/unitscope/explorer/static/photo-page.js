// One photo: what the network says of it, where the evidence lies, which units carry it, and what is left without them.
import { choose, parsed } from "./addresses.js";
import { largest, probabilities } from "./algebra.js";
import { site } from "./data.js";
import { breakable, h, link } from "./dom.js";
import { signedBar } from "./maps.js";
import { count, number, power } from "./numbers.js";
import { SAME_PAGE, main, page, show } from "./page.js";
import { answersOf } from "./photo-answers.js";
import { classSearch, layerSelect, slider, unitByNumber } from "./photo-controls.js";
import { evidenceTable } from "./photo-evidence.js";
import { inShort, predictionLists, whatBecame } from "./photo-predictions.js";
import { pickPhoto, startPage } from "./photo-start.js";
import { addressed, stateOf } from "./photo-state.js";
import { UnitList } from "./photo-units.js";
import { PhotoView } from "./photo-view.js";

const TOP = 5;
const MANY = 10;
const NONE = new Set();
// Milliseconds: before it is said that one has to wait, and before a server is asked for what is only hovered over.
const PATIENCE = 150;
const PHOTO_KEYS = [
  [["j", "k"], "next, previous unit of the list"],
  [["Space"], "switch the unit off or on"],
  [["1", "…", "5"], "choose one of the five classes"],
  [["m"], "the map on or off"],
  [["c"], "its contour on or off"],
  [["b"], "mark a region with the brush"],
  [["0"], "all units on, no region"],
];

let shown = null;

export const photoPage = async ([id], query) => {
  if (!id) return startPage();
  const layer = query.get("layer");
  // Back and forth between states of the page that is shown needs no new page.
  if (shown && shown.id === id && shown.layer === layer) {
    await shown.restore(query);
    return SAME_PAGE;
  }
  const { turn } = page;
  // Nothing more is done on the page that is left.
  page.leave();
  page.leave = () => {};
  main.inert = true;
  const patience = setTimeout(() => turn === page.turn && explaining(), PATIENCE);
  // The picture comes along with the numbers, rather than after them.
  new Image().src = `data/photos/${encodeURIComponent(id)}.jpg`;
  try {
    const answers = await answersOf(id, layer).finally(() => clearTimeout(patience));
    if (turn === page.turn) await new PhotoPage(id, layer, answers).open(query);
  } catch (error) {
    if (turn === page.turn) startPage(error.message);
  } finally {
    if (turn === page.turn) main.inert = false;
  }
};

const explaining = () =>
  show(
    "Explaining",
    "photo",
    h("h1", { tabindex: "-1" }, "Explaining the photo …"),
    h("p", { class: "soft", role: "status" }, "The network is looking at it."),
  );

class PhotoPage {
  constructor(id, layer, answers) {
    Object.assign(this, { id, layer, answers, told: answers.told, labels: site.labels });
    Object.assign(this, { run: 0, look: 0, highs: new Map() });
    this.on = { logits: answers.logits, shares: probabilities(answers.logits) };
    this.first = largest(answers.logits, Math.min(TOP, this.labels.length));
    this.view = new PhotoView(this.told, {
      mark: (region, done) => {
        this.state.region = region;
        this.drawEvidence();
        if (done) this.write(true);
      },
      point: (value) => {
        const stretched = this.view.stretched ? "The photo is drawn stretched." : "";
        this.pointed.textContent = value === null ? stretched : `under the pointer ${number(value, 2, true)}`;
      },
    });
    this.units = new UnitList(answers, this.view.photo, (unit) => this.toggle(unit));
    this.make();
  }

  // The page

  make() {
    this.bar = h("div", { class: "scale" });
    this.mapSaid = h("p", { class: "map-said" });
    this.pointed = h("p", { class: "pointed", "aria-hidden": "true" });
    this.predictions = h("div", { class: "predictions" });
    this.became = h("span", {});
    this.strip = h("span", { class: "strip-of-five", "aria-hidden": "true" });
    this.evidence = h("section", { class: "evidence" });
    this.unitsTitle = h("h2", {});
    this.trouble = h("p", { class: "warning", role: "alert", hidden: true });
    const shared = (label, name) =>
      slider(
        label,
        (value) => {
          this.state[name] = value;
          this.drawMap();
        },
        () => this.write(false),
      );
    this.sliders = { opacity: shared("Map opacity", "opacity"), level: shared("Contour at", "level") };
    this.brush = h("button", { type: "button", onclick: () => this.setMarking(!this.view.marking) }, "Mark a region");
    this.more = h("button", { type: "button", onclick: () => this.listMore() }, "More units");
    this.sides = h(
      "select",
      { onchange: () => this.change({ against: this.sides.value === "against" }) },
      h("option", { value: "for" }, "most for it"),
      h("option", { value: "against" }, "most against it"),
    );
    const act = (text, chosen) => {
      const switched = async () => {
        const run = this.run;
        const ranked = await this.latest(run, this.ranked());
        if (ranked !== null) await this.change({ off: chosen(ranked) });
      };
      return h("button", { type: "button", onclick: () => this.attempt(switched) }, text);
    };
    const all = Array.from({ length: this.told.units }, (_, unit) => unit);
    this.allOn = act("All on", () => new Set());
    this.actions = h(
      "div",
      { class: "controls" },
      h(
        "div",
        { class: "group" },
        classSearch(this.labels, (one) => this.change({ class: one })),
        h("label", {}, h("span", {}, "Units"), this.sides),
      ),
      h(
        "div",
        { class: "group" },
        act(`First ${MANY} off`, (ranked) => new Set([...this.state.off, ...ranked.slice(0, MANY)])),
        act(`All but the first ${MANY} off`, (ranked) => {
          const kept = new Set(ranked.slice(0, MANY));
          return new Set(all.filter((unit) => !kept.has(unit)));
        }),
        this.allOn,
        unitByNumber(this.told.units, (unit) => this.toggle(unit)),
      ),
    );
  }

  async open(query) {
    this.state = this.read(query);
    show(this.told.name, "photo", ...this.laidOut());
    page.keys = this.keys();
    page.told = PHOTO_KEYS;
    page.leave = () => {
      shown = null;
    };
    shown = this;
    // Thumbnails are cut out of the picture.
    await this.view.photo.decode().catch(() => {});
    await this.restore();
  }

  claim() {
    if (!this.answers.exact) return `local: gradient × activation at ${this.told.layer}; switching units off is measured`;
    const error = this.answers.photo.error();
    const digits = this.told.pooled ? "the digits that the atlas kept, " : "";
    return `exact: maps and bias give the logits ${error ? `to ${digits}${power(error)}` : "to the last bit"}`;
  }

  laidOut() {
    const kind = this.answers.exact ? "exact" : "measured";
    const of = site.photos.find((one) => one.id === this.id);
    return [
      h(
        "div",
        { class: "crumbs" },
        h("p", {}, link("#/photo", "Photos")),
        site.live && site.model ? h("p", { class: "steps" }, pickPhoto("Another photo")) : null,
      ),
      h(
        "div",
        { class: "title" },
        h("h1", { tabindex: "-1" }, breakable(this.told.name)),
        h(
          "p",
          { class: "count" },
          of && of.class ? ["labelled ", h("strong", {}, breakable(of.class)), " · "] : null,
          this.claim(),
        ),
      ),
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
            layerSelect(this.id, this.told.layer),
          ),
          this.evidence,
        ),
        h(
          "div",
          { class: "said-of-it" },
          h(
            "div",
            { class: "standing" },
            this.trouble,
            this.predictions,
            h(
              "p",
              { class: "summary", role: "status" },
              this.became,
              " ",
              h("span", { class: `kind ${kind}` }, kind),
              h(
                "span",
                { class: "how-said" },
                this.answers.exact ? " by algebra on one forward pass, in the browser." : " by real forward passes.",
              ),
              this.strip,
            ),
          ),
          h(
            "section",
            { class: "units" },
            this.unitsTitle,
            this.actions,
            h(
              "p",
              { class: "soft" },
              "Click a unit to switch it off. Numbers: the logits that it adds while all are on. ",
              "Pictures: its map, each from 0 to its own largest on this photo.",
            ),
            this.units.element,
            this.more,
          ),
        ),
      ),
    ];
  }

  keys() {
    const chosen = this.first.map((one, rank) => [String(rank + 1), () => this.change({ class: one })]);
    const toggled = (name, on) => () => {
      this.state[name] = this.state[name] ? 0 : on;
      this.drawMap();
      this.write(false);
    };
    return {
      ...Object.fromEntries(chosen),
      j: () => this.units.step(1),
      k: () => this.units.step(-1),
      m: toggled("opacity", 100),
      c: toggled("level", 50),
      b: () => this.setMarking(!this.view.marking),
      0: () => this.change({ off: new Set(), region: new Set() }),
    };
  }

  // What is chosen

  read(query) {
    return stateOf(query, this.told, this.labels.length, this.first[0]);
  }

  write(step) {
    const state = addressed(this.state, this.first[0]);
    // After what was chosen is seen: to write an address takes as long as all the algebra.
    setTimeout(() => shown === this && this.isHere() && choose(state, step));
  }

  // Whether the address is still this photo's: another's is there a moment before its page is.
  isHere() {
    const { parts, query } = parsed();
    return parts[0] === "photo" && parts[1] === this.id && query.get("layer") === this.layer;
  }

  change(chosen) {
    Object.assign(this.state, chosen);
    this.write(true);
    return this.restore();
  }

  toggle(unit) {
    const off = new Set(this.state.off);
    if (!off.delete(unit)) off.add(unit);
    return this.change({ off });
  }

  listMore() {
    this.state.listed = Math.min(this.told.units, 2 * this.state.listed);
    this.write(false);
    return this.update();
  }

  setMarking(on) {
    this.view.setMarking(on);
    this.brush.setAttribute("aria-pressed", String(on));
    if (!on) return;
    this.view.element.scrollIntoView({ block: "nearest" });
    this.view.element.focus({ preventScroll: true });
  }

  restore(query) {
    if (query) this.state = this.read(query);
    this.view.region = this.state.region;
    this.view.drawRegion();
    this.sides.value = this.state.against ? "against" : "for";
    return this.update();
  }

  // What is shown

  // Units by what they add to the class while all are on, so that the list stays as it is when some are off.
  async ranked() {
    const { contributions } = await this.answers.evidenceOf(this.state.class, NONE);
    const sign = this.state.against ? 1 : -1;
    return Array.from(contributions, (_, unit) => unit).sort(
      (a, b) => sign * (contributions[a] - contributions[b]) || a - b,
    );
  }

  // One scale for all maps of the photo: the largest value of those of its first classes and of the one that is chosen.
  async scaleOf(one) {
    const shared = this.answers.exact ? [...this.first, one] : [...this.highs.keys(), one];
    for (const needed of shared) {
      if (this.highs.has(needed)) continue;
      const { map } = await this.answers.evidenceOf(needed, NONE);
      this.highs.set(
        needed,
        map.reduce((high, value) => Math.max(high, Math.abs(value)), 0),
      );
    }
    return Math.max(...shared.map((needed) => this.highs.get(needed)));
  }

  async attempt(what) {
    try {
      await what();
      this.trouble.hidden = true;
    } catch (error) {
      this.trouble.textContent = error.message;
      this.trouble.hidden = false;
    }
  }

  // A later update overtakes an earlier one that still waits for the server.
  update() {
    const run = ++this.run;
    this.look += 1;
    this.units.mark(this.state.off);
    return this.attempt(async () => {
      const answered = this.answers.logitsWithout(this.state.off);
      const logits = answered instanceof Promise ? await this.awaited(run, answered) : answered;
      if (logits === null) return;
      this.without = { logits, shares: probabilities(logits) };
      this.drawPredictions();
      this.drawSummary();
      await this.drawClass(run);
    });
  }

  // What the server is asked for takes a while, and may be refused: what stands there meanwhile is of before.
  async awaited(run, answered) {
    this.became.textContent = "The network is running …";
    this.predictions.setAttribute("aria-busy", "true");
    try {
      return await this.latest(run, answered);
    } catch (error) {
      const again = h("button", { type: "button", onclick: () => this.update() }, "Try again");
      this.became.replaceChildren(`${this.unitsOff()}could not be measured. `, again);
      throw error;
    } finally {
      if (run === this.run) this.predictions.removeAttribute("aria-busy");
    }
  }

  // What was waited for, or null where something else is asked by now, whatever became of it.
  async latest(run, answered) {
    try {
      const found = await answered;
      return run === this.run ? found : null;
    } catch (error) {
      if (run === this.run) throw error;
      return null;
    }
  }

  async drawClass(run) {
    const { class: one, off, against, listed } = this.state;
    const high = await this.latest(run, this.scaleOf(one));
    const found = await this.latest(run, this.answers.evidenceOf(one, off));
    if (high === null || found === null) return;
    Object.assign(this, { found, high });
    this.drawMap();
    this.drawEvidence();
    const of = JSON.stringify([one, against]);
    if (this.listedOf === of && this.listed === listed) return;
    const units = await this.latest(run, this.ranked());
    const all = await this.latest(run, this.answers.evidenceOf(one, NONE));
    if (units === null || all === null) return;
    this.units.list(units.slice(0, listed), all.contributions, this.listedOf === of && this.listed < listed);
    Object.assign(this, { listedOf: of, listed });
    this.units.mark(off);
    this.more.hidden = listed >= this.told.units;
    this.unitsTitle.replaceChildren(
      `Units that speak ${against ? "against" : "for"} `,
      h("em", {}, breakable(this.labels[one])),
    );
  }

  // A look at another class's map while the pointer is on its row; the chosen one's comes back at once.
  async preview(one) {
    const look = ++this.look;
    if (one === this.state.class) return this.drawMap();
    if (!this.answers.exact) await new Promise((done) => setTimeout(done, PATIENCE));
    if (look !== this.look) return;
    try {
      const high = Math.max(this.high, await this.scaleOf(one));
      const found = await this.answers.evidenceOf(one, this.state.off);
      if (look === this.look) this.drawMap(one, found, high);
    } catch {
      // Nothing was asked for but a look.
    }
  }

  drawMap(one = this.state.class, found = this.found, high = this.high) {
    if (!found) return;
    const { opacity, level } = this.state;
    const height = (level / 100) * high;
    this.view.draw(found.map, high, { level: height, opacity: opacity / 100 });
    this.sliders.opacity.show(opacity, `${opacity}%`);
    this.sliders.level.show(level, level ? `±${number(height)}` : "off");
    if (this.barOf !== high) this.bar.replaceChildren(signedBar(high, site.colours.signed));
    this.barOf = high;
    this.mapSaid.replaceChildren(h("strong", {}, breakable(this.labels[one])), `: ${this.saidOfMap(found)}`);
  }

  saidOfMap(found) {
    const { size } = this.state.off;
    const leftOut = number(found.leftOut, 2, true);
    if (!this.answers.exact)
      return [
        `gradient × activation of each place; it leaves out ${leftOut} of the logit.`,
        size ? "With all units on." : "",
        "One scale for the classes looked at so far.",
      ].join(" ");
    return [
      `logits that each place adds; their mean and the bias (${leftOut}) are the logit.`,
      size ? `Without the ${count(size, "unit")} that ${size === 1 ? "is" : "are"} off.` : "",
      "One scale for the top five and the chosen class.",
    ].join(" ");
  }

  drawPredictions() {
    // The row that has the focus gets it again.
    const focused = [...this.predictions.querySelectorAll("button")].indexOf(document.activeElement);
    const actions = {
      chosen: this.state.class,
      choose: (one) => this.change({ class: one }),
      preview: (one) => this.preview(one),
    };
    const { size } = this.state.off;
    this.predictions.replaceChildren(
      ...predictionLists(this.labels, this.first, this.on, this.without, size, actions),
    );
    if (focused >= 0) [...this.predictions.querySelectorAll("button")][focused]?.focus({ preventScroll: true });
  }

  drawSummary() {
    const { size } = this.state.off;
    const became = whatBecame(this.labels, this.on, this.without, size);
    // What is said again in the same words would be read out again.
    if (this.became.textContent !== `${this.unitsOff()}${became}`)
      this.became.replaceChildren(h("strong", {}, this.unitsOff()), became);
    this.strip.textContent = inShort(this.labels, this.without, this.first.length);
    // Not disabled, or who pressed it would be nowhere.
    this.allOn.setAttribute("aria-disabled", String(!size));
  }

  unitsOff() {
    const { size } = this.state.off;
    return size ? `${size} of ${count(this.told.units, "unit")} off. ` : "";
  }

  drawEvidence() {
    const { region, off } = this.state;
    if (!region.size || !this.found || !this.without) {
      this.evidence.replaceChildren();
      return;
    }
    const cells = this.told.map.rows * this.told.map.cols;
    const clear = () => {
      this.brush.focus();
      this.change({ region: new Set() });
    };
    this.evidence.replaceChildren(
      ...evidenceTable(this.evidenceRows(region, off, cells), region.size, cells, this.answers.exact, clear),
    );
  }

  evidenceRows(region, off, cells) {
    if (this.answers.exact) {
      const found = this.answers.photo.evidence(region, off);
      const { logits } = this.without;
      const top = largest(logits, this.first.length);
      return [...new Set([...top, this.state.class])].map((one) => [
        this.labels[one],
        found[one],
        logits[one] - found[one],
        logits[one],
      ]);
    }
    const of = (chosen) => chosen.reduce((sum, cell) => sum + this.found.map[cell] / cells, 0);
    const [marked, all] = [of([...region]), of([...this.found.map.keys()])];
    return [[this.labels[this.state.class], marked, all - marked, all]];
  }
}
