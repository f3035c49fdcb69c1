// Sets of numbers as they stand in addresses: "3,7-12".

export const written = (set) => {
  const parts = [];
  for (const value of [...set].sort((a, b) => a - b)) {
    const last = parts[parts.length - 1];
    if (last && last[1] === value - 1) last[1] = value;
    else parts.push([value, value]);
  }
  return parts.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join(",");
};

// Whatever is no number, or not below the limit, is left out: addresses are typed and cut short.
export const setOf = (text, limit) => {
  const found = new Set();
  for (const part of (text || "").split(",")) {
    const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(part) || [];
    if (from === undefined) continue;
    for (let value = Number(from); value <= Math.min(Number(to ?? from), limit - 1); value++) found.add(value);
  }
  return found;
};
