// The units that carry a class on one photo, as buttons that switch them off.
import { address } from "./addresses.js";
import { index, site } from "./data.js";
import { h } from "./dom.js";
import { heat } from "./maps.js";
import { number } from "./numbers.js";
import { named } from "./units.js";

const THUMB = 96;
// Milliseconds of a frame that go to thumbnails.
const FILLING = 8;

// The network's part of the photo, small and grey, to lay maps of units on.
const croppedPhoto = (picture, told) => {
  const canvas = h("canvas", { class: "crop-photo", "aria-hidden": "true" });
  const [left, top, right, bottom] = told.box;
  const factor = picture.naturalWidth / told.size[0];
  const longest = THUMB / Math.max(...told.input);
  canvas.width = Math.round(told.input[1] * longest);
  canvas.height = Math.round(told.input[0] * longest);
  const context = canvas.getContext("2d");
  const box = [left, top, right - left, bottom - top].map((value) => value * factor);
  context.drawImage(picture, ...box, 0, 0, canvas.width, canvas.height);
  return canvas;
};

export class UnitList {
  // `toggle(unit)` is called when a unit is switched off or on again.
  constructor(answers, picture, toggle) {
    Object.assign(this, { answers, picture, toggle, buttons: new Map() });
    this.atlasLayer = index ? index.layers.find((layer) => layer.name === answers.told.layer) : null;
    this.element = h("ol", { class: "unit-list" });
  }

  fill(frame, unit) {
    const { told } = this.answers;
    const { values, map } = this.answers.mapOfUnit(unit);
    let largest = 0;
    for (const value of values) largest = Math.max(largest, value);
    if (this.picture.naturalWidth) frame.append(croppedPhoto(this.picture, told));
    frame.append(heat(values, largest, { map }, told.input, site.colours.heat));
  }

  // Thumbnails come after all that is read, a few in each frame; those of an earlier list come no more.
  fillSoon(frames) {
    this.waiting = frames;
    const some = () => {
      if (this.waiting !== frames) return;
      const end = performance.now() + FILLING;
      while (frames.length && performance.now() < end) this.fill(...frames.shift());
      if (frames.length) requestAnimationFrame(some);
    };
    requestAnimationFrame(some);
  }

  item(unit, contribution, most, frame) {
    const who = this.atlasLayer ? named(this.atlasLayer, unit) : null;
    const bar = h("span", { class: contribution < 0 ? "amount against" : "amount" });
    bar.style.width = `${(100 * Math.abs(contribution)) / (most || 1)}%`;
    const button = h(
      "button",
      { type: "button", class: "unit-switch", onclick: () => this.toggle(unit) },
      frame,
      h(
        "span",
        { class: "unit-said" },
        h("span", { class: "unit" }, `unit ${unit}`),
        who && who.kind !== "none" ? h("span", { class: "unit-name" }, who.name) : null,
        h("span", { class: "value" }, number(contribution, 2, true)),
        h("span", { class: "amounts", "aria-hidden": "true" }, bar),
        h("span", { class: "switched", "aria-hidden": "true" }, "off"),
      ),
    );
    this.buttons.set(unit, button);
    const more = this.atlasLayer
      ? h("a", { class: "more", href: address(["unit", this.atlasLayer.name, unit]) }, "its page")
      : null;
    return h("li", {}, button, more);
  }

  // Lists `units` with what they contribute.
  list(units, contributions) {
    const most = Math.max(...units.map((unit) => Math.abs(contributions[unit])), 0);
    this.buttons.clear();
    const frames = units.map((unit) => [h("span", { class: "thumb" }), unit]);
    this.element.replaceChildren(...frames.map(([frame, unit]) => this.item(unit, contributions[unit], most, frame)));
    this.fillSoon(frames);
  }

  mark(off) {
    for (const [unit, button] of this.buttons) button.setAttribute("aria-pressed", String(off.has(unit)));
  }

  // The next or previous unit gets the focus; from nowhere, the first.
  step(by) {
    const all = [...this.buttons.values()];
    const at = all.indexOf(document.activeElement);
    const next = at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by));
    if (all[next]) all[next].focus();
  }
}
