// Cards of units: a few as a list, or all of a layer, of which only those near the window are there.
import { address } from "./addresses.js";
import { spark } from "./charts.js";
import { index, reasonOf, site } from "./data.js";
import { breakable, h, svg } from "./dom.js";
import { contourPath, mapsOf } from "./maps.js";
import { levelOf, noteOf, spritePath } from "./tiles.js";
import { named, unitOf, value } from "./units.js";

// A card shows so many top images, in one picture of so many columns.
const STRIP = 6;
const ABREAST = 3;

const outlines = (maps, layer, level) => {
  const corner = (rank) => [100 * (rank % ABREAST), 100 * Math.floor(rank / ABREAST)];
  const line = maps.map((map, rank) => contourPath(map, level, layer, site.input, 32, corner(rank))).join("");
  const empty = Array.from({ length: STRIP - maps.length }, (_, place) => corner(maps.length + place));
  const box = { class: "contour", viewBox: "0 0 300 200", preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg(
    "svg",
    box,
    ...(line ? [svg("path", { class: "halo", d: line }), svg("path", { class: "line", d: line })] : []),
    svg("path", { class: "empty", d: empty.map(([x, y]) => `M${x} ${y}h100v100h-100z`).join("") }),
    svg("path", { class: "gaps", d: "M100 0V200M200 0V200M0 100H300" }),
  );
};

const fill = async (card) => {
  const { place, unit } = card.unit;
  const layer = index.layers[place];
  const strip = card.querySelector(".strip");
  // A unit that never fires has no top images to speak of.
  if (value(layer, "dead", unit) || strip.childElementCount) return;
  try {
    const [detail, images] = await unitOf(place, unit);
    if (!card.isConnected || strip.childElementCount) return;
    const rows = detail.maximum.images.slice(0, STRIP).map((image) => images[image]);
    const notes = rows.map(noteOf);
    const note = (text) => h("span", { class: text ? "missing" : "there" }, text && h("span", { class: "note" }, text));
    const path = spritePath(place, unit);
    const picture = h("img", { src: path, alt: "", decoding: "async" });
    picture.onerror = async () => {
      const reason = await reasonOf(path);
      strip.replaceChildren(...rows.map(() => note(reason)));
    };
    if (notes.some((text) => !text)) {
      strip.append(picture, outlines(mapsOf(detail.maximum, layer).slice(0, STRIP), layer, levelOf(layer, unit)));
    }
    if (notes.some(Boolean)) strip.append(...notes.map(note));
  } catch (error) {
    strip.replaceChildren(h("span", { class: "note" }, error.message));
  }
};

// `told` may give a score and why the unit is here, another address, and its place in a list of so many.
const card = (place, unit, told) => {
  const layer = index.layers[place];
  const who = named(layer, unit);
  const element = h(
    "li",
    { class: `card ${who.kind}`, "aria-posinset": told.position, "aria-setsize": told.of },
    h(
      "a",
      { href: told.href || address(["unit", layer.name, unit]) },
      h(
        "span",
        { class: "card-head" },
        h("span", { class: "unit" }, String(unit)),
        h("span", { class: "name" }, breakable(who.name)),
      ),
      h(
        "span",
        { class: "card-why" },
        h("span", { class: "why" }, told.why || who.why),
        h("span", { class: "score" }, told.score),
      ),
      h("span", { class: "strip" }),
      spark(layer.columns.spark[unit], layer.bins.edges, who.kind === "dead" ? 0 : value(layer, "threshold", unit)),
    ),
  );
  element.unit = { place, unit };
  return element;
};

const nearWindow = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      nearWindow.unobserve(target);
      fill(target);
    }
  },
  { rootMargin: "600px 0px" },
);
// A few cards, each filled when it comes near the window: from rows of a layer's place, a unit and what is told of it.
export const cards = (rows) => {
  const list = h("ol", { class: "cards", role: "list" });
  for (const [place, unit, told] of rows) {
    list.append(card(place, unit, told));
    nearWindow.observe(list.lastChild);
  }
  return list;
};

// So much above and below the window is there too; a card that only flies by is not filled.
const BEYOND = 700;
const FLIES_BY = 80;

// All cards of a layer. `show(units, told)` takes them in order, with what is told of each; only those near the window
// are in the page, at the places where they would lie in a grid of the style's columns. To be called once the list is.
export const cardGrid = (place) => {
  const list = h("ol", { class: "cards many", role: "list" });
  const there = new Map();
  let units = [];
  let told = () => ({});
  let grid = { columns: 1, across: 0, down: 0 };
  let asked = 0;

  const focused = () => {
    const within = document.activeElement && document.activeElement.closest(".cards.many > li");
    return within ? within.at : -1;
  };
  const made = (at) => {
    const element = card(place, units[at], { ...told(units[at]), position: at + 1, of: units.length });
    element.at = at;
    // The style sheet says how large a card is; where it lies depends on how many fit beside each other.
    const [x, y] = [(at % grid.columns) * grid.across, Math.floor(at / grid.columns) * grid.down];
    element.style.transform = `translate(${x}px, ${y}px)`;
    setTimeout(() => element.isConnected && fill(element), FLIES_BY);
    return element;
  };
  const update = () => {
    if (!units.length) return;
    const { top } = list.getBoundingClientRect();
    const from = grid.columns * Math.max(0, Math.floor((-top - BEYOND) / grid.down));
    const to = Math.min(units.length, grid.columns * Math.ceil((window.innerHeight - top + BEYOND) / grid.down));
    // The card that has the focus stays, wherever it is, with those beside it, which the tab key goes to.
    const kept = focused();
    const now = new Set();
    for (let at = from; at < to; at++) now.add(at);
    if (kept >= 0) for (let at = Math.max(0, kept - 1); at < Math.min(units.length, kept + 2); at++) now.add(at);
    const wanted = [...now].sort((a, b) => a - b);
    for (const [at, element] of there) {
      if (now.has(at)) continue;
      element.remove();
      there.delete(at);
    }
    // In the order of the units, as the tab key goes; those that are there are not moved, so that none loses the focus.
    let next = list.firstChild;
    for (const at of wanted) {
      if (there.has(at)) next = there.get(at).nextSibling;
      else {
        there.set(at, made(at));
        list.insertBefore(there.get(at), next);
      }
    }
  };
  const measure = () => {
    for (const element of there.values()) element.remove();
    there.clear();
    list.style.height = "";
    if (!units.length) return;
    const style = getComputedStyle(list);
    const widths = style.gridTemplateColumns.split(" ");
    const width = parseFloat(widths[0]);
    list.style.setProperty("--card", `${width}px`);
    const probe = list.appendChild(card(place, units[0], told(units[0])));
    const height = probe.offsetHeight;
    probe.remove();
    grid = {
      columns: widths.length,
      across: width + parseFloat(style.columnGap),
      down: height + parseFloat(style.rowGap),
    };
    list.style.height = `${Math.ceil(units.length / grid.columns) * grid.down - parseFloat(style.rowGap)}px`;
    update();
  };

  const later = () => {
    if (!asked) asked = requestAnimationFrame(() => ((asked = 0), update()));
  };
  // In another width other cards stand side by side: the one that was on top stays there.
  let wide = 0;
  const resized = new ResizeObserver(() => {
    if (list.clientWidth === wide || !wide) {
      wide = list.clientWidth;
      return later();
    }
    wide = list.clientWidth;
    const { top } = list.getBoundingClientRect();
    const first = top < 0 ? grid.columns * Math.floor(-top / grid.down) : -1;
    const kept = focused();
    measure();
    if (kept >= 0) go(kept);
    else if (first >= 0)
      window.scrollBy(0, list.getBoundingClientRect().top + Math.floor(first / grid.columns) * grid.down);
  });
  resized.observe(list);
  window.addEventListener("scroll", later, { passive: true });
  // The tab key may come faster than frames, too.
  list.addEventListener("focusin", update);

  const go = (at) => {
    // Keys may come faster than frames.
    if (!there.has(at)) update();
    if (!there.has(at)) {
      const { top } = list.getBoundingClientRect();
      window.scrollBy(0, top + Math.floor(at / grid.columns) * grid.down - window.innerHeight / 3);
      update();
    }
    there.get(at).firstChild.focus({ preventScroll: true });
    there.get(at).firstChild.scrollIntoView({ block: "nearest" });
  };

  return {
    list,
    show: (chosen, say) => {
      [units, told] = [chosen, say];
      measure();
    },
    // To the card after or before that which has the focus; from nowhere, to the first that is seen.
    step: (by) => {
      if (!units.length) return;
      const now = focused();
      const { top } = list.getBoundingClientRect();
      const seen = grid.columns * Math.max(0, Math.ceil((80 - top - grid.down) / grid.down));
      go(Math.min(units.length - 1, Math.max(0, now < 0 ? seen : now + by)));
    },
    leave: () => {
      window.removeEventListener("scroll", later);
      resized.disconnect();
    },
  };
};
