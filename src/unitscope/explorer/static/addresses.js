// Addresses: every state of a page is one.

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
export const address = (parts, query) => {
  const text = query ? String(query) : "";
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
};
let expected = null;
// Another state of the page that is shown: what is chosen step by step can be gone back through, typing cannot.
export const choose = (changes, step) => {
  const { parts, query } = parsed();
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const before = location.hash;
  const next = address(parts, query);
  if (next === before) return;
  try {
    // Many times faster than to set the hash, and nobody is told of it.
    if (step) history.pushState(null, "", next);
    else history.replaceState(history.state, "", next);
  } catch {
    // Some browsers allow that to no pages from disk.
    if (step) location.hash = next;
    else location.replace(next);
    expected = location.hash === before ? null : location.hash;
  }
};
// Whether the address is one that was just chosen, so that its page is shown already; it may be told of several times,
// as choices that come quickly are told one by one.
export const wasChosen = () => {
  const known = location.hash === expected;
  if (!known) expected = null;
  return known;
};
// What of a page's choices goes along from the list to a unit and back.
export const LIST = ["sort", "q", "show", "class", "category"];
export const listed = (query) =>
  new URLSearchParams(LIST.filter((name) => query.get(name)).map((name) => [name, query.get(name)]));
