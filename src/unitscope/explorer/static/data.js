// Documents, fetched by name when they are needed.

/** @type {Map<string, Promise<any>>} */
const loaded = new Map();

/**
 * @param {Response} answer
 * @returns {Promise<any>}
 */
const answerOf = async (answer) => {
  if (answer.ok) return answer.json();
  const { error } = await answer
    .json()
    .catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  throw new Error(error);
};

/**
 * @template T
 * @param {Promise<T>} asked
 */
const reached = (asked) =>
  asked.catch((error) => {
    // What `fetch` throws where nothing answers.
    throw error instanceof TypeError
      ? new Error("The server does not answer: is `unitscope explore` still running?")
      : error;
  });

/**
 * A document, loaded once unless it fails.
 * @template {string} Name
 * @param {Name} name
 * @param {string} [query] Tells documents of one name apart.
 * @returns {Promise<Documents.Named<Name>>}
 */
export const load = (name, query = "") => {
  const path = `data/${name}.json${query}`;
  const known = loaded.get(path);
  if (known) return known;
  const document = reached(fetch(path).then(answerOf));
  document.catch(() => loaded.delete(path));
  loaded.set(path, document);
  return document;
};

/**
 * What a live server computes from `body`.
 * @template {string} Name
 * @param {Name} name
 * @param {BodyInit} body
 * @param {HeadersInit} headers
 * @returns {Promise<Documents.Named<Name>>}
 */
export const send = (name, body, headers) =>
  reached(fetch(`data/${name}`, { method: "POST", body, headers }).then(answerOf));

/**
 * Why a picture is missing: the server says so in its place.
 * @param {string} address
 * @returns {Promise<string>}
 */
export const reasonOf = async (address) => {
  const answer = await fetch(address).catch(() => null);
  if (!answer) return "the server does not answer";
  const { error } = await answer.json().catch(() => ({ error: "picture not found" }));
  return error;
};
