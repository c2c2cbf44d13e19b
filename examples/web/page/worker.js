// Runs the model apart from the page, which stays responsive.
import init, { Files, Model, last_panic } from "./hybridnorm_web.js";

const INDEX = "model.safetensors.index.json";
const BREATH = 30; // milliseconds between looks at what the page has to say

let started = null;
let model = null;
let stopped = false;
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  if (data.chore === "stop") stopped = true;
  else queue = queue.then(() => run(data));
};

async function run(data) {
  try {
    self.postMessage({ id: data.id, answer: await chores[data.chore](data) });
  } catch (error) {
    const dead = error instanceof WebAssembly.RuntimeError;
    const message = dead ? `the model's code gave up: ${last_panic() || error.message}` : error?.message ?? String(error);
    self.postMessage({ id: data.id, failed: message, dead });
  }
}

// The library, fetched once; a fetch that failed is not kept.
function library() {
  started ??= init().catch((error) => {
    started = null;
    throw new Error(`hybridnorm_web_bg.wasm: ${error.message}`);
  });
  return started;
}

const chores = {
  // Whether there is a GPU, and if not, why.
  async gpu() {
    if (!self.isSecureContext) return { reason: "only over https or on localhost" };
    if (!navigator.gpu) return { reason: "this browser has none" };
    const adapter = await navigator.gpu.requestAdapter().catch(() => null);
    return adapter ? {} : { reason: "this browser found no adapter" };
  },

  // `address` of a folder with the `names` of its files where they are known, or `files` themselves.
  async open({ address, names, files, device }) {
    await library();
    const held = new Files();
    if (files) for (const file of files) held.add(file.name, new Uint8Array(await file.arrayBuffer()));
    else await fetched(held, address.replace(/\/$/, ""), names);
    const opened = await Model.open(held, device);
    model?.free();
    model = opened;
    return JSON.parse(model.facts());
  },

  async write({ id, request }) {
    if (!model) throw new Error("no model is open");
    stopped = false;
    let looked = performance.now();
    const emit = (text) => {
      self.postMessage({ id, text });
      if (performance.now() - looked < BREATH) return true;
      looked = performance.now();
      return new Promise((then) => setTimeout(() => then(!stopped)));
    };
    const figures = JSON.parse(await model.write(JSON.stringify(request), emit));
    return { ...figures, stopped };
  },
};

async function fetched(held, address, names) {
  if (!names) {
    names = ["config.json", "tokenizer.json"];
    if (await exists(`${address}/generation_config.json`)) names.push("generation_config.json");
    if (await exists(`${address}/${INDEX}`)) {
      const index = await (await answer(`${address}/${INDEX}`)).json();
      names.push(INDEX, ...new Set(Object.values(index.weight_map ?? {})));
    } else names.push("model.safetensors");
  }
  for (const name of names) held.add(name, new Uint8Array(await (await answer(`${address}/${name}`)).arrayBuffer()));
}

async function exists(address) {
  const found = await fetch(address, { method: "HEAD" }).catch(() => null);
  return found?.ok ?? false;
}

async function answer(address) {
  const found = await fetch(address).catch((error) => { throw new Error(`${address}: ${error.message}`); });
  if (!found.ok) throw new Error(`${address}: the server says ${found.status} ${found.statusText}`);
  return found;
}
