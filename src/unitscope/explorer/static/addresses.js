// Addresses: every state of a page is one.

/** What the address says: the parts of its path, and its query. */
export const parsed = () => {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { parts, query: new URLSearchParams(query || "") };
};

/**
 * @param {(string | number)[]} parts
 * @param {URLSearchParams} [query]
 */
export const address = (parts, query) => {
  const text = query ? String(query) : "";
  return `#/${parts.map((part) => encodeURIComponent(part)).join("/")}${text ? `?${text}` : ""}`;
};

/** @type {string | null} */
let expected = null;

/**
 * Change the state of the page that is shown. The back button undoes a `step`; typing is not one.
 * @param {Record<string, string | number | null | undefined>} changes Empty values are removed.
 * @param {boolean} step
 */
export const choose = (changes, step) => {
  const { parts, query } = parsed();
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, String(value));
    else query.delete(name);
  }
  const before = location.hash;
  const next = address(parts, query);
  if (next === before) return;
  try {
    // Many times faster than setting the hash, and it fires no event.
    if (step) history.pushState(null, "", next);
    else history.replaceState(history.state, "", next);
  } catch {
    // Some browsers forbid that to pages from disk.
    if (step) location.hash = next;
    else location.replace(next);
    expected = location.hash === before ? null : location.hash;
  }
};

/**
 * Whether the address is the one that `choose` just set, whose page is shown already. Quick
 * choices fire one event each, so the same address can come several times.
 */
export const wasChosen = () => {
  const known = location.hash === expected;
  if (!known) expected = null;
  return known;
};

/** The choices that go along from the list of units to a unit and back. */
export const LIST = ["sort", "q", "show", "class", "category"];

/**
 * The parts of a query with these names.
 * @param {URLSearchParams} query
 * @param {string[]} names
 */
export const selected = (query, names) =>
  new URLSearchParams(
    names.flatMap((name) => {
      const value = query.get(name);
      return value ? [[name, value]] : [];
    }),
  );

/** @param {URLSearchParams} query */
export const listed = (query) => selected(query, LIST);
