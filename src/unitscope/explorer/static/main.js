// Which page an address shows, what the keys do on every page, and where one stood when one comes back.
import { aboutPage } from "./about-page.js";
import { address, listed, parsed, wasChosen } from "./addresses.js";
import { classPage } from "./class-page.js";
import { classesPage } from "./classes-page.js";
import { begin, index, site } from "./data.js";
import { h } from "./dom.js";
import { filtersPage } from "./filters-page.js";
import { layerPage } from "./layer-page.js";
import { networkPage } from "./network-page.js";
import { count } from "./numbers.js";
import { SAME_PAGE, lost, main, page } from "./page.js";
import { photoPage } from "./photo-page.js";
import { takePhotos } from "./photo-start.js";
import { unitPage } from "./unit-page.js";

// With an atlas and no model, the units come first; and what needs an atlas says how to make one where there is none.
const ROUTES = {
  photo: photoPage,
  network: networkPage,
  filters: (parts, query) => (parts[0] ? filtersPage(parts, query) : networkPage([], query)),
  layer: (parts, query) => needsAtlas(layerPage, parts, query),
  unit: (parts, query) => needsAtlas(unitPage, parts, query),
  classes: (parts, query) => needsAtlas(classesPage, parts, query),
  class: (parts, query) => needsAtlas(classPage, parts, query),
  about: (parts, query) => needsAtlas(aboutPage, parts, query),
};
const needsAtlas = (shown, parts, query) =>
  index
    ? shown(parts, query)
    : lost(
        "This page tells what units do over a data set, and there is no atlas of one: make it with " +
          "`unitscope scan PHOTOS --out ATLAS` and open it with `unitscope explore ATLAS`.",
        "This page needs an atlas",
      );

let rendered = false;
const render = async () => {
  const { parts, query } = parsed();
  const turn = ++page.turn;
  const state = history.state;
  let kept = false;
  const first = site.model || site.photos.length || !index ? "photo" : "layer";
  const [name, ...rest] = parts[0] ? parts : [first];
  try {
    if (Object.hasOwn(ROUTES, name)) kept = (await ROUTES[name](rest, query)) === SAME_PAGE;
    else lost(`There is no page ${name}.`);
  } catch (error) {
    if (turn === page.turn) lost(error.message);
  }
  if (turn !== page.turn || kept) return;
  // Whoever goes back finds the place that was left; whoever goes on begins at the top.
  window.scrollTo(0, (state && state.y) || 0);
  const heading = main.querySelector("h1");
  if (rendered && heading) heading.focus({ preventScroll: true });
  rendered = true;
};

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

const follow = (selector) => {
  const there = main.querySelector(selector);
  if (there) there.click();
};
const search = async () => {
  if (!main.querySelector("input[type=search]")) {
    if (!index) return;
    const { parts, query } = parsed();
    const known = parts[0] === "unit" && index.layers.some((layer) => layer.name === parts[1]);
    const head = index.layers.find((layer) => layer.head) || index.layers[0];
    location.hash = address(["layer", known ? parts[1] : head.name], listed(query));
    await new Promise((done) => window.addEventListener("hashchange", () => setTimeout(done), { once: true }));
  }
  const input = main.querySelector("input[type=search]");
  input.scrollIntoView({ block: "nearest" });
  input.focus();
  input.select();
};
const KEYS = {
  j: () => follow(".steps a[rel=next]"),
  k: () => follow(".steps a[rel=prev]"),
  u: () => follow(".crumbs a"),
  "/": search,
  "?": () => help(),
};
const SAME = { ArrowRight: "j", ArrowLeft: "k" };
const pressed = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
  const within = event.target instanceof Element ? event.target : document.body;
  // Text is typed and values are chosen with keys; boxes to tick leave them all but the space bar.
  if (within.closest("select, textarea, input:not([type=checkbox])")) {
    if (event.key === "Escape") within.blur();
    return;
  }
  // Wide tables are moved sideways by arrows.
  if (event.key.startsWith("Arrow") && within.closest(".scroll, [role=slider]")) return;
  const keys = { ...KEYS, ...page.keys };
  const key = Object.hasOwn(keys, event.key) ? event.key : SAME[event.key];
  if (Object.hasOwn(keys, key)) {
    event.preventDefault();
    keys[key]();
  }
};

// What the keys do, told for the page that is shown: each page says its own in `page.told`.
const TOLD = [
  [["j", "→"], "next (unit, class or card)"],
  [["k", "←"], "previous"],
  [["Enter"], "open what is marked"],
  [["u"], "up"],
  [["/"], "search"],
  [["?"], "these keys"],
];
const help = () => {
  const own = page.told.flatMap(([keys]) => keys);
  const lines = [...page.told, ...TOLD.filter(([[key]]) => !own.includes(key))].map(([keys, text]) => [
    h("dt", {}, keys.map((key) => [h("kbd", {}, key), " "])),
    h("dd", {}, text),
  ]);
  document.getElementById("keys").replaceChildren(...lines.flat());
  document.getElementById("help").showModal();
};

const start = async () => {
  try {
    await begin();
  } catch (error) {
    main.replaceChildren(h("h1", {}, "Nothing can be shown"), h("p", {}, error.message));
    return;
  }
  page.render = render;
  document.getElementById("of").replaceChildren(index ? `${site.architecture} over ${index.data}` : site.architecture);
  const warnings = [
    site.random && ["The weights are random.", " This network has learned nothing: nothing below means anything."],
    index && !index.complete && ["A part of the data set.", " Not all of its images are in this atlas."],
    index &&
      index.missing > 0 && [
        `${count(index.missing, "photo")} could not be shown.`,
        " They are gone, or are others by now; their places are grey and say why.",
      ],
  ].filter(Boolean);
  document
    .getElementById("warnings")
    .replaceChildren(...warnings.map(([strong, text]) => h("p", { class: "warning" }, h("strong", {}, strong), text)));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  // Tiles have the shape of the network's input.
  document.documentElement.style.setProperty("--aspect", site.input[1] / site.input[0]);
  history.scrollRestoration = "manual";
  window.addEventListener("hashchange", () => {
    if (!wasChosen()) render();
  });
  window.addEventListener("scroll", remember, { passive: true });
  document.addEventListener("keydown", pressed);
  takePhotos();
  render();
};

start();
