// Documents, fetched by name when they are needed.

// The first document; the part of it that is of an atlas, if there is one.
export let site = null;
export let index = null;

const loaded = new Map();

const answerOf = async (answer) => {
  if (answer.ok) return answer.json();
  const { error } = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  throw new Error(error);
};
const reached = (asked) =>
  asked.catch((error) => {
    throw error instanceof TypeError ? new Error("The server does not answer: is `unitscope explore` still running?") : error;
  });

// What was loaded is kept, unless it could not be had: `query` tells documents of one name apart.
export const load = (name, query = "") => {
  const path = `data/${name}.json${query}`;
  if (!loaded.has(path)) {
    const found = reached(fetch(path).then(answerOf));
    found.catch(() => loaded.delete(path));
    loaded.set(path, found);
  }
  return loaded.get(path);
};

// What a live server is asked to do: `body` is sent as it is.
export const send = (name, body, headers) =>
  reached(fetch(`data/${name}`, { method: "POST", body, headers }).then(answerOf));

// Why a picture is not there: the server says so in place of it.
export const reasonOf = async (address) => {
  const answer = await fetch(address).catch(() => null);
  if (!answer) return "the server does not answer";
  const { error } = await answer.json().catch(() => ({ error: "picture not found" }));
  return error;
};

export const begin = async () => {
  site = await load("index");
  index = site.atlas;
};
