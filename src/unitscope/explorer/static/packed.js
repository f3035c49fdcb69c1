// Arrays that documents hold as base64.

/**
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
export const bytes = (text) => {
  const characters = atob(text);
  const values = new Uint8Array(characters.length);
  // A plain loop: a head has millions of weights.
  for (let place = 0; place < values.length; place++) values[place] = characters.charCodeAt(place);
  return values;
};

/** @param {string} text */
export const floats = (text) => new Float32Array(bytes(text).buffer);
