// The page that is shown: its title, its contents, its place in the navigation, and its keys.
import { address } from "./addresses.js";
import { byId, flatten, h, link, titleCase } from "./dom.js";
import { site } from "./site.js";
/** @import { Child } from "./dom.js" */

export const main = byId("main");

/** What a page returns that only went to another state of itself: focus and scrolling stay. */
export const SAME_PAGE = Symbol("same page");

/**
 * What a key does, for the help.
 * @typedef {[keys: string[], text: string]} KeyHelp
 */
/**
 * What a page can set while it is shown.
 * @typedef {object} Shown
 * @property {Record<string, () => unknown>} keys What keys do on this page alone.
 * @property {KeyHelp[]} help The same in words.
 * @property {() => unknown} leave Called when another page is shown.
 * @property {() => unknown} refresh Draws the page anew after a choice.
 */

/** @returns {Shown} */
const blank = () => ({ keys: {}, help: [], leave: () => {}, refresh: () => {} });

/**
 * The page that is shown. `render` shows the page of the address. `turn` counts changes of the
 * address: what a page waited for meanwhile is out of date.
 * @type {Shown & { render: () => unknown, turn: number }}
 */
export const page = { ...blank(), render: () => {}, turn: 0 };

/**
 * Show a page.
 * @param {string} title
 * @param {string | null} place Its part of the navigation: "photo", "network", "layer NAME" …
 * @param {...Child} children
 */
export const show = (title, place, ...children) => {
  page.leave();
  Object.assign(page, blank());
  document.title = `${title} – ${site.architecture} – unitscope`;
  const links = places().map(([name, text, parts]) =>
    h("a", { href: address(parts), "aria-current": name === place ? "page" : false }, text),
  );
  byId("places").replaceChildren(...links);
  main.inert = false;
  main.replaceChildren(...flatten(children));
};

/**
 * The navigation: a place's name, its text and its address.
 * @returns {[name: string, text: string, parts: string[]][]}
 */
const places = () => {
  const { atlas } = site;
  /** @type {[string, string, string[]][]} */
  const entries = [];
  if (site.live || site.photos.length) entries.push(["photo", "Photo", ["photo"]]);
  if (site.model) entries.push(["network", "Network", ["network"]]);
  if (!atlas) return entries;
  for (const { name, names } of atlas.layers)
    entries.push([`layer ${name}`, names ? titleCase(name) : name, ["layer", name]]);
  entries.push(["classes", "Classes", ["classes"]], ["about", "About", ["about"]]);
  return entries;
};

/**
 * Say that an address leads nowhere.
 * @param {string} text
 * @param {string} [title]
 */
export const lost = (text, title = "Not found") =>
  show(
    title,
    null,
    h("h1", { tabindex: "-1" }, title),
    h("p", {}, text, " ", link("#/", "Back to the start")),
  );

/**
 * The heading and a count beside it.
 * @param {Child} heading
 * @param {Child} beside
 */
export const titled = (heading, beside) =>
  h("div", { class: "title" }, h("h1", { tabindex: "-1" }, heading), beside);

/**
 * Whether the address changed since `here`: what a page waited for is shown no more.
 * @param {string} here
 */
export const hasLeft = (here) => here !== location.hash;

/**
 * A link to the page before or after this one; its text alone where there is none.
 * @param {string | null} href
 * @param {string} text
 * @param {"prev" | "next"} rel
 * @param {string} [title]
 */
export const stepLink = (href, text, rel, title) =>
  href === null ? h("span", { class: "soft" }, text) : h("a", { href, rel, title }, text);
