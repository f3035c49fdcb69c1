// Sets of numbers as they stand in addresses: "3,7-12".

/** @param {Set<number>} set */
export const written = (set) => {
  /** @type {[from: number, to: number][]} */
  const ranges = [];
  for (const value of [...set].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last[1] === value - 1) last[1] = value;
    else ranges.push([value, value]);
  }
  return ranges.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join(",");
};

/**
 * The numbers below a limit that a text names. Addresses are typed and cut short, so anything
 * else in the text is ignored.
 * @param {string | null} text
 * @param {number} limit
 */
export const setOf = (text, limit) => {
  /** @type {Set<number>} */
  const numbers = new Set();
  for (const part of (text || "").split(",")) {
    const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    if (from === undefined) continue;
    const last = Math.min(Number(to ?? from), limit - 1);
    for (let value = Number(from); value <= last; value++) numbers.add(value);
  }
  return numbers;
};

/**
 * A whole number in an address, or null for anything else.
 * @param {string | null | undefined} text
 * @param {number} most
 */
export const wholeOf = (text, most) =>
  /^\d{1,9}$/.test(text || "") && Number(text) <= most ? Number(text) : null;
