// One photo: what the network predicts, where the evidence lies, which units carry it, and what is
// left without them.
import { choose, parsed } from "./addresses.js";
import { largest } from "./algebra.js";
import { h, messageOf } from "./dom.js";
import { count } from "./numbers.js";
import { SAME_PAGE, main, page, show } from "./page.js";
import { answersOf, evidenceFor } from "./photo-answers.js";
import { evidenceTable, exactRows, measuredRow } from "./photo-evidence.js";
import { FlipSearch } from "./photo-flip.js";
import { PHOTO_KEYS, photoKeys } from "./photo-keys.js";
import { PhotoLayout } from "./photo-layout.js";
import { PhotoMap } from "./photo-map.js";
import { inShort, predictionLists, predictionOf, whatBecame } from "./photo-predictions.js";
import { showWaiting, startPage } from "./photo-start.js";
import { addressed, stateOf } from "./photo-state.js";
import { UnitList, offBy, rankedUnits } from "./photo-units.js";
import { PhotoView } from "./photo-view.js";
import { site } from "./site.js";
/** @import { Answers, Without } from "./photo-answers.js" */
/** @import { Prediction } from "./photo-predictions.js" */
/** @import { UnitChoice } from "./photo-units.js" */
/** @import { PhotoState } from "./photo-state.js" */

// So many classes are listed.
const TOP_CLASSES = 5;
/** @type {Set<number>} */
const NONE = new Set();
// Milliseconds: before the page says that it waits, and before a hover asks the server.
const PATIENCE = 150;

/** @type {PhotoPage | null} */
let shown = null;

/**
 * @param {string[]} parts
 * @param {URLSearchParams} query
 */
export const photoPage = async ([id], query) => {
  if (!id) return startPage();
  const layer = query.get("layer");
  // Going back and forth between states of the same page needs no new page.
  if (shown?.id === id && shown.layer === layer) {
    await shown.restore(query);
    return SAME_PAGE;
  }
  const { turn } = page;
  const isCurrent = () => turn === page.turn;
  // The page that is left is not usable any more.
  page.leave();
  page.leave = () => {};
  main.inert = true;
  const patience = setTimeout(() => isCurrent() && showWaiting(), PATIENCE);
  // The picture is loaded along with the numbers rather than after them.
  new Image().src = `data/photos/${encodeURIComponent(id)}.jpg`;
  try {
    const answers = await answersOf(id, layer).finally(() => clearTimeout(patience));
    if (isCurrent()) await new PhotoPage(id, layer, answers, query).open();
  } catch (error) {
    if (isCurrent()) startPage(messageOf(error));
  } finally {
    if (isCurrent()) main.inert = false;
  }
  return undefined;
};

class PhotoPage {
  /**
   * @param {string} id
   * @param {string | null} layer
   * @param {Answers} answers
   * @param {URLSearchParams} query
   */
  constructor(id, layer, answers, query) {
    this.id = id;
    this.layer = layer;
    this.answers = answers;
    this.labels = site.labels;
    // Counts updates: a later one overtakes an earlier one that still waits.
    this.run = 0;
    this.on = predictionOf(answers.logits);
    this.without = this.on;
    /** @type {Prediction | null} By the direct effect of heads of attention. */
    this.direct = null;
    this.flips = new FlipSearch(answers);
    this.first = largest(answers.logits, Math.min(TOP_CLASSES, this.labels.length));
    /** @type {PhotoState} */
    this.state = this.read(query);
    // What is listed: the class and side, and how many units.
    this.listedOf = "";
    this.listed = 0;
    this.layout = new PhotoLayout(id, answers, this.actions());
    this.view = new PhotoView(answers.photo, {
      mark: (region, done) => {
        this.state.region = region;
        this.drawEvidence();
        if (done) this.write(true);
      },
      point: (value) => this.map.drawPointed(value),
    });
    this.map = new PhotoMap(this.view, this.layout, answers, this.first, () => this.state);
    this.units = new UnitList(
      answers,
      this.view.picture,
      (unit) => this.toggle(unit),
      (unit) => this.change({ head: this.state.head === unit ? null : unit }),
    );
  }

  async open() {
    const { view, layout, answers } = this;
    show(answers.photo.name, "photo", layout.contents(view.element, this.units.element));
    page.keys = this.keys();
    page.help = PHOTO_KEYS;
    page.leave = () => {
      shown = null;
    };
    shown = this;
    // Thumbnails are cut out of the picture.
    await view.picture.decode().catch(() => {});
    await this.restore();
  }

  /** What the controls do. */
  actions() {
    return {
      slide: (/** @type {"opacity" | "level"} */ name, /** @type {number} */ value) => {
        this.state[name] = value;
        this.map.draw();
      },
      slid: () => this.write(false),
      brush: () => this.setMarking(!this.view.marking),
      more: () => this.listMore(),
      side: (/** @type {boolean} */ against) => this.change({ against }),
      chooseClass: (/** @type {number} */ index) => this.chooseClass(index),
      oppose: (/** @type {number | null} */ rival) => this.change({ rival }),
      flip: () => this.flip(),
      toggle: (/** @type {number} */ unit) => this.toggle(unit),
      switchUnits: (/** @type {UnitChoice} */ choice) => this.switchUnits(choice),
    };
  }

  keys() {
    /**
     * @param {"opacity" | "level"} name
     * @param {number} on
     */
    const toggled = (name, on) => () => {
      this.state[name] = this.state[name] ? 0 : on;
      this.map.draw();
      this.write(false);
    };
    const actions = {
      ...this.actions(),
      step: (/** @type {1 | -1} */ by) => this.units.step(by),
      second: () => this.layout.contrast.toggleSecond(),
      map: toggled("opacity", 100),
      contour: toggled("level", 50),
      reset: () => this.change({ off: new Set(), region: new Set() }),
    };
    return photoKeys(actions, this.first);
  }

  // What is chosen

  /** @param {URLSearchParams} query */
  read(query) {
    return stateOf(query, this.answers.photo, this.labels.length, this.first[0]);
  }

  /** @param {boolean} step */
  write(step) {
    const state = addressed(this.state, this.first[0]);
    // After the choice is drawn: writing an address takes as long as all the algebra.
    setTimeout(() => {
      if (shown === this && this.isHere()) choose(state, step);
    });
  }

  /** Whether the address is still this photo's. It changes a moment before the page does. */
  isHere() {
    const { parts, query } = parsed();
    return parts[0] === "photo" && parts[1] === this.id && query.get("layer") === this.layer;
  }

  /** @param {Partial<PhotoState>} chosen */
  change(chosen) {
    Object.assign(this.state, chosen);
    this.write(true);
    return this.restore();
  }

  /**
   * Choose the class that is explained. The rival changes places with it.
   * @param {number} index
   */
  chooseClass(index) {
    const { class: before, rival } = this.state;
    return this.change({ class: index, rival: rival === index ? before : rival });
  }

  /** What the map, the units and the regions are of. */
  get target() {
    return { index: this.state.class, rival: this.state.rival };
  }

  /** Search for units that flip the prediction, and switch them off. */
  flip() {
    const { run } = this;
    const { contrast } = this.layout;
    if (contrast.flip.hidden) return undefined;
    /** @param {string} words */
    const tell = (words) => {
      if (run !== this.run) throw new Error("Another search is of more use.");
      contrast.say([words]);
    };
    return this.attempt(async () => {
      const search = this.flips.search(this.target, this.state.off, tell);
      const off = await this.latest(run, search);
      if (off !== null) await this.change({ off });
    });
  }

  /** @param {number} unit */
  toggle(unit) {
    const off = new Set(this.state.off);
    if (!off.delete(unit)) off.add(unit);
    return this.change({ off });
  }

  /** @param {UnitChoice} choice */
  switchUnits(choice) {
    return this.attempt(async () => {
      const ranked = await this.latest(this.run, this.ranked());
      if (ranked !== null) await this.change({ off: offBy(choice, ranked, this.state.off) });
    });
  }

  listMore() {
    const { units } = this.answers.photo;
    this.state.listed = Math.min(units, 2 * this.state.listed);
    this.write(false);
    return this.update();
  }

  /** @param {boolean} on */
  setMarking(on) {
    this.view.setMarking(on);
    this.layout.brush.setAttribute("aria-pressed", String(on));
    if (!on) return;
    this.view.element.scrollIntoView({ block: "nearest" });
    this.view.element.focus({ preventScroll: true });
  }

  /** @param {URLSearchParams} [query] */
  restore(query) {
    if (query) this.state = this.read(query);
    this.view.region = this.state.region;
    this.view.drawRegion();
    this.layout.offerSides(this.target, this.state.against);
    this.layout.contrast.choose(this.target);
    return this.update();
  }

  // What is shown

  /**
   * Units by what they add to the class or margin while all are on, so that the list stays the same when some
   * are off.
   */
  async ranked() {
    const { index, rival } = this.target;
    const { contributions } = await evidenceFor(this.answers, index, rival, NONE);
    return rankedUnits(contributions, this.state.against);
  }

  /**
   * Do something, and say what goes wrong.
   * @param {() => Promise<void>} action
   */
  async attempt(action) {
    const { trouble } = this.layout;
    try {
      await action();
      trouble.hidden = true;
    } catch (error) {
      trouble.textContent = messageOf(error);
      trouble.hidden = false;
    }
  }

  /** Show the state. A later update overtakes an earlier one that still waits for the server. */
  update() {
    const run = ++this.run;
    this.map.endPreview();
    this.units.mark(this.state.off, this.state.head);
    return this.attempt(async () => {
      const answer = this.answers.without(this.state.off);
      const without = answer instanceof Promise ? await this.awaited(run, answer) : answer;
      if (without === null) return;
      this.without = predictionOf(without.logits);
      this.direct = without.direct && predictionOf(without.direct);
      this.drawPredictions();
      this.drawSummary();
      const { contrast } = this.layout;
      contrast.drawMargin(this.state, without);
      contrast.say(this.flips.wordsOf(this.target, this.state.off));
      await this.drawClass(run);
    });
  }

  /**
   * Wait for logits from the server, and say so meanwhile.
   * @param {number} run
   * @param {Promise<Without>} answer
   */
  async awaited(run, answer) {
    const { became, predictions } = this.layout;
    became.textContent = "The network is running …";
    predictions.setAttribute("aria-busy", "true");
    try {
      return await this.latest(run, answer);
    } catch (error) {
      const again = h("button", { type: "button", onclick: () => this.update() }, "Try again");
      became.replaceChildren(`${this.unitsOff()}could not be measured. `, again);
      throw error;
    } finally {
      if (run === this.run) predictions.removeAttribute("aria-busy");
    }
  }

  /**
   * What was waited for, or null where another update began meanwhile, even if it failed.
   * @template T
   * @param {number} run
   * @param {T | Promise<T>} answer
   * @returns {Promise<T | null>}
   */
  async latest(run, answer) {
    try {
      const value = await answer;
      return run === this.run ? value : null;
    } catch (error) {
      if (run === this.run) throw error;
      return null;
    }
  }

  /**
   * Draw the chosen class or margin: its map, the evidence of the region, its units.
   * @param {number} run
   */
  async drawClass(run) {
    const { target, answers } = this;
    const { index, rival } = target;
    const { off, head } = this.state;
    const high = await this.latest(run, this.map.scaleOf(index, rival));
    const evidence = await this.latest(run, evidenceFor(answers, index, rival, off));
    const ofHead = await this.latest(run, this.map.mapOfHead(head, target));
    if (high === null || evidence === null || ofHead === null) return;
    this.map.set(target, evidence, high, ofHead);
    this.map.draw();
    this.layout.contrast.drawSum(this.state, evidence);
    this.drawEvidence();
    this.layout.drawParts(target, this.on.logits, off.size);
    await this.drawUnits(run);
  }

  /**
   * List the units of the chosen class, unless they are listed already.
   * @param {number} run
   */
  async drawUnits(run) {
    const { target } = this;
    const { index, rival } = target;
    const { off, against, listed } = this.state;
    const of = JSON.stringify([index, rival, against]);
    if (this.listedOf === of && this.listed === listed) return;
    const units = await this.latest(run, this.ranked());
    const all = await this.latest(run, evidenceFor(this.answers, index, rival, NONE));
    if (units === null || all === null) return;
    const longer = this.listedOf === of && this.listed < listed;
    this.units.list(units.slice(0, listed), all.contributions, longer);
    this.units.mark(off, this.state.head);
    this.listedOf = of;
    this.listed = listed;
    this.layout.more.hidden = listed >= this.answers.photo.units;
    this.layout.titleUnits(target, against);
  }

  drawPredictions() {
    const { predictions } = this.layout;
    const buttons = () => [...predictions.querySelectorAll("button")];
    // The row with the focus gets it again.
    const focused = buttons().findIndex((button) => button === document.activeElement);
    const lists = predictionLists(
      this.labels,
      this.first,
      this.on,
      this.without,
      { off: this.state.off.size, noun: this.answers.noun, direct: this.direct },
      {
        chosen: this.state.class,
        rival: this.state.rival,
        choose: (index) => this.chooseClass(index),
        preview: (index) => this.map.preview(index),
      },
    );
    predictions.replaceChildren(...lists);
    if (focused >= 0) buttons()[focused]?.focus({ preventScroll: true });
  }

  drawSummary() {
    const { became, strip, allOn } = this.layout;
    const { size } = this.state.off;
    const { noun } = this.answers;
    const words = size
      ? whatBecame(this.labels, this.on, this.without, this.direct)
      : `All ${noun}s are on.`;
    // Screen readers would read the same words out again.
    if (became.textContent !== `${this.unitsOff()}${words}`)
      became.replaceChildren(h("strong", {}, this.unitsOff()), words);
    strip.textContent = inShort(this.labels, this.without, this.first.length);
    // Not disabled: that would take the focus from whoever pressed it.
    allOn.setAttribute("aria-disabled", String(!size));
  }

  unitsOff() {
    const { size } = this.state.off;
    const { photo, noun } = this.answers;
    return size ? `${size} of ${count(photo.units, noun)} off. ` : "";
  }

  drawEvidence() {
    const { evidence: place, brush } = this.layout;
    const { evidence } = this.map;
    const { answers, state } = this;
    place.replaceChildren();
    if (!state.region.size || !evidence) return;
    const clear = () => {
      brush.focus();
      this.change({ region: new Set() });
    };
    const rows = answers.exact
      ? exactRows(this.target, answers.algebra, state, this.without.logits)
      : [measuredRow(this.target, evidence.map, state.region)];
    place.append(...evidenceTable(rows, state.region.size, answers, clear));
  }
}
