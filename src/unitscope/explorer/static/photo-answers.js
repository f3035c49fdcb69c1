// What can be asked of a photo that was explained, exactly by algebra here, or measured by the server.
import { ExactPhoto, readoutOf } from "./algebra.js";
import { load, send, site } from "./data.js";
import { floats } from "./maps.js";

// Both kinds answer the same questions: `logitsWithout(off)` and `evidenceOf(class, off)`, the latter with the class's
// map, every unit's contribution, and what both leave out of the logit.
class ExactAnswers {
  constructor(told, readout) {
    this.exact = true;
    this.told = told;
    this.photo = new ExactPhoto(told, readout);
    this.logits = this.photo.logits;
  }

  logitsWithout(off) {
    return this.photo.logitsWithout(off);
  }

  evidenceOf(one, off) {
    const { photo } = this;
    return { map: photo.map(one, off), contributions: photo.contributions(one, off), leftOut: photo.leftOut(one) };
  }

  mapOfUnit(unit) {
    return { values: this.photo.mapOfUnit(unit), map: this.told.map };
  }
}

class MeasuredAnswers {
  constructor(told) {
    this.exact = false;
    this.told = told;
    this.logits = floats(told.logits);
    this.thumbnails = floats(told.thumbnails);
  }

  async logitsWithout(off) {
    if (!off.size) return this.logits;
    const { id, layer } = this.told;
    const body = JSON.stringify({ photo: id, layer, units: [...off] });
    return floats((await send("ablated", body, { "Content-Type": "application/json" })).logits);
  }

  // With all units on: a gradient is that of the network as it is.
  async evidenceOf(one) {
    const { id, layer } = this.told;
    const found = await load("evidence", `?${new URLSearchParams({ photo: id, layer, class: one })}`);
    return { map: floats(found.map), contributions: floats(found.contributions), leftOut: found.left_out };
  }

  // Large maps come smaller, to be looked at only.
  mapOfUnit(unit) {
    const [rows, cols] = this.told.thumbnail;
    const { down, across, rows: allRows, cols: allCols } = this.told.map;
    const smaller = ([start, step], all, few) => [start + (step * (all / few - 1)) / 2, (step * all) / few];
    return {
      values: this.thumbnails.subarray(unit * rows * cols, (unit + 1) * rows * cols),
      map: { rows, cols, down: smaller(down, allRows, rows), across: smaller(across, allCols, cols) },
    };
  }
}

// The last photo is kept, since its page is left and come back to.
let kept = { key: null, answers: null };

export const answersOf = async (id, layer) => {
  const key = JSON.stringify([id, layer]);
  if (kept.key === key) return kept.answers;
  const query = layer && layer !== (site.head && site.head.layer) ? `?${new URLSearchParams({ layer })}` : "";
  const [told, head] = await Promise.all([load(`photos/${encodeURIComponent(id)}`, query), query ? null : headOf()]);
  const answers = told.exact ? new ExactAnswers(told, head || (await headOf())) : new MeasuredAnswers(told);
  kept = { key, answers };
  return answers;
};

let readout = null;
const headOf = async () => {
  if (!readout && site.head && site.head.exact) readout = readoutOf(await load("head"));
  return readout;
};
