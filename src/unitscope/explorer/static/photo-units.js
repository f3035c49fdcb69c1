// The units that carry a class on one photo, as switches.
import { address } from "./addresses.js";
import { index, site } from "./data.js";
import { h } from "./dom.js";
import { heat } from "./maps.js";
import { number } from "./numbers.js";
import { named } from "./units.js";

const THUMB = 96;
// Milliseconds of a frame that go to thumbnails.
const FILLING = 8;

// The network's part of the photo, small, to lay maps of units on.
const croppedPhoto = (picture, told) => {
  const canvas = document.createElement("canvas");
  const [left, top, right, bottom] = told.box;
  const factor = picture.naturalWidth / told.size[0];
  const longest = THUMB / Math.max(...told.input);
  canvas.width = Math.max(1, Math.round(told.input[1] * longest));
  canvas.height = Math.max(1, Math.round(told.input[0] * longest));
  const box = [left, top, right - left, bottom - top].map((value) => value * factor);
  canvas.getContext("2d").drawImage(picture, ...box, 0, 0, canvas.width, canvas.height);
  return canvas;
};

export class UnitList {
  // `toggle(unit)` is called when a unit is switched off or on again.
  constructor(answers, picture, toggle) {
    Object.assign(this, { answers, picture, toggle, switches: new Map(), waiting: new Set(), cropped: null });
    this.atlasLayer = index ? index.layers.find((layer) => layer.name === answers.told.layer) : null;
    this.element = h("ol", { class: this.atlasLayer ? "unit-list linked" : "unit-list" });
    // Thumbnails are drawn when they come near the window.
    this.watcher = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: "300px 0px" });
  }

  seen(entries) {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      this.watcher.unobserve(target);
      this.waiting.add(target);
    }
    if (!this.filling && this.waiting.size) this.filling = requestAnimationFrame(() => this.fillSome());
  }

  // A few in each frame.
  fillSome() {
    const end = performance.now() + FILLING;
    for (const frame of this.waiting) {
      this.waiting.delete(frame);
      if (frame.isConnected) this.fill(frame, Number(frame.dataset.unit));
      if (performance.now() > end) break;
    }
    this.filling = this.waiting.size ? requestAnimationFrame(() => this.fillSome()) : 0;
  }

  fill(frame, unit) {
    const { told } = this.answers;
    const { values, map } = this.answers.mapOfUnit(unit);
    let largest = 0;
    for (const value of values) largest = Math.max(largest, value);
    if (this.picture.naturalWidth) {
      this.cropped ??= croppedPhoto(this.picture, told);
      const { width, height } = this.cropped;
      const photo = h("canvas", { class: "crop-photo", width, height });
      photo.getContext("2d").drawImage(this.cropped, 0, 0);
      frame.append(photo);
    }
    frame.append(heat(values, largest, { map }, told.input, site.colours.heat));
  }

  item(unit, contribution, most) {
    const who = this.atlasLayer ? named(this.atlasLayer, unit) : null;
    const name = who && who.kind !== "none" ? who.name : "";
    const bar = h("span", { class: contribution < 0 ? "amount against" : "amount" });
    bar.style.width = `${(100 * Math.abs(contribution)) / (most || 1)}%`;
    const adds = number(contribution, 2, true);
    const frame = h("span", { class: "thumb", "aria-hidden": "true", "data-unit": unit });
    const button = h(
      "button",
      {
        type: "button",
        role: "switch",
        class: "unit-switch",
        "aria-label": `unit ${unit}${name ? `, ${name}` : ""}, ${adds} logits`,
        onclick: () => this.toggle(unit),
      },
      frame,
      h(
        "span",
        { class: "unit-said" },
        h("span", { class: "switched" }, "off"),
        h("span", { class: "unit" }, `unit ${unit}`),
        name ? h("span", { class: "unit-name" }, name) : null,
        h("span", { class: "value" }, adds),
        h("span", { class: "amounts" }, bar),
      ),
    );
    this.switches.set(unit, button);
    this.watcher.observe(frame);
    const page = this.atlasLayer && address(["unit", this.atlasLayer.name, unit]);
    return h("li", {}, button, page ? h("a", { class: "more", href: page }, "its page") : null);
  }

  // Lists `units` with what they contribute; `longer` says that those listed already stay.
  list(units, contributions, longer) {
    if (!longer) {
      this.watcher.disconnect();
      this.waiting.clear();
      this.switches.clear();
      this.element.replaceChildren();
    }
    const most = Math.max(...units.map((unit) => Math.abs(contributions[unit])), 0);
    const more = units.filter((unit) => !this.switches.has(unit));
    this.element.append(...more.map((unit) => this.item(unit, contributions[unit], most)));
  }

  mark(off) {
    for (const [unit, button] of this.switches) button.setAttribute("aria-checked", String(!off.has(unit)));
  }

  // The next or previous unit gets the focus; from nowhere, the first.
  step(by) {
    const all = [...this.switches.values()];
    const at = all.indexOf(document.activeElement);
    const next = at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by));
    if (all[next]) all[next].focus();
  }
}
