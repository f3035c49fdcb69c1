// How numbers are written.

export const superscript = (exponent) =>
  String(exponent)
    .replace("-", "⁻")
    .replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
export const power = (value) => {
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return `${mantissa} × 10${superscript(Number(exponent))}`;
};
export const number = (value, digits = 2, signed = false) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = value !== 0 && (size < 0.5 * 10 ** -digits || size >= 1e5) ? power(size) : size.toFixed(digits);
  return (value < 0 ? "−" : signed && value > 0 ? "+" : "") + text;
};
export const percent = (value, digits = 1) => {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.5 * 10 ** -(digits + 2)) return `<${(10 ** -digits).toFixed(digits)}%`;
  const text = (100 * value).toFixed(digits);
  return value < 1 && Number(text) === 100 ? `>${(100 - 10 ** -digits).toFixed(digits)}%` : `${text}%`;
};
export const points = (value) => `${number(100 * value, 2, true)} points`;
export const count = (value, noun) => {
  const shown = String(value).replace(/\B(?=(\d{3})+$)/g, " ");
  return `${shown} ${noun}${value === 1 ? "" : /s$/.test(noun) ? "es" : "s"}`;
};

// Activations with as many digits as tell those of this size apart: 12.59, 0.252.
export const like = (largest) => {
  const digits = largest > 0 ? Math.min(5, Math.max(2, 2 - Math.floor(Math.log10(largest)))) : 2;
  return (shown) => number(shown, digits);
};

export const interval = (low, high, format = number) =>
  low === null || low === undefined ? "" : `${format(low)}${low < 0 ? " to " : "–"}${format(high)}`;
export const INTERVAL = "95% interval";
