// How numbers are written.

/**
 * Writes a number.
 * @typedef {(value: number) => string} Format
 */
/**
 * A value that may not have been measured.
 * @typedef {number | null | undefined} Estimate
 */

/** @param {number} exponent */
export const superscript = (exponent) =>
  String(exponent)
    .replace("-", "⁻")
    .replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹".charAt(Number(digit)));

/** @param {number} value */
export const power = (value) => {
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return `${mantissa} × 10${superscript(Number(exponent))}`;
};

/**
 * A number with so many digits after the point, as a power of ten if it is tiny or huge.
 * @param {Estimate} value
 * @param {number} [digits]
 * @param {boolean} [signed] Whether positive numbers get a plus.
 */
export const number = (value, digits = 2, signed = false) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const extreme = value !== 0 && (size < 0.5 * 10 ** -digits || size >= 1e5);
  const text = extreme ? power(size) : size.toFixed(digits);
  if (value < 0) return `−${text}`;
  return signed && value > 0 ? `+${text}` : text;
};

/**
 * A share as a percentage. What only rounds to 0% or 100% is written as less or more than it.
 * @param {Estimate} value
 * @param {number} [digits]
 */
export const percent = (value, digits = 1) => {
  if (value === null || value === undefined) return "–";
  const step = 10 ** -digits;
  if (value > 0 && value < step / 200) return `<${step.toFixed(digits)}%`;
  const text = (100 * value).toFixed(digits);
  return value < 1 && Number(text) === 100 ? `>${(100 - step).toFixed(digits)}%` : `${text}%`;
};

/**
 * A change of a share, in percentage points.
 * @param {number} value
 */
export const points = (value) => `${number(100 * value, 2, true)} points`;

/**
 * A whole number with its thousands apart.
 * @param {number} value
 */
export const thousands = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, " ");

/**
 * So many things: "1 unit", "2 classes".
 * @param {number} value
 * @param {string} noun
 */
export const count = (value, noun) => {
  const plural = /(s|ch)$/.test(noun) ? "es" : "s";
  return `${thousands(value)} ${noun}${value === 1 ? "" : plural}`;
};

/**
 * Writes activations with enough digits to tell apart those of this size: 12.59, 0.252.
 * @param {number} largest
 * @returns {(value: Estimate) => string}
 */
export const like = (largest) => {
  const digits = largest > 0 ? Math.min(5, Math.max(2, 2 - Math.floor(Math.log10(largest)))) : 2;
  return (value) => number(value, digits);
};

/**
 * The ends of an interval; empty if there is none.
 * @param {Estimate} low
 * @param {Estimate} high
 * @param {Format} [format]
 */
export const interval = (low, high, format = number) => {
  if (low === null || low === undefined || high === null || high === undefined) return "";
  return `${format(low)}${low < 0 ? " to " : "–"}${format(high)}`;
};

export const INTERVAL = "95% interval";
