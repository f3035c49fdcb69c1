// Which page an address shows, the keys of every page, and where the reader was when they come
// back.
import { aboutPage } from "./about-page.js";
import { address, listed, parsed, wasChosen } from "./addresses.js";
import { classPage } from "./class-page.js";
import { classesPage } from "./classes-page.js";
import { byId, h, messageOf } from "./dom.js";
import { filtersPage } from "./filters-page.js";
import { layerPage } from "./layer-page.js";
import { networkPage } from "./network-page.js";
import { count } from "./numbers.js";
import { SAME_PAGE, lost, main, page } from "./page.js";
import { photoPage } from "./photo-page.js";
import { takePhotos } from "./photo-start.js";
import { begin, site } from "./site.js";
import { unitPage } from "./unit-page.js";
import { headAt, layerAt } from "./units.js";
/** @import { KeyHelp } from "./page.js" */

/**
 * Shows a page; SAME_PAGE if it was shown already.
 * @typedef {(parts: string[], query: URLSearchParams) => unknown} Route
 */

/**
 * A page that needs an atlas; without one it says how to make one.
 * @param {Route} shown
 * @returns {Route}
 */
const needsAtlas = (shown) => (parts, query) =>
  site.atlas
    ? shown(parts, query)
    : lost(
        "This page shows how units behave over a data set, and no atlas of one is open. Make " +
          "one with " +
          "`unitscope scan PHOTOS --out ATLAS`, then open it with `unitscope explore ATLAS`.",
        "This page needs an atlas",
      );

/** @type {Record<string, Route>} */
const ROUTES = {
  photo: photoPage,
  network: networkPage,
  filters: (parts, query) => (parts[0] ? filtersPage(parts, query) : networkPage([], query)),
  layer: needsAtlas(layerPage),
  unit: needsAtlas(unitPage),
  classes: needsAtlas(classesPage),
  class: needsAtlas(classPage),
  about: needsAtlas(aboutPage),
};

/** The first page: with an atlas and neither model nor photos, its units. */
const firstPage = () => (site.model || site.photos.length || !site.atlas ? "photo" : "layer");

let rendered = false;

/** Show the page of the address. */
const render = async () => {
  const { parts, query } = parsed();
  const turn = ++page.turn;
  const { state } = history;
  const [name, ...rest] = parts[0] ? parts : [firstPage()];
  let isSame = false;
  try {
    if (Object.hasOwn(ROUTES, name)) isSame = (await ROUTES[name](rest, query)) === SAME_PAGE;
    else lost(`There is no page ${name}.`);
  } catch (error) {
    if (turn === page.turn) lost(messageOf(error));
  }
  if (turn !== page.turn || isSame) return;
  // Going back leads to the place that was left; going on begins at the top.
  window.scrollTo(0, state?.y || 0);
  if (rendered) main.querySelector("h1")?.focus({ preventScroll: true });
  rendered = true;
};

let waiting = 0;

/** Remember how far the page is scrolled, once scrolling rests. */
const remember = () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    try {
      history.replaceState({ y: window.scrollY }, "");
    } catch {
      // Some browsers forbid states to pages from disk: going back then begins at the top.
    }
  }, 120);
};

/**
 * Follow a link of the page, if it is there.
 * @param {string} selector
 */
const follow = (selector) => {
  const link = main.querySelector(selector);
  if (link instanceof HTMLElement) link.click();
};

/** @returns {HTMLInputElement | null} */
const searchInput = () => main.querySelector("input[type=search]");

/** Go to the search field of the page, or else to that of the list of units. */
const search = async () => {
  if (!searchInput()) {
    if (!site.atlas) return;
    const { parts, query } = parsed();
    const own = parts[0] === "unit" ? layerAt(parts[1]) : -1;
    const { name } = site.atlas.layers[own < 0 ? headAt() : own];
    location.hash = address(["layer", name], listed(query));
    await new Promise((done) =>
      window.addEventListener("hashchange", () => setTimeout(done), { once: true }),
    );
  }
  const input = searchInput();
  input?.scrollIntoView({ block: "nearest" });
  input?.focus();
  input?.select();
};

/** @type {Record<string, () => unknown>} */
const KEYS = {
  j: () => follow(".steps a[rel=next]"),
  k: () => follow(".steps a[rel=prev]"),
  u: () => follow(".crumbs a"),
  "/": search,
  "?": () => showHelp(),
};
/** @type {Record<string, string>} */
const SYNONYMS = { ArrowRight: "j", ArrowLeft: "k" };

const helpDialog = () => /** @type {HTMLDialogElement} */ (byId("help"));

/**
 * Whether an element needs a key for itself.
 * @param {Element} element
 * @param {string} key
 */
const needsKey = (element, key) => {
  // Keys type text and choose values; boxes to tick only need the space bar.
  if (element.closest("select, textarea, input:not([type=checkbox])")) {
    if (key === "Escape" && element instanceof HTMLElement) element.blur();
    return true;
  }
  // Arrows scroll wide tables sideways.
  return key.startsWith("Arrow") && element.closest(".scroll, [role=slider]") !== null;
};

/** @param {KeyboardEvent} event */
const pressed = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || helpDialog().open) return;
  if (event.target instanceof Element && needsKey(event.target, event.key)) return;
  const keys = { ...KEYS, ...page.keys };
  const key = Object.hasOwn(keys, event.key) ? event.key : SYNONYMS[event.key];
  if (key === undefined || !Object.hasOwn(keys, key)) return;
  event.preventDefault();
  keys[key]();
};

/** @type {KeyHelp[]} What keys do on every page; a page's own help comes first. */
const HELP = [
  [["j", "→"], "next (unit, class or card)"],
  [["k", "←"], "previous"],
  [["Enter"], "open what is marked"],
  [["u"], "up"],
  [["/"], "search"],
  [["?"], "these keys"],
];

const showHelp = () => {
  const own = page.help.flatMap(([keys]) => keys);
  const others = HELP.filter(([[key]]) => !own.includes(key));
  const lines = [...page.help, ...others].flatMap(([keys, text]) => [
    h(
      "dt",
      {},
      keys.map((key) => [h("kbd", {}, key), " "]),
    ),
    h("dd", {}, text),
  ]);
  byId("keys").replaceChildren(...lines);
  helpDialog().showModal();
};

/**
 * What a reader must know before they believe a page.
 * @returns {[strong: string, text: string][]}
 */
const warnings = () => {
  const { atlas, random } = site;
  /** @type {[string, string][]} */
  const notices = [];
  if (random)
    notices.push([
      "The weights are random.",
      " This network has learned nothing, so nothing below means anything.",
    ]);
  if (atlas && !atlas.complete)
    notices.push(["A part of the data set.", " This atlas does not hold all of its images."]);
  if (atlas && atlas.missing > 0)
    notices.push([
      `${count(atlas.missing, "photo")} could not be shown.`,
      " They are missing or have changed; their places are grey and say why.",
    ]);
  return notices;
};

const listen = () => {
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  history.scrollRestoration = "manual";
  window.addEventListener("hashchange", () => {
    if (!wasChosen()) render();
  });
  window.addEventListener("scroll", remember, { passive: true });
  document.addEventListener("keydown", pressed);
  takePhotos();
};

const start = async () => {
  try {
    await begin();
  } catch (error) {
    const message = h("p", {}, messageOf(error));
    main.replaceChildren(h("h1", {}, "Nothing can be shown"), message);
    return;
  }
  page.render = render;
  const { architecture, atlas } = site;
  byId("of").textContent = atlas ? `${architecture} over ${atlas.data}` : architecture;
  byId("warnings").replaceChildren(
    ...warnings().map(([strong, text]) =>
      h("p", { class: "warning" }, h("strong", {}, strong), text),
    ),
  );
  // Tiles have the shape of the network's input.
  const [rows, cols] = site.input;
  document.documentElement.style.setProperty("--aspect", String(cols / rows));
  listen();
  render();
};

start();
